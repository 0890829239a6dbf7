//! Groups of rows: the hidden columns, whose names begin with `g`.

use super::batch;
use crate::error::QueryError;
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::DataFusionError;
use std::sync::Arc;

fn is_hidden(name: &str) -> bool {
    name.starts_with('g')
}

/// Columns as rows that can be compared.
pub fn comparable(columns: &[ArrayRef]) -> Result<Rows, QueryError> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(DataFusionError::from)?;
    Ok(converter.convert_columns(columns).map_err(DataFusionError::from)?)
}

fn groups_of(rows: &RecordBatch) -> Result<Option<Rows>, QueryError> {
    let schema = rows.schema();
    let hidden = schema.fields().iter().zip(rows.columns());
    let hidden: Vec<ArrayRef> = hidden
        .filter(|(field, _)| is_hidden(field.name()))
        .map(|(_, array)| array.clone())
        .collect();
    if hidden.is_empty() { Ok(None) } else { comparable(&hidden).map(Some) }
}

/// An order in which the rows of a group stand beside each other; `None` without groups.
pub fn group_order(rows: &RecordBatch) -> Result<Option<UInt32Array>, QueryError> {
    let Some(groups) = groups_of(rows)? else { return Ok(None) };
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by(|a, b| groups.row(*a as usize).cmp(&groups.row(*b as usize)));
    Ok(Some(UInt32Array::from(order)))
}

/// Whether each row is the first of its group; without groups the first of all.
pub fn group_starts(rows: &RecordBatch) -> Result<Vec<bool>, QueryError> {
    let groups = groups_of(rows)?;
    let starts = (0..rows.num_rows()).map(|row| match &groups {
        _ if row == 0 => true,
        Some(groups) => groups.row(row) != groups.row(row - 1),
        None => false,
    });
    Ok(starts.collect())
}

/// These rows, in this order.
pub fn reordered(rows: &RecordBatch, order: &UInt32Array) -> Result<RecordBatch, QueryError> {
    let arrays = rows.columns().iter().map(|array| take(array, order, None));
    let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
    batch(&rows.schema(), arrays, order.len())
}

/// The rows without the groups that `scan` made for itself.
pub fn without_scan_keys(rows: &RecordBatch) -> Result<RecordBatch, QueryError> {
    let schema = rows.schema();
    let kept: Vec<usize> = (0..rows.num_columns())
        .filter(|at| !schema.field(*at).name().starts_with("gscan"))
        .collect();
    let fields: Vec<_> = kept.iter().map(|at| schema.fields()[*at].clone()).collect();
    let arrays = kept.iter().map(|at| rows.column(*at).clone()).collect();
    batch(&Arc::new(Schema::new(fields)), arrays, rows.num_rows())
}
