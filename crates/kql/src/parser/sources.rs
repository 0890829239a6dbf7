//! Expressions that begin a pipeline: tables written out, and operators without an input.

use super::{Parse, Parser};
use crate::diagnostics::Span;
use crate::lexer::TokenKind;
use crate::syntax::*;

impl Parser {
    /// `datatable`, `externaldata`, `print`, `range`, `union`, `search`, `find`: tabular without an
    /// input. `None` where something else begins.
    pub(super) fn source(&mut self) -> Parse<Option<Expr>> {
        let start = self.span();
        let Some(word) = self.word() else { return Ok(None) };
        let kind = match word {
            "datatable" if self.is_ahead(1, "(") => {
                self.advance();
                let columns = self.schema()?;
                self.expect("[")?;
                let values = self.list("]", Parser::expression)?;
                ExprKind::DataTable { columns, values }
            }
            "externaldata" | "external_data" if self.is_ahead(1, "(") => {
                self.advance();
                let columns = self.schema()?;
                let close = if self.eat("[") { "]" } else { return self.expected("'['") };
                let uris = self.list(close, Parser::expression)?;
                let properties =
                    if self.eat_word("with") { self.properties()? } else { Vec::new() };
                ExprKind::ExternalData { columns, uris, properties }
            }
            "print" if !self.is_ahead(1, "=") => {
                self.advance();
                let items = self.items(Parser::named)?;
                ExprKind::Source(self.operator_of(OperatorKind::Print(items), start))
            }
            "range" if matches!(self.ahead(1), TokenKind::Name(_) | TokenKind::Quoted(_)) => {
                self.advance();
                let column = self.name()?;
                self.expect_word("from")?;
                let from = self.expression()?;
                self.expect_word("to")?;
                let to = self.expression()?;
                self.expect_word("step")?;
                let step = self.expression()?;
                let range = OperatorKind::Range { column, from, to, step };
                ExprKind::Source(self.operator_of(range, start))
            }
            "evaluate" if self.is_ahead(2, "(") => {
                let operator = self.operator()?;
                ExprKind::Source(operator.into())
            }
            "union" | "search" | "find" if self.begins_source() => {
                let operator = self.operator()?;
                ExprKind::Source(operator.into())
            }
            _ => return Ok(None),
        };
        Ok(Some(Expr::new(kind, self.since(start))))
    }

    /// Whether `union`, `search`, `find` here is the operator and not a column of that name.
    fn begins_source(&self) -> bool {
        match self.ahead(1) {
            TokenKind::Name(next) => !matches!(next.as_str(), "and" | "or" | "has" | "contains"),
            TokenKind::Literal(_) | TokenKind::Quoted(_) => true,
            TokenKind::Punctuation(mark) => matches!(*mark, "(" | "*"),
            _ => false,
        }
    }

    fn operator_of(&self, kind: OperatorKind, start: Span) -> Box<Operator> {
        Box::new(Operator { kind, span: self.since(start) })
    }
}
