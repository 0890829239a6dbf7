//! Scalar expressions.

use super::{Bind, Binder, Binding, Bound, Env, Failed, Row, call, cast, column, expr, literal};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::functions::{self, Returns, common_type};
use crate::plan::{Column, Expr, ExprKind, Node};
use crate::syntax::{self, ExprKind as Syntax};
use crate::types::{Type, Value};
use std::sync::Arc;

/// Operators between two texts.
const TEXT_OPERATORS: &[&str] = &["has", "contains", "startswith", "endswith", "matches"];

impl Binder<'_> {
    /// One value; of a function with several results it is the first.
    pub(super) fn scalar(&mut self, written: &syntax::Expr, row: &Row, env: &Env) -> Bind<Expr> {
        let bound = self.whole(written, row, env)?;
        if let ExprKind::Call { function, .. } = &bound.kind
            && let Some(function) = functions::find(function)
        {
            let ty = match &function.signatures[0].returns {
                Returns::Columns(columns) => columns[0].1,
                Returns::Sorted => Type::Dynamic,
                _ => return Ok(bound),
            };
            let (base, key) = (Box::new(bound), Box::new(literal(Value::Long(0))));
            return Ok(cast(expr(Type::Dynamic, ExprKind::Member { base, key }), ty));
        }
        Ok(bound)
    }

    /// An expression; a call with several results is an array of them.
    pub(super) fn whole(&mut self, written: &syntax::Expr, row: &Row, env: &Env) -> Bind<Expr> {
        match &written.kind {
            Syntax::Literal(value) => Ok(literal(value.clone())),
            Syntax::Name(name) => self.name(name, written.span, row, env),
            Syntax::Named { value, .. } => self.scalar(value, row, env),
            Syntax::Call { function, arguments } => self.nested(written.span, |binder| {
                binder.call(&function.text, function.span, arguments, row, env)
            }),
            Syntax::Member { base, name } => self.member(base, name, row, env),
            Syntax::Index { base, index } => {
                if let Syntax::Call { function, .. } = &index.kind
                    && index.span.start == base.span.start
                {
                    let what = format!("'{}' of another database", function.text);
                    return self.unsupported(written.span, &what);
                }
                let base = self.scalar(base, row, env)?;
                let key = self.scalar(index, row, env)?;
                self.element(base, key, written.span)
            }
            Syntax::Sign { minus, operand } => {
                let span = operand.span;
                let operand = self.scalar(operand, row, env)?;
                let operand = match operand.ty {
                    Type::Dynamic => cast(operand, Type::Real),
                    _ => operand,
                };
                if !operand.ty.is_numeric() && operand.ty != Type::TimeSpan {
                    let message = format!("a sign needs a number or timespan, not {}", operand.ty);
                    return self.fail(diagnostics::TYPE_MISMATCH, span, message);
                }
                let ty = if operand.ty == Type::Int { Type::Long } else { operand.ty };
                Ok(if *minus { call(ty, "-", vec![cast(operand, ty)]) } else { operand })
            }
            Syntax::Binary { operator, left, right } => {
                let bound_left = self.scalar(left, row, env);
                let bound_right = self.scalar(right, row, env);
                self.binary(operator, bound_left?, bound_right?, written.span)
            }
            Syntax::Chain { operator, operands } => {
                let mut bound = Vec::with_capacity(operands.len());
                let mut failed = false;
                for operand in operands {
                    match self.condition(operand, row, env) {
                        Ok(operand) => bound.push(operand),
                        Err(Failed) => failed = true,
                    }
                }
                if failed { Err(Failed) } else { Ok(call(Type::Bool, operator, bound)) }
            }
            Syntax::In { operator, value, list } => self.member_of(operator, value, list, row, env),
            Syntax::Between { negated, value, from, to } => {
                self.between(*negated, [value, from, to], row, env)
            }
            Syntax::TypeOf(_) => self.not_here(written.span, "typeof(…)"),
            Syntax::Star | Syntax::Wildcard(_) => self.not_here(written.span, "'*'"),
            Syntax::Pipe { .. }
            | Syntax::DataTable { .. }
            | Syntax::ExternalData { .. }
            | Syntax::Source(_) => self.not_here(written.span, "a tabular expression"),
        }
    }

    fn not_here<T>(&mut self, span: Span, what: &str) -> Bind<T> {
        let message = format!("{what} is not allowed here; a scalar expression is expected");
        self.fail(diagnostics::NOT_ALLOWED, span, message)
    }

    /// A scalar of type bool; numbers and dynamics are converted.
    pub(super) fn condition(&mut self, written: &syntax::Expr, row: &Row, env: &Env) -> Bind<Expr> {
        let condition = self.scalar(written, row, env)?;
        match condition.ty {
            Type::Bool => Ok(condition),
            Type::Dynamic | Type::Int | Type::Long | Type::Real => Ok(cast(condition, Type::Bool)),
            other => {
                let message = format!("a condition of type bool is expected, not {other}");
                self.fail(diagnostics::TYPE_MISMATCH, written.span, message)
            }
        }
    }

    fn name(&mut self, name: &str, span: Span, row: &Row, env: &Env) -> Bind<Expr> {
        if let Some(index) = row.find(name) {
            return Ok(column(index, row.columns[index].ty));
        }
        match env.find(name) {
            Some(Binding::Scalar(value)) => return Ok(value.clone()),
            Some(Binding::Table(_)) => {
                let message = format!("'{name}' is a table; a scalar is expected");
                return self.fail(diagnostics::TYPE_MISMATCH, span, message);
            }
            Some(Binding::Function(..)) => {
                return self.call(name, span, &[], row, env);
            }
            None => {}
        }
        if self.plugins > 0 && !row.columns.is_empty() {
            // A plugin before may give the column when there are rows.
            let wanted = (self.plugins - 1, name.to_owned());
            if !self.inferred.contains(&wanted) {
                if !self.missing.contains(&wanted) {
                    self.missing.push(wanted);
                }
                return Ok(super::null(Type::Dynamic));
            }
        }
        let message = format!(
            "'{}' operator: Failed to resolve scalar expression named '{name}'",
            row.operator
        );
        let known = row.columns.iter().map(|column| column.name.as_str()).chain(env.names());
        let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, span, message);
        let diagnostic = diagnostic.suggest(name, known);
        self.diagnostics.push(diagnostic);
        Err(Failed)
    }

    fn member(
        &mut self,
        base: &syntax::Expr,
        name: &syntax::Name,
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        if let (Some(left), Some(side @ ("$left" | "$right"))) = (row.left, base.name()) {
            let (from, to) = if side == "$left" { (0, left) } else { (left, row.columns.len()) };
            let columns = &row.columns[from..to];
            return match columns.iter().position(|column| column.name == name.text) {
                Some(at) => Ok(column(from + at, columns[at].ty)),
                None => {
                    let message = format!(
                        "'{}' operator: Failed to resolve column named '{}' on the {} side",
                        row.operator,
                        name.text,
                        side.trim_start_matches('$')
                    );
                    let known = columns.iter().map(|column| column.name.as_str());
                    let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, name.span, message)
                        .suggest(&name.text, known);
                    self.diagnostics.push(diagnostic);
                    Err(Failed)
                }
            };
        }
        if let Some(step) = base.name()
            && let Some(found) = super::scan::state(row, step, &name.text)
        {
            let Some(found) = found else {
                let message =
                    format!("'scan' operator: the step '{step}' has no column '{}'", name.text);
                return self.fail(diagnostics::UNKNOWN_NAME, name.span, message);
            };
            return Ok(found);
        }
        let bound = self.scalar(base, row, env)?;
        self.element(bound, literal(Value::String(name.text.as_str().into())), name.span)
    }

    fn element(&mut self, base: Expr, key: Expr, span: Span) -> Bind<Expr> {
        let base = match base.ty {
            Type::Dynamic => base,
            // Older queries take the path of a text column that holds JSON.
            Type::String => call(Type::Dynamic, "parse_json", vec![base]),
            other => {
                let message = format!("a path needs a dynamic value, not {other}");
                return self.fail(diagnostics::TYPE_MISMATCH, span, message);
            }
        };
        let key = match key.ty {
            Type::String | Type::Long => key,
            Type::Int => cast(key, Type::Long),
            _ => cast(key, Type::String),
        };
        let member = ExprKind::Member { base: Box::new(base), key: Box::new(key) };
        Ok(expr(Type::Dynamic, member))
    }

    pub(super) fn binary(
        &mut self,
        operator: &'static str,
        left: Expr,
        right: Expr,
        span: Span,
    ) -> Bind<Expr> {
        let word = operator.trim_start_matches('!').split(['_', ' ']).next().unwrap_or_default();
        if TEXT_OPERATORS.iter().any(|name| word.starts_with(name)) {
            let text = |value| cast(value, Type::String);
            return Ok(call(Type::Bool, operator, vec![text(left), text(right)]));
        }
        match operator {
            "==" | "!=" | "<" | "<=" | ">" | ">=" | ":" => {
                let operator = if operator == ":" { "has" } else { operator };
                self.comparison(operator, left, right, span)
            }
            "=~" | "!~" => {
                let text = |value| cast(value, Type::String);
                Ok(call(Type::Bool, operator, vec![text(left), text(right)]))
            }
            _ => self.arithmetic(operator, left, right, span),
        }
    }

    /// Two values in their common type.
    pub(super) fn comparison(
        &mut self,
        operator: &'static str,
        left: Expr,
        right: Expr,
        span: Span,
    ) -> Bind<Expr> {
        if operator == "has" {
            let text = |value| cast(value, Type::String);
            return Ok(call(Type::Bool, operator, vec![text(left), text(right)]));
        }
        let Some(ty) = comparable(&left, &right) else {
            let message = format!(
                "Cannot compare values of types {} and {}. Try adding explicit casts",
                left.ty, right.ty
            );
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        };
        Ok(call(Type::Bool, operator, vec![cast(left, ty), cast(right, ty)]))
    }

    fn arithmetic(
        &mut self,
        operator: &'static str,
        left: Expr,
        right: Expr,
        span: Span,
    ) -> Bind<Expr> {
        use Type::{DateTime, Decimal, Dynamic, Long, Real, TimeSpan};
        let number = |value: Expr| match value.ty {
            Type::Int => cast(value, Long),
            _ => value,
        };
        let (mut left, mut right) = (number(left), number(right));
        // A dynamic takes the type that the other side needs.
        let wanted = |other: Type| match other {
            DateTime if operator == "-" => DateTime,
            DateTime | TimeSpan if matches!(operator, "+" | "-") => TimeSpan,
            Long | Decimal | TimeSpan => other,
            _ => Real,
        };
        if left.ty == Dynamic {
            left = cast(left, wanted(right.ty));
        }
        if right.ty == Dynamic {
            right = cast(right, wanted(left.ty));
        }
        let numeric = |ty: Type| matches!(ty, Long | Real | Decimal);
        let ty = match (left.ty, operator, right.ty) {
            (DateTime, "-", DateTime) => Some(TimeSpan),
            (DateTime, "+" | "-", TimeSpan) | (TimeSpan, "+", DateTime) => Some(DateTime),
            (TimeSpan, "+" | "-" | "%", TimeSpan) => Some(TimeSpan),
            (TimeSpan, "/", TimeSpan) => Some(Real),
            (TimeSpan, "*" | "/", other) if numeric(other) => {
                right = cast(right, Real);
                Some(TimeSpan)
            }
            (other, "*", TimeSpan) if numeric(other) => {
                left = cast(left, Real);
                Some(TimeSpan)
            }
            (a, _, b) if numeric(a) && numeric(b) => common_type(a, b),
            _ => None,
        };
        let Some(ty) = ty else {
            let message = format!(
                "The operator '{operator}' cannot be applied to values of types {} and {}",
                left.ty, right.ty
            );
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        };
        if numeric(ty) && numeric(left.ty) && numeric(right.ty) {
            (left, right) = (cast(left, ty), cast(right, ty));
        }
        if let Some(folded) = fold(operator, &left, &right) {
            return Ok(literal(folded));
        }
        Ok(call(ty, operator, vec![left, right]))
    }

    /// `in`, `has_any` and their like.
    fn member_of(
        &mut self,
        operator: &'static str,
        value: &syntax::Expr,
        list: &[syntax::Expr],
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let mut bound = self.scalar(value, row, env)?;
        let textual = operator.ends_with('~') || operator.starts_with("has");
        if textual {
            bound = cast(bound, Type::String);
        }
        if let [only] = list
            && self.is_tabular_here(only, row, env)
        {
            let mut plan = self.nested(only.span, |binder| binder.tabular(only, env, None))?;
            let Some(ty) = plan.columns.first().map(|column| column.ty) else {
                let message = format!("'{operator}': the rows have no column to look in");
                return self.fail(diagnostics::TYPE_MISMATCH, only.span, message);
            };
            if !textual {
                bound = match comparable_types(bound.ty, ty) {
                    Some(ty) => cast(bound, ty),
                    None => return self.incomparable(operator, bound.ty, ty, value.span),
                };
            }
            if ty == Type::Dynamic && bound.ty != Type::Dynamic {
                // Values are looked for as what they hold, not as JSON.
                let items = vec![cast(expr(ty, ExprKind::Column(0)), bound.ty)];
                let columns = vec![Column { ty: bound.ty, ..plan.columns[0].clone() }];
                plan = super::plan(columns, Node::Project { input: plan, items });
            }
            let value = Box::new(bound);
            let kind = ExprKind::InQuery { operator, value, plan: Arc::new(plan) };
            return Ok(expr(Type::Bool, kind));
        }
        let mut elements = Vec::with_capacity(list.len());
        for element in list {
            let span = element.span;
            let element = self.scalar(element, row, env)?;
            elements.extend(self.list_elements(element, span)?);
        }
        if let [only] = elements.as_slice()
            && only.ty == Type::Dynamic
        {
            // The list is known only when the query runs.
            return Ok(call(Type::Bool, operator, vec![bound, elements.remove(0)]));
        }
        let ty = if textual {
            Type::String
        } else {
            let others = elements.iter().filter(|element| element.ty != Type::Dynamic);
            let mut ty = bound.ty;
            for element in others {
                ty = match comparable_types(ty, element.ty) {
                    Some(ty) => ty,
                    None if matches!(element.kind, ExprKind::Literal(Value::String(_))) => ty,
                    None => return self.incomparable(operator, ty, element.ty, value.span),
                };
            }
            ty
        };
        let mut arguments = vec![cast(bound, ty)];
        arguments.extend(elements.into_iter().map(|element| cast(element, ty)));
        Ok(call(Type::Bool, operator, arguments))
    }

    fn incomparable<T>(&mut self, operator: &str, left: Type, right: Type, span: Span) -> Bind<T> {
        let message = format!("'{operator}': cannot compare values of types {left} and {right}");
        self.fail(diagnostics::TYPE_MISMATCH, span, message)
    }

    /// The elements of a literal array, and of arrays inside it; anything else is itself.
    fn list_elements(&mut self, element: Expr, span: Span) -> Bind<Vec<Expr>> {
        let ExprKind::Literal(Value::Dynamic(json)) = &element.kind else {
            return Ok(vec![element]);
        };
        match crate::json::elements(json) {
            Some(values) => Ok(values.into_iter().map(literal).collect()),
            None if json.starts_with('{') => {
                let message = "a list of values is expected, not a property bag";
                self.fail(diagnostics::TYPE_MISMATCH, span, message)
            }
            None => Ok(vec![element]),
        }
    }

    fn between(
        &mut self,
        negated: bool,
        written: [&syntax::Expr; 3],
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let [value, from, to] = written;
        let span = value.span;
        let value = self.scalar(value, row, env)?;
        let from = self.scalar(from, row, env)?;
        let mut to = self.scalar(to, row, env)?;
        if value.ty == Type::DateTime && to.ty == Type::TimeSpan {
            to = self.arithmetic("+", cast(from.clone(), Type::DateTime), to, span)?;
        }
        let bounds = comparable(&from, &to);
        let ty = bounds.and_then(|ty| comparable_types(value.ty, ty));
        let Some(ty) = ty else {
            let message = format!(
                "'between': cannot compare values of types {}, {} and {}",
                value.ty, from.ty, to.ty
            );
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        };
        let operator = if negated { "!between" } else { "between" };
        Ok(call(Type::Bool, operator, vec![cast(value, ty), cast(from, ty), cast(to, ty)]))
    }

    /// Whether an expression in a scalar's place is a sub-query after all: `x in (T)`.
    pub(super) fn is_tabular_here(&self, written: &syntax::Expr, row: &Row, env: &Env) -> bool {
        match &written.kind {
            Syntax::Name(name) if row.find(name).is_some() => false,
            _ => self.is_tabular(written, env),
        }
    }

    /// A scalar without columns, for places where a constant must stand.
    pub(super) fn constant(
        &mut self,
        written: &syntax::Expr,
        operator: &str,
        ty: Type,
        env: &Env,
    ) -> Bind<Expr> {
        let value = self.scalar(written, &Row::none(operator), env)?;
        Ok(cast(value, ty))
    }

    /// A function's body or a `let`'s value that must be a scalar.
    pub(super) fn expect_scalar(&mut self, bound: Bound, span: Span) -> Bind<Expr> {
        match bound {
            Bound::Scalar(value) => Ok(value),
            Bound::Plan(_) => {
                let message = "a scalar is expected here, not a table; use toscalar()";
                self.fail(diagnostics::TYPE_MISMATCH, span, message)
            }
        }
    }
}

/// The type in which two values are compared.
fn comparable(left: &Expr, right: &Expr) -> Option<Type> {
    comparable_types(left.ty, right.ty).or_else(|| {
        // A text written in the query is read as the other side's type.
        let is_text = |value: &Expr| matches!(value.kind, ExprKind::Literal(Value::String(_)));
        let readable = |ty| !matches!(ty, Type::String | Type::Dynamic);
        match (left.ty, right.ty) {
            (ty, Type::String) if is_text(right) && readable(ty) => Some(ty),
            (Type::String, ty) if is_text(left) && readable(ty) => Some(ty),
            // A number written in the query is compared as text with a column of text.
            (Type::String, Type::Long) if matches!(right.kind, ExprKind::Literal(_)) => {
                Some(Type::String)
            }
            // Kusto's binder lets a text column be compared with a number; what is no number differs.
            (Type::String, ty) | (ty, Type::String) if ty.is_numeric() => Some(ty),
            _ => None,
        }
    })
}

fn comparable_types(left: Type, right: Type) -> Option<Type> {
    match (left, right) {
        // Two dynamics are compared by what they hold.
        (Type::Dynamic, Type::Dynamic) => Some(Type::Dynamic),
        (Type::Dynamic, other) | (other, Type::Dynamic) => Some(other),
        (Type::Bool, Type::Int | Type::Long | Type::Real)
        | (Type::Int | Type::Long | Type::Real, Type::Bool) => Some(Type::Long),
        (Type::Guid, Type::String) | (Type::String, Type::Guid) => Some(Type::String),
        (left, right) => common_type(left, right),
    }
}

/// Sums of times that are known now: the engine prunes files by literals only.
fn fold(operator: &str, left: &Expr, right: &Expr) -> Option<Value> {
    let (ExprKind::Literal(left), ExprKind::Literal(right)) = (&left.kind, &right.kind) else {
        return None;
    };
    let time = |ticks: i64| {
        (0..=crate::types::MAX_DATETIME_TICKS).contains(&ticks).then_some(Value::DateTime(ticks))
    };
    match (left, operator, right) {
        (Value::DateTime(time_), "+", Value::TimeSpan(span))
        | (Value::TimeSpan(span), "+", Value::DateTime(time_)) => time(time_.checked_add(*span)?),
        (Value::DateTime(time_), "-", Value::TimeSpan(span)) => time(time_.checked_sub(*span)?),
        (Value::DateTime(a), "-", Value::DateTime(b)) => Some(Value::TimeSpan(a - b)),
        (Value::TimeSpan(a), "+", Value::TimeSpan(b)) => a.checked_add(*b).map(Value::TimeSpan),
        (Value::TimeSpan(a), "-", Value::TimeSpan(b)) => a.checked_sub(*b).map(Value::TimeSpan),
        (Value::Real(count), "*", Value::TimeSpan(span))
        | (Value::TimeSpan(span), "*", Value::Real(count)) => {
            Some(Value::TimeSpan((*span as f64 * count).round() as i64))
        }
        _ => None,
    }
}
