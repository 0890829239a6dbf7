//! Operators that DataFusion has not: cells in, cells out.

mod graph;
mod graph_match;
mod groups;
mod ip_lookup;
mod key_value;
mod nested;
mod patterns;
mod plugins;
mod reduce;
mod rows;
mod scan;
mod series;
mod window;

pub use graph::{graph_edges, graph_nodes};
pub use graph_match::graph_match;
pub use groups::{group_order, group_starts, reordered, without_scan_keys};
pub use ip_lookup::IpLookup;
pub use key_value::ParseKv;
pub use nested::{best_of_each, keep_best, nested_rows};
pub use plugins::plugin;
pub use reduce::Reduce;
pub use rows::{Expand, Parse};
pub use scan::ScanMachine;
pub use series::MakeSeries;
pub use window::window;

use crate::error::QueryError;
use crate::functions::{self, Cell, Cells, array_of};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use vigie_kql::types::Type;

/// Rows that an operator made.
pub struct Made {
    /// The input's row that each came from.
    pub origin: UInt32Array,
    /// The result's columns.
    pub arrays: Vec<ArrayRef>,
}

/// A batch that may have no columns.
pub fn batch(
    schema: &SchemaRef,
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, QueryError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options);
    Ok(batch.map_err(DataFusionError::from)?)
}

/// The first columns of a batch, to be read by cells.
pub fn cells(rows: &RecordBatch, width: usize) -> Result<Vec<Cells<'_>>, QueryError> {
    let arrays = rows.columns().iter().take(width);
    Ok(arrays.map(|array| Cells::of(array)).collect::<Result<_, _>>()?)
}

/// A constant as a cell.
pub fn cell_of(value: &ScalarValue, ty: Type) -> Result<Cell<'static>, QueryError> {
    let array = value.to_array()?;
    let array = functions::as_expected(array, ty)?;
    Ok(Cells::of(&array)?.get(0).into_owned())
}

/// A column in another type; nulls where there is none.
pub fn converted(
    found: Option<(Type, ArrayRef)>,
    ty: Type,
    beside: &[ArrayRef],
) -> Result<ArrayRef, QueryError> {
    let rows = beside.first().map_or(0, |array| array.len());
    Ok(match found {
        Some((from, array)) if from == ty => array,
        Some((from, array)) => {
            let cells = Cells::of(&array)?;
            array_of(ty, (0..rows).map(|row| functions::convert_cell(from, ty, &cells.get(row))))
        }
        None => array_of(ty, (0..rows).map(|_| Cell::Null)),
    })
}
