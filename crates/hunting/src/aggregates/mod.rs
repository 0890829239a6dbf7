//! Aggregates that DataFusion has not, or not fast: lists, sets and bags of JSON, rows at an extreme,
//! counts of different values, percentiles.

mod distinct;
mod extreme;

use crate::functions::{Cell, Cells, array_of};
use crate::sketches::{Digest, Hll, Schema, Sketched};
use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};
use hashbrown::HashSet;
use std::hash::{Hash, Hasher};
use std::mem::size_of_val;
use std::sync::Arc;
use vigie_kql::types::Type;

/// What is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// JSON texts in order; nulls left out, arrays opened.
    List {
        limit: usize,
    },
    /// Different JSON texts; arrays are opened.
    Set {
        limit: usize,
    },
    /// Bags merged, the first value of a key staying.
    Bag {
        limit: usize,
    },
    /// First argument's greatest (or least) value and the other arguments of its row.
    Extreme {
        greatest: bool,
    },
    /// Nearest rank, in millionths of a percent; the second argument is a weight where there is one.
    Percentile {
        rank: u64,
    },
    /// [`Hll`] of values, or of states.
    Hll {
        accuracy: usize,
        merging: bool,
    },
    /// [`Digest`] of values, or of states.
    Digest {
        whole: bool,
        merging: bool,
    },
    Schema,
    /// How many different values there are; nulls left out.
    Distinct,
}

/// The function for arguments of these Arrow types.
pub fn function(kind: Kind, arguments: &[DataType], result: DataType) -> Arc<AggregateUDF> {
    let signature = Signature::any(arguments.len(), Volatility::Immutable);
    let collect = Collect { kind, arguments: arguments.to_vec(), result, signature };
    Arc::new(AggregateUDF::new_from_impl(collect))
}

#[derive(Debug)]
struct Collect {
    kind: Kind,
    arguments: Vec<DataType>,
    result: DataType,
    signature: Signature,
}

impl PartialEq for Collect {
    fn eq(&self, other: &Collect) -> bool {
        (self.kind, &self.arguments) == (other.kind, &other.arguments)
    }
}

impl Eq for Collect {}

impl Hash for Collect {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, &self.arguments).hash(state);
    }
}

impl AggregateUDFImpl for Collect {
    fn name(&self) -> &str {
        match self.kind {
            Kind::List { .. } => "make_list",
            Kind::Set { .. } => "make_set",
            Kind::Bag { .. } => "make_bag",
            Kind::Extreme { greatest: true } => "arg_max",
            Kind::Extreme { greatest: false } => "arg_min",
            Kind::Percentile { .. } => "percentile",
            Kind::Hll { .. } => "hll",
            Kind::Digest { .. } => "tdigest",
            Kind::Schema => "buildschema",
            Kind::Distinct => "dcount",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.kind {
            Kind::Extreme { greatest } => {
                let row =
                    self.arguments.iter().map(ScalarValue::try_from).collect::<Result<_>>()?;
                Box::new(ExtremeRow { greatest, found: false, row })
            }
            Kind::Percentile { rank } => Box::new(Percentile {
                rank,
                values: Vec::new(),
                weights: Vec::new(),
                weighted: self.arguments.len() > 1,
                real: self.arguments[0] == DataType::Float64,
            }),
            Kind::Hll { accuracy, merging } => {
                Box::new(Sketched { sketch: Hll::new(accuracy), merging })
            }
            Kind::Digest { whole, merging } => {
                Box::new(Sketched { sketch: Digest::new(whole), merging })
            }
            Kind::Schema => Box::new(Sketched { sketch: Schema::default(), merging: false }),
            Kind::Distinct => Box::new(distinct::Distinct::default()),
            kind => Box::new(Texts { kind, texts: Vec::new(), seen: HashSet::new(), bytes: 0 }),
        })
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        matches!(self.kind, Kind::Distinct | Kind::Extreme { .. })
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.kind {
            Kind::Extreme { greatest } => {
                Box::new(extreme::ExtremeGroups::new(greatest, &self.arguments)?)
            }
            _ => Box::new(distinct::DistinctGroups::default()),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name: String, ty: DataType| Arc::new(Field::new(name, ty, true));
        let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
        Ok(match self.kind {
            Kind::Extreme { .. } => {
                let values = self.arguments.iter().enumerate();
                let mut fields: Vec<FieldRef> = values
                    .map(|(at, ty)| field(format!("{}_{at}", args.name), ty.clone()))
                    .collect();
                fields.push(field(format!("{}_found", args.name), DataType::Boolean));
                fields
            }
            Kind::Percentile { .. } => (self.arguments.iter().enumerate())
                .map(|(at, ty)| field(format!("{}_{at}", args.name), list(ty.clone())))
                .collect(),
            Kind::Hll { .. } | Kind::Digest { .. } | Kind::Schema => {
                vec![field(args.name.to_owned(), DataType::Utf8View)]
            }
            Kind::Distinct => vec![field(args.name.to_owned(), distinct::state_type())],
            _ => vec![field(args.name.to_owned(), list(DataType::Utf8))],
        })
    }
}

/// The columns of the struct that `arg_max` gives.
pub fn row_fields(types: &[DataType]) -> Vec<Field> {
    let fields = types.iter().enumerate();
    fields.map(|(at, ty)| Field::new(format!("f{at}"), ty.clone(), true)).collect()
}

/// JSON texts that become an array or a bag.
#[derive(Debug)]
struct Texts {
    kind: Kind,
    texts: Vec<String>,
    seen: HashSet<String>,
    bytes: usize,
}

impl Texts {
    fn add(&mut self, text: &str) {
        let limit = match self.kind {
            Kind::List { limit } | Kind::Set { limit } | Kind::Bag { limit } => limit,
            _ => 0,
        };
        if self.texts.len() >= limit {
            return;
        }
        if matches!(self.kind, Kind::Set { .. }) && !self.seen.insert(text.to_owned()) {
            return;
        }
        self.bytes += text.len() * 2 + 48;
        self.texts.push(text.to_owned());
    }
}

impl Accumulator for Texts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_string_view();
        for text in values.iter().flatten() {
            if matches!(self.kind, Kind::Set { .. } | Kind::List { .. }) && text.starts_with('[') {
                let parsed: Option<Vec<serde_json::Value>> = serde_json::from_str(text).ok();
                parsed.iter().flatten().for_each(|value| self.add(&value.to_string()));
                continue;
            }
            self.add(text);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if matches!(self.kind, Kind::Bag { .. }) {
            let mut merged = serde_json::Map::new();
            for text in &self.texts {
                if let Ok(serde_json::Value::Object(bag)) = serde_json::from_str(text) {
                    for (key, value) in bag {
                        merged.entry(key).or_insert(value);
                    }
                }
            }
            let json = serde_json::Value::Object(merged).to_string();
            return Ok(ScalarValue::Utf8View(Some(json)));
        }
        Ok(ScalarValue::Utf8View(Some(format!("[{}]", self.texts.join(",")))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let texts: Vec<ScalarValue> =
            self.texts.iter().map(|text| ScalarValue::Utf8(Some(text.clone()))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in lists(&states[0])? {
            list.as_string::<i32>().iter().flatten().for_each(|text| self.add(text));
        }
        Ok(())
    }
}

fn lists(state: &ArrayRef) -> Result<Vec<ArrayRef>> {
    let lists = state.as_any().downcast_ref::<ListArray>();
    let lists = lists.ok_or_else(|| DataFusionError::Internal("a list was expected".to_owned()))?;
    Ok(lists.iter().flatten().collect())
}

#[derive(Debug)]
struct ExtremeRow {
    greatest: bool,
    found: bool,
    row: Vec<ScalarValue>,
}

impl ExtremeRow {
    fn consider(&mut self, values: &[ArrayRef], row: usize) -> Result<()> {
        let key = ScalarValue::try_from_array(&values[0], row)?;
        let better = match (self.found, key.is_null(), self.row[0].is_null()) {
            (false, ..) => true,
            (_, true, _) => false,
            (_, false, true) => true,
            _ => {
                let order = key.partial_cmp(&self.row[0]);
                order
                    == Some(if self.greatest {
                        std::cmp::Ordering::Greater
                    } else {
                        std::cmp::Ordering::Less
                    })
            }
        };
        if better {
            self.found = true;
            self.row = values
                .iter()
                .take(self.row.len())
                .map(|array| ScalarValue::try_from_array(array, row))
                .collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// The row of this batch that matters, found without making scalars of the others.
    fn best(&self, keys: &ArrayRef) -> Option<usize> {
        macro_rules! best {
            ($array:expr, $better:expr) => {
                (0..$array.len()).filter(|row| $array.is_valid(*row)).reduce(|a, b| {
                    let (x, y) = ($array.value(a), $array.value(b));
                    if $better(&y, &x) == self.greatest && $better(&x, &y) != self.greatest {
                        b
                    } else {
                        a
                    }
                })
            };
        }
        match keys.data_type() {
            DataType::Int64 => {
                let array = keys.as_primitive::<arrow::datatypes::Int64Type>();
                best!(array, |a: &i64, b: &i64| a > b)
            }
            _ => None,
        }
    }
}

impl Accumulator for ExtremeRow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(row) = self.best(&values[0]) {
            return self.consider(values, row);
        }
        (0..values[0].len()).try_for_each(|row| self.consider(values, row))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let types: Vec<DataType> = self.row.iter().map(ScalarValue::data_type).collect();
        let fields = row_fields(&types);
        let arrays = self.row.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        let array = arrow::array::StructArray::try_new(fields.into(), arrays, None)?;
        Ok(ScalarValue::Struct(Arc::new(array)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.row.iter().map(ScalarValue::size).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = self.row.clone();
        state.push(ScalarValue::Boolean(Some(self.found)));
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let found = states[states.len() - 1].as_boolean().clone();
        for row in 0..found.len() {
            if found.value(row) {
                self.consider(states, row)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Percentile {
    rank: u64,
    values: Vec<f64>,
    /// One for each value, where there are weights.
    weights: Vec<i64>,
    weighted: bool,
    real: bool,
}

impl Accumulator for Percentile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let cells = Cells::of(&values[0])?;
        let number = |row: usize| match cells.get(row) {
            Cell::Real(value) if value.is_nan() => None,
            cell => cell.as_real(),
        };
        if !self.weighted {
            self.values.extend((0..values[0].len()).filter_map(number));
            return Ok(());
        }
        let weights = Cells::of(&values[1])?;
        for row in 0..values[0].len() {
            if let (Some(value), Some(weight @ 1..)) = (number(row), weights.get(row).as_long()) {
                self.values.push(value);
                self.weights.push(weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let share = self.rank as f64 / 1e8;
        let value = match self.weighted {
            true => {
                let mut all: Vec<(f64, i64)> =
                    self.values.iter().copied().zip(self.weights.iter().copied()).collect();
                all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
                let total: f64 = all.iter().map(|(_, weight)| *weight as f64).sum();
                let mut before = 0.0;
                let found = all.iter().find(|(_, weight)| {
                    before += *weight as f64;
                    before >= share * total
                });
                found.map(|(value, _)| *value)
            }
            false => {
                let count = self.values.len();
                let place = ((share * count as f64).ceil() as usize).saturating_sub(1);
                let place = place.min(count.saturating_sub(1));
                (count > 0).then(|| *self.values.select_nth_unstable_by(place, f64::total_cmp).1)
            }
        };
        Ok(match self.real {
            true => ScalarValue::Float64(value),
            false => ScalarValue::Int64(value.map(|value| value as i64)),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self) + (self.values.capacity() + self.weights.capacity()) * 8
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |array: ArrayRef| -> Result<ScalarValue> {
            let item = Arc::new(Field::new_list_field(array.data_type().clone(), true));
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([array.len()]);
            Ok(ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, array, None)?)))
        };
        let values = match self.real {
            true => array_of(Type::Real, self.values.iter().map(|value| Cell::Real(*value))),
            false => {
                array_of(Type::Long, self.values.iter().map(|value| Cell::Long(*value as i64)))
            }
        };
        let mut state = vec![list(values)?];
        if self.weighted {
            let weights = self.weights.iter().map(|weight| Cell::Long(*weight));
            state.push(list(array_of(Type::Long, weights))?);
        }
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states.iter().map(lists).collect::<Result<Vec<_>>>()?;
        for row in 0..states[0].len() {
            let arrays: Vec<ArrayRef> = states.iter().map(|lists| lists[row].clone()).collect();
            self.update_batch(&arrays)?;
        }
        Ok(())
    }
}
