//! `range`: rows that are made while they are read.

use super::{column_name, schema_of, unsupported};
use crate::error::QueryError;
use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::ScalarValue;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::sync::Arc;
use vigie_kql::plan::Column;
use vigie_kql::types::Type;

/// Rows of a batch.
const BATCH: u64 = 8192;

/// The first value, the distance to the next, and how many there are.
#[derive(Clone, Debug)]
pub struct Range {
    values: Values,
    rows: u64,
    schema: SchemaRef,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    Int(i32, i32),
    Long(i64, i64),
    Real(f64, f64),
}

impl Range {
    /// Errors: a step of zero. What is null has no rows.
    pub fn of(
        ty: Type,
        from: ScalarValue,
        to: ScalarValue,
        step: ScalarValue,
    ) -> Result<Range, QueryError> {
        use ScalarValue::{Float64, Int32, Int64};
        let (values, rows) = match (from, to, step) {
            (Int32(Some(from)), Int32(Some(to)), Int32(Some(step))) => {
                (Values::Int(from, step), whole(from.into(), to.into(), step.into())?)
            }
            (Int64(Some(from)), Int64(Some(to)), Int64(Some(step))) => {
                (Values::Long(from, step), whole(from, to, step)?)
            }
            (Float64(Some(from)), Float64(Some(to)), Float64(Some(step))) => {
                (Values::Real(from, step), real(from, to, step)?)
            }
            _ => (Values::Long(0, 1), 0),
        };
        let schema = schema_of(&[Column { name: column_name(0), ty }]);
        Ok(Range { values, rows, schema })
    }

    pub fn table(self) -> Result<StreamingTable, QueryError> {
        Ok(StreamingTable::try_new(self.schema.clone(), vec![Arc::new(self)])?)
    }

    fn batch(&self, number: u64) -> datafusion::error::Result<RecordBatch> {
        let first = number * BATCH;
        let places = first..self.rows.min(first + BATCH);
        let array: ArrayRef = match self.values {
            Values::Int(from, step) => {
                let value = |at: u64| (i64::from(from) + at as i64 * i64::from(step)) as i32;
                Arc::new(Int32Array::from_iter_values(places.map(value)))
            }
            Values::Long(from, step) => {
                let value = |at: u64| (i128::from(from) + i128::from(at) * i128::from(step)) as i64;
                Arc::new(Int64Array::from_iter_values(places.map(value)))
            }
            Values::Real(from, step) => {
                Arc::new(Float64Array::from_iter_values(places.map(|at| from + at as f64 * step)))
            }
        };
        Ok(RecordBatch::try_new(self.schema.clone(), vec![array])?)
    }
}

impl PartitionStream for Range {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let range = self.clone();
        let batches = (0..self.rows.div_ceil(BATCH)).map(move |number| range.batch(number));
        let stream = futures::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// How many rows from `from` to `to`, both counted.
fn whole(from: i64, to: i64, step: i64) -> Result<u64, QueryError> {
    if step == 0 {
        return Err(unsupported("'range' with a step of zero"));
    }
    let distance = i128::from(to) - i128::from(from);
    if distance != 0 && distance.signum() != i128::from(step.signum()) {
        return Ok(0);
    }
    Ok(u64::try_from(distance / i128::from(step) + 1).unwrap_or(u64::MAX))
}

fn real(from: f64, to: f64, step: f64) -> Result<u64, QueryError> {
    if step == 0.0 {
        return Err(unsupported("'range' with a step of zero"));
    }
    let steps = ((to - from) / step).floor();
    Ok(if steps >= 0.0 { steps as u64 + 1 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_ranges() {
        assert_eq!(whole(1, 5, 2).ok(), Some(3));
        assert_eq!(whole(5, 1, -2).ok(), Some(3));
        assert_eq!(whole(5, 1, 1).ok(), Some(0));
        assert_eq!(whole(3, 3, -7).ok(), Some(1));
        assert_eq!(whole(i64::MIN, i64::MAX, i64::MAX).ok(), Some(3));
        assert!(whole(1, 2, 0).is_err());
        assert_eq!(real(0.0, 1.0, 0.25).ok(), Some(5));
        assert_eq!(real(1.0, 0.0, 0.25).ok(), Some(0));
    }
}
