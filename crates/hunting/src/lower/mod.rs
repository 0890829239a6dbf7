//! Bound plans → DataFusion plans. Columns are `c0`, `c1` … by position, so that names of a query
//! never meet DataFusion's rules for names.
//!
//! Besides its columns an operator hands on hidden ones, whose names begin with `g`: the group that a
//! row belongs to inside `mv-apply` and `partition`. Operators that look at several rows look at
//! rows of one group only, so that a sub-query is carried out once for all groups.

mod columns;
mod groups;
mod join;
mod needs;
mod range;
mod rows;
mod scan;
mod subqueries;
mod summarize;
mod windows;

use crate::database::Database;
use crate::error::QueryError;
use crate::expressions::{Lower, SubResults, column_name, key, scalar_value, typed, unsupported};
use crate::external::ExternalSources;
use crate::functions::arrow_type;
use crate::operators;
use crate::row_wise::{RowOperator, row_wise};
use crate::session::Session;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use columns::{ordered, projected};
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, LogicalPlan, LogicalPlanBuilder, Union, ident, lit};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use subqueries::SubQueries;
use vigie_kql::plan::{Column, ExpandItem, ExpandKind, Expr, Node, Plan};
use vigie_kql::types::{Type, Value};

/// Most rows of a sub-query that become a list.
const LONGEST_LIST: usize = 1_000_000;

/// One query on its way to rows.
pub struct Planner<'a> {
    pub session: &'a Session,
    pub database: &'a Database,
    pub results: SubResults,
    /// Rows of shared plans that are read more than once, by id.
    shared_rows: HashMap<u32, Arc<MemTable>>,
    /// Summaries lowered so far.
    summaries: AtomicUsize,
    /// The rows that enclosing operators hand in, the innermost last.
    contexts: Vec<LogicalPlan>,
    /// What plugins with open schemas gave, by their place.
    pub plugins: &'a [RecordBatch],
    external: &'a ExternalSources,
    needs: needs::Needs,
    /// Memory of rows that this planner holds.
    held: MemoryReservation,
}

impl<'a> Planner<'a> {
    pub fn new(
        session: &'a Session,
        database: &'a Database,
        plugins: &'a [RecordBatch],
        external: &'a ExternalSources,
    ) -> Planner<'a> {
        let pool = session.state.runtime_env().memory_pool.clone();
        Planner {
            external,
            needs: needs::Needs::default(),
            held: MemoryConsumer::new("rows in memory").register(&pool),
            session,
            database,
            results: SubResults::default(),
            shared_rows: HashMap::new(),
            summaries: AtomicUsize::new(0),
            contexts: Vec::new(),
            plugins,
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
            self.needs.add(plan);
            self.lower(plan).await
        })
    }

    /// Runs a plugin whose columns depend on data: its columns and rows.
    pub async fn open(&mut self, plan: &'a Plan) -> Result<(Vec<Column>, RecordBatch), QueryError> {
        let Node::Plugin { input: Some(input), plugin, .. } = &*plan.node else {
            return Err(QueryError::Internal("a plugin is expected".to_owned()));
        };
        let lowered = self.plan(input).await?;
        let rows = self.rows(lowered).await?;
        let (columns, arrays) = operators::plugin(plugin, &input.columns, &plan.columns, &rows)?;
        let count = arrays.first().map_or(rows.num_rows(), |array| array.len());
        let batch = operators::batch(&schema_of(&columns), arrays, count)?;
        Ok((columns, batch))
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
        self.batches(builder.build()?).await
    }

    /// Runs a plan; its batches count as memory of the query until it ends.
    pub async fn batches(&self, plan: LogicalPlan) -> Result<Vec<RecordBatch>, QueryError> {
        let mut stream = self.session.stream(&plan).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            self.held.try_grow(crate::result::bytes_of(&batch))?;
            batches.push(batch);
        }
        Ok(batches)
    }

    fn lower(&mut self, plan: &'a Plan) -> BoxFuture<'_, Result<LogicalPlan, QueryError>> {
        Box::pin(async move {
            let columns = &plan.columns;
            Ok(match &*plan.node {
                Node::Table { name } => self.table(name, plan)?,
                Node::Values { rows } => self.values(columns, rows)?,
                Node::Print { items } => {
                    let one = LogicalPlanBuilder::empty(true).build()?;
                    let places: Vec<usize> = (0..items.len()).collect();
                    self.project(one, items, &places)?
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
                    let width = input.columns.len();
                    let read = input;
                    let input = self.lower(input).await?;
                    let predicates = std::slice::from_ref(predicate);
                    if windows::any(predicates) {
                        let input = self.needed(input, read)?;
                        let (rows, found) = self.windowed(input, width, predicates).await?;
                        let predicate = self.expressions().predicate(&found[0])?;
                        let filtered = LogicalPlanBuilder::from(rows).filter(predicate)?.build()?;
                        return self.needed(filtered, plan);
                    }
                    let predicate = self.expressions().predicate(predicate)?;
                    LogicalPlanBuilder::from(input).filter(predicate)?.build()?
                }
                Node::Project { input, items } => {
                    let (width, read) = (input.columns.len(), input);
                    let input = self.lower(input).await?;
                    // What nobody reads may read what is not there any more.
                    let needed = |at: &usize| self.needs.column(plan, *at);
                    let places: Vec<usize> = (0..items.len()).filter(needed).collect();
                    if places.is_empty() && !items.is_empty() {
                        return self.needed(input, read);
                    }
                    let items: Vec<Expr> = places.iter().map(|at| items[*at].clone()).collect();
                    if windows::any(&items) {
                        let input = self.needed(input, read)?;
                        let (rows, items) = self.windowed(input, width, &items).await?;
                        return self.project(rows, &items, &places);
                    }
                    self.project(input, &items, &places)?
                }
                Node::Context => (self.contexts.last().cloned())
                    .ok_or_else(|| QueryError::Internal("no enclosing operator".to_owned()))?,
                Node::Serialize { input } => self.lower(input).await?,
                Node::Take { input, count } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    if !hidden(&input).is_empty() {
                        return self.take_of_each(input, count).await;
                    }
                    LogicalPlanBuilder::from(input).limit(0, Some(count))?.build()?
                }
                Node::Sample { input, count } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    let random = datafusion::functions::math::expr_fn::random();
                    let sort = random.sort(true, false);
                    ordered(input, vec![sort], Some(count))?
                }
                Node::SampleDistinct { input, count, of } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    let projected = self.project(input, std::slice::from_ref(of), &[0])?;
                    LogicalPlanBuilder::from(projected)
                        .distinct()?
                        .limit(0, Some(count))?
                        .build()?
                }
                Node::Sort { input, keys } => {
                    let input = self.lower(input).await?;
                    self.sorted(input, keys, None)?
                }
                Node::Top { input, count, keys } => {
                    let count = self.count(count)?;
                    let input = self.lower(input).await?;
                    if !hidden(&input).is_empty() {
                        let sorted = self.sorted(input, keys, None)?;
                        return self.take_of_each(sorted, count).await;
                    }
                    if count == 0 {
                        return Ok(LogicalPlanBuilder::from(input).limit(0, Some(0))?.build()?);
                    }
                    self.sorted(input, keys, Some(count))?
                }
                Node::Count { input } => {
                    let input = self.lower(input).await?;
                    let count = agg::count(lit(1i64)).alias("c0");
                    let kept = hidden(&input);
                    let groups: Vec<Df> = kept.iter().map(ident).collect();
                    let counted =
                        LogicalPlanBuilder::from(input).aggregate(groups.clone(), vec![count])?;
                    match groups.is_empty() {
                        true => counted.build()?,
                        false => {
                            let exprs = std::iter::once(ident("c0")).chain(groups);
                            projected(counted.build()?, exprs.collect())?
                        }
                    }
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
                    let needed = |at: &usize| self.needs.column(plan, *at);
                    let output = output.iter().copied().enumerate().filter(|(at, _)| needed(at));
                    let output: Vec<_> = output.collect();
                    self.join(*kind, (left, &lefts), (right, &rights), on, &output)?
                }
                Node::IpLookup { input, table, keys, v6, unmatched } => {
                    let (width, wide) = (input.columns.len(), table.columns.len());
                    let input = self.lower(input).await?;
                    not_in_groups(&input, "evaluate")?;
                    let input = self.rows(input).await?;
                    let table = self.lower(table).await?;
                    let table = self.rows(table).await?;
                    let lookup = operators::IpLookup {
                        left: width - keys,
                        right: wide - keys,
                        v6: *v6,
                        unmatched: *unmatched,
                    };
                    let arrays = lookup.arrays(&input, &table, columns)?;
                    self.computed(columns, arrays)?
                }
                Node::Union { inputs } if let Some(rows) = printed(inputs) => {
                    self.printed(columns, &rows)?
                }
                Node::Union { inputs } => {
                    // `search *` names every table, and a tenant has rows in a few.
                    let mut read: Vec<&Plan> =
                        inputs.iter().filter(|input| !self.is_vacant(input)).collect();
                    if read.is_empty() {
                        read.extend(inputs.first());
                    }
                    let mut all = Vec::new();
                    for input in read {
                        let lowered = self.lower(input).await?;
                        all.push(Arc::new(self.alike(lowered, input)?));
                    }
                    match all.len() {
                        0 => return Err(unsupported("a union of nothing")),
                        1 => Arc::unwrap_or_clone(all.remove(0)),
                        // All at once: the schema of many pairs in pairs costs their square.
                        _ => LogicalPlan::Union(Union::try_new_with_loose_types(all)?),
                    }
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
                    let values: Vec<&Expr> = items.iter().map(|item| &item.expr).collect();
                    let mut made: Vec<usize> = items.iter().map(|item| item.output).collect();
                    if *item_index {
                        made.push(columns.len() - 1);
                    }
                    let expand = expand(items, *kind, *item_index, limit, columns);
                    self.row_wise(input, &values, Arc::new(expand), &made, columns).await?
                }
                Node::MvApply { .. } => self.mv_apply(plan).await?,
                Node::Partition { input, by, plan } => self.partition(input, by, plan).await?,
                Node::Parse { input, source, pattern, keep_unmatched, output } => {
                    let parse = operators::Parse::new(pattern, output, *keep_unmatched)?;
                    let made = parse.columns();
                    self.row_wise(input, &[source], Arc::new(parse), &made, columns).await?
                }
                Node::ParseKv { input, source, keys, options } => {
                    let parse = Arc::new(operators::ParseKv::new(keys, options)?);
                    let width = input.columns.len();
                    let made: Vec<usize> = (width..width + keys.len()).collect();
                    self.row_wise(input, &[source], parse, &made, columns).await?
                }
                Node::MakeSeries { input, keys, defaults, from, to, inclusive, step, nonempty } => {
                    let axis = input.columns[*keys].ty;
                    let summary = self.lower(input).await?;
                    not_in_groups(&summary, "make-series")?;
                    let rows = self.rows(summary).await?;
                    let bound = |bound: &Option<Expr>| -> Result<_, QueryError> {
                        bound.as_ref().map(|bound| self.constant(bound)).transpose()
                    };
                    let mut filled = Vec::new();
                    for default in defaults {
                        filled.push((default.ty, self.constant(default)?));
                    }
                    let series = operators::MakeSeries {
                        keys: *keys,
                        axis,
                        types: input.columns.iter().map(|column| column.ty).collect(),
                        defaults: filled,
                        from: bound(from)?,
                        to: bound(to)?,
                        inclusive: *inclusive,
                        step: self.constant(step)?,
                        nonempty: *nonempty,
                    };
                    let arrays = series.arrays(&rows, columns)?;
                    self.computed(columns, arrays)?
                }
                Node::TopNested { input, levels } => {
                    self.top_nested(input, levels, columns).await?
                }
                Node::Reduce { input, of, threshold, characters, source } => {
                    let rows = self.rows_with(input, &[of]).await?;
                    not_in_groups_batch(&rows, "reduce")?;
                    let width = input.columns.len();
                    let reduce = operators::Reduce { width, threshold: *threshold, characters };
                    let arrays = reduce.arrays(&rows, *source)?;
                    self.computed(columns, arrays)?
                }
                Node::Scan { .. } => self.scan(plan).await?,
                Node::Plugin { open: Some(place), .. } if self.plugins.len() > *place => {
                    let batch = self.plugins[*place].clone();
                    self.memory(batch.schema(), vec![batch])?
                }
                Node::Plugin { input: Some(input), plugin, .. } => {
                    let lowered = self.lower(input).await?;
                    not_in_groups(&lowered, "evaluate")?;
                    let rows = self.rows(lowered).await?;
                    let (made, batch) = operators::plugin(plugin, &input.columns, columns, &rows)?;
                    // Declared columns are found by name; what is missing is null.
                    let arrays = columns.iter().map(|column| {
                        let found = made.iter().position(|c| c.name == column.name);
                        operators::converted(
                            found.map(|at| (made[at].ty, batch[at].clone())),
                            column.ty,
                            &batch,
                        )
                    });
                    let arrays = arrays.collect::<Result<Vec<_>, QueryError>>()?;
                    self.computed(columns, arrays)?
                }
                Node::GraphNodes { graph, make } => {
                    let (nodes, edges) = self.graph(graph).await?;
                    let arrays = operators::graph_nodes(graph, make, columns, &nodes, &edges)?;
                    self.computed(columns, arrays)?
                }
                Node::GraphEdges(graph) => {
                    let (nodes, edges) = self.graph(graph).await?;
                    let arrays = operators::graph_edges(graph, &nodes, &edges)?;
                    self.computed(columns, arrays)?
                }
                Node::GraphMatch(pattern) => {
                    let (nodes, edges) = self.graph(&pattern.graph).await?;
                    let arrays = operators::graph_match(pattern, columns, &nodes, &edges)?;
                    self.computed(columns, arrays)?
                }
                Node::Invoke { function, .. } => {
                    return Err(unsupported(&format!("function '{function}'")));
                }
                Node::ExternalData { uris, properties } => {
                    let mut texts = Vec::new();
                    for uri in uris {
                        match self.constant(uri)? {
                            ScalarValue::Utf8View(Some(text)) => texts.push(text),
                            _ => return Err(unsupported("an address that is no text")),
                        }
                    }
                    let arrays = self.external.rows(&texts, properties, columns).await?;
                    self.computed(columns, arrays)?
                }
                other => return Err(unsupported(&format!("operator '{}'", other.name()))),
            })
        })
    }

    /// Whether a plan has no rows for sure, because its table has none.
    fn is_vacant(&self, plan: &Plan) -> bool {
        let mut plan = plan;
        loop {
            plan = match &*plan.node {
                Node::Table { name } => return self.database.is_vacant(name),
                Node::Filter { input, .. }
                | Node::Project { input, .. }
                | Node::Serialize { input }
                | Node::Take { input, .. }
                | Node::Sort { input, .. }
                | Node::Top { input, .. }
                | Node::Distinct { input } => input,
                _ => return false,
            };
        }
    }

    fn expressions(&self) -> Lower<'_> {
        Lower { results: &self.results }
    }

    /// An operator that looks at one row at a time: it reads `values` and makes the columns `made`.
    async fn row_wise(
        &mut self,
        input: &'a Plan,
        values: &[&Expr],
        operator: Arc<dyn RowOperator>,
        made: &[usize],
        columns: &[Column],
    ) -> Result<LogicalPlan, QueryError> {
        let lowered = self.lower(input).await?;
        let kept = hidden(&lowered);
        let there = |name: &String| lowered.schema().has_column_with_unqualified_name(name);
        let through = (0..input.columns.len()).filter(|at| !made.contains(at)).map(column_name);
        let mut exprs: Vec<Df> = through.filter(there).map(ident).collect();
        exprs.extend(kept.iter().map(ident));
        let mut names = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let value = typed(self.expressions().expr(value)?, value.ty, lowered.schema())?;
            names.push(format!("x{at}"));
            exprs.push(value.alias(&names[at]));
        }
        let input = projected(lowered, exprs)?;
        let field = |at: &usize| Field::new(column_name(*at), arrow_type(columns[*at].ty), true);
        let rows = row_wise(input, operator, names, made.iter().map(field).collect())?;
        let there = |name: &String| rows.schema().has_column_with_unqualified_name(name);
        let ordered = (0..columns.len()).map(column_name).chain(kept).filter(there).map(ident);
        let ordered: Vec<Df> = ordered.collect();
        projected(rows, ordered)
    }
}

/// The hidden columns of a plan.
fn hidden(plan: &LogicalPlan) -> Vec<String> {
    let names = plan.schema().fields().iter().map(|field| field.name());
    names.filter(|name| name.starts_with('g')).cloned().collect()
}

/// `mv-expand` of `items` into some of `columns`.
fn expand(
    items: &[ExpandItem],
    kind: ExpandKind,
    item_index: bool,
    limit: Option<usize>,
    columns: &[Column],
) -> operators::Expand {
    let types = items.iter().map(|item| columns[item.output].ty);
    let types = types.chain(item_index.then_some(Type::Long)).collect();
    operators::Expand { types, kind, limit }
}

fn not_in_groups(plan: &LogicalPlan, operator: &str) -> Result<(), QueryError> {
    match hidden(plan).is_empty() {
        true => Ok(()),
        false => Err(unsupported(&format!("'{operator}' inside 'mv-apply' or 'partition'"))),
    }
}

fn not_in_groups_batch(rows: &RecordBatch, operator: &str) -> Result<(), QueryError> {
    match rows.schema().fields().iter().any(|field| field.name().starts_with('g')) {
        false => Ok(()),
        true => Err(unsupported(&format!("'{operator}' inside 'mv-apply' or 'partition'"))),
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

/// The rows of a union of rows that a query writes itself, which stay in their order.
fn printed(inputs: &[Plan]) -> Option<Vec<&[Expr]>> {
    fn items(input: &Plan) -> Option<&[Expr]> {
        match &*input.node {
            Node::Print { items } => Some(items.as_slice()),
            _ => None,
        }
    }
    inputs.iter().map(items).collect()
}
