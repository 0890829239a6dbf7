//! `mv-expand`, and `mv-apply`, which begins with it: values of arrays and bags as rows.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Settings};
use crate::types::Type;

/// What `mv-expand` and `mv-apply` have in common.
struct Expansion {
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
}
