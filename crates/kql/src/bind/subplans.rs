//! Operators with a sub-query over rows of their own: `mv-apply`, `partition`, `fork`, `facet`,
//! `scan`; and `mv-expand`, which `mv-apply` begins with.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, ScanSteps, call, cast, column, expr, literal, null, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Name, Settings};
use crate::types::{Type, Value};
use std::sync::Arc;

/// What `mv-expand` and `mv-apply` have in common.
pub(super) struct Expansion {
    columns: Vec<Column>,
    items: Vec<ExpandItem>,
    kind: ExpandKind,
    item_index: bool,
    limit: Option<Expr>,
}

impl Binder<'_> {
    pub(super) fn mv_expand(
        &mut self,
        input: Plan,
        options: &Settings,
        written: &[syntax::Expanded],
        limit: Option<&syntax::Expr>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let made = self.expansion(&input, "mv-expand", options, written, limit, span, env)?;
        let Expansion { columns, items, kind, item_index, limit } = made;
        Ok(plan(columns, Node::MvExpand { input, items, kind, item_index, limit }))
    }

    #[allow(clippy::too_many_arguments)]
    fn expansion(
        &mut self,
        input: &Plan,
        operator: &str,
        options: &Settings,
        written: &[syntax::Expanded],
        limit: Option<&syntax::Expr>,
        span: Span,
        env: &Env,
    ) -> Bind<Expansion> {
        let row = Row::of(&input.columns, operator);
        let mut columns = input.columns.clone();
        let mut names = Names::taken(&columns);
        let mut items = Vec::new();
        for expanded in written {
            let named = matches!(expanded.expr.kind, Syntax::Named { .. });
            let expr = self.scalar(&expanded.expr, &row, env)?;
            if expr.ty != Type::Dynamic {
                let message =
                    format!("'{operator}' operator: a dynamic value is expected, not {}", expr.ty);
                return self.fail(diagnostics::TYPE_MISMATCH, expanded.expr.span, message);
            }
            let ty = expanded.to.unwrap_or(Type::Dynamic);
            let name = self.default_name(&expanded.expr, env);
            let place = match (&expr.kind, named) {
                (ExprKind::Column(at), false) => Some(*at),
                _ => name.as_deref().and_then(|name| columns.iter().position(|c| c.name == name)),
            };
            let output = match place {
                Some(at) => {
                    columns[at].ty = ty;
                    at
                }
                None => {
                    columns.push(Column { name: names.give(name.as_deref()), ty });
                    columns.len() - 1
                }
            };
            items.push(ExpandItem { expr, output, to: ty });
        }
        let item_index = setting(options, "with_itemindex");
        if let Some(name) = item_index {
            columns.push(Column { name: names.give(Some(name)), ty: Type::Long });
        }
        let kind = setting(options, "kind").or_else(|| setting(options, "bagexpansion"));
        let kind = match kind.unwrap_or("bag") {
            "bag" => ExpandKind::Bag,
            "array" => ExpandKind::Array,
            other => {
                let message = format!("'{operator}' operator: '{other}' is no kind");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let limit = limit.map(|l| self.constant(l, operator, Type::Long, env)).transpose()?;
        Ok(Expansion { columns, items, kind, item_index: item_index.is_some(), limit })
    }

    /// The columns of the input that are not expanded in their place, then those that the sub-query
    /// made. What the sub-query does with a column that is only repeated for it does not show.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn mv_apply(
        &mut self,
        input: Plan,
        options: &Settings,
        written: &[syntax::Expanded],
        limit: Option<&syntax::Expr>,
        inner: &syntax::Expr,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let made = self.expansion(&input, "mv-apply", options, written, limit, span, env)?;
        let Expansion { columns: context, items, kind, item_index, limit } = made;
        let applied = self.nested(span, |binder| binder.tabular(inner, env, Some(&context)))?;
        let width = input.columns.len();
        let in_place = |at: usize| items.iter().any(|item| item.output == at);
        let mut names = Names::default();
        let (mut columns, mut output) = (Vec::new(), Vec::new());
        let find = |name: &str| applied.columns.iter().position(|c| c.name == name);
        for (at, outer) in input.columns.iter().enumerate() {
            let from = match in_place(at) {
                false => ApplyOutput::Outer(at),
                true => match find(&outer.name) {
                    Some(at) => ApplyOutput::Applied(at),
                    None => continue,
                },
            };
            let ty = match from {
                ApplyOutput::Outer(at) => input.columns[at].ty,
                ApplyOutput::Applied(at) => applied.columns[at].ty,
            };
            columns.push(Column { name: names.give(Some(&outer.name)), ty });
            output.push(from);
        }
        for (at, made) in applied.columns.iter().enumerate() {
            if input.columns[..width].iter().any(|outer| outer.name == made.name) {
                continue;
            }
            columns.push(Column { name: names.give(Some(&made.name)), ty: made.ty });
            output.push(ApplyOutput::Applied(at));
        }
        let node =
            Node::MvApply { input, items, kind, item_index, limit, context, plan: applied, output };
        Ok(plan(columns, node))
    }

    pub(super) fn partition(
        &mut self,
        input: Plan,
        by: &syntax::Expr,
        inner: &syntax::Expr,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let by = self.scalar(by, &Row::of(&columns, "partition"), env)?;
        if by.ty == Type::Dynamic {
            let message = "'partition' operator: a key of type dynamic is not allowed";
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        }
        let inner = self.nested(span, |binder| binder.tabular(inner, env, Some(&columns)))?;
        Ok(plan(inner.columns.clone(), Node::Partition { input, by, plan: inner }))
    }

    /// Several results of one input; the input is evaluated once.
    pub(super) fn fork(
        &mut self,
        input: Plan,
        branches: &[(Option<Name>, syntax::Expr)],
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let mut bound = Vec::new();
        for (name, branch) in branches {
            let branch = self.nested(branch.span, |b| b.tabular(branch, env, Some(&columns)))?;
            bound.push((name.as_ref().map(|name| name.text.clone()).unwrap_or_default(), branch));
        }
        let columns = bound.last().map_or(columns, |(_, last)| last.columns.clone());
        Ok(plan(columns, Node::Batch { input, branches: bound }))
    }

    /// One table of counts for each column, then the sub-query's.
    pub(super) fn facet(
        &mut self,
        input: Plan,
        by: &[syntax::Expr],
        with: Option<&syntax::Expr>,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "facet");
        let mut branches = Vec::new();
        for key in by {
            let value = self.scalar(key, &row, env)?;
            let name = self.default_name(key, env).unwrap_or_else(|| "Column1".to_owned());
            let result = vec![
                Column { name: name.clone(), ty: value.ty },
                Column { name: format!("count_{name}"), ty: Type::Long },
            ];
            let count = Aggregate {
                function: "count",
                arguments: Vec::new(),
                columns: vec![result[1].clone()],
            };
            let context = plan(columns.clone(), Node::Context);
            let node =
                Node::Summarize { input: context, keys: vec![value], aggregates: vec![count] };
            branches.push((name, plan(result, node)));
        }
        if let Some(with) = with {
            let bound = self.nested(with.span, |b| b.tabular(with, env, Some(&columns)))?;
            branches.push((String::new(), bound));
        }
        let columns = branches.last().map_or(columns, |(_, last)| last.columns.clone());
        Ok(plan(columns, Node::Batch { input, branches }))
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn scan(
        &mut self,
        input: Plan,
        options: &Settings,
        partition_by: &[syntax::Expr],
        declared: &[(Name, Type, Option<syntax::Expr>)],
        written: &[syntax::Step],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "scan");
        let mut keys = Vec::new();
        for key in partition_by {
            keys.push(self.scalar(key, &row, env)?);
        }
        let mut columns = input_columns.clone();
        let mut declare = Vec::new();
        for (name, ty, default) in declared {
            let default = match default {
                Some(default) => Some(cast(self.scalar(default, &row, env)?, *ty)),
                None => None,
            };
            let column = Column { name: name.text.clone(), ty: *ty };
            columns.push(column.clone());
            declare.push((column, default));
        }
        let names: Vec<&str> = written.iter().map(|step| step.name.text.as_str()).collect();
        let scan = ScanSteps { names: &names, columns: &columns };
        let row = Row { scan: Some(&scan), ..row };
        let mut steps = Vec::new();
        for step in written {
            let condition = self.condition(&step.condition, &row, env)?;
            let mut assignments = Vec::new();
            for (name, value) in &step.assignments {
                let Some(at) = columns.iter().position(|column| column.name == name.text) else {
                    let message =
                        format!("'scan' operator: '{}' is not a declared column", name.text);
                    return self.fail(diagnostics::UNKNOWN_NAME, name.span, message);
                };
                let value = self.scalar(value, &row, env)?;
                assignments.push((at, cast(value, columns[at].ty)));
            }
            let last = steps.len() + 1 == written.len();
            let output = match step.output.as_ref().map(|name| name.text.as_str()) {
                Some("all") => ScanOutput::All,
                Some("last") => ScanOutput::Last,
                Some("none") => ScanOutput::None,
                None if written.len() == 1 || last => ScanOutput::All,
                None => ScanOutput::All,
                Some(other) => {
                    let message = format!("'scan' operator: '{other}' is no kind of output");
                    return self.fail(diagnostics::NOT_ALLOWED, span, message);
                }
            };
            let name = step.name.text.clone();
            let optional = step.optional;
            steps.push(ScanStep { name, optional, output, condition, assignments });
        }
        let mut result = columns;
        let match_id = setting(options, "with_match_id");
        if let Some(name) = match_id {
            let name = Names::taken(&result).give(Some(name));
            result.push(Column { name, ty: Type::Long });
        }
        let match_id = match_id.is_some();
        let node = Node::Scan { input, partition_by: keys, declare, match_id, steps };
        Ok(plan(result, node))
    }

    pub(super) fn parse_kv(
        &mut self,
        input: Plan,
        source: &syntax::Expr,
        written: &[(Name, Type)],
        settings: &Settings,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let source = self.scalar(source, &Row::of(&input_columns, "parse-kv"), env)?;
        let source = cast(source, Type::String);
        let mut columns = input_columns;
        let mut names = Names::taken(&columns);
        let mut keys = Vec::new();
        for (name, ty) in written {
            keys.push(Column { name: name.text.clone(), ty: *ty });
            columns.push(Column { name: names.give(Some(&name.text)), ty: *ty });
        }
        let mut options = ParseKvOptions::default();
        for setting in settings {
            match setting.name.as_str() {
                "pair_delimiter" => {
                    options.pair_delimiter.clone_from(&setting.value);
                }
                "kv_delimiter" => options.kv_delimiter.clone_from(&setting.value),
                "quote" => options.quotes = setting.value.chars().collect(),
                "escape" => options.escape = setting.value.chars().next(),
                "greedy" => options.greedy = setting.value == "true",
                "regex" => options.regex = Some(setting.value.clone()),
                other => {
                    let message = format!("'parse-kv' operator: '{other}' is no property");
                    return self.fail(diagnostics::NOT_ALLOWED, span, message);
                }
            }
        }
        Ok(plan(columns, Node::ParseKv { input, source, keys, options }))
    }

    /// Exact counts stand for the approximation.
    pub(super) fn top_hitters(
        &mut self,
        input: Plan,
        count: &syntax::Expr,
        of: &syntax::Expr,
        by: Option<&syntax::Expr>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "top-hitters");
        let count = self.constant(count, "top-hitters", Type::Long, env)?;
        let name = self.default_name(of, env).unwrap_or_else(|| "Column1".to_owned());
        let of = self.scalar(of, &row, env)?;
        if of.ty == Type::Dynamic {
            let message = "'top-hitters' operator: a value of type dynamic is not allowed";
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        }
        let (function, arguments, result, ty) = match by {
            None => ("count", Vec::new(), format!("approximate_count_{name}"), Type::Long),
            Some(by) => {
                let of = self.default_name(by, env).unwrap_or_default();
                let by = self.scalar(by, &row, env)?;
                let ty = if by.ty == Type::Int { Type::Long } else { by.ty };
                ("sum", vec![cast(by, ty)], format!("approximate_sum_{of}"), ty)
            }
        };
        let columns = vec![Column { name, ty: of.ty }, Column { name: result, ty }];
        let aggregate = Aggregate { function, arguments, columns: vec![columns[1].clone()] };
        let node = Node::Summarize { input, keys: vec![of], aggregates: vec![aggregate] };
        let summary = plan(columns.clone(), node);
        let keys = vec![SortKey { expr: column(1, ty), descending: true, nulls_first: false }];
        Ok(plan(columns, Node::Top { input: summary, count, keys }))
    }

    pub(super) fn reduce(
        &mut self,
        input: Plan,
        by: &syntax::Expr,
        options: &Settings,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let of = self.scalar(by, &Row::of(&columns, "reduce"), env)?;
        let of = cast(of, Type::String);
        let threshold = match setting(options, "threshold").map(str::parse) {
            None => 0.1,
            Some(Ok(threshold)) => threshold,
            Some(Err(_)) => {
                let message = "'reduce' operator: threshold is a number between 0 and 1";
                return self.fail(diagnostics::ARGUMENTS, span, message);
            }
        };
        let characters = setting(options, "characters").unwrap_or_default().to_owned();
        let source = setting(options, "kind") == Some("source");
        let mut result = if source { columns } else { Vec::new() };
        let mut names = Names::taken(&result);
        let made =
            [("Pattern", Type::String), ("Count", Type::Long), ("Representative", Type::String)];
        for (name, ty) in made {
            if source && name == "Count" {
                continue;
            }
            result.push(Column { name: names.give(Some(name)), ty });
        }
        Ok(plan(result, Node::Reduce { input, of, threshold, characters, source }))
    }

    /// `search`: rows of every table in which some column has the term; `$table` comes first.
    pub(super) fn search(
        &mut self,
        input: Option<Plan>,
        options: &Settings,
        tables: &[syntax::Expr],
        predicate: &syntax::Expr,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let cased = matches!(setting(options, "kind"), Some("case_sensitive"));
        let piped = input.is_some();
        let inputs = self.searched(input, tables, span, env)?;
        let mut named = Vec::new();
        names_in(predicate, &mut named);
        let mut elsewhere: Vec<Column> = Vec::new();
        for column in inputs.iter().flat_map(|(_, table)| &table.columns) {
            let known = elsewhere.iter().any(|other| other.name == column.name);
            if !known && named.contains(&column.name) {
                elsewhere.push(column.clone());
            }
        }
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (name, table) in inputs {
            let columns = table.columns.clone();
            // A table without any column that the predicate names has no such rows.
            let named = columns.iter().any(|own| elsewhere.iter().any(|c| c.name == own.name));
            if !(named || elsewhere.is_empty()) {
                continue;
            }
            let lacks = |c: &&Column| !columns.iter().any(|own| own.name == c.name);
            let lacking: Vec<Column> = elsewhere.iter().filter(lacks).cloned().collect();
            // A table without a column that the predicate names has no value there.
            let row = |c: &Column| null(c.ty);
            let absent: Vec<Expr> = lacking.iter().map(row).collect();
            let wide: Vec<Column> = columns.iter().cloned().chain(lacking).collect();
            let known = self.diagnostics.len();
            match self.searches(predicate, &Row::of(&wide, "search"), cased, env) {
                Ok(mut predicate) => {
                    super::join::substitute(&mut predicate, columns.len(), &absent);
                    kept.push((name, plan(columns, Node::Filter { input: table, predicate })));
                }
                // A table whose column of that name has another type has no such rows.
                Err(_) => refused = self.diagnostics.split_off(known),
            }
        }
        if kept.is_empty() {
            self.diagnostics.extend(refused);
            return Err(super::Failed);
        }
        let source = if piped { None } else { Some("$table") };
        Ok(super::join::unite(kept, false, source))
    }

    /// The tables of `search` and `find`.
    fn searched(
        &mut self,
        input: Option<Plan>,
        tables: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Vec<(String, Plan)>> {
        let mut inputs: Vec<(String, Plan)> = Vec::new();
        if let Some(input) = input {
            let name = match &*input.node {
                Node::Table { name } => name.clone(),
                _ => "union_arg0".to_owned(),
            };
            inputs.push((name, input));
        } else if tables.is_empty() {
            inputs = self.tables_like("*", env);
        }
        for table in tables {
            match &table.kind {
                Syntax::Wildcard(pattern) => inputs.extend(self.tables_like(pattern, env)),
                Syntax::Star => inputs.extend(self.tables_like("*", env)),
                _ => {
                    let name = table.name().unwrap_or("union_arg").to_owned();
                    inputs.push((name, self.nested(span, |b| b.tabular(table, env, None))?));
                }
            }
        }
        Ok(inputs)
    }

    /// A search predicate: bare texts are looked for in every column, `column:term` in one.
    fn searches(
        &mut self,
        written: &syntax::Expr,
        row: &Row,
        cased: bool,
        env: &Env,
    ) -> Bind<Expr> {
        match &written.kind {
            Syntax::Star => Ok(literal(Value::Bool(true))),
            Syntax::Literal(Value::String(text)) => Ok(anywhere(row.columns, text, cased)),
            Syntax::Literal(value @ (Value::Long(_) | Value::Real(_) | Value::Guid(_))) => {
                Ok(anywhere(row.columns, &crate::plan_text::plain_text(value), cased))
            }
            Syntax::Chain { operator, operands } => {
                let mut bound = Vec::new();
                for operand in operands {
                    bound.push(self.searches(operand, row, cased, env)?);
                }
                Ok(call(Type::Bool, operator, bound))
            }
            Syntax::Call { function, arguments }
                if function.text == "not" && arguments.len() == 1 =>
            {
                let inner = self.searches(&arguments[0], row, cased, env)?;
                Ok(call(Type::Bool, "not", vec![inner]))
            }
            // `column:term` and `* has "term"`.
            Syntax::Binary { operator, left, right } if matches!(left.kind, Syntax::Star) => {
                let right = self.scalar(right, row, env)?;
                let mut any = Vec::new();
                for (at, c) in row.columns.iter().enumerate() {
                    if matches!(c.ty, Type::String | Type::Dynamic) {
                        let left = cast(column(at, c.ty), Type::String);
                        any.push(self.binary(operator, left, right.clone(), written.span)?);
                    }
                }
                Ok(some(any))
            }
            Syntax::Binary { operator: ":", left, right } => {
                let left = self.scalar(left, row, env)?;
                match &right.kind {
                    Syntax::Literal(Value::String(text)) => {
                        Ok(matched(cast(left, Type::String), text, cased))
                    }
                    _ => {
                        let right = self.scalar(right, row, env)?;
                        self.comparison("==", left, right, written.span)
                    }
                }
            }
            _ => self.condition(written, row, env),
        }
    }

    /// `find`: rows of several tables, with `source_`, the chosen columns and `pack_` of the rest.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn find(
        &mut self,
        options: &Settings,
        tables: &[syntax::Expr],
        predicate: &syntax::Expr,
        project: Option<&[syntax::Expr]>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let inputs = self.searched(None, tables, span, env)?;
        let mut kept: Vec<(String, Plan)> = Vec::new();
        for (name, table) in inputs {
            let known = self.diagnostics.len();
            let columns = table.columns.clone();
            match self.searches(predicate, &Row::of(&columns, "find"), false, env) {
                Ok(predicate) => {
                    kept.push((name, plan(columns, Node::Filter { input: table, predicate })));
                }
                Err(_) => self.diagnostics.truncate(known),
            }
        }
        if kept.is_empty() {
            let message = "'find' operator: no table has the columns that the predicate names";
            return self.fail(diagnostics::UNKNOWN_NAME, span, message);
        }
        let mut named = Vec::new();
        names_in(predicate, &mut named);
        let source = setting(options, "withsource").unwrap_or("source_");
        let mut inputs = Vec::new();
        for (name, table) in kept {
            let columns = table.columns.clone();
            let mut shown: Vec<Column> = Vec::new();
            let mut items = Vec::new();
            let mut pack = project.is_none();
            match project {
                Some(written) => {
                    for item in written {
                        match item.name() {
                            Some("pack_") => pack = true,
                            Some(name) => {
                                if let Some(at) = columns.iter().position(|c| c.name == name) {
                                    shown.push(columns[at].clone());
                                    items.push(column(at, columns[at].ty));
                                }
                            }
                            None => pack = true,
                        }
                    }
                }
                // Columns that the predicate names, in the table's order.
                None => {
                    for (at, c) in columns.iter().enumerate() {
                        if named.contains(&c.name) {
                            shown.push(c.clone());
                            items.push(column(at, c.ty));
                        }
                    }
                }
            }
            if pack {
                let mut packed = Vec::new();
                for (at, c) in columns.iter().enumerate() {
                    if !shown.contains(c) {
                        packed.push(literal(Value::String(c.name.as_str().into())));
                        packed.push(column(at, c.ty));
                    }
                }
                shown.push(Column { name: "pack_".to_owned(), ty: Type::Dynamic });
                items.push(call(Type::Dynamic, "bag_pack", packed));
            }
            inputs.push((name, plan(shown, Node::Project { input: table, items })));
        }
        let united = super::join::unite(inputs, false, Some(source));
        // `pack_` stands last, whatever table came first.
        let Some(at) = united.columns.iter().position(|c| c.name == "pack_") else {
            return Ok(united);
        };
        let order = (0..united.columns.len()).filter(|i| *i != at).chain([at]);
        let chosen = order.map(|i| (united.columns[i].name.clone(), i)).collect();
        Ok(self.pick(united, chosen))
    }
}

/// Names that an expression reads.
fn names_in(written: &syntax::Expr, names: &mut Vec<String>) {
    if let Some(name) = written.name() {
        names.push(name.to_owned());
    }
    let mut written = written.clone();
    for child in super::summarize::children(&mut written) {
        names_in(child, names);
    }
}

/// Whether any column has the term, whatever its type.
fn anywhere(columns: &[Column], text: &str, cased: bool) -> Expr {
    let tests = columns.iter().enumerate();
    some(tests.map(|(at, c)| matched(cast(column(at, c.ty), Type::String), text, cased)).collect())
}

/// A term with `*` at its ends: `*x*` contains, `x*` begins a term, `*x` ends one.
fn matched(value: Expr, text: &str, cased: bool) -> Expr {
    let (before, after) = (text.starts_with('*'), text.len() > 1 && text.ends_with('*'));
    let core = text.trim_matches('*');
    if core.contains('*') {
        let parts: Vec<String> = text.split('*').map(regex_quote).collect();
        let flag = if cased { "" } else { "(?i)" };
        let pattern = format!("(?s){flag}{}", parts.join(".*"));
        let pattern = literal(Value::String(pattern.into()));
        return call(Type::Bool, "matches regex", vec![value, pattern]);
    }
    let operator = match (before, after, cased) {
        (true, true, false) => "contains",
        (true, true, true) => "contains_cs",
        (false, true, false) => "hasprefix",
        (false, true, true) => "hasprefix_cs",
        (true, false, false) => "hassuffix",
        (true, false, true) => "hassuffix_cs",
        (false, false, false) => "has",
        (false, false, true) => "has_cs",
    };
    call(Type::Bool, operator, vec![value, literal(Value::String(core.into()))])
}

fn regex_quote(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn some(mut tests: Vec<Expr>) -> Expr {
    match tests.len() {
        0 => literal(Value::Bool(false)),
        1 => tests.remove(0),
        _ => call(Type::Bool, "or", tests),
    }
}

/// `fork` and `facet` as plans of their own over one shared input.
pub(super) fn unfold(batch: Plan, shared: &mut u32) -> Vec<Plan> {
    let Node::Batch { input, branches } = *batch.node else { return vec![batch] };
    *shared += 1;
    let columns = input.columns.clone();
    let source = plan(columns, Node::Shared { id: *shared, plan: Arc::new(input) });
    branches.into_iter().map(|(_, branch)| over(branch, &source)).collect()
}

/// A sub-query with its context put in.
fn over(mut branch: Plan, source: &Plan) -> Plan {
    if matches!(*branch.node, Node::Context) {
        return source.clone();
    }
    for input in branch.sources_mut() {
        let taken = std::mem::replace(input, plan(Vec::new(), Node::Context));
        *input = over(taken, source);
    }
    branch
}

/// `s1.column` inside `scan`.
pub(super) fn state(row: &Row, step: &str, name: &str) -> Option<Option<Expr>> {
    let scan = row.scan?;
    let step = scan.names.iter().position(|known| *known == step)?;
    let found = scan.columns.iter().position(|c| c.name == name);
    Some(found.map(|at| expr(scan.columns[at].ty, ExprKind::ScanState { step, column: at })))
}
