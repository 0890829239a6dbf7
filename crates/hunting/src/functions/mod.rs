//! Kusto's scalar functions and operators on DataFusion.
//!
//! Arrow types of Kusto's types: bool `Boolean`, int `Int32`, long `Int64`, real `Float64`, decimal
//! `Decimal256(76, 20)`, datetime and timespan `Int64` ticks of 100 ns, guid, string and dynamic
//! `Utf8View` (guid in lower case; dynamic as compact JSON). Strings are never null.

mod arrays;
mod cells;
mod convert;
mod dates;
mod decimals;
mod decompose;
mod dynamic;
mod encodings;
mod json_path;
mod network;
mod numbers;
mod parts;
pub mod path;
mod series;
mod sketches;
mod special;
mod strings;
pub mod text;
mod zones;

use arrow::array::{AsArray as _, BooleanArray};
use arrow::compute::or_kleene;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use vigie_kql::types::Type;

pub use cells::{Cell, Cells, array_of, as_expected};
pub use convert::{real_text, text};
pub use decimals::text as decimal_text;
pub use dynamic::{json_of, to_text};
pub use network::as_network;

/// The Arrow type of a Kusto type.
pub fn arrow_type(ty: Type) -> DataType {
    match ty {
        Type::Bool => DataType::Boolean,
        Type::Int => DataType::Int32,
        Type::Long | Type::DateTime | Type::TimeSpan => DataType::Int64,
        Type::Real => DataType::Float64,
        Type::Decimal => DataType::Decimal256(76, cells::DECIMAL_SCALE),
        Type::Guid | Type::String | Type::Dynamic => DataType::Utf8View,
    }
}

/// A text as a value of another type, as `toTYPE()` reads it.
pub fn convert_text<'a>(ty: Type, value: &str) -> Cell<'a> {
    convert::between(Type::String, ty, &Cell::text(value.to_owned())).into_owned()
}

/// A decimal from its text.
pub fn decimal_cell<'a>(text: &str) -> Cell<'a> {
    decimals::parse(text).map_or(Cell::Null, Cell::Decimal)
}

/// A value as one of another type; null, or "", where it cannot be one.
pub fn convert_cell(from: Type, to: Type, cell: &Cell<'_>) -> Cell<'static> {
    convert::between(from, to, cell).into_owned()
}

/// How one row is computed: cells of the arguments → a cell of the result.
pub type RowFunction = for<'a> fn(&Call, &[Cell<'a>]) -> Cell<'a>;
/// How a whole batch is computed, where that is worth code of its own.
type BatchFunction = fn(&Call, &[ColumnarValue], usize) -> Result<ColumnarValue>;

/// The types of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub arguments: Vec<Type>,
    pub result: Type,
}

#[derive(Clone)]
enum Work {
    Row(RowFunction),
    Batch(BatchFunction),
    /// A path into JSON, which is parsed first or a dynamic already.
    Path {
        steps: Arc<[path::Step]>,
        parsed: bool,
    },
    Text(Arc<text::TextTest>),
}

/// The function for a call of the reference's `name` (or an operator's text) with these types.
pub fn scalar(name: &str, arguments: &[Type], result: Type) -> Option<Arc<ScalarUDF>> {
    let work = strings::find(name)
        .or_else(|| numbers::find(name))
        .or_else(|| dates::find(name))
        .or_else(|| dynamic::find(name))
        .or_else(|| arrays::find(name))
        .or_else(|| special::find(name))
        .or_else(|| encodings::find(name))
        .or_else(|| parts::find(name))
        .or_else(|| zones::find(name))
        .or_else(|| decimals::find(name))
        .or_else(|| network::find(name))
        .or_else(|| sketches::find(name))
        .or_else(|| series::find(name))
        .or_else(|| decompose::find(name))
        .or_else(|| crate::geo::find(name))
        .map(Work::Row)
        .or_else(|| text::find(name).map(Work::Batch))
        .or_else(|| (name == "assert").then_some(Work::Batch(text::assert)))?;
    let volatile = matches!(name, "rand" | "new_guid");
    Some(function(name, arguments, result, work, volatile))
}

/// The conversion of a value, which never fails.
pub fn cast(from: Type, to: Type) -> Arc<ScalarUDF> {
    function(&format!("to{to}"), &[from], to, Work::Row(convert::convert), false)
}

/// `dynamic[key]`, the key a text or a position.
pub fn member(key: Type) -> Arc<ScalarUDF> {
    let arguments = [Type::Dynamic, key];
    function("member", &arguments, Type::Dynamic, Work::Row(dynamic::member), false)
}

/// A text operator with constant needles; `None` where `name` is none. Errors: an invalid regular
/// expression.
pub fn text_test(name: &str, needles: Vec<String>) -> Result<Option<Arc<ScalarUDF>>> {
    let Some(operator) = text::operator(name) else { return Ok(None) };
    let test = Arc::new(text::TextTest::new(operator, needles)?);
    let name = test.name();
    Ok(Some(function(&name, &[Type::String], Type::Bool, Work::Text(test), false)))
}

/// Whether one of many conditions holds. For DataFusion a tree of `or`s is an expression at each of its
/// nodes, whose types its rules ask for again and again; here it is one.
pub fn any_of(conditions: usize) -> Arc<ScalarUDF> {
    let arguments = vec![Type::Bool; conditions];
    function("any_of", &arguments, Type::Bool, Work::Batch(any), false)
}

fn any(_: &Call, conditions: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let mut found: Option<BooleanArray> = None;
    for condition in conditions {
        let array = condition.to_array(rows)?;
        let array = array.as_boolean();
        found = Some(match found {
            None => array.clone(),
            Some(found) => or_kleene(&found, array)?,
        });
    }
    let none = || BooleanArray::from(vec![false; rows]);
    Ok(ColumnarValue::Array(Arc::new(found.unwrap_or_else(none))))
}

/// `base.a.b[0]` as a dynamic, or as a string at once. `parsed` means `parse_json(base)`.
pub fn member_path(
    base: Type,
    parsed: bool,
    steps: Vec<path::Step>,
    result: Type,
) -> Arc<ScalarUDF> {
    let name = format!("{}{steps:?}", if parsed { "parse_json" } else { "" });
    function(&name, &[base], result, Work::Path { steps: steps.into(), parsed }, false)
}

fn function(
    name: &str,
    arguments: &[Type],
    result: Type,
    work: Work,
    volatile: bool,
) -> Arc<ScalarUDF> {
    let volatility = if volatile { Volatility::Volatile } else { Volatility::Immutable };
    let signature = match arguments.len() {
        0 => Signature::nullary(volatility),
        count => Signature::any(count, volatility),
    };
    let call = Call { arguments: arguments.to_vec(), result };
    Arc::new(ScalarUDF::new_from_impl(Function { name: name.to_owned(), call, signature, work }))
}

struct Function {
    name: String,
    call: Call,
    signature: Signature,
    work: Work,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.name, self.call)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        let same = match (&self.work, &other.work) {
            (Work::Text(a), Work::Text(b)) => a == b,
            _ => true,
        };
        same && self.name == other.name && self.call == other.call
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.call).hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(self.call.result))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &self.work {
            Work::Text(test) => test.run(&args.args[0], args.number_rows),
            Work::Path { steps, parsed } => {
                json_path::run(&self.call, steps, *parsed, &args.args[0], args.number_rows)
            }
            Work::Batch(work) => work(&self.call, &args.args, args.number_rows),
            Work::Row(work) => cells::each_row(&self.call, &args.args, args.number_rows, *work),
        }
    }
}
