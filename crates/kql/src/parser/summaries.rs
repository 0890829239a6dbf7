//! Operators that make few rows of many: `summarize`, `make-series`, `top-nested`, `reduce`.

use super::{Parse, Parser};
use crate::syntax::*;
use crate::types::Value;

impl Parser {
    pub(super) fn summarize(&mut self) -> Parse<OperatorKind> {
        self.settings(&[])?;
        let mut aggregates = Vec::new();
        if !self.is_word("by") && !self.ends_operator() {
            aggregates = self.items(Parser::named)?;
        }
        let by = if self.eat_word("by") { Some(self.items(Parser::named)?) } else { None };
        Ok(OperatorKind::Summarize { aggregates, by })
    }

    pub(super) fn make_series(&mut self) -> Parse<OperatorKind> {
        let options = self.settings(&["kind"])?;
        let aggregates = self.items(|parser| {
            let aggregate = parser.named()?;
            let default = if parser.eat_word("default") {
                parser.expect("=")?;
                Some(parser.expression()?)
            } else {
                None
            };
            Ok((aggregate, default))
        })?;
        self.expect_word("on")?;
        let on = self.named()?;
        let (mut from, mut to, mut step, mut in_range) = (None, None, None, false);
        if self.eat_word("in") {
            self.expect_word("range")?;
            self.expect("(")?;
            in_range = true;
            let mut bounds = self.list(")", Parser::expression)?.into_iter();
            (from, to, step) = (bounds.next(), bounds.next(), bounds.next());
        }
        if self.eat_word("from") {
            from = Some(self.expression()?);
        }
        if self.eat_word("to") {
            to = Some(self.expression()?);
        }
        if self.eat_word("step") {
            step = Some(self.expression()?);
        }
        let by = if self.eat_word("by") { self.items(Parser::named)? } else { Vec::new() };
        Ok(OperatorKind::MakeSeries { options, aggregates, on, from, to, step, in_range, by })
    }

    /// `3 of City with others = "x" by count() desc`, the name of the operator being read.
    pub(super) fn nested_level(&mut self) -> Parse<NestedLevel> {
        let count = if self.is_word("of") { None } else { Some(self.expression()?) };
        self.expect_word("of")?;
        let of = self.named()?;
        let others = if self.eat_word("with") {
            self.expect_word("others")?;
            self.expect("=")?;
            Some(self.expression()?)
        } else {
            None
        };
        self.expect_word("by")?;
        let key = self.sort_key()?;
        Ok(NestedLevel { count, of, others, by: key.expr, descending: key.descending })
    }

    pub(super) fn reduce(&mut self) -> Parse<OperatorKind> {
        let mut options = self.settings(&["kind"])?;
        self.expect_word("by")?;
        let by = self.expression()?;
        if self.eat_word("with") {
            let start = self.span();
            loop {
                let name = self.name()?.text;
                self.expect("=")?;
                let value = match self.setting()? {
                    Value::String(text) => text.to_string(),
                    other => other.to_string(),
                };
                options.push(Setting { name, value, span: self.since(start) });
                if !self.eat(",") {
                    break;
                }
            }
        }
        Ok(OperatorKind::Reduce { by, options })
    }
}
