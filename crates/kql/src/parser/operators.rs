//! Operators of a pipeline, and the expressions that begin one.

use super::{Failed, Parse, Parser};
use crate::diagnostics::Span;
use crate::lexer::TokenKind;
use crate::syntax::*;
use crate::types::{Type, Value};

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

    fn ends_operator(&self) -> bool {
        matches!(self.kind(), TokenKind::End | TokenKind::Punctuation("|" | ";" | ")" | "]" | "}"))
    }

    /// An operator's name, dashes included: `project-away`.
    fn operator_name(&mut self) -> Parse<String> {
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

    fn operator(&mut self) -> Parse<Operator> {
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

    /// `( | operator …)` or `(operator | operator …)`: operators over the rows that are handed in; or
    /// a whole pipeline.
    fn sub_plan(&mut self) -> Parse<Expr> {
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

    /// A column's name with `*` in it, or a bare name.
    fn pattern(&mut self) -> Parse<Expr> {
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
    fn column_or_wildcard(&mut self) -> Parse<Expr> {
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

    fn summarize(&mut self) -> Parse<OperatorKind> {
        self.settings(&[])?;
        let mut aggregates = Vec::new();
        if !self.is_word("by") && !self.ends_operator() {
            aggregates = self.items(Parser::named)?;
        }
        let by = if self.eat_word("by") { Some(self.items(Parser::named)?) } else { None };
        Ok(OperatorKind::Summarize { aggregates, by })
    }

    fn sort_key(&mut self) -> Parse<SortKey> {
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

    fn join(&mut self, name: &str) -> Parse<OperatorKind> {
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

    fn expand(&mut self, name: &str) -> Parse<OperatorKind> {
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

    fn parse_operator(&mut self, filter: bool) -> Parse<OperatorKind> {
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

    fn parse_kv(&mut self) -> Parse<OperatorKind> {
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

    fn make_series(&mut self) -> Parse<OperatorKind> {
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
    fn nested_level(&mut self) -> Parse<NestedLevel> {
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

    fn reduce(&mut self) -> Parse<OperatorKind> {
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

    fn scan(&mut self) -> Parse<OperatorKind> {
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

    /// `in (T1, T2*)`
    fn searched_tables(&mut self) -> Parse<Vec<Expr>> {
        if !self.is_word("in") || !self.is_ahead(1, "(") {
            return Ok(Vec::new());
        }
        self.advance();
        self.advance();
        self.list(")", Parser::table)
    }

    fn search(&mut self) -> Parse<OperatorKind> {
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

    fn find(&mut self) -> Parse<OperatorKind> {
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
