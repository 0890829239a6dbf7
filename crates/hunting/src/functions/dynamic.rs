//! Dynamic values: JSON text that is taken apart and put together.

use super::{Call, Cell, RowFunction, convert};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use vigie_kql::literals::json_string;
use vigie_kql::plan_text::{datetime_text, timespan_text};
use vigie_kql::types::Type;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "parse_json" => |call, cells| match (&cells[0], call.arguments[0]) {
            (Cell::Null, _) => Cell::Null,
            (Cell::Text(text), Type::Dynamic) if !text.starts_with('"') => Cell::text(text.clone()),
            (Cell::Text(text), Type::Dynamic) => Cell::from_text(parsed(&to_text(text))),
            (cell, _) => Cell::from_text(parsed(cell.as_text())),
        },
        "bag_pack" | "pack" | "pack_dictionary" => {
            |call, cells| Cell::text(bag(call, cells, false))
        }
        "pack_all" => |call, cells| Cell::text(bag(call, cells, true)),
        "pack_array" => |call, cells| {
            let parts = cells.iter().zip(&call.arguments).map(|(cell, ty)| json_of(*ty, cell));
            Cell::text(format!("[{}]", parts.collect::<Vec<_>>().join(",")))
        },
        "array_length" => |_, cells| match read(&cells[0]) {
            Some(Value::Array(array)) => Cell::Long(array.len() as i64),
            _ => Cell::Null,
        },
        "array_concat" => |_, cells| {
            let mut all = Vec::new();
            for cell in cells {
                match read(cell) {
                    Some(Value::Array(array)) => all.extend(array),
                    _ => return Cell::Null,
                }
            }
            write(Value::Array(all))
        },
        "array_slice" => |_, cells| match (read(&cells[0]), cells[1].as_long(), cells[2].as_long())
        {
            (Some(Value::Array(array)), Some(from), Some(to)) => {
                let place = |at: i64| if at < 0 { at + array.len() as i64 } else { at };
                let (from, to) = (place(from).max(0), place(to).min(array.len() as i64 - 1));
                let count = (to - from + 1).max(0) as usize;
                write(array.into_iter().skip(from as usize).take(count).collect())
            }
            _ => Cell::Null,
        },
        "array_reverse" => |_, cells| match read(&cells[0]) {
            Some(Value::Array(array)) => write(array.into_iter().rev().collect()),
            _ => Cell::Null,
        },
        "array_sum" => |_, cells| match read(&cells[0]) {
            Some(Value::Array(array)) => Cell::Real(array.iter().filter_map(Value::as_f64).sum()),
            _ => Cell::Null,
        },
        "set_has_element" => |call, cells| {
            let wanted = value_of(call.arguments[1], &cells[1]);
            match read(&cells[0]) {
                Some(Value::Array(array)) => Cell::Bool(array.contains(&wanted)),
                _ => Cell::Null,
            }
        },
        "set_union" => |_, cells| set(cells, |_, _| true, true),
        "set_intersect" => {
            |_, cells| set(cells, |value, others| others.iter().all(|o| o.contains(value)), false)
        }
        "set_difference" => {
            |_, cells| set(cells, |value, others| !others.iter().any(|o| o.contains(value)), false)
        }
        "strcat_array" => |_, cells| match read(&cells[0]) {
            Some(Value::Array(array)) => {
                let texts: Vec<String> = array.iter().map(plain).collect();
                Cell::text(texts.join(cells[1].as_text()))
            }
            _ => Cell::text(""),
        },
        "bag_keys" => |_, cells| match read(&cells[0]) {
            Some(Value::Object(bag)) => write(bag.keys().cloned().map(Value::String).collect()),
            _ => Cell::Null,
        },
        "bag_merge" => |_, cells| {
            let mut merged = Map::new();
            for cell in cells {
                if let Some(Value::Object(bag)) = read(cell) {
                    for (key, value) in bag {
                        merged.entry(key).or_insert(value);
                    }
                }
            }
            write(Value::Object(merged))
        },
        "gettype" => |call, cells| {
            let ty = call.arguments[0];
            Cell::text(match (ty, read(&cells[0])) {
                (Type::Dynamic, Some(Value::Array(_))) => "array",
                (Type::Dynamic, Some(Value::Object(_))) => "dictionary",
                (Type::Dynamic, Some(Value::String(_))) => "string",
                (Type::Dynamic, Some(Value::Bool(_))) => "bool",
                (Type::Dynamic, Some(Value::Number(number))) if number.is_f64() => "double",
                (Type::Dynamic, Some(Value::Number(_))) => "long",
                (Type::Dynamic, _) => "null",
                (ty, _) => ty.name(),
            })
        },
        "zip" => |_, cells| {
            let arrays: Vec<Vec<Value>> = (cells.iter())
                .map(|cell| match read(cell) {
                    Some(Value::Array(array)) => array,
                    _ => Vec::new(),
                })
                .collect();
            let longest = arrays.iter().map(Vec::len).max().unwrap_or(0);
            let row = |at| {
                arrays.iter().map(|a| a.get(at).cloned().unwrap_or_default()).collect::<Value>()
            };
            write((0..longest).map(row).collect())
        },
        "range" => |_, cells| match (cells[0].as_long(), cells[1].as_long(), cells.get(2)) {
            (Some(from), Some(to), step) => {
                let step = step.and_then(Cell::as_long).unwrap_or(1);
                if step <= 0 {
                    return Cell::Null;
                }
                let values = (from..=to).step_by(step as usize).take(1_048_576);
                write(values.map(Value::from).collect())
            }
            _ => Cell::Null,
        },
        _ => return None,
    })
}

/// Distinct values in the order of their first occurrence.
fn set<'a>(cells: &[Cell<'a>], keep: fn(&Value, &[Vec<Value>]) -> bool, all: bool) -> Cell<'a> {
    let mut arrays = Vec::new();
    for cell in cells {
        match read(cell) {
            Some(Value::Array(array)) => arrays.push(array),
            _ => return Cell::Null,
        }
    }
    let first = if all { arrays.concat() } else { arrays.remove(0) };
    let mut kept: Vec<Value> = Vec::new();
    for value in first {
        if keep(&value, &arrays) && !kept.contains(&value) {
            kept.push(value);
        }
    }
    write(Value::Array(kept))
}

pub(super) fn read(cell: &Cell<'_>) -> Option<Value> {
    serde_json::from_str(cell.as_text()).ok()
}

/// A cell of any type as a JSON value.
pub(super) fn value_of(ty: Type, cell: &Cell<'_>) -> Value {
    serde_json::from_str(&json_of(ty, cell)).unwrap_or_default()
}

pub(super) fn write<'a>(value: Value) -> Cell<'a> {
    Cell::text(value.to_string())
}

/// A value inside an array as text: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The texts of a JSON array's elements, inner arrays opened; `None` where the text is no array.
pub fn element_texts(json: &str) -> Option<Vec<String>> {
    fn collect(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::Array(inner) => inner.iter().for_each(|value| collect(value, texts)),
            other => texts.push(plain(other)),
        }
    }
    let value: Value = serde_json::from_str(json).ok()?;
    value.is_array().then(|| {
        let mut texts = Vec::new();
        collect(&value, &mut texts);
        texts
    })
}

/// JSON text of a text that may be JSON: what is none is a JSON string; nothing for "".
/// Valid JSON text as it is written here.
pub fn normal(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}

fn parsed(text: &str) -> Option<String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return None;
    }
    if is_plain(trimmed) && serde_json::from_str::<IgnoredAny>(trimmed).is_ok() {
        return (trimmed != "null").then(|| trimmed.to_owned());
    }
    match serde_json::from_str::<Value>(trimmed) {
        Ok(Value::Null) => None,
        Ok(value) => Some(value.to_string()),
        Err(_) => {
            let mut out = String::new();
            json_string(&mut out, text);
            Some(out)
        }
    }
}

/// Whether JSON that was read and written again would be the same text: no blanks between values,
/// nothing escaped, whole numbers. Most telemetry is like that, and building the value costs ten
/// times as much as looking.
fn is_plain(json: &str) -> bool {
    let (mut in_text, mut before, mut digits) = (false, 0, 0);
    for byte in json.bytes() {
        digits = if byte.is_ascii_digit() && !in_text { digits + 1 } else { 0 };
        match byte {
            // Longer numbers are written as reals.
            _ if digits > 18 => return false,
            b'\\' => return false,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b' ' | b'\t' | b'\n' | b'\r' | b'.' | b'E' => return false,
            b'e' | b'-' if before == b'-' || before.is_ascii_digit() => return false,
            // `-0` is written as a real.
            b'0' if before == b'-' => return false,
            _ => {}
        }
        before = byte;
    }
    true
}

/// A dynamic's text: a JSON string without quotes, anything else as it is.
pub fn to_text(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
        _ if json == "null" => String::new(),
        _ => json.to_owned(),
    }
}

/// A value of any type as JSON.
pub fn json_of(ty: Type, cell: &Cell<'_>) -> String {
    let quoted = |text: &str| {
        let mut out = String::new();
        json_string(&mut out, text);
        out
    };
    match (ty, cell) {
        (Type::String, Cell::Null) => "\"\"".to_owned(),
        (_, Cell::Null) => "null".to_owned(),
        (Type::Dynamic, Cell::Text(json)) => json.to_string(),
        (_, Cell::Text(text)) => quoted(text),
        (_, Cell::Bool(value)) => value.to_string(),
        (Type::DateTime, Cell::Long(ticks)) => quoted(&datetime_text(*ticks)),
        (Type::TimeSpan, Cell::Long(ticks)) => quoted(&timespan_text(*ticks)),
        (_, Cell::Long(value)) => value.to_string(),
        (_, Cell::Real(value)) if value.is_finite() => {
            if value.fract() == 0.0 && value.abs() < 1e15 {
                format!("{value:.1}")
            } else {
                convert::real_text(*value)
            }
        }
        (_, Cell::Real(value)) => quoted(&convert::real_text(*value)),
        (_, Cell::Decimal(value)) => quoted(&super::decimals::text(*value)),
    }
}

/// Name, value, name, value …; `skip_empty` leaves out what is null or "".
fn bag(call: &Call, cells: &[Cell<'_>], skip_empty: bool) -> String {
    let mut out = String::from("{");
    for (pair, types) in cells.chunks(2).zip(call.arguments.chunks(2)) {
        let [name, value] = pair else { break };
        let empty = matches!(value, Cell::Null)
            || value.as_text().is_empty() && matches!(value, Cell::Text(_));
        if skip_empty && empty {
            continue;
        }
        if out.len() > 1 {
            out.push(',');
        }
        json_string(&mut out, name.as_text());
        out.push(':');
        out.push_str(&json_of(types[1], value));
    }
    out.push('}');
    out
}

/// `dynamic[key]`: null where there is none.
pub fn member<'a>(_: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let Cell::Text(json) = &cells[0] else { return Cell::Null };
    let found = match &cells[1] {
        Cell::Text(key) => raw_property(json, key),
        Cell::Long(at) => raw_element(json, *at),
        _ => None,
    };
    match found {
        Some("null") | None => Cell::Null,
        Some(found) => Cell::text(found.to_owned()),
    }
}

/// The text of a property of a JSON object, found without building values.
fn raw_property<'j>(json: &'j str, key: &str) -> Option<&'j str> {
    let mut walk = Walk::of(json, b'{')?;
    while let Some((name, value)) = walk.next_pair() {
        let plain = &name[1..name.len() - 1];
        let equal = match plain.contains('\\') {
            true => serde_json::from_str::<String>(name).is_ok_and(|name| name == key),
            false => plain == key,
        };
        if equal {
            return Some(value);
        }
    }
    None
}

/// An element of a JSON array; negative positions count from the end.
fn raw_element(json: &str, at: i64) -> Option<&str> {
    let mut walk = Walk::of(json, b'[')?;
    if at >= 0 {
        for _ in 0..at {
            walk.next_value()?;
        }
        return walk.next_value();
    }
    let mut all = Vec::new();
    while let Some(value) = walk.next_value() {
        all.push(value);
    }
    all.len().checked_sub(at.unsigned_abs() as usize).map(|at| all[at])
}

/// A walk over the members of valid JSON text.
struct Walk<'j> {
    json: &'j str,
    at: usize,
}

impl<'j> Walk<'j> {
    fn of(json: &'j str, open: u8) -> Option<Walk<'j>> {
        let start = json.len() - json.trim_start().len();
        (json.as_bytes().get(start) == Some(&open)).then_some(Walk { json, at: start + 1 })
    }

    fn blank(&mut self) {
        let bytes = self.json.as_bytes();
        while bytes
            .get(self.at)
            .is_some_and(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':'))
        {
            self.at += 1;
        }
    }

    fn next_pair(&mut self) -> Option<(&'j str, &'j str)> {
        let name = self.next_value()?;
        name.starts_with('"').then_some(())?;
        Some((name, self.next_value()?))
    }

    fn next_value(&mut self) -> Option<&'j str> {
        self.blank();
        let bytes = self.json.as_bytes();
        let start = self.at;
        let (mut depth, mut quoted) = (0i32, false);
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\\' if quoted => self.at += 1,
                b'"' => {
                    quoted = !quoted;
                    if !quoted && depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                _ if quoted => {}
                b'[' | b'{' => depth += 1,
                b']' | b'}' if depth == 0 => break,
                b']' | b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        break;
                    }
                }
                b',' | b':' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        let value = self.json.get(start..self.at)?.trim_end();
        (!value.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_is_what_is_written_again() {
        let texts = [
            "null",
            "true",
            "0",
            "-7",
            "\"a b.e\"",
            "[]",
            "{}",
            "{\"a\":[1,2,{\"b\":null}]}",
            " [1]",
            "1.50",
            "1e3",
            "-0",
            "[1, 2]",
            "\"\\u0041\"",
            "{\"a\":1E2}",
            "18446744073709551616",
            "[1,]",
            "x",
            "",
        ];
        for text in texts {
            let slow = match serde_json::from_str::<Value>(text.trim()) {
                Ok(Value::Null) => None,
                Ok(value) => Some(value.to_string()),
                Err(_) if text.is_empty() => None,
                Err(_) => Some(Value::from(text).to_string()),
            };
            assert_eq!(parsed(text), slow, "{text}");
        }
        assert!(is_plain("{\"Session\":{\"Name\":\"n 1.e\",\"Id\":5}}"));
    }
}
