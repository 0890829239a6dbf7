//! Operators with a sub-query over rows that they hand in: `partition`, `fork`, `facet`.

use super::{Bind, Binder, Env, Row, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, Name};
use crate::types::Type;
use std::sync::Arc;

impl Binder<'_> {
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
