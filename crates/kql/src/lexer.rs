//! Text → tokens.

use crate::diagnostics::{Diagnostic, SYNTAX, Span};
use crate::literals;
use crate::types::{Type, Value};

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// A bare word; also `$left`, `in~`, `!contains`.
    Name(String),
    /// `['any name']`: never a keyword.
    Quoted(String),
    Literal(Value),
    /// Punctuation and operators, longest first.
    Punctuation(&'static str),
    /// The rest of a line that begins with `#` or `.`: a directive or a management command.
    Directive(String),
    End,
}

const PUNCTUATION: &[&str] = &[
    "<=", ">=", "==", "!=", "<>", "=~", "!~", "=>", "..", "-->", "<--", "-", "+", "*", "/", "%",
    "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ";", ":", ".", "|", "?", "&", "!", "~",
];

/// The tokens of a text, an [`TokenKind::End`] last. Bad characters and literals are reported and
/// left out or read as null.
pub fn tokens(text: &str) -> (Vec<Token>, Vec<Diagnostic>) {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), diagnostics: Vec::new() };
    while lexer.token() {}
    let end = Span::new(text.len(), text.len());
    lexer.tokens.push(Token { kind: TokenKind::End, span: end });
    (lexer.tokens, lexer.diagnostics)
}

/// White space, and the invisible characters that queries copied from web pages hold.
fn is_blank(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token>,
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, start: usize, kind: TokenKind) -> bool {
        self.tokens.push(Token { kind, span: Span::new(start, self.at) });
        true
    }

    fn error(&mut self, start: usize, message: impl Into<String>) {
        let span = Span::new(start, self.at);
        self.diagnostics.push(Diagnostic::new(SYNTAX, span, message));
    }

    /// Reads one token; `false` at the end of the text.
    fn token(&mut self) -> bool {
        self.skip_blank();
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return false };
        if first == '"' || first == '\'' || rest.starts_with("```") || rest.starts_with("~~~") {
            return self.string(start, false);
        }
        if matches!(first, '@' | 'h' | 'H') && self.prefixed_string(start) {
            return true;
        }
        if first.is_ascii_digit() {
            return self.number(start);
        }
        if first.is_alphabetic() || matches!(first, '_' | '$') {
            return self.word(start);
        }
        if first == '!' && rest[1..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.at += 1;
            return self.word(start);
        }
        let bracket = rest.starts_with("['") || rest.starts_with("[\"");
        if bracket && let Some(done) = self.quoted_name(start) {
            return done;
        }
        let line_start = self.text[..start].trim_end_matches([' ', '\t']);
        if (first == '#' || first == '.') && (line_start.is_empty() || line_start.ends_with('\n')) {
            let line = rest.lines().next().unwrap_or_default();
            // A line that goes on with `.member` is no command.
            if first == '#' || self.tokens.is_empty() {
                self.at += line.len();
                return self.push(start, TokenKind::Directive(line.trim().to_owned()));
            }
        }
        if let Some(mark) = PUNCTUATION.iter().find(|mark| rest.starts_with(**mark)) {
            self.at += mark.len();
            return self.push(start, TokenKind::Punctuation(mark));
        }
        self.at += first.len_utf8();
        self.error(start, format!("unexpected character '{}'", first.escape_default()));
        true
    }

    /// Blanks and `//` comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(is_blank);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// `@"…"`, `h"…"`, `h@"…"`.
    fn prefixed_string(&mut self, start: usize) -> bool {
        let rest = self.rest();
        let after = rest.strip_prefix(['h', 'H']).unwrap_or(rest);
        let verbatim = after.starts_with('@');
        let after = after.strip_prefix('@').unwrap_or(after);
        if !after.starts_with(['"', '\'']) && !after.starts_with("```") {
            return false;
        }
        self.at += rest.len() - after.len();
        self.string(start, verbatim)
    }

    /// A string whose quote is next. Adjacent literals are joined.
    fn string(&mut self, start: usize, verbatim: bool) -> bool {
        let rest = self.rest();
        let (text, length) = match literals::string(rest, verbatim) {
            Some(read) => read,
            None => {
                // To the end of the line, so that what follows is read as it was meant.
                self.at += rest.lines().next().unwrap_or_default().len().max(1);
                self.error(start, "string literal is not closed");
                return self.push(start, TokenKind::Literal(Value::String("".into())));
            }
        };
        self.at += length;
        if let Some(Token { kind: TokenKind::Literal(Value::String(before)), span }) =
            self.tokens.last_mut()
        {
            *before = format!("{before}{text}").into();
            span.end = self.at;
            return true;
        }
        self.push(start, TokenKind::Literal(Value::String(text.into())))
    }

    /// `['name']`, or `None` where it is an index (`d['name']`).
    fn quoted_name(&mut self, start: usize) -> Option<bool> {
        let joined = self.tokens.last().is_some_and(|token| match &token.kind {
            TokenKind::Name(_) | TokenKind::Quoted(_) => token.span.end == start,
            // `externaldata(…) ["uri"]`
            TokenKind::Punctuation(mark) => {
                *mark == ")" || (*mark == "]" && token.span.end == start)
            }
            _ => false,
        });
        if joined {
            return None;
        }
        let (text, length) = literals::string(&self.rest()[1..], false)?;
        let end = self.rest().get(1 + length..)?;
        if !end.starts_with(']') {
            return None;
        }
        self.at += length + 2;
        Some(self.push(start, TokenKind::Quoted(text)))
    }

    fn number(&mut self, start: usize) -> bool {
        let rest = self.rest();
        let (length, value) = match literals::number(rest) {
            Ok(read) => read,
            Err(length) => {
                self.at += length;
                // `5h_average` is a name.
                if rest[..length].contains(|c: char| c.is_alphabetic()) && !rest.starts_with("0x") {
                    return self.push(start, TokenKind::Name(rest[..length].to_owned()));
                }
                self.error(start, format!("'{}' is no number", &rest[..length]));
                return self.push(start, TokenKind::Literal(Value::Null(Type::Long)));
            }
        };
        self.at += length;
        self.push(start, TokenKind::Literal(value))
    }

    fn word(&mut self, start: usize) -> bool {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')))
            .unwrap_or(rest.len());
        self.at += length;
        let word = &self.text[start..self.at];
        if matches!(word, "in" | "!in") && self.rest().starts_with('~') {
            self.at += 1;
        }
        if let Some(ty) = literals::typed(word)
            && let Some(inner) = literals::parenthesised(self.rest())
        {
            let content = &inner[1..inner.len() - 1];
            let before = self.rest().len() - self.rest().trim_start().len();
            if let Some(value) = literals::value(ty, content.trim()) {
                self.at += before + inner.len();
                return self.push(start, TokenKind::Literal(value));
            }
            // `datetime(name)` and the like are no literals; `real(x)` may be a column's conversion
            // that the original refuses too, with a clearer message where it is bound.
            if ty == Type::Dynamic || ty == Type::DateTime {
                self.at += before + inner.len();
                // A text that is no time is null, as if it had been converted.
                if ty == Type::DateTime && content.trim().starts_with(['"', '\'']) {
                    return self.push(start, TokenKind::Literal(Value::Null(ty)));
                }
                self.error(start, format!("'{}' is no {ty} literal", &self.text[start..self.at]));
                return self.push(start, TokenKind::Literal(Value::Null(ty)));
            }
        }
        let word = match &self.text[start..self.at] {
            "true" | "True" | "TRUE" => {
                return self.push(start, TokenKind::Literal(Value::Bool(true)));
            }
            "false" | "False" | "FALSE" => {
                return self.push(start, TokenKind::Literal(Value::Bool(false)));
            }
            word => word.to_owned(),
        };
        self.push(start, TokenKind::Name(word))
    }
}
