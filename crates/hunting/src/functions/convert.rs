//! Conversions between Kusto's types. They never fail: what cannot be converted is null, "" as text.

use super::{Call, Cell, decimals, dynamic};
use vigie_kql::literals;
use vigie_kql::plan_text::{datetime_text, timespan_text};
use vigie_kql::types::{Type, Value};

pub fn convert<'a>(call: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    between(call.arguments[0], call.result, &cells[0])
}

/// `cell` of type `from` as a value of type `to`.
pub fn between<'a>(from: Type, to: Type, cell: &Cell<'a>) -> Cell<'a> {
    if from == Type::Dynamic && to != Type::Dynamic {
        return from_dynamic(to, cell);
    }
    match to {
        Type::String => Cell::text(text(from, cell)),
        Type::Dynamic => match cell {
            Cell::Null => Cell::Null,
            cell => Cell::text(dynamic::json_of(from, cell)),
        },
        Type::Bool => match (from, cell) {
            (Type::String, Cell::Text(text)) => Cell::from_bool(bool_of(text)),
            (_, Cell::Real(value)) => Cell::Bool(*value != 0.0),
            (_, cell) => Cell::from_bool(cell.as_bool()),
        },
        Type::Int | Type::Long => match cell {
            Cell::Text(text) => {
                let value = long_of(text);
                let fits = |value: &i64| to == Type::Long || i32::try_from(*value).is_ok();
                Cell::from_long(value.filter(fits))
            }
            cell => Cell::from_long(cell.as_long()),
        },
        Type::Decimal => match cell {
            Cell::Text(text) => decimals::parse(text).map_or(Cell::Null, Cell::Decimal),
            cell => cell.as_decimal().map_or(Cell::Null, Cell::Decimal),
        },
        Type::Real => match cell {
            Cell::Text(text) => Cell::from_real(real_of(text)),
            Cell::Bool(value) => Cell::Real((*value).into()),
            cell => Cell::from_real(cell.as_real()),
        },
        Type::DateTime => match (from, cell) {
            (_, Cell::Text(text)) => Cell::from_long(literals::datetime(text)),
            // A number is ticks.
            (_, cell) => Cell::from_long(cell.as_long()),
        },
        Type::TimeSpan => match (from, cell) {
            (_, Cell::Text(text)) => Cell::from_long(literals::timespan(text)),
            (_, cell) => Cell::from_long(cell.as_long()),
        },
        Type::Guid => match cell {
            Cell::Text(text) => match literals::value(Type::Guid, text.trim()) {
                Some(Value::Guid(guid)) => Cell::text(vigie_kql::plan_text::guid_text(guid)),
                _ => Cell::Null,
            },
            _ => Cell::Null,
        },
    }
}

fn from_dynamic<'a>(to: Type, cell: &Cell<'a>) -> Cell<'a> {
    let Cell::Text(json) = cell else {
        return if to == Type::String { Cell::text("") } else { Cell::Null };
    };
    let first = json.as_bytes().first().copied().unwrap_or(b'n');
    match first {
        b'"' => {
            let text = Cell::text(dynamic::to_text(json));
            between(Type::String, to, &text).into_owned()
        }
        b'n' => {
            if to == Type::String {
                Cell::text("")
            } else {
                Cell::Null
            }
        }
        b't' | b'f' => {
            let value = Cell::Bool(first == b't');
            between(Type::Bool, to, &value).into_owned()
        }
        b'[' | b'{' if to == Type::String => Cell::text(json.to_string()),
        b'[' | b'{' => Cell::Null,
        _ if to == Type::String => Cell::text(json.to_string()),
        _ => match json.parse::<i64>() {
            Ok(value) => between(Type::Long, to, &Cell::Long(value)),
            Err(_) => match json.parse::<f64>() {
                Ok(value) => between(Type::Real, to, &Cell::Real(value)),
                Err(_) => Cell::Null,
            },
        },
    }
}

fn bool_of(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn long_of(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|value| value as i64),
        None => text.parse().ok(),
    }
}

fn real_of(text: &str) -> Option<f64> {
    match text.trim() {
        "NaN" | "nan" => Some(f64::NAN),
        "inf" | "+inf" | "Infinity" => Some(f64::INFINITY),
        "-inf" | "-Infinity" => Some(f64::NEG_INFINITY),
        number if number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            number.parse().ok()
        }
        _ => None,
    }
}

/// A value as `tostring` writes it.
pub fn text(ty: Type, cell: &Cell<'_>) -> String {
    match (ty, cell) {
        (_, Cell::Null) => String::new(),
        (_, Cell::Text(text)) if ty == Type::Dynamic => dynamic::to_text(text),
        (_, Cell::Text(text)) => text.to_string(),
        (_, Cell::Bool(value)) => if *value { "True" } else { "False" }.to_owned(),
        (Type::DateTime, Cell::Long(ticks)) => datetime_text(*ticks),
        (Type::TimeSpan, Cell::Long(ticks)) => timespan_text(*ticks),
        (_, Cell::Long(value)) => value.to_string(),
        (_, Cell::Real(value)) => real_text(*value),
        (_, Cell::Decimal(value)) => decimals::text(*value),
    }
}

/// A real as Kusto prints it: the shortest digits that read back, `1.0` for a whole number in
/// results, but without the point as text.
pub fn real_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e15).contains(&size) {
        let text = format!("{value:E}");
        let (mantissa, exponent) = text.split_once('E').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}E{sign}{digits:0>2}");
    }
    format!("{value}")
}
