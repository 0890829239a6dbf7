//! `make-series`, `top-nested`: aggregates in a shape of their own.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, call, cast, literal, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, Settings};
use crate::types::{Type, Value};

impl Binder<'_> {
    /// A summary by keys and bins of the axis, which the engine lays out as arrays.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn make_series(
        &mut self,
        input: Plan,
        options: &Settings,
        aggregates: &[(syntax::Expr, Option<syntax::Expr>)],
        on: &syntax::Expr,
        bounds: [Option<&syntax::Expr>; 3],
        inclusive: bool,
        by: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "make-series");
        let axis_name = self.default_name(on, env).unwrap_or_else(|| "Column1".to_owned());
        let axis = self.scalar(on, &row, env)?;
        let ty = match axis.ty {
            Type::Int => Type::Long,
            ty => ty,
        };
        let step_type = if ty == Type::DateTime { Type::TimeSpan } else { ty };
        if !crate::functions::is_summable(ty) {
            let message = format!("'make-series' operator: an axis of type {ty} is not possible");
            return self.fail(diagnostics::TYPE_MISMATCH, on.span, message);
        }
        let axis = cast(axis, ty);
        let [from, to, step] = bounds;
        let Some(step) = step else {
            let message = "'make-series' operator: 'step' is missing";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let none = Row::none("make-series");
        let mut bound = |written: Option<&syntax::Expr>| {
            written.map(|written| Ok(cast(self.scalar(written, &none, env)?, ty))).transpose()
        };
        let (from, to) = (bound(from)?, bound(to)?);
        let step = cast(self.scalar(step, &none, env)?, step_type);
        let bin = match &from {
            Some(from) => call(ty, "bin_at", vec![axis.clone(), step.clone(), from.clone()]),
            None => call(ty, "bin", vec![axis.clone(), step.clone()]),
        };
        // Only rows within the bounds count.
        let mut within = vec![call(Type::Bool, "isnotnull", vec![axis.clone()])];
        if let Some(from) = &from {
            within.push(call(Type::Bool, ">=", vec![axis.clone(), from.clone()]));
        }
        if let Some(to) = &to {
            let last = if inclusive { "<=" } else { "<" };
            within.push(call(Type::Bool, last, vec![axis, to.clone()]));
        }
        let predicate = match within.len() {
            1 => within.remove(0),
            _ => call(Type::Bool, "and", within),
        };
        let filtered = plan(input_columns.clone(), Node::Filter { input, predicate });
        let mut keys = Vec::new();
        for key in by {
            let name = self.default_name(key, env);
            let value = self.scalar(key, &row, env)?;
            if value.ty == Type::Dynamic {
                let message = "'make-series' operator: a key of type dynamic is not allowed";
                return self.fail(diagnostics::TYPE_MISMATCH, key.span, message);
            }
            keys.push((name, value));
        }
        let count = keys.len();
        keys.push((Some(axis_name.clone()), bin));
        let written: Vec<&syntax::Expr> = aggregates.iter().map(|(item, _)| item).collect();
        let summary = self.summary(filtered, keys, &written, "make-series", &row, env)?;
        if summary.columns.len() != count + 1 + aggregates.len() {
            let message = "'make-series' operator: an aggregate with one result is expected";
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        let mut defaults = Vec::new();
        for (at, (_, default)) in aggregates.iter().enumerate() {
            let ty = summary.columns.get(count + 1 + at).map_or(Type::Long, |column| column.ty);
            defaults.push(match default {
                Some(default) => self.scalar(default, &none, env)?,
                None if ty.is_numeric() => cast(literal(Value::Long(0)), ty),
                None => literal(crate::plan_text::null_of(ty)),
            });
        }
        let mut names = Names::default();
        let mut columns = Vec::new();
        let kept = summary.columns.iter().enumerate();
        for (at, column) in kept.filter(|(at, _)| *at != count) {
            let ty = if at < count { column.ty } else { Type::Dynamic };
            columns.push(Column { name: names.give(Some(&column.name)), ty });
        }
        columns.push(Column { name: names.give(Some(&axis_name)), ty: Type::Dynamic });
        let nonempty = setting(options, "kind") == Some("nonempty");
        let node = Node::MakeSeries {
            input: summary,
            keys: count,
            defaults,
            from,
            to,
            inclusive,
            step,
            nonempty,
        };
        Ok(plan(columns, node))
    }

    pub(super) fn top_nested(
        &mut self,
        input: Plan,
        written: &[syntax::NestedLevel],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "top-nested");
        let mut names = Names::default();
        let (mut columns, mut levels) = (Vec::new(), Vec::new());
        for level in written {
            let count = level.count.as_ref();
            let count =
                count.map(|c| self.constant(c, "top-nested", Type::Long, env)).transpose()?;
            let name = self.default_name(&level.of, env).unwrap_or_else(|| "Column1".to_owned());
            let of = self.scalar(&level.of, &row, env)?;
            if of.ty == Type::Dynamic {
                let message = "'top-nested' operator: a value of type dynamic is not allowed";
                return self.fail(diagnostics::TYPE_MISMATCH, level.of.span, message);
            }
            let others = match &level.others {
                Some(others) => Some(self.constant(others, "top-nested", of.ty, env)?),
                None => None,
            };
            let (aggregate, own) = self.single_aggregate(&level.by, &row, env)?;
            let Some(result) = aggregate.columns.first().cloned() else {
                let message = "'top-nested' operator: one aggregate is expected";
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            };
            let aggregated = own.unwrap_or_else(|| format!("aggregated_{name}"));
            columns.push(Column { name: names.give(Some(&name)), ty: of.ty });
            columns.push(Column { name: names.give(Some(&aggregated)), ty: result.ty });
            let ascending = level.descending == Some(false);
            levels.push(TopNestedLevel { count, of, others, by: aggregate, ascending });
        }
        Ok(plan(columns, Node::TopNested { input, levels }))
    }
}
