//! States of aggregates that queries may keep, merge and ask later: `hll`, `tdigest`, and the schema
//! that `buildschema` finds. Each is JSON text to the query.

mod digest;
mod hll;
mod schema;

pub use digest::Digest;
pub use hll::Hll;
pub use schema::Schema;

use crate::functions::{Cell, Cells};
use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use std::mem::size_of_val;

/// What rows are added to, and what merges with another of its kind.
pub trait Sketch: std::fmt::Debug + Send + Sync {
    /// One row's arguments; nulls do not count.
    fn add(&mut self, row: &[Cell<'_>]);
    /// A state of the same kind, as text; another text is left out.
    fn merge(&mut self, state: &str);
    /// `None` where nothing was added.
    fn state(&self) -> Option<String>;
    fn size(&self) -> usize;
}

/// A sketch as an aggregate; `merging` where its rows are states.
#[derive(Debug)]
pub struct Sketched<S> {
    pub sketch: S,
    pub merging: bool,
}

impl<S: Sketch + 'static> Accumulator for Sketched<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.merging {
            return self.merge_batch(values);
        }
        let columns = values.iter().map(|array| Cells::of(array)).collect::<Result<Vec<_>>>()?;
        let mut row = Vec::with_capacity(columns.len());
        for at in 0..values[0].len() {
            row.clear();
            row.extend(columns.iter().map(|column| column.get(at)));
            if row[0] != Cell::Null {
                self.sketch.add(&row);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8View(self.sketch.state()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let cells = Cells::of(&states[0])?;
        for at in 0..states[0].len() {
            if let Cell::Text(state) = cells.get(at) {
                self.sketch.merge(&state);
            }
        }
        Ok(())
    }
}
