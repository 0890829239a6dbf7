//! Operators on graphs, and the patterns of paths that they look for.

use super::{Failed, Parse, Parser};
use crate::lexer::TokenKind;
use crate::syntax::*;
use crate::types::Value;

/// More edges in a row than this no pattern asks for.
const LONGEST: u32 = 256;

impl Parser {
    /// `make-graph a --> b [with T on key, …| with_node_id=name]`
    pub(super) fn make_graph(&mut self) -> Parse<OperatorKind> {
        self.settings(&[])?;
        let source = self.name()?;
        self.expect("-->")?;
        let target = self.name()?;
        let mut nodes = Vec::new();
        let mut node_id = None;
        if self.eat_word("with_node_id") {
            self.expect("=")?;
            node_id = Some(self.name()?);
        } else if self.eat_word("with") {
            loop {
                let table = self.table()?;
                self.expect_word("on")?;
                nodes.push((table, self.name()?));
                if !self.eat(",") {
                    break;
                }
            }
        }
        if self.is_word("partitioned") {
            return self.fail("partitioned graphs are not supported");
        }
        Ok(OperatorKind::MakeGraph { source, target, nodes, node_id })
    }

    pub(super) fn graph_match(&mut self, shortest: bool) -> Parse<OperatorKind> {
        let options = self.settings(&["cycles", "output"])?;
        let mut paths = vec![self.graph_path()?];
        while self.eat(",") {
            paths.push(self.graph_path()?);
        }
        let predicate = if self.eat_word("where") { Some(self.expression()?) } else { None };
        let project =
            if self.eat_word("project") { self.items(Parser::named)? } else { Vec::new() };
        Ok(OperatorKind::GraphMatch { shortest, options, paths, predicate, project })
    }

    fn graph_path(&mut self) -> Parse<GraphPath> {
        let mut path = GraphPath { nodes: vec![self.graph_node()?], edges: Vec::new() };
        while self.is("-") || self.is("<") || self.is("-->") || self.is("<--") {
            path.edges.push(self.graph_step()?);
            path.nodes.push(self.graph_node()?);
        }
        Ok(path)
    }

    /// `(name)`, `()`
    fn graph_node(&mut self) -> Parse<Option<Name>> {
        self.expect("(")?;
        let name = if self.is(")") { None } else { Some(self.name()?) };
        self.expect(")")?;
        Ok(name)
    }

    /// `-[name*1..3]->`, `<-[name]-`, `-[name]-`, `-->`, `<--`, `--`
    fn graph_step(&mut self) -> Parse<GraphStep> {
        let bare = |direction| GraphStep { name: None, direction, range: None };
        if self.eat("-->") {
            return Ok(bare(Direction::Right));
        }
        if self.eat("<--") {
            return Ok(bare(Direction::Left));
        }
        let left = self.eat("<");
        self.expect("-")?;
        if !self.eat("[") {
            self.expect("-")?;
            return Ok(bare(if left { Direction::Left } else { Direction::Any }));
        }
        let name = if self.is("*") || self.is("]") { None } else { Some(self.name()?) };
        let range = if self.eat("*") { Some(self.graph_range()?) } else { None };
        self.expect("]")?;
        self.expect("-")?;
        let right = self.eat(">");
        let direction = match (left, right) {
            (true, true) => return self.fail("an edge cannot point both ways; write '-[…]-'"),
            (true, false) => Direction::Left,
            (false, true) => Direction::Right,
            (false, false) => Direction::Any,
        };
        Ok(GraphStep { name, direction, range })
    }

    /// `1..3`
    fn graph_range(&mut self) -> Parse<(u32, u32)> {
        let start = self.span();
        let least = self.graph_length()?;
        self.expect("..")?;
        let most = self.graph_length()?;
        if least > most || most > LONGEST {
            let message = format!("a path has from 0 to {LONGEST} edges, the least first");
            return self.fail_at(self.since(start), message);
        }
        Ok((least, most))
    }

    fn graph_length(&mut self) -> Parse<u32> {
        let TokenKind::Literal(Value::Long(number)) = *self.kind() else {
            return self.expected("a whole number");
        };
        self.advance();
        // What does not fit is far too long, which the caller says.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// `nodes`, `edges as E with_source_id=s with_target_id=t`
    pub(super) fn graph_table(&mut self) -> Parse<GraphTable> {
        let edges = match self.word() {
            Some("nodes") => false,
            Some("edges") => true,
            _ => {
                let _: Parse<()> = self.expected("'nodes' or 'edges'");
                return Err(Failed);
            }
        };
        self.advance();
        let name = if self.eat_word("as") { Some(self.name()?) } else { None };
        let options = self.settings(&["with_node_id", "with_source_id", "with_target_id"])?;
        Ok(GraphTable { edges, name, options })
    }
}
