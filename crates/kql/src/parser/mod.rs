//! Tokens → syntax tree, with every error that can be told apart.

mod columns;
mod expressions;
mod graphs;
mod operators;
mod scan;
mod sources;
mod subplans;
mod summaries;
mod tables;
mod texts;

use crate::diagnostics::{Diagnostic, SYNTAX, Span};
use crate::lexer::{self, Token, TokenKind};
use crate::syntax::*;
use crate::types::{Type, Value};

/// Deepest nesting of brackets and sub-queries.
const MAX_DEPTH: usize = 120;

/// A query's tree, as far as it could be read, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub statements: Vec<Statement>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Operators that a query may use.
pub(crate) fn operator_names() -> &'static [&'static str] {
    operators::NAMES
}

/// Operators that are known and refused.
pub(crate) fn refused_operators() -> &'static [&'static str] {
    operators::OTHERS
}

/// Reads a query.
pub fn parse(text: &str) -> Parsed {
    let (tokens, diagnostics) = lexer::tokens(text);
    let mut parser = Parser { tokens, at: 0, depth: 0, diagnostics };
    let statements = parser.statements(None);
    Parsed { statements, diagnostics: parser.diagnostics }
}

/// Reads a function's text, `(parameters) { body }`.
pub fn parse_function(text: &str) -> Result<Function, Vec<Diagnostic>> {
    let (tokens, diagnostics) = lexer::tokens(text);
    let mut parser = Parser { tokens, at: 0, depth: 0, diagnostics };
    match parser.function() {
        Ok(function) if parser.diagnostics.is_empty() => Ok(function),
        _ => Err(parser.diagnostics),
    }
}

/// A place that could not be read; what is wrong is among the diagnostics already.
struct Failed;

type Parse<T> = Result<T, Failed>;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Parser {
    fn token(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn kind(&self) -> &TokenKind {
        &self.token().kind
    }

    fn span(&self) -> Span {
        self.token().span
    }

    /// The end of the token before.
    fn since(&self, start: Span) -> Span {
        let last = self.at.checked_sub(1).map_or(start, |at| self.tokens[at].span);
        start.to(last)
    }

    fn ahead(&self, count: usize) -> &TokenKind {
        self.tokens.get(self.at + count).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn advance(&mut self) {
        if self.at < self.tokens.len() - 1 {
            self.at += 1;
        }
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.kind(), TokenKind::Punctuation(found) if *found == mark)
    }

    fn is_ahead(&self, count: usize, mark: &str) -> bool {
        matches!(self.ahead(count), TokenKind::Punctuation(found) if *found == mark)
    }

    fn word(&self) -> Option<&str> {
        match self.kind() {
            TokenKind::Name(name) => Some(name),
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        if found {
            self.advance();
        }
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn fail<T>(&mut self, message: impl Into<String>) -> Parse<T> {
        let span = self.span();
        self.fail_at(span, message)
    }

    fn fail_at<T>(&mut self, span: Span, message: impl Into<String>) -> Parse<T> {
        // What follows from an error at the same place says nothing new.
        if self.diagnostics.last().is_none_or(|last| last.span.start != span.start) {
            self.diagnostics.push(Diagnostic::new(SYNTAX, span, message));
        }
        Err(Failed)
    }

    fn expected<T>(&mut self, what: &str) -> Parse<T> {
        let found = match self.kind() {
            TokenKind::End => "the end of the query".to_owned(),
            TokenKind::Name(name) | TokenKind::Quoted(name) => format!("'{name}'"),
            TokenKind::Literal(value) => format!("'{value}'"),
            TokenKind::Punctuation(mark) => format!("'{mark}'"),
            TokenKind::Directive(text) => format!("'{text}'"),
        };
        self.fail(format!("expected {what}, found {found}"))
    }

    fn expect(&mut self, mark: &'static str) -> Parse<()> {
        if self.eat(mark) { Ok(()) } else { self.expected(&format!("'{mark}'")) }
    }

    fn expect_word(&mut self, word: &'static str) -> Parse<()> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("'{word}'")) }
    }

    /// A name, bare or quoted.
    fn name(&mut self) -> Parse<Name> {
        let span = self.span();
        match self.kind() {
            TokenKind::Name(text) | TokenKind::Quoted(text) => {
                let name = Name { text: text.clone(), span };
                self.advance();
                Ok(name)
            }
            // A text in the place of a name: `graph` operators and older queries write so.
            _ => self.expected("a name"),
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Parser) -> Parse<T>) -> Parse<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Items with commas between them; one more comma at the end is forgiven.
    fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Parser) -> Parse<T>,
    ) -> Parse<Vec<T>> {
        let mut items = Vec::new();
        while !self.is(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(close)?;
        Ok(items)
    }

    /// Statements up to `close` or the end.
    fn statements(&mut self, close: Option<&'static str>) -> Vec<Statement> {
        let mut statements = Vec::new();
        loop {
            while self.eat(";") {}
            if *self.kind() == TokenKind::End || close.is_some_and(|close| self.is(close)) {
                return statements;
            }
            let before = self.at;
            match self.nested(Parser::statement) {
                Ok(statement) => {
                    let directive = matches!(statement, Statement::Set { .. });
                    statements.push(statement);
                    let ends = self.is(";")
                        || *self.kind() == TokenKind::End
                        || close.is_some_and(|close| self.is(close))
                        || directive;
                    if !ends {
                        let _: Parse<()> = self.expected("'|', ';' or the end of the query");
                        self.skip_to_semicolon();
                    }
                }
                Err(Failed) => self.skip_to_semicolon(),
            }
            if self.at == before {
                self.advance();
            }
        }
    }

    fn skip_to_semicolon(&mut self) {
        let mut depth = 0i32;
        loop {
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Punctuation("(" | "[" | "{") => depth += 1,
                TokenKind::Punctuation(")" | "]" | "}") => {
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                }
                TokenKind::Punctuation(";") if depth == 0 => return,
                _ => {}
            }
            self.advance();
        }
    }

    fn statement(&mut self) -> Parse<Statement> {
        let start = self.span();
        if let TokenKind::Directive(text) = self.kind() {
            let text = text.clone();
            if text.starts_with('.') {
                return self.fail("management commands are not queries and cannot be run here");
            }
            self.advance();
            let mut words = text.trim_start_matches('#').split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let value = words.next().map(|value| Value::String(value.into()));
            return Ok(Statement::Set { name, value });
        }
        let begins = |parser: &Parser, second: &str| matches!(parser.ahead(1), TokenKind::Name(name) if name == second);
        match self.word() {
            Some("let") if matches!(self.ahead(1), TokenKind::Name(_) | TokenKind::Quoted(_)) => {
                self.let_statement()
            }
            Some("set") if matches!(self.ahead(1), TokenKind::Name(_)) => {
                self.advance();
                let name = self.name()?.text;
                let value = if self.eat("=") { Some(self.setting()?) } else { None };
                Ok(Statement::Set { name, value })
            }
            Some("declare") if begins(self, "query_parameters") => {
                self.advance();
                self.advance();
                self.expect("(")?;
                Ok(Statement::QueryParameters(self.list(")", Parser::parameter)?))
            }
            Some("alias") if begins(self, "database") => self.refused("alias database", start),
            Some("restrict") if begins(self, "access") => self.refused("restrict access", start),
            Some("declare") if begins(self, "pattern") => self.refused("declare pattern", start),
            _ => Ok(Statement::Expression(self.pipeline()?)),
        }
    }

    fn refused(&mut self, what: &'static str, start: Span) -> Parse<Statement> {
        self.skip_to_semicolon();
        Ok(Statement::Refused { what, span: self.since(start) })
    }

    /// The value of an option: a literal, or a bare word.
    fn setting(&mut self) -> Parse<Value> {
        let minus = self.eat("-");
        let value = match self.kind() {
            TokenKind::Literal(Value::Long(value)) if minus => Value::Long(-value),
            TokenKind::Literal(value) => value.clone(),
            TokenKind::Name(word) => Value::String(word.as_str().into()),
            _ => return self.expected("a value"),
        };
        self.advance();
        Ok(value)
    }

    fn let_statement(&mut self) -> Parse<Statement> {
        self.advance();
        let name = self.name()?;
        self.expect("=")?;
        if self.begins_function() {
            return Ok(Statement::Let { name, value: LetValue::Function(self.function()?) });
        }
        Ok(Statement::Let { name, value: LetValue::Expression(self.pipeline()?) })
    }

    /// `view (…) {` or `(…) {`.
    fn begins_function(&self) -> bool {
        let open = usize::from(self.is_word("view"));
        if !self.is_ahead(open, "(") {
            return false;
        }
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(self.at + open) {
            match token.kind {
                TokenKind::Punctuation("(") => depth += 1,
                TokenKind::Punctuation(")") => {
                    depth -= 1;
                    if depth == 0 {
                        let next = self.tokens.get(at + 1).map(|token| &token.kind);
                        return matches!(next, Some(TokenKind::Punctuation("{")));
                    }
                }
                TokenKind::End => return false,
                _ => {}
            }
        }
        false
    }

    fn function(&mut self) -> Parse<Function> {
        let start = self.span();
        let view = self.eat_word("view");
        self.expect("(")?;
        let parameters = self.list(")", Parser::parameter)?;
        self.expect("{")?;
        let body = self.nested(|parser| Ok(parser.statements(Some("}"))))?;
        self.expect("}")?;
        Ok(Function { view, parameters, body, span: self.since(start) })
    }

    /// `name:type [= default]`, `T:(*)`, `T:(a:long, *)`.
    fn parameter(&mut self) -> Parse<Parameter> {
        let name = self.name()?;
        self.expect(":")?;
        if self.eat("(") {
            let mut columns = Vec::new();
            let mut open = false;
            while !self.is(")") {
                if self.eat("*") {
                    open = true;
                } else {
                    columns.push(self.column_type()?);
                }
                if !self.eat(",") {
                    break;
                }
            }
            self.expect(")")?;
            return Ok(Parameter {
                name,
                ty: ParameterType::Table { columns, open },
                default: None,
            });
        }
        let ty = ParameterType::Scalar(self.type_name()?);
        let default = if self.eat("=") { Some(self.expression()?) } else { None };
        Ok(Parameter { name, ty, default })
    }

    fn type_name(&mut self) -> Parse<Type> {
        let span = self.span();
        let name = self.name()?;
        match Type::parse(&name.text) {
            Some(ty) => Ok(ty),
            None => self.fail_at(span, format!("'{}' is no type", name.text)),
        }
    }

    /// `name:type`
    fn column_type(&mut self) -> Parse<(Name, Type)> {
        let name = self.name()?;
        self.expect(":")?;
        Ok((name, self.type_name()?))
    }

    /// `(name:type, …)`
    fn schema(&mut self) -> Parse<Vec<(Name, Type)>> {
        self.expect("(")?;
        self.list(")", Parser::column_type)
    }

    /// `name=value` pairs before an operator's arguments: those named, and hints.
    fn settings(&mut self, allowed: &[&str]) -> Parse<Settings> {
        let mut settings = Settings::new();
        loop {
            let start = self.span();
            let Some(word) = self.word() else { return Ok(settings) };
            let hint = word == "hint" && self.is_ahead(1, ".");
            let known = allowed.contains(&word) && self.is_ahead(1, "=");
            if !hint && !known {
                return Ok(settings);
            }
            let mut name = self.name()?.text;
            while self.eat(".") {
                name = format!("{name}.{}", self.name()?.text);
            }
            self.expect("=")?;
            let value = match self.setting()? {
                Value::String(text) => text.to_string(),
                other => other.to_string(),
            };
            settings.push(Setting { name, value, span: self.since(start) });
            // Some queries put commas between hints.
            if self.is(",") && matches!(self.ahead(1), TokenKind::Name(n) if n == "hint") {
                self.advance();
            }
        }
    }

    /// `with (name=value, …)`, the parentheses optional for one.
    fn properties(&mut self) -> Parse<Vec<(String, String)>> {
        let one = |parser: &mut Parser| {
            let name = parser.name()?.text;
            parser.expect("=")?;
            let value = match parser.setting()? {
                Value::String(text) => text.to_string(),
                other => other.to_string(),
            };
            // `ysplit=none, series=a, b`: a list of names runs on.
            let mut value = value;
            while parser.is(",")
                && matches!(parser.ahead(1), TokenKind::Name(_))
                && !parser.is_ahead(2, "=")
            {
                parser.advance();
                value = format!("{value},{}", parser.name()?.text);
            }
            Ok((name, value))
        };
        if self.eat("(") { self.list(")", one) } else { Ok(vec![one(self)?]) }
    }
}
