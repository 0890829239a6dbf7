//! Geography: geometries on a sphere, and grids of cells.

mod cells;
mod overlay;
mod shapes;
mod sphere;

use crate::functions::{Cell, RowFunction};
use serde_json::{Value, json};
use shapes::{Lines, Polygons, from_wkt, pair, point_json};
use sphere::{Point, RADIUS};
use vigie_kql::types::Type;

/// What a densified edge may deviate, in metres, where the query does not say.
const TOLERANCE: f64 = 10.0;

pub fn find(name: &str) -> Option<RowFunction> {
    /// A function that is null where an argument does not fit.
    macro_rules! or_null {
        ($kind:ident, |$cells:ident| $work:expr) => {
            |_, $cells| {
                let work = || $work;
                Cell::$kind(work())
            }
        };
    }
    /// As `or_null`, "" instead of null.
    macro_rules! text {
        (|$cells:ident| $work:expr) => {
            |_, $cells| {
                let work = || -> Option<String> { $work };
                Cell::text(work().unwrap_or_default())
            }
        };
    }
    macro_rules! shape {
        (|$cells:ident| $work:expr) => {
            |_, $cells| {
                let work = || -> Option<Value> { $work };
                Cell::from_text(work().map(|made| made.to_string()))
            }
        };
    }
    Some(match name {
        "geo_angle" => or_null!(from_real, |cells| {
            let (a, b, c) = (point(cells, 0)?, point(cells, 2)?, point(cells, 4)?);
            (a != b && b != c)
                .then(|| (b.azimuth(c) - b.azimuth(a)).rem_euclid(std::f64::consts::TAU))
        }),
        "geo_azimuth" => or_null!(from_real, |cells| {
            let (a, b) = (point(cells, 0)?, point(cells, 2)?);
            (a != b).then(|| a.azimuth(b))
        }),
        "geo_distance_2points" => or_null!(from_real, |cells| {
            let (a, b) = (point(cells, 0)?, point(cells, 2)?);
            Some(distance(a, b, cells.get(4)))
        }),
        "geo_distance_point_to_line" => or_null!(from_real, |cells| {
            let (from, line) = (point(cells, 0)?, line(cells, 2)?);
            Some(line.nearest(from)?.angle(from) * RADIUS)
        }),
        "geo_distance_point_to_polygon" => or_null!(from_real, |cells| {
            let (from, polygon) = (point(cells, 0)?, polygon(cells, 2)?);
            Some(polygon.nearest(from)?.angle(from) * RADIUS)
        }),
        "geo_closest_point_on_line" => shape!(|cells| {
            let (from, line) = (point(cells, 0)?, line(cells, 2)?);
            Some(point_json(line.nearest(from)?))
        }),
        "geo_closest_point_on_polygon" => shape!(|cells| {
            let (from, polygon) = (point(cells, 0)?, polygon(cells, 2)?);
            Some(point_json(polygon.nearest(from)?))
        }),
        "geo_point_in_circle" => or_null!(from_bool, |cells| {
            let (a, b) = (point(cells, 0)?, point(cells, 2)?);
            let radius = number(cells, 4).filter(|radius| *radius >= 0.0)?;
            Some(a.angle(b) * RADIUS <= radius)
        }),
        "geo_point_in_polygon" => or_null!(from_bool, |cells| {
            let (at, polygon) = (point(cells, 0)?, polygon(cells, 2)?);
            Some(polygon.contains(at))
        }),
        "geo_line_length" => {
            or_null!(from_real, |cells| Some(line(cells, 0)?.length()))
        }
        "geo_polygon_area" => {
            or_null!(from_real, |cells| Some(overlay::united(&polygon(cells, 0)?).area()))
        }
        "geo_polygon_perimeter" => {
            or_null!(from_real, |cells| Some(overlay::united(&polygon(cells, 0)?).perimeter()))
        }
        "geo_polygon_centroid" => {
            shape!(|cells| Some(point_json(overlay::united(&polygon(cells, 0)?).centroid()?)))
        }
        "geo_line_centroid" => shape!(|cells| {
            let line = line(cells, 0)?;
            let sum = line.edges().fold(Point([0.0; 3]), |sum, (a, b)| {
                let (across, along) = (a.plus(b.scaled(-1.0)), a.plus(b));
                match along.norm() {
                    norm if norm > 0.0 => sum.plus(along.scaled(across.norm() / norm)),
                    _ => sum,
                }
            });
            Some(point_json(sum.unit()?))
        }),
        "geo_line_interpolate_point" => shape!(|cells| {
            let line = line(cells, 0)?;
            let fraction = number(cells, 1).filter(|f| (0.0..=1.0).contains(f))?;
            let mut left = fraction * line.length() / RADIUS;
            let mut last = None;
            for (a, b) in line.edges() {
                let angle = a.angle(b);
                if left <= angle {
                    return Some(point_json(a.towards(b, left)));
                }
                left -= angle;
                last = Some(b);
            }
            last.map(point_json)
        }),
        "geo_line_locate_point" => or_null!(from_real, |cells| {
            let (line, at) = (line(cells, 0)?, point(cells, 1)?);
            let (mut before, mut best) = (0.0, (f64::INFINITY, 0.0));
            for (a, b) in line.edges() {
                let near = sphere::nearest(at, a, b);
                let off = near.angle(at);
                if off < best.0 {
                    best = (off, before + a.angle(near));
                }
                before += a.angle(b);
            }
            (before > 0.0).then(|| best.1 / before)
        }),
        "geo_line_simplify" => shape!(|cells| {
            let tolerance = tolerance(cells, 1, TOLERANCE)?;
            let lines = line(cells, 0)?.0;
            let lines = lines.iter().map(|line| simplified(line, tolerance / RADIUS)).collect();
            Some(Lines(lines).json())
        }),
        "geo_polygon_simplify" => shape!(|cells| {
            let tolerance = tolerance(cells, 1, TOLERANCE)?;
            let polygons = polygon(cells, 0)?;
            Some(simplified_polygons(&polygons, tolerance).json())
        }),
        "geo_simplify_polygons_array" => shape!(|cells| {
            let tolerance = tolerance(cells, 1, TOLERANCE)?;
            let all = array(cells, 0)?;
            let all: Vec<Polygons> = all.iter().map(Polygons::read).collect::<Option<_>>()?;
            let made = all.iter().map(|one| simplified_polygons(one, tolerance).json());
            Some(json!({"type": "GeometryCollection", "geometries": made.collect::<Vec<_>>()}))
        }),
        "geo_line_densify" => shape!(|cells| {
            let tolerance = tolerance(cells, 1, TOLERANCE)?;
            densified(&read(cells, 0)?, tolerance, false)
        }),
        "geo_polygon_densify" => shape!(|cells| {
            let tolerance = tolerance(cells, 1, TOLERANCE)?;
            densified(&read(cells, 0)?, tolerance, true)
        }),
        "geo_intersects_2lines" => or_null!(from_bool, |cells| {
            let (a, b) = (line(cells, 0)?, line(cells, 1)?);
            Some(crosses(a.edges(), || b.edges()))
        }),
        "geo_intersects_line_with_polygon" => or_null!(from_bool, |cells| {
            let (line, polygon) = (line(cells, 0)?, polygon(cells, 1)?);
            let inside = line.0.iter().flatten().any(|point| polygon.contains(*point));
            Some(inside || crosses(line.edges(), || polygon.edges()))
        }),
        "geo_intersects_2polygons" => or_null!(from_bool, |cells| {
            let (a, b) = (polygon(cells, 0)?, polygon(cells, 1)?);
            let inside = |inner: &Polygons, outer: &Polygons| {
                inner.rings().flatten().any(|point| outer.contains(*point))
            };
            Some(inside(&a, &b) || inside(&b, &a) || crosses(a.edges(), || b.edges()))
        }),
        "geo_intersection_2lines" => {
            shape!(|cells| Some(overlay::lines(&line(cells, 0)?, &line(cells, 1)?)))
        }
        "geo_intersection_line_with_polygon" => {
            shape!(|cells| Some(overlay::line_in_polygon(&line(cells, 0)?, &polygon(cells, 1)?)))
        }
        "geo_intersection_2polygons" => shape!(|cells| {
            overlay::polygons(&[polygon(cells, 0)?], &[polygon(cells, 1)?], overlay::Kind::Both)
        }),
        "geo_union_polygons_array" => shape!(|cells| {
            let all = array(cells, 0)?;
            let all: Vec<Polygons> = all.iter().map(Polygons::read).collect::<Option<_>>()?;
            overlay::polygons(&all, &[], overlay::Kind::Either)
        }),
        "geo_union_lines_array" => shape!(|cells| {
            let all = array(cells, 0)?;
            let all: Vec<Lines> = all.iter().map(Lines::read).collect::<Option<_>>()?;
            Some(overlay::joined(all))
        }),
        "geo_point_buffer" => shape!(|cells| {
            let (at, radius) = (point(cells, 0)?, radius(cells, 2)?);
            let tolerance = tolerance(cells, 3, TOLERANCE)?;
            Some(Polygons(vec![vec![overlay::circle(at, radius, tolerance)]]).json())
        }),
        "geo_line_buffer" => shape!(|cells| {
            let (line, radius) = (line(cells, 0)?, radius(cells, 1)?);
            let tolerance = tolerance(cells, 2, TOLERANCE)?;
            overlay::buffered(line.edges(), &[], radius, tolerance)
        }),
        "geo_polygon_buffer" => shape!(|cells| {
            let (polygon, radius) = (polygon(cells, 0)?, radius(cells, 1)?);
            let tolerance = tolerance(cells, 2, TOLERANCE)?;
            overlay::buffered(polygon.edges(), std::slice::from_ref(&polygon), radius, tolerance)
        }),
        "geo_from_wkt" => |call, cells| {
            let made = match call.arguments[0] {
                Type::Dynamic => match serde_json::from_str(cells[0].as_text()) {
                    Ok(Value::Array(all)) => {
                        let all = all.iter().map(|one| from_wkt(one.as_str().unwrap_or_default()));
                        Some(all.map(Option::unwrap_or_default).collect())
                    }
                    Ok(Value::String(text)) => from_wkt(&text),
                    _ => None,
                },
                _ => from_wkt(cells[0].as_text()),
            };
            Cell::from_text(made.map(|made: Value| made.to_string()))
        },
        "geo_point_to_geohash" => text!(|cells| {
            cells::geohash(number(cells, 0)?, number(cells, 1)?, whole(cells, 2, 5)?)
        }),
        "geo_geohash_to_central_point" => shape!(|cells| cells::geohash_center(cells[0].as_text())),
        "geo_geohash_to_polygon" => shape!(|cells| cells::geohash_polygon(cells[0].as_text())),
        "geo_geohash_neighbors" => shape!(|cells| cells::geohash_neighbors(cells[0].as_text())),
        "geo_point_to_h3cell" => text!(|cells| {
            cells::h3_cell(number(cells, 0)?, number(cells, 1)?, whole(cells, 2, 6)?)
        }),
        "geo_h3cell_level" => or_null!(from_long, |cells| cells::h3_level(cells[0].as_text())),
        "geo_h3cell_to_central_point" => shape!(|cells| cells::h3_center(cells[0].as_text())),
        "geo_h3cell_to_polygon" => shape!(|cells| cells::h3_polygon(cells[0].as_text())),
        "geo_h3cell_neighbors" => shape!(|cells| cells::h3_neighbors(cells[0].as_text())),
        "geo_h3cell_parent" => text!(|cells| {
            cells::h3_parent(cells[0].as_text(), cells.get(1).and_then(Cell::as_long))
        }),
        "geo_h3cell_children" => shape!(|cells| {
            cells::h3_children(cells[0].as_text(), cells.get(1).and_then(Cell::as_long))
        }),
        "geo_h3cell_rings" => {
            shape!(|cells| cells::h3_rings(cells[0].as_text(), cells[1].as_long()?))
        }
        "geo_polygon_to_h3cells" => {
            shape!(|cells| cells::h3_of_polygon(&polygon(cells, 0)?, whole(cells, 1, 6)?))
        }
        "geo_point_to_s2cell" => text!(|cells| {
            cells::s2_cell(number(cells, 0)?, number(cells, 1)?, whole(cells, 2, 11)?)
        }),
        "geo_s2cell_to_central_point" => shape!(|cells| cells::s2_center(cells[0].as_text())),
        "geo_s2cell_to_polygon" => shape!(|cells| cells::s2_polygon(cells[0].as_text())),
        "geo_s2cell_neighbors" => shape!(|cells| cells::s2_neighbors(cells[0].as_text())),
        "geo_line_to_s2cells" => shape!(|cells| {
            let radius = number(cells, 2).unwrap_or(0.0);
            cells::s2_covering(&line(cells, 0)?, whole(cells, 1, 11)?, radius)
        }),
        "geo_polygon_to_s2cells" => shape!(|cells| {
            let radius = number(cells, 2).unwrap_or(0.0);
            cells::s2_covering(&polygon(cells, 0)?, whole(cells, 1, 11)?, radius)
        }),
        _ => return None,
    })
}

fn number(cells: &[Cell<'_>], at: usize) -> Option<f64> {
    cells.get(at)?.as_real().filter(|number| number.is_finite())
}

/// A whole number; the default where the argument is missing, nothing where it is null.
fn whole(cells: &[Cell<'_>], at: usize, default: i64) -> Option<i64> {
    match cells.get(at) {
        Some(cell) => cell.as_long(),
        None => Some(default),
    }
}

/// A tolerance in metres that is not negative.
fn tolerance(cells: &[Cell<'_>], at: usize, default: f64) -> Option<f64> {
    match cells.get(at) {
        Some(cell) => cell.as_real().filter(|tolerance| *tolerance >= 0.0),
        None => Some(default),
    }
}

fn radius(cells: &[Cell<'_>], at: usize) -> Option<f64> {
    number(cells, at).filter(|radius| *radius > 0.0)
}

fn read(cells: &[Cell<'_>], at: usize) -> Option<Value> {
    serde_json::from_str(cells.get(at)?.as_text()).ok()
}

fn array(cells: &[Cell<'_>], at: usize) -> Option<Vec<Value>> {
    match read(cells, at)? {
        Value::Array(all) => Some(all),
        _ => None,
    }
}

/// Longitude and latitude.
fn point(cells: &[Cell<'_>], at: usize) -> Option<Point> {
    Point::of(number(cells, at)?, number(cells, at + 1)?)
}

fn line(cells: &[Cell<'_>], at: usize) -> Option<Lines> {
    Lines::read(&read(cells, at)?)
}

fn polygon(cells: &[Cell<'_>], at: usize) -> Option<Polygons> {
    Polygons::read(&read(cells, at)?)
}

/// Metres on the sphere, or on the spheroid of WGS 84 where that is asked for.
fn distance(a: Point, b: Point, spheroid: Option<&Cell<'_>>) -> f64 {
    if spheroid.is_some_and(|spheroid| spheroid.as_bool() == Some(true)) {
        use geo::Distance as _;
        let at = |point: Point| {
            let (longitude, latitude) = point.degrees();
            geo::Point::new(longitude, latitude)
        };
        return geo::Geodesic.distance(at(a), at(b));
    }
    a.angle(b) * RADIUS
}

fn crosses<E: Iterator<Item = (Point, Point)>>(
    mut edges: impl Iterator<Item = (Point, Point)>,
    others: impl Fn() -> E,
) -> bool {
    edges.any(|(a, b)| others().any(|(c, d)| sphere::crossing(a, b, c, d).is_some()))
}

/// Vertices left out that lie within a tolerance (radians) of the arc between those that stay.
fn simplified(line: &[Point], tolerance: f64) -> Vec<Point> {
    let Some(first) = line.first() else { return Vec::new() };
    let (mut kept, mut at) = (vec![*first], 0);
    while at + 1 < line.len() {
        let fits = |end: usize| {
            let between = &line[at + 1..end];
            between.iter().all(|p| sphere::nearest(*p, line[at], line[end]).angle(*p) <= tolerance)
        };
        let end = (at + 1..line.len()).take_while(|end| fits(*end)).last().unwrap_or(at + 1);
        kept.push(line[end]);
        at = end;
    }
    kept
}

fn simplified_polygons(polygons: &Polygons, tolerance: f64) -> Polygons {
    let ring = |ring: &Vec<Point>| {
        let closed: Vec<Point> = ring.iter().chain(ring.first()).copied().collect();
        let mut kept = simplified(&closed, tolerance / RADIUS);
        kept.pop();
        // A ring that would fall together stays.
        if kept.len() < 3 { ring.clone() } else { kept }
    };
    Polygons(polygons.0.iter().map(|polygon| polygon.iter().map(ring).collect()).collect())
}

/// Points put into edges that are straight on the map, so that arcs between them stay close.
fn densified(value: &Value, tolerance: f64, rings: bool) -> Option<Value> {
    match rings {
        true => Polygons::read(value).map(drop)?,
        false => Lines::read(value).map(drop)?,
    }
    let line = |line: &Value| -> Option<Value> {
        let corners: Option<Vec<(f64, f64)>> = (line.as_array()?.iter())
            .map(|position| Some((position.get(0)?.as_f64()?, position.get(1)?.as_f64()?)))
            .collect();
        let corners = corners?;
        let mut made = vec![corners[0]];
        for edge in corners.windows(2) {
            halved(edge[0], edge[1], tolerance / RADIUS, 0, &mut made);
        }
        let made = made.into_iter().filter_map(|(lng, lat)| Some(pair(Point::of(lng, lat)?)));
        Some(made.collect())
    };
    let coordinates = value.get("coordinates")?;
    let each = |value: &Value| -> Option<Value> { value.as_array()?.iter().map(line).collect() };
    let made = match value.get("type")?.as_str()? {
        "LineString" => line(coordinates)?,
        "MultiLineString" | "Polygon" => each(coordinates)?,
        _ => coordinates.as_array()?.iter().map(each).collect::<Option<Value>>()?,
    };
    Some(json!({"type": value["type"], "coordinates": made}))
}

fn halved(a: (f64, f64), b: (f64, f64), tolerance: f64, depth: usize, made: &mut Vec<(f64, f64)>) {
    let middle = ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
    let at = |point: (f64, f64)| Point::of(point.0, point.1);
    if let (Some(from), Some(to), Some(point)) = (at(a), at(b), at(middle))
        && depth < 12
        && sphere::nearest(point, from, to).angle(point) > tolerance
    {
        halved(a, middle, tolerance, depth + 1, made);
        halved(middle, b, tolerance, depth + 1, made);
        return;
    }
    made.push(b);
}
