//! Syntax → plan: names resolved, types checked and converted, defaults given.

mod activity;
mod calls;
mod columns;
mod expand;
mod frequencies;
mod graph_match;
mod graph_patterns;
mod graphs;
mod join;
mod names;
mod operators;
mod patterns;
mod plugins;
mod scalar;
mod scan;
mod search;
mod series;
mod sources;
mod subplans;
mod summarize;
mod tabular;
mod tabular_calls;
mod texts;

pub(crate) use graphs::FUNCTIONS as GRAPH_FUNCTIONS;
pub(crate) use plugins::REFUSED as REFUSED_PLUGINS;

use crate::diagnostics::{self, Diagnostic, Span};
use crate::parser;
use crate::plan::{Column, Expr, ExprKind, Node, Plan, Query, Render};
use crate::schema::Database;
use crate::syntax::{self, LetValue, Statement};
use crate::types::{Type, Value};
use std::rc::Rc;

/// Names of the plugins that are carried out.
pub(crate) fn plugin_names() -> impl Iterator<Item = &'static str> {
    plugins::NAMES.iter().chain(patterns::NAMES).copied().chain(activity::names())
}

/// Deepest nesting of function calls and sub-queries.
const MAX_DEPTH: usize = 64;

/// What messages say of a graph where rows are needed.
const NOT_ROWS: &str = "a graph is no table; 'graph-match' or 'graph-to-table' make rows of it";

/// What a query is bound against besides the database.
#[derive(Clone, Debug, Default)]
pub struct BindOptions {
    /// The one reading of the clock that `now()` and `ago()` use, in ticks.
    pub now: i64,
    /// Result columns of the plugins whose columns depend on data (`bag_unpack`, `pivot` …), in the
    /// order in which binding meets them. Where one is missing, [`Query::open`] asks for it.
    pub schemas: Schemas,
}

/// What is known of plugins whose result columns depend on data.
#[derive(Clone, Debug, Default)]
pub enum Schemas {
    /// The first ones; binding stops at the next.
    Known(Vec<Vec<Column>>),
    /// There is no data: names that such a plugin could give are taken for dynamic nulls.
    #[default]
    Unknowable,
}

/// Reads and binds a query.
///
/// A name that nothing gives, behind a plugin whose columns depend on data, is taken for a column of
/// that plugin without values (Kusto's binder infers such columns too): a hunting query that reads
/// bags must not fail on the day when no bag has the key.
pub fn bind(
    text: &str,
    database: &Database,
    options: &BindOptions,
) -> Result<Query, Vec<Diagnostic>> {
    let parsed = parser::parse(text);
    if !parsed.diagnostics.is_empty() {
        return Err(parsed.diagnostics);
    }
    let mut inferred: Vec<Inferred> = Vec::new();
    let (mut binder, statements) = loop {
        let mut binder = Binder {
            database,
            now: options.now,
            schemas: &options.schemas,
            plugins: 0,
            inferred: &inferred,
            missing: Vec::new(),
            ingestion_time: text.contains("ingestion_time"),
            open: None,
            diagnostics: Vec::new(),
            depth: 0,
            shared: 0,
            exported: Vec::new(),
            options: Vec::new(),
            render: None,
        };
        let statements = binder.query(&parsed.statements);
        let missing = std::mem::take(&mut binder.missing);
        if missing.is_empty() || binder.open.is_some() {
            // What was inferred is kept by the plans, not by name.
            break (Binder { inferred: &[], ..binder }, statements);
        }
        inferred.extend(missing);
    };
    if let Some(open) = binder.open.take() {
        // What follows an unknown schema may be wrong only because of it.
        return Ok(Query {
            statements: Vec::new(),
            open: Some(open),
            render: None,
            options: Vec::new(),
        });
    }
    if binder.diagnostics.is_empty() && statements.is_empty() {
        let span = Span::new(0, text.len());
        let message = "the query has no tabular expression to give back";
        binder.diagnostics.push(Diagnostic::new(diagnostics::NOT_ALLOWED, span, message));
    }
    if !binder.diagnostics.is_empty() {
        return Err(binder.diagnostics);
    }
    Ok(Query { statements, open: None, render: binder.render, options: binder.options })
}

/// An error that is among the diagnostics already.
#[derive(Debug)]
struct Failed;

type Bind<T> = Result<T, Failed>;

/// A name that a plugin with an open schema should have given: which plugin, and the name.
type Inferred = (usize, String);

struct Binder<'d> {
    database: &'d Database,
    now: i64,
    schemas: &'d Schemas,
    /// Plugins with open schemas met so far.
    plugins: usize,
    /// Names that were asked for behind such plugins in an earlier pass: columns without values.
    inferred: &'d [Inferred],
    /// Such names found in this pass.
    missing: Vec<Inferred>,
    /// Whether tables have to bring [`crate::plan::INGESTION_TIME`].
    ingestion_time: bool,
    /// The plugin whose columns have to be known next.
    open: Option<Plan>,
    diagnostics: Vec<Diagnostic>,
    depth: usize,
    /// Ids given to shared plans.
    shared: u32,
    /// Tables that the statement at hand named for later ones.
    exported: Vec<(String, Plan)>,
    options: Vec<(String, Option<Value>)>,
    render: Option<Render>,
}

/// What a name stands for, inner names first. Cheap to clone.
#[derive(Clone, Default)]
struct Env(Option<Rc<Scope>>);

struct Scope {
    outer: Env,
    name: String,
    binding: Binding,
}

#[derive(Clone)]
enum Binding {
    /// Without columns.
    Scalar(Expr),
    Table(Plan),
    Function(Rc<syntax::Function>, Env),
}

impl Env {
    fn with(&self, name: &str, binding: Binding) -> Env {
        Env(Some(Rc::new(Scope { outer: self.clone(), name: name.to_owned(), binding })))
    }

    fn find(&self, name: &str) -> Option<&Binding> {
        let mut env = self;
        while let Some(scope) = &env.0 {
            if scope.name == name {
                return Some(&scope.binding);
            }
            env = &scope.outer;
        }
        None
    }

    /// The name that `as` gave to a shared plan.
    fn shared(&self, id: u32) -> Option<String> {
        let mut env = self;
        while let Some(scope) = &env.0 {
            if let Binding::Table(plan) = &scope.binding
                && matches!(*plan.node, Node::Shared { id: other, .. } if other == id)
            {
                return Some(scope.name.clone());
            }
            env = &scope.outer;
        }
        None
    }

    fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let mut env = self;
        while let Some(scope) = &env.0 {
            names.push(scope.name.as_str());
            env = &scope.outer;
        }
        names
    }
}

/// The columns that an expression may name.
#[derive(Clone, Copy)]
struct Row<'r> {
    columns: &'r [Column],
    /// In a join's condition: how many of the columns are the left side's.
    left: Option<usize>,
    /// What messages call the place: the operator's name.
    operator: &'r str,
    /// In `scan`: whose state may be read.
    scan: Option<&'r ScanSteps<'r>>,
}

/// The steps of a `scan` and the columns that each remembers.
struct ScanSteps<'r> {
    names: &'r [&'r str],
    /// The input's, then the declared ones.
    columns: &'r [Column],
}

impl<'r> Row<'r> {
    fn of(columns: &'r [Column], operator: &'r str) -> Row<'r> {
        Row { columns, left: None, operator, scan: None }
    }

    fn none(operator: &'r str) -> Row<'r> {
        Row::of(&[], operator)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A bound value: rows or one scalar.
enum Bound {
    Plan(Plan),
    Scalar(Expr),
}

impl Binder<'_> {
    fn fail<T>(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Bind<T> {
        self.diagnostics.push(Diagnostic::new(code, span, message));
        Err(Failed)
    }

    fn unsupported<T>(&mut self, span: Span, what: &str) -> Bind<T> {
        self.fail(diagnostics::NOT_SUPPORTED, span, format!("{what} is not supported"))
    }

    fn query(&mut self, statements: &[Statement]) -> Vec<Plan> {
        let mut env = Env::default();
        let mut plans = Vec::new();
        for statement in statements {
            let bound = self.statement(statement, &mut env);
            for (name, table) in std::mem::take(&mut self.exported) {
                env = env.with(&name, Binding::Table(table));
            }
            match bound {
                Ok(Some(Bound::Plan(plan))) if matches!(*plan.node, Node::Graph(_)) => {
                    if let Statement::Expression(expr) = statement {
                        let _: Bind<()> = self.fail(diagnostics::NOT_ALLOWED, expr.span, NOT_ROWS);
                    }
                }
                Ok(Some(Bound::Plan(plan))) => {
                    let plan = columns::without_hidden(plan);
                    plans.extend(subplans::unfold(plan, &mut self.shared));
                }
                Ok(Some(Bound::Scalar(_))) => {
                    if let Statement::Expression(expr) = statement {
                        let message = "a scalar expression is no query; begin it with 'print'";
                        let _: Bind<()> = self.fail(diagnostics::NOT_ALLOWED, expr.span, message);
                    }
                }
                Ok(None) | Err(Failed) => {}
            }
        }
        plans
    }

    /// Binds a statement; `let` extends the environment.
    fn statement(&mut self, statement: &Statement, env: &mut Env) -> Bind<Option<Bound>> {
        match statement {
            Statement::Expression(expr) => self.any(expr, env).map(Some),
            Statement::Let { name, value } => {
                let binding = match value {
                    LetValue::Function(function) => {
                        Binding::Function(Rc::new(function.clone()), env.clone())
                    }
                    LetValue::Expression(expr) => match self.any(expr, env) {
                        Ok(Bound::Plan(plan)) => Binding::Table(plan),
                        Ok(Bound::Scalar(scalar)) => Binding::Scalar(scalar),
                        Err(Failed) => {
                            // The name is known all the same: one error, not one for each use.
                            *env = env.with(&name.text, Binding::Scalar(null(Type::Dynamic)));
                            return Err(Failed);
                        }
                    },
                };
                *env = env.with(&name.text, binding);
                Ok(None)
            }
            Statement::Set { name, value } => {
                self.options.push((name.clone(), value.clone()));
                Ok(None)
            }
            Statement::QueryParameters(parameters) => {
                for parameter in parameters {
                    let Some(default) = &parameter.default else {
                        let message =
                            format!("query parameter '{}' has no value", parameter.name.text);
                        return self.fail(diagnostics::ARGUMENTS, parameter.name.span, message);
                    };
                    let value = self.scalar(default, &Row::none("declare"), env)?;
                    *env = env.with(&parameter.name.text, Binding::Scalar(value));
                }
                Ok(None)
            }
            Statement::Refused { what, span } => self.unsupported(*span, &format!("'{what}'")),
        }
    }

    /// An expression that is tabular or scalar.
    fn any(&mut self, expr: &syntax::Expr, env: &Env) -> Bind<Bound> {
        if self.is_tabular(expr, env) {
            return self.tabular_or_graph(expr, env, None).map(Bound::Plan);
        }
        self.scalar(expr, &Row::none("let"), env).map(Bound::Scalar)
    }

    /// Runs `bind` one level deeper.
    fn nested<T>(&mut self, span: Span, bind: impl FnOnce(&mut Self) -> Bind<T>) -> Bind<T> {
        if self.depth >= MAX_DEPTH {
            let message =
                format!("functions and sub-queries are nested deeper than {MAX_DEPTH} levels");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        self.depth += 1;
        let result = bind(self);
        self.depth -= 1;
        result
    }
}

fn expr(ty: Type, kind: ExprKind) -> Expr {
    Expr { ty, kind }
}

fn literal(value: Value) -> Expr {
    expr(value.ty(), ExprKind::Literal(value))
}

fn null(ty: Type) -> Expr {
    literal(match ty {
        Type::String => Value::String("".into()),
        ty => Value::Null(ty),
    })
}

fn column(index: usize, ty: Type) -> Expr {
    expr(ty, ExprKind::Column(index))
}

fn call(ty: Type, function: &'static str, arguments: Vec<Expr>) -> Expr {
    expr(ty, ExprKind::Call { function, arguments })
}

/// The same value in another type.
fn cast(value: Expr, ty: Type) -> Expr {
    if value.ty == ty {
        return value;
    }
    // Numbers written in the query take the wanted type at once.
    match (&value.kind, ty) {
        (ExprKind::Literal(Value::Long(number)), Type::Real) => {
            literal(Value::Real(*number as f64))
        }
        (ExprKind::Literal(Value::Long(number)), Type::Int) if i32::try_from(*number).is_ok() => {
            literal(Value::Int(*number as i32))
        }
        (ExprKind::Literal(Value::Int(number)), Type::Long) => {
            literal(Value::Long((*number).into()))
        }
        (ExprKind::Literal(Value::Null(_)), ty) => null(ty),
        _ => expr(ty, ExprKind::Cast(Box::new(value))),
    }
}

fn plan(columns: Vec<Column>, node: Node) -> Plan {
    Plan { columns, node: Box::new(node) }
}
