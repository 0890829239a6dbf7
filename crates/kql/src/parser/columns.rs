//! Columns as operators name them: with wildcards, and as keys of an order.

use super::{Parse, Parser};
use crate::lexer::TokenKind;
use crate::syntax::*;
use crate::types::Value;

impl Parser {
    /// A column's name with `*` in it, or a bare name.
    pub(super) fn pattern(&mut self) -> Parse<Expr> {
        let start = self.span();
        let mut text = String::new();
        let mut end = start.start;
        let mut quoted = false;
        loop {
            let span = self.span();
            if span.start != end && !text.is_empty() {
                break;
            }
            match self.kind() {
                TokenKind::Name(part) => text.push_str(part),
                TokenKind::Quoted(part) => {
                    quoted = true;
                    text.push_str(part);
                }
                TokenKind::Punctuation("*") => text.push('*'),
                TokenKind::Literal(Value::Long(number)) if !text.is_empty() => {
                    text.push_str(&number.to_string());
                }
                _ => break,
            }
            end = span.end;
            self.advance();
        }
        let span = self.since(start);
        if text.is_empty() {
            return self.expected("a column");
        }
        let kind = match text.as_str() {
            "*" => ExprKind::Star,
            pattern if pattern.contains('*') && !quoted => ExprKind::Wildcard(text),
            _ => ExprKind::Name(text),
        };
        Ok(Expr::new(kind, span))
    }

    /// `*`, `Device*`, or an expression.
    pub(super) fn column_or_wildcard(&mut self) -> Parse<Expr> {
        let joined = self.tokens.get(self.at + 1).is_some_and(|next| {
            next.span.start == self.span().end && matches!(next.kind, TokenKind::Punctuation("*"))
        });
        let ends = matches!(
            self.ahead(2),
            TokenKind::End | TokenKind::Punctuation("," | "|" | ";" | ")" | "}")
        );
        if self.is("*") || (joined && ends && matches!(self.kind(), TokenKind::Name(_))) {
            return self.pattern();
        }
        self.named()
    }

    pub(super) fn sort_key(&mut self) -> Parse<SortKey> {
        let expr = self.named()?;
        let descending = if self.eat_word("desc") {
            Some(true)
        } else if self.eat_word("asc") {
            Some(false)
        } else {
            None
        };
        let nulls_first = if self.eat_word("nulls") {
            let first = self.is_word("first");
            if !first && !self.is_word("last") {
                return self.expected("'first' or 'last'");
            }
            self.advance();
            Some(first)
        } else {
            None
        };
        Ok(SortKey { expr, descending, nulls_first })
    }
}
