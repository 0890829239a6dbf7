//! The words of a `$filter`, each with its place.
//!
//! Real clients are met where the grammar is strict: a plus sign that survived decoding stands for
//! a blank, lists stand in round or square brackets, the plus of a time's offset may have become a
//! blank on its way, and a literal may carry its type in front (`datetime'…'`).

use crate::edge::ApiError;

/// Longest filter, in bytes.
const LONGEST: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A name, an operator, or a literal without quotes.
    Word(String),
    /// What stood in quotes.
    Text(String),
    Open,
    Close,
    Comma,
    Colon,
    End,
}

impl Token {
    /// As it is told in errors.
    pub fn shown(&self) -> String {
        match self {
            Token::Word(word) => word.chars().take(80).collect(),
            Token::Text(_) => "a text".to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
            Token::Colon => ":".to_owned(),
            Token::End => "the end".to_owned(),
        }
    }
}

/// Splits a filter; a place is the number of characters before the token.
pub fn tokens(text: &str) -> Result<Vec<(Token, usize)>, ApiError> {
    if text.len() > LONGEST {
        return Err(ApiError::odata(format!("The filter is longer than {LONGEST} characters.")));
    }
    let mut tokens = Vec::new();
    let (mut rest, mut place) = (text, 0);
    loop {
        let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '+');
        place += rest[..rest.len() - trimmed.len()].chars().count();
        rest = trimmed;
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, place));
            return Ok(tokens);
        };
        let (token, length) = match first {
            '(' | '[' => (Token::Open, 1),
            ')' | ']' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' => (Token::Colon, 1),
            '\'' => quoted(rest, place)?,
            _ => word(rest, place)?,
        };
        tokens.push((token, place));
        place += rest[..length].chars().count();
        rest = &rest[length..];
    }
}

/// A text in quotes, a quote doubled inside; the token and its length in bytes.
fn quoted(rest: &str, place: usize) -> Result<(Token, usize), ApiError> {
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != '\'' {
            value.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == '\'') {
            characters.next();
            value.push('\'');
        } else {
            return Ok((Token::Text(value), at + 1));
        }
    }
    Err(ApiError::odata(format!("Unterminated string at position {place} in the filter.")))
}

fn word(rest: &str, place: usize) -> Result<(Token, usize), ApiError> {
    // Times hold colons; a lambda's variable ends at one.
    let numeric = rest.starts_with(|c: char| c.is_ascii_digit());
    let ends = |c: char| {
        c.is_whitespace()
            || matches!(c, '(' | ')' | '[' | ']' | ',' | '\'' | '+')
            || (c == ':' && !numeric)
    };
    let end = rest.find(ends).unwrap_or(rest.len());
    let (text, after) = rest.split_at(end);
    if is_time(text)
        && let Some(offset) = offset(after)
    {
        return Ok((Token::Word(format!("{text}+{offset}")), end + 1 + offset.len()));
    }
    // `datetime'…'`, but not `eq'…'`.
    if after.starts_with('\'') && !text.is_empty() && !is_operator(text) {
        let (token, length) = quoted(after, place + text.chars().count())?;
        return Ok((token, end + length));
    }
    Ok((Token::Word(text.to_owned()), end))
}

fn is_operator(text: &str) -> bool {
    let operators = ["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "in"];
    operators.iter().any(|operator| operator.eq_ignore_ascii_case(text))
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 16 && bytes[4] == b'-' && matches!(bytes[10], b'T' | b't') && bytes[13] == b':'
}

/// The `hh:mm` behind the plus sign of a time, or behind the blank that became of it.
fn offset(after: &str) -> Option<&str> {
    let found = after.strip_prefix(['+', ' '])?.get(..5)?;
    let bytes = found.as_bytes();
    let digits = [0, 1, 3, 4].iter().all(|at| bytes[*at].is_ascii_digit());
    (digits && bytes[2] == b':').then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let shown = |(token, _): (Token, usize)| match token {
            Token::Text(text) => format!("'{text}'"),
            other => other.shown(),
        };
        tokens(text).expect("tokens").into_iter().map(shown).collect()
    }

    #[test]
    fn a_plus_is_a_blank_but_for_a_times_offset() {
        let plain = words("lastSeen gt 2024-05-01T00:00:00+00:00 and a eq 'b+c'");
        assert_eq!(words("lastSeen+gt+2024-05-01T00:00:00+00:00+and+a+eq+'b+c'"), plain);
        assert_eq!(words("lastSeen gt 2024-05-01T00:00:00 00:00 and a eq 'b+c'"), plain);
        assert_eq!(plain[2], "2024-05-01T00:00:00+00:00");
        assert_eq!(plain[6], "'b+c'");
    }

    #[test]
    fn places_count_characters() {
        let tokens = tokens("a eq 'é'  )").expect("tokens");
        assert_eq!(tokens[3], (Token::Close, 10));
        assert_eq!(words("a eq'b'"), ["a", "eq", "'b'", "the end"]);
        assert_eq!(words("datetime'2020-01-01' x: x"), ["'2020-01-01'", "x", ":", "x", "the end"]);
    }
}
