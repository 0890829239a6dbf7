//! Operators that look for text in text: a constant needle is prepared once.

use super::cells::as_expected;
use super::{BatchFunction, Call};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use memchr::memmem::Finder;
use regex::Regex;
use vigie_kql::types::Type;

pub fn find(name: &str) -> Option<BatchFunction> {
    macro_rules! operators {
        ($($text:literal)*) => {
            match name {
                $($text => Some(|call, arguments, rows| run($text, call, arguments, rows)),)*
                _ => None,
            }
        };
    }
    operators! {
        "has" "!has" "has_cs" "!has_cs" "hasprefix" "!hasprefix" "hasprefix_cs" "!hasprefix_cs"
        "hassuffix" "!hassuffix" "hassuffix_cs" "!hassuffix_cs" "contains" "!contains"
        "contains_cs" "!contains_cs" "startswith" "!startswith" "startswith_cs" "!startswith_cs"
        "endswith" "!endswith" "endswith_cs" "!endswith_cs" "=~" "!~" "matches regex"
        "in~" "!in~" "has_any" "has_all"
    }
}

/// `assert(predicate, message)`: ends the query at the first row where the predicate is not true.
pub fn assert(_: &Call, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let predicate = arguments[0].to_array(rows)?;
    let failed = predicate.as_boolean().iter().any(|value| value != Some(true));
    if failed {
        let message = constant_text(&arguments[1]).unwrap_or("the assertion failed");
        return Err(DataFusionError::Execution(format!("assert: {message}")));
    }
    Ok(arguments[0].clone())
}

fn run(
    operator: &'static str,
    _: &Call,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let constant = arguments.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { rows };
    let column = |argument: &ColumnarValue| -> Result<ArrayRef> {
        let array = match argument {
            ColumnarValue::Array(array) => array.clone(),
            ColumnarValue::Scalar(value) => value.to_array_of_size(rows)?,
        };
        as_expected(array, Type::String)
    };
    let haystack = column(&arguments[0])?;
    let haystack = haystack.as_string_view();
    let negated = operator.starts_with('!');
    let plain = operator.trim_start_matches('!');
    let constants: Option<Vec<&str>> = arguments[1..].iter().map(constant_text).collect();
    let found = match constants {
        Some(needles) => with_constants(plain, haystack, &needles)?,
        None => {
            let others = arguments[1..].iter().map(column).collect::<Result<Vec<_>>>()?;
            row_by_row(plain, haystack, &others)?
        }
    };
    let found = if negated { found.iter().map(|v| v.map(|v| !v)).collect() } else { found };
    if constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(found.value(0)))));
    }
    Ok(ColumnarValue::Array(std::sync::Arc::new(found)))
}

fn constant_text(argument: &ColumnarValue) -> Option<&str> {
    match argument {
        ColumnarValue::Scalar(value) => match value {
            ScalarValue::Utf8View(text) | ScalarValue::Utf8(text) => {
                Some(text.as_deref().unwrap_or_default())
            }
            _ => None,
        },
        ColumnarValue::Array(_) => None,
    }
}

/// The list that an `in~`, `has_any`, `has_all` names: texts, or one JSON array.
fn listed(needles: &[&str]) -> Vec<String> {
    match needles {
        [only] if only.starts_with('[') => match super::dynamic::element_texts(only) {
            Some(texts) => texts,
            None => vec![(*only).to_owned()],
        },
        _ => needles.iter().map(|needle| (*needle).to_owned()).collect(),
    }
}

fn with_constants(
    operator: &str,
    haystack: &StringViewArray,
    needles: &[&str],
) -> Result<BooleanArray> {
    let each = |test: &dyn Fn(&str) -> bool| -> BooleanArray {
        (0..haystack.len())
            .map(|row| Some(test(if haystack.is_null(row) { "" } else { haystack.value(row) })))
            .collect()
    };
    Ok(match operator {
        "matches regex" => {
            let regex = regex(needles[0])?;
            each(&|text| regex.is_match(text))
        }
        "in~" => {
            let list: hashbrown::HashSet<String> =
                listed(needles).iter().map(|needle| needle.to_lowercase()).collect();
            let longest = list.iter().map(String::len).max().unwrap_or(0);
            // Lower case may be longer or shorter, but never by more than the factor 3 of UTF-8.
            each(&|text| text.len() <= longest * 3 && list.contains(text.to_lowercase().as_str()))
        }
        "has_any" => {
            let tests: Vec<Matcher> =
                listed(needles).iter().map(|needle| Matcher::new("has", needle)).collect();
            each(&|text| tests.iter().any(|test| test.matches(text)))
        }
        "has_all" => {
            let tests: Vec<Matcher> =
                listed(needles).iter().map(|needle| Matcher::new("has", needle)).collect();
            each(&|text| tests.iter().all(|test| test.matches(text)))
        }
        _ => {
            let matcher = Matcher::new(operator, needles[0]);
            each(&|text| matcher.matches(text))
        }
    })
}

fn row_by_row(
    operator: &str,
    haystack: &StringViewArray,
    others: &[ArrayRef],
) -> Result<BooleanArray> {
    let text = |array: &StringViewArray, row: usize| -> String {
        if array.is_null(row) { String::new() } else { array.value(row).to_owned() }
    };
    let mut found = Vec::with_capacity(haystack.len());
    for row in 0..haystack.len() {
        let needles: Vec<String> =
            others.iter().map(|other| text(other.as_string_view(), row)).collect();
        let needles: Vec<&str> = needles.iter().map(String::as_str).collect();
        let one = haystack.slice(row, 1);
        found.push(with_constants(operator, &one, &needles)?.value(0));
    }
    Ok(found.into())
}

/// A regular expression in RE2's language; the error names it.
pub fn regex(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default();
        DataFusionError::Execution(format!("invalid regular expression '{pattern}': {reason}"))
    })
}

/// Whether a text has a term, whatever its case.
pub fn has(text: &str, term: &str) -> bool {
    Matcher::new("has", term).matches(text)
}

/// One needle, prepared.
struct Matcher<'n> {
    operator: Operator,
    cased: bool,
    /// In lower case where case does not count.
    needle: String,
    finder: Finder<'n>,
    /// Whether the needle's first and last characters are letters or digits, so that a term must
    /// begin or end there.
    edges: (bool, bool),
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Contains,
    Starts,
    Ends,
    Equals,
    Term,
    TermStart,
    TermEnd,
}

impl Matcher<'_> {
    fn new(operator: &str, needle: &str) -> Matcher<'static> {
        let cased = operator.ends_with("_cs");
        let kind = match operator.trim_end_matches("_cs") {
            "contains" => Operator::Contains,
            "startswith" => Operator::Starts,
            "endswith" => Operator::Ends,
            "hasprefix" => Operator::TermStart,
            "hassuffix" => Operator::TermEnd,
            "has" => Operator::Term,
            _ => Operator::Equals,
        };
        let needle = if cased { needle.to_owned() } else { needle.to_lowercase() };
        let edges = (
            needle.chars().next().is_some_and(char::is_alphanumeric),
            needle.chars().next_back().is_some_and(char::is_alphanumeric),
        );
        let finder = Finder::new(needle.as_bytes()).into_owned();
        Matcher { operator: kind, cased, needle, finder, edges }
    }

    fn matches(&self, text: &str) -> bool {
        if self.cased || !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte >= 0x80) {
            return self.matches_exactly(text);
        }
        if text.is_ascii() && self.needle.is_ascii() {
            return self.matches_ascii(text);
        }
        self.matches_exactly(&text.to_lowercase())
    }

    /// Without a lowered copy where ends are compared.
    fn matches_ascii(&self, text: &str) -> bool {
        let (text_bytes, needle) = (text.as_bytes(), self.needle.as_bytes());
        match self.operator {
            Operator::Equals => text_bytes.eq_ignore_ascii_case(needle),
            Operator::Starts => {
                text_bytes.get(..needle.len()).is_some_and(|s| s.eq_ignore_ascii_case(needle))
            }
            Operator::Ends => text_bytes
                .len()
                .checked_sub(needle.len())
                .is_some_and(|at| text_bytes[at..].eq_ignore_ascii_case(needle)),
            _ => self.matches_exactly(&text.to_ascii_lowercase()),
        }
    }

    fn matches_exactly(&self, text: &str) -> bool {
        let needle = self.needle.as_str();
        match self.operator {
            Operator::Equals => text == needle,
            Operator::Starts => text.starts_with(needle),
            Operator::Ends => text.ends_with(needle),
            Operator::Contains => self.finder.find(text.as_bytes()).is_some(),
            Operator::Term => self.has_term(text, self.edges.0, self.edges.1),
            Operator::TermStart => self.has_term(text, self.edges.0, false),
            Operator::TermEnd => self.has_term(text, false, self.edges.1),
        }
    }

    /// The needle with term boundaries where they are asked for.
    fn has_term(&self, text: &str, before: bool, after: bool) -> bool {
        if self.needle.is_empty() {
            return true;
        }
        let mut from = 0;
        while let Some(at) = self.finder.find(&text.as_bytes()[from..]) {
            let start = from + at;
            let end = start + self.needle.len();
            let joined_before =
                before && text[..start].chars().next_back().is_some_and(char::is_alphanumeric);
            let joined_after =
                after && text[end..].chars().next().is_some_and(char::is_alphanumeric);
            if !joined_before && !joined_after {
                return true;
            }
            // One character on: matches may overlap.
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}
