//! Plugins of `evaluate`.

use super::groups::comparable;
use super::patterns::Patterns;
use crate::error::QueryError;
use crate::expressions::scalar_value;
use crate::functions::{Cell, Cells, array_of, convert_cell, text};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::row::OwnedRow;
use datafusion::common::DataFusionError;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};
use vigie_kql::plan::{Column, Conflict, Plugin};
use vigie_kql::types::{Type, Value};

/// The plugin's columns and their values.
///
/// `declared` are the columns that the query's plan has.
pub fn plugin(
    plugin: &Plugin,
    columns: &[Column],
    declared: &[Column],
    rows: &RecordBatch,
) -> Result<(Vec<Column>, Vec<ArrayRef>), QueryError> {
    match plugin {
        Plugin::BagUnpack { column, prefix, conflict, ignored } => {
            let unpack = BagUnpack { column: *column, prefix, conflict: *conflict, ignored };
            unpack.columns(columns, rows)
        }
        Plugin::Pivot { keys, missing } => pivot(*keys, missing, columns, rows),
        Plugin::Narrow => narrow(columns, rows),
        Plugin::RowsNear { before, after } => rows_near(*before, *after, columns, rows),
        Plugin::Patterns { kind, weight, attributes, wildcards } => {
            let patterns = Patterns { kind, weight: *weight, attributes, wildcards };
            Ok((declared.to_vec(), patterns.arrays(columns, declared, rows)?))
        }
    }
}

struct BagUnpack<'a> {
    column: usize,
    prefix: &'a str,
    conflict: Conflict,
    ignored: &'a [String],
}

impl BagUnpack<'_> {
    fn columns(
        &self,
        columns: &[Column],
        rows: &RecordBatch,
    ) -> Result<(Vec<Column>, Vec<ArrayRef>), QueryError> {
        let bags = Cells::of(rows.column(self.column))?;
        let bags: Vec<Map<String, Json>> = (0..rows.num_rows())
            .map(|row| serde_json::from_str(bags.get(row).as_text()).unwrap_or_default())
            .collect();
        let mut types: BTreeMap<&str, Option<Type>> = BTreeMap::new();
        for (key, value) in bags.iter().flatten() {
            if self.ignored.contains(key) {
                continue;
            }
            let found = types.entry(key).or_insert(None);
            *found = match (*found, type_of(value)) {
                (found, None) => found,
                (None, new) => new,
                (Some(a), Some(b)) => Some(both(a, b)),
            };
        }
        let mut made: Vec<Column> = Vec::new();
        let mut arrays = Vec::new();
        for (at, column) in columns.iter().enumerate().filter(|(at, _)| *at != self.column) {
            made.push(column.clone());
            arrays.push(rows.column(at).clone());
        }
        for (key, ty) in types {
            let ty = ty.unwrap_or(Type::Dynamic);
            let name = format!("{}{key}", self.prefix);
            let cells = bags.iter().map(|bag| match bag.get(key) {
                None | Some(Json::Null) if ty == Type::String => Cell::text(""),
                None | Some(Json::Null) => Cell::Null,
                Some(value) => convert_cell(Type::Dynamic, ty, &Cell::text(value.to_string())),
            });
            match (made.iter().position(|column| column.name == name), self.conflict) {
                (None, _) => {
                    arrays.push(array_of(ty, cells));
                    made.push(Column { name, ty });
                }
                (Some(_), Conflict::KeepSource) => {}
                (Some(at), Conflict::ReplaceSource) => {
                    arrays[at] = array_of(ty, cells);
                    made[at].ty = ty;
                }
                (Some(_), Conflict::Error) => {
                    let message = format!(
                        "bag_unpack: a column named '{name}' already exists; see columnsConflict"
                    );
                    return Err(QueryError::Runtime(message));
                }
            }
        }
        Ok((made, arrays))
    }
}

fn type_of(value: &Json) -> Option<Type> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(_) => Type::Bool,
        Json::Number(number) if number.is_f64() => Type::Real,
        Json::Number(_) => Type::Long,
        Json::String(_) => Type::String,
        Json::Array(_) | Json::Object(_) => Type::Dynamic,
    })
}

/// The type of a column that has values of both.
fn both(a: Type, b: Type) -> Type {
    match (a, b) {
        (a, b) if a == b => a,
        (Type::Long, Type::Real) | (Type::Real, Type::Long) => Type::Real,
        _ => Type::Dynamic,
    }
}

fn pivot(
    keys: usize,
    missing: &Value,
    columns: &[Column],
    rows: &RecordBatch,
) -> Result<(Vec<Column>, Vec<ArrayRef>), QueryError> {
    let pivoted = Cells::of(rows.column(keys))?;
    let values = Cells::of(rows.column(keys + 1))?;
    let ty = columns[keys + 1].ty;
    let missing = super::cell_of(&scalar_value(missing), ty)?;
    let groups = if keys > 0 { Some(comparable(&rows.columns()[..keys])?) } else { None };
    let mut places: HashMap<Option<OwnedRow>, usize> = HashMap::new();
    let mut first: Vec<usize> = Vec::new();
    let mut cells: BTreeMap<String, HashMap<usize, Cell<'_>>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let key = groups.as_ref().map(|groups| groups.row(row).owned());
        let place = *places.entry(key).or_insert_with(|| {
            first.push(row);
            first.len() - 1
        });
        let name = pivoted.get(row).as_text().to_owned();
        cells.entry(name).or_default().insert(place, values.get(row));
    }
    let mut made: Vec<Column> = columns[..keys].to_vec();
    let mut arrays = Vec::new();
    for (column, kept) in columns[..keys].iter().zip(rows.columns()) {
        let kept = Cells::of(kept)?;
        arrays.push(array_of(column.ty, first.iter().map(|row| kept.get(*row))));
    }
    for (name, found) in cells {
        let cells = (0..first.len()).map(|at| found.get(&at).unwrap_or(&missing).clone());
        arrays.push(array_of(ty, cells));
        made.push(Column { name, ty });
    }
    Ok((made, arrays))
}

fn narrow(
    columns: &[Column],
    rows: &RecordBatch,
) -> Result<(Vec<Column>, Vec<ArrayRef>), QueryError> {
    let cells = super::cells(rows, columns.len())?;
    let (mut numbers, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        for (column, cells) in columns.iter().zip(&cells) {
            numbers.push(Cell::Long(row as i64));
            names.push(Cell::text(column.name.as_str()));
            values.push(Cell::text(text(column.ty, &cells.get(row))));
        }
    }
    let made = [("Row", Type::Long), ("Column", Type::String), ("Value", Type::String)];
    let made = made.map(|(name, ty)| Column { name: name.to_owned(), ty }).to_vec();
    let arrays = vec![
        array_of(Type::Long, numbers.into_iter()),
        array_of(Type::String, names.into_iter()),
        array_of(Type::String, values.into_iter()),
    ];
    Ok((made, arrays))
}

/// Rows that stand near one whose last column is true.
fn rows_near(
    before: usize,
    after: usize,
    columns: &[Column],
    rows: &RecordBatch,
) -> Result<(Vec<Column>, Vec<ArrayRef>), QueryError> {
    let width = columns.len() - 1;
    let conditions = Cells::of(rows.column(width))?;
    let count = rows.num_rows();
    let mut near = vec![false; count];
    for row in (0..count).filter(|row| conditions.get(*row) == Cell::Bool(true)) {
        let last = (row + after + 1).min(count);
        near[row.saturating_sub(before)..last].fill(true);
    }
    let near = BooleanArray::from(near);
    let kept = rows.columns()[..width].iter().map(|array| filter(array, &near));
    let kept = kept.collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
    Ok((columns[..width].to_vec(), kept))
}
