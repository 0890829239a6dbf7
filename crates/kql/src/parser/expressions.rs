//! Expressions by precedence: `or`, `and`, comparison, sum, product, sign, postfix.

use super::{Parse, Parser};
use crate::diagnostics::Span;
use crate::lexer::TokenKind;
use crate::syntax::{Expr, ExprKind, Name};
use crate::types::{Type, Value};

/// Word operators between two expressions.
const WORD_OPERATORS: &[&str] = &[
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
];
/// Older spellings.
const OLD_OPERATORS: &[(&str, &str)] = &[
    ("notcontains", "!contains"),
    ("notcontainscs", "!contains_cs"),
    ("containscs", "contains_cs"),
    ("like", "has"),
    ("notlike", "!has"),
];
const LIST_OPERATORS: &[&str] = &["in", "!in", "in~", "!in~", "has_any", "has_all"];
const COMPARISONS: &[&str] = &["==", "!=", "<>", "<=", ">=", "<", ">", "=~", "!~", ":"];

impl Parser {
    /// An expression that may be tabular: `source | operator …`.
    pub(super) fn pipeline(&mut self) -> Parse<Expr> {
        let start = self.span();
        let source = match self.source()? {
            Some(source) => source,
            None => self.named()?,
        };
        if !self.is("|") {
            return Ok(source);
        }
        let operators = self.operators()?;
        let kind = ExprKind::Pipe { source: Box::new(source), operators };
        Ok(Expr::new(kind, self.since(start)))
    }

    /// `expr`, `name = expr`, `(a, b) = expr`.
    pub(super) fn named(&mut self) -> Parse<Expr> {
        let start = self.span();
        let is_name = matches!(self.kind(), TokenKind::Name(_) | TokenKind::Quoted(_));
        if is_name && self.is_ahead(1, "=") {
            let name = self.name()?;
            self.advance();
            return self.named_value(vec![name], start);
        }
        if self.is("(") && self.begins_tuple() {
            self.advance();
            let names = self.list(")", Parser::name)?;
            self.expect("=")?;
            return self.named_value(names, start);
        }
        self.expression()
    }

    fn named_value(&mut self, names: Vec<Name>, start: Span) -> Parse<Expr> {
        let value = match self.source()? {
            Some(source) => source,
            None => self.expression()?,
        };
        let kind = ExprKind::Named { names, value: Box::new(value) };
        Ok(Expr::new(kind, self.since(start)))
    }

    /// `(a, b) =`
    fn begins_tuple(&self) -> bool {
        let mut at = 1;
        loop {
            if !matches!(self.ahead(at), TokenKind::Name(_) | TokenKind::Quoted(_)) {
                return false;
            }
            if self.is_ahead(at + 1, ",") {
                at += 2;
                continue;
            }
            return self.is_ahead(at + 1, ")") && self.is_ahead(at + 2, "=");
        }
    }

    pub(super) fn expression(&mut self) -> Parse<Expr> {
        self.nested(|parser| parser.chain("or"))
    }

    /// `a or b or c`, over `a and b and c`. Flat, since queries have thousands of operands.
    fn chain(&mut self, operator: &'static str) -> Parse<Expr> {
        let start = self.span();
        let operand = |parser: &mut Parser| match operator {
            "or" => parser.chain("and"),
            _ => parser.comparison(),
        };
        let first = operand(self)?;
        if !self.is_word(operator) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.eat_word(operator) {
            operands.push(operand(self)?);
        }
        Ok(Expr::new(ExprKind::Chain { operator, operands }, self.since(start)))
    }

    fn comparison(&mut self) -> Parse<Expr> {
        let start = self.span();
        let mut left = self.sum()?;
        loop {
            let kind = match self.comparison_operator() {
                Some(operator) => {
                    let right = self.sum()?;
                    ExprKind::Binary { operator, left: left.into(), right: right.into() }
                }
                None => match self.list_or_between(left)? {
                    Ok(kind) => kind,
                    Err(left) => return Ok(left),
                },
            };
            left = Expr::new(kind, self.since(start));
        }
    }

    /// Takes the operator, if there is one.
    fn comparison_operator(&mut self) -> Option<&'static str> {
        let operator = match self.kind() {
            TokenKind::Punctuation(mark) => {
                let found = COMPARISONS.iter().find(|operator| *operator == mark)?;
                if *found == "<>" { "!=" } else { found }
            }
            TokenKind::Name(word) if word == "matches" => {
                if !matches!(self.ahead(1), TokenKind::Name(word) if word == "regex") {
                    return None;
                }
                self.advance();
                "matches regex"
            }
            TokenKind::Name(word) => {
                let old = OLD_OPERATORS.iter().find(|(old, _)| old == word).map(|(_, new)| *new);
                let found = WORD_OPERATORS.iter().find(|operator| *operator == word).copied();
                found.or(old)?
            }
            _ => return None,
        };
        self.advance();
        Some(operator)
    }

    /// `x in (…)`, `x between (a .. b)`; gives `left` back where neither follows.
    fn list_or_between(&mut self, left: Expr) -> Parse<Result<ExprKind, Expr>> {
        let Some(word) = self.word() else { return Ok(Err(left)) };
        if let Some(operator) = LIST_OPERATORS.iter().find(|operator| **operator == word).copied() {
            self.advance();
            let list = if self.eat("(") {
                self.nested(|parser| parser.list(")", Parser::pipeline))?
            } else {
                vec![self.sum()?]
            };
            return Ok(Ok(ExprKind::In { operator, value: left.into(), list }));
        }
        if !matches!(word, "between" | "!between") {
            return Ok(Err(left));
        }
        let negated = word == "!between";
        self.advance();
        self.expect("(")?;
        let from = self.nested(Parser::sum)?;
        self.expect("..")?;
        let to = self.nested(Parser::sum)?;
        self.expect(")")?;
        let (value, from, to) = (left.into(), from.into(), to.into());
        Ok(Ok(ExprKind::Between { negated, value, from, to }))
    }

    pub(super) fn sum(&mut self) -> Parse<Expr> {
        self.binary(&["+", "-"], |parser| parser.binary(&["*", "/", "%"], Parser::sign))
    }

    fn binary(
        &mut self,
        operators: &[&'static str],
        operand: impl Fn(&mut Parser) -> Parse<Expr>,
    ) -> Parse<Expr> {
        let start = self.span();
        let mut left = operand(self)?;
        while let TokenKind::Punctuation(mark) = self.kind() {
            let Some(operator) = operators.iter().find(|operator| *operator == mark).copied()
            else {
                break;
            };
            self.advance();
            let right = operand(self)?;
            let kind = ExprKind::Binary { operator, left: left.into(), right: right.into() };
            left = Expr::new(kind, self.since(start));
        }
        Ok(left)
    }

    fn sign(&mut self) -> Parse<Expr> {
        let start = self.span();
        let minus = self.is("-");
        if !minus && !self.is("+") {
            return self.postfix();
        }
        self.advance();
        let operand = self.nested(Parser::sign)?;
        let kind = match operand.kind {
            ExprKind::Literal(Value::Long(value)) if minus => {
                ExprKind::Literal(Value::Long(value.wrapping_neg()))
            }
            ExprKind::Literal(Value::Real(value)) if minus => {
                ExprKind::Literal(Value::Real(-value))
            }
            ExprKind::Literal(Value::TimeSpan(ticks)) if minus => {
                ExprKind::Literal(Value::TimeSpan(ticks.wrapping_neg()))
            }
            _ => ExprKind::Sign { minus, operand: operand.into() },
        };
        Ok(Expr::new(kind, self.since(start)))
    }

    fn postfix(&mut self) -> Parse<Expr> {
        let start = self.span();
        let mut base = self.primary()?;
        loop {
            let kind = if self.is(".") && !self.is_ahead(1, "[") {
                self.advance();
                if self.is("*") {
                    // `database("*").*`: every table of it.
                    let name = Name { text: "*".to_owned(), span: self.span() };
                    self.advance();
                    let kind = ExprKind::Member { base: base.into(), name };
                    return Ok(Expr::new(kind, self.since(start)));
                }
                let name = self.name()?;
                if self.is("(") {
                    let arguments = self.arguments()?;
                    // `database("x").function(…)`: kept as a member whose call is refused later.
                    let call = ExprKind::Call { function: name.clone(), arguments };
                    let call = Expr::new(call, self.since(start));
                    ExprKind::Index { base: base.into(), index: call.into() }
                } else {
                    ExprKind::Member { base: base.into(), name }
                }
            } else if self.is("[") || (self.is(".") && self.is_ahead(1, "[")) {
                self.eat(".");
                self.advance();
                let index = self.expression()?;
                self.expect("]")?;
                ExprKind::Index { base: base.into(), index: index.into() }
            } else {
                return Ok(base);
            };
            base = Expr::new(kind, self.since(start));
        }
    }

    pub(super) fn arguments(&mut self) -> Parse<Vec<Expr>> {
        self.expect("(")?;
        self.nested(|parser| parser.list(")", Parser::argument))
    }

    fn argument(&mut self) -> Parse<Expr> {
        let start = self.span();
        if self.is("*") && (self.is_ahead(1, ",") || self.is_ahead(1, ")")) {
            self.advance();
            return Ok(Expr::new(ExprKind::Star, start));
        }
        self.pipeline()
    }

    fn primary(&mut self) -> Parse<Expr> {
        let start = self.span();
        match self.kind().clone() {
            TokenKind::Literal(value) => {
                self.advance();
                Ok(Expr::new(ExprKind::Literal(value), start))
            }
            TokenKind::Quoted(name) => {
                self.advance();
                Ok(Expr::new(ExprKind::Name(name), start))
            }
            TokenKind::Punctuation("(") => {
                self.advance();
                let mut inner = self.nested(Parser::pipeline)?;
                self.expect(")")?;
                inner.span = self.since(start);
                Ok(inner)
            }
            // `* has "text"`: any column.
            TokenKind::Punctuation("*") if matches!(self.ahead(1), TokenKind::Name(_)) => {
                self.advance();
                Ok(Expr::new(ExprKind::Star, start))
            }
            TokenKind::Name(word) => self.word_expression(&word, start),
            _ => self.expected("an expression"),
        }
    }

    fn word_expression(&mut self, word: &str, start: Span) -> Parse<Expr> {
        if word == "typeof" && self.is_ahead(1, "(") {
            self.advance();
            self.advance();
            let columns = self.list(")", |parser| {
                if parser.is("*") {
                    let name = Name { text: "*".to_owned(), span: parser.span() };
                    parser.advance();
                    return Ok((Some(name), Type::Dynamic));
                }
                if parser.is_ahead(1, ":") {
                    let (name, ty) = parser.column_type()?;
                    return Ok((Some(name), ty));
                }
                Ok((None, parser.type_name()?))
            })?;
            return Ok(Expr::new(ExprKind::TypeOf(columns), self.since(start)));
        }
        // A table's name may stand for several: `Device*`.
        let joined = |at: usize| {
            let (left, right) = (self.tokens.get(self.at + at), self.tokens.get(self.at + at + 1));
            matches!((left, right), (Some(l), Some(r)) if l.span.end == r.span.start)
        };
        let ends_pattern = |at: usize| {
            matches!(self.ahead(at), TokenKind::Punctuation("," | ")" | "|" | ";") | TokenKind::End)
        };
        if self.is_ahead(1, "*") && joined(0) && ends_pattern(2) {
            self.advance();
            self.advance();
            return Ok(Expr::new(ExprKind::Wildcard(format!("{word}*")), self.since(start)));
        }
        let name = self.name()?;
        if !self.is("(") {
            return Ok(Expr::new(ExprKind::Name(name.text), start));
        }
        let arguments = self.arguments()?;
        let kind = ExprKind::Call { function: name, arguments };
        Ok(Expr::new(kind, self.since(start)))
    }
}
