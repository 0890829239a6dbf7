//! `evaluate`: plugins, some of which have columns that depend on data.

use super::names::Names;
use super::{Bind, Binder, Env, Row, Schemas, cast, column, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::plan_text::visit;
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::{Type, Value};

/// Plugins that are carried out, beside those of [`super::activity`].
pub const NAMES: &[&str] = &[
    "bag_unpack",
    "dcount_intersect",
    "geo_line_lookup",
    "geo_polygon_lookup",
    "ipv4_lookup",
    "ipv6_lookup",
    "narrow",
    "pivot",
    "rows_near",
];

/// Plugins that are known and not carried out, with the reason.
pub const REFUSED: &[(&str, &str)] = &[
    ("ai_chat_completion", "no query of this server calls out"),
    ("ai_chat_completion_prompt", "no query of this server calls out"),
    ("ai_embeddings", "no query of this server calls out"),
    ("azure_digital_twins_query_request", "no query of this server calls out"),
    ("cosmosdb_sql_request", "no query of this server calls out"),
    ("diffpatterns_text", "what it finds is not documented"),
    ("http_request", "no query of this server calls out"),
    ("http_request_post", "no query of this server calls out"),
    ("infer_storage_schema", "no query of this server calls out"),
    ("infer_storage_schema_with_suggestions", "no query of this server calls out"),
    ("mysql_request", "no query of this server calls out"),
    ("postgresql_request", "no query of this server calls out"),
    ("python", "no foreign code runs inside a query"),
    ("r", "no foreign code runs inside a query"),
    ("sql_request", "no query of this server calls out"),
];

impl Binder<'_> {
    pub(super) fn evaluate(
        &mut self,
        input: Option<Plan>,
        written: &syntax::Expr,
        schema: Option<&[(Name, Type)]>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let (function, arguments): (&Name, &[syntax::Expr]) = match &written.kind {
            Syntax::Call { function, arguments } => (function, arguments),
            _ => {
                let message = "'evaluate' operator: a plugin is expected";
                return self.fail(diagnostics::NOT_ALLOWED, written.span, message);
            }
        };
        match (function.text.as_str(), input) {
            ("bag_unpack", Some(input)) => self.bag_unpack(input, arguments, schema, span, env),
            ("pivot", Some(input)) => self.pivot(input, arguments, schema, span, env),
            ("narrow", Some(input)) => {
                let columns = vec![
                    Column { name: "Row".to_owned(), ty: Type::Long },
                    Column { name: "Column".to_owned(), ty: Type::String },
                    Column { name: "Value".to_owned(), ty: Type::String },
                ];
                let node = Node::Plugin { input: Some(input), plugin: Plugin::Narrow, open: None };
                Ok(plan(columns, node))
            }
            (name @ ("ipv4_lookup" | "ipv6_lookup"), Some(input)) => {
                self.ip_lookup(input, arguments, name == "ipv6_lookup", span, env)
            }
            (name @ ("geo_line_lookup" | "geo_polygon_lookup"), Some(input)) => {
                self.geo_lookup(&input, arguments, name == "geo_polygon_lookup", span, env)
            }
            (name @ ("autocluster" | "basket" | "diffpatterns"), Some(input)) => {
                self.patterns(name, input, arguments, span, env)
            }
            ("funnel_sequence", Some(input)) => self.funnel_sequence(input, arguments, span, env),
            ("funnel_sequence_completion", Some(input)) => {
                self.funnel_completion(&input, arguments, span, env)
            }
            ("preview", Some(input)) => self.preview(input, arguments, span, env),
            ("rows_near", Some(input)) => self.rows_near(input, arguments, span, env),
            ("dcount_intersect", Some(input)) => {
                let columns = input.columns.clone();
                let row = Row::of(&columns, "evaluate");
                let mut sketches = Vec::new();
                for argument in arguments {
                    sketches.push(cast(self.scalar(argument, &row, env)?, Type::Dynamic));
                }
                Ok(super::activity::intersections(input, sketches))
            }
            (name, input) => {
                if let Some(input) = input
                    && let Some(made) = self.activity(name, &input, arguments, span, env)?
                {
                    return Ok(made);
                }
                let message = match REFUSED.iter().find(|(refused, _)| *refused == name) {
                    Some((_, reason)) => format!("the plugin '{name}' is not supported: {reason}"),
                    None => format!("the plugin '{name}' is not supported"),
                };
                let known = super::plugin_names();
                let diagnostic =
                    Diagnostic::new(diagnostics::NOT_SUPPORTED, function.span, message)
                        .suggest(name, known);
                self.diagnostics.push(diagnostic);
                Err(super::Failed)
            }
        }
    }

    /// The plugin with its columns: declared, known from data, or asked for.
    fn opened(
        &mut self,
        input: Plan,
        plugin: Plugin,
        fixed: Vec<Column>,
        declared: Option<&[(Name, Type)]>,
        span: Span,
    ) -> Bind<Plan> {
        if let Some(declared) = declared {
            let mut names = Names::default();
            let mut columns = Vec::new();
            for (name, ty) in declared {
                // `*` stands for the columns that are known.
                if name.text == "*" {
                    for column in &fixed {
                        columns.push(Column { name: names.give(Some(&column.name)), ..*column });
                    }
                    continue;
                }
                columns.push(Column { name: names.give(Some(&name.text)), ty: *ty });
            }
            let node = Node::Plugin { input: Some(input), plugin, open: None };
            return Ok(plan(columns, node));
        }
        if crate::plan_text::has_context(&input) {
            let what = "a plugin whose columns depend on data, inside 'mv-apply' or 'partition',";
            return self.unsupported(span, what);
        }
        let place = self.plugins;
        self.plugins += 1;
        let node = Node::Plugin { input: Some(input), plugin, open: Some(place) };
        let made = match self.schemas {
            Schemas::Unknowable => plan(fixed, node),
            Schemas::Known(known) => match known.get(place) {
                Some(columns) => plan(columns.clone(), node),
                None => {
                    if self.open.is_none() {
                        self.open = Some(plan(fixed.clone(), node.clone()));
                    }
                    plan(fixed, node)
                }
            },
        };
        let known = |name: &str| made.columns.iter().any(|column| column.name == name);
        let missing = self.inferred.iter().filter(|(at, name)| *at == place && !known(name));
        let missing: Vec<&String> = missing.map(|(_, name)| name).collect();
        if missing.is_empty() {
            return Ok(made);
        }
        let mut columns = made.columns.clone();
        let mut items: Vec<Expr> =
            columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        for name in missing {
            columns.push(Column { name: name.clone(), ty: Type::Dynamic });
            items.push(super::null(Type::Dynamic));
        }
        Ok(plan(columns, Node::Project { input: made, items }))
    }

    /// `ipv4_lookup(table, source, key [, extra …] [, return_unmatched])`: rows of `table` whose
    /// network contains the source's address.
    fn ip_lookup(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        v6: bool,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let (mut given, mut unmatched) = (Vec::new(), false);
        for argument in arguments {
            let value = match &argument.kind {
                Syntax::Named { value, .. } => value,
                _ => argument,
            };
            match &value.kind {
                Syntax::Literal(Value::Bool(flag)) => unmatched = *flag,
                _ => given.push(value),
            }
        }
        let [table, source, key, extra @ ..] = given.as_slice() else {
            let message = "a lookup table, an address and the table's network are expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let table = self.tabular(table, env, None)?;
        let columns = input.columns.clone();
        let (left, right) = (Row::of(&columns, "evaluate"), table.columns.clone());
        let right = Row::of(&right, "evaluate");
        let mut pairs = vec![(
            cast(self.scalar(source, &left, env)?, Type::String),
            cast(self.scalar(key, &right, env)?, Type::String),
        )];
        for extra in extra {
            pairs.push((
                cast(self.scalar(extra, &left, env)?, Type::String),
                cast(self.scalar(extra, &right, env)?, Type::String),
            ));
        }
        // The addresses stand behind each side's columns; the table's come first for IPv6.
        let wider = |input: Plan, keys: Vec<Expr>| {
            let mut columns = input.columns.clone();
            let mut items: Vec<Expr> =
                columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
            for (at, key) in keys.into_iter().enumerate() {
                columns.push(Column { name: format!("\u{1}key{at}"), ty: Type::String });
                items.push(key);
            }
            plan(columns, Node::Project { input, items })
        };
        let keys = pairs.len();
        let (lefts, rights) = pairs.into_iter().unzip();
        let (first, second) = match v6 {
            true => (&table.columns, &input.columns),
            false => (&input.columns, &table.columns),
        };
        let mut names = Names::default();
        let made = (first.iter().chain(second))
            .map(|c| Column { name: names.give(Some(&c.name)), ty: c.ty })
            .collect();
        let (input, table) = (wider(input, lefts), wider(table, rights));
        Ok(plan(made, Node::IpLookup { input, table, keys, v6, unmatched }))
    }

    /// `rows_near(condition, before [, after])`
    fn rows_near(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        let [condition, around @ ..] = arguments else {
            let message = "rows_near: a condition and a number of rows are expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let condition = self.condition(condition, &row, env)?;
        let mut counts = Vec::new();
        for count in around {
            match self.constant(count, "evaluate", Type::Long, env)?.kind {
                ExprKind::Literal(Value::Long(rows @ 0..)) => counts.push(rows as usize),
                _ => {
                    let message = "rows_near: a number of rows is expected";
                    return self.fail(diagnostics::ARGUMENTS, count.span, message);
                }
            }
        }
        let (before, after) = match counts.as_slice() {
            [both] => (*both, *both),
            [before, after] => (*before, *after),
            _ => {
                let message = "rows_near: one or two numbers of rows are expected";
                return self.fail(diagnostics::ARGUMENTS, span, message);
            }
        };
        let mut items: Vec<Expr> =
            columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        items.push(condition);
        let mut wider = columns.clone();
        wider.push(Column { name: "\u{1}near".to_owned(), ty: Type::Bool });
        let input = plan(wider, Node::Project { input, items });
        let plugin = Plugin::RowsNear { before, after };
        Ok(plan(columns, Node::Plugin { input: Some(input), plugin, open: None }))
    }

    fn bag_unpack(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        schema: Option<&[(Name, Type)]>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        let mut bag = None;
        let (mut prefix, mut conflict) = (String::new(), Conflict::Error);
        let mut ignored = Vec::new();
        let mut position = 0;
        for argument in arguments {
            let (name, value) = match &argument.kind {
                Syntax::Named { names, value } => (names[0].text.as_str(), &**value),
                _ => {
                    position += 1;
                    let names = ["column", "OutputColumnPrefix", "columnsConflict"];
                    (names.get(position - 1).copied().unwrap_or("ignoredProperties"), argument)
                }
            };
            let bound = self.scalar(value, &row, env)?;
            match (name, bound.kind) {
                ("column", ExprKind::Column(at)) if columns[at].ty == Type::Dynamic => {
                    bag = Some(at);
                }
                ("OutputColumnPrefix", ExprKind::Literal(Value::String(text))) => {
                    prefix = text.to_string();
                }
                ("columnsConflict", ExprKind::Literal(Value::String(text))) => {
                    conflict = match &*text {
                        "error" => Conflict::Error,
                        "replace_source" => Conflict::ReplaceSource,
                        "keep_source" => Conflict::KeepSource,
                        other => {
                            let message = format!("bag_unpack: '{other}' is no columnsConflict");
                            return self.fail(diagnostics::NOT_ALLOWED, value.span, message);
                        }
                    };
                }
                ("ignoredProperties", ExprKind::Literal(Value::Dynamic(json))) => {
                    let values = crate::json::elements(&json).unwrap_or_default();
                    ignored.extend(values.iter().map(crate::plan_text::plain_text));
                }
                _ => {
                    let message = format!("bag_unpack: the argument '{name}' does not fit");
                    return self.fail(diagnostics::ARGUMENTS, value.span, message);
                }
            }
        }
        let Some(bag) = bag else {
            let message = "bag_unpack: a dynamic column is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let fixed = columns.iter().enumerate().filter(|(at, _)| *at != bag);
        let fixed = fixed.map(|(_, column)| column.clone()).collect();
        let plugin = Plugin::BagUnpack { column: bag, prefix, conflict, ignored };
        self.opened(input, plugin, fixed, schema, span)
    }

    /// Summed up by the kept columns and the pivoted one; the engine spreads the result.
    fn pivot(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        schema: Option<&[(Name, Type)]>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        let Some((first, rest)) = arguments.split_first() else {
            let message = "pivot: a column is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let ExprKind::Column(pivoted) = self.scalar(first, &row, env)?.kind else {
            let message = "pivot: a column is expected";
            return self.fail(diagnostics::ARGUMENTS, first.span, message);
        };
        let is_aggregate = |written: &syntax::Expr| match &written.kind {
            Syntax::Call { function, .. } => crate::aggregates::find(&function.text).is_some(),
            _ => false,
        };
        let (aggregate, rest) = match rest.split_first() {
            Some((written, rest)) if is_aggregate(written) => {
                (self.single_aggregate(written, &row, env)?.0, rest)
            }
            _ => {
                let count = Column { name: "count_".to_owned(), ty: Type::Long };
                let aggregate =
                    Aggregate { function: "count", arguments: Vec::new(), columns: vec![count] };
                (aggregate, rest)
            }
        };
        let mut kept = Vec::new();
        for written in rest {
            match self.scalar(written, &row, env)?.kind {
                ExprKind::Column(at) => kept.push(at),
                _ => {
                    let message = "pivot: a column is expected";
                    return self.fail(diagnostics::ARGUMENTS, written.span, message);
                }
            }
        }
        if rest.is_empty() {
            // All that is neither spread nor aggregated.
            let mut used = vec![pivoted];
            aggregate.arguments.iter().for_each(|a| visit(a, &mut |at| used.push(at)));
            kept = (0..columns.len()).filter(|at| !used.contains(at)).collect();
        }
        let mut keys: Vec<Expr> = Vec::new();
        let mut fixed = Vec::new();
        for at in kept {
            let key = column(at, columns[at].ty);
            // A dynamic is no key; its text is.
            keys.push(if key.ty == Type::Dynamic { cast(key, Type::String) } else { key });
            fixed.push(Column { name: columns[at].name.clone(), ty: keys[keys.len() - 1].ty });
        }
        let count = keys.len();
        keys.push(cast(column(pivoted, columns[pivoted].ty), Type::String));
        let mut summed = fixed.clone();
        summed.push(Column { name: "\u{1}pivoted".to_owned(), ty: Type::String });
        let Some(value) = aggregate.columns.first().cloned() else {
            let message = "pivot: an aggregate with one result is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        summed.push(Column { name: "\u{1}value".to_owned(), ty: value.ty });
        let missing = match aggregate.function {
            "count" | "countif" | "dcount" | "dcountif" | "sum" | "sumif" => match value.ty {
                Type::Real => Value::Real(0.0),
                Type::Long => Value::Long(0),
                ty => crate::plan_text::null_of(ty),
            },
            _ => crate::plan_text::null_of(value.ty),
        };
        let aggregates = vec![aggregate];
        let summary = plan(summed, Node::Summarize { input, keys, aggregates });
        self.opened(summary, Plugin::Pivot { keys: count, missing }, fixed, schema, span)
    }
}
