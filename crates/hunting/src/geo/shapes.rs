//! GeoJSON geometries (RFC 7946) with the checks that Kusto's functions make.

use super::sphere::{self, Point, RADIUS};
use serde_json::{Value, json};

/// Line strings of two points or more.
#[derive(Clone, Debug)]
pub struct Lines(pub Vec<Vec<Point>>);

/// A shell and its holes, open rings, the shell anticlockwise.
pub type Polygon = Vec<Vec<Point>>;

#[derive(Clone, Debug)]
pub struct Polygons(pub Vec<Polygon>);

fn position(value: &Value) -> Option<Point> {
    let [longitude, latitude, ..] = value.as_array()?.as_slice() else { return None };
    Point::of(longitude.as_f64()?, latitude.as_f64()?)
}

fn positions(value: &Value) -> Option<Vec<Point>> {
    value.as_array()?.iter().map(position).collect()
}

pub fn point_json(point: Point) -> Value {
    json!({"type": "Point", "coordinates": pair(point)})
}

pub fn pair(point: Point) -> Value {
    let (longitude, latitude) = point.degrees();
    json!([longitude, latitude])
}

impl Lines {
    pub fn read(value: &Value) -> Option<Lines> {
        let coordinates = value.get("coordinates")?;
        let lines = match value.get("type")?.as_str()? {
            "LineString" => vec![positions(coordinates)?],
            "MultiLineString" => {
                coordinates.as_array()?.iter().map(positions).collect::<Option<Vec<_>>>()?
            }
            _ => return None,
        };
        let long = |line: &Vec<Point>| line.windows(2).any(|edge| edge[0] != edge[1]);
        (!lines.is_empty() && lines.iter().all(long)).then_some(Lines(lines))
    }

    pub fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        self.0.iter().flat_map(|line| line.windows(2).map(|edge| (edge[0], edge[1])))
    }

    pub fn json(&self) -> Value {
        let all: Vec<Value> =
            self.0.iter().map(|line| line.iter().map(|p| pair(*p)).collect()).collect();
        match all.as_slice() {
            [] => json!({"type": "GeometryCollection", "geometries": []}),
            [one] => json!({"type": "LineString", "coordinates": one}),
            _ => json!({"type": "MultiLineString", "coordinates": all}),
        }
    }

    /// Metres.
    pub fn length(&self) -> f64 {
        self.edges().map(|(a, b)| a.angle(b)).sum::<f64>() * RADIUS
    }

    pub fn nearest(&self, point: Point) -> Option<Point> {
        nearest(point, self.edges())
    }
}

impl Polygons {
    pub fn read(value: &Value) -> Option<Polygons> {
        let coordinates = value.get("coordinates")?;
        let polygons = match value.get("type")?.as_str()? {
            "Polygon" => vec![polygon(coordinates)?],
            "MultiPolygon" => {
                coordinates.as_array()?.iter().map(polygon).collect::<Option<Vec<_>>>()?
            }
            _ => return None,
        };
        (!polygons.is_empty()).then_some(Polygons(polygons))
    }

    pub fn rings(&self) -> impl Iterator<Item = &Vec<Point>> {
        self.0.iter().flatten()
    }

    pub fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        self.rings()
            .flat_map(|ring| ring.iter().zip(ring.iter().cycle().skip(1)).map(|(a, b)| (*a, *b)))
    }

    /// Square metres.
    pub fn area(&self) -> f64 {
        let ring = |(at, ring): (usize, &Vec<Point>)| {
            let area = sphere::area(ring).abs();
            if at == 0 { area } else { -area }
        };
        let polygon = |polygon: &Polygon| polygon.iter().enumerate().map(ring).sum::<f64>();
        self.0.iter().map(polygon).sum::<f64>() * RADIUS * RADIUS
    }

    /// Metres.
    pub fn perimeter(&self) -> f64 {
        self.edges().map(|(a, b)| a.angle(b)).sum::<f64>() * RADIUS
    }

    pub fn centroid(&self) -> Option<Point> {
        self.rings().fold(Point([0.0; 3]), |sum, ring| sum.plus(sphere::moment(ring))).unit()
    }

    pub fn contains(&self, point: Point) -> bool {
        self.0.iter().any(|polygon| {
            let (shell, holes) = (&polygon[0], &polygon[1..]);
            around(point, shell) && !holes.iter().any(|hole| around(point, hole))
        })
    }

    pub fn nearest(&self, point: Point) -> Option<Point> {
        if self.contains(point) { Some(point) } else { nearest(point, self.edges()) }
    }

    pub fn json(&self) -> Value {
        let ring = |ring: &Vec<Point>| -> Value {
            ring.iter().chain(ring.first()).map(|p| pair(*p)).collect()
        };
        let all: Vec<Value> =
            self.0.iter().map(|polygon| polygon.iter().map(ring).collect()).collect();
        match all.as_slice() {
            [] => json!({"type": "GeometryCollection", "geometries": []}),
            [one] => json!({"type": "Polygon", "coordinates": one}),
            _ => json!({"type": "MultiPolygon", "coordinates": all}),
        }
    }
}

fn polygon(value: &Value) -> Option<Polygon> {
    let mut polygon = value.as_array()?.iter().map(ring).collect::<Option<Polygon>>()?;
    for (at, ring) in polygon.iter_mut().enumerate() {
        // A ring goes round the smaller side; holes run the other way.
        if (sphere::area_of(ring) > 0.0) != (at == 0) {
            ring.reverse();
        }
    }
    (!polygon.is_empty()).then_some(polygon)
}

/// A ring without its last point, which repeats the first.
fn ring(value: &Value) -> Option<Vec<Point>> {
    let mut ring = positions(value)?;
    if ring.len() > 1 && ring.first() == ring.last() {
        ring.pop();
    }
    ring.dedup();
    let distinct = |(at, point): (usize, &Point)| !ring[..at].contains(point);
    let distinct = ring.iter().enumerate().all(distinct);
    (ring.len() >= 3 && distinct && sphere::area_of(&ring).abs() > 1e-20).then_some(ring)
}

/// Whether a ring goes around a point: the sum of the angles that its arcs are seen under.
fn around(point: Point, ring: &[Point]) -> bool {
    let Some(middle) = sphere::moment(ring).unit() else { return false };
    // A ring goes round the point or round its antipode.
    if point.dot(middle).abs() > 1e-12 && point.dot(middle) < 0.0 && !facing(ring, point) {
        return false;
    }
    let seen =
        |other: Point| -> Option<Point> { other.plus(point.scaled(-other.dot(point))).unit() };
    let mut sum = 0.0;
    for (a, b) in ring.iter().zip(ring.iter().cycle().skip(1)) {
        let (Some(a), Some(b)) = (seen(*a), seen(*b)) else { return true };
        sum += point.dot(a.cross(b)).atan2(a.dot(b));
    }
    sum.abs() > std::f64::consts::PI
}

fn facing(ring: &[Point], point: Point) -> bool {
    ring.iter().any(|vertex| vertex.dot(point) > 0.0)
}

fn nearest(point: Point, edges: impl Iterator<Item = (Point, Point)>) -> Option<Point> {
    edges
        .map(|(a, b)| sphere::nearest(point, a, b))
        .min_by(|a, b| point.angle(*a).total_cmp(&point.angle(*b)))
}

/// Well-known text (OGC 06-103r4) as GeoJSON.
pub fn from_wkt(text: &str) -> Option<Value> {
    let mut reader = Wkt { rest: text };
    let made = reader.geometry()?;
    reader.rest.trim().is_empty().then_some(made)
}

struct Wkt<'t> {
    rest: &'t str,
}

impl Wkt<'_> {
    fn eat(&mut self, mark: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(mark)?;
        Some(())
    }

    fn word(&mut self) -> String {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        self.rest = &text[end..];
        text[..end].to_ascii_uppercase()
    }

    fn number(&mut self) -> Option<Value> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c));
        let (number, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest;
        Some(json!(number.parse::<f64>().ok()?))
    }

    fn position(&mut self) -> Option<Value> {
        Some(json!([self.number()?, self.number()?]))
    }

    fn list(&mut self, item: &mut dyn FnMut(&mut Self) -> Option<Value>) -> Option<Value> {
        self.eat('(')?;
        let mut all = Vec::new();
        loop {
            all.push(item(self)?);
            if self.eat(',').is_none() {
                break;
            }
        }
        self.eat(')')?;
        Some(Value::Array(all))
    }

    fn line(&mut self) -> Option<Value> {
        self.list(&mut Self::position)
    }

    fn polygon(&mut self) -> Option<Value> {
        self.list(&mut Self::line)
    }

    fn geometry(&mut self) -> Option<Value> {
        let (kind, coordinates) = match self.word().as_str() {
            "POINT" => {
                self.eat('(')?;
                let position = self.position()?;
                self.eat(')')?;
                ("Point", position)
            }
            "LINESTRING" => ("LineString", self.line()?),
            "POLYGON" => ("Polygon", self.polygon()?),
            "MULTIPOINT" => {
                // Each point may stand in parentheses of its own.
                let points = self.list(&mut |reader| {
                    let inner = reader.eat('(').is_some();
                    let position = reader.position()?;
                    if inner {
                        reader.eat(')')?;
                    }
                    Some(position)
                })?;
                ("MultiPoint", points)
            }
            "MULTILINESTRING" => ("MultiLineString", self.polygon()?),
            "MULTIPOLYGON" => ("MultiPolygon", self.list(&mut Self::polygon)?),
            "GEOMETRYCOLLECTION" => {
                let all = self.list(&mut Self::geometry)?;
                return Some(json!({"type": "GeometryCollection", "geometries": all}));
            }
            _ => return None,
        };
        Some(json!({"type": kind, "coordinates": coordinates}))
    }
}
