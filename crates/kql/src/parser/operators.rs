//! A pipeline's operators: their names, and which reader takes which.

use super::{Failed, Parse, Parser};
use crate::diagnostics::Span;
use crate::lexer::TokenKind;
use crate::syntax::*;
use crate::types::Type;

/// Operators that are recognised so that the message can name them.
pub const OTHERS: &[&str] =
    &["macro-expand", "assert-schema", "execute-and-cache", "__partitionby"];

/// Names of operators, for suggestions and the reference.
pub const NAMES: &[&str] = &[
    "where",
    "filter",
    "project",
    "extend",
    "project-away",
    "project-keep",
    "project-by-names",
    "project-rename",
    "project-reorder",
    "summarize",
    "count",
    "take",
    "limit",
    "sort",
    "order",
    "top",
    "distinct",
    "join",
    "lookup",
    "union",
    "serialize",
    "as",
    "consume",
    "getschema",
    "sample",
    "sample-distinct",
    "mv-expand",
    "mv-apply",
    "parse",
    "parse-where",
    "parse-kv",
    "make-series",
    "top-nested",
    "top-hitters",
    "reduce",
    "evaluate",
    "invoke",
    "partition",
    "fork",
    "facet",
    "scan",
    "make-graph",
    "graph-match",
    "graph-shortest-paths",
    "graph-mark-components",
    "graph-to-table",
    "graph-where-nodes",
    "graph-where-edges",
    "search",
    "find",
    "render",
    "print",
    "range",
];

impl Parser {
    /// `| operator | operator …`
    pub(super) fn operators(&mut self) -> Parse<Vec<Operator>> {
        let mut operators = Vec::new();
        while self.eat("|") {
            let before = self.at;
            match self.nested(Parser::operator) {
                Ok(operator) => operators.push(operator),
                Err(Failed) => {
                    self.skip_to_pipe();
                    if self.at == before && !self.is("|") {
                        return Err(Failed);
                    }
                }
            }
        }
        Ok(operators)
    }

    /// To the next `|`, `;` or closing bracket of this level.
    fn skip_to_pipe(&mut self) {
        let mut depth = 0i32;
        loop {
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Punctuation("(" | "[" | "{") => depth += 1,
                TokenKind::Punctuation(")" | "]" | "}") if depth == 0 => return,
                TokenKind::Punctuation(")" | "]" | "}") => depth -= 1,
                TokenKind::Punctuation("|" | ";") if depth == 0 => return,
                _ => {}
            }
            self.advance();
        }
    }

    /// Items with commas between them, one or more; one more comma at the end is forgiven.
    pub(super) fn items<T>(
        &mut self,
        mut item: impl FnMut(&mut Parser) -> Parse<T>,
    ) -> Parse<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.eat(",") {
            if self.ends_operator() || self.is_word("by") {
                break;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn ends_operator(&self) -> bool {
        matches!(self.kind(), TokenKind::End | TokenKind::Punctuation("|" | ";" | ")" | "]" | "}"))
    }

    /// An operator's name, dashes included: `project-away`.
    pub(super) fn operator_name(&mut self) -> Parse<String> {
        let mut name = self.name()?.text;
        while self.is("-") && matches!(self.ahead(1), TokenKind::Name(_)) {
            let dash = self.span();
            let joined = self.tokens[self.at - 1].span.end == dash.start
                && self.tokens[self.at + 1].span.start == dash.end;
            if !joined {
                break;
            }
            self.advance();
            name = format!("{name}-{}", self.name()?.text);
        }
        Ok(name)
    }

    pub(super) fn operator(&mut self) -> Parse<Operator> {
        let start = self.span();
        let name = self.operator_name()?;
        let kind = self.operator_kind(&name, start)?;
        let span = self.since(start);
        if !self.ends_operator() {
            return self.expected("'|', ';' or the end of the query");
        }
        Ok(Operator { kind, span })
    }

    fn operator_kind(&mut self, name: &str, start: Span) -> Parse<OperatorKind> {
        Ok(match name {
            "where" | "filter" => {
                self.settings(&[])?;
                OperatorKind::Where(self.expression()?)
            }
            "project" => OperatorKind::Project(self.items_or_none(Parser::column_or_wildcard)?),
            "extend" => OperatorKind::Extend(self.items(Parser::named)?),
            "project-away" => OperatorKind::ProjectAway(self.items(Parser::pattern)?),
            "project-keep" => OperatorKind::ProjectKeep(self.items(Parser::pattern)?),
            "project-by-names" => OperatorKind::ProjectByNames(self.items(Parser::named)?),
            "project-rename" => OperatorKind::ProjectRename(self.items(Parser::named)?),
            "project-reorder" => OperatorKind::ProjectReorder(self.items(|parser| {
                let pattern = parser.pattern()?;
                let order = match parser.word() {
                    Some("asc" | "desc" | "granny") => {
                        let mut order = parser.name()?;
                        while parser.eat("-") {
                            order.text = format!("{}-{}", order.text, parser.name()?.text);
                        }
                        Some(order)
                    }
                    _ => None,
                };
                Ok((pattern, order))
            })?),
            "summarize" => self.summarize()?,
            "count" => OperatorKind::Count,
            "take" | "limit" => OperatorKind::Take(self.expression()?),
            "sort" | "order" => {
                self.settings(&[])?;
                self.expect_word("by")?;
                OperatorKind::Sort(self.items(Parser::sort_key)?)
            }
            "top" => {
                self.settings(&[])?;
                let count = self.expression()?;
                self.expect_word("by")?;
                OperatorKind::Top { count, keys: self.items(Parser::sort_key)? }
            }
            "distinct" => {
                self.settings(&[])?;
                OperatorKind::Distinct(self.items(Parser::column_or_wildcard)?)
            }
            "join" | "lookup" => self.join(name)?,
            "union" => {
                let options = self.settings(&["kind", "withsource", "with_source", "isfuzzy"])?;
                OperatorKind::Union { options, tables: self.items(Parser::table)? }
            }
            "print" => OperatorKind::Print(self.items(Parser::named)?),
            "serialize" => OperatorKind::Serialize(self.items_or_none(Parser::named)?),
            "as" => {
                let options = self.settings(&[])?;
                let name = self.name()?;
                let _ = (options, self.settings(&[])?);
                OperatorKind::As(name)
            }
            "consume" => {
                self.settings(&["decodeblocks"])?;
                OperatorKind::Consume
            }
            "getschema" => OperatorKind::GetSchema,
            "sample" => OperatorKind::Sample(self.expression()?),
            "sample-distinct" => {
                let count = self.expression()?;
                self.expect_word("of")?;
                OperatorKind::SampleDistinct { count, of: self.expression()? }
            }
            "mv-expand" | "mvexpand" | "mv-apply" | "mvapply" => self.expand(name)?,
            "parse" | "parse-where" => self.parse_operator(name == "parse-where")?,
            "parse-kv" => self.parse_kv()?,
            "make-series" => self.make_series()?,
            "top-nested" => {
                let mut levels = vec![self.nested_level()?];
                while self.eat(",") {
                    self.expect_word("top")?;
                    self.expect("-")?;
                    self.expect_word("nested")?;
                    levels.push(self.nested_level()?);
                }
                OperatorKind::TopNested(levels)
            }
            "top-hitters" => {
                let count = self.expression()?;
                self.expect_word("of")?;
                let of = self.expression()?;
                let by = if self.eat_word("by") { Some(self.expression()?) } else { None };
                OperatorKind::TopHitters { count, of, by }
            }
            "reduce" => self.reduce()?,
            "evaluate" => {
                self.settings(&[])?;
                // No comparison: `:` begins the schema.
                let call = self.sum()?;
                let schema = if self.eat(":") { Some(self.schema_open()?) } else { None };
                OperatorKind::Evaluate { call, schema }
            }
            "invoke" => OperatorKind::Invoke(self.expression()?),
            "partition" => {
                self.settings(&[])?;
                self.expect_word("by")?;
                // A column alone: what follows in parentheses is the sub-query, no call.
                let by = self.pattern()?;
                self.settings(&[])?;
                OperatorKind::Partition { by, plan: self.sub_plan()?.into() }
            }
            "fork" => {
                let mut branches = Vec::new();
                while !self.ends_operator() {
                    let named = self.is_ahead(1, "=");
                    let name = if named { Some(self.name()?) } else { None };
                    if named {
                        self.advance();
                    }
                    branches.push((name, self.sub_plan()?));
                }
                OperatorKind::Fork(branches)
            }
            "facet" => {
                self.expect_word("by")?;
                let by = self.items(Parser::expression)?;
                let with = if self.eat_word("with") { Some(self.sub_plan()?.into()) } else { None };
                OperatorKind::Facet { by, with }
            }
            "scan" => self.scan()?,
            "search" => self.search()?,
            "find" => self.find()?,
            "render" => {
                let kind = self.name()?;
                let mut properties = Vec::new();
                if self.eat_word("with") {
                    properties = self.properties()?;
                }
                while !self.ends_operator() {
                    // Older form: `render timechart title="x" by y`.
                    if self.is_ahead(1, "=") {
                        properties.extend(self.properties()?);
                    } else {
                        self.advance();
                    }
                }
                OperatorKind::Render { kind, properties }
            }
            "make-graph" => self.make_graph()?,
            "graph-match" => self.graph_match(false)?,
            "graph-shortest-paths" => self.graph_match(true)?,
            "graph-where-nodes" | "graph-where-edges" => OperatorKind::GraphWhere {
                edges: name.ends_with("edges"),
                predicate: self.expression()?,
            },
            "graph-mark-components" => {
                OperatorKind::GraphMarkComponents(self.settings(&["kind", "with_component_id"])?)
            }
            "graph-to-table" => OperatorKind::GraphToTable(self.items(Parser::graph_table)?),
            other if OTHERS.contains(&other) => {
                self.skip_to_pipe();
                OperatorKind::Other { name: other.to_owned() }
            }
            other => {
                let message = format!("'{other}' is not an operator");
                let failed: Parse<()> = self.fail_at(start, message);
                if let Some(last) = self.diagnostics.last_mut() {
                    *last = last.clone().suggest(other, NAMES.iter().copied());
                }
                failed?;
                return Err(Failed);
            }
        })
    }

    fn items_or_none<T>(&mut self, item: impl FnMut(&mut Parser) -> Parse<T>) -> Parse<Vec<T>> {
        if self.ends_operator() { Ok(Vec::new()) } else { self.items(item) }
    }

    /// A schema after `evaluate …:`, where `*` may stand for the input's columns.
    fn schema_open(&mut self) -> Parse<Vec<(Name, Type)>> {
        self.expect("(")?;
        let star = self.span();
        if self.eat("*") {
            self.eat(",");
            let mut columns = vec![(Name { text: "*".to_owned(), span: star }, Type::Dynamic)];
            columns.extend(self.list(")", Parser::column_type)?);
            return Ok(columns);
        }
        self.list(")", Parser::column_type)
    }
}
