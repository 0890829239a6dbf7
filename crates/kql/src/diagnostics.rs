//! What is wrong with a query, and where.

use std::fmt;

/// A range of bytes of the query's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// From the start of one to the end of the other.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end.max(self.start) }
    }
}

/// One error in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `SYN…` for syntax, `SEM…` for names, types and rules of operators.
    pub code: &'static str,
    pub message: String,
    pub span: Span,
    /// A name that the query may have meant.
    pub suggestion: Option<String>,
}

/// The text does not follow the grammar.
pub const SYNTAX: &str = "SYN0002";
/// A name stands for nothing.
pub const UNKNOWN_NAME: &str = "SEM0100";
/// Types do not fit an operator or a function.
pub const TYPE_MISMATCH: &str = "SEM0019";
/// Wrong number of arguments.
pub const ARGUMENTS: &str = "SEM0219";
/// Something that the language has and this place does not allow.
pub const NOT_ALLOWED: &str = "SEM0200";
/// Something that Vigie does not do.
pub const NOT_SUPPORTED: &str = "SEM0999";

impl Diagnostic {
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, message: message.into(), span, suggestion: None }
    }

    /// Adds the nearest of the candidates, if one is near.
    pub fn suggest<'a>(
        mut self,
        name: &str,
        candidates: impl Iterator<Item = &'a str>,
    ) -> Diagnostic {
        self.suggestion = nearest(name, candidates);
        self
    }

    /// The error as a line for people, with line and column counted from 1.
    pub fn display(&self, text: &str) -> String {
        let (line, column) = position(text, self.span.start);
        let hint = match &self.suggestion {
            Some(name) => format!(". Did you mean '{name}'?"),
            None => String::new(),
        };
        format!("{} [line:position={line}:{column}] {}{hint}", self.code, self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Line and column of a byte offset, both from 1; columns count characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The candidate with the fewest edits, if these are few for its length.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let wanted = name.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= limit)
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein distance, a swap of neighbours counting one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
