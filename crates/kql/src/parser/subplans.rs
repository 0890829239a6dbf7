//! Sub-queries over rows that an operator hands in, and `mv-expand`, `mv-apply`.

use super::operators::NAMES;
use super::{Parse, Parser};
use crate::lexer::TokenKind;
use crate::syntax::*;

impl Parser {
    /// `( | operator …)` or `(operator | operator …)`: operators over the rows that are handed in; or
    /// a whole pipeline.
    pub(super) fn sub_plan(&mut self) -> Parse<Expr> {
        let start = self.span();
        let close = if self.eat("{") {
            "}"
        } else {
            self.expect("(")?;
            ")"
        };
        let plan = self.nested(|parser| {
            let begins = match parser.kind() {
                TokenKind::Punctuation("|") => true,
                TokenKind::Name(word) => {
                    let dashed = parser.is_ahead(1, "-");
                    let known = NAMES.contains(&word.as_str())
                        && !parser.is_ahead(1, "|")
                        && !(matches!(word.as_str(), "print" | "range" | "union" | "find"));
                    known || (dashed && NAMES.iter().any(|name| name.starts_with(word.as_str())))
                }
                _ => false,
            };
            if !begins {
                return parser.pipeline();
            }
            // The input has no name: it is written as an empty one.
            let source = Expr::new(ExprKind::Name(String::new()), start);
            let mut operators = Vec::new();
            if !parser.is("|") {
                operators.push(parser.operator()?);
            }
            operators.extend(parser.operators()?);
            let kind = ExprKind::Pipe { source: source.into(), operators };
            Ok(Expr::new(kind, parser.since(start)))
        })?;
        self.expect(close)?;
        Ok(plan)
    }

    pub(super) fn expand(&mut self, name: &str) -> Parse<OperatorKind> {
        let options = self.settings(&["kind", "bagexpansion", "with_itemindex"])?;
        let items = self.items(|parser| {
            let expr = parser.named()?;
            let to = if parser.eat_word("to") {
                parser.expect_word("typeof")?;
                parser.expect("(")?;
                let ty = parser.type_name()?;
                parser.expect(")")?;
                Some(ty)
            } else {
                None
            };
            Ok(Expanded { expr, to })
        })?;
        let limit = if self.eat_word("limit") { Some(self.expression()?) } else { None };
        if name.ends_with("expand") {
            return Ok(OperatorKind::MvExpand { options, items, limit });
        }
        self.expect_word("on")?;
        let plan = self.sub_plan()?.into();
        Ok(OperatorKind::MvApply { options, items, limit, plan })
    }
}
