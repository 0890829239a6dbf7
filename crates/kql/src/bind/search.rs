//! `search` and `find`: rows of several tables by what stands in any of their columns.

use super::join::setting;
use super::{Bind, Binder, Env, Row, call, cast, column, literal, null, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Settings};
use crate::types::{Type, Value};

impl Binder<'_> {
    /// `search`: rows of every table in which some column has the term; `$table` comes first.
    pub(super) fn search(
        &mut self,
        input: Option<Plan>,
        options: &Settings,
        tables: &[syntax::Expr],
        predicate: &syntax::Expr,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let cased = matches!(setting(options, "kind"), Some("case_sensitive"));
        let piped = input.is_some();
        let inputs = self.searched(input, tables, span, env)?;
        let mut named = Vec::new();
        names_in(predicate, &mut named);
        let mut elsewhere: Vec<Column> = Vec::new();
        for column in inputs.iter().flat_map(|(_, table)| &table.columns) {
            let known = elsewhere.iter().any(|other| other.name == column.name);
            if !known && named.contains(&column.name) {
                elsewhere.push(column.clone());
            }
        }
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (name, table) in inputs {
            let columns = table.columns.clone();
            // A table without any column that the predicate names has no such rows.
            let named = columns.iter().any(|own| elsewhere.iter().any(|c| c.name == own.name));
            if !(named || elsewhere.is_empty()) {
                continue;
            }
            let lacks = |c: &&Column| !columns.iter().any(|own| own.name == c.name);
            let lacking: Vec<Column> = elsewhere.iter().filter(lacks).cloned().collect();
            // A table without a column that the predicate names has no value there.
            let row = |c: &Column| null(c.ty);
            let absent: Vec<Expr> = lacking.iter().map(row).collect();
            let wide: Vec<Column> = columns.iter().cloned().chain(lacking).collect();
            let known = self.diagnostics.len();
            match self.searches(predicate, &Row::of(&wide, "search"), cased, env) {
                Ok(mut predicate) => {
                    super::join::substitute(&mut predicate, columns.len(), &absent);
                    kept.push((name, plan(columns, Node::Filter { input: table, predicate })));
                }
                // A table whose column of that name has another type has no such rows.
                Err(_) => refused = self.diagnostics.split_off(known),
            }
        }
        if kept.is_empty() {
            self.diagnostics.extend(refused);
            return Err(super::Failed);
        }
        let source = if piped { None } else { Some("$table") };
        Ok(super::join::unite(kept, false, source))
    }

    /// The tables of `search` and `find`.
    fn searched(
        &mut self,
        input: Option<Plan>,
        tables: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Vec<(String, Plan)>> {
        let mut inputs: Vec<(String, Plan)> = Vec::new();
        if let Some(input) = input {
            let name = match &*input.node {
                Node::Table { name } => name.clone(),
                _ => "union_arg0".to_owned(),
            };
            inputs.push((name, input));
        } else if tables.is_empty() {
            inputs = self.tables_like("*", env);
        }
        for table in tables {
            match &table.kind {
                Syntax::Wildcard(pattern) => inputs.extend(self.tables_like(pattern, env)),
                Syntax::Star => inputs.extend(self.tables_like("*", env)),
                _ => {
                    let name = table.name().unwrap_or("union_arg").to_owned();
                    inputs.push((name, self.nested(span, |b| b.tabular(table, env, None))?));
                }
            }
        }
        Ok(inputs)
    }

    /// A search predicate: bare texts are looked for in every column, `column:term` in one.
    fn searches(
        &mut self,
        written: &syntax::Expr,
        row: &Row,
        cased: bool,
        env: &Env,
    ) -> Bind<Expr> {
        match &written.kind {
            Syntax::Star => Ok(literal(Value::Bool(true))),
            Syntax::Literal(Value::String(text)) => Ok(anywhere(row.columns, text, cased)),
            Syntax::Literal(value @ (Value::Long(_) | Value::Real(_) | Value::Guid(_))) => {
                Ok(anywhere(row.columns, &crate::plan_text::plain_text(value), cased))
            }
            Syntax::Chain { operator, operands } => {
                let mut bound = Vec::new();
                for operand in operands {
                    bound.push(self.searches(operand, row, cased, env)?);
                }
                Ok(call(Type::Bool, operator, bound))
            }
            Syntax::Call { function, arguments }
                if function.text == "not" && arguments.len() == 1 =>
            {
                let inner = self.searches(&arguments[0], row, cased, env)?;
                Ok(call(Type::Bool, "not", vec![inner]))
            }
            // `column:term` and `* has "term"`.
            Syntax::Binary { operator, left, right } if matches!(left.kind, Syntax::Star) => {
                let right = self.scalar(right, row, env)?;
                let mut any = Vec::new();
                for (at, c) in row.columns.iter().enumerate() {
                    if matches!(c.ty, Type::String | Type::Dynamic) {
                        let left = cast(column(at, c.ty), Type::String);
                        any.push(self.binary(operator, left, right.clone(), written.span)?);
                    }
                }
                Ok(some(any))
            }
            Syntax::Binary { operator: ":", left, right } => {
                let left = self.scalar(left, row, env)?;
                match &right.kind {
                    Syntax::Literal(Value::String(text)) => {
                        Ok(matched(cast(left, Type::String), text, cased))
                    }
                    _ => {
                        let right = self.scalar(right, row, env)?;
                        self.comparison("==", left, right, written.span)
                    }
                }
            }
            _ => self.condition(written, row, env),
        }
    }

    /// `find`: rows of several tables, with `source_`, the chosen columns and `pack_` of the rest.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn find(
        &mut self,
        options: &Settings,
        tables: &[syntax::Expr],
        predicate: &syntax::Expr,
        project: Option<&[syntax::Expr]>,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let inputs = self.searched(None, tables, span, env)?;
        let mut kept: Vec<(String, Plan)> = Vec::new();
        for (name, table) in inputs {
            let known = self.diagnostics.len();
            let columns = table.columns.clone();
            match self.searches(predicate, &Row::of(&columns, "find"), false, env) {
                Ok(predicate) => {
                    kept.push((name, plan(columns, Node::Filter { input: table, predicate })));
                }
                Err(_) => self.diagnostics.truncate(known),
            }
        }
        if kept.is_empty() {
            let message = "'find' operator: no table has the columns that the predicate names";
            return self.fail(diagnostics::UNKNOWN_NAME, span, message);
        }
        let mut named = Vec::new();
        names_in(predicate, &mut named);
        let source = setting(options, "withsource").unwrap_or("source_");
        let mut inputs = Vec::new();
        for (name, table) in kept {
            let columns = table.columns.clone();
            let mut shown: Vec<Column> = Vec::new();
            let mut items = Vec::new();
            let mut pack = project.is_none();
            match project {
                Some(written) => {
                    for item in written {
                        match item.name() {
                            Some("pack_") => pack = true,
                            Some(name) => {
                                if let Some(at) = columns.iter().position(|c| c.name == name) {
                                    shown.push(columns[at].clone());
                                    items.push(column(at, columns[at].ty));
                                }
                            }
                            None => pack = true,
                        }
                    }
                }
                // Columns that the predicate names, in the table's order.
                None => {
                    for (at, c) in columns.iter().enumerate() {
                        if named.contains(&c.name) {
                            shown.push(c.clone());
                            items.push(column(at, c.ty));
                        }
                    }
                }
            }
            if pack {
                let mut packed = Vec::new();
                for (at, c) in columns.iter().enumerate() {
                    if !shown.contains(c) {
                        packed.push(literal(Value::String(c.name.as_str().into())));
                        packed.push(column(at, c.ty));
                    }
                }
                shown.push(Column { name: "pack_".to_owned(), ty: Type::Dynamic });
                items.push(call(Type::Dynamic, "bag_pack", packed));
            }
            inputs.push((name, plan(shown, Node::Project { input: table, items })));
        }
        let united = super::join::unite(inputs, false, Some(source));
        // `pack_` stands last, whatever table came first.
        let Some(at) = united.columns.iter().position(|c| c.name == "pack_") else {
            return Ok(united);
        };
        let order = (0..united.columns.len()).filter(|i| *i != at).chain([at]);
        let chosen = order.map(|i| (united.columns[i].name.clone(), i)).collect();
        Ok(self.pick(united, chosen))
    }
}

/// Names that an expression reads.
fn names_in(written: &syntax::Expr, names: &mut Vec<String>) {
    if let Some(name) = written.name() {
        names.push(name.to_owned());
    }
    let mut written = written.clone();
    for child in super::summarize::children(&mut written) {
        names_in(child, names);
    }
}

/// Whether any column has the term, whatever its type.
fn anywhere(columns: &[Column], text: &str, cased: bool) -> Expr {
    let tests = columns.iter().enumerate();
    some(tests.map(|(at, c)| matched(cast(column(at, c.ty), Type::String), text, cased)).collect())
}

/// A term with `*` at its ends: `*x*` contains, `x*` begins a term, `*x` ends one.
fn matched(value: Expr, text: &str, cased: bool) -> Expr {
    let (before, after) = (text.starts_with('*'), text.len() > 1 && text.ends_with('*'));
    let core = text.trim_matches('*');
    if core.contains('*') {
        let parts: Vec<String> = text.split('*').map(regex_quote).collect();
        let flag = if cased { "" } else { "(?i)" };
        let pattern = format!("(?s){flag}{}", parts.join(".*"));
        let pattern = literal(Value::String(pattern.into()));
        return call(Type::Bool, "matches regex", vec![value, pattern]);
    }
    let operator = match (before, after, cased) {
        (true, true, false) => "contains",
        (true, true, true) => "contains_cs",
        (false, true, false) => "hasprefix",
        (false, true, true) => "hasprefix_cs",
        (true, false, false) => "hassuffix",
        (true, false, true) => "hassuffix_cs",
        (false, false, false) => "has",
        (false, false, true) => "has_cs",
    };
    call(Type::Bool, operator, vec![value, literal(Value::String(core.into()))])
}

fn regex_quote(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !c.is_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn some(mut tests: Vec<Expr>) -> Expr {
    match tests.len() {
        0 => literal(Value::Bool(false)),
        1 => tests.remove(0),
        _ => call(Type::Bool, "or", tests),
    }
}
