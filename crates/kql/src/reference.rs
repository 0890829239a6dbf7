//! What the language has, by name: for documentation, completion and tests.

use crate::functions::{self, Kind, Returns};
use crate::{aggregates, bind, parser};

/// A known name and, where it is not carried out, the reason.
pub type Entry = (&'static str, Option<&'static str>);

/// Operators of a pipeline and those that begin one.
pub fn operators() -> Vec<Entry> {
    let done = parser::operator_names().iter().map(|name| (*name, None));
    let sources = ["datatable", "externaldata"].map(|name| (name, None));
    let others = parser::refused_operators().iter().map(|name| (*name, Some("not built yet")));
    sorted(done.chain(sources).chain(others))
}

/// Scalar and window functions, older names left out.
pub fn functions() -> Vec<Entry> {
    let reason = |name: &str| functions::REFUSED.iter().find(|(n, _)| *n == name).map(|(_, r)| *r);
    let bound = ["column_names_of", "materialize", "table", "toscalar"].map(|name| (name, None));
    sorted(functions::all().map(|f| (f.name, reason(f.name))).chain(bound))
}

/// Functions of the expressions in `graph-match … where … project`.
pub fn graph_functions() -> Vec<Entry> {
    sorted(bind::GRAPH_FUNCTIONS.iter().map(|name| (*name, None)))
}

/// Aggregates, older names too.
pub fn aggregates() -> Vec<Entry> {
    sorted(aggregates::names().map(|name| (name, None)))
}

/// Plugins of `evaluate`.
pub fn plugins() -> Vec<Entry> {
    let refused = bind::REFUSED_PLUGINS.iter().map(|(name, reason)| (*name, Some(*reason)));
    sorted(bind::plugin_names().map(|name| (name, None)).chain(refused))
}

fn sorted(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort();
    entries.dedup_by_key(|entry| entry.0);
    entries
}

/// A call of a scalar function or an aggregate with arguments of its first signature that fit:
/// `strlen("a")`. For tests and as an example in an editor.
pub fn sample_call(name: &str) -> Option<String> {
    let function = functions::find(name).or_else(|| aggregates::find(name))?;
    let signature = function.signatures.first()?;
    let arguments: Vec<String> = (signature.parameters.iter())
        .filter(|parameter| !parameter.optional || parameter.repeats)
        .map(|parameter| sample(parameter.kind).to_owned())
        .collect();
    let mut call = format!("{name}({})", arguments.join(", "));
    if signature.returns == Returns::TypeLiteral {
        call.insert_str(call.len() - 1, ", typeof(long)");
    }
    Some(call)
}

fn sample(kind: Kind) -> &'static str {
    use crate::types::Type;
    match kind {
        Kind::Of(Type::Bool) | Kind::NumberOrBool => "true",
        Kind::Of(Type::Int) => "int(1)",
        Kind::Of(Type::Real) => "1.5",
        Kind::Of(Type::Decimal) => "decimal(1)",
        Kind::Of(Type::DateTime) => "datetime(2026-11-24)",
        Kind::Of(Type::TimeSpan) => "1h",
        Kind::Of(Type::Guid) => "guid(74be27de-1e4e-49d9-b579-fe0b331d3642)",
        Kind::Of(Type::String)
        | Kind::StringOrDynamic
        | Kind::StringOrArray
        | Kind::NotRealOrBool
        | Kind::NotDynamic
        | Kind::Scalar => "\"1\"",
        Kind::Of(Type::Dynamic) | Kind::DynamicArray => "dynamic([1, 2])",
        Kind::DynamicBag => "dynamic({\"a\": 1})",
        Kind::TypeLiteral => "typeof(long)",
        Kind::Of(Type::Long)
        | Kind::Integer
        | Kind::Number
        | Kind::Summable
        | Kind::IntegerOrArray
        | Kind::Orderable
        | Kind::Common
        | Kind::CommonOrDynamic
        | Kind::CommonOrderable => "1",
    }
}
