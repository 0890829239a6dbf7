//! Calls that give rows: `materialize`, `table`, and functions of the query and the database.

use super::names::Names;
use super::{Bind, Binder, Binding, Bound, Env, Row, cast, literal, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::schema;
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::Value;
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn tabular_call(
        &mut self,
        function: &Name,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let name = function.text.as_str();
        if let Some(Binding::Function(_, _)) = env.find(name) {
            return self.applied(None, function, arguments, span, env);
        }
        match (name, arguments) {
            ("materialize", [inner]) => {
                let inner = self.nested(span, |binder| binder.tabular(inner, env, None))?;
                self.shared += 1;
                let columns = inner.columns.clone();
                let node = Node::Shared { id: self.shared, plan: Arc::new(inner) };
                Ok(plan(columns, node))
            }
            ("table", [argument]) => match &argument.kind {
                Syntax::Literal(Value::String(name)) => {
                    self.table(&name.clone(), argument.span, env)
                }
                Syntax::Name(name) => match env.find(name) {
                    Some(Binding::Scalar(Expr {
                        kind: ExprKind::Literal(Value::String(table)),
                        ..
                    })) => self.table(&table.clone(), argument.span, env),
                    _ => self.table(&name.clone(), argument.span, env),
                },
                _ => self.unsupported(argument.span, "a table name that is not a constant"),
            },
            _ if self.database.function(name).is_some() => {
                self.applied(None, function, arguments, span, env)
            }
            _ => {
                let message = format!("Unknown function: '{name}'");
                let known = self.database.function_names().chain(env.names());
                let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, function.span, message)
                    .suggest(name, known);
                self.diagnostics.push(diagnostic);
                Err(super::Failed)
            }
        }
    }

    /// A tabular function over an input or without one.
    pub(super) fn applied(
        &mut self,
        input: Option<Plan>,
        function: &Name,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.as_ref().map(|input| input.columns.clone()).unwrap_or_default();
        let row = Row::of(&columns, "invoke");
        let bound = if let Some(Binding::Function(body, scope)) = env.find(&function.text) {
            let (body, scope) = (body.clone(), scope.clone());
            self.apply(&body, &scope, input, arguments, span, &row, env)?
        } else {
            match self.database.function(&function.text).cloned() {
                Some(schema::Function::Query { text }) => {
                    let body = self.database_function(&function.text, &text, function.span)?;
                    self.apply(&body, &Env::default(), input, arguments, span, &row, env)?
                }
                Some(schema::Function::BuiltIn(built_in)) => {
                    return self.built_in(input, &built_in, arguments, span, env);
                }
                None => {
                    let message = format!("Unknown function: '{}'", function.text);
                    let known = self.database.function_names().chain(env.names());
                    let diagnostic =
                        Diagnostic::new(diagnostics::UNKNOWN_NAME, function.span, message)
                            .suggest(&function.text, known);
                    self.diagnostics.push(diagnostic);
                    return Err(super::Failed);
                }
            }
        };
        match bound {
            Bound::Plan(bound) => Ok(bound),
            Bound::Scalar(_) => {
                let message = format!("'{}' gives a scalar; a table is expected", function.text);
                self.fail(diagnostics::TYPE_MISMATCH, span, message)
            }
        }
    }

    fn built_in(
        &mut self,
        input: Option<Plan>,
        function: &schema::BuiltIn,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.as_ref().map(|input| input.columns.clone()).unwrap_or_default();
        let mut bound = Vec::new();
        for (at, parameter) in function.parameters.iter().enumerate() {
            let value = match (arguments.get(at), &parameter.default) {
                (Some(argument), _) => {
                    let row = Row::of(&columns, "invoke");
                    cast(self.scalar(argument, &row, env)?, parameter.ty)
                }
                (None, Some(default)) => literal(default.clone()),
                (None, None) => {
                    let message =
                        format!("{}(): argument '{}' is missing", function.name, parameter.name);
                    return self.fail(diagnostics::ARGUMENTS, span, message);
                }
            };
            bound.push(value);
        }
        let mut names = Names::taken(&columns);
        let mut all = columns;
        for added in &function.columns {
            all.push(Column { name: names.give(Some(&added.name)), ty: added.ty });
        }
        let node = Node::Invoke { input, function: function.name.clone(), arguments: bound };
        Ok(plan(all, node))
    }
}
