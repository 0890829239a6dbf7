//! Bound plans → DataFusion plans. Columns are `c0`, `c1` … by position, so that names of a query
//! never meet DataFusion's rules for names.

use crate::aggregates::{self, Kind};
use crate::database::Database;
use crate::error::QueryError;
use crate::expressions::{Lower, SubResults, column_name, key, scalar_value, typed, unsupported};
use crate::functions::{self, arrow_type};
use crate::rows;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column as DfColumn, JoinType, NullEquality, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use vigie_kql::plan::{Aggregate, Column, Expr, ExprKind, JoinKind, Node, Plan, SortKey};
use vigie_kql::types::{Type, Value};

/// Most rows of a sub-query that become a list.
const LONGEST_LIST: usize = 1_000_000;
/// Most rows that `range` gives.
const LONGEST_RANGE: i64 = 10_000_000;

/// One query on its way to rows.
pub struct Planner<'a> {
    pub context: &'a SessionContext,
    pub database: &'a Database,
    pub results: SubResults,
    /// Rows of shared plans that are read more than once, by id.
    shared_rows: HashMap<u32, Arc<MemTable>>,
    /// Summaries lowered so far.
    summaries: Cell<usize>,
}

impl<'a> Planner<'a> {
    pub fn new(context: &'a SessionContext, database: &'a Database) -> Planner<'a> {
        Planner {
            context,
            database,
            results: SubResults::default(),
            shared_rows: HashMap::new(),
            summaries: Cell::new(0),
        }
    }

    /// Runs the sub-queries of a plan, innermost first, then lowers it.
    pub fn plan(&mut self, plan: &'a Plan) -> BoxFuture<'_, Result<LogicalPlan, QueryError>> {
        Box::pin(async move {
            let mut found = SubQueries::default();
            found.in_plan(plan);
            for scalar in found.scalars {
                if self.results.scalars.contains_key(&key(scalar)) {
                    continue;
                }
                let batches = self.collect(scalar, Some(1)).await?;
                let first = batches.iter().find(|batch| batch.num_rows() > 0);
                let value = match first {
                    Some(batch) => ScalarValue::try_from_array(batch.column(0), 0)?,
                    None => scalar_value(&vigie_kql::plan_text::null_of(
                        scalar.columns.first().map_or(Type::Dynamic, |column| column.ty),
                    )),
                };
                self.results.scalars.insert(key(scalar), value);
            }
            for list in found.lists {
                if self.results.lists.contains_key(&key(list)) {
                    continue;
                }
                let batches = self.collect(list, Some(LONGEST_LIST)).await?;
                let mut values = Vec::new();
                for batch in &batches {
                    for row in 0..batch.num_rows() {
                        let value = ScalarValue::try_from_array(batch.column(0), row)?;
                        if !value.is_null() {
                            values.push(value);
                        }
                    }
                }
                self.results.lists.insert(key(list), values);
            }
            for (id, shared) in found.shared {
                // Read once, it is as good as its own plan.
                if found.shared_uses.get(&id).copied().unwrap_or(0) < 2
                    || self.shared_rows.contains_key(&id)
                {
                    continue;
                }
                let batches = self.collect(shared, None).await?;
                let table = MemTable::try_new(schema_of(&shared.columns), vec![batches])?;
                self.shared_rows.insert(id, Arc::new(table));
            }
            self.lower(plan).await
        })
    }

    async fn collect(
        &mut self,
        plan: &'a Plan,
        limit: Option<usize>,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let lowered = self.plan(plan).await?;
        let mut builder = LogicalPlanBuilder::from(lowered);
        if limit.is_some() {
            builder = builder.limit(0, limit)?;
        }
        let frame = self.context.execute_logical_plan(builder.build()?).await?;
        Ok(frame.collect().await?)
    }

    fn lower(&mut self, plan: &'a Plan) -> BoxFuture<'_, Result<LogicalPlan, QueryError>> {
        Box::pin(async move {
            let columns = &plan.columns;
            Ok(match &*plan.node {
                Node::Table { name } => self.table(name, columns)?,
                Node::Values { rows } => self.values(columns, rows)?,
                Node::Print { items } => {
                    let one = LogicalPlanBuilder::empty(true).build()?;
                    self.project(one, items)?
                }
                Node::Range { from, to, step } => self.range(columns[0].ty, [from, to, step])?,
                Node::Shared { id, plan } => match self.shared_rows.get(id) {
                    Some(table) => {
                        let source = provider_as_source(table.clone());
                        LogicalPlanBuilder::scan("shared", source, None)?.build()?
                    }
                    None => self.lower(plan).await?,
                },
                Node::Filter { input, predicate } => {
                    let input = self.lower(input).await?;
                    let predicate = self.expressions().predicate(predicate)?;
                    LogicalPlanBuilder::from(input).filter(predicate)?.build()?
                }
                Node::Project { input, items } => {
                    let input = self.lower(input).await?;
                    self.project(input, items)?
                }
                Node::Serialize { input } => self.lower(input).await?,
                Node::Take { input, count } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    LogicalPlanBuilder::from(input).limit(0, Some(count))?.build()?
                }
                Node::Sample { input, count } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    let random = datafusion::functions::math::expr_fn::random();
                    let sort = random.sort(true, false);
                    LogicalPlanBuilder::from(input)
                        .sort_with_limit(vec![sort], Some(count))?
                        .build()?
                }
                Node::SampleDistinct { input, count, of } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    let projected = self.project(input, std::slice::from_ref(of))?;
                    LogicalPlanBuilder::from(projected)
                        .distinct()?
                        .limit(0, Some(count))?
                        .build()?
                }
                Node::Sort { input, keys } => {
                    let input = self.lower(input).await?;
                    let keys = self.sort_keys(keys)?;
                    LogicalPlanBuilder::from(input).sort(keys)?.build()?
                }
                Node::Top { input, count, keys } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    let keys = self.sort_keys(keys)?;
                    LogicalPlanBuilder::from(input).sort_with_limit(keys, Some(count))?.build()?
                }
                Node::Count { input } => {
                    let input = self.lower(input).await?;
                    let count = agg::count(lit(1i64)).alias("c0");
                    LogicalPlanBuilder::from(input)
                        .aggregate(Vec::<Df>::new(), vec![count])?
                        .build()?
                }
                Node::Distinct { input } => {
                    let input = self.lower(input).await?;
                    LogicalPlanBuilder::from(input).distinct()?.build()?
                }
                Node::Summarize { input, keys, aggregates } => {
                    let input = self.lower(input).await?;
                    self.summarize(input, keys, aggregates)?
                }
                Node::Join { kind, left, right, on, output } => {
                    let lefts = left.columns.clone();
                    let rights = right.columns.clone();
                    let left = self.lower(left).await?;
                    let right = self.lower(right).await?;
                    self.join(*kind, (left, &lefts), (right, &rights), on, output)?
                }
                Node::Union { inputs } => {
                    let mut all = Vec::new();
                    for input in inputs {
                        all.push(self.lower(input).await?);
                    }
                    let mut all = all.into_iter();
                    let first = all.next().ok_or_else(|| unsupported("a union of nothing"))?;
                    let mut builder = LogicalPlanBuilder::from(first);
                    for next in all {
                        builder = builder.union(next)?;
                    }
                    builder.build()?
                }
                Node::GetSchema { of } => {
                    let rows = of.iter().enumerate().map(|(at, column)| {
                        vec![
                            Value::String(column.name.as_str().into()),
                            Value::Int(at as i32),
                            Value::String(column.ty.dotnet_name().into()),
                            Value::String(column.ty.name().into()),
                        ]
                    });
                    self.values(columns, &rows.collect::<Vec<_>>())?
                }
                Node::MvExpand { input, items, kind, item_index, limit } => {
                    let limit = limit.as_ref().map(|limit| self.count(limit)).transpose()?;
                    let width = input.columns.len();
                    let lowered = self.lower(input).await?;
                    // The expanded values stand behind the input's columns.
                    let mut exprs: Vec<Df> = (0..width).map(|at| ident(column_name(at))).collect();
                    for (at, item) in items.iter().enumerate() {
                        let value = self.expressions().expr(&item.expr)?;
                        exprs.push(value.alias(column_name(width + at)));
                    }
                    let with = LogicalPlanBuilder::from(lowered).project(exprs)?.build()?;
                    let batches = self.context.execute_logical_plan(with).await?.collect().await?;
                    let schema = schema_of(columns);
                    let expand =
                        rows::Expand { items, kind: *kind, item_index: *item_index, limit, width };
                    let batches = (batches.iter())
                        .map(|batch| expand.batch(batch, columns, &schema))
                        .collect::<Result<Vec<_>, _>>()?;
                    self.memory(schema, batches)?
                }
                Node::Parse { input, source, pattern, keep_unmatched, output } => {
                    let width = input.columns.len();
                    let lowered = self.lower(input).await?;
                    let mut exprs: Vec<Df> = (0..width).map(|at| ident(column_name(at))).collect();
                    exprs.push(self.expressions().expr(source)?.alias(column_name(width)));
                    let with = LogicalPlanBuilder::from(lowered).project(exprs)?.build()?;
                    let batches = self.context.execute_logical_plan(with).await?.collect().await?;
                    let schema = schema_of(columns);
                    let parse = rows::Parse::new(pattern, output, *keep_unmatched, width)?;
                    let batches = (batches.iter())
                        .map(|batch| parse.batch(batch, columns, &schema))
                        .collect::<Result<Vec<_>, _>>()?;
                    self.memory(schema, batches)?
                }
                Node::Invoke { function, .. } => {
                    return Err(unsupported(&format!("function '{function}'")));
                }
                Node::ExternalData { .. } => {
                    let message = "externaldata: the operator of this server allows no sources";
                    return Err(QueryError::Runtime(message.to_owned()));
                }
                other => return Err(unsupported(&format!("operator '{}'", other.name()))),
            })
        })
    }

    fn expressions(&self) -> Lower<'_> {
        Lower { results: &self.results }
    }

    fn memory(
        &self,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<LogicalPlan, QueryError> {
        let table = MemTable::try_new(schema, vec![batches])?;
        let source = provider_as_source(Arc::new(table));
        Ok(LogicalPlanBuilder::scan("rows", source, None)?.build()?)
    }

    fn table(&self, name: &str, columns: &[Column]) -> Result<LogicalPlan, QueryError> {
        let provider = self.database.provider(name)?;
        let schema = provider.schema();
        let scan = LogicalPlanBuilder::scan("t", provider_as_source(provider), None)?;
        let exprs = columns.iter().enumerate().map(|(at, column)| {
            // Rows in memory of another program may lack a column.
            let value = match schema.index_of(&column.name) {
                Ok(_) => ident(&column.name),
                Err(_) => lit(scalar_value(&vigie_kql::plan_text::null_of(column.ty))),
            };
            value.alias(column_name(at))
        });
        Ok(scan.project(exprs.collect::<Vec<_>>())?.build()?)
    }

    fn project(&self, input: LogicalPlan, items: &[Expr]) -> Result<LogicalPlan, QueryError> {
        let mut exprs = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let value = typed(self.expressions().expr(item)?, item.ty, input.schema())?;
            exprs.push(value.alias(column_name(at)));
        }
        Ok(LogicalPlanBuilder::from(input).project(exprs)?.build()?)
    }

    fn sort_keys(
        &self,
        keys: &[SortKey],
    ) -> Result<Vec<datafusion::logical_expr::SortExpr>, QueryError> {
        keys.iter()
            .map(|key| {
                Ok(self.expressions().expr(&key.expr)?.sort(!key.descending, key.nulls_first))
            })
            .collect()
    }

    /// The value of an expression without columns.
    fn constant(&self, expr: &Expr) -> Result<ScalarValue, QueryError> {
        let lowered = self.expressions().expr(expr)?;
        let schema = datafusion::common::DFSchema::empty();
        let physical = self.context.create_physical_expr(lowered, &schema)?;
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            vec![],
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(1)),
        )
        .map_err(datafusion::error::DataFusionError::from)?;
        let value = physical.evaluate(&one)?;
        Ok(match value {
            datafusion::logical_expr::ColumnarValue::Scalar(value) => value,
            datafusion::logical_expr::ColumnarValue::Array(array) => {
                ScalarValue::try_from_array(&array, 0)?
            }
        })
    }

    fn count(&self, expr: &Expr) -> Result<usize, QueryError> {
        match self.constant(expr)? {
            ScalarValue::Int64(Some(count)) => Ok(usize::try_from(count).unwrap_or(0)),
            _ => Err(QueryError::Runtime("a number of rows is expected".to_owned())),
        }
    }

    fn values(&self, columns: &[Column], rows: &[Vec<Value>]) -> Result<LogicalPlan, QueryError> {
        let schema = schema_of(columns);
        let mut arrays = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let values = rows.iter().map(|row| scalar_value(&row[at])).collect::<Vec<_>>();
            arrays.push(match values.is_empty() {
                true => arrow::array::new_empty_array(&arrow_type(column.ty)),
                false => ScalarValue::iter_to_array(values)?,
            });
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
            .map_err(datafusion::error::DataFusionError::from)?;
        self.memory(schema, vec![batch])
    }

    fn range(&self, ty: Type, bounds: [&Expr; 3]) -> Result<LogicalPlan, QueryError> {
        let [from, to, step] = bounds.map(|bound| self.constant(bound));
        let too_many = || QueryError::Limit(crate::error::Limit::Memory);
        let values: Vec<Value> = match (from?, to?, step?) {
            (
                ScalarValue::Int64(Some(from)),
                ScalarValue::Int64(Some(to)),
                ScalarValue::Int64(Some(step)),
            ) => {
                if step == 0 || (to - from) / step > LONGEST_RANGE {
                    return Err(too_many());
                }
                let mut values = Vec::new();
                let mut at = from;
                while (step > 0 && at <= to) || (step < 0 && at >= to) {
                    values.push(match ty {
                        Type::DateTime => Value::DateTime(at),
                        Type::TimeSpan => Value::TimeSpan(at),
                        _ => Value::Long(at),
                    });
                    at += step;
                }
                values
            }
            (
                ScalarValue::Float64(Some(from)),
                ScalarValue::Float64(Some(to)),
                ScalarValue::Float64(Some(step)),
            ) => {
                if step == 0.0 || (to - from) / step > LONGEST_RANGE as f64 {
                    return Err(too_many());
                }
                let count = ((to - from) / step).floor() as i64;
                (0..=count).map(|at| Value::Real(from + at as f64 * step)).collect()
            }
            _ => Vec::new(),
        };
        let columns = [Column { name: "c0".to_owned(), ty }];
        self.values(&columns, &values.into_iter().map(|value| vec![value]).collect::<Vec<_>>())
    }

    fn summarize(
        &self,
        input: LogicalPlan,
        keys: &[Expr],
        aggregates: &[Aggregate],
    ) -> Result<LogicalPlan, QueryError> {
        let schema = input.schema().clone();
        // A key's name must not be that of another column below: DataFusion 55 pushes filters on
        // keys, such as the bounds that a join found, through an aggregate by name alone.
        let summary = self.summaries.replace(self.summaries.get() + 1);
        let key_name = |at: usize| format!("k{summary}_{at}");
        let mut groups = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let value = typed(self.expressions().expr(key)?, key.ty, &schema)?;
            groups.push(value.alias(key_name(at)));
        }
        let mut calls = Vec::new();
        // What each result column is made of, over keys and raw aggregates.
        let mut finals: Vec<Df> = (0..keys.len()).map(|at| ident(key_name(at))).collect();
        for aggregate in aggregates {
            self.aggregate(aggregate, &mut calls, &mut finals)?;
        }
        let calls: Vec<Df> = (calls.into_iter().enumerate())
            .map(|(at, call)| call.alias(format!("a{at}")))
            .collect();
        let grouped = match calls.is_empty() {
            true => LogicalPlanBuilder::from(input).project(groups)?.distinct()?.build()?,
            false => LogicalPlanBuilder::from(input).aggregate(groups, calls)?.build()?,
        };
        let named: Vec<Df> = (finals.into_iter().enumerate())
            .map(|(at, value)| value.alias(column_name(at)))
            .collect();
        Ok(LogicalPlanBuilder::from(grouped).project(named)?.build()?)
    }

    /// Appends the calls that an aggregate needs, and its results over them.
    fn aggregate(
        &self,
        aggregate: &Aggregate,
        calls: &mut Vec<Df>,
        finals: &mut Vec<Df>,
    ) -> Result<(), QueryError> {
        let name = aggregate.function;
        let ty = aggregate.columns.first().map_or(Type::Dynamic, |column| column.ty);
        let arguments = aggregate.arguments.iter().map(|a| self.expressions().expr(a));
        let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> = aggregate.arguments.iter().map(|a| a.ty).collect();
        // `sumif(x, p)` is `sum(x)` over the rows where p holds; the condition stands second, but
        // alone in `countif`.
        let (base, condition) = match name {
            "countif" => ("count", Some(arguments.remove(0))),
            _ if name.ends_with("if") && !matches!(name, "countif") => {
                (name.trim_end_matches("if").trim_end_matches('_'), Some(arguments.remove(1)))
            }
            _ => (name, None),
        };
        // DataFusion's builder would forget a call's DISTINCT.
        let filtered = |mut call: Df| {
            if let (Df::AggregateFunction(function), Some(condition)) = (&mut call, &condition) {
                function.params.filter = Some(Box::new(condition.clone()));
            }
            call
        };
        let next = |calls: &Vec<Df>| ident(format!("a{}", calls.len()));
        let limit = |at: usize| -> usize {
            match aggregate.arguments.get(at).map(|a| &a.kind) {
                Some(ExprKind::Literal(Value::Long(limit))) => usize::try_from(*limit).unwrap_or(0),
                _ => 1_048_576,
            }
        };
        let json = |value: Df, ty: Type| match ty {
            Type::Dynamic => value,
            ty => functions::cast(ty, Type::Dynamic).call(vec![value]),
        };
        let limit_at = if condition.is_some() { 2 } else { 1 };
        match base {
            "count" => {
                finals.push(next(calls));
                calls.push(filtered(agg::count(lit(1i64))));
            }
            "dcount" | "count_distinct" => {
                finals.push(next(calls));
                calls.push(filtered(agg::count_distinct(arguments.remove(0))));
            }
            "sum" => {
                let value = cast(arguments.remove(0), arrow_type(ty));
                let zero =
                    if ty == Type::Real { lit(0.0f64) } else { cast(lit(0i64), arrow_type(ty)) };
                finals.push(coalesce(next(calls), zero));
                calls.push(filtered(agg::sum(value)));
            }
            "avg" => {
                let value = cast(arguments.remove(0), DataType::Float64);
                let average = coalesce(next(calls), lit(f64::NAN));
                finals.push(match ty {
                    Type::Real => average,
                    ty => cast(next(calls), arrow_type(ty)),
                });
                calls.push(filtered(agg::avg(value)));
            }
            "min" | "max" | "take_any" if aggregate.columns.len() == 1 => {
                let value = arguments.remove(0);
                finals.push(filled(next(calls), ty));
                calls.push(filtered(match base {
                    "min" => agg::min(value),
                    "max" => agg::max(value),
                    _ => agg::first_value(value, vec![]),
                }));
            }
            "take_any" => {
                for (value, column) in arguments.into_iter().zip(&aggregate.columns) {
                    finals.push(filled(next(calls), column.ty));
                    calls.push(filtered(agg::first_value(value, vec![])));
                }
            }
            "stdev" | "stdevp" | "variance" | "variancep" => {
                let value = cast(arguments.remove(0), DataType::Float64);
                finals.push(coalesce(next(calls), lit(f64::NAN)));
                calls.push(filtered(match base {
                    "stdev" => agg::stddev(value),
                    "stdevp" => agg::stddev_pop(value),
                    "variance" => agg::var_sample(value),
                    _ => agg::var_pop(value),
                }));
            }
            "make_list" | "make_set" | "make_bag" => {
                let value = json(arguments.remove(0), types[0]);
                let limit = limit(limit_at);
                let kind = match base {
                    "make_list" => Kind::List { limit },
                    "make_set" => Kind::Set { limit },
                    _ => Kind::Bag { limit },
                };
                let function =
                    aggregates::function(kind, &[DataType::Utf8View], DataType::Utf8View);
                let empty = if base == "make_bag" { "{}" } else { "[]" };
                finals.push(coalesce(
                    next(calls),
                    lit(ScalarValue::Utf8View(Some(empty.to_owned()))),
                ));
                calls.push(filtered(function.call(vec![value])));
            }
            "arg_max" | "arg_min" => {
                let kinds: Vec<DataType> = types.iter().map(|ty| arrow_type(*ty)).collect();
                let fields = kinds.iter().enumerate();
                let fields: Vec<Field> =
                    fields.map(|(at, ty)| Field::new(format!("f{at}"), ty.clone(), true)).collect();
                let result = DataType::Struct(fields.into());
                let kind = Kind::Extreme { greatest: base == "arg_max" };
                let row = next(calls);
                for (at, column) in aggregate.columns.iter().enumerate() {
                    let field = datafusion::functions::core::expr_fn::get_field(
                        row.clone(),
                        format!("f{at}"),
                    );
                    finals.push(filled(field, column.ty));
                }
                calls.push(aggregates::function(kind, &kinds, result).call(arguments));
            }
            "percentile" | "percentiles" => {
                for (at, column) in aggregate.columns.iter().enumerate() {
                    let rank = self.constant(&aggregate.arguments[at + 1])?;
                    let rank = match rank {
                        ScalarValue::Int64(Some(rank)) => rank as f64,
                        ScalarValue::Float64(Some(rank)) => rank,
                        _ => return Err(unsupported("a percentile that is no constant")),
                    };
                    let kind = Kind::Percentile { rank: (rank * 1e6).round() as u64 };
                    let value = cast(arguments[0].clone(), arrow_type(column.ty));
                    let argument = [arrow_type(column.ty)];
                    finals.push(next(calls));
                    let function = aggregates::function(kind, &argument, arrow_type(column.ty));
                    calls.push(function.call(vec![value]));
                }
            }
            other => return Err(unsupported(&format!("aggregate '{other}'"))),
        }
        Ok(())
    }

    fn join(
        &self,
        kind: JoinKind,
        (left, lefts): (LogicalPlan, &[Column]),
        (right, rights): (LogicalPlan, &[Column]),
        on: &[(Expr, Expr)],
        output: &[usize],
    ) -> Result<LogicalPlan, QueryError> {
        // Sides with names that differ, keys as columns of their own behind.
        let side = |plan: LogicalPlan, width: usize, prefix: &str, keys: Vec<&Expr>| {
            let mut exprs: Vec<Df> = (0..width)
                .map(|at| ident(column_name(at)).alias(format!("{prefix}{at}")))
                .collect();
            for (at, key) in keys.iter().enumerate() {
                let value = typed(self.expressions().expr(key)?, key.ty, plan.schema())?;
                exprs.push(value.alias(format!("{prefix}k{at}")));
            }
            Ok::<_, QueryError>(LogicalPlanBuilder::from(plan).project(exprs)?)
        };
        let mut left = side(left, lefts.len(), "l", on.iter().map(|(l, _)| l).collect())?;
        let right = side(right, rights.len(), "r", on.iter().map(|(_, r)| r).collect())?.build()?;
        let keys = |prefix: &str| -> Vec<DfColumn> {
            (0..on.len()).map(|at| DfColumn::from_name(format!("{prefix}k{at}"))).collect()
        };
        if kind == JoinKind::InnerUnique {
            let by: Vec<Df> = keys("l").into_iter().map(Df::Column).collect();
            let all: Vec<Df> = (0..lefts.len())
                .map(|at| ident(format!("l{at}")))
                .chain(by.iter().cloned())
                .collect();
            left = left.distinct_on(by, all, None)?;
        }
        let join_type = match kind {
            JoinKind::InnerUnique | JoinKind::Inner => JoinType::Inner,
            JoinKind::LeftOuter => JoinType::Left,
            JoinKind::RightOuter => JoinType::Right,
            JoinKind::FullOuter => JoinType::Full,
            JoinKind::LeftSemi => JoinType::LeftSemi,
            JoinKind::LeftAnti => JoinType::LeftAnti,
            JoinKind::RightSemi => JoinType::RightSemi,
            JoinKind::RightAnti => JoinType::RightAnti,
        };
        let equality = NullEquality::NullEqualsNull;
        let joined =
            left.join_detailed(right, join_type, (keys("l"), keys("r")), None, equality)?;
        let exprs = output.iter().enumerate().map(|(at, from)| {
            let (name, ty) = match from.checked_sub(lefts.len()) {
                None => (format!("l{from}"), lefts[*from].ty),
                Some(right) => (format!("r{right}"), rights[right].ty),
            };
            filled(ident(name), ty).alias(column_name(at))
        });
        Ok(joined.project(exprs.collect::<Vec<_>>())?.build()?)
    }
}

/// Strings are never null.
fn filled(value: Df, ty: Type) -> Df {
    match ty {
        Type::String => coalesce(value, lit(ScalarValue::Utf8View(Some(String::new())))),
        _ => value,
    }
}

fn coalesce(value: Df, otherwise: Df) -> Df {
    datafusion::functions::core::expr_fn::coalesce(vec![value, otherwise])
}

/// The schema of rows in memory.
pub fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Field::new(column_name(at), arrow_type(column.ty), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Sub-queries of a plan and the uses of shared plans, not those inside other sub-queries.
#[derive(Default)]
struct SubQueries<'p> {
    scalars: Vec<&'p Arc<Plan>>,
    lists: Vec<&'p Arc<Plan>>,
    shared: Vec<(u32, &'p Plan)>,
    shared_uses: HashMap<u32, usize>,
}

impl<'p> SubQueries<'p> {
    fn in_plan(&mut self, plan: &'p Plan) {
        if let Node::Shared { id, plan } = &*plan.node {
            let uses = self.shared_uses.entry(*id).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                self.in_plan(plan);
                self.shared.push((*id, plan));
            }
            return;
        }
        for input in plan.inputs() {
            self.in_plan(input);
        }
        for expr in expressions_of(&plan.node) {
            self.in_expr(expr);
        }
    }

    fn in_expr(&mut self, expr: &'p Expr) {
        match &expr.kind {
            ExprKind::ScalarQuery(plan) => {
                self.count_shared(plan);
                self.scalars.push(plan);
            }
            ExprKind::InQuery { value, plan, .. } => {
                self.in_expr(value);
                self.count_shared(plan);
                self.lists.push(plan);
            }
            ExprKind::Call { arguments, .. } => arguments.iter().for_each(|a| self.in_expr(a)),
            ExprKind::Cast(inner) => self.in_expr(inner),
            ExprKind::Member { base, key } => {
                self.in_expr(base);
                self.in_expr(key);
            }
            _ => {}
        }
    }

    /// A shared plan that a sub-query reads as well counts as read twice.
    fn count_shared(&mut self, plan: &'p Arc<Plan>) {
        let mut inner = SubQueries::default();
        inner.in_plan(plan);
        for (id, uses) in inner.shared_uses {
            *self.shared_uses.entry(id).or_insert(0) += uses;
        }
    }
}

/// The expressions of an operator that may hold sub-queries.
fn expressions_of(node: &Node) -> Vec<&Expr> {
    match node {
        Node::Filter { predicate, .. } => vec![predicate],
        Node::Project { items, .. } | Node::Print { items } => items.iter().collect(),
        Node::Summarize { keys, aggregates, .. } => {
            keys.iter().chain(aggregates.iter().flat_map(|a| &a.arguments)).collect()
        }
        Node::Take { count, .. } | Node::Sample { count, .. } => vec![count],
        Node::Top { count, keys, .. } => {
            std::iter::once(count).chain(keys.iter().map(|key| &key.expr)).collect()
        }
        Node::Sort { keys, .. } => keys.iter().map(|key| &key.expr).collect(),
        Node::Join { on, .. } => on.iter().flat_map(|(l, r)| [l, r]).collect(),
        Node::MvExpand { items, .. } => items.iter().map(|item| &item.expr).collect(),
        Node::Parse { source, .. } => vec![source],
        Node::Range { from, to, step } => vec![from, to, step],
        _ => Vec::new(),
    }
}
