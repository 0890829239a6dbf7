//! `arg_max` and `arg_min` of many groups: where each group's row stands, and the batches it is in.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StringViewArray, StructArray, new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Fields, Int64Type};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use hashbrown::HashMap;
use std::sync::Arc;

/// Batches are thrown away, but for the rows still wanted, once they hold this many rows more than
/// there are groups, and in general when they have grown by this factor.
const SPARE_ROWS: usize = 128 << 10;
const SPARE_FACTOR: usize = 4;
/// Memory of batches below which nothing is thrown away.
const SPARE_BYTES: usize = 16 << 20;

/// A group's row: batch and row, or nothing yet.
type Place = Option<(u32, u32)>;

pub struct ExtremeGroups {
    greatest: bool,
    arguments: Vec<DataType>,
    best: Best,
    places: Vec<Place>,
    batches: Vec<Vec<ArrayRef>>,
    rows: usize,
    /// Memory of the batches, by address: batches share the buffers of a Parquet page.
    buffers: HashMap<usize, usize>,
    bytes: usize,
    /// What was left after the batches were last thrown away.
    kept: usize,
}

/// Each group's extreme value; `None` where it is null.
enum Best {
    Longs(Vec<Option<i64>>),
    Rows { converter: RowConverter, values: Vec<Option<OwnedRow>> },
}

impl ExtremeGroups {
    pub fn new(greatest: bool, arguments: &[DataType]) -> Result<ExtremeGroups> {
        let best = match &arguments[0] {
            DataType::Int64 => Best::Longs(Vec::new()),
            other => {
                let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
                Best::Rows { converter, values: Vec::new() }
            }
        };
        Ok(ExtremeGroups {
            greatest,
            arguments: arguments.to_vec(),
            best,
            places: Vec::new(),
            batches: Vec::new(),
            rows: 0,
            buffers: HashMap::new(),
            bytes: 0,
            kept: 0,
        })
    }

    fn consider(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        wanted: impl Fn(usize) -> bool,
        total: usize,
    ) -> Result<()> {
        self.places.resize(total, None);
        let batch = self.batches.len() as u32;
        let keys = &values[0];
        let mut improved = false;
        let greatest = self.greatest;
        match &mut self.best {
            Best::Longs(best) => {
                best.resize(total, None);
                let keys = keys.as_primitive::<Int64Type>();
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| wanted(*row)) {
                    let key = keys.is_valid(row).then(|| keys.value(row));
                    let known = &mut best[*group];
                    let better = match (key, *known) {
                        _ if self.places[*group].is_none() => true,
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(key), Some(known)) => {
                            if greatest {
                                key > known
                            } else {
                                key < known
                            }
                        }
                    };
                    if better {
                        *known = key;
                        self.places[*group] = Some((batch, row as u32));
                        improved = true;
                    }
                }
            }
            Best::Rows { converter, values: best } => {
                best.resize(total, None);
                let rows = converter.convert_columns(std::slice::from_ref(keys))?;
                for (row, group) in groups.iter().enumerate().filter(|(row, _)| wanted(*row)) {
                    let key = keys.is_valid(row).then(|| rows.row(row));
                    let known = &mut best[*group];
                    let better = match (key, &*known) {
                        _ if self.places[*group].is_none() => true,
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(key), Some(known)) => {
                            if greatest {
                                key > known.row()
                            } else {
                                key < known.row()
                            }
                        }
                    };
                    if better {
                        *known = key.map(|key| key.owned());
                        self.places[*group] = Some((batch, row as u32));
                        improved = true;
                    }
                }
            }
        }
        if improved {
            self.rows += keys.len();
            self.keep(values[..self.arguments.len()].to_vec());
            let full = self.rows > self.places.len() * SPARE_FACTOR + SPARE_ROWS
                || self.bytes > SPARE_BYTES + self.kept * SPARE_FACTOR;
            if full {
                self.shrink()?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, batch: Vec<ArrayRef>) {
        for data in batch.iter().map(Array::to_data) {
            let child = data.child_data().iter().flat_map(|child| child.buffers());
            for buffer in data.buffers().iter().chain(child) {
                let address = buffer.data_ptr().as_ptr() as usize;
                if self.buffers.insert(address, buffer.capacity()).is_none() {
                    self.bytes += buffer.capacity();
                }
            }
        }
        self.batches.push(batch);
    }

    /// The rows of these places; nulls where there is none.
    fn gather(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let none = self.batches.len();
        let places: Vec<(usize, usize)> = places
            .iter()
            .map(|place| place.map_or((none, 0), |(batch, row)| (batch as usize, row as usize)))
            .collect();
        let column = |(at, ty): (usize, &DataType)| {
            let null = new_null_array(ty, 1);
            let mut parts: Vec<&dyn Array> =
                self.batches.iter().map(|batch| batch[at].as_ref()).collect();
            parts.push(null.as_ref());
            let gathered = interleave(&parts, &places)?;
            // Views hold on to all the text of their batches.
            Ok(match gathered.as_any().downcast_ref::<StringViewArray>() {
                Some(views) => Arc::new(views.gc()) as ArrayRef,
                None => gathered,
            })
        };
        self.arguments.iter().enumerate().map(column).collect()
    }

    /// Keeps nothing but the rows that are wanted.
    fn shrink(&mut self) -> Result<()> {
        let rows = self.gather(&self.places)?;
        for (row, place) in self.places.iter_mut().enumerate() {
            if place.is_some() {
                *place = Some((0, row as u32));
            }
        }
        self.batches.clear();
        self.buffers.clear();
        self.bytes = 0;
        self.rows = self.places.len();
        self.keep(rows);
        self.kept = self.bytes;
        Ok(())
    }

    /// The first groups' rows, which are then forgotten, and whether they have one.
    fn take(&mut self, emit: EmitTo) -> Result<(Vec<ArrayRef>, BooleanArray)> {
        let places = emit.take_needed(&mut self.places);
        match &mut self.best {
            Best::Longs(best) => drop(emit.take_needed(best)),
            Best::Rows { values, .. } => drop(emit.take_needed(values)),
        }
        let rows = self.gather(&places)?;
        if self.places.is_empty() {
            self.batches.clear();
            self.buffers.clear();
            (self.rows, self.bytes, self.kept) = (0, 0, 0);
        }
        Ok((rows, places.iter().map(|place| Some(place.is_some())).collect()))
    }
}

impl GroupsAccumulator for ExtremeGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        match filter {
            Some(filter) => {
                self.consider(values, groups, |r| filter.is_valid(r) && filter.value(r), total)
            }
            None => self.consider(values, groups, |_| true, total),
        }
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (rows, _) = self.take(emit)?;
        let fields: Fields = super::row_fields(&self.arguments).into();
        Ok(Arc::new(StructArray::try_new(fields, rows, None)?))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (mut rows, found) = self.take(emit)?;
        rows.push(Arc::new(found));
        Ok(rows)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let (found, rows) = states
            .split_last()
            .ok_or_else(|| DataFusionError::Internal("a state was expected".to_owned()))?;
        let found = found.as_boolean();
        self.consider(rows, groups, |row| found.value(row), total)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut states = values.to_vec();
        let rows = values[0].len();
        let wanted = |row| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let found: BooleanArray = (0..rows).map(|row| Some(wanted(row))).collect();
        states.push(Arc::new(found));
        Ok(states)
    }

    fn size(&self) -> usize {
        self.bytes + self.places.capacity() * 28
    }
}
