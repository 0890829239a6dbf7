//! Tabular expressions: sources and pipelines of operators.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Binding, Bound, Env, Row, call, cast, literal, null, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::schema;
use crate::syntax::{self, ExprKind as Syntax, Name, Operator, OperatorKind, Segment};
use crate::types::{Type, Value};
use std::sync::Arc;

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

    fn table(&mut self, name: &str, span: Span, env: &Env) -> Bind<Plan> {
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

    fn tabular_call(
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
    fn applied(
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

    fn data_table(
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

    fn operator(&mut self, input: Option<Plan>, operator: &Operator, env: &mut Env) -> Bind<Plan> {
        let span = operator.span;
        // Operators that need no input.
        match &operator.kind {
            OperatorKind::Print(items) => return self.print(items, env),
            OperatorKind::Range { column, from, to, step } => {
                return self.range(column, [from, to, step], span, env);
            }
            OperatorKind::Union { options, tables } => {
                return self.union(input, options, tables, span, env);
            }
            OperatorKind::Search { options, tables, predicate } => {
                return self.search(input, options, tables, predicate, span, env);
            }
            OperatorKind::Find { options, tables, predicate, project } => {
                return self.find(options, tables, predicate, project.as_deref(), span, env);
            }
            OperatorKind::Evaluate { call, schema } if input.is_none() => {
                return self.evaluate(None, call, schema.as_deref(), span, env);
            }
            _ => {}
        }
        let Some(input) = input else {
            return self.unsupported(span, "this operator without an input");
        };
        if let Node::Batch { .. } = *input.node {
            let message = "no operator can follow one that makes several tables";
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        if let Node::Graph(graph) = *input.node {
            return self.graph_operator(*graph, operator, env);
        }
        let columns = input.columns.clone();
        Ok(match &operator.kind {
            OperatorKind::MakeGraph { source, target, nodes, node_id } => {
                self.make_graph(input, [source, target], nodes, node_id.as_ref(), env)?
            }
            OperatorKind::GraphMatch { .. }
            | OperatorKind::GraphWhere { .. }
            | OperatorKind::GraphMarkComponents(_)
            | OperatorKind::GraphToTable(_) => {
                let message = "the input is no graph; 'make-graph' makes one of a table of edges";
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
            OperatorKind::Where(predicate) => {
                // A wrong condition does not hide what is wrong behind it.
                match self.condition(predicate, &Row::of(&columns, "where"), env) {
                    Ok(predicate) => plan(columns, Node::Filter { input, predicate }),
                    Err(super::Failed) => input,
                }
            }
            OperatorKind::Project(items) => self.project(input, items, "project", env)?,
            OperatorKind::Extend(items) => self.extend(input, items, "extend", env)?,
            OperatorKind::ProjectAway(patterns) => self.choose(input, patterns, false)?,
            OperatorKind::ProjectKeep(patterns) => self.choose(input, patterns, true)?,
            OperatorKind::ProjectByNames(names) => self.choose_by_names(input, names, env)?,
            OperatorKind::ProjectRename(items) => self.rename(input, items)?,
            OperatorKind::ProjectReorder(items) => self.reorder(input, items)?,
            OperatorKind::Summarize { aggregates, by } => {
                self.summarize(input, aggregates, by.as_deref(), env)?
            }
            OperatorKind::Count => {
                let columns = vec![Column { name: "Count".to_owned(), ty: Type::Long }];
                plan(columns, Node::Count { input })
            }
            OperatorKind::Take(count) => {
                let count = self.constant(count, "take", Type::Long, env)?;
                plan(columns, Node::Take { input, count })
            }
            OperatorKind::Sample(count) => {
                let count = self.constant(count, "sample", Type::Long, env)?;
                plan(columns, Node::Sample { input, count })
            }
            OperatorKind::SampleDistinct { count, of } => {
                let count = self.constant(count, "sample-distinct", Type::Long, env)?;
                let row = Row::of(&columns, "sample-distinct");
                let name = self.default_name(of, env).unwrap_or_else(|| "Column1".to_owned());
                let of = self.scalar(of, &row, env)?;
                let columns = vec![Column { name, ty: of.ty }];
                plan(columns, Node::SampleDistinct { input, count, of })
            }
            OperatorKind::Sort(keys) => {
                let keys = self.sort_keys(keys, &columns, "sort", env)?;
                plan(columns, Node::Sort { input, keys })
            }
            OperatorKind::Top { count, keys } => {
                let count = self.constant(count, "top", Type::Long, env)?;
                let keys = self.sort_keys(keys, &columns, "top", env)?;
                plan(columns, Node::Top { input, count, keys })
            }
            OperatorKind::Distinct(items) => {
                let projected = self.project(input, items, "distinct", env)?;
                plan(projected.columns.clone(), Node::Distinct { input: projected })
            }
            OperatorKind::Join { options, right, on } => {
                self.join(input, options, right, on, span, env)?
            }
            OperatorKind::Lookup { options, right, on } => {
                self.lookup(input, options, right, on, span, env)?
            }
            OperatorKind::Serialize(items) if items.is_empty() => {
                plan(columns, Node::Serialize { input })
            }
            OperatorKind::Serialize(items) => {
                let serialized = plan(columns, Node::Serialize { input });
                self.extend(serialized, items, "serialize", env)?
            }
            OperatorKind::As(name) => {
                self.shared += 1;
                let node = Node::Shared { id: self.shared, plan: Arc::new(input) };
                let shared = plan(columns, node);
                *env = env.with(&name.text, Binding::Table(shared.clone()));
                shared
            }
            OperatorKind::Consume => {
                let count = literal(Value::Long(0));
                plan(columns, Node::Take { input, count })
            }
            OperatorKind::GetSchema => {
                let schema = [
                    ("ColumnName", Type::String),
                    ("ColumnOrdinal", Type::Int),
                    ("DataType", Type::String),
                    ("ColumnType", Type::String),
                ];
                let result = schema.map(|(name, ty)| Column { name: name.to_owned(), ty });
                let of = columns.into_iter().filter(|column| !column.is_hidden()).collect();
                plan(result.to_vec(), Node::GetSchema { of })
            }
            OperatorKind::MvExpand { options, items, limit } => {
                self.mv_expand(input, options, items, limit.as_ref(), span, env)?
            }
            OperatorKind::Parse { filter, options, source, pattern } => {
                self.parse(input, *filter, options, source, pattern, span, env)?
            }
            OperatorKind::MvApply { options, items, limit, plan: inner } => {
                self.mv_apply(input, options, items, limit.as_ref(), inner, span, env)?
            }
            OperatorKind::ParseKv { source, columns, options } => {
                self.parse_kv(input, source, columns, options, span, env)?
            }
            OperatorKind::MakeSeries { options, aggregates, on, from, to, step, in_range, by } => {
                let bounds = [from.as_ref(), to.as_ref(), step.as_ref()];
                self.make_series(input, options, aggregates, on, bounds, *in_range, by, span, env)?
            }
            OperatorKind::TopNested(levels) => self.top_nested(input, levels, span, env)?,
            OperatorKind::TopHitters { count, of, by } => {
                self.top_hitters(input, count, of, by.as_ref(), span, env)?
            }
            OperatorKind::Reduce { by, options } => self.reduce(input, by, options, span, env)?,
            OperatorKind::Evaluate { call, schema } => {
                self.evaluate(Some(input), call, schema.as_deref(), span, env)?
            }
            OperatorKind::Partition { by, plan: inner } => {
                self.partition(input, by, inner, span, env)?
            }
            OperatorKind::Fork(branches) => self.fork(input, branches, env)?,
            OperatorKind::Facet { by, with } => self.facet(input, by, with.as_deref(), env)?,
            OperatorKind::Scan { options, partition_by, declare, steps } => {
                self.scan(input, options, partition_by, declare, steps, span, env)?
            }
            OperatorKind::Invoke(written) => match &written.kind {
                Syntax::Call { function, arguments } => {
                    self.applied(Some(input), function, arguments, span, env)?
                }
                Syntax::Name(name) => {
                    let function = Name { text: name.clone(), span: written.span };
                    self.applied(Some(input), &function, &[], span, env)?
                }
                _ => {
                    let message = "'invoke' operator: a function is expected";
                    return self.fail(diagnostics::NOT_ALLOWED, written.span, message);
                }
            },
            OperatorKind::Render { kind, properties } => {
                self.render =
                    Some(Render { kind: kind.text.clone(), properties: properties.clone() });
                input
            }
            OperatorKind::Other { name } => {
                return self.unsupported(span, &format!("operator '{name}'"));
            }
            // Those that need no input were taken above.
            _ => return self.fail(diagnostics::NOT_ALLOWED, span, "the operator takes no input"),
        })
    }

    /// An operator whose input is a graph.
    fn graph_operator(&mut self, graph: Graph, operator: &Operator, env: &mut Env) -> Bind<Plan> {
        let span = operator.span;
        match &operator.kind {
            OperatorKind::GraphMatch { shortest, options, paths, predicate, project } => {
                let predicate = predicate.as_ref();
                self.graph_match(graph, *shortest, options, paths, predicate, project, span, env)
            }
            OperatorKind::GraphWhere { edges, predicate } => {
                self.graph_where(graph, *edges, predicate, env)
            }
            OperatorKind::GraphMarkComponents(options) => {
                self.mark_components(graph, options, span)
            }
            OperatorKind::GraphToTable(tables) => self.graph_to_table(&graph, tables),
            OperatorKind::As(name) => {
                let graph = plan(Vec::new(), Node::Graph(Box::new(graph)));
                *env = env.with(&name.text, Binding::Table(graph.clone()));
                Ok(graph)
            }
            _ => self.fail(diagnostics::NOT_ALLOWED, span, super::NOT_ROWS),
        }
    }

    fn print(&mut self, written: &[syntax::Expr], env: &Env) -> Bind<Plan> {
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

    fn range(
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

    pub(super) fn sort_keys(
        &mut self,
        written: &[syntax::SortKey],
        columns: &[Column],
        operator: &str,
        env: &Env,
    ) -> Bind<Vec<SortKey>> {
        let row = Row::of(columns, operator);
        let mut keys = Vec::new();
        for key in written {
            let span = key.expr.span;
            let expr = self.scalar(&key.expr, &row, env)?;
            let expr = match expr.ty {
                Type::Dynamic => {
                    let message =
                        format!("'{operator}' operator: a key of type dynamic; convert it first");
                    return self.fail(diagnostics::TYPE_MISMATCH, span, message);
                }
                _ => expr,
            };
            let descending = key.descending.unwrap_or(true);
            let nulls_first = key.nulls_first.unwrap_or(!descending);
            keys.push(SortKey { expr, descending, nulls_first });
        }
        Ok(keys)
    }

    #[allow(clippy::too_many_arguments)]
    fn parse(
        &mut self,
        input: Plan,
        filter: bool,
        options: &syntax::Settings,
        source: &syntax::Expr,
        written: &[Segment],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let source = self.scalar(source, &Row::of(&input_columns, "parse"), env)?;
        let source = cast(source, Type::String);
        let mode = match setting(options, "kind").unwrap_or("simple") {
            "simple" => ParseMode::Simple,
            "regex" => ParseMode::Regex,
            "relaxed" => ParseMode::Relaxed,
            other => {
                let message = format!("'parse' operator: '{other}' is no kind");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let mut columns = input_columns;
        let mut output = Vec::new();
        let mut segments = Vec::new();
        for segment in written {
            segments.push(match segment {
                Segment::Star => ParseSegment::Skip,
                Segment::Text(text) => ParseSegment::Text(text.clone()),
                Segment::Column { name, ty } => {
                    let ty = ty.unwrap_or(Type::String);
                    let place = columns.iter().position(|column| column.name == name.text);
                    let at = match place {
                        Some(at) => {
                            columns[at].ty = ty;
                            at
                        }
                        None => {
                            columns.push(Column { name: name.text.clone(), ty });
                            columns.len() - 1
                        }
                    };
                    output.push(ParseOutput { output: at, ty });
                    ParseSegment::Capture(output.len() - 1)
                }
            });
        }
        let flags = setting(options, "flags").unwrap_or_default().to_owned();
        let pattern = ParsePattern { mode, segments, flags };
        let keep_unmatched = !filter;
        Ok(plan(columns, Node::Parse { input, source, pattern, keep_unmatched, output }))
    }
}

fn columns_of(written: &[(Name, Type)]) -> Vec<Column> {
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
        (ExprKind::Call { function: "-", arguments }, _) if arguments.len() == 1 => {
            call(ty, "-", vec![literal_as(arguments[0].clone(), ty)])
        }
        _ => cast(value, ty),
    }
}
