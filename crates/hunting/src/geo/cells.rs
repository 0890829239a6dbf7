//! Grids of cells: geohash, H3, S2.

use super::shapes::{Lines, Polygons};
use super::sphere::{self, Point, RADIUS};
use h3o::{CellIndex, LatLng, Resolution};
use s2::cell::Cell as S2Cell;
use s2::cellid::CellID;
use serde_json::{Value, json};

/// Cells that a covering may have; more is no covering.
const MOST_CELLS: usize = 65_536;

pub fn geohash(longitude: f64, latitude: f64, accuracy: i64) -> Option<String> {
    Point::of(longitude, latitude)?;
    let accuracy = usize::try_from(accuracy).ok().filter(|a| (1..=18).contains(a))?;
    geohash::encode(geohash::Coord { x: longitude, y: latitude }, accuracy.min(12)).ok()
}

pub fn geohash_center(hash: &str) -> Option<Value> {
    let bounds = geohash::decode_bbox(hash).ok().filter(|_| !hash.is_empty())?;
    let center = bounds.center();
    Some(json!({"type": "Point", "coordinates": [center.x, center.y]}))
}

pub fn geohash_polygon(hash: &str) -> Option<Value> {
    let bounds = geohash::decode_bbox(hash).ok().filter(|_| !hash.is_empty())?;
    let (low, high) = (bounds.min(), bounds.max());
    Some(json!({"type": "Polygon", "coordinates": [[
        [low.x, low.y], [high.x, low.y], [high.x, high.y], [low.x, high.y], [low.x, low.y]
    ]]}))
}

pub fn geohash_neighbors(hash: &str) -> Option<Value> {
    let around = geohash::neighbors(hash).ok().filter(|_| !hash.is_empty())?;
    let geohash::Neighbors { n, ne, e, se, s, sw, w, nw } = around;
    Some(json!([w, nw, n, ne, e, se, s, sw]))
}

fn h3(cell: &str) -> Option<CellIndex> {
    cell.parse().ok()
}

fn resolution(value: i64) -> Option<Resolution> {
    Resolution::try_from(u8::try_from(value).ok()?).ok()
}

pub fn h3_cell(longitude: f64, latitude: f64, wanted: i64) -> Option<String> {
    Point::of(longitude, latitude)?;
    Some(LatLng::new(latitude, longitude).ok()?.to_cell(resolution(wanted)?).to_string())
}

pub fn h3_level(cell: &str) -> Option<i64> {
    Some(u8::from(h3(cell)?.resolution()).into())
}

pub fn h3_center(cell: &str) -> Option<Value> {
    let center = LatLng::from(h3(cell)?);
    Some(json!({"type": "Point", "coordinates": [center.lng(), center.lat()]}))
}

pub fn h3_polygon(cell: &str) -> Option<Value> {
    let boundary = h3(cell)?.boundary();
    let mut ring: Vec<Value> =
        boundary.iter().map(|point| json!([point.lng(), point.lat()])).collect();
    ring.extend(ring.first().cloned());
    Some(json!({"type": "Polygon", "coordinates": [ring]}))
}

pub fn h3_parent(cell: &str, wanted: Option<i64>) -> Option<String> {
    let cell = h3(cell)?;
    let wanted = wanted.unwrap_or(i64::from(u8::from(cell.resolution())) - 1);
    Some(cell.parent(resolution(wanted)?)?.to_string())
}

pub fn h3_children(cell: &str, wanted: Option<i64>) -> Option<Value> {
    let cell = h3(cell)?;
    let own = i64::from(u8::from(cell.resolution()));
    let wanted = wanted.unwrap_or(own + 1);
    if wanted <= own || wanted - own > 5 {
        return None;
    }
    Some(cell.children(resolution(wanted)?).map(|child| Value::from(child.to_string())).collect())
}

pub fn h3_neighbors(cell: &str) -> Option<Value> {
    let rings = h3_rings(cell, 1)?;
    rings.get(1).cloned()
}

pub fn h3_rings(cell: &str, distance: i64) -> Option<Value> {
    let cell = h3(cell)?;
    let distance = u32::try_from(distance).ok().filter(|distance| *distance <= 142)?;
    let mut rings = vec![Vec::new(); distance as usize + 1];
    for (found, ring) in cell.grid_disk_distances_safe(distance) {
        rings[ring as usize].push(Value::from(found.to_string()));
    }
    Some(json!(rings))
}

/// Cells whose middle lies in a polygon.
pub fn h3_of_polygon(polygons: &Polygons, wanted: i64) -> Option<Value> {
    let wanted = resolution(wanted)?;
    let mut found = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let cell_at = |point: Point| {
        let (longitude, latitude) = point.degrees();
        LatLng::new(latitude, longitude).ok().map(|at| at.to_cell(wanted))
    };
    // From every vertex and middle outwards, through cells inside and the ones beside the edge.
    let mut waiting: Vec<CellIndex> =
        polygons.rings().flatten().filter_map(|point| cell_at(*point)).collect();
    waiting.extend(polygons.centroid().and_then(cell_at));
    let mut cells: Vec<(CellIndex, u8)> = waiting.into_iter().map(|cell| (cell, 0)).collect();
    while let Some((cell, outside)) = cells.pop() {
        if !seen.insert(cell) {
            continue;
        }
        let center = LatLng::from(cell);
        let inside = Point::of(center.lng(), center.lat()).is_some_and(|p| polygons.contains(p));
        if inside {
            found.push(cell);
            if found.len() > MOST_CELLS {
                return None;
            }
        }
        if inside || outside < 2 {
            let outside = if inside { 0 } else { outside + 1 };
            cells.extend(cell.grid_disk_safe(1).map(|next| (next, outside)));
        }
    }
    found.sort();
    Some(found.into_iter().map(|cell| Value::from(cell.to_string())).collect())
}

fn s2(token: &str) -> Option<CellID> {
    let sound = !token.is_empty() && token.len() <= 16;
    let cell = CellID::from_token(token);
    (sound && cell.0 != 0 && cell.is_valid()).then_some(cell)
}

fn s2_point(point: &s2::point::Point) -> Point {
    Point([point.0.x, point.0.y, point.0.z])
}

pub fn s2_cell(longitude: f64, latitude: f64, level: i64) -> Option<String> {
    Point::of(longitude, latitude)?;
    let level = u64::try_from(level).ok().filter(|level| *level <= 30)?;
    let leaf = CellID::from(s2::latlng::LatLng::from_degrees(latitude, longitude));
    Some(leaf.parent(level).to_token())
}

pub fn s2_center(token: &str) -> Option<Value> {
    let center = s2::point::Point::from(s2(token)?);
    Some(super::shapes::point_json(s2_point(&center).unit()?))
}

fn corners(cell: CellID) -> Vec<Point> {
    S2Cell::from(cell).vertices().iter().filter_map(|point| s2_point(point).unit()).collect()
}

pub fn s2_polygon(token: &str) -> Option<Value> {
    Some(Polygons(vec![vec![corners(s2(token)?)]]).json())
}

pub fn s2_neighbors(token: &str) -> Option<Value> {
    let cell = s2(token)?;
    let level = cell.level();
    let edges = cell.edge_neighbors();
    let corners = cell.all_neighbors(level).into_iter().filter(|found| !edges.contains(found));
    let all = edges.into_iter().chain(corners.collect::<Vec<_>>());
    Some(all.map(|found| Value::from(found.to_token())).collect())
}

/// A region that cells are tested against: further away than metres means no.
pub trait Region {
    /// Whether any of it lies within `reach` radians of the cell.
    fn touches(&self, corners: &[Point], center: Point, reach: f64) -> bool;
}

impl Region for Lines {
    fn touches(&self, corners: &[Point], center: Point, reach: f64) -> bool {
        edges_touch(self.edges(), corners, center, reach)
    }
}

impl Region for Polygons {
    fn touches(&self, corners: &[Point], center: Point, reach: f64) -> bool {
        self.contains(center) || edges_touch(self.edges(), corners, center, reach)
    }
}

fn edges_touch(
    edges: impl Iterator<Item = (Point, Point)>,
    corners: &[Point],
    center: Point,
    reach: f64,
) -> bool {
    let cell = Polygons(vec![vec![corners.to_vec()]]);
    for (a, b) in edges {
        if cell.contains(a) || cell.contains(b) {
            return true;
        }
        let sides = || cell.edges().collect::<Vec<_>>();
        if sides().iter().any(|(c, d)| sphere::crossing(a, b, *c, *d).is_some()) {
            return true;
        }
        if reach > 0.0 {
            let near = |point: &Point| sphere::nearest(*point, a, b).angle(*point) <= reach;
            let side = |(c, d): &(Point, Point)| {
                [a, b].iter().any(|end| sphere::nearest(*end, *c, *d).angle(*end) <= reach)
            };
            if near(&center) || corners.iter().any(near) || sides().iter().any(side) {
                return true;
            }
        }
    }
    false
}

/// The S2 cells of a level that a region touches, within a radius in metres.
pub fn s2_covering(region: &dyn Region, level: i64, radius: f64) -> Option<Value> {
    let level = u64::try_from(level).ok().filter(|level| *level <= 30)?;
    let reach = radius / RADIUS;
    let mut cells: Vec<CellID> = (0..6).map(CellID::from_face).collect();
    for depth in 0..=level {
        cells.retain(|cell| {
            let center = s2_point(&s2::point::Point::from(*cell)).unit();
            center.is_some_and(|center| region.touches(&corners(*cell), center, reach))
        });
        if cells.len() > MOST_CELLS {
            return None;
        }
        if depth < level {
            cells = cells.iter().flat_map(|cell| cell.children()).collect();
        }
    }
    Some(cells.into_iter().map(|cell| Value::from(cell.to_token())).collect())
}
