//! Functions over arrays and bags that change their order or shape.

use super::dynamic::{plain, read, value_of, write};
use super::{Cell, RowFunction, convert, path};
use serde_json::{Map, Value};

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "array_iff" => |call, cells| {
            let Some(Value::Array(conditions)) = read(&cells[0]) else { return Cell::Null };
            let then = value_of(call.arguments[1], &cells[1]);
            let otherwise = value_of(call.arguments[2], &cells[2]);
            // An array gives its element at the place, any other value itself.
            let at = |value: &Value, at: usize| match value {
                Value::Array(array) => array.get(at).cloned().unwrap_or_default(),
                other => other.clone(),
            };
            let chosen = conditions.iter().enumerate().map(|(place, condition)| match condition {
                Value::Bool(true) => at(&then, place),
                Value::Bool(false) => at(&otherwise, place),
                Value::Number(number) if number.as_f64() != Some(0.0) => at(&then, place),
                Value::Number(_) => at(&otherwise, place),
                _ => Value::Null,
            });
            write(chosen.collect())
        },
        "array_rotate_left" => |_, cells| rotated(cells, 1),
        "array_rotate_right" => |_, cells| rotated(cells, -1),
        "array_shift_left" => |call, cells| {
            let fill = cells.get(2).map(|cell| value_of(call.arguments[2], cell));
            shifted(cells, 1, fill.unwrap_or_default())
        },
        "array_shift_right" => |call, cells| {
            let fill = cells.get(2).map(|cell| value_of(call.arguments[2], cell));
            shifted(cells, -1, fill.unwrap_or_default())
        },
        "array_split" => |call, cells| {
            let Some(Value::Array(array)) = read(&cells[0]) else { return Cell::Null };
            let places = match value_of(call.arguments[1], &cells[1]) {
                Value::Array(places) => places,
                place => vec![place],
            };
            let length = array.len() as i64;
            let mut parts = Vec::new();
            let mut from = 0;
            for place in places.iter().filter_map(Value::as_i64) {
                let to = if place < 0 { length + place } else { place };
                let to = (to.clamp(0, length) as usize).max(from);
                parts.push(Value::from(array[from..to].to_vec()));
                from = to;
            }
            parts.push(Value::from(array[from..].to_vec()));
            write(Value::Array(parts))
        },
        "array_index_of" => |call, cells| {
            let Some(Value::Array(array)) = read(&cells[0]) else { return Cell::Null };
            let wanted = value_of(call.arguments[1], &cells[1]);
            let number =
                |at: usize, default: i64| cells.get(at).and_then(Cell::as_long).unwrap_or(default);
            let (start, length, occurrence) = (number(2, 0), number(3, -1), number(4, 1));
            let count = array.len() as i64;
            let start = if start < 0 { (count + start).max(0) } else { start };
            let end = if length < 0 { count } else { (start + length).min(count) };
            if occurrence < 1 {
                return Cell::Null;
            }
            let found = (start..end)
                .filter(|at| array[*at as usize] == wanted)
                .nth(occurrence as usize - 1);
            Cell::Long(found.unwrap_or(-1))
        },
        "array_sort_asc" => |call, cells| sorted(call, cells, false),
        "array_sort_desc" => |call, cells| sorted(call, cells, true),
        "bag_has_key" => |_, cells| match read(&cells[0]) {
            Some(bag @ Value::Object(_)) => {
                let key = cells[1].as_text();
                let known = bag.get(key).is_some()
                    || path::parse(key).is_some_and(|path| path::find(&bag, &path).is_some());
                Cell::Bool(known)
            }
            _ => Cell::Null,
        },
        "bag_set_key" => |call, cells| match read(&cells[0]) {
            Some(mut bag @ Value::Object(_)) => {
                let key = cells[1].as_text();
                let steps = path::parse(key)
                    .filter(|steps| !steps.is_empty() && key.starts_with('$'))
                    .unwrap_or_else(|| vec![path::Step::Key(key.to_owned())]);
                path::set(&mut bag, &steps, value_of(call.arguments[2], &cells[2]));
                write(bag)
            }
            _ => Cell::Null,
        },
        "bag_remove_keys" => |_, cells| match (read(&cells[0]), read(&cells[1])) {
            (Some(mut bag @ Value::Object(_)), Some(Value::Array(keys))) => {
                for key in keys.iter().map(plain) {
                    match path::parse(&key).filter(|_| key.starts_with('$')) {
                        Some(steps) => path::remove(&mut bag, &steps),
                        None => {
                            if let Value::Object(bag) = &mut bag {
                                bag.shift_remove(&key);
                            }
                        }
                    }
                }
                write(bag)
            }
            _ => Cell::Null,
        },
        "bag_zip" => |_, cells| {
            let Some(Value::Array(keys)) = read(&cells[0]) else { return Cell::Null };
            let values = match read(&cells[1]) {
                Some(Value::Array(values)) => values,
                _ => Vec::new(),
            };
            let mut bag = Map::new();
            for (at, key) in keys.iter().enumerate() {
                if let Value::String(key) = key {
                    bag.insert(key.clone(), values.get(at).cloned().unwrap_or_default());
                }
            }
            write(Value::Object(bag))
        },
        "repeat" => |call, cells| match cells[1].as_long() {
            Some(count @ 0..=1_048_576) => {
                write(vec![value_of(call.arguments[0], &cells[0]); count as usize].into())
            }
            _ => Cell::Null,
        },
        "set_equals" => |_, cells| match (read(&cells[0]), read(&cells[1])) {
            (Some(Value::Array(a)), Some(Value::Array(b))) => Cell::Bool(
                a.iter().all(|value| b.contains(value)) && b.iter().all(|value| a.contains(value)),
            ),
            _ => Cell::Null,
        },
        "jaccard_index" => |_, cells| match (read(&cells[0]), read(&cells[1])) {
            (Some(Value::Array(a)), Some(Value::Array(b))) => {
                let distinct = |all: Vec<Value>| {
                    let mut kept: Vec<Value> = Vec::new();
                    all.into_iter().for_each(|value| {
                        if !kept.contains(&value) {
                            kept.push(value);
                        }
                    });
                    kept
                };
                let (a, b) = (distinct(a), distinct(b));
                let common = a.iter().filter(|value| b.contains(value)).count();
                write((common as f64 / (a.len() + b.len() - common) as f64).into())
            }
            _ => Cell::Null,
        },
        "treepath" => |_, cells| match read(&cells[0]) {
            Some(value) => {
                let mut paths = Vec::new();
                tree_paths(&value, String::new(), &mut paths);
                write(paths.into_iter().map(Value::String).collect())
            }
            None => Cell::Null,
        },
        "extract_json" => |_, cells| {
            let found = path::parse(cells[0].as_text()).and_then(|path| {
                let value: Value = serde_json::from_str(cells[1].as_text()).ok()?;
                path::find(&value, &path).cloned()
            });
            match found {
                None | Some(Value::Null) => Cell::Null,
                Some(value) => write(value),
            }
        },
        "dynamic_to_json" => |call, cells| {
            let value = value_of(call.arguments[0], &cells[0]);
            let mut value = value;
            value.sort_all_objects();
            Cell::text(value.to_string())
        },
        "unicode_codepoints_from_string" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            write(text.chars().map(|c| Value::from(u32::from(c))).collect())
        },
        "unicode_codepoints_to_string" => |call, cells| {
            let mut text = String::new();
            for (cell, ty) in cells.iter().zip(&call.arguments) {
                let numbers = match value_of(*ty, cell) {
                    Value::Array(numbers) => numbers,
                    number => vec![number],
                };
                let points = numbers.iter().filter_map(Value::as_u64);
                text.extend(points.filter_map(|at| char::from_u32(u32::try_from(at).ok()?)));
            }
            Cell::text(text)
        },
        _ => return None,
    })
}

fn rotated<'a>(cells: &[Cell<'a>], sign: i64) -> Cell<'a> {
    match (read(&cells[0]), cells[1].as_long()) {
        (Some(Value::Array(mut array)), Some(by)) => {
            if !array.is_empty() {
                let by = (by * sign).rem_euclid(array.len() as i64);
                array.rotate_left(by as usize);
            }
            write(Value::Array(array))
        }
        _ => Cell::Null,
    }
}

fn shifted<'a>(cells: &[Cell<'a>], sign: i64, fill: Value) -> Cell<'a> {
    match (read(&cells[0]), cells[1].as_long()) {
        (Some(Value::Array(array)), Some(by)) => {
            let place = |at: i64| usize::try_from(at).ok().and_then(|at| array.get(at).cloned());
            let moved = (0..array.len() as i64).map(|at| {
                place(at.saturating_add(by.saturating_mul(sign))).unwrap_or(fill.clone())
            });
            write(moved.collect())
        }
        _ => Cell::Null,
    }
}

/// The first array sorted and the others in its order; nulls last unless told otherwise.
fn sorted<'a>(call: &super::Call, cells: &[Cell<'a>], descending: bool) -> Cell<'a> {
    let nulls_last = match (call.arguments.last(), cells.last()) {
        (Some(vigie_kql::types::Type::Bool), Some(Cell::Bool(last))) => *last,
        _ => true,
    };
    let arrays: Vec<Option<Vec<Value>>> = (cells.iter().zip(&call.arguments))
        .filter(|(_, ty)| **ty != vigie_kql::types::Type::Bool)
        .map(|(cell, _)| match read(cell) {
            Some(Value::Array(array)) => Some(array),
            _ => None,
        })
        .collect();
    let Some(Some(first)) = arrays.first() else { return Cell::Null };
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&first[*a], &first[*b]);
        match (a.is_null(), b.is_null()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) if nulls_last => std::cmp::Ordering::Greater,
            (true, false) => std::cmp::Ordering::Less,
            (false, true) if nulls_last => std::cmp::Ordering::Less,
            (false, true) => std::cmp::Ordering::Greater,
            _ => {
                let order = match (a.as_f64(), b.as_f64()) {
                    (Some(a), Some(b)) => a.total_cmp(&b),
                    _ => plain(a).cmp(&plain(b)),
                };
                if descending { order.reverse() } else { order }
            }
        }
    });
    let length = first.len();
    let all = arrays.into_iter().map(|array| match array {
        Some(array) if array.len() == length => {
            order.iter().map(|at| array[*at].clone()).collect::<Value>()
        }
        _ => Value::Null,
    });
    write(all.collect())
}

fn tree_paths(value: &Value, at: String, paths: &mut Vec<String>) {
    if !at.is_empty() {
        paths.push(at.clone());
    }
    match value {
        Value::Object(bag) => {
            for (key, inner) in bag {
                tree_paths(inner, format!("{at}['{key}']"), paths);
            }
        }
        Value::Array(array) => {
            for (index, inner) in array.iter().enumerate() {
                tree_paths(inner, format!("{at}[{index}]"), paths);
            }
        }
        _ => {}
    }
}
