//! Rows that were exported from a tenant: they have a hunting table's columns already.

use crate::rows::Maker;
use crate::{Row, mapping, values};
use serde_json::{Map, Value};
use vigie_contract::tables::{Column, TABLES, Table, table};

/// Fields in which exports name the table.
const TABLE_FIELDS: &[&str] = &["$table", "Type", "TableName", "SourceTable"];

/// Whether an object looks like a row of a hunting table rather than an event of a log.
pub fn is_row(object: &Map<String, Value>) -> bool {
    let time = object.contains_key("Timestamp") || object.contains_key("TimeGenerated");
    time && object.contains_key("ActionType")
}

/// The row with its table and with each value in its column's type. `file` is the path it came from.
pub fn row(object: &Map<String, Value>, file: &str, maker: &Maker) -> Result<Row, String> {
    let table = table_of(object, file).ok_or("no hunting table has these columns")?;
    let mut columns = Map::new();
    for column in &table.columns {
        let Some(value) = value_of(object, column) else { continue };
        let typed = typed(value, &column.ty)
            .ok_or_else(|| format!("{}: {value} is no {}", column.name, column.ty))?;
        columns.insert(column.name.clone(), typed);
    }
    match columns.get("Timestamp").and_then(Value::as_str).map(values::parse_time) {
        Some(Some(_)) => Ok(maker.exported(table, columns)),
        Some(None) => Err("Timestamp is no time".to_owned()),
        None => Err("no Timestamp".to_owned()),
    }
}

/// The hunting table that a file or one of its folders is named after:
/// `DeviceEvents/2026-10-01.parquet`, `export.zip!DeviceEvents.json`.
pub fn table_of_file(file: &str) -> Option<&'static Table> {
    let names = file.rsplit(['/', '\\', '!']).map(|part| part.split('.').next().unwrap_or(part));
    names.filter_map(table).next()
}

/// Named by the row, else by the file or one of its folders, else by its action type, else the table that has most of its filled columns;
/// of equals the general one (`DeviceEvents`) wins, because the others have action types of their own.
fn table_of(object: &Map<String, Value>, file: &str) -> Option<&'static Table> {
    let named = TABLE_FIELDS.iter().filter_map(|field| object.get(*field)?.as_str());
    if let Some(found) = named.filter_map(table).next() {
        return Some(found);
    }
    if let Some(found) = table_of_file(file) {
        return Some(found);
    }
    if let Some(Value::String(action)) = object.get("ActionType")
        && let Some(found) = mapping::table_of_action(action)
    {
        return Some(found);
    }
    let filled = |table: &Table| {
        table.columns.iter().filter(|column| value_of(object, column).is_some()).count()
    };
    TABLES
        .iter()
        .filter(|table| table.columns.iter().any(|column| column.name == "ActionType"))
        .max_by_key(|table| (filled(table), table.name == "DeviceEvents"))
}

/// A column's value. Where tables with different types of a column were exported together, its name
/// carries the type (`ReportId_long`).
fn value_of<'a>(object: &'a Map<String, Value>, column: &Column) -> Option<&'a Value> {
    let filled = |value: &&Value| !matches!(value, Value::Null) && value.as_str() != Some("");
    let with_type = || format!("{}_{}", column.name, column.ty);
    let generated = || (column.name == "Timestamp").then(|| object.get("TimeGenerated")).flatten();
    object
        .get(&column.name)
        .filter(filled)
        .or_else(|| object.get(&with_type()).filter(filled))
        .or_else(generated)
}

fn typed(value: &Value, ty: &str) -> Option<Value> {
    Some(match (ty, value) {
        ("dynamic", Value::String(text)) if text.starts_with(['{', '[']) => {
            serde_json::from_str(text).unwrap_or_else(|_| value.clone())
        }
        ("dynamic", value) => value.clone(),
        ("bool", Value::Number(number)) => Value::Bool(number.as_i64()? != 0),
        ("bool", Value::String(text)) => Value::Bool(text.to_ascii_lowercase().parse().ok()?),
        ("int" | "long", Value::String(text)) => text.trim().parse::<i64>().ok()?.into(),
        ("int" | "long", Value::Number(number)) => number.as_i64()?.into(),
        ("real", Value::String(text)) => text.parse::<f64>().ok()?.into(),
        ("real" | "bool", value) => value.clone(),
        ("int" | "long", _) => return None,
        (_, Value::String(_)) => value.clone(),
        (_, value) => value.to_string().into(),
    })
}
