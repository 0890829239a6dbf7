//! Intersections, unions and buffers.
//!
//! Polygons are laid over each other in the gnomonic projection around their middle, in which arcs
//! of great circles are straight; what reaches further than 85° from there has no answer.

use super::shapes::{Lines, Polygons, point_json};
use super::sphere::{self, Point, RADIUS};
use geo::{BooleanOps as _, Coord, LineString, MultiPolygon, Polygon};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What of two areas is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Both,
    Either,
}

/// The plane that touches the sphere in a point.
struct Plane {
    middle: Point,
    east: Point,
    north: Point,
}

impl Plane {
    fn around(points: impl Iterator<Item = Point>) -> Option<Plane> {
        let middle = points.fold(Point([0.0; 3]), Point::plus).unit()?;
        let pole = Point([0.0, 0.0, 1.0]);
        let east = pole.cross(middle).unit().unwrap_or(Point([1.0, 0.0, 0.0]));
        Some(Plane { middle, east, north: middle.cross(east) })
    }

    fn flat(&self, point: Point) -> Option<Coord<f64>> {
        let depth = point.dot(self.middle);
        (depth > 0.087)
            .then(|| Coord { x: point.dot(self.east) / depth, y: point.dot(self.north) / depth })
    }

    fn round(&self, at: Coord<f64>) -> Option<Point> {
        self.middle.plus(self.east.scaled(at.x)).plus(self.north.scaled(at.y)).unit()
    }

    fn ring(&self, ring: &[Point]) -> Option<LineString<f64>> {
        let points = ring.iter().chain(ring.first()).map(|point| self.flat(*point));
        Some(LineString(points.collect::<Option<_>>()?))
    }

    fn area(&self, polygons: &Polygons) -> Option<MultiPolygon<f64>> {
        let one = |polygon: &Vec<Vec<Point>>| -> Option<Polygon<f64>> {
            let mut rings =
                polygon.iter().map(|ring| self.ring(ring)).collect::<Option<Vec<_>>>()?;
            let shell = rings.remove(0);
            Some(Polygon::new(shell, rings))
        };
        Some(MultiPolygon(polygons.0.iter().map(one).collect::<Option<_>>()?))
    }

    /// Back on the sphere; vertices that were there before keep their exact place.
    fn polygons(&self, area: &MultiPolygon<f64>, known: &[Point]) -> Option<Polygons> {
        let exact = |at: &Coord<f64>| -> Option<Point> {
            let point = self.round(*at)?;
            let near = known.iter().find(|known| known.angle(point) < SAME * 100.0);
            Some(near.copied().unwrap_or(point))
        };
        let ring = |ring: &LineString<f64>| -> Option<Vec<Point>> {
            let mut points = ring.0.iter().map(exact).collect::<Option<Vec<_>>>()?;
            points.pop();
            tidied(&mut points);
            // It begins at the first vertex that was given.
            let begin = (points.iter().enumerate())
                .filter_map(|(at, p)| Some((known.iter().position(|known| known == p)?, at)))
                .min();
            points.rotate_left(begin.map_or(0, |(_, at)| at));
            Some(points)
        };
        let one = |polygon: &Polygon<f64>| -> Option<Vec<Vec<Point>>> {
            let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
            let mut rings = rings.map(ring).collect::<Option<Vec<_>>>()?;
            rings.retain(|ring| ring.len() >= 3);
            Some(rings)
        };
        let mut made = area.0.iter().map(one).collect::<Option<Vec<_>>>()?;
        made.retain(|polygon| !polygon.is_empty());
        Some(Polygons(made))
    }
}

/// Leaves out what encloses nothing: repeated points, and ways there and back.
fn tidied(ring: &mut Vec<Point>) {
    let same = |a: Point, b: Point| a.angle(b) < SAME;
    let mut at = 0;
    while ring.len() >= 3 && at < ring.len() {
        let count = ring.len();
        let (next, after) = ((at + 1) % count, (at + 2) % count);
        if same(ring[at], ring[next]) {
            ring.remove(next);
            at = at.saturating_sub(2);
        } else if same(ring[at], ring[after]) {
            let (low, high) = (next.min(after), next.max(after));
            ring.remove(high);
            ring.remove(low);
            at = at.saturating_sub(3);
        } else {
            at += 1;
        }
    }
}

/// Angles (radians) that do not tell points apart; less than a tenth of a millimetre.
const SAME: f64 = 1e-11;

/// Points that all but meet become one, so that shared edges are shared exactly.
fn snapped(all: &[Polygons], known: &mut HashMap<[i64; 3], Point>) -> Vec<Polygons> {
    let mut snap = |point: &Point| {
        let place = point.0.map(|value| (value / SAME / 10.0).round() as i64);
        for x in -1..=1 {
            for y in -1..=1 {
                for z in -1..=1 {
                    let beside = [place[0] + x, place[1] + y, place[2] + z];
                    if let Some(found) = known.get(&beside) {
                        return *found;
                    }
                }
            }
        }
        known.insert(place, *point);
        *point
    };
    let mut ring = |ring: &Vec<Point>| ring.iter().map(&mut snap).collect::<Vec<_>>();
    let mut polygon = |polygon: &Vec<Vec<Point>>| polygon.iter().map(&mut ring).collect::<Vec<_>>();
    all.iter().map(|polygons| Polygons(polygons.0.iter().map(&mut polygon).collect())).collect()
}

/// One area of polygons that may overlap; as they are where they reach too far.
pub fn united(polygons: &Polygons) -> Polygons {
    if polygons.0.len() < 2 {
        return polygons.clone();
    }
    let parts: Vec<Polygons> =
        polygons.0.iter().map(|polygon| Polygons(vec![polygon.clone()])).collect();
    overlaid(&parts, &[], Kind::Either).unwrap_or_else(|| polygons.clone())
}

/// Areas laid over each other: what is in any of `first`, or in that and in any of `second`.
pub fn polygons(first: &[Polygons], second: &[Polygons], kind: Kind) -> Option<Value> {
    Some(overlaid(first, second, kind)?.json())
}

fn overlaid(first: &[Polygons], second: &[Polygons], kind: Kind) -> Option<Polygons> {
    let mut places = HashMap::new();
    let (first, second) = (&snapped(first, &mut places), &snapped(second, &mut places));
    let known: Vec<Point> =
        first.iter().chain(second).flat_map(Polygons::rings).flatten().copied().collect();
    let plane = Plane::around(known.iter().copied())?;
    let union = |all: &[Polygons]| -> Option<MultiPolygon<f64>> {
        let mut areas = all.iter().map(|polygons| plane.area(polygons));
        let first = areas.next()??;
        areas.try_fold(first, |sum, area| Some(sum.union(&area?)))
    };
    let area = match kind {
        Kind::Either => union(first)?,
        Kind::Both => union(first)?.intersection(&union(second)?),
    };
    plane.polygons(&area, &known)
}

/// Points and parts that two lines share.
pub fn lines(a: &Lines, b: &Lines) -> Value {
    let mut points: Vec<Point> = Vec::new();
    let mut parts: Vec<Vec<Point>> = Vec::new();
    let on =
        |point: Point, (c, d): (Point, Point)| sphere::nearest(point, c, d).angle(point) < SAME;
    for (p, q) in a.edges() {
        for (c, d) in b.edges() {
            let inner = [c, d].into_iter().filter(|point| on(*point, (p, q)));
            let mut shared: Vec<Point> =
                [p, q].into_iter().filter(|point| on(*point, (c, d))).chain(inner).collect();
            shared.sort_by(|x, y| p.angle(*x).total_cmp(&p.angle(*y)));
            shared.dedup_by(|x, y| x.angle(*y) < SAME);
            match shared.as_slice() {
                [first, .., last] => parts.push(vec![*first, *last]),
                [one] => points.push(*one),
                [] => points.extend(sphere::crossing(p, q, c, d)),
            }
        }
    }
    points.retain(|point| !parts.iter().any(|part| on(*point, (part[0], part[1]))));
    collected(points, parts)
}

fn collected(mut points: Vec<Point>, parts: Vec<Vec<Point>>) -> Value {
    let mut distinct: Vec<Point> = Vec::new();
    points.retain(|point| {
        let new = !distinct.iter().any(|known| known.angle(*point) < SAME);
        distinct.extend(new.then_some(*point));
        new
    });
    let lines = (!parts.is_empty()).then(|| Lines(parts).json());
    let mut all: Vec<Value> = points.into_iter().map(point_json).chain(lines).collect();
    match all.len() {
        1 => all.remove(0),
        _ => json!({"type": "GeometryCollection", "geometries": all}),
    }
}

/// The parts of a line inside a polygon.
pub fn line_in_polygon(line: &Lines, polygon: &Polygons) -> Value {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    let mut touched = Vec::new();
    for one in &line.0 {
        let mut open: Option<Vec<Point>> = None;
        for edge in one.windows(2) {
            let (a, b) = (edge[0], edge[1]);
            let mut cuts: Vec<Point> = vec![a, b];
            cuts.extend(polygon.edges().filter_map(|(c, d)| sphere::crossing(a, b, c, d)));
            cuts.sort_by(|x, y| a.angle(*x).total_cmp(&a.angle(*y)));
            cuts.dedup_by(|x, y| x.angle(*y) < SAME);
            for cut in cuts.windows(2) {
                let middle = cut[0].towards(cut[1], cut[0].angle(cut[1]) / 2.0);
                if polygon.contains(middle) {
                    open.get_or_insert_with(|| vec![cut[0]]).push(cut[1]);
                } else {
                    parts.extend(open.take());
                    touched.extend(cut.iter().copied());
                }
            }
        }
        parts.extend(open);
    }
    let on_edge = |point: &Point| {
        polygon.edges().any(|(c, d)| sphere::nearest(*point, c, d).angle(*point) < SAME)
    };
    touched.retain(|point| on_edge(point) && !parts.iter().flatten().any(|p| p == point));
    collected(touched, parts)
}

/// Lines that meet end to end as one; an edge that several have counts once.
pub fn joined(all: Vec<Lines>) -> Value {
    let near = |a: Point, b: Point| a.angle(b) < SAME;
    let mut edges: Vec<(Point, Point)> = Vec::new();
    for (a, b) in all.iter().flat_map(Lines::edges) {
        let known =
            |(c, d): &(Point, Point)| (near(a, *c) && near(b, *d)) || (near(a, *d) && near(b, *c));
        if !edges.iter().any(known) {
            edges.push((a, b));
        }
    }
    let mut lines: Vec<Vec<Point>> = Vec::new();
    while !edges.is_empty() {
        let (a, b) = edges.remove(0);
        let mut line = vec![a, b];
        loop {
            let end = line[line.len() - 1];
            let Some(next) = edges.iter().position(|(c, d)| near(*c, end) || near(*d, end)) else {
                break;
            };
            let (c, d) = edges.remove(next);
            line.push(if near(c, end) { d } else { c });
        }
        lines.push(line);
    }
    Lines(lines).json()
}

/// A ring around a point, in metres, anticlockwise.
pub fn circle(at: Point, radius: f64, tolerance: f64) -> Vec<Point> {
    let angle = radius / RADIUS;
    let share = (1.0 - (tolerance / radius).min(0.5)).acos().max(1e-3);
    let count = ((std::f64::consts::PI / share).ceil() as usize).clamp(8, 512);
    let pole = Point([0.0, 0.0, 1.0]);
    let east = pole.cross(at).unit().unwrap_or(Point([1.0, 0.0, 0.0]));
    let north = at.cross(east);
    let ring = (0..count).map(|step| {
        let turn = std::f64::consts::TAU * step as f64 / count as f64;
        let side = east.scaled(turn.cos()).plus(north.scaled(turn.sin()));
        at.scaled(angle.cos()).plus(side.scaled(angle.sin()))
    });
    ring.collect()
}

/// Everything within a radius of edges and areas.
pub fn buffered(
    edges: impl Iterator<Item = (Point, Point)>,
    areas: &[Polygons],
    radius: f64,
    tolerance: f64,
) -> Option<Value> {
    let mut all: Vec<Polygons> = areas.to_vec();
    let angle = radius / RADIUS;
    for (a, b) in edges {
        all.push(Polygons(vec![vec![circle(a, radius, tolerance)]]));
        all.push(Polygons(vec![vec![circle(b, radius, tolerance)]]));
        if let Some(normal) = a.cross(b).unit() {
            let beside = |point: Point, side: f64| point.towards(normal.scaled(side), angle);
            let strip = vec![beside(a, -1.0), beside(b, -1.0), beside(b, 1.0), beside(a, 1.0)];
            all.push(Polygons(vec![vec![strip]]));
        }
    }
    polygons(&all, &[], Kind::Either)
}
