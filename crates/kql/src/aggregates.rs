//! Aggregates as data, in the notation of [`crate::functions`].

use crate::functions::Naming::{self, First as F, None as N, Prefixed as P};
use crate::functions::{Function, read_signatures};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Name, naming rule, signatures; sorted by name.
#[rustfmt::skip]
static TABLE: &[(&str, Naming, &str)] = &[
    ("arg_max", N, "(maximized:orderable, returned:scalar*?) columns"),
    ("arg_min", N, "(minimized:orderable, returned:scalar*?) columns"),
    ("avg", P("avg"), "(expr:integer) real; (expr:real) real; (expr:decimal) decimal; (expr:timespan) timespan; (expr:datetime) datetime"),
    ("avgif", P("avgif"), "(expr:integer, predicate:bool) real; (expr:real, predicate:bool) real; (expr:decimal, predicate:bool) decimal; (expr:timespan, predicate:bool) timespan; (expr:datetime, predicate:bool) datetime"),
    ("binary_all_and", F, "(expr:summable) =0"),
    ("binary_all_or", F, "(expr:summable) =0"),
    ("binary_all_xor", F, "(expr:summable) =0"),
    ("buildschema", P("schema"), "(expr:dynamicbag) dynamic"),
    ("count", P("count"), "() long; (value:scalar) long"),
    ("count_distinct", P("count_distinct"), "(expr:notdynamic) long"),
    ("count_distinctif", P("count_distinctif"), "(expr:notdynamic, predicate:bool) long"),
    ("countif", P("countif"), "(predicate:bool) long"),
    ("covariance", P("covariance"), "(expr:summable, expr:summable) real"),
    ("covarianceif", P("covarianceif"), "(expr:summable, expr:summable, predicate:bool) real"),
    ("covariancep", P("covariancep"), "(expr:summable, expr:summable) real"),
    ("covariancepif", P("covariancepif"), "(expr:summable, expr:summable, predicate:bool) real"),
    ("dcount", P("dcount"), "(expr:scalar, accuracy:notdynamic?) long"),
    ("dcountif", P("dcountif"), "(expr:scalar, predicate:bool, accuracy:notdynamic?) long"),
    ("hll", P("hll"), "(expr:notrealorbool, accuracy:integer?) dynamic"),
    ("hll_if", P("hll_if"), "(expr:notrealorbool, predicate:bool, accuracy:integer?) dynamic"),
    ("hll_merge", P("hll_merge"), "(hll:dynamicarray) dynamic"),
    ("make_bag", P("bag"), "(expr:dynamicbag, maxSize:integer?) dynamic"),
    ("make_bag_if", P("bag"), "(expr:dynamicbag, predicate:bool, maxSize:integer?) dynamic"),
    ("make_list", P("list"), "(expr:scalar, maxSize:integer?) dynamic"),
    ("make_list_if", P("list"), "(expr:scalar, predicate:bool, maxSize:integer?) dynamic"),
    ("make_list_with_nulls", P("list"), "(expr:scalar) dynamic"),
    ("make_set", P("set"), "(expr:scalar, maxSize:integer?) dynamic"),
    ("make_set_if", P("set"), "(expr:scalar, predicate:bool, maxSize:integer?) dynamic"),
    ("max", P("max"), "(expr:orderable) =0"),
    ("maxif", P("maxif"), "(expr:orderable, predicate:bool) =0"),
    ("min", P("min"), "(expr:orderable) =0"),
    ("minif", P("minif"), "(expr:orderable, predicate:bool) =0"),
    ("percentile", N, "(expr:scalar, percentile:number) columns"),
    ("percentiles", N, "(expr:scalar, percentile:number*) columns"),
    ("percentiles_array", P("percentiles"), "(expr:scalar, percentile:number*) columns; (expr:scalar, percentiles:dynamicarray) columns"),
    ("percentilesw", N, "(expr:scalar, weight:integer, percentile:number*) columns"),
    ("percentilesw_array", P("percentiles"), "(expr:scalar, weight:integer, percentile:number*) columns; (expr:scalar, weight:integer, percentiles:dynamicarray) columns"),
    ("percentilew", N, "(expr:scalar, weight:integer, percentile:number) columns"),
    ("stdev", P("stdev"), "(expr:summable) real"),
    ("stdevif", P("stdevif"), "(expr:summable, predicate:bool) real"),
    ("stdevp", P("stdevp"), "(expr:summable) real"),
    ("sum", P("sum"), "(expr:summable) +0"),
    ("sumif", P("sumif"), "(expr:summable, predicate:bool) +0"),
    ("take_any", N, "(expr:scalar*) columns"),
    ("take_anyif", F, "(expr:scalar, predicate:bool) =0"),
    ("tdigest", P("tdigest"), "(expr:summable, weight:integer?) dynamic"),
    ("tdigest_merge", P("merge_tdigests"), "(tdigest:dynamicarray) dynamic"),
    ("variance", P("variance"), "(expr:summable) real"),
    ("varianceif", P("varianceif"), "(expr:summable, predicate:bool) real"),
    ("variancep", P("variancep"), "(expr:summable) real"),
    ("variancepif", P("variancepif"), "(expr:summable, predicate:bool) real"),
];

/// Older names: the name, what it stands for, and the prefix of the default column name where it
/// differs (`any(x)` gives `any_x`, `take_any(x)` gives `x`).
static ALIASES: &[(&str, &str, Option<&str>)] = &[
    ("any", "take_any", Some("any")),
    ("anyif", "take_anyif", Some("anyif")),
    ("argmax", "arg_max", Some("max")),
    ("argmin", "arg_min", Some("min")),
    ("cnt", "count", Some("cnt")),
    ("make_dictionary", "make_bag", Some("dictionary")),
    ("makelist", "make_list", None),
    ("makeset", "make_set", None),
    ("merge_tdigest", "tdigest_merge", None),
];

static AGGREGATES: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let function = |name, naming, text| Function {
        name,
        naming,
        window: false,
        deterministic: name != "take_any" && name != "take_anyif",
        signatures: read_signatures(text),
    };
    let mut all: HashMap<_, _> =
        TABLE.iter().map(|&(name, naming, text)| (name, function(name, naming, text))).collect();
    for &(alias, name, prefix) in ALIASES {
        if let Some(&(_, naming, text)) = TABLE.iter().find(|row| row.0 == name) {
            all.insert(alias, function(name, prefix.map_or(naming, P), text));
        }
    }
    all
});

/// An aggregate by its name; `name` of the result is the one that plans use.
pub fn find(name: &str) -> Option<&'static Function> {
    AGGREGATES.get(name)
}

/// Every name that a query may use, older names too.
pub fn names() -> impl Iterator<Item = &'static str> {
    AGGREGATES.keys().copied()
}
