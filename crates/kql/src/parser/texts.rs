//! Operators that read columns out of texts: `parse`, `parse-where`, `parse-kv`.

use super::{Parse, Parser};
use crate::lexer::TokenKind;
use crate::syntax::*;
use crate::types::Value;

impl Parser {
    pub(super) fn parse_operator(&mut self, filter: bool) -> Parse<OperatorKind> {
        let options = self.settings(&["kind", "flags"])?;
        let source = self.expression()?;
        self.expect_word("with")?;
        let mut pattern = Vec::new();
        while !self.ends_operator() {
            let segment = match self.kind().clone() {
                TokenKind::Punctuation("*") => {
                    self.advance();
                    Segment::Star
                }
                TokenKind::Literal(Value::String(text)) => {
                    self.advance();
                    Segment::Text(text.to_string())
                }
                TokenKind::Punctuation(",") => {
                    self.advance();
                    continue;
                }
                _ => {
                    let name = self.name()?;
                    let ty = if self.eat(":") { Some(self.type_name()?) } else { None };
                    Segment::Column { name, ty }
                }
            };
            pattern.push(segment);
        }
        Ok(OperatorKind::Parse { filter, options, source, pattern })
    }

    pub(super) fn parse_kv(&mut self) -> Parse<OperatorKind> {
        let source = self.expression()?;
        self.expect_word("as")?;
        let columns = self.schema()?;
        let mut options = Settings::new();
        if self.eat_word("with") {
            let start = self.span();
            options = (self.properties()?.into_iter())
                .map(|(name, value)| Setting { name, value, span: self.since(start) })
                .collect();
        }
        Ok(OperatorKind::ParseKv { source, columns, options })
    }
}
