//! Operators that look for text in text: a constant needle is prepared once.

use super::cells::as_expected;
use super::{BatchFunction, Call};
use aho_corasick::AhoCorasick;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray};
use arrow::buffer::BooleanBuffer;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use hashbrown::HashSet;
use memchr::memmem::Finder;
use regex::Regex;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use vigie_kql::types::Type;

/// The operator's name, if it is one that looks for constant texts.
pub fn operator(name: &str) -> Option<&'static str> {
    const ALL: &[&str] = &[
        "has",
        "!has",
        "has_cs",
        "!has_cs",
        "hasprefix",
        "!hasprefix",
        "hasprefix_cs",
        "!hasprefix_cs",
        "hassuffix",
        "!hassuffix",
        "hassuffix_cs",
        "!hassuffix_cs",
        "contains",
        "!contains",
        "contains_cs",
        "!contains_cs",
        "startswith",
        "!startswith",
        "startswith_cs",
        "!startswith_cs",
        "endswith",
        "!endswith",
        "endswith_cs",
        "!endswith_cs",
        "=~",
        "!~",
        "matches regex",
        "in",
        "!in",
        "in~",
        "!in~",
        "has_any",
        "has_all",
    ];
    ALL.iter().find(|known| **known == name).copied()
}

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

/// An operator whose needles are columns or values known only when the query runs.
fn run(
    operator: &'static str,
    call: &Call,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let constant = arguments.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { rows };
    let column = |(argument, ty): (&ColumnarValue, &Type)| -> Result<ArrayRef> {
        let ty = if *ty == Type::Dynamic { Type::Dynamic } else { Type::String };
        as_expected(argument.to_array(rows)?, ty)
    };
    let haystack = column((&arguments[0], &Type::String))?;
    let haystack = haystack.as_string_view();
    let text = |array: &ArrayRef, row: usize| -> String {
        let array = array.as_string_view();
        if array.is_null(row) { String::new() } else { array.value(row).to_owned() }
    };
    let others = arguments[1..].iter().zip(&call.arguments[1..]);
    let types = &call.arguments[1..];
    let all_constant = arguments[1..].iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    let others = others.map(column).collect::<Result<Vec<_>>>()?;
    let needles = |row: usize| -> Vec<String> {
        let texts = others.iter().zip(types).map(|(other, ty)| (text(other, row), *ty));
        texts.flat_map(|(text, ty)| listed(text, ty)).collect()
    };
    let found = if all_constant && !haystack.is_empty() {
        TextTest::new(operator, needles(0))?.of_texts(haystack)
    } else {
        let mut found = Vec::with_capacity(haystack.len());
        for row in 0..haystack.len() {
            let test = TextTest::new(operator, needles(row))?;
            found.push(test.of_texts(&haystack.slice(row, 1)).value(0));
        }
        found.into()
    };
    if constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(found.value(0)))));
    }
    Ok(ColumnarValue::Array(Arc::new(found)))
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

/// The elements of a dynamic array, or the text itself.
pub fn listed(text: String, ty: Type) -> Vec<String> {
    match ty {
        Type::Dynamic => super::dynamic::element_texts(&text).unwrap_or_else(|| vec![text]),
        _ => vec![text],
    }
}

/// A text operator with constant needles, prepared once for the query.
pub struct TextTest {
    operator: &'static str,
    needles: Vec<String>,
    /// Tells tests apart without their needles, of which there may be thousands.
    digest: u64,
    prepared: Prepared,
}

enum Prepared {
    Regex(Regex),
    /// Equal to one of these, in lower case where case does not count.
    OneOf {
        texts: HashSet<String>,
        cased: bool,
        longest: usize,
    },
    Any(Vec<Matcher>),
    /// Any of many terms, all found in one pass.
    AnyOfMany {
        terms: AhoCorasick,
        edges: Vec<(bool, bool)>,
    },
    All(Vec<Matcher>),
}

/// From this many terms on one pass over the text finds all of them.
const MANY_TERMS: usize = 6;

impl PartialEq for TextTest {
    fn eq(&self, other: &TextTest) -> bool {
        self.digest == other.digest
            && self.operator == other.operator
            && self.needles == other.needles
    }
}

impl TextTest {
    /// Errors: an invalid regular expression.
    pub fn new(operator: &'static str, needles: Vec<String>) -> Result<TextTest> {
        let matchers = |kind: &str| -> Vec<Matcher> {
            needles.iter().map(|needle| Matcher::new(kind, needle)).collect()
        };
        let prepared = match operator.trim_start_matches('!') {
            "matches regex" => Prepared::Regex(regex(needles.first().map_or("", |n| n))?),
            plain @ ("in" | "in~") => {
                let cased = plain == "in";
                let texts: HashSet<String> = needles
                    .iter()
                    .map(|needle| if cased { needle.clone() } else { needle.to_lowercase() })
                    .collect();
                let longest = texts.iter().map(String::len).max().unwrap_or(0);
                Prepared::OneOf { texts, cased, longest }
            }
            "has_any" if needles.len() >= MANY_TERMS && needles.iter().all(|n| is_term(n)) => {
                let terms = AhoCorasick::builder().ascii_case_insensitive(true).build(&needles);
                let terms = terms.map_err(|error| DataFusionError::Execution(error.to_string()))?;
                Prepared::AnyOfMany { terms, edges: needles.iter().map(|n| edges(n)).collect() }
            }
            "has_any" => Prepared::Any(matchers("has")),
            "has_all" => Prepared::All(matchers("has")),
            plain => Prepared::All(matchers(plain)),
        };
        let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(&needles);
        Ok(TextTest { operator, needles, digest, prepared })
    }

    /// A name that tells which test it is.
    pub fn name(&self) -> String {
        match self.needles.as_slice() {
            [only] if only.len() < 80 => format!("{} {only:?}", self.operator),
            needles => format!("{} {} texts #{:x}", self.operator, needles.len(), self.digest),
        }
    }

    pub fn run(&self, argument: &ColumnarValue, rows: usize) -> Result<ColumnarValue> {
        let constant = matches!(argument, ColumnarValue::Scalar(_));
        let texts = as_expected(argument.to_array(if constant { 1 } else { rows })?, Type::String)?;
        let found = self.of_texts(texts.as_string_view());
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(found.value(0)))));
        }
        Ok(ColumnarValue::Array(Arc::new(found)))
    }

    fn of_texts(&self, texts: &StringViewArray) -> BooleanArray {
        let negated = self.operator.starts_with('!');
        let each = Each { texts, negated };
        match &self.prepared {
            Prepared::Regex(regex) => each.row(|text| regex.is_match(text)),
            Prepared::OneOf { texts, cased: true, longest } => {
                each.row(|text| text.len() <= *longest && texts.contains(text))
            }
            // Lower case may be longer or shorter, but never by more than the factor 3 of UTF-8.
            Prepared::OneOf { texts, longest, .. } => each.row(|text| {
                text.len() <= longest * 3 && texts.contains(text.to_lowercase().as_str())
            }),
            Prepared::AnyOfMany { terms, edges } => each.row(|text| {
                (terms.find_overlapping_iter(text)).any(|found| {
                    let (before, after) = edges[found.pattern().as_usize()];
                    stands_alone(text, found.start(), found.end(), before, after)
                })
            }),
            Prepared::Any(tests) => each.row(|text| tests.iter().any(|test| test.matches(text))),
            Prepared::All(tests) => match tests.as_slice() {
                [only] => each.row(|text| only.matches(text)),
                tests => each.row(|text| tests.iter().all(|test| test.matches(text))),
            },
        }
    }
}

struct Each<'t> {
    texts: &'t StringViewArray,
    negated: bool,
}

impl Each<'_> {
    fn row(&self, test: impl Fn(&str) -> bool) -> BooleanArray {
        let texts = self.texts;
        let text = |row| if texts.is_null(row) { "" } else { texts.value(row) };
        BooleanBuffer::collect_bool(texts.len(), |row| test(text(row)) != self.negated).into()
    }
}

/// Whether a needle can be searched for byte by byte.
fn is_term(needle: &str) -> bool {
    needle.is_ascii() && !needle.is_empty()
}

/// A regular expression in RE2's language; the error names it.
pub fn regex(pattern: &str) -> Result<Regex> {
    let compiled = Regex::new(pattern).or_else(|error| {
        // RE2 takes a brace that begins no repetition for itself.
        Regex::new(&with_stray_braces(pattern)).map_err(|_| error)
    });
    compiled.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default();
        DataFusionError::Execution(format!("invalid regular expression '{pattern}': {reason}"))
    })
}

/// The pattern with a backslash before each `{` that begins no repetition (`{2}`, `{2,}`, `{2,4}`)
/// and belongs to no escape (`\p{L}`, `\x{41}`).
fn with_stray_braces(pattern: &str) -> String {
    let is_repetition = |rest: &str| {
        let bounds = rest.split_once('}').map(|(bounds, _)| bounds).unwrap_or_default();
        let (least, most) = bounds.split_once(',').unwrap_or((bounds, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        !least.is_empty() && digits(least) && digits(most)
    };
    let mut written = String::with_capacity(pattern.len() + 4);
    let mut escaped = None;
    for (at, character) in pattern.char_indices() {
        let of_escape = matches!(escaped, Some('p' | 'P' | 'x' | 'u' | 'U'));
        let literal = escaped == Some('\\') && character == '{';
        if character == '{' && !of_escape && !literal && !is_repetition(&pattern[at + 1..]) {
            written.push('\\');
        }
        written.push(character);
        // `\p` is remembered for the brace behind it, a backslash for the character behind it.
        escaped = match escaped {
            Some('\\') if character == '\\' => None,
            Some('\\') => Some(character),
            _ if character == '\\' => Some('\\'),
            _ => None,
        };
    }
    written
}

/// Whether a text has a term, whatever its case.
pub fn has(text: &str, term: &str) -> bool {
    Matcher::new("has", term).matches(text)
}

/// One needle, prepared.
struct Matcher {
    operator: Operator,
    needle: Needle,
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

impl Matcher {
    fn new(operator: &str, needle: &str) -> Matcher {
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
        Matcher { operator: kind, needle: Needle::new(needle, cased), edges: edges(needle) }
    }

    fn matches(&self, text: &str) -> bool {
        match &self.needle {
            Needle::Lowered(_) => self.is_in(&text.to_lowercase()),
            _ => self.is_in(text),
        }
    }

    fn is_in(&self, text: &str) -> bool {
        let (bytes, length) = (text.as_bytes(), self.needle.bytes().len());
        match self.operator {
            Operator::Equals => bytes.len() == length && self.needle.equals(bytes),
            Operator::Starts => bytes.len() >= length && self.needle.equals(&bytes[..length]),
            Operator::Ends => {
                bytes.len() >= length && self.needle.equals(&bytes[bytes.len() - length..])
            }
            Operator::Contains => self.needle.find(bytes).is_some(),
            Operator::Term => self.has_term(text, self.edges.0, self.edges.1),
            Operator::TermStart => self.has_term(text, self.edges.0, false),
            Operator::TermEnd => self.has_term(text, false, self.edges.1),
        }
    }

    /// The needle with term boundaries where they are asked for.
    fn has_term(&self, text: &str, before: bool, after: bool) -> bool {
        let length = self.needle.bytes().len();
        if length == 0 {
            return true;
        }
        let mut from = 0;
        while let Some(at) = self.needle.find(&text.as_bytes()[from..]) {
            let start = from + at;
            if stands_alone(text, start, start + length, before, after) {
                return true;
            }
            // One character on: matches may overlap.
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

/// Whether a needle's first and last characters are letters or digits, so that a term must begin or
/// end there.
fn edges(needle: &str) -> (bool, bool) {
    (
        needle.chars().next().is_some_and(char::is_alphanumeric),
        needle.chars().next_back().is_some_and(char::is_alphanumeric),
    )
}

/// Whether what stands from `start` to `end` is not part of a longer term, at the sides asked for.
fn stands_alone(text: &str, start: usize, end: usize, before: bool, after: bool) -> bool {
    let joined_before =
        before && text[..start].chars().next_back().is_some_and(char::is_alphanumeric);
    let joined_after = after && text[end..].chars().next().is_some_and(char::is_alphanumeric);
    !joined_before && !joined_after
}

/// What is looked for, by how its case counts.
enum Needle {
    Cased(Finder<'static>),
    /// ASCII in lower case. Letters outside ASCII equal none of it, whatever their case, as in
    /// .NET's ordinal comparison.
    Folded(Folded),
    /// In lower case; texts are lowered before they are compared.
    Lowered(Finder<'static>),
}

impl Needle {
    fn new(text: &str, cased: bool) -> Needle {
        let finder = |text: &str| Finder::new(text.as_bytes()).into_owned();
        match text.is_ascii() {
            _ if cased => Needle::Cased(finder(text)),
            true => Needle::Folded(Folded::new(text.to_ascii_lowercase().into_bytes())),
            false => Needle::Lowered(finder(&text.to_lowercase())),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Needle::Cased(finder) | Needle::Lowered(finder) => finder.needle(),
            Needle::Folded(folded) => &folded.needle,
        }
    }

    /// `bytes` is as long as the needle.
    fn equals(&self, bytes: &[u8]) -> bool {
        match self {
            Needle::Cased(finder) | Needle::Lowered(finder) => bytes == finder.needle(),
            Needle::Folded(folded) => bytes.eq_ignore_ascii_case(&folded.needle),
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Needle::Cased(finder) | Needle::Lowered(finder) => finder.find(bytes),
            Needle::Folded(folded) => folded.find(bytes),
        }
    }
}

/// Finds ASCII whatever its case, by looking for its rarest byte in both cases.
struct Folded {
    needle: Vec<u8>,
    /// Place of the rarest byte, and of the second rarest.
    rare: (usize, usize),
}

/// Bytes of command lines and paths, the most frequent first; the others are rarer than all.
const FREQUENT: &[u8] = b"e-to \\/rinsac.lm0d1u\"p:2w3fg5476h98_v=bk{}yx,";

impl Folded {
    fn new(needle: Vec<u8>) -> Folded {
        let rank = |at: &usize| {
            FREQUENT.iter().position(|byte| *byte == needle[*at]).unwrap_or(FREQUENT.len())
        };
        let mut places: Vec<usize> = (0..needle.len()).collect();
        places.sort_by_key(|at| std::cmp::Reverse(rank(at)));
        let first = places.first().copied().unwrap_or(0);
        let rare = (first, places.get(1).copied().unwrap_or(first));
        Folded { needle, rare }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let Folded { needle, rare: (rare, second) } = self;
        let Some(&lower) = needle.get(*rare) else { return Some(0) };
        let upper = lower.to_ascii_uppercase();
        // The rare byte stands between these where the needle lies within the text.
        let end = bytes.len().checked_sub(needle.len())? + rare + 1;
        let mut from = *rare;
        loop {
            let rest = &bytes[from..end];
            let at = match lower == upper {
                true => memchr::memchr(lower, rest)?,
                false => memchr::memchr2(lower, upper, rest)?,
            };
            let start = from + at - rare;
            let found = &bytes[start..start + needle.len()];
            if found[*second].eq_ignore_ascii_case(&needle[*second])
                && found.eq_ignore_ascii_case(needle)
            {
                return Some(start);
            }
            from += at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_that_begins_no_repetition_stands_for_itself() {
        for (pattern, text, found) in [
            (r"_[0-9]{1-3}+$", "_4{1-3}}", true),
            (r"_[0-9]{1-3}+$", "_444", false),
            (r"^a{2}{x$", "aa{x", true),
            (r"^\{a{,}$", "{a{,}", true),
            (r"^\x{41}{$", "A{", true),
        ] {
            assert_eq!(regex(pattern).expect(pattern).is_match(text), found, "{pattern} on {text}");
        }
    }

    #[test]
    fn case_is_folded_for_ascii_alone_where_the_needle_is_ascii() {
        let has = |operator, needle, text| Matcher::new(operator, needle).matches(text);
        assert!(has("contains", "KaTz", "mimiKATZ"));
        assert!(has("contains", "é", "CAFÉ"));
        assert!(!has("contains", "k", "\u{212a}"), "the Kelvin sign is no k");
        assert!(has("has", "enc", "x -ENC y"));
        assert!(!has("has", "enc", "encoded enc1"));
        assert!(has("has", "enc", "encoded enc"));
        assert!(has("contains", "", "x") && has("has", "", ""));
        assert!(!has("contains", "longer", "long"));
    }
}
