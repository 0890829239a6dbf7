//! Calls of functions: the language's, the database's, the query's.

use super::{Bind, Binder, Binding, Bound, Env, Failed, Row, call, cast, expr, literal, null};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::functions::{self, Function, Kind, Parameter, Returns, Signature, common_type};
use crate::plan::{Expr, ExprKind, INGESTION_TIME, Plan};
use crate::syntax::{self, ExprKind as Syntax, ParameterType};
use crate::types::{Type, Value};
use crate::{aggregates, parser, schema};
use std::rc::Rc;
use std::sync::Arc;

/// Conversions, which plans write as casts.
const CONVERSIONS: &[(&str, Type)] = &[
    ("tobool", Type::Bool),
    ("todatetime", Type::DateTime),
    ("todecimal", Type::Decimal),
    ("toguid", Type::Guid),
    ("toint", Type::Int),
    ("tolong", Type::Long),
    ("toreal", Type::Real),
    ("tostring", Type::String),
    ("totimespan", Type::TimeSpan),
];

impl Binder<'_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        span: Span,
        arguments: &[syntax::Expr],
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        if let Some(Binding::Function(function, inner)) = env.find(name) {
            let (function, inner) = (function.clone(), inner.clone());
            let bound = self.apply(&function, &inner, None, arguments, span, row, env)?;
            return self.expect_scalar(bound, span);
        }
        match name {
            "toscalar" => return self.scalar_query(arguments, span, env),
            "materialize" | "table" => {
                let message = format!("'{name}' is tabular and not allowed here");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
            "now" | "ago" => return self.clock(name, arguments, span, row, env),
            "columnifexists" | "column_ifexists" => {
                return self.column_if_exists(arguments, span, row, env);
            }
            "iscolumnexists" => {
                let found = arguments.first().and_then(|name| self.named_column(name, row, env));
                return Ok(literal(Value::Bool(found.is_some())));
            }
            "current_database" => {
                return Ok(literal(Value::String(self.database.name.as_str().into())));
            }
            "ingestion_time" => {
                return Ok(match row.find(INGESTION_TIME) {
                    Some(index) => super::column(index, Type::DateTime),
                    // Rows that come from no table were never taken in.
                    None => null(Type::DateTime),
                });
            }
            "pack_all" => return self.pack_all(arguments, row),
            "bag_pack_columns" => return self.bag_pack_columns(arguments, row, env),
            "bin_auto" => return self.bin_auto(arguments, span, row, env),
            "column_names_of" => {
                let [table] = arguments else {
                    let message = "column_names_of(): a table is expected";
                    return self.fail(diagnostics::ARGUMENTS, span, message);
                };
                let plan = self.tabular(table, env, None)?;
                let names = plan.columns.iter().map(|column| {
                    crate::literals::json(&Value::String(column.name.as_str().into()))
                });
                let json = format!("[{}]", names.collect::<Vec<_>>().join(","));
                return Ok(literal(Value::Dynamic(json.into())));
            }
            "database" | "cluster" | "workspace" | "adx" | "arg" | "app" => {
                let what = format!("'{name}(…)': there is one database here, and it");
                let message = format!("{what} needs no prefix");
                return self.fail(diagnostics::NOT_SUPPORTED, span, message);
            }
            _ => {}
        }
        if let Some((_, reason)) = functions::REFUSED.iter().find(|(refused, _)| *refused == name) {
            let message = format!("function '{name}' is not supported: {reason}");
            return self.fail(diagnostics::NOT_SUPPORTED, span, message);
        }
        let Some(function) = functions::find(name) else {
            return self.unknown_function(name, span, arguments, row, env);
        };
        self.call_of(function, arguments, span, row, env)
    }

    fn unknown_function(
        &mut self,
        name: &str,
        span: Span,
        arguments: &[syntax::Expr],
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        if let Some(schema::Function::Query { text }) = self.database.function(name) {
            let text = text.clone();
            let function = self.database_function(name, &text, span)?;
            let bound = self.apply(&function, &Env::default(), None, arguments, span, row, env)?;
            return self.expect_scalar(bound, span);
        }
        if aggregates::find(name).is_some() {
            let message = format!("'{name}' is an aggregate; it is allowed in 'summarize' only");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        let message = format!("Unknown function: '{name}'");
        let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, span, message)
            .suggest(name, functions::names().map(|name| -> &str { name }).chain(env.names()));
        self.diagnostics.push(diagnostic);
        Err(Failed)
    }

    fn call_of(
        &mut self,
        function: &'static Function,
        written: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let mut arguments = Vec::with_capacity(written.len());
        let mut type_literal = None;
        let mut failed = false;
        let takes_type = takes_type_literal(function);
        for argument in written {
            match &argument.kind {
                Syntax::TypeOf(types) if takes_type => {
                    type_literal = types.first().map(|(_, ty)| *ty);
                }
                // A bare star among arguments stands for all columns.
                Syntax::Star => {
                    let columns = row.columns.iter().enumerate().filter(|(_, c)| !c.is_hidden());
                    arguments.extend(columns.map(|(at, column)| super::column(at, column.ty)));
                }
                _ => match self.scalar(argument, row, env) {
                    Ok(argument) => arguments.push(argument),
                    Err(Failed) => failed = true,
                },
            }
        }
        if failed {
            return Err(Failed);
        }
        let (signature, arguments) = self.convert(function, arguments, type_literal, span)?;
        let ty = result_type(signature, &arguments, type_literal);
        if let Some((_, to)) = CONVERSIONS.iter().find(|(name, _)| *name == function.name) {
            let mut arguments = arguments.into_iter();
            let value = arguments.next().unwrap_or_else(|| null(*to));
            return Ok(cast(value, *to));
        }
        let name = match function.name {
            "todynamic" => "parse_json",
            name => name,
        };
        if name == "parse_json" && arguments.first().is_some_and(|a| a.ty == Type::Dynamic) {
            // A dynamic that holds text is read, another stays as it is; the engine tells them apart.
            return Ok(call(Type::Dynamic, name, arguments));
        }
        match (ty, type_literal) {
            (_, Some(wanted)) => {
                let untyped = match signature.returns {
                    Returns::TypeLiteral => Type::String,
                    _ => ty,
                };
                let untyped = if name.ends_with("json") { Type::Dynamic } else { untyped };
                Ok(cast(call(untyped, name, arguments), wanted))
            }
            // The engine finds a dynamic; as text it has no quotes.
            (ty, None) if name == "extract_json" => {
                Ok(cast(call(Type::Dynamic, name, arguments), ty))
            }
            (ty, None) => Ok(call(ty, name, arguments)),
        }
    }

    /// The signature that fits, and the arguments in its types.
    pub(super) fn convert(
        &mut self,
        function: &'static Function,
        arguments: Vec<Expr>,
        type_literal: Option<Type>,
        span: Span,
    ) -> Bind<(&'static Signature, Vec<Expr>)> {
        let types: Vec<Type> = arguments.iter().map(|argument| argument.ty).collect();
        let assigned = |signature: &'static Signature| {
            let mut types = types.clone();
            // The place of `typeof(…)` counts, its value is elsewhere.
            types.extend(type_literal.map(|_| Type::String));
            let parameters = signature.assign(&types)?;
            Some((signature, parameters))
        };
        let fitting: Vec<_> = function.signatures.iter().filter_map(assigned).collect();
        if fitting.is_empty() {
            let message = format!("{}(): the number of arguments does not fit", function.name);
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        let all = |parameters: &[&Parameter], test: fn(Kind, Type) -> bool| {
            types.iter().zip(parameters).all(|(ty, parameter)| test(parameter.kind, *ty))
        };
        let best = (fitting.iter().find(|(_, parameters)| all(parameters, Kind::is_exact)))
            .or_else(|| fitting.iter().find(|(_, parameters)| all(parameters, Kind::accepts)));
        let Some((signature, parameters)) = best else {
            let (_, parameters) = &fitting[0];
            let wrong = types.iter().zip(parameters).position(|(ty, p)| !p.kind.accepts(*ty));
            let at = wrong.unwrap_or(0);
            // A literal text stands for a time or a guid.
            let message = format!(
                "{}(): argument {} must be {}, not {}",
                function.name,
                at + 1,
                parameters[at].kind.expected(),
                types[at]
            );
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        };
        let common = common_of(&types, parameters);
        let is_common =
            |kind| matches!(kind, Kind::Common | Kind::CommonOrDynamic | Kind::CommonOrderable);
        if common.is_none() && parameters.iter().any(|p| is_common(p.kind)) {
            let message = format!("{}(): the arguments have no common type", function.name);
            return self.fail(diagnostics::TYPE_MISMATCH, span, message);
        }
        let converted = (arguments.into_iter().zip(parameters))
            .map(|(argument, parameter)| match (parameter.kind, common) {
                (kind, Some(ty)) if is_common(kind) => cast(argument, ty),
                (Kind::Of(ty), _) if ty != Type::Dynamic => cast(argument, ty),
                (kind, _) if argument.ty == Type::Dynamic && !kind.takes_dynamic() => {
                    match kind.conversion() {
                        Some(ty) => cast(argument, ty),
                        None => argument,
                    }
                }
                _ => argument,
            })
            .collect();
        Ok((signature, converted))
    }

    /// `now()`, `now(-1d)`, `ago(1d)`: one reading of the clock for the whole query.
    fn clock(
        &mut self,
        name: &str,
        arguments: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let now = literal(Value::DateTime(self.now));
        match (name, arguments) {
            ("now", []) => Ok(now),
            (_, [offset]) => {
                let offset = cast(self.scalar(offset, row, env)?, Type::TimeSpan);
                self.binary(if name == "now" { "+" } else { "-" }, now, offset, span)
            }
            _ => {
                let message = format!("{name}(): the number of arguments does not fit");
                self.fail(diagnostics::ARGUMENTS, span, message)
            }
        }
    }

    /// `bin_auto(x)`: the size and the fixed point are options of the query.
    fn bin_auto(
        &mut self,
        arguments: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let [value] = arguments else {
            let message = "bin_auto(): one argument is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let value = self.scalar(value, row, env)?;
        let option = |name: &str| {
            let found = self.options.iter().rfind(|(known, _)| known == name);
            found.and_then(|(_, value)| value.clone())
        };
        let (size, at) = (option("query_bin_auto_size"), option("query_bin_auto_at"));
        let Some(size) = size else {
            let message = "bin_auto(): 'set query_bin_auto_size = …;' is missing";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let ty = value.ty;
        let (function, arguments) = match at {
            Some(at) => ("bin_at", vec![value, literal(size), literal(at)]),
            None => ("bin", vec![value, literal(size)]),
        };
        Ok(call(ty, function, arguments))
    }

    /// The column that an expression names: by itself, or by its constant text.
    fn named_column(&mut self, name: &syntax::Expr, row: &Row, env: &Env) -> Option<usize> {
        if let Syntax::Name(name) = &name.kind
            && let Some(found) = row.find(name)
        {
            return Some(found);
        }
        let known = self.diagnostics.len();
        let bound = self.scalar(name, &Row::none("column_ifexists"), env);
        self.diagnostics.truncate(known);
        match bound.ok()?.kind {
            ExprKind::Literal(Value::String(text)) => row.find(&text),
            // A parameter that stands for a column of the caller's rows.
            ExprKind::Column(at) if at < row.columns.len() => Some(at),
            _ => None,
        }
    }

    fn column_if_exists(
        &mut self,
        arguments: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Expr> {
        let [name, default] = arguments else {
            let message = "column_ifexists(): a column's name and a default are expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        match self.named_column(name, row, env) {
            Some(index) => Ok(super::column(index, row.columns[index].ty)),
            None => self.scalar(default, row, env),
        }
    }

    /// A bag of columns under their names.
    fn bag_pack_columns(&mut self, arguments: &[syntax::Expr], row: &Row, env: &Env) -> Bind<Expr> {
        let mut packed = Vec::new();
        for argument in arguments {
            if matches!(argument.kind, Syntax::Star | Syntax::Wildcard(_)) {
                for at in self.matching(argument, row.columns)? {
                    packed.push(literal(Value::String(row.columns[at].name.as_str().into())));
                    packed.push(super::column(at, row.columns[at].ty));
                }
                continue;
            }
            let value = self.scalar(argument, row, env)?;
            let Some(name) = self.default_name(argument, env) else {
                let message = "bag_pack_columns(): a column is expected";
                return self.fail(diagnostics::ARGUMENTS, argument.span, message);
            };
            packed.push(literal(Value::String(name.into())));
            packed.push(value);
        }
        Ok(call(Type::Dynamic, "bag_pack", packed))
    }

    fn pack_all(&mut self, arguments: &[syntax::Expr], row: &Row) -> Bind<Expr> {
        let mut packed = Vec::new();
        for (index, column) in row.columns.iter().enumerate().filter(|(_, c)| !c.is_hidden()) {
            packed.push(literal(Value::String(column.name.as_str().into())));
            packed.push(super::column(index, column.ty));
        }
        let skip_empty = matches!(
            arguments.first().map(|first| &first.kind),
            Some(Syntax::Literal(Value::Bool(true)))
        );
        let function = if skip_empty { "pack_all" } else { "bag_pack" };
        Ok(call(Type::Dynamic, function, packed))
    }

    fn scalar_query(&mut self, arguments: &[syntax::Expr], span: Span, env: &Env) -> Bind<Expr> {
        let [argument] = arguments else {
            let message = "toscalar(): one argument is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        if !self.is_tabular(argument, env) {
            return self.scalar(argument, &Row::none("toscalar"), env);
        }
        let plan = self.tabular(argument, env, None)?;
        let ty = plan.columns.first().map_or(Type::Dynamic, |column| column.ty);
        Ok(expr(ty, ExprKind::ScalarQuery(Arc::new(plan))))
    }

    pub(super) fn database_function(
        &mut self,
        name: &str,
        text: &str,
        span: Span,
    ) -> Bind<Rc<syntax::Function>> {
        match parser::parse_function(text) {
            Ok(function) => Ok(Rc::new(function)),
            Err(_) => {
                let message = format!("the saved function '{name}' cannot be read");
                self.fail(diagnostics::NOT_ALLOWED, span, message)
            }
        }
    }

    /// Substitutes a function: arguments bound in the caller's scope, the body in the function's.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn apply(
        &mut self,
        function: &syntax::Function,
        scope: &Env,
        input: Option<Plan>,
        arguments: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Bound> {
        self.nested(span, |binder| {
            let mut inner = scope.clone();
            let mut input = input;
            let mut positional =
                arguments.iter().filter(|a| !matches!(a.kind, Syntax::Named { .. }));
            for parameter in &function.parameters {
                let name = &parameter.name.text;
                if matches!(parameter.ty, ParameterType::Table { .. })
                    && let Some(plan) = input.take()
                {
                    inner = inner.with(name, Binding::Table(plan));
                    continue;
                }
                let named = arguments.iter().find_map(|argument| match &argument.kind {
                    Syntax::Named { names, value } if names[0].text == *name => Some(&**value),
                    _ => None,
                });
                let argument = named.or_else(|| positional.next()).or(parameter.default.as_ref());
                let Some(argument) = argument else {
                    let message = format!("argument '{name}' is missing");
                    return binder.fail(diagnostics::ARGUMENTS, span, message);
                };
                let binding = match &parameter.ty {
                    ParameterType::Scalar(ty) => {
                        Binding::Scalar(cast(binder.scalar(argument, row, env)?, *ty))
                    }
                    ParameterType::Table { .. } => {
                        Binding::Table(binder.tabular(argument, env, None)?)
                    }
                };
                inner = inner.with(name, binding);
            }
            if positional.next().is_some() {
                let message = "the function takes fewer arguments";
                return binder.fail(diagnostics::ARGUMENTS, span, message);
            }
            let mut result = None;
            for statement in &function.body {
                if let Some(bound) = binder.statement(statement, &mut inner)? {
                    result = Some(bound);
                }
            }
            match result {
                Some(bound) => Ok(bound),
                None => binder.fail(diagnostics::NOT_ALLOWED, span, "the function has no result"),
            }
        })
    }
}

/// The type that all arguments of a common kind share.
fn common_of(types: &[Type], parameters: &[&Parameter]) -> Option<Type> {
    let kinds = [Kind::Common, Kind::CommonOrDynamic, Kind::CommonOrderable];
    let mut common: Option<Type> = None;
    for (ty, parameter) in types.iter().zip(parameters) {
        if !kinds.contains(&parameter.kind) {
            continue;
        }
        common = Some(match common {
            None => *ty,
            Some(Type::Dynamic) => *ty,
            Some(common) if *ty == Type::Dynamic => common,
            Some(common) => common_type(common, *ty)?,
        });
    }
    common
}

fn takes_type_literal(function: &Function) -> bool {
    let parameters = function.signatures.iter().flat_map(|signature| &signature.parameters);
    parameters.into_iter().any(|parameter| parameter.kind == Kind::TypeLiteral)
}

/// The type of a call's result.
pub(super) fn result_type(
    signature: &Signature,
    arguments: &[Expr],
    type_literal: Option<Type>,
) -> Type {
    let argument = |at: usize| arguments.get(at).map_or(Type::Dynamic, |argument| argument.ty);
    match &signature.returns {
        Returns::Type(ty) => *ty,
        Returns::Argument(at) => argument(*at),
        Returns::Promoted => match argument(0) {
            Type::Int => Type::Long,
            ty => ty,
        },
        Returns::Widest => {
            let widest = arguments
                .iter()
                .map(|argument| argument.ty)
                .reduce(|a, b| common_type(a, b).unwrap_or(a));
            match widest {
                Some(Type::Int) | None => Type::Long,
                Some(ty) => ty,
            }
        }
        Returns::Common | Returns::CommonNotDynamic => {
            let types: Vec<Type> = arguments.iter().map(|argument| argument.ty).collect();
            let parameters = signature.assign(&types).unwrap_or_default();
            common_of(&types, &parameters).unwrap_or(Type::Dynamic)
        }
        Returns::TypeLiteral => type_literal.unwrap_or(Type::String),
        Returns::Columns(_) | Returns::Sorted | Returns::Custom => Type::Dynamic,
    }
}
