//! Rows that the query writes itself: `datatable`, `print`, `range`.

use super::names::Names;
use super::{Bind, Binder, Env, Row, call, cast, literal, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::{Type, Value};

impl Binder<'_> {
    pub(super) fn data_table(
        &mut self,
        columns: &[(Name, Type)],
        values: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        if columns.is_empty() || !values.len().is_multiple_of(columns.len()) {
            let message = format!(
                "'datatable': {} values do not fill rows of {} columns",
                values.len(),
                columns.len()
            );
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        let mut literals = Vec::with_capacity(values.len());
        let mut constant = true;
        for (at, value) in values.iter().enumerate() {
            let bound = self.scalar(value, &Row::none("datatable"), env)?;
            let bound = literal_as(bound, columns[at % columns.len()].1);
            constant &= matches!(bound.kind, ExprKind::Literal(_));
            literals.push(bound);
        }
        let columns = columns_of(columns);
        if constant {
            let values = literals.into_iter().map(|value| match value.kind {
                ExprKind::Literal(value) => value,
                _ => Value::Null(value.ty),
            });
            let values: Vec<Value> = values.collect();
            let rows = values.chunks(columns.len()).map(<[Value]>::to_vec).collect();
            return Ok(plan(columns, Node::Values { rows }));
        }
        let inputs = literals
            .chunks(columns.len())
            .map(|items| plan(columns.clone(), Node::Print { items: items.to_vec() }))
            .collect();
        Ok(plan(columns, Node::Union { inputs }))
    }

    pub(super) fn print(&mut self, written: &[syntax::Expr], env: &Env) -> Bind<Plan> {
        let row = Row::none("print");
        let mut names = Names::default();
        let (mut columns, mut items) = (Vec::new(), Vec::new());
        for (at, item) in written.iter().enumerate() {
            for (name, value) in self.item(item, &row, env)? {
                let explicit = matches!(item.kind, Syntax::Named { .. });
                let name = name.filter(|_| explicit).unwrap_or_else(|| format!("print_{at}"));
                columns.push(Column { name: names.give(Some(&name)), ty: value.ty });
                items.push(value);
            }
        }
        Ok(plan(columns, Node::Print { items }))
    }

    pub(super) fn range(
        &mut self,
        name: &Name,
        written: [&syntax::Expr; 3],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let row = Row::none("range");
        let mut bounds = Vec::new();
        for bound in written {
            bounds.push(self.scalar(bound, &row, env)?);
        }
        let ty = match (bounds[0].ty, bounds[1].ty, bounds[2].ty) {
            (Type::DateTime, _, Type::TimeSpan) => Type::DateTime,
            (Type::TimeSpan, ..) => Type::TimeSpan,
            (a, b, c) if a.is_numeric() && b.is_numeric() && c.is_numeric() => {
                if [a, b, c].contains(&Type::Real) { Type::Real } else { Type::Long }
            }
            (a, b, c) => {
                let message = format!("'range' operator: bounds of types {a}, {b} and step {c}");
                return self.fail(diagnostics::TYPE_MISMATCH, span, message);
            }
        };
        let step_type = if ty == Type::DateTime { Type::TimeSpan } else { ty };
        let mut bounds = bounds.into_iter();
        let (Some(from), Some(to), Some(step)) = (bounds.next(), bounds.next(), bounds.next())
        else {
            return Err(super::Failed);
        };
        let columns = vec![Column { name: name.text.clone(), ty }];
        let (from, to, step) = (cast(from, ty), cast(to, ty), cast(step, step_type));
        Ok(plan(columns, Node::Range { from, to, step }))
    }
}

pub(super) fn columns_of(written: &[(Name, Type)]) -> Vec<Column> {
    written.iter().map(|(name, ty)| Column { name: name.text.clone(), ty: *ty }).collect()
}

/// A `datatable`'s value in its column's type, folded where it is plain.
fn literal_as(value: Expr, ty: Type) -> Expr {
    match (&value.kind, ty) {
        (ExprKind::Literal(found), _) if found.ty() == ty => value,
        (ExprKind::Literal(Value::String(text)), Type::DateTime | Type::TimeSpan | Type::Guid) => {
            let read = crate::literals::value(ty, text);
            literal(read.unwrap_or(Value::Null(ty)))
        }
        (ExprKind::Literal(Value::Int(number)), Type::Real) => {
            literal(Value::Real((*number).into()))
        }
        (ExprKind::Literal(Value::Bool(flag)), Type::Long) => literal(Value::Long((*flag).into())),
        (ExprKind::Literal(Value::Bool(flag)), Type::Int) => literal(Value::Int((*flag).into())),
        (ExprKind::Literal(Value::Long(number)), Type::Bool) => literal(Value::Bool(*number != 0)),
        (ExprKind::Literal(scalar), Type::Dynamic) => {
            literal(Value::Dynamic(crate::literals::json(scalar).into()))
        }
        (ExprKind::Call { function: "-", arguments }, _)
            if arguments.len() == 1 && (ty.is_numeric() || ty == Type::TimeSpan) =>
        {
            call(ty, "-", vec![literal_as(arguments[0].clone(), ty)])
        }
        _ => cast(value, ty),
    }
}
