//! `top-nested`: the best values of each level below those of the level above.

use super::batch;
use super::groups::{comparable, reordered};
use crate::error::QueryError;
use crate::functions::{Cells, array_of};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, interleave};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use std::collections::{HashMap, HashSet};
use vigie_kql::plan::Column;

/// Of a summary (keys of the levels 0 to `depth`, then the aggregate) the `count` best rows below
/// each value of the levels above.
pub fn best_of_each(
    summary: &RecordBatch,
    depth: usize,
    count: usize,
    ascending: bool,
) -> Result<RecordBatch, QueryError> {
    let order = ordered(summary, depth, depth + 1, ascending)?;
    let above = parents(summary, depth)?;
    let mut taken: HashMap<Option<OwnedRow>, usize> = HashMap::new();
    let kept: Vec<u32> = (order.into_iter())
        .filter(|row| {
            let parent = above.as_ref().map(|above| above.row(*row as usize).owned());
            let taken = taken.entry(parent).or_insert(0);
            *taken += 1;
            *taken <= count
        })
        .collect();
    reordered(summary, &UInt32Array::from(kept))
}

fn parents(rows: &RecordBatch, depth: usize) -> Result<Option<arrow::row::Rows>, QueryError> {
    if depth == 0 { Ok(None) } else { comparable(&rows.columns()[..depth]).map(Some) }
}

/// Rows by the keys above, then by the aggregate.
fn ordered(
    rows: &RecordBatch,
    depth: usize,
    aggregate: usize,
    ascending: bool,
) -> Result<Vec<u32>, QueryError> {
    let above = parents(rows, depth)?;
    let options = SortOptions { descending: !ascending, nulls_first: ascending };
    let array = rows.column(aggregate);
    let field = SortField::new_with_options(array.data_type().clone(), options);
    let converter = RowConverter::new(vec![field]).map_err(DataFusionError::from)?;
    let values =
        converter.convert_columns(std::slice::from_ref(array)).map_err(DataFusionError::from)?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        let parents = above.as_ref().map(|above| above.row(a).cmp(&above.row(b)));
        parents.unwrap_or(std::cmp::Ordering::Equal).then(values.row(a).cmp(&values.row(b)))
    });
    Ok(order)
}

/// The rows whose values are among the best; the others dropped, or counted under the name that
/// stands for them. `true` where values were replaced.
pub fn keep_best(
    rows: &RecordBatch,
    width: usize,
    depth: usize,
    best: &RecordBatch,
    others: Option<&ScalarValue>,
) -> Result<(RecordBatch, bool), QueryError> {
    let keys = &rows.columns()[width..=width + depth];
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(DataFusionError::from)?;
    let convert =
        |columns: &[ArrayRef]| converter.convert_columns(columns).map_err(DataFusionError::from);
    let wanted = convert(&best.columns()[..=depth])?;
    let wanted: HashSet<OwnedRow> = wanted.iter().map(|row| row.owned()).collect();
    let found = convert(keys)?;
    let is_best: Vec<bool> = found.iter().map(|row| wanted.contains(&row.owned())).collect();
    let Some(others) = others else {
        let kept = is_best.iter().enumerate().filter(|(_, best)| **best);
        let kept: UInt32Array = kept.map(|(row, _)| row as u32).collect();
        return Ok((reordered(rows, &kept)?, false));
    };
    let key = rows.column(width + depth);
    let name = others.to_array()?;
    let name = arrow::compute::cast(&name, key.data_type()).map_err(DataFusionError::from)?;
    let places: Vec<(usize, usize)> = is_best
        .iter()
        .enumerate()
        .map(|(row, best)| if *best { (0, row) } else { (1, 0) })
        .collect();
    let mut arrays = rows.columns().to_vec();
    arrays[width + depth] =
        interleave(&[key.as_ref(), name.as_ref()], &places).map_err(DataFusionError::from)?;
    Ok((batch(&rows.schema(), arrays, rows.num_rows())?, is_best.contains(&false)))
}

/// One row for each row of the last level, with the aggregates of the levels above beside it.
/// `levels`: summary, whether ascending, the name of the others.
pub fn nested_rows(
    levels: &[(RecordBatch, bool, Option<ScalarValue>)],
    columns: &[Column],
) -> Result<Vec<ArrayRef>, QueryError> {
    let Some((last, ..)) = levels.last() else { return Ok(Vec::new()) };
    let count = levels.len();
    // The place of each row among those of its level, level by level, orders the result.
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); last.num_rows()];
    let mut aggregates = Vec::new();
    for (depth, (summary, ascending, others)) in levels.iter().enumerate() {
        let fields =
            summary.columns()[..=depth].iter().map(|key| SortField::new(key.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(DataFusionError::from)?;
        let keys = converter
            .convert_columns(&summary.columns()[..=depth])
            .map_err(DataFusionError::from)?;
        let mut order = ordered(summary, 0, depth + 1, *ascending)?;
        if let Some(others) = others {
            let cells = Cells::of(summary.column(depth))?;
            let name = others.to_array()?;
            let name = arrow::compute::cast(&name, summary.column(depth).data_type())
                .map_err(DataFusionError::from)?;
            let name = Cells::of(&name)?.get(0).into_owned();
            order.sort_by_key(|row| cells.get(*row as usize).into_owned() == name);
        }
        let mut rank: HashMap<OwnedRow, (usize, u32)> = HashMap::new();
        for (place, row) in order.iter().enumerate() {
            rank.insert(keys.row(*row as usize).owned(), (place, *row));
        }
        let of_last =
            converter.convert_columns(&last.columns()[..=depth]).map_err(DataFusionError::from)?;
        let mut rows = Vec::new();
        for (row, path) in places.iter_mut().enumerate() {
            let (place, at) = rank.get(&of_last.row(row).owned()).copied().unwrap_or((0, 0));
            path.push(place);
            rows.push(at);
        }
        aggregates.push(rows);
    }
    let mut order: Vec<usize> = (0..last.num_rows()).collect();
    order.sort_by(|a, b| places[*a].cmp(&places[*b]));
    let mut arrays = Vec::new();
    for depth in 0..count {
        let keys = Cells::of(last.column(depth))?;
        let cells = order.iter().map(|row| keys.get(*row));
        arrays.push(array_of(columns[depth * 2].ty, cells));
        let values = Cells::of(levels[depth].0.column(depth + 1))?;
        let cells = order.iter().map(|row| values.get(aggregates[depth][*row] as usize));
        arrays.push(array_of(columns[depth * 2 + 1].ty, cells));
    }
    Ok(arrays)
}
