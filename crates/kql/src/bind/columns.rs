//! Operators that choose, rename and compute columns.

use super::names::Names;
use super::{Bind, Binder, Env, Failed, Row, cast, column, expr, literal, plan};
use crate::diagnostics::{self, Span};
use crate::functions::{self, Returns};
use crate::plan::{Column, Expr, ExprKind, Node, Plan};
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::{Type, Value};

impl Binder<'_> {
    /// A plan's columns by position, in another order or choice.
    pub(super) fn pick(&self, input: Plan, chosen: Vec<(String, usize)>) -> Plan {
        let items = chosen.iter().map(|(_, at)| column(*at, input.columns[*at].ty)).collect();
        let columns = (chosen.into_iter())
            .map(|(name, at)| Column { name, ty: input.columns[at].ty })
            .collect();
        plan(columns, Node::Project { input, items })
    }

    /// One written item: its values with their wished names; several for a function with several
    /// results or a tuple of names.
    pub(super) fn item(
        &mut self,
        written: &syntax::Expr,
        row: &Row,
        env: &Env,
    ) -> Bind<Vec<(Option<String>, Expr)>> {
        let (names, value): (&[Name], _) = match &written.kind {
            Syntax::Named { names, value } => (names, &**value),
            _ => (&[], written),
        };
        let bound = self.whole(value, row, env)?;
        let mut parts = self.results(value, bound);
        // One name takes the first of several results.
        if names.len() == 1 {
            parts.truncate(1);
        }
        if parts.len() == 1 && names.len() <= 1 {
            let (_, bound) = parts.into_iter().next().ok_or(Failed)?;
            let name = match names.first() {
                Some(name) => Some(name.text.clone()),
                None => self.default_name(value, env),
            };
            return Ok(vec![(name, bound)]);
        }
        if names.len() > parts.len() {
            let message = format!("{} names for {} results", names.len(), parts.len());
            return self.fail(diagnostics::ARGUMENTS, written.span, message);
        }
        let name = |at: usize, own: String| names.get(at).map_or(own, |name| name.text.clone());
        let parts = parts.into_iter().enumerate();
        Ok(parts.map(|(at, (own, value))| (Some(name(at, own)), value)).collect())
    }

    /// The results of a call one by one, with their own names.
    fn results(&self, written: &syntax::Expr, bound: Expr) -> Vec<(String, Expr)> {
        let part = |at: usize, ty: Type| {
            let key = Box::new(literal(Value::Long(at as i64)));
            let base = Box::new(bound.clone());
            cast(expr(Type::Dynamic, ExprKind::Member { base, key }), ty)
        };
        if let Syntax::Call { function, arguments } = &written.kind
            && let Some(function) = functions::find(&function.text)
        {
            match &function.signatures[0].returns {
                Returns::Columns(columns) => {
                    let first = arguments.first().and_then(|a| a.name()).unwrap_or_default();
                    let columns = columns.iter().enumerate();
                    let named = columns.map(|(at, (name, ty))| {
                        (format!("{}_{first}_{name}", function.name), part(at, *ty))
                    });
                    return named.collect();
                }
                Returns::Sorted => {
                    // The last argument may say where nulls go.
                    let arrays = match &bound.kind {
                        ExprKind::Call { arguments, .. } => {
                            arguments.iter().filter(|a| a.ty == Type::Dynamic).count()
                        }
                        _ => arguments.len(),
                    };
                    let name = |argument: &syntax::Expr| {
                        format!("{}_sorted", argument.name().unwrap_or("array"))
                    };
                    let arrays = arguments.iter().take(arrays.max(1)).enumerate();
                    return arrays.map(|(at, a)| (name(a), part(at, Type::Dynamic))).collect();
                }
                _ => {}
            }
        }
        vec![(String::new(), bound)]
    }

    pub(super) fn project(
        &mut self,
        input: Plan,
        written: &[syntax::Expr],
        operator: &str,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, operator);
        let mut names = Names::default();
        let (mut columns, mut items) = (Vec::new(), Vec::new());
        let mut failed = false;
        for item in written {
            if matches!(item.kind, Syntax::Star | Syntax::Wildcard(_)) {
                for at in self.matching(item, &input_columns)? {
                    let Column { name, ty } = input_columns[at].clone();
                    columns.push(Column { name: names.give(Some(&name)), ty });
                    items.push(column(at, ty));
                }
                continue;
            }
            match self.item(item, &row, env) {
                Ok(values) => {
                    for (name, value) in values {
                        let explicit = matches!(item.kind, Syntax::Named { .. });
                        let taken = |name: &str| columns.iter().any(|c: &Column| c.name == name);
                        if let Some(name) = name.as_deref().filter(|name| explicit && taken(name)) {
                            let message = format!("a column named '{name}' already exists");
                            return self.fail(diagnostics::NOT_ALLOWED, item.span, message);
                        }
                        columns.push(Column { name: names.give(name.as_deref()), ty: value.ty });
                        items.push(value);
                    }
                }
                Err(Failed) => failed = true,
            }
        }
        if failed {
            return Err(Failed);
        }
        Ok(plan(columns, Node::Project { input, items }))
    }

    pub(super) fn extend(
        &mut self,
        input: Plan,
        written: &[syntax::Expr],
        operator: &str,
        env: &Env,
    ) -> Bind<Plan> {
        let mut columns = input.columns.clone();
        let mut items: Vec<Expr> =
            columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, operator);
        let mut names = Names::taken(&columns);
        let mut failed = false;
        for item in written {
            let Ok(values) = self.item(item, &row, env) else {
                failed = true;
                continue;
            };
            for (name, value) in values {
                let place =
                    name.as_deref().and_then(|name| columns.iter().position(|c| c.name == name));
                match place {
                    Some(at) => {
                        columns[at].ty = value.ty;
                        items[at] = value;
                    }
                    None => {
                        columns.push(Column { name: names.give(name.as_deref()), ty: value.ty });
                        items.push(value);
                    }
                }
            }
        }
        if failed {
            return Err(Failed);
        }
        Ok(plan(columns, Node::Project { input, items }))
    }

    /// Positions of the columns that a name, a pattern or `*` means.
    pub(super) fn matching(
        &mut self,
        written: &syntax::Expr,
        columns: &[Column],
    ) -> Bind<Vec<usize>> {
        match &written.kind {
            Syntax::Star => Ok((0..columns.len()).filter(|at| !columns[*at].is_hidden()).collect()),
            Syntax::Wildcard(pattern) => {
                let found = columns.iter().enumerate().filter(|(_, c)| !c.is_hidden());
                Ok(found.filter(|(_, c)| matches(pattern, &c.name)).map(|(at, _)| at).collect())
            }
            _ => {
                let row = Row::of(columns, "project");
                match self.scalar(written, &row, &Env::default())?.kind {
                    ExprKind::Column(at) => Ok(vec![at]),
                    _ => {
                        let message = "a column is expected";
                        self.fail(diagnostics::NOT_ALLOWED, written.span, message)
                    }
                }
            }
        }
    }

    /// `project-away`, `project-keep`.
    pub(super) fn choose(
        &mut self,
        input: Plan,
        written: &[syntax::Expr],
        keep: bool,
    ) -> Bind<Plan> {
        let mut named = vec![false; input.columns.len()];
        for pattern in written {
            for at in self.matching(pattern, &input.columns)? {
                named[at] = true;
            }
        }
        let chosen = (input.columns.iter().enumerate())
            .filter(|(at, _)| named[*at] == keep)
            .map(|(at, column)| (column.name.clone(), at))
            .collect();
        Ok(self.pick(input, chosen))
    }

    /// `project-by-names "a", dynamic(["b", "c*"])`
    pub(super) fn choose_by_names(
        &mut self,
        input: Plan,
        written: &[syntax::Expr],
        env: &Env,
    ) -> Bind<Plan> {
        let mut chosen: Vec<(String, usize)> = Vec::new();
        for argument in written {
            let bound = self.scalar(argument, &Row::none("project-by-names"), env)?;
            let names = match bound.kind {
                ExprKind::Literal(Value::String(name)) => vec![name.to_string()],
                ExprKind::Literal(Value::Dynamic(json)) => {
                    let values = crate::json::elements(&json).unwrap_or_default();
                    values.iter().map(crate::plan_text::plain_text).collect()
                }
                _ => {
                    let message = "'project-by-names' operator: constant names are expected";
                    return self.fail(diagnostics::NOT_ALLOWED, argument.span, message);
                }
            };
            for name in names {
                let found = input.columns.iter().enumerate().filter(|(_, c)| !c.is_hidden());
                let found: Vec<usize> =
                    found.filter(|(_, c)| matches(&name, &c.name)).map(|(at, _)| at).collect();
                if found.is_empty() && !name.contains('*') {
                    let message = format!(
                        "'project-by-names' operator: Failed to resolve column named '{name}'"
                    );
                    return self.fail(diagnostics::UNKNOWN_NAME, argument.span, message);
                }
                for at in found {
                    if !chosen.iter().any(|(_, known)| *known == at) {
                        chosen.push((input.columns[at].name.clone(), at));
                    }
                }
            }
        }
        Ok(self.pick(input, chosen))
    }

    pub(super) fn rename(&mut self, input: Plan, written: &[syntax::Expr]) -> Bind<Plan> {
        let mut chosen: Vec<(String, usize)> =
            input.columns.iter().enumerate().map(|(at, c)| (c.name.clone(), at)).collect();
        for item in written {
            let Syntax::Named { names, value } = &item.kind else {
                let message = "'project-rename' operator: 'new = old' is expected";
                return self.fail(diagnostics::NOT_ALLOWED, item.span, message);
            };
            for at in self.matching(value, &input.columns)? {
                chosen[at].0.clone_from(&names[0].text);
            }
        }
        self.all_differ(&chosen, written.first().map_or(Span::default(), |item| item.span))?;
        Ok(self.pick(input, chosen))
    }

    fn all_differ(&mut self, chosen: &[(String, usize)], span: Span) -> Bind<()> {
        for (at, (name, _)) in chosen.iter().enumerate() {
            if chosen[..at].iter().any(|(earlier, _)| earlier == name) {
                let message = format!("a column named '{name}' already exists");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        }
        Ok(())
    }

    pub(super) fn reorder(
        &mut self,
        input: Plan,
        written: &[(syntax::Expr, Option<Name>)],
    ) -> Bind<Plan> {
        let mut order: Vec<usize> = Vec::new();
        for (pattern, by) in written {
            let mut found = self.matching(pattern, &input.columns)?;
            found.retain(|at| !order.contains(at));
            if let Some(by) = by {
                let name = |at: &usize| input.columns[*at].name.clone();
                found.sort_by_key(name);
                if by.text.ends_with("desc") {
                    found.reverse();
                }
            }
            order.extend(found);
        }
        order.extend((0..input.columns.len()).filter(|at| !order.contains(at)).collect::<Vec<_>>());
        let chosen = order.into_iter().map(|at| (input.columns[at].name.clone(), at)).collect();
        Ok(self.pick(input, chosen))
    }
}

/// A result: hidden columns left out.
pub(super) fn without_hidden(input: Plan) -> Plan {
    if !input.columns.iter().any(Column::is_hidden) {
        return input;
    }
    let seen = input.columns.iter().enumerate().filter(|(_, c)| !c.is_hidden());
    let (columns, items) = seen.map(|(at, c)| (c.clone(), column(at, c.ty))).unzip();
    plan(columns, Node::Project { input, items })
}

/// Whether a name fits a pattern with `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    true
}
