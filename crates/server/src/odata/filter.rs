//! `$filter` (OData 4.01, part 2, section 5.1.1) → a SQL condition with values.

use super::{Collection, Property, Type};
use crate::edge::ApiError;
use chrono::{DateTime, NaiveDate, Utc};
use vigie_database::Value;

/// Longest filter.
const LONGEST: usize = 64 * 1024;
/// Deepest nesting of parentheses and `not`.
const DEEPEST: usize = 60;

/// Reads a filter; values are appended to `values` and named `$n` in the SQL.
pub fn sql(
    text: &str,
    collection: &Collection,
    values: &mut Vec<Value>,
) -> Result<String, ApiError> {
    if text.len() > LONGEST {
        return Err(ApiError::odata(format!("The filter is longer than {LONGEST} characters.")));
    }
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens, at: 0, collection, values, depth: 0 };
    let sql = reader.or()?;
    match reader.peek() {
        Token::End => Ok(sql),
        other => Err(syntax(other, reader.place())),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
    Colon,
    End,
}

impl Token {
    fn shown(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Text(_) => "a text",
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::Colon => ":",
            Token::End => "the end",
        }
    }
}

fn syntax(found: &Token, place: usize) -> ApiError {
    ApiError::odata(format!(
        "Syntax error at position {place} in the filter: '{}' was not expected.",
        found.shown()
    ))
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ApiError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let place = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, place));
            return Ok(tokens);
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '\'' => {
                let mut value = String::new();
                let mut characters = rest.char_indices().skip(1).peekable();
                let length = loop {
                    match characters.next() {
                        Some((_, '\'')) if characters.peek().is_some_and(|(_, c)| *c == '\'') => {
                            characters.next();
                            value.push('\'');
                        }
                        Some((at, '\'')) => break at + 1,
                        Some((_, other)) => value.push(other),
                        None => {
                            let message =
                                format!("Unterminated string at position {place} in the filter.");
                            return Err(ApiError::odata(message));
                        }
                    }
                };
                (Token::Text(value), length)
            }
            _ => {
                // Times hold colons; a lambda's variable ends at one.
                let is_time = first.is_ascii_digit();
                let end = rest.find(|c: char| {
                    c.is_whitespace()
                        || matches!(c, '(' | ')' | ',' | '\'')
                        || (c == ':' && !is_time)
                });
                match end {
                    Some(0) => (Token::Colon, 1),
                    Some(end) => (Token::Word(rest[..end].to_owned()), end),
                    None => (Token::Word(rest.to_owned()), rest.len()),
                }
            }
        };
        tokens.push((token, place));
        rest = &rest[length..];
    }
}

struct Reader<'a> {
    tokens: Vec<(Token, usize)>,
    at: usize,
    collection: &'a Collection,
    values: &'a mut Vec<Value>,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: Token) -> Result<(), ApiError> {
        let place = self.place();
        let found = self.next();
        if found == token {
            return Ok(());
        }
        let error = syntax(&found, place);
        Err(ApiError::odata(format!("{} '{}' is missing.", error.message, token.shown())))
    }

    fn or(&mut self) -> Result<String, ApiError> {
        let mut parts = vec![self.and()?];
        while self.eat_word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { format!("({})", parts.join(" OR ")) })
    }

    fn and(&mut self) -> Result<String, ApiError> {
        let mut parts = vec![self.not()?];
        while self.eat_word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { format!("({})", parts.join(" AND ")) })
    }

    fn not(&mut self) -> Result<String, ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ApiError::odata(format!(
                "The filter is nested deeper than {DEEPEST} levels."
            )));
        }
        let sql = if self.eat_word("not") {
            // Null counts as false inside, so its negation is true.
            format!("NOT COALESCE({}, 1 = 0)", self.not()?)
        } else if *self.peek() == Token::Open {
            self.at += 1;
            let inner = self.or()?;
            self.expect(Token::Close)?;
            format!("({inner})")
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(sql)
    }

    fn comparison(&mut self) -> Result<String, ApiError> {
        let place = self.place();
        let word = match self.next() {
            Token::Word(word) => word,
            other => return Err(syntax(&other, place)),
        };
        if let Some((collection, "any")) = word.rsplit_once('/') {
            return self.lambda(collection, place);
        }
        if *self.peek() == Token::Open {
            return self.function(&word, place);
        }
        let property = self.collection.property(&word)?;
        self.compared(property.sql.to_owned(), property, false)
    }

    /// `… eq 'x'`, `… in ('x', 'y')`.
    fn compared(
        &mut self,
        sql: String,
        property: &Property,
        lower: bool,
    ) -> Result<String, ApiError> {
        let place = self.place();
        let operator = match self.next() {
            Token::Word(word) => word.to_ascii_lowercase(),
            other => return Err(syntax(&other, place)),
        };
        if operator == "in" {
            self.expect(Token::Open)?;
            let mut names = Vec::new();
            loop {
                names.push(self.value(property, lower)?.unwrap_or_else(|| "NULL".to_owned()));
                match self.next() {
                    Token::Comma => {}
                    Token::Close => break,
                    other => return Err(syntax(&other, place)),
                }
            }
            return Ok(format!("{sql} IN ({})", names.join(", ")));
        }
        let symbol = match operator.as_str() {
            "eq" => "=",
            "ne" => "<>",
            "gt" => ">",
            "ge" => ">=",
            "lt" => "<",
            "le" => "<=",
            _ => {
                let message =
                    format!("'{operator}' at position {place} is no operator of a filter.");
                return Err(ApiError::odata(message));
            }
        };
        Ok(match (self.value(property, lower)?, symbol) {
            (None, "=") => format!("{sql} IS NULL"),
            (None, "<>") => format!("{sql} IS NOT NULL"),
            (None, _) => "1 = 0".to_owned(),
            // A missing value differs from every other.
            (Some(value), "<>") => format!("({sql} <> {value} OR {sql} IS NULL)"),
            (Some(value), symbol) => format!("{sql} {symbol} {value}"),
        })
    }

    /// A literal of the property's type as `$n`; `None` for null.
    fn value(&mut self, property: &Property, lower: bool) -> Result<Option<String>, ApiError> {
        let place = self.place();
        let token = self.next();
        if matches!(&token, Token::Word(word) if word == "null") {
            return Ok(None);
        }
        let told = match &token {
            Token::Word(text) | Token::Text(text) => format!("'{text}' "),
            _ => String::new(),
        };
        let wrong = || {
            let message = format!(
                "The value {told}at position {place} does not fit the property '{}'.",
                property.name
            );
            ApiError::odata(message)
        };
        let value: Value = match (property.ty, token) {
            (Type::Text | Type::Texts, Token::Text(text)) if lower => text.to_lowercase().into(),
            (Type::Text | Type::Texts, Token::Text(text)) => text.into(),
            // Ids and enumerations without quotes are seen in real clients.
            (Type::Text, Token::Word(word)) => word.into(),
            (Type::Integer, Token::Word(word)) => word.parse::<i64>().map_err(|_| wrong())?.into(),
            (Type::Time, Token::Word(text) | Token::Text(text)) => {
                time(&text).ok_or_else(wrong)?.timestamp_micros().into()
            }
            _ => return Err(wrong()),
        };
        self.values.push(value);
        Ok(Some(format!("${}", self.values.len())))
    }

    /// `startswith(p, 'x')`, `endswith`, `contains`, `tolower(p) eq 'x'`.
    fn function(&mut self, name: &str, place: usize) -> Result<String, ApiError> {
        self.expect(Token::Open)?;
        let inner_place = self.place();
        let word = match self.next() {
            Token::Word(word) => word,
            other => return Err(syntax(&other, inner_place)),
        };
        let nested = matches!(word.to_ascii_lowercase().as_str(), "tolower" | "toupper")
            && *self.peek() == Token::Open;
        let property = if nested {
            self.at += 1;
            let place = self.place();
            let property = match self.next() {
                Token::Word(word) => self.collection.property(&word)?,
                other => return Err(syntax(&other, place)),
            };
            self.expect(Token::Close)?;
            property
        } else {
            self.collection.property(&word)?
        };
        let lowered = format!("LOWER({})", property.sql);
        match name.to_ascii_lowercase().as_str() {
            "tolower" => {
                self.expect(Token::Close)?;
                self.compared(lowered, property, true)
            }
            "startswith" | "endswith" | "contains" if property.ty == Type::Text => {
                self.expect(Token::Comma)?;
                let place = self.place();
                let text = match self.next() {
                    Token::Text(text) => text.to_lowercase(),
                    other => return Err(syntax(&other, place)),
                };
                self.expect(Token::Close)?;
                let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                let pattern = match name.to_ascii_lowercase().as_str() {
                    "startswith" => format!("{escaped}%"),
                    "endswith" => format!("%{escaped}"),
                    _ => format!("%{escaped}%"),
                };
                self.values.push(pattern.into());
                let condition = format!("{lowered} LIKE ${} ESCAPE '\\'", self.values.len());
                // `startswith(p, 'x') eq true`
                if self.eat_word("eq") {
                    let negated = self.eat_word("false");
                    if !negated && !self.eat_word("true") {
                        return Err(syntax(self.peek(), self.place()));
                    }
                    return Ok(if negated { format!("NOT ({condition})") } else { condition });
                }
                Ok(condition)
            }
            _ => {
                let message =
                    format!("The function '{name}' at position {place} is not supported here.");
                Err(ApiError::odata(message))
            }
        }
    }

    /// `machineTags/any(tag: tag eq 'x')`: texts are kept as a JSON array.
    fn lambda(&mut self, collection: &str, place: usize) -> Result<String, ApiError> {
        let property = self.collection.property(collection)?;
        if property.ty != Type::Texts {
            let message = format!("'{collection}' at position {place} is no collection.");
            return Err(ApiError::odata(message));
        }
        self.expect(Token::Open)?;
        let variable = self.next();
        self.expect(Token::Colon)?;
        let place = self.place();
        let repeated = self.next();
        if repeated != variable || !self.eat_word("eq") {
            return Err(syntax(&repeated, place));
        }
        let place = self.place();
        let text = match self.next() {
            Token::Text(text) => serde_json::Value::from(text).to_string(),
            other => return Err(syntax(&other, place)),
        };
        self.expect(Token::Close)?;
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.values.push(format!("%{escaped}%").into());
        Ok(format!("{} LIKE ${} ESCAPE '\\'", property.sql, self.values.len()))
    }
}

/// A date, or a time in RFC 3339 with up to seven digits of a second.
fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc());
    }
    let plain = text.trim_end_matches('Z');
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    forms
        .iter()
        .find_map(|form| Some(chrono::NaiveDateTime::parse_from_str(plain, form).ok()?.and_utc()))
}
