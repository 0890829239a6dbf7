//! `join`, `lookup`, `union`.

use super::columns::matches;
use super::names::Names;
use super::{Bind, Binder, Binding, Env, Row, cast, column, literal, null, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::{Column, Expr, ExprKind, JoinKind, Node, Plan};
use crate::plan_text::visit;
use crate::syntax::{self, ExprKind as Syntax, OperatorKind, Settings};
use crate::types::{Type, Value};

pub(super) fn setting<'s>(settings: &'s Settings, name: &str) -> Option<&'s str> {
    settings.iter().find(|s| s.name == name).map(|s| s.value.as_str())
}

impl Binder<'_> {
    pub(super) fn join(
        &mut self,
        left: Plan,
        options: &Settings,
        right: &syntax::Expr,
        on: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let kind = match setting(options, "kind").unwrap_or("innerunique") {
            "innerunique" => JoinKind::InnerUnique,
            "inner" => JoinKind::Inner,
            "leftouter" => JoinKind::LeftOuter,
            "rightouter" => JoinKind::RightOuter,
            "fullouter" => JoinKind::FullOuter,
            "leftsemi" => JoinKind::LeftSemi,
            "leftanti" | "anti" | "leftantisemi" => JoinKind::LeftAnti,
            "rightsemi" => JoinKind::RightSemi,
            "rightanti" | "rightantisemi" => JoinKind::RightAnti,
            other => {
                let message = format!("'join' operator: '{other}' is no kind of join");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let right = self.nested(right.span, |binder| binder.tabular(right, env, None))?;
        let on = self.keys(&left, &right, on, "join", span, env)?;
        let (lefts, rights) = (left.columns.len(), right.columns.len());
        let output: Vec<usize> = match kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => (0..lefts).collect(),
            JoinKind::RightSemi | JoinKind::RightAnti => (lefts..lefts + rights).collect(),
            _ => (0..lefts + rights).collect(),
        };
        Ok(joined(kind, left, right, on, output))
    }

    pub(super) fn lookup(
        &mut self,
        left: Plan,
        options: &Settings,
        right: &syntax::Expr,
        on: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let kind = match setting(options, "kind").unwrap_or("leftouter") {
            "leftouter" => JoinKind::LeftOuter,
            "inner" => JoinKind::Inner,
            other => {
                let message = format!("'lookup' operator: '{other}' is no kind of lookup");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let right = self.nested(right.span, |binder| binder.tabular(right, env, None))?;
        let on = self.keys(&left, &right, on, "lookup", span, env)?;
        let lefts = left.columns.len();
        let is_key = |at: &usize| {
            on.iter().any(|(_, key)| matches!(key.kind, ExprKind::Column(index) if index == *at))
        };
        let output = (0..lefts)
            .chain((0..right.columns.len()).filter(|at| !is_key(at)).map(|at| lefts + at))
            .collect();
        Ok(joined(kind, left, right, on, output))
    }

    /// Pairs of keys, the left over the left side's columns, the right over the right side's.
    fn keys(
        &mut self,
        left: &Plan,
        right: &Plan,
        on: &[syntax::Expr],
        operator: &str,
        span: Span,
        env: &Env,
    ) -> Bind<Vec<(Expr, Expr)>> {
        let mut both = left.columns.clone();
        both.extend(right.columns.iter().cloned());
        let mut keys = Vec::new();
        for condition in on {
            let conditions: Vec<&syntax::Expr> = match &condition.kind {
                Syntax::Chain { operator: "and", operands } => operands.iter().collect(),
                _ => vec![condition],
            };
            for condition in conditions {
                keys.push(self.key(condition, left, right, &both, operator, env)?);
            }
        }
        if keys.is_empty() {
            let message = format!("'{operator}' operator: 'on' with a condition is expected");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        Ok(keys)
    }

    fn key(
        &mut self,
        condition: &syntax::Expr,
        left: &Plan,
        right: &Plan,
        both: &[Column],
        operator: &str,
        env: &Env,
    ) -> Bind<(Expr, Expr)> {
        let lefts = left.columns.len();
        let (mut a, mut b) = match &condition.kind {
            Syntax::Binary { operator: "==", left: first, right: second } => {
                let row = Row { columns: both, left: Some(lefts), operator, scan: None };
                (self.scalar(first, &row, env)?, self.scalar(second, &row, env)?)
            }
            Syntax::Name(name) => {
                let side = |plan: &Plan| plan.columns.iter().position(|c| c.name == *name);
                match (side(left), side(right)) {
                    (Some(l), Some(r)) => {
                        (column(l, left.columns[l].ty), column(lefts + r, right.columns[r].ty))
                    }
                    (found, _) => {
                        let missing = if found.is_none() { left } else { right };
                        let which = if found.is_none() { "left" } else { "right" };
                        let message = format!(
                            "'{operator}' operator: Failed to resolve column named '{name}' on the {which} side"
                        );
                        let known = missing.columns.iter().map(|c| c.name.as_str());
                        let diagnostic =
                            Diagnostic::new(diagnostics::UNKNOWN_NAME, condition.span, message);
                        self.diagnostics.push(diagnostic.suggest(name, known));
                        return Err(super::Failed);
                    }
                }
            }
            _ => {
                let message = format!(
                    "'{operator}' operator: only equalities of a left and a right column are allowed"
                );
                return self.fail(diagnostics::NOT_ALLOWED, condition.span, message);
            }
        };
        let side = |value: &Expr| {
            let mut sides = (false, false);
            visit(value, &mut |at| if at < lefts { sides.0 = true } else { sides.1 = true });
            sides
        };
        match (side(&a), side(&b)) {
            ((true, false), (false, true)) => {}
            ((false, true), (true, false)) => std::mem::swap(&mut a, &mut b),
            _ => {
                let message = format!(
                    "'{operator}' operator: each side of '==' must name columns of one table"
                );
                return self.fail(diagnostics::NOT_ALLOWED, condition.span, message);
            }
        }
        let ty = match (a.ty, b.ty) {
            (Type::Dynamic, Type::Dynamic) => Some(Type::String),
            (Type::Dynamic, other) | (other, Type::Dynamic) => Some(other),
            (a, b) => crate::functions::common_type(a, b),
        };
        let Some(ty) = ty else {
            let message = format!(
                "'{operator}' operator: the keys have different types, {} and {}",
                a.ty, b.ty
            );
            return self.fail(diagnostics::TYPE_MISMATCH, condition.span, message);
        };
        renumber(&mut b, &|at| at - lefts);
        Ok((cast(a, ty), cast(b, ty)))
    }

    pub(super) fn union(
        &mut self,
        input: Option<Plan>,
        options: &Settings,
        tables: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let fuzzy = setting(options, "isfuzzy").is_some_and(|value| value == "true");
        let mut inputs: Vec<(String, Plan)> = Vec::new();
        let label = |inputs: &Vec<(String, Plan)>| format!("union_arg{}", inputs.len());
        if let Some(input) = input {
            let name = match &*input.node {
                Node::Table { name } => Some(name.clone()),
                Node::Shared { id, .. } => env.shared(*id),
                _ => None,
            };
            let name = name.unwrap_or_else(|| label(&inputs));
            inputs.push((name, input));
        }
        for table in tables {
            if let Syntax::Wildcard(pattern) = &table.kind {
                inputs.extend(self.tables_like(pattern, env));
                continue;
            }
            if matches!(table.kind, Syntax::Star) {
                inputs.extend(self.tables_like("*", env));
                continue;
            }
            let known = self.diagnostics.len();
            match self.nested(table.span, |binder| binder.tabular(table, env, None)) {
                Ok(_) if fuzzy && self.diagnostics.len() > known => {
                    self.diagnostics.truncate(known);
                }
                Ok(bound) => {
                    let name = name_of(table).map_or_else(|| label(&inputs), str::to_owned);
                    inputs.push((name, bound));
                }
                Err(_) if fuzzy => self.diagnostics.truncate(known),
                Err(failed) => return Err(failed),
            }
        }
        if inputs.is_empty() {
            let message = "'union' operator: no table is left";
            return self.fail(diagnostics::UNKNOWN_NAME, span, message);
        }
        let inner = setting(options, "kind") == Some("inner");
        let source = setting(options, "withsource").or_else(|| setting(options, "with_source"));
        Ok(unite(inputs, inner, source))
    }

    /// Tables of the database and views of the query whose names fit.
    pub(super) fn tables_like(&mut self, pattern: &str, env: &Env) -> Vec<(String, Plan)> {
        let mut found: Vec<(String, Plan)> = (self.database.tables())
            .filter(|(name, _)| matches(pattern, name))
            .map(|(name, columns)| (name.to_owned(), self.table_plan(name, columns)))
            .collect();
        for name in env.names() {
            if let (true, Some(Binding::Function(function, scope))) =
                (matches(pattern, name), env.find(name))
                && function.view
                && function.parameters.is_empty()
            {
                let (function, scope, row) = (function.clone(), scope.clone(), Row::none("union"));
                if let Ok(super::Bound::Plan(bound)) =
                    self.apply(&function, &scope, None, &[], function.span, &row, env)
                {
                    found.push((name.to_owned(), bound));
                }
            }
        }
        found
    }
}

/// What `withsource` calls a table: its name, or the one that `as` gave at its end.
fn name_of(table: &syntax::Expr) -> Option<&str> {
    if let Syntax::Pipe { operators, .. } = &table.kind
        && let Some(OperatorKind::As(name)) = operators.last().map(|operator| &operator.kind)
    {
        return Some(&name.text);
    }
    table.name()
}

/// The join's columns: the right side's get a number where the left has the name.
fn joined(
    kind: JoinKind,
    left: Plan,
    right: Plan,
    on: Vec<(Expr, Expr)>,
    output: Vec<usize>,
) -> Plan {
    let lefts = left.columns.len();
    let of = |at: usize| if at < lefts { &left.columns[at] } else { &right.columns[at - lefts] };
    let (mut names, mut given) = (Names::default(), vec![None; output.len()]);
    // A number made for one name must not take the name of another column.
    for clashing in [false, true] {
        for (place, &at) in output.iter().enumerate() {
            let name = &of(at).name;
            let clashes =
                at >= lefts && output[..place].iter().any(|&other| of(other).name == *name);
            if clashes == clashing {
                given[place] = Some(names.give(Some(name)));
            }
        }
    }
    let columns = (output.iter().zip(given))
        .map(|(&at, name)| Column { name: name.unwrap_or_default(), ty: of(at).ty })
        .collect();
    plan(columns, Node::Join { kind, left, right, on, output })
}

/// One table of several: by name, a name with several types split by type.
pub(super) fn unite(inputs: Vec<(String, Plan)>, inner: bool, source: Option<&str>) -> Plan {
    let mut found: Vec<Column> = Vec::new();
    for (_, input) in &inputs {
        for column in &input.columns {
            if !found.contains(column) {
                // Another type of a known name stands beside the first.
                let beside = found.iter().rposition(|c| c.name == column.name);
                match beside {
                    Some(at) => found.insert(at + 1, column.clone()),
                    None => found.push(column.clone()),
                }
            }
        }
    }
    if inner {
        let everywhere = |c: &Column| inputs.iter().all(|(_, input)| input.columns.contains(c));
        found.retain(everywhere);
    }
    let several = |name: &str| found.iter().filter(|c| c.name == name).count() > 1;
    let mut columns: Vec<Column> = Vec::new();
    let mut names = Names::default();
    if let Some(source) = source {
        columns.push(Column { name: names.give(Some(source)), ty: Type::String });
    }
    // Names that inputs have go before those that are made of a name and a type.
    let kept: Vec<Option<String>> =
        (found.iter()).map(|c| (!several(&c.name)).then(|| names.give(Some(&c.name)))).collect();
    for (column, kept) in found.iter().zip(kept) {
        let name =
            kept.unwrap_or_else(|| names.give(Some(&format!("{}_{}", column.name, column.ty))));
        columns.push(Column { name, ty: column.ty });
    }
    let inputs = (inputs.into_iter())
        .map(|(label, input)| {
            let mut items = Vec::new();
            if source.is_some() {
                items.push(literal(Value::String(label.as_str().into())));
            }
            items.extend(found.iter().map(|c| match input.columns.iter().position(|i| i == c) {
                Some(at) => column(at, c.ty),
                None => null(c.ty),
            }));
            plan(columns.clone(), Node::Project { input, items })
        })
        .collect();
    plan(columns, Node::Union { inputs })
}

/// Other numbers for the columns that an expression reads.
pub(super) fn renumber(value: &mut Expr, place: &impl Fn(usize) -> usize) {
    match &mut value.kind {
        ExprKind::Column(at) => *at = place(*at),
        ExprKind::Call { arguments, .. } => arguments.iter_mut().for_each(|a| renumber(a, place)),
        ExprKind::Cast(inner) => renumber(inner, place),
        ExprKind::Member { base, key } => {
            renumber(base, place);
            renumber(key, place);
        }
        ExprKind::InQuery { value, .. } => renumber(value, place),
        ExprKind::Literal(_) | ExprKind::ScalarQuery(_) | ExprKind::ScanState { .. } => {}
    }
}

/// Values in place of the columns from `from` on.
pub(super) fn substitute(expr: &mut Expr, from: usize, values: &[Expr]) {
    match &mut expr.kind {
        ExprKind::Column(at) => {
            if let Some(value) = at.checked_sub(from).and_then(|at| values.get(at)) {
                *expr = value.clone();
            }
        }
        ExprKind::Call { arguments, .. } => {
            arguments.iter_mut().for_each(|argument| substitute(argument, from, values));
        }
        ExprKind::Cast(inner) => substitute(inner, from, values),
        ExprKind::Member { base, key } => {
            substitute(base, from, values);
            substitute(key, from, values);
        }
        ExprKind::InQuery { value, .. } => substitute(value, from, values),
        ExprKind::Literal(_) | ExprKind::ScalarQuery(_) | ExprKind::ScanState { .. } => {}
    }
}
