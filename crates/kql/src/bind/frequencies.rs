//! What occurs most: values (`top-hitters`), and the patterns of texts (`reduce`).

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, cast, column, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, Settings};
use crate::types::Type;

impl Binder<'_> {
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
}
