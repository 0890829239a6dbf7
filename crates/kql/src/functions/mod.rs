//! Scalar and window functions as data: parameters, result types, default column names.
//!
//! The table is in [`table`], one line a function, in a small notation that is read once:
//!
//! ```text
//! (number:integer, digits:long?) real; (number:timespan, more:scalar*) =0
//! ```
//!
//! One or more signatures; a parameter has a name, a kind and `?` (may be missing) or `*` (one or
//! more); the result is a type, or a rule: `=0` the first argument's type, `+0` the same with int
//! widened to long, `widest` of the numeric arguments, `common` of all arguments of a `common…`
//! kind, `typeof` the last argument, `sorted` one array for each array, `[a:real, b:long]` several
//! results, `columns` decided by the binder.

mod table;

use crate::types::Type;
use std::collections::HashMap;
use std::sync::LazyLock;

/// How an unnamed call names its column (SQL servers have no such rules; Kusto has six).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `Column1` …
    None,
    /// The name of the first argument.
    First,
    /// The name of the argument when there is only one.
    Only,
    /// Prefix, `_`, name of the first argument.
    Prefixed(&'static str),
    /// Always this name.
    Fixed(&'static str),
    /// The text of the first argument, when the input has a column of that name.
    ColumnNamed,
}

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Of(Type),
    /// int or long.
    Integer,
    Number,
    /// Numbers, datetime, timespan.
    Summable,
    Scalar,
    NotDynamic,
    NotRealOrBool,
    StringOrDynamic,
    StringOrArray,
    IntegerOrArray,
    NumberOrBool,
    DynamicArray,
    DynamicBag,
    Orderable,
    /// All arguments of this kind have one common type.
    Common,
    CommonOrDynamic,
    CommonOrderable,
    /// `typeof(T)`.
    TypeLiteral,
}

impl Kind {
    /// Whether a value of `ty` may stand here, a dynamic being converted where it has to.
    pub fn accepts(self, ty: Type) -> bool {
        match self {
            Kind::Of(expected) => expected == ty || ty == Type::Dynamic || widens(ty, expected),
            Kind::Integer => matches!(ty, Type::Int | Type::Long | Type::Dynamic),
            Kind::Number => ty.is_numeric() || ty == Type::Dynamic,
            Kind::Summable => is_summable(ty) || ty == Type::Dynamic,
            Kind::NumberOrBool => ty.is_numeric() || matches!(ty, Type::Bool | Type::Dynamic),
            Kind::StringOrDynamic | Kind::StringOrArray => {
                matches!(ty, Type::String | Type::Dynamic)
            }
            Kind::IntegerOrArray => matches!(ty, Type::Int | Type::Long | Type::Dynamic),
            Kind::DynamicArray | Kind::DynamicBag => ty == Type::Dynamic,
            Kind::NotRealOrBool => !matches!(ty, Type::Real | Type::Bool),
            Kind::NotDynamic | Kind::Orderable => ty != Type::Dynamic,
            Kind::TypeLiteral => false,
            Kind::Scalar | Kind::Common | Kind::CommonOrDynamic | Kind::CommonOrderable => true,
        }
    }

    /// Whether `ty` fits without any conversion; among several signatures this one wins.
    pub fn is_exact(self, ty: Type) -> bool {
        match self {
            Kind::Of(expected) => expected == ty,
            _ => self.accepts(ty) && (ty != Type::Dynamic || self.takes_dynamic()),
        }
    }

    /// Whether a dynamic value stays one here.
    pub fn takes_dynamic(self) -> bool {
        !matches!(
            self,
            Kind::Integer | Kind::Number | Kind::Summable | Kind::NumberOrBool | Kind::NotDynamic
        ) && !matches!(self, Kind::Of(ty) if ty != Type::Dynamic)
            && self != Kind::Orderable
    }

    /// The type that a dynamic argument is converted to, if it is.
    pub fn conversion(self) -> Option<Type> {
        match self {
            Kind::Of(ty) if ty != Type::Dynamic => Some(ty),
            Kind::Integer => Some(Type::Long),
            Kind::Number | Kind::NumberOrBool | Kind::Summable => Some(Type::Real),
            _ => None,
        }
    }

    /// What a message says was expected.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Of(ty) => ty.name(),
            Kind::Integer => "int or long",
            Kind::Number => "a number",
            Kind::Summable => "a number, datetime or timespan",
            Kind::NumberOrBool => "a number or bool",
            Kind::StringOrDynamic => "string or dynamic",
            Kind::StringOrArray => "string or a dynamic array",
            Kind::IntegerOrArray => "int, long or a dynamic array",
            Kind::DynamicArray => "a dynamic array",
            Kind::DynamicBag => "a dynamic property bag",
            Kind::NotDynamic | Kind::Orderable => "any type but dynamic",
            Kind::NotRealOrBool => "any type but real and bool",
            Kind::TypeLiteral => "typeof(type)",
            Kind::Scalar | Kind::Common | Kind::CommonOrDynamic | Kind::CommonOrderable => {
                "a scalar"
            }
        }
    }

    fn read(name: &str) -> Kind {
        match name {
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "summable" => Kind::Summable,
            "scalar" => Kind::Scalar,
            "notdynamic" => Kind::NotDynamic,
            "notrealorbool" => Kind::NotRealOrBool,
            "stringordynamic" => Kind::StringOrDynamic,
            "stringorarray" => Kind::StringOrArray,
            "integerorarray" => Kind::IntegerOrArray,
            "numberorbool" => Kind::NumberOrBool,
            "dynamicarray" => Kind::DynamicArray,
            "dynamicbag" => Kind::DynamicBag,
            "orderable" => Kind::Orderable,
            "commonscalar" => Kind::Common,
            "commonscalarordynamic" => Kind::CommonOrDynamic,
            "commonorderable" => Kind::CommonOrderable,
            "type" => Kind::TypeLiteral,
            // The table is ours and a test reads every line, so what is left is a type.
            other => Kind::Of(Type::parse(other).unwrap_or(Type::Dynamic)),
        }
    }
}

/// Numbers, datetime and timespan.
pub fn is_summable(ty: Type) -> bool {
    ty.is_numeric() || matches!(ty, Type::DateTime | Type::TimeSpan)
}

/// Whether `from` becomes `to` by itself: int → long → real → decimal.
pub fn widens(from: Type, to: Type) -> bool {
    let rank = |ty| match ty {
        Type::Int => 1,
        Type::Long => 2,
        Type::Real => 3,
        Type::Decimal => 4,
        _ => 0,
    };
    rank(from) > 0 && rank(from) < rank(to)
}

/// The type that both become, if there is one.
pub fn common_type(a: Type, b: Type) -> Option<Type> {
    if a == b || widens(b, a) {
        Some(a)
    } else if widens(a, b) {
        Some(b)
    } else {
        None
    }
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    pub optional: bool,
    pub repeats: bool,
}

/// The type of the result.
#[derive(Clone, Debug, PartialEq)]
pub enum Returns {
    Type(Type),
    Argument(usize),
    /// The first argument's type, int widened to long.
    Promoted,
    Widest,
    Common,
    /// As [`Returns::Common`], but dynamic beside another type gives the other type.
    CommonNotDynamic,
    TypeLiteral,
    /// Several columns.
    Columns(Vec<(&'static str, Type)>),
    /// One array for each array argument, `name_sorted`.
    Sorted,
    /// The binder knows (`arg_max`, `percentiles` …).
    Custom,
}

/// One way to call a function.
#[derive(Clone, Debug)]
pub struct Signature {
    pub parameters: Vec<Parameter>,
    pub returns: Returns,
}

impl Signature {
    /// The parameter of each argument, or `None` when their number does not fit.
    pub fn assign(&self, arguments: &[Type]) -> Option<Vec<&Parameter>> {
        let parameters = &self.parameters;
        let count = arguments.len();
        let Some(first) = parameters.iter().position(|p| p.repeats) else {
            let needed = parameters.iter().filter(|p| !p.optional).count();
            return (needed..=parameters.len())
                .contains(&count)
                .then(|| parameters.iter().take(count).collect());
        };
        let last = parameters.iter().rposition(|p| p.repeats)?;
        let block = &parameters[first..=last];
        let tail = &parameters[last + 1..];
        // An optional parameter behind the repeated ones is told apart by its type only.
        let tail: Vec<_> = tail
            .iter()
            .filter(|p| !p.optional || arguments.last().is_some_and(|&ty| p.kind == Kind::Of(ty)))
            .collect();
        let repeated = count.checked_sub(first + tail.len())?;
        let may_be_empty = block.iter().all(|p| p.optional);
        if repeated % block.len() != 0 || (repeated == 0 && !may_be_empty) {
            return None;
        }
        let mut out: Vec<_> = parameters[..first].iter().collect();
        for _ in 0..repeated / block.len() {
            out.extend(block);
        }
        out.extend(tail);
        Some(out)
    }
}

/// A function, an operator's text never being one.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: &'static str,
    pub naming: Naming,
    /// Looks at neighbouring rows, so its input must be ordered.
    pub window: bool,
    /// Same arguments, same result.
    pub deterministic: bool,
    pub signatures: Vec<Signature>,
}

/// Functions that are known and not carried out, with the reason.
pub const REFUSED: &[(&str, &str)] = &[
    ("current_cluster_endpoint", "there is no cluster"),
    ("current_cursor", "rows have no cursor"),
    ("current_node_id", "there is no cluster"),
    ("current_principal", "a query does not know who runs it"),
    ("current_principal_details", "a query does not know who runs it"),
    ("current_principal_is_member_of", "a query does not know who runs it"),
    ("cursor_after", "rows have no cursor"),
    ("cursor_before_or_at", "rows have no cursor"),
    ("cursor_current", "rows have no cursor"),
    ("extent_id", "the lake has files, no extents"),
    ("extent_tags", "the lake has files, no extents"),
    ("extentid", "the lake has files, no extents"),
    ("hash_combine", "its formula is not published"),
    ("hash_many", "its formula is not published"),
    ("row_id", "rows have no number of their own"),
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    table::FUNCTIONS
        .iter()
        .map(|&(name, naming, trait_, text)| {
            let function = Function {
                name,
                naming,
                window: trait_ == table::Trait::Window,
                deterministic: trait_ != table::Trait::NonDeterministic,
                signatures: read_signatures(text),
            };
            (name, function)
        })
        .collect()
});

/// A function by its name or by an older name of it.
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name).or_else(|| FUNCTIONS.get(canonical(name)?))
}

fn canonical(name: &str) -> Option<&'static str> {
    let at = table::ALIASES.binary_search_by_key(&name, |(alias, _)| alias).ok()?;
    Some(table::ALIASES[at].1)
}

/// Every name that a query may use, older names too.
pub fn names() -> impl Iterator<Item = &'static str> {
    table::FUNCTIONS.iter().map(|f| f.0).chain(table::ALIASES.iter().map(|a| a.0))
}

/// Every function once.
pub fn all() -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.values()
}

/// Reads the notation of the module's documentation.
pub(crate) fn read_signatures(text: &'static str) -> Vec<Signature> {
    text.split("; ").filter_map(read_signature).collect()
}

fn read_signature(text: &'static str) -> Option<Signature> {
    let (parameters, returns) = text.strip_prefix('(')?.split_once(')')?;
    let parameters = parameters
        .split(", ")
        .filter(|p| !p.is_empty())
        .map(|p| {
            let (name, kind) = p.split_once(':').unwrap_or((p, "scalar"));
            Parameter {
                name,
                kind: Kind::read(kind.trim_end_matches(['*', '?'])),
                optional: kind.ends_with('?'),
                repeats: kind.contains('*'),
            }
        })
        .collect();
    let returns = returns.trim();
    let returns = match returns {
        "=0" => Returns::Argument(0),
        "=1" => Returns::Argument(1),
        "+0" => Returns::Promoted,
        "widest" => Returns::Widest,
        "common" => Returns::Common,
        "common-not-dynamic" => Returns::CommonNotDynamic,
        "typeof" => Returns::TypeLiteral,
        "sorted" => Returns::Sorted,
        "columns" => Returns::Custom,
        _ => match returns.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
            Some(columns) => Returns::Columns(
                columns
                    .split(", ")
                    .filter_map(|c| c.split_once(':'))
                    .filter_map(|(name, ty)| Some((name, Type::parse(ty)?)))
                    .collect(),
            ),
            None => Returns::Type(Type::parse(returns)?),
        },
    };
    Some(Signature { parameters, returns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_reads() {
        for (name, _, _, text) in table::FUNCTIONS {
            assert_eq!(read_signatures(text).len(), text.split("; ").count(), "{name}: {text}");
        }
        assert!(table::ALIASES.is_sorted_by_key(|(alias, _)| alias));
        for (alias, name) in table::ALIASES {
            assert!(FUNCTIONS.contains_key(name), "{alias} stands for an unknown {name}");
            assert!(!FUNCTIONS.contains_key(alias), "{alias} is listed twice");
        }
    }

    #[test]
    fn arguments_find_their_parameters() {
        let count = |name: &str, n| {
            let types = vec![Type::Dynamic; n];
            find(name).unwrap().signatures.iter().find_map(|s| s.assign(&types)).map(|p| p.len())
        };
        assert_eq!(count("case", 5), Some(5));
        assert_eq!(count("case", 4), None);
        assert_eq!(count("bag_pack", 4), Some(4));
        assert_eq!(count("bag_pack", 3), None);
        assert_eq!(count("substring", 2), Some(2));
        assert_eq!(count("substring", 4), None);
        assert_eq!(count("strcat", 7), Some(7));
        assert_eq!(find("iif").unwrap().name, "iff");
    }
}
