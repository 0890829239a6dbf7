//! Single values of Arrow arrays, and arrays made of them.

use super::{Call, RowFunction, arrow_type};
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal256Type, Float64Type, Int32Type, Int64Type, i256};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use std::borrow::Cow;
use std::sync::Arc;
use vigie_kql::types::Type;

/// One value. int, long, datetime and timespan are [`Cell::Long`]; text, guid and dynamic are
/// [`Cell::Text`]; the type is known from the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Long(i64),
    Real(f64),
    /// In units of 10⁻²⁰.
    Decimal(i256),
    Text(Cow<'a, str>),
}

/// Digits behind the point that a decimal keeps.
pub const DECIMAL_SCALE: i8 = 20;

/// 10²⁰: one, as a decimal is held.
pub fn decimal_one() -> i256 {
    i256::from_i128(100_000_000_000_000_000_000)
}

impl<'a> Cell<'a> {
    pub fn text(text: impl Into<Cow<'a, str>>) -> Cell<'a> {
        Cell::Text(text.into())
    }

    /// The text; "" for null.
    pub fn as_text(&self) -> &str {
        match self {
            Cell::Text(text) => text,
            _ => "",
        }
    }

    pub fn as_long(&self) -> Option<i64> {
        match self {
            Cell::Long(value) => Some(*value),
            Cell::Bool(value) => Some((*value).into()),
            Cell::Real(value) if value.is_finite() => Some(*value as i64),
            Cell::Decimal(value) => value.checked_div(decimal_one())?.to_i128()?.try_into().ok(),
            _ => None,
        }
    }

    pub fn as_real(&self) -> Option<f64> {
        match self {
            Cell::Long(value) => Some(*value as f64),
            Cell::Real(value) => Some(*value),
            // Through text: an i256 has no exact way to a float.
            Cell::Decimal(value) => super::decimals::text(*value).parse().ok(),
            _ => None,
        }
    }

    pub fn as_decimal(&self) -> Option<i256> {
        match self {
            Cell::Decimal(value) => Some(*value),
            Cell::Long(value) => i256::from(*value).checked_mul(decimal_one()),
            Cell::Bool(value) => i256::from(i64::from(*value)).checked_mul(decimal_one()),
            Cell::Real(value) if value.is_finite() => super::decimals::parse(&format!("{value}")),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Cell::Bool(value) => Some(*value),
            Cell::Long(value) => Some(*value != 0),
            _ => None,
        }
    }

    pub fn from_long(value: Option<i64>) -> Cell<'a> {
        value.map_or(Cell::Null, Cell::Long)
    }

    pub fn from_real(value: Option<f64>) -> Cell<'a> {
        value.map_or(Cell::Null, Cell::Real)
    }

    pub fn from_bool(value: Option<bool>) -> Cell<'a> {
        value.map_or(Cell::Null, Cell::Bool)
    }

    pub fn from_text(value: Option<impl Into<Cow<'a, str>>>) -> Cell<'a> {
        value.map_or(Cell::Null, |text| Cell::Text(text.into()))
    }

    pub fn into_owned(self) -> Cell<'static> {
        match self {
            Cell::Null => Cell::Null,
            Cell::Bool(value) => Cell::Bool(value),
            Cell::Long(value) => Cell::Long(value),
            Cell::Real(value) => Cell::Real(value),
            Cell::Decimal(value) => Cell::Decimal(value),
            Cell::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// An array whose values can be taken as cells.
pub enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Real(&'a Float64Array),
    Decimal(&'a Decimal256Array),
    Text(&'a StringViewArray),
    Null,
}

impl<'a> Cells<'a> {
    pub fn of(array: &'a dyn Array) -> Result<Cells<'a>> {
        Ok(match array.data_type() {
            DataType::Boolean => Cells::Bool(array.as_boolean()),
            DataType::Int32 => Cells::Int(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Cells::Long(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Cells::Real(array.as_primitive::<Float64Type>()),
            DataType::Decimal256(..) => Cells::Decimal(array.as_primitive::<Decimal256Type>()),
            DataType::Utf8View => Cells::Text(array.as_string_view()),
            DataType::Null => Cells::Null,
            other => {
                let message = format!("no Kusto type is held as {other}");
                return Err(DataFusionError::Internal(message));
            }
        })
    }

    pub fn get(&self, row: usize) -> Cell<'a> {
        match self {
            Cells::Bool(array) if array.is_valid(row) => Cell::Bool(array.value(row)),
            Cells::Int(array) if array.is_valid(row) => Cell::Long(array.value(row).into()),
            Cells::Long(array) if array.is_valid(row) => Cell::Long(array.value(row)),
            Cells::Real(array) if array.is_valid(row) => Cell::Real(array.value(row)),
            Cells::Decimal(array) if array.is_valid(row) => Cell::Decimal(array.value(row)),
            Cells::Text(array) if array.is_valid(row) => {
                Cell::Text(Cow::Borrowed(array.value(row)))
            }
            _ => Cell::Null,
        }
    }
}

/// An array of a Kusto type from cells.
pub fn array_of<'a>(ty: Type, cells: impl Iterator<Item = Cell<'a>>) -> ArrayRef {
    match ty {
        Type::Bool => Arc::new(cells.map(|cell| cell.as_bool()).collect::<BooleanArray>()),
        Type::Int => {
            let values = cells.map(|cell| cell.as_long().map(|value| value as i32));
            Arc::new(values.collect::<Int32Array>())
        }
        Type::Long | Type::DateTime | Type::TimeSpan => {
            Arc::new(cells.map(|cell| cell.as_long()).collect::<Int64Array>())
        }
        Type::Real => Arc::new(cells.map(|cell| cell.as_real()).collect::<Float64Array>()),
        Type::Decimal => {
            let array = cells.map(|cell| cell.as_decimal()).collect::<Decimal256Array>();
            Arc::new(array.with_data_type(arrow_type(Type::Decimal)))
        }
        Type::String => {
            let mut builder = StringViewBuilder::new();
            cells.for_each(|cell| builder.append_value(cell.as_text()));
            Arc::new(builder.finish())
        }
        Type::Guid | Type::Dynamic => {
            let mut builder = StringViewBuilder::new();
            cells.for_each(|cell| match &cell {
                Cell::Text(text) => builder.append_value(text),
                _ => builder.append_null(),
            });
            Arc::new(builder.finish())
        }
    }
}

/// Computes row by row; once where all arguments are constants.
pub fn each_row(
    call: &Call,
    arguments: &[ColumnarValue],
    rows: usize,
    work: RowFunction,
) -> Result<ColumnarValue> {
    let constant =
        arguments.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) && !arguments.is_empty();
    let rows = if constant { 1 } else { rows };
    let mut arrays = Vec::with_capacity(arguments.len());
    for (argument, ty) in arguments.iter().zip(&call.arguments) {
        let array = match argument {
            ColumnarValue::Array(array) => array.clone(),
            ColumnarValue::Scalar(value) => value.to_array()?,
        };
        arrays.push(as_expected(array, *ty)?);
    }
    let columns: Vec<(Cells<'_>, bool)> = (arrays.iter().zip(arguments))
        .map(|(array, argument)| {
            Ok((Cells::of(array)?, matches!(argument, ColumnarValue::Scalar(_))))
        })
        .collect::<Result<_>>()?;
    let mut row_cells: Vec<Cell<'_>> = Vec::with_capacity(columns.len());
    let cells = (0..rows).map(|row| {
        row_cells.clear();
        row_cells.extend(
            columns.iter().map(|(column, constant)| column.get(if *constant { 0 } else { row })),
        );
        work(call, &row_cells)
    });
    let array = array_of(call.result, cells);
    if constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// Texts may arrive in another of Arrow's forms.
pub fn as_expected(array: ArrayRef, ty: Type) -> Result<ArrayRef> {
    let wanted = arrow_type(ty);
    if *array.data_type() == wanted || array.data_type().is_null() {
        return Ok(array);
    }
    Ok(cast(&array, &wanted)?)
}
