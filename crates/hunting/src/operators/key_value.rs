//! `parse-kv`: texts that are made of names and values.

use crate::error::QueryError;
use crate::functions::{Cell, Cells, array_of, convert_text};
use crate::row_wise::{RowOperator, RowsMade};
use arrow::array::{ArrayRef, UInt32Array};
use regex::Regex;
use vigie_kql::plan::{Column, ParseKvOptions};
use vigie_kql::types::Type;

/// `parse-kv`: the values of keys as columns.
pub struct ParseKv {
    keys: Vec<Column>,
    reader: Reader,
}

impl ParseKv {
    /// Errors: an expression of the options is none.
    pub fn new(keys: &[Column], options: &ParseKvOptions) -> Result<ParseKv, QueryError> {
        Ok(ParseKv { keys: keys.to_vec(), reader: Reader::new(keys, options)? })
    }
}

impl RowOperator for ParseKv {
    fn name(&self) -> &'static str {
        "parse-kv"
    }

    fn make(&self, values: &[ArrayRef], rows: usize) -> Result<RowsMade, QueryError> {
        let texts = Cells::of(&values[0])?;
        let mut values: Vec<Vec<Option<String>>> = vec![Vec::new(); self.keys.len()];
        for row in 0..rows {
            let found = self.reader.values(texts.get(row).as_text(), &self.keys);
            found.into_iter().zip(&mut values).for_each(|(value, values)| values.push(value));
        }
        let arrays = self.keys.iter().zip(values).map(|(key, values)| {
            let cells = values.into_iter().map(|value| match value {
                Some(text) => convert_text(key.ty, &text),
                None if key.ty == Type::String => Cell::text(""),
                None => Cell::Null,
            });
            array_of(key.ty, cells)
        });
        let arrays = arrays.collect();
        Ok(RowsMade { origin: (0..rows as u32).collect::<UInt32Array>(), arrays })
    }
}

enum Reader {
    /// Group 1 is a name, group 2 its value.
    Regex(Regex),
    /// One expression a key.
    Anywhere(Vec<Regex>),
    Delimited(ParseKvOptions),
}

impl Reader {
    fn new(keys: &[Column], options: &ParseKvOptions) -> Result<Reader, QueryError> {
        let read = |pattern: &str| {
            Regex::new(pattern)
                .map_err(|error| QueryError::Runtime(format!("'parse-kv' operator: {error}")))
        };
        if let Some(pattern) = &options.regex {
            return Ok(Reader::Regex(read(pattern)?));
        }
        if options.pair_delimiter.is_empty() && options.kv_delimiter.is_empty() {
            let patterns = keys.iter().map(|key| {
                let name = regex::escape(&key.name);
                read(&format!(
                    r"(?:^|[^\p{{L}}\p{{N}}_]){name}[^\p{{L}}\p{{N}}]+([\p{{L}}\p{{N}}]+)"
                ))
            });
            return Ok(Reader::Anywhere(patterns.collect::<Result<_, _>>()?));
        }
        Ok(Reader::Delimited(options.clone()))
    }

    fn values(&self, text: &str, keys: &[Column]) -> Vec<Option<String>> {
        match self {
            Reader::Anywhere(patterns) => {
                let found = patterns.iter().map(|pattern| pattern.captures(text));
                found.map(|found| found.map(|found| found[1].to_owned())).collect()
            }
            Reader::Regex(pattern) => {
                let mut values = vec![None; keys.len()];
                for found in pattern.captures_iter(text) {
                    let part = |at| found.get(at).map_or("", |m: regex::Match<'_>| m.as_str());
                    keep(&mut values, keys, part(1), part(2).to_owned());
                }
                values
            }
            Reader::Delimited(options) => {
                let mut values = vec![None; keys.len()];
                let mut walk = Walk { rest: text, options };
                while let Some((name, value)) = walk.pair() {
                    keep(&mut values, keys, &name, value);
                }
                values
            }
        }
    }
}

/// The first value of a name counts.
fn keep(values: &mut [Option<String>], keys: &[Column], name: &str, value: String) {
    if let Some(at) = keys.iter().position(|key| key.name == name.trim())
        && values[at].is_none()
    {
        values[at] = Some(value);
    }
}

struct Walk<'t> {
    rest: &'t str,
    options: &'t ParseKvOptions,
}

impl Walk<'_> {
    fn pair(&mut self) -> Option<(String, String)> {
        let between = self.options.pair_delimiter.as_str();
        while !between.is_empty()
            && let Some(rest) = self.rest.strip_prefix(between)
        {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let middle = self.options.kv_delimiter.as_str();
        let name = match self.quoted() {
            Some(name) => {
                self.rest = self.rest.strip_prefix(middle)?;
                name
            }
            None => {
                let at = self.rest.find(middle)?;
                let name = &self.rest[..at];
                self.rest = &self.rest[at + middle.len()..];
                // Words before the name belong to nothing.
                let start = match between.is_empty() {
                    true => 0,
                    false => name.rfind(between).map_or(0, |at| at + between.len()),
                };
                name[start..].to_owned()
            }
        };
        if let Some(value) = self.quoted() {
            return Some((name, value));
        }
        let end = if self.options.greedy { self.greedy_end() } else { self.next_delimiter(0) };
        let value = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        Some((name, value))
    }

    fn next_delimiter(&self, from: usize) -> usize {
        match self.options.pair_delimiter.as_str() {
            "" => self.rest.len(),
            between => self.rest[from..].find(between).map_or(self.rest.len(), |at| from + at),
        }
    }

    /// The last delimiter before the next name.
    fn greedy_end(&self) -> usize {
        let between = self.options.pair_delimiter.as_str();
        match self.rest.find(self.options.kv_delimiter.as_str()) {
            Some(next) if !between.is_empty() => {
                self.rest[..next].rfind(between).unwrap_or(self.rest.len())
            }
            _ => self.rest.len(),
        }
    }

    /// A quoted text at this place, and on behind it.
    fn quoted(&mut self) -> Option<String> {
        let quotes = &self.options.quotes;
        let (open, close) = (*quotes.first()?, *quotes.last()?);
        let inner = self.rest.strip_prefix(open)?;
        let mut text = String::new();
        let mut characters = inner.char_indices();
        while let Some((at, character)) = characters.next() {
            if Some(character) == self.options.escape {
                text.extend(characters.next().map(|(_, escaped)| escaped));
            } else if character == close {
                self.rest = &inner[at + close.len_utf8()..];
                return Some(text);
            } else {
                text.push(character);
            }
        }
        None
    }
}
