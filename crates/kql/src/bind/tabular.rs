//! Tabular expressions: which ones give rows, tables by name, pipelines of operators.

use super::sources::columns_of;
use super::{Bind, Binder, Binding, Bound, Env, Row, null, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Name};
use crate::types::Type;

impl Binder<'_> {
    /// Whether an expression gives rows.
    pub(super) fn is_tabular(&self, written: &syntax::Expr, env: &Env) -> bool {
        match &written.kind {
            Syntax::Pipe { .. }
            | Syntax::DataTable { .. }
            | Syntax::ExternalData { .. }
            | Syntax::Source(_)
            | Syntax::Wildcard(_) => true,
            Syntax::Name(name) => match env.find(name) {
                Some(Binding::Table(_)) => true,
                Some(Binding::Scalar(_)) => false,
                Some(Binding::Function(function, scope)) => self.gives_rows(function, scope),
                None => name.is_empty() || self.database.table(name).is_some(),
            },
            Syntax::Call { function, .. } => match env.find(&function.text) {
                Some(Binding::Function(function, scope)) => self.gives_rows(function, scope),
                Some(_) => false,
                None => {
                    matches!(function.text.as_str(), "materialize" | "table" | "view")
                        || self.database.function(&function.text).is_some()
                }
            },
            Syntax::Member { base, .. } => self.is_database(base),
            _ => false,
        }
    }

    /// `database("x")`, `cluster("y").database("x")`
    fn is_database(&self, written: &syntax::Expr) -> bool {
        match &written.kind {
            Syntax::Call { function, .. } => {
                matches!(function.text.as_str(), "database" | "cluster" | "workspace" | "app")
            }
            Syntax::Index { base, index } => self.is_database(base) || self.is_database(index),
            Syntax::Member { base, .. } => self.is_database(base),
            _ => false,
        }
    }

    /// Whether a function's body ends in a table, as far as the syntax tells.
    fn gives_rows(&self, function: &syntax::Function, scope: &Env) -> bool {
        if function.view {
            return true;
        }
        let mut inner = scope.clone();
        for parameter in &function.parameters {
            let binding = match parameter.ty {
                syntax::ParameterType::Scalar(ty) => Binding::Scalar(null(ty)),
                syntax::ParameterType::Table { .. } => {
                    Binding::Table(plan(Vec::new(), Node::Context))
                }
            };
            inner = inner.with(&parameter.name.text, binding);
        }
        for statement in &function.body {
            match statement {
                syntax::Statement::Let { name, value } => {
                    let binding = match value {
                        syntax::LetValue::Function(function) => {
                            Binding::Function(std::rc::Rc::new(function.clone()), inner.clone())
                        }
                        syntax::LetValue::Expression(value) if self.is_tabular(value, &inner) => {
                            Binding::Table(plan(Vec::new(), Node::Context))
                        }
                        syntax::LetValue::Expression(_) => Binding::Scalar(null(Type::Dynamic)),
                    };
                    inner = inner.with(&name.text, binding);
                }
                syntax::Statement::Expression(result) => return self.is_tabular(result, &inner),
                _ => {}
            }
        }
        false
    }

    /// `context`: the columns of the rows that the enclosing operator hands in.
    pub(super) fn tabular(
        &mut self,
        written: &syntax::Expr,
        env: &Env,
        context: Option<&[Column]>,
    ) -> Bind<Plan> {
        let bound = self.tabular_or_graph(written, env, context)?;
        if let Node::Graph(_) = *bound.node {
            return self.fail(diagnostics::TYPE_MISMATCH, written.span, super::NOT_ROWS);
        }
        Ok(bound)
    }

    pub(super) fn tabular_or_graph(
        &mut self,
        written: &syntax::Expr,
        env: &Env,
        context: Option<&[Column]>,
    ) -> Bind<Plan> {
        let span = written.span;
        match &written.kind {
            Syntax::Name(name) if name.is_empty() => {
                Ok(plan(context.unwrap_or_default().to_vec(), Node::Context))
            }
            Syntax::Name(name) => self.table(name, span, env),
            Syntax::Call { function, arguments } => {
                self.tabular_call(function, arguments, span, env)
            }
            Syntax::Pipe { source, operators } => {
                let mut env = env.clone();
                let mut bound = self.tabular_or_graph(source, &env, context)?;
                for operator in operators {
                    bound = self.operator(Some(bound), operator, &mut env)?;
                }
                Ok(bound)
            }
            Syntax::Source(operator) => self.operator(None, operator, &mut env.clone()),
            Syntax::DataTable { columns, values } => self.data_table(columns, values, span, env),
            Syntax::ExternalData { columns, uris, properties } => {
                let mut bound = Vec::new();
                for uri in uris {
                    bound.push(self.constant(uri, "externaldata", Type::String, env)?);
                }
                let node = Node::ExternalData { uris: bound, properties: properties.clone() };
                Ok(plan(columns_of(columns), node))
            }
            Syntax::Wildcard(_) => {
                self.union(None, &Vec::new(), std::slice::from_ref(written), span, env)
            }
            Syntax::Member { base, .. } if self.is_database(base) => {
                let what = "a table of another database or cluster";
                self.unsupported(span, what)
            }
            _ => {
                let message = "a table is expected here, not a scalar";
                self.fail(diagnostics::TYPE_MISMATCH, span, message)
            }
        }
    }

    pub(super) fn table(&mut self, name: &str, span: Span, env: &Env) -> Bind<Plan> {
        match env.find(name) {
            Some(Binding::Table(bound)) => return Ok(bound.clone()),
            Some(Binding::Function(function, scope)) => {
                let (function, scope, row) = (function.clone(), scope.clone(), Row::none("let"));
                return match self.apply(&function, &scope, None, &[], span, &row, env)? {
                    Bound::Plan(bound) => Ok(bound),
                    Bound::Scalar(_) => {
                        let message = format!("'{name}' is a scalar; a table is expected");
                        self.fail(diagnostics::TYPE_MISMATCH, span, message)
                    }
                };
            }
            Some(Binding::Scalar(_)) => {
                let message = format!("'{name}' is a scalar; a table is expected");
                return self.fail(diagnostics::TYPE_MISMATCH, span, message);
            }
            None => {}
        }
        if let Some(columns) = self.database.table(name) {
            return Ok(self.table_plan(name, columns));
        }
        if self.database.function(name).is_some() {
            let function = Name { text: name.to_owned(), span };
            return self.tabular_call(&function, &[], span, env);
        }
        let message = format!("Failed to resolve table or column expression named '{name}'");
        let database = self.database;
        let known = database.tables().map(|(name, _)| name).chain(database.function_names());
        let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, span, message)
            .suggest(name, known.chain(env.names()));
        self.diagnostics.push(diagnostic);
        Err(super::Failed)
    }

    /// A table with its columns, and the hidden one where the query asks for it.
    pub(super) fn table_plan(&self, name: &str, columns: &[Column]) -> Plan {
        let mut columns = columns.to_vec();
        if self.ingestion_time {
            columns.push(Column { name: INGESTION_TIME.to_owned(), ty: Type::DateTime });
        }
        plan(columns, Node::Table { name: name.to_owned() })
    }
}
