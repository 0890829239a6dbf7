//! `summarize`: keys, aggregates, and expressions over aggregates.

use super::calls::result_type;
use super::names::Names;
use super::{Bind, Binder, Env, Failed, Row, column, plan};
use crate::aggregates;
use crate::diagnostics::{self, Span};
use crate::functions::Returns;
use crate::plan::{Aggregate, Column, Expr, ExprKind, Node, Plan};
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::{Type, Value};

/// An aggregate call found inside an expression stands as a name that no query can write.
const PLACE: &str = "\u{1}";

/// A result of a `summarize` item: a wished name and where the value comes from.
struct Item {
    name: Option<String>,
    value: Expr,
}

impl Binder<'_> {
    pub(super) fn summarize(
        &mut self,
        input: Plan,
        written: &[syntax::Expr],
        by: Option<&[syntax::Expr]>,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "summarize");
        let mut keys = Vec::new();
        let mut failed = false;
        for key in by.unwrap_or_default() {
            match self.item(key, &row, env) {
                Ok(values) => {
                    for (name, value) in values {
                        if value.ty == Type::Dynamic {
                            let message = "'summarize' operator: a key of type dynamic is not \
                                           allowed; convert it, for example with tostring()";
                            return self.fail(diagnostics::TYPE_MISMATCH, key.span, message);
                        }
                        keys.push((name, value));
                    }
                }
                Err(Failed) => failed = true,
            }
        }
        let written: Vec<&syntax::Expr> = written.iter().collect();
        let made = self.summary(input, keys, &written, "summarize", &row, env);
        if failed { Err(Failed) } else { made }
    }

    /// Keys, then the written aggregates, over the rows of `input`.
    pub(super) fn summary(
        &mut self,
        input: Plan,
        keys: Vec<(Option<String>, Expr)>,
        written: &[&syntax::Expr],
        operator: &str,
        row: &Row,
        env: &Env,
    ) -> Bind<Plan> {
        let mut names = Names::default();
        let mut columns = Vec::new();
        let mut values = Vec::new();
        for (name, value) in keys {
            columns.push(Column { name: names.give(name.as_deref()), ty: value.ty });
            values.push(value);
        }
        let mut failed = false;
        let mut found = Vec::new();
        let mut items = Vec::new();
        for item in written {
            match self.aggregate_item(item, operator, row, env, values.len(), &columns, &mut found)
            {
                Ok(made) => items.extend(made),
                Err(Failed) => failed = true,
            }
        }
        if failed {
            return Err(Failed);
        }
        Ok(self.grouped(input, values, columns, names, found, items))
    }

    /// One aggregate call with its written name: `n = max(x)`.
    pub(super) fn single_aggregate(
        &mut self,
        written: &syntax::Expr,
        row: &Row,
        env: &Env,
    ) -> Bind<(Aggregate, Option<String>)> {
        let (name, value) = match &written.kind {
            Syntax::Named { names, value } => {
                (names.first().map(|name| name.text.clone()), &**value)
            }
            _ => (None, written),
        };
        let Syntax::Call { function, arguments } = &value.kind else {
            let message = format!("'{}' operator: an aggregate is expected", row.operator);
            return self.fail(diagnostics::NOT_ALLOWED, written.span, message);
        };
        let aggregate = self.aggregate(&function.text, arguments, function.span, row, env, &[])?;
        Ok((aggregate, name))
    }

    /// The Summarize node, and a projection over it that gives names and computes.
    fn grouped(
        &mut self,
        input: Plan,
        keys: Vec<Expr>,
        key_columns: Vec<Column>,
        mut names: Names,
        aggregates: Vec<Aggregate>,
        items: Vec<Item>,
    ) -> Plan {
        let mut raw = key_columns.clone();
        let mut inner = Names::taken(&key_columns);
        for aggregate in &aggregates {
            for column in &aggregate.columns {
                let name = inner.give(Some(&column.name));
                raw.push(Column { name, ty: column.ty });
            }
        }
        let mut columns = key_columns;
        let mut values: Vec<Expr> =
            columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        for Item { name, value } in items {
            columns.push(Column { name: names.give(name.as_deref()), ty: value.ty });
            values.push(value);
        }
        // Where every result is an aggregate in its place, the names go to the node itself.
        let plain = values.len() == raw.len()
            && values
                .iter()
                .enumerate()
                .all(|(at, v)| matches!(v.kind, ExprKind::Column(c) if c == at));
        let node = Node::Summarize { input, keys, aggregates };
        if plain {
            return plan(columns, node);
        }
        let summarized = plan(raw, node);
        plan(columns, Node::Project { input: summarized, items: values })
    }

    /// One written item. `first` counts the keys; aggregates found are appended to `found`.
    #[allow(clippy::too_many_arguments)]
    fn aggregate_item(
        &mut self,
        written: &syntax::Expr,
        operator: &str,
        row: &Row,
        env: &Env,
        first: usize,
        keys: &[Column],
        found: &mut Vec<Aggregate>,
    ) -> Bind<Vec<Item>> {
        let (names, value): (&[Name], _) = match &written.kind {
            Syntax::Named { names, value } => (names, &**value),
            _ => (&[], written),
        };
        if let Syntax::Call { function, arguments } = &value.kind
            && aggregates::find(&function.text).is_some()
            && env.find(&function.text).is_none()
        {
            let key_names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let aggregate =
                self.aggregate(&function.text, arguments, function.span, row, env, &key_names)?;
            let start = first + found.iter().map(|a: &Aggregate| a.columns.len()).sum::<usize>();
            let own = aggregate.columns.clone();
            found.push(aggregate);
            if names.len() > own.len() {
                let message = format!("{} names for {} results", names.len(), own.len());
                return self.fail(diagnostics::ARGUMENTS, written.span, message);
            }
            let default = self.default_name(value, env);
            let mut items = Vec::new();
            for (index, result) in own.into_iter().enumerate() {
                let name = match names.get(index) {
                    Some(name) => Some(name.text.clone()),
                    None if index == 0 && !result.name.contains(PLACE) => {
                        if result.name.is_empty() { default.clone() } else { Some(result.name) }
                    }
                    None => Some(result.name).filter(|name| !name.is_empty()),
                };
                items.push(Item { name, value: column(start + index, result.ty) });
            }
            return Ok(items);
        }
        // Aggregates inside become columns behind the keys; the rest is bound over those.
        let mut rewritten = value.clone();
        let start = found.len();
        self.take_out(&mut rewritten, row, env, found)?;
        if found.len() == start && !is_constant(value) {
            let message = format!("'{operator}' operator: an aggregate is expected");
            return self.fail(diagnostics::NOT_ALLOWED, written.span, message);
        }
        let mut over: Vec<Column> = keys.to_vec();
        for (index, aggregate) in found.iter().enumerate() {
            for (part, result) in aggregate.columns.iter().enumerate() {
                let name = format!("{PLACE}{index}.{part}");
                over.push(Column { name, ty: result.ty });
            }
        }
        let bound = self.scalar(&rewritten, &Row::of(&over, operator), env)?;
        let name = match names.first() {
            Some(name) => Some(name.text.clone()),
            None => self.default_name(value, env),
        };
        Ok(vec![Item { name, value: bound }])
    }

    /// Replaces aggregate calls by names of their results.
    fn take_out(
        &mut self,
        written: &mut syntax::Expr,
        row: &Row,
        env: &Env,
        found: &mut Vec<Aggregate>,
    ) -> Bind<()> {
        if let Syntax::Call { function, arguments } = &written.kind
            && aggregates::find(&function.text).is_some()
            && crate::functions::find(&function.text).is_none()
        {
            let aggregate =
                self.aggregate(&function.text, arguments, function.span, row, env, &[])?;
            found.push(aggregate);
            written.kind = Syntax::Name(format!("{PLACE}{}.0", found.len() - 1));
            return Ok(());
        }
        for child in children(written) {
            self.take_out(child, row, env, found)?;
        }
        Ok(())
    }

    /// An aggregate call. Results without a name of their own have an empty one.
    pub(super) fn aggregate(
        &mut self,
        name: &str,
        written: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
        keys: &[&str],
    ) -> Bind<Aggregate> {
        let Some(function) = aggregates::find(name) else {
            let message = format!("'{name}' is not an aggregate");
            return self.fail(diagnostics::UNKNOWN_NAME, span, message);
        };
        let mut arguments = Vec::new();
        let mut names = Vec::new();
        for argument in written {
            if matches!(argument.kind, Syntax::Star | Syntax::Wildcard(_)) {
                for index in self.matching(argument, row.columns)? {
                    let Column { name, ty } = &row.columns[index];
                    // `arg_max(t, *)`: the first and the keys are there already.
                    if keys.contains(&name.as_str()) || names.first() == Some(&Some(name.clone())) {
                        continue;
                    }
                    arguments.push(column(index, *ty));
                    names.push(Some(name.clone()));
                }
                continue;
            }
            arguments.push(self.scalar(argument, row, env)?);
            names.push(self.default_name(argument, env));
        }
        if function.name.starts_with("percentile")
            && let Some(value) = arguments.first()
            && !crate::functions::is_summable(value.ty)
            && value.ty != Type::Dynamic
        {
            let message =
                format!("{name}(): a number, datetime or timespan is expected, not {}", value.ty);
            return self.fail(diagnostics::TYPE_MISMATCH, written[0].span, message);
        }
        // Percentiles of several ranks and arg_max of several columns have several results.
        match function.name {
            "arg_max" | "arg_min" | "take_any"
                if function.name != "take_any" || !names.is_empty() =>
            {
                if arguments.is_empty() {
                    let message = format!("{name}(): the number of arguments does not fit");
                    return self.fail(diagnostics::ARGUMENTS, span, message);
                }
                let prefix = match name {
                    "any" if names.len() == 1 => "any_",
                    "argmax" => "max_",
                    "argmin" => "min_",
                    _ => "",
                };
                let columns = (names.iter().zip(&arguments))
                    .map(|(name, argument)| Column {
                        name: name.as_ref().map_or(String::new(), |name| format!("{prefix}{name}")),
                        ty: argument.ty,
                    })
                    .collect();
                return Ok(Aggregate { function: function.name, arguments, columns });
            }
            "percentile" | "percentiles" | "percentilew" | "percentilesw" => {
                let fixed = if function.name.contains('w') { 2 } else { 1 };
                if arguments.len() <= fixed {
                    let message = format!("{name}(): the number of arguments does not fit");
                    return self.fail(diagnostics::ARGUMENTS, span, message);
                }
                let ty = arguments.first().map_or(Type::Real, |argument| match argument.ty {
                    Type::Int => Type::Long,
                    Type::Dynamic => Type::Real,
                    ty => ty,
                });
                let first = names.first().cloned().flatten().unwrap_or_default();
                let ranks = arguments.iter().skip(fixed).map(rank_text).collect::<Vec<_>>();
                let columns = (ranks.into_iter())
                    .map(|rank| Column { name: format!("percentile_{first}_{rank}"), ty })
                    .collect();
                return Ok(Aggregate { function: function.name, arguments, columns });
            }
            _ => {}
        }
        let (signature, arguments) = self.convert(function, arguments, None, span)?;
        let ty = match &signature.returns {
            Returns::Custom => Type::Dynamic,
            _ => result_type(signature, &arguments, None),
        };
        let columns = vec![Column { name: String::new(), ty }];
        Ok(Aggregate { function: function.name, arguments, columns })
    }
}

fn rank_text(rank: &Expr) -> String {
    match &rank.kind {
        ExprKind::Literal(Value::Long(rank)) => rank.to_string(),
        ExprKind::Literal(Value::Real(rank)) => rank.to_string().replace('.', "_"),
        _ => String::new(),
    }
}

fn is_constant(written: &syntax::Expr) -> bool {
    match &written.kind {
        Syntax::Sign { operand, .. } => is_constant(operand),
        kind => matches!(kind, Syntax::Literal(_)),
    }
}

/// The expressions directly inside one.
pub(super) fn children(written: &mut syntax::Expr) -> Vec<&mut syntax::Expr> {
    match &mut written.kind {
        Syntax::Call { arguments, .. } => arguments.iter_mut().collect(),
        Syntax::Member { base, .. } => vec![base],
        Syntax::Index { base, index } => vec![base, index],
        Syntax::Sign { operand, .. } => vec![operand],
        Syntax::Binary { left, right, .. } => vec![left, right],
        Syntax::Chain { operands, .. } => operands.iter_mut().collect(),
        Syntax::In { value, list, .. } => {
            let mut all = vec![&mut **value];
            all.extend(list.iter_mut());
            all
        }
        Syntax::Between { value, from, to, .. } => vec![value, from, to],
        Syntax::Named { value, .. } => vec![value],
        _ => Vec::new(),
    }
}
