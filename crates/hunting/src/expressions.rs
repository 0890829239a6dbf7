//! Bound expressions → DataFusion expressions over columns `c0`, `c1` ….

use crate::error::QueryError;
use crate::functions::path::Step;
use crate::functions::{self, array_of, arrow_type, decimal_cell};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, ExprSchemable as _, Operator, binary_expr, lit, when};
use datafusion::prelude::Expr;
use std::collections::HashMap;
use std::sync::Arc;
use vigie_kql::diagnostics::{Diagnostic, NOT_SUPPORTED, Span};
use vigie_kql::plan::{self, ExprKind, Plan};
use vigie_kql::types::{Type, Value};

/// Results of sub-queries that ran before, by the plan's place in memory.
#[derive(Default)]
pub struct SubResults {
    pub scalars: HashMap<usize, ScalarValue>,
    /// First column of the rows, without nulls.
    pub lists: HashMap<usize, Vec<ScalarValue>>,
}

/// The key of a shared plan in [`SubResults`].
pub fn key(plan: &Arc<Plan>) -> usize {
    Arc::as_ptr(plan) as usize
}

pub fn column_name(index: usize) -> String {
    format!("c{index}")
}

pub fn unsupported(what: &str) -> QueryError {
    let message = format!("{what} is not supported");
    QueryError::Rejected(vec![Diagnostic::new(NOT_SUPPORTED, Span::default(), message)])
}

pub struct Lower<'a> {
    pub results: &'a SubResults,
}

impl Lower<'_> {
    /// A condition of which only "true" counts: nulls and false are alike, so that comparisons stay
    /// plain and files can be pruned by them.
    pub fn predicate(&self, expr: &plan::Expr) -> Result<Expr, QueryError> {
        if let ExprKind::Call { function, arguments } = &expr.kind {
            match (*function, arguments.as_slice()) {
                ("and" | "or", operands) => {
                    let operands = operands.iter().map(|o| self.predicate(o));
                    let operands = operands.collect::<Result<Vec<_>, _>>()?;
                    return Ok(balanced(operands, *function == "and"));
                }
                ("==", [left, right]) => {
                    return Ok(self.expr(left)?.eq(self.expr(right)?));
                }
                ("in", [value, list @ ..]) if is_short_list(value, list) => {
                    let list = list.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>, _>>()?;
                    return Ok(self.expr(value)?.in_list(list, false));
                }
                _ => {}
            }
        }
        self.expr(expr)
    }

    pub fn expr(&self, expr: &plan::Expr) -> Result<Expr, QueryError> {
        match &expr.kind {
            ExprKind::Literal(value) => Ok(literal(value)),
            ExprKind::Column(index) => {
                Ok(Df::Column(datafusion::common::Column::from_name(column_name(*index))))
            }
            ExprKind::Cast(inner) if expr.ty == Type::String => {
                match self.member_path(inner, Type::String)? {
                    Some(text) => Ok(text),
                    None => self.cast(inner, expr.ty),
                }
            }
            ExprKind::Cast(inner) => self.cast(inner, expr.ty),
            ExprKind::Member { base, key } => {
                if let Some(path) = self.member_path(expr, Type::Dynamic)? {
                    return Ok(path);
                }
                let function = functions::member(key.ty);
                Ok(function.call(vec![self.expr(base)?, self.expr(key)?]))
            }
            ExprKind::Call { function, arguments } => self.call(function, arguments, expr.ty),
            ExprKind::ScalarQuery(plan) => {
                let value = self.results.scalars.get(&key(plan)).cloned();
                Ok(lit(value.ok_or_else(|| internal("a sub-query has not run"))?))
            }
            ExprKind::InQuery { operator, value, plan } => {
                let list = self.results.lists.get(&key(plan));
                let list = list.ok_or_else(|| internal("a sub-query has not run"))?;
                self.in_values(operator, value, list)
            }
            ExprKind::ScanState { .. } => Err(unsupported("'scan'")),
        }
    }

    /// Members of members by constant keys, as one walk over the JSON; `None` for any other
    /// expression.
    fn member_path(&self, expr: &plan::Expr, result: Type) -> Result<Option<Expr>, QueryError> {
        let (mut base, mut steps) = (expr, Vec::new());
        while let ExprKind::Member { base: inner, key } = &base.kind {
            steps.push(match &key.kind {
                ExprKind::Literal(Value::String(key)) => Step::Key(key.to_string()),
                ExprKind::Literal(Value::Long(at)) => Step::At(*at),
                _ => return Ok(None),
            });
            base = inner;
        }
        if steps.is_empty() {
            return Ok(None);
        }
        steps.reverse();
        let (base, parsed) = match &base.kind {
            ExprKind::Call { function: "parse_json" | "todynamic", arguments }
                if matches!(arguments[0].ty, Type::String | Type::Dynamic) =>
            {
                (&arguments[0], true)
            }
            _ if base.ty == Type::Dynamic => (base, false),
            _ => return Ok(None),
        };
        let function = functions::member_path(base.ty, parsed, steps, result);
        Ok(Some(function.call(vec![self.expr(base)?])))
    }

    fn cast(&self, inner: &plan::Expr, to: Type) -> Result<Expr, QueryError> {
        let value = self.expr(inner)?;
        let native = match (inner.ty, to) {
            (Type::Int, Type::Long) | (Type::Int | Type::Long, Type::Real) => true,
            (Type::DateTime | Type::TimeSpan, Type::Long) => return Ok(value),
            _ => false,
        };
        if native {
            return Ok(datafusion::logical_expr::cast(value, arrow_type(to)));
        }
        Ok(functions::cast(inner.ty, to).call(vec![value]))
    }

    fn in_values(
        &self,
        operator: &'static str,
        value: &plan::Expr,
        list: &[ScalarValue],
    ) -> Result<Expr, QueryError> {
        if matches!(operator, "in" | "!in") && value.ty != Type::String {
            let found = match list.is_empty() {
                true => lit(false),
                false => {
                    let list = list.iter().cloned().map(lit).collect();
                    let found = self.expr(value)?.in_list(list, false);
                    defined(found, value.ty)
                }
            };
            return Ok(if operator == "in" { found } else { !found });
        }
        let texts = list.iter().map(|value| match value {
            ScalarValue::Utf8View(Some(text)) => text.clone(),
            ScalarValue::Utf8View(None) => String::new(),
            other => other.to_string(),
        });
        let test = functions::text_test(operator, texts.collect())?;
        let test = test.ok_or_else(|| unsupported(&format!("'{operator}'")))?;
        Ok(test.call(vec![self.expr(value)?]))
    }

    /// A text operator whose needles are known now.
    fn text_test(
        &self,
        function: &str,
        arguments: &[plan::Expr],
    ) -> Result<Option<Expr>, QueryError> {
        let Some((value, needles)) = arguments.split_first() else { return Ok(None) };
        if value.ty != Type::String {
            return Ok(None);
        }
        let mut texts = Vec::new();
        for needle in needles {
            match &needle.kind {
                ExprKind::Literal(Value::String(text)) => texts.push(text.to_string()),
                ExprKind::Literal(Value::Dynamic(json)) => {
                    texts.extend(functions::text::listed(json.to_string(), Type::Dynamic));
                }
                _ => return Ok(None),
            }
        }
        match functions::text_test(function, texts)? {
            Some(test) => Ok(Some(test.call(vec![self.expr(value)?]))),
            None => Ok(None),
        }
    }

    fn call(
        &self,
        function: &'static str,
        arguments: &[plan::Expr],
        ty: Type,
    ) -> Result<Expr, QueryError> {
        let nullable = |e: &plan::Expr| {
            e.ty != Type::String
                && !matches!(&e.kind, ExprKind::Literal(v) if !matches!(v, Value::Null(_)))
        };
        let short = match arguments {
            [value, list @ ..] => matches!(function, "in" | "!in") && is_short_list(value, list),
            [] => false,
        };
        if !short && let Some(test) = self.text_test(function, arguments)? {
            return Ok(test);
        }
        match (function, arguments) {
            ("and" | "or", operands) => {
                let operands =
                    operands.iter().map(|o| self.expr(o)).collect::<Result<Vec<_>, _>>()?;
                return Ok(balanced(operands, function == "and"));
            }
            ("not", [operand]) => return Ok(!self.expr(operand)?),
            // One null operand: false, two: null; `!=` the other way round.
            ("==" | "!=", [left, right]) => {
                let (l, r) = (self.expr(left)?, self.expr(right)?);
                let equal = match (nullable(left), nullable(right)) {
                    (false, false) => l.eq(r),
                    (true, true) => {
                        let both = l.clone().is_null().and(r.clone().is_null());
                        let equal = binary_expr(l, Operator::IsNotDistinctFrom, r);
                        when(both, lit(ScalarValue::Boolean(None))).otherwise(equal)?
                    }
                    _ => binary_expr(l, Operator::IsNotDistinctFrom, r),
                };
                return Ok(if function == "==" { equal } else { !equal });
            }
            ("<" | "<=" | ">" | ">=", [left, right]) => {
                let operator = match function {
                    "<" => Operator::Lt,
                    "<=" => Operator::LtEq,
                    ">" => Operator::Gt,
                    _ => Operator::GtEq,
                };
                return Ok(binary_expr(self.expr(left)?, operator, self.expr(right)?));
            }
            ("between" | "!between", [value, from, to]) => {
                let (value, from, to) = (self.expr(value)?, self.expr(from)?, self.expr(to)?);
                let within = value.clone().gt_eq(from).and(value.lt_eq(to));
                return Ok(if function == "between" { within } else { !within });
            }
            ("in" | "!in", [value, list @ ..]) if is_list(value, list) => {
                if list.is_empty() {
                    return Ok(lit(function == "!in"));
                }
                let items = list.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>, _>>()?;
                let found = defined(self.expr(value)?.in_list(items, false), value.ty);
                return Ok(if function == "in" { found } else { !found });
            }
            ("in" | "!in", [value, list]) => {
                // A dynamic array known only when the query runs.
                let wanted = functions::cast(value.ty, Type::Dynamic).call(vec![self.expr(value)?]);
                let types = [Type::Dynamic, Type::Dynamic];
                let has = functions::scalar("set_has_element", &types, Type::Bool);
                let has = has.ok_or_else(|| internal("set_has_element is missing"))?;
                let found = has.call(vec![self.expr(list)?, wanted]);
                let found = when(found.clone().is_null(), lit(false)).otherwise(found)?;
                return Ok(if function == "in" { found } else { !found });
            }
            ("+" | "-", [left, right]) => {
                let operator = if function == "+" { Operator::Plus } else { Operator::Minus };
                return Ok(binary_expr(self.expr(left)?, operator, self.expr(right)?));
            }
            ("*", [left, right]) if ty == Type::Long || ty == Type::Real => {
                return Ok(binary_expr(self.expr(left)?, Operator::Multiply, self.expr(right)?));
            }
            ("/", [left, right]) if ty == Type::Real && left.ty == Type::Real => {
                return Ok(binary_expr(self.expr(left)?, Operator::Divide, self.expr(right)?));
            }
            ("-", [operand]) => return Ok(-self.expr(operand)?),
            ("iff", [condition, then, otherwise]) => {
                let (then, otherwise) = (self.expr(then)?, self.expr(otherwise)?);
                return Ok(when(self.expr(condition)?, then).otherwise(otherwise)?);
            }
            ("case", arguments) => {
                let (otherwise, pairs) =
                    arguments.split_last().ok_or_else(|| internal("case() without arguments"))?;
                let mut built: Option<
                    datafusion::logical_expr::conditional_expressions::CaseBuilder,
                > = None;
                for pair in pairs.chunks(2) {
                    let (condition, then) = (self.expr(&pair[0])?, self.expr(&pair[1])?);
                    built = Some(match built {
                        None => when(condition, then),
                        Some(mut cases) => cases.when(condition, then),
                    });
                }
                let otherwise = self.expr(otherwise)?;
                return match built {
                    Some(mut cases) => Ok(cases.otherwise(otherwise)?),
                    None => Ok(otherwise),
                };
            }
            ("isnull" | "isnotnull", [value]) => {
                let null = match value.ty {
                    Type::String => lit(false),
                    _ => self.expr(value)?.is_null(),
                };
                return Ok(if function == "isnull" { null } else { !null });
            }
            ("isempty" | "isnotempty", [value]) if value.ty == Type::String => {
                let empty = self.expr(value)?.eq(lit(ScalarValue::Utf8View(Some(String::new()))));
                return Ok(if function == "isempty" { empty } else { !empty });
            }
            _ => {}
        }
        let types: Vec<Type> = arguments.iter().map(|argument| argument.ty).collect();
        let found = functions::scalar(function, &types, ty);
        let found = found.ok_or_else(|| unsupported(&format!("function '{function}'")))?;
        let arguments = arguments.iter().map(|a| self.expr(a)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.call(arguments))
    }
}

fn internal(message: &str) -> QueryError {
    QueryError::Internal(message.to_owned())
}

/// Lists up to this length are compared value by value, which also prunes files; longer ones become
/// a set.
const SHORT_LIST: usize = 20;

fn is_short_list(value: &plan::Expr, list: &[plan::Expr]) -> bool {
    is_list(value, list) && (list.len() <= SHORT_LIST || value.ty != Type::String)
}

/// Whether the list's elements stand in the call, all of the value's type.
fn is_list(value: &plan::Expr, list: &[plan::Expr]) -> bool {
    !matches!(list, [only] if only.ty == Type::Dynamic && value.ty != Type::Dynamic)
        && !matches!(list, [only] if only.ty == Type::Dynamic && !matches!(only.kind, ExprKind::Literal(_)))
}

/// Null → false, for types that have nulls.
fn defined(found: Expr, ty: Type) -> Expr {
    if ty == Type::String { found } else { found.is_true() }
}

/// More `or`s than these become one call: files are not pruned by so many.
const MANY_CONDITIONS: usize = 64;

/// A tree of `and`s or `or`s of logarithmic depth: the optimizer walks recursively.
fn balanced(mut operands: Vec<Expr>, and: bool) -> Expr {
    if !and && operands.len() > MANY_CONDITIONS {
        return functions::any_of(operands.len()).call(operands);
    }
    while operands.len() > 1 {
        let mut next = Vec::with_capacity(operands.len().div_ceil(2));
        let mut pairs = operands.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) if and => left.and(right),
                Some(right) => left.or(right),
                None => left,
            });
        }
        operands = next;
    }
    operands.pop().unwrap_or_else(|| lit(and))
}

/// A constant in its Arrow type.
pub fn scalar_value(value: &Value) -> ScalarValue {
    match value {
        Value::Null(ty) => ScalarValue::try_from(arrow_type(*ty)).unwrap_or(ScalarValue::Null),
        Value::Bool(value) => ScalarValue::Boolean(Some(*value)),
        Value::Int(value) => ScalarValue::Int32(Some(*value)),
        Value::Long(value) | Value::DateTime(value) | Value::TimeSpan(value) => {
            ScalarValue::Int64(Some(*value))
        }
        Value::Real(value) => ScalarValue::Float64(Some(*value)),
        Value::Decimal(unscaled, scale) => {
            let text = vigie_kql::plan_text::decimal_text(*unscaled, *scale);
            let array = array_of(Type::Decimal, std::iter::once(decimal_cell(&text)));
            ScalarValue::try_from_array(&array, 0).unwrap_or(ScalarValue::Null)
        }
        Value::Guid(guid) => ScalarValue::Utf8View(Some(vigie_kql::plan_text::guid_text(*guid))),
        Value::String(text) | Value::Dynamic(text) => ScalarValue::Utf8View(Some(text.to_string())),
    }
}

fn literal(value: &Value) -> Expr {
    lit(scalar_value(value))
}

/// Whether an expression gives the wanted Arrow type; others are cast.
pub fn typed(
    expr: Expr,
    ty: Type,
    schema: &datafusion::common::DFSchema,
) -> Result<Expr, QueryError> {
    let wanted = arrow_type(ty);
    if expr.get_type(schema)? == wanted {
        return Ok(expr);
    }
    Ok(datafusion::logical_expr::cast(expr, wanted))
}
