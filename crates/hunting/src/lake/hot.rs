//! Rows in memory: acknowledged, durable in the log, not yet in Parquet.

use super::shape::{EPOCH_TICKS, Kind, Shape};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Batches below this size are merged, so that a query does not walk thousands of them.
const SMALL_ROWS: usize = 4096;
/// How many small batches may stand at the end of a list before they become one.
const SMALL_BATCHES: usize = 32;

/// Rows of one table as stored columns. A column that has no value in any row takes no memory:
/// hunting tables are wide and a source fills less than half of one.
#[derive(Debug)]
pub struct HotBatch {
    pub rows: usize,
    /// By position in [`Shape::kinds`]; `None` where every row misses the value.
    pub columns: Vec<Option<ArrayRef>>,
    /// Smallest and largest `Timestamp` in microseconds; `None` for tables without it.
    pub time: Option<(i64, i64)>,
    pub bytes: usize,
}

impl HotBatch {
    pub fn new(shape: &Shape, rows: usize, columns: Vec<Option<ArrayRef>>) -> HotBatch {
        let time = shape.timestamp.and_then(|index| {
            let values =
                columns[index].as_ref()?.as_primitive::<TimestampMicrosecondType>().values();
            Some((*values.iter().min()?, *values.iter().max()?))
        });
        let bytes = (columns.iter().flatten()).map(|array| array.get_array_memory_size()).sum();
        HotBatch { rows, columns, time, bytes }
    }

    /// The projected columns as the engine sees them.
    pub fn for_engine(
        &self,
        shape: &Shape,
        projection: &[usize],
        schema: SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let columns = (projection.iter())
            .map(|&index| match &self.columns[index] {
                Some(array) => to_engine(shape.kinds[index], array),
                None => Ok(shape.missing_engine(index, self.rows)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }

    fn merge(shape: &Shape, batches: &[Arc<HotBatch>]) -> Result<HotBatch, ArrowError> {
        let rows = batches.iter().map(|batch| batch.rows).sum();
        let mut columns = Vec::with_capacity(shape.kinds.len());
        for index in 0..shape.kinds.len() {
            if batches.iter().all(|batch| batch.columns[index].is_none()) {
                columns.push(None);
                continue;
            }
            let parts: Vec<ArrayRef> = (batches.iter())
                .map(|batch| match &batch.columns[index] {
                    Some(array) => array.clone(),
                    None => shape.missing_stored(index, batch.rows),
                })
                .collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            columns.push(Some(concat(&parts)?));
        }
        Ok(HotBatch::new(shape, rows, columns))
    }
}

/// Converts a stored column to the engine's type.
fn to_engine(kind: Kind, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match kind {
        Kind::String | Kind::Guid | Kind::Dynamic => cast(array, &DataType::Utf8View),
        Kind::Datetime => Ok(Arc::new(ticks_from_micros(array.as_primitive()))),
        _ => Ok(array.clone()),
    }
}

/// Microseconds since the Unix epoch to ticks since 0001-01-01. Nulls hold arbitrary values, hence
/// the wrapping arithmetic; it also lets the loop vectorise.
pub fn ticks_from_micros(micros: &PrimitiveArray<TimestampMicrosecondType>) -> Int64Array {
    micros.unary(|value| value.wrapping_mul(10).wrapping_add(EPOCH_TICKS))
}

/// The rows of one table that one log segment holds.
#[derive(Debug, Default)]
pub struct HotRows {
    pub batches: Vec<Arc<HotBatch>>,
}

impl HotRows {
    /// Adds a batch, and merges the small batches at the end once there are many.
    pub fn push(&mut self, shape: &Shape, batch: HotBatch) {
        self.batches.push(Arc::new(batch));
        let small = (self.batches.iter().rev()).take_while(|batch| batch.rows < SMALL_ROWS).count();
        if small < SMALL_BATCHES {
            return;
        }
        let start = self.batches.len() - small;
        // Concatenation fails only where offsets overflow; the parts then simply stay as they are.
        if let Ok(merged) = HotBatch::merge(shape, &self.batches[start..]) {
            self.batches.truncate(start);
            self.batches.push(Arc::new(merged));
        }
    }

    pub fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows).sum()
    }

    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes).sum()
    }
}
