//! `scan`: steps that rows go through in their order.

use super::{Parse, Parser};
use crate::syntax::*;

impl Parser {
    pub(super) fn scan(&mut self) -> Parse<OperatorKind> {
        let mut options = self.settings(&["with_match_id", "kind"])?;
        let mut partition_by = Vec::new();
        if self.eat_word("partition") {
            self.expect_word("by")?;
            partition_by = self.items(Parser::expression)?;
        }
        let mut declare = Vec::new();
        if self.eat_word("declare") {
            self.expect("(")?;
            declare = self.list(")", |parser| {
                let (name, ty) = parser.column_type()?;
                let default = if parser.eat("=") { Some(parser.expression()?) } else { None };
                Ok((name, ty, default))
            })?;
        }
        options.extend(self.settings(&["with_match_id"])?);
        self.expect_word("with")?;
        self.expect("(")?;
        let mut steps = Vec::new();
        while self.eat_word("step") {
            let name = self.name()?;
            let mut optional = false;
            let mut output = None;
            loop {
                if self.eat_word("optional") {
                    optional = true;
                } else if self.is_word("output") && self.is_ahead(1, "=") {
                    self.advance();
                    self.advance();
                    output = Some(self.name()?);
                } else {
                    break;
                }
            }
            self.expect(":")?;
            let condition = self.expression()?;
            let mut assignments = Vec::new();
            if self.eat("=>") {
                assignments = self.items(|parser| {
                    let name = parser.name()?;
                    parser.expect("=")?;
                    Ok((name, parser.expression()?))
                })?;
            }
            self.expect(";")?;
            steps.push(Step { name, optional, output, condition, assignments });
        }
        self.expect(")")?;
        Ok(OperatorKind::Scan { options, partition_by, declare, steps })
    }
}
