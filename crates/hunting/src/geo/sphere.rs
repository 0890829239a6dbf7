//! Points and arcs on the unit sphere.

/// Metres; the radius that S2 has.
pub const RADIUS: f64 = 6_371_010.0;

/// A point on the unit sphere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point(pub [f64; 3]);

impl Point {
    /// Degrees; `None` outside of ±180 and ±90.
    pub fn of(longitude: f64, latitude: f64) -> Option<Point> {
        let valid = (-180.0..=180.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude);
        let (lng, lat) = (longitude.to_radians(), latitude.to_radians());
        valid.then(|| Point([lat.cos() * lng.cos(), lat.cos() * lng.sin(), lat.sin()]))
    }

    /// Longitude and latitude in degrees.
    pub fn degrees(self) -> (f64, f64) {
        let [x, y, z] = self.0;
        (y.atan2(x).to_degrees(), z.atan2(x.hypot(y)).to_degrees())
    }

    pub fn dot(self, other: Point) -> f64 {
        self.0.iter().zip(other.0).map(|(a, b)| a * b).sum()
    }

    pub fn cross(self, other: Point) -> Point {
        let ([a, b, c], [d, e, f]) = (self.0, other.0);
        Point([b * f - c * e, c * d - a * f, a * e - b * d])
    }

    pub fn norm(self) -> f64 {
        self.dot(self).sqrt()
    }

    pub fn scaled(self, by: f64) -> Point {
        Point(self.0.map(|value| value * by))
    }

    pub fn plus(self, other: Point) -> Point {
        let ([a, b, c], [d, e, f]) = (self.0, other.0);
        Point([a + d, b + e, c + f])
    }

    /// Of length 1; `None` for the middle of the sphere.
    pub fn unit(self) -> Option<Point> {
        let norm = self.norm();
        (norm > 1e-18).then(|| self.scaled(1.0 / norm))
    }

    /// Radians between two points.
    pub fn angle(self, other: Point) -> f64 {
        self.cross(other).norm().atan2(self.dot(other))
    }

    /// The point at an angle from here towards another, both in radians along the great circle.
    pub fn towards(self, other: Point, angle: f64) -> Point {
        let normal = self.cross(other);
        match normal.cross(self).unit() {
            Some(tangent) => self.scaled(angle.cos()).plus(tangent.scaled(angle.sin())),
            None => self,
        }
    }

    /// The angle at which `other` is seen from here, clockwise from north, 0 … 2π.
    pub fn azimuth(self, other: Point) -> f64 {
        let north = Point([0.0, 0.0, 1.0]);
        let east = north.cross(self);
        let (up, right) = (east_to_north(self, east), east);
        other.dot(right).atan2(other.dot(up)).rem_euclid(std::f64::consts::TAU)
    }
}

fn east_to_north(at: Point, east: Point) -> Point {
    at.cross(east)
}

/// The point of an arc that is nearest to another.
pub fn nearest(point: Point, from: Point, to: Point) -> Point {
    let closer = || if point.angle(from) <= point.angle(to) { from } else { to };
    let Some(normal) = from.cross(to).unit() else { return closer() };
    // The foot of the perpendicular, if it lies within the arc.
    let Some(foot) = point.plus(normal.scaled(-point.dot(normal))).unit() else { return closer() };
    let within = normal.dot(from.cross(foot)) >= 0.0 && normal.dot(foot.cross(to)) >= 0.0;
    if within { foot } else { closer() }
}

/// Where two arcs cross; their ends count. Arcs on one circle do not cross.
pub fn crossing(a: Point, b: Point, c: Point, d: Point) -> Option<Point> {
    for shared in [a, b] {
        if [c, d].iter().any(|other| shared.angle(*other) < 1e-15) {
            return Some(shared);
        }
    }
    let (first, second) = (a.cross(b), c.cross(d));
    let line = first.cross(second).unit()?;
    let within = |point: Point, from: Point, to: Point, normal: Point| {
        normal.dot(from.cross(point)) >= -1e-15 && normal.dot(point.cross(to)) >= -1e-15
    };
    [line, line.scaled(-1.0)]
        .into_iter()
        .find(|point| within(*point, a, b, first) && within(*point, c, d, second))
}

/// The signed area of a ring of arcs in steradians, positive anticlockwise.
pub fn area(ring: &[Point]) -> f64 {
    let Some(first) = ring.first() else { return 0.0 };
    (ring.windows(2).skip(1))
        .map(|edge| {
            let (a, b) = (edge[0], edge[1]);
            let volume = first.dot(a.cross(b));
            2.0 * volume.atan2(1.0 + first.dot(a) + a.dot(b) + b.dot(*first))
        })
        .sum()
}

/// The sum of positions over the area of a ring (half of each arc's angle times its normal).
pub fn moment(ring: &[Point]) -> Point {
    let closed = ring.iter().zip(ring.iter().cycle().skip(1));
    closed.fold(Point([0.0; 3]), |sum, (a, b)| match a.cross(*b).unit() {
        Some(normal) => sum.plus(normal.scaled(a.angle(*b) / 2.0)),
        None => sum,
    })
}

/// [`area`] of an open ring.
pub fn area_of(ring: &[Point]) -> f64 {
    area(ring)
}
