//! `make-series`: a summary by bins, laid out as arrays.

use super::groups::comparable;
use crate::error::{Limit, QueryError};
use crate::functions::{Cell, Cells, array_of, convert_cell, json_of};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::OwnedRow;
use datafusion::common::ScalarValue;
use std::collections::HashMap;
use vigie_kql::plan::Column;
use vigie_kql::types::Type;

/// Most points of one series.
const LONGEST_SERIES: i64 = 1_048_576;

pub struct MakeSeries {
    /// How many columns of the summary are keys; the axis' bin comes next, then the aggregates.
    pub keys: usize,
    pub axis: Type,
    /// Of all columns of the summary.
    pub types: Vec<Type>,
    /// What empty bins have.
    pub defaults: Vec<(Type, ScalarValue)>,
    pub from: Option<ScalarValue>,
    pub to: Option<ScalarValue>,
    pub inclusive: bool,
    pub step: ScalarValue,
    pub nonempty: bool,
}

/// A place on the axis.
#[derive(Clone, Copy)]
enum Point {
    Whole(i64),
    Real(f64),
}

impl Point {
    fn of(value: &ScalarValue) -> Option<Point> {
        match value {
            ScalarValue::Int64(value) => value.map(Point::Whole),
            ScalarValue::Int32(value) => value.map(|value| Point::Whole(value.into())),
            ScalarValue::Float64(value) => value.map(Point::Real),
            _ => None,
        }
    }

    fn of_cell(cell: &Cell<'_>) -> Option<Point> {
        match cell {
            Cell::Long(value) => Some(Point::Whole(*value)),
            Cell::Real(value) => Some(Point::Real(*value)),
            _ => None,
        }
    }

    fn real(self) -> f64 {
        match self {
            Point::Whole(value) => value as f64,
            Point::Real(value) => value,
        }
    }

    /// How many steps from `from` to here, rounded down.
    fn steps(self, from: Point, step: Point) -> i64 {
        match (self, from, step) {
            (Point::Whole(at), Point::Whole(from), Point::Whole(step)) if step != 0 => {
                at.saturating_sub(from).div_euclid(step)
            }
            _ => ((self.real() - from.real()) / step.real() + 1e-9).floor() as i64,
        }
    }

    fn plus(self, step: Point, count: i64) -> Cell<'static> {
        match (self, step) {
            (Point::Whole(at), Point::Whole(step)) => Cell::Long(at + step * count),
            _ => Cell::Real(self.real() + step.real() * count as f64),
        }
    }
}

impl MakeSeries {
    pub fn arrays(
        &self,
        rows: &RecordBatch,
        columns: &[Column],
    ) -> Result<Vec<ArrayRef>, QueryError> {
        let axis = Cells::of(rows.column(self.keys))?;
        let bins: Vec<Point> =
            (0..rows.num_rows()).filter_map(|row| Point::of_cell(&axis.get(row))).collect();
        let by = |a: &Point, b: &Point| a.real().total_cmp(&b.real());
        let from =
            self.from.as_ref().and_then(Point::of).or_else(|| bins.iter().copied().min_by(by));
        let to = self.to.as_ref().and_then(Point::of);
        let last = bins.iter().copied().max_by(by);
        let step = Point::of(&self.step).filter(|step| step.real() > 0.0);
        let Some(step) = step else {
            let message = "'make-series' operator: the step must be greater than 0";
            return Err(QueryError::Runtime(message.to_owned()));
        };
        let count = match (from, to, last) {
            (Some(from), Some(to), _) if self.inclusive => to.steps(from, step) + 1,
            (Some(from), Some(to), _) => {
                let whole = to.steps(from, step);
                let exact = from.plus(step, whole).as_real() == Some(to.real());
                if exact { whole } else { whole + 1 }
            }
            (Some(from), None, Some(last)) => last.steps(from, step) + 1,
            _ => 0,
        };
        let count = count.max(0);
        if count > LONGEST_SERIES {
            return Err(QueryError::Limit(Limit::Memory));
        }
        let count = count as usize;
        let aggregates = self.keys + 1..rows.num_columns();
        let mut defaults = Vec::new();
        for ((ty, value), at) in self.defaults.iter().zip(aggregates.clone()) {
            let cell = super::cell_of(value, *ty)?;
            let wanted = self.types[at];
            let numeric = wanted.is_numeric() && ty.is_numeric();
            defaults.push(match numeric {
                true => json_of(wanted, &convert_cell(*ty, wanted, &cell)),
                false => json_of(*ty, &cell),
            });
        }
        let empty: Vec<Vec<String>> =
            defaults.iter().map(|default| vec![default.clone(); count]).collect();
        // Series in the order in which their keys appear.
        let keys = match self.keys {
            0 => None,
            keys => Some(comparable(&rows.columns()[..keys])?),
        };
        let mut places: HashMap<Option<OwnedRow>, usize> = HashMap::new();
        let mut series: Vec<(usize, Vec<Vec<String>>)> = Vec::new();
        let cells = super::cells(rows, rows.num_columns())?;
        for row in 0..rows.num_rows() {
            let (Some(at), Some(from)) = (Point::of_cell(&axis.get(row)), from) else { continue };
            let bin = at.steps(from, step);
            if bin < 0 || bin >= count as i64 {
                continue;
            }
            let key = keys.as_ref().map(|keys| keys.row(row).owned());
            let place = *places.entry(key).or_insert_with(|| {
                series.push((row, empty.clone()));
                series.len() - 1
            });
            for (values, at) in series[place].1.iter_mut().zip(aggregates.clone()) {
                values[bin as usize] = json_of(self.types[at], &cells[at].get(row));
            }
        }
        if series.is_empty() && self.nonempty && self.keys == 0 {
            series.push((0, empty));
        }
        let mut arrays = Vec::new();
        for at in 0..self.keys {
            let values = series.iter().map(|(row, _)| cells[at].get(*row));
            arrays.push(array_of(columns[at].ty, values));
        }
        for aggregate in 0..defaults.len() {
            let values = series.iter().map(|(_, values)| list(&values[aggregate]));
            arrays.push(array_of(Type::Dynamic, values));
        }
        let points: Vec<String> = (0..count as i64)
            .filter_map(|at| Some(json_of(self.axis, &from?.plus(step, at))))
            .collect();
        arrays.push(array_of(Type::Dynamic, series.iter().map(|_| list(&points))));
        Ok(arrays)
    }
}

fn list(values: &[String]) -> Cell<'static> {
    Cell::text(format!("[{}]", values.join(",")))
}
