//! Operators that read several tables: `join`, `lookup`, `union`, `search`, `find`.

use super::{Parse, Parser};
use crate::lexer::TokenKind;
use crate::syntax::*;

impl Parser {
    /// A table of `union`, `search`, `find`: a name with wildcards, a call, a sub-query.
    pub(super) fn table(&mut self) -> Parse<Expr> {
        let start = self.span();
        let next_joined = self.tokens.get(self.at + 1).is_some_and(|next| {
            next.span.start == start.end && matches!(next.kind, TokenKind::Punctuation("*"))
        });
        if self.is("*") || (next_joined && matches!(self.kind(), TokenKind::Name(_))) {
            return self.pattern();
        }
        self.sum()
    }

    pub(super) fn join(&mut self, name: &str) -> Parse<OperatorKind> {
        let options = self.settings(&["kind"])?;
        let right = if self.eat("(") {
            let right = self.nested(Parser::pipeline)?;
            self.expect(")")?;
            right
        } else {
            self.sum()?
        };
        let mut on = Vec::new();
        if self.eat_word("on") {
            on = self.items(Parser::expression)?;
        } else if self.eat_word("where") {
            on.push(self.expression()?);
        }
        let right = right.into();
        Ok(match name {
            "join" => OperatorKind::Join { options, right, on },
            _ => OperatorKind::Lookup { options, right, on },
        })
    }

    /// `in (T1, T2*)`
    fn searched_tables(&mut self) -> Parse<Vec<Expr>> {
        if !self.is_word("in") || !self.is_ahead(1, "(") {
            return Ok(Vec::new());
        }
        self.advance();
        self.advance();
        self.list(")", Parser::table)
    }

    pub(super) fn search(&mut self) -> Parse<OperatorKind> {
        let mut options = self.settings(&["kind", "withsource"])?;
        let tables = self.searched_tables()?;
        options.extend(self.settings(&["kind"])?);
        let start = self.span();
        if self.is("*") && (self.is_ahead(1, "|") || *self.ahead(1) == TokenKind::End) {
            self.advance();
            let predicate = Expr::new(ExprKind::Star, start);
            return Ok(OperatorKind::Search { options, tables, predicate });
        }
        let predicate = self.expression()?;
        Ok(OperatorKind::Search { options, tables, predicate })
    }

    pub(super) fn find(&mut self) -> Parse<OperatorKind> {
        let mut options = self.settings(&["withsource", "datascope"])?;
        let tables = self.searched_tables()?;
        options.extend(self.settings(&["withsource"])?);
        self.eat_word("where");
        let predicate = self.expression()?;
        let smart = self.is_word("project") && self.is_ahead(1, "-");
        let mut project = None;
        if smart {
            self.operator_name()?;
        } else if self.eat_word("project") {
            project = Some(self.items(|parser| {
                let column = parser.named()?;
                if parser.eat(":") {
                    parser.type_name()?;
                }
                Ok(column)
            })?);
        }
        Ok(OperatorKind::Find { options, tables, predicate, project })
    }
}
