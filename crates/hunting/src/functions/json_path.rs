//! `parse_json(text).a.b[0]` in one walk over the text, without building values.

use super::path::Step;
use super::{Call, Cell, convert, dynamic};
use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use std::sync::Arc;
use vigie_kql::types::Type;

/// Deepest nesting that is followed; below it a text counts as no JSON.
const DEEPEST: usize = 128;

/// The value at a path of each row's JSON: of a string or dynamic that is parsed first (`parsed`),
/// or of a dynamic as it is. The result is a string or a dynamic.
pub fn run(
    call: &Call,
    steps: &[Step],
    parsed: bool,
    argument: &ColumnarValue,
    rows: usize,
) -> Result<ColumnarValue> {
    let constant = matches!(argument, ColumnarValue::Scalar(_));
    let array = argument.to_array(if constant { 1 } else { rows })?;
    let texts = super::cells::as_expected(array, call.arguments[0])?;
    let texts = texts.as_string_view();
    let mut found = StringViewBuilder::with_capacity(texts.len());
    let mut slow = String::new();
    for row in 0..texts.len() {
        let text = if texts.is_null(row) { "" } else { texts.value(row) };
        let mut text = text.trim_ascii_start();
        if parsed && call.arguments[0] == Type::Dynamic && text.starts_with('"') {
            slow = dynamic::to_text(text);
            text = slow.trim_ascii_start();
        }
        let value = if text.starts_with(['{', '[']) { find(text, steps) } else { None };
        match (value, call.result) {
            (Some("null") | None, Type::String) => found.append_value(""),
            (Some("null") | None, _) => found.append_null(),
            (Some(value), Type::String) => match plain(value) {
                Some(text) => found.append_value(text),
                None => {
                    let value = dynamic::normal(value);
                    let text = Cell::text(value.as_str());
                    found.append_value(
                        convert::between(Type::Dynamic, Type::String, &text).as_text(),
                    );
                }
            },
            (Some(value), _) => match plain(value) {
                Some(_) => found.append_value(value),
                None => found.append_value(dynamic::normal(value)),
            },
        }
        slow.clear();
    }
    let found: ArrayRef = Arc::new(found.finish());
    if constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
    }
    Ok(ColumnarValue::Array(found))
}

/// The content of a JSON string that needs no unescaping.
fn plain(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// The raw text of the value at the path; nothing where the text as a whole is no JSON. Of a name
/// that a bag has twice the last counts.
pub fn find<'j>(json: &'j str, steps: &[Step]) -> Option<&'j str> {
    let mut scanner = Scanner { json, bytes: json.as_bytes(), at: 0 };
    let found = scanner.value(Some(steps), 0)?;
    scanner.blank();
    (scanner.at == json.len()).then_some(found)?
}

struct Scanner<'j> {
    json: &'j str,
    bytes: &'j [u8],
    at: usize,
}

impl<'j> Scanner<'j> {
    fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        self.blank();
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// Reads one value. The outer `None` is a text that is no JSON; the inner one a path that leads
    /// nowhere. Without a path nothing is looked for.
    fn value(&mut self, path: Option<&[Step]>, depth: usize) -> Option<Option<&'j str>> {
        let first = self.next()?;
        let start = self.at;
        let mut found = None;
        let step = path.and_then(<[Step]>::first);
        let rest = path.and_then(|path| path.get(1..));
        match first {
            b'"' => drop(self.string()?),
            b'{' | b'[' if depth == DEEPEST => return None,
            b'{' => {
                self.at += 1;
                if self.next()? == b'}' {
                    self.at += 1;
                } else {
                    loop {
                        let name = (self.next()? == b'"').then(|| self.string())??;
                        self.take(b':')?;
                        let wanted = matches!(step, Some(Step::Key(key)) if is_name(name, key));
                        let inner = self.value(rest.filter(|_| wanted), depth + 1)?;
                        if wanted {
                            found = inner;
                        }
                        match self.next()? {
                            b',' => self.at += 1,
                            b'}' => break self.at += 1,
                            _ => return None,
                        }
                    }
                }
            }
            b'[' => {
                self.at += 1;
                let place = match step {
                    Some(Step::At(at)) => Some(*at),
                    _ => None,
                };
                let mut all = Vec::new();
                if self.next()? == b']' {
                    self.at += 1;
                } else {
                    let mut count = 0;
                    loop {
                        let wanted = place == Some(count);
                        self.blank();
                        let begin = self.at;
                        let inner = self.value(rest.filter(|_| wanted), depth + 1)?;
                        if wanted {
                            found = inner;
                        }
                        if place.is_some_and(|place| place < 0) {
                            all.push(&self.json[begin..self.at]);
                        }
                        count += 1;
                        match self.next()? {
                            b',' => self.at += 1,
                            b']' => break self.at += 1,
                            _ => return None,
                        }
                    }
                }
                // From the end: the element is walked a second time.
                let element = place.filter(|place| *place < 0).and_then(|place| {
                    all.len().checked_sub(usize::try_from(place.unsigned_abs()).ok()?)
                });
                if let Some(element) = element.and_then(|at| all.get(at)) {
                    found = find(element, rest.unwrap_or_default());
                }
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        if path.is_some_and(<[Step]>::is_empty) {
            found = Some(&self.json[start..self.at]);
        }
        Some(found)
    }

    /// The string that begins here, with its quotes.
    fn string(&mut self) -> Option<&'j str> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.json.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        while self.bytes.get(self.at).is_some_and(part) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

fn is_name(name: &str, key: &str) -> bool {
    match plain(name) {
        Some(name) => name == key,
        None => serde_json::from_str::<String>(name).is_ok_and(|name| name == key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'j>(json: &'j str, path: &str) -> Option<&'j str> {
        find(json, &super::super::path::parse(path).expect("a path"))
    }

    #[test]
    fn a_path_leads_through_bags_and_arrays() {
        let json = r#" {"a":{"b":[10,{"c":"x"},-1.5e3]},"a\"b":true,"e":{},"f":[]} "#;
        assert_eq!(at(json, "$.a.b[0]"), Some("10"));
        assert_eq!(at(json, "$.a.b[1].c"), Some(r#""x""#));
        assert_eq!(at(json, "$.a.b[-1]"), Some("-1.5e3"));
        assert_eq!(at(json, "$.a.b[-2].c"), Some(r#""x""#));
        assert_eq!(at(json, "$.a.b[-4]"), None);
        assert_eq!(at(json, "$.a.c"), None);
        assert_eq!(at(json, "$.e"), Some("{}"));
        assert_eq!(at(json, "$.e.x"), None);
        assert_eq!(find(json, &[Step::Key("a\"b".to_owned())]), Some("true"));
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        assert_eq!(at(r#"{"a":1,"a":2}"#, "$.a"), Some("2"));
    }

    #[test]
    fn a_text_that_is_no_json_has_no_members() {
        for text in [r#"{"a":1"#, r#"{"a":1}x"#, r#"{"a":1,}"#, r#"{"a" 1}"#, r#"{"b":tru,"a":1}"#]
        {
            assert_eq!(at(text, "$.a"), None, "{text}");
        }
        let deep = format!(r#"{{"b":{}{},"a":1}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(at(&deep, "$.a"), None);
    }
}
