//! A look at values as they arrive: rows that hold one of many sought values are told before they
//! are stored.

use super::hot::HotBatch;
use super::shape::{Kind, Shape};
use crate::database;
use crate::result::ResultTable;
use arrow::array::{Array, ArrayRef, AsArray};
use std::sync::Arc;
use vigie_contract::tables;

/// What is looked for. Called for every value of the named columns, so it must be quick.
pub trait Watch: Send + Sync {
    /// Columns of text to look at, in whatever table they are.
    fn columns(&self) -> &[&'static str];

    /// Whether the value, which is not empty, is sought in the column at that place of
    /// [`Watch::columns`].
    fn seeks(&self, column: usize, value: &str) -> bool;
}

/// A row that holds a sought value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub table: &'static str,
    /// Place of the column in [`Watch::columns`].
    pub column: usize,
    pub value: String,
    /// The row as a JSON object of its table's columns.
    pub row: Vec<u8>,
}

/// Rows of one batch that are reported at most; a batch full of one thing is one finding, not many.
const MOST: usize = 1000;

/// Every sought value of a batch's tables.
pub fn sightings(tables: &[(&'static Shape, HotBatch)], watch: &dyn Watch) -> Vec<Sighting> {
    let mut found = Vec::new();
    for (shape, batch) in tables {
        for (column, name) in watch.columns().iter().enumerate() {
            let Some(index) = shape.column(name) else { continue };
            let Some(array) = &batch.columns[index] else { continue };
            if !matches!(shape.kinds[index], Kind::String | Kind::Guid) {
                continue;
            }
            let mut before = ("", false);
            for row in 0..array.len() {
                let value = array.as_string::<i32>().value(row);
                if value.is_empty() {
                    continue;
                }
                // Values come in runs: one process does many things.
                if value != before.0 {
                    before = (value, watch.seeks(column, value));
                }
                if before.1 && found.len() < MOST {
                    let text = row_text(shape, batch, row);
                    let value = value.to_owned();
                    found.push(Sighting { table: shape.name, column, value, row: text });
                }
            }
        }
    }
    found
}

/// A row as the API writes it.
fn row_text(shape: &Shape, batch: &HotBatch, row: usize) -> Vec<u8> {
    let Some(table) = tables::table(shape.name) else { return Vec::new() };
    let columns: Vec<Option<ArrayRef>> =
        batch.columns.iter().map(|array| array.as_ref().map(|array| array.slice(row, 1))).collect();
    let one = HotBatch::new(shape, 1, columns);
    // The hidden column comes last and is not shown.
    let projection: Vec<usize> = (0..table.columns.len()).collect();
    let schema = shape.engine.project(&projection).map(Arc::new);
    let batch = schema.and_then(|schema| one.for_engine(shape, &projection, schema));
    // The columns are those of the shape, so that they fit it.
    let Ok(batch) = batch else { return Vec::new() };
    let mut text = Vec::new();
    let shown = ResultTable { columns: database::columns(table), batches: vec![batch] };
    // Writing to memory does not fail.
    let _ = shown.write_json_lines(&mut text);
    text
}
