//! Rows and values that a plan needs before DataFusion sees the rest of it.

use super::columns::projected;
use super::{Planner, hidden, not_in_groups, range, schema_of};
use crate::error::QueryError;
use crate::expressions::{column_name, scalar_value, typed};
use crate::functions::arrow_type;
use crate::operators;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Expr as Df, LogicalPlan, LogicalPlanBuilder, ident};
use std::sync::Arc;
use vigie_kql::plan::{Column, Expr, ExprKind, Graph, Plan};
use vigie_kql::types::{Type, Value};

impl<'a> Planner<'a> {
    /// Runs a plan; its rows in their order, as one batch.
    pub(super) async fn rows(&self, plan: LogicalPlan) -> Result<RecordBatch, QueryError> {
        let schema = plan.schema().inner().clone();
        let batches = self.batches(plan).await?;
        let schema = batches.first().map_or(schema, |batch| batch.schema());
        Ok(arrow::compute::concat_batches(&schema, &batches).map_err(DataFusionError::from)?)
    }

    /// The rows of a graph's nodes and edges.
    pub(super) async fn graph(
        &mut self,
        graph: &'a Graph,
    ) -> Result<(RecordBatch, RecordBatch), QueryError> {
        let nodes = self.lower(&graph.nodes).await?;
        not_in_groups(&nodes, "graph-match")?;
        let nodes = self.rows(nodes).await?;
        let edges = self.lower(&graph.edges).await?;
        not_in_groups(&edges, "graph-match")?;
        Ok((nodes, self.rows(edges).await?))
    }

    /// The rows of `input` with further values behind its columns, hidden columns last.
    pub(super) async fn rows_with(
        &mut self,
        input: &'a Plan,
        values: &[&Expr],
    ) -> Result<RecordBatch, QueryError> {
        let width = input.columns.len();
        let lowered = self.lower(input).await?;
        let kept = hidden(&lowered);
        let mut exprs: Vec<Df> = (0..width).map(|at| ident(column_name(at))).collect();
        for (at, value) in values.iter().enumerate() {
            let value = typed(self.expressions().expr(value)?, value.ty, lowered.schema())?;
            exprs.push(value.alias(column_name(width + at)));
        }
        exprs.extend(kept.iter().map(ident));
        self.rows(projected(lowered, exprs)?).await
    }

    /// Rows made of those of `from`: each with the hidden columns of the row that it came from.
    pub(super) fn made(
        &self,
        columns: &[Column],
        from: &RecordBatch,
        made: operators::Made,
    ) -> Result<LogicalPlan, QueryError> {
        let mut fields = schema_of(columns).fields().to_vec();
        let mut arrays = made.arrays;
        for (field, array) in from.schema().fields().iter().zip(from.columns()) {
            if field.name().starts_with('g') {
                fields.push(field.clone());
                let taken = arrow::compute::take(array, &made.origin, None);
                arrays.push(taken.map_err(DataFusionError::from)?);
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let batch = operators::batch(&schema, arrays, made.origin.len())?;
        self.memory(schema, vec![batch])
    }

    /// Rows that are all there is.
    pub(super) fn computed(
        &self,
        columns: &[Column],
        arrays: Vec<ArrayRef>,
    ) -> Result<LogicalPlan, QueryError> {
        let schema = schema_of(columns);
        let rows = arrays.first().map_or(0, |array| array.len());
        let batch = operators::batch(&schema, arrays, rows)?;
        self.memory(schema, vec![batch])
    }

    /// The value of an expression for every row of a batch.
    pub(super) fn evaluate(
        &self,
        expr: &Expr,
        batch: &RecordBatch,
    ) -> Result<ArrayRef, QueryError> {
        let schema = DFSchema::try_from(batch.schema().as_ref().clone())?;
        let lowered = typed(self.expressions().expr(expr)?, expr.ty, &schema)?;
        let physical = self.session.state.create_physical_expr(lowered, &schema)?;
        Ok(physical.evaluate(batch)?.into_array(batch.num_rows())?)
    }

    pub(super) fn memory(
        &self,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<LogicalPlan, QueryError> {
        let table = MemTable::try_new(schema, vec![batches])?;
        let source = provider_as_source(Arc::new(table));
        Ok(LogicalPlanBuilder::scan("rows", source, None)?.build()?)
    }

    /// The value of an expression without columns.
    pub(super) fn constant(&self, expr: &Expr) -> Result<ScalarValue, QueryError> {
        if vigie_kql::plan_text::reads_columns(expr) {
            return Err(QueryError::Runtime("a constant is expected, not a column".to_owned()));
        }
        let lowered = self.expressions().expr(expr)?;
        let schema = DFSchema::empty();
        let physical = self.session.state.create_physical_expr(lowered, &schema)?;
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            vec![],
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )
        .map_err(DataFusionError::from)?;
        let value = physical.evaluate(&one)?;
        Ok(match value {
            ColumnarValue::Scalar(value) => value,
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
        })
    }

    pub(super) fn count(&self, expr: &Expr) -> Result<usize, QueryError> {
        match self.constant(expr)? {
            ScalarValue::Int64(Some(count)) => Ok(usize::try_from(count).unwrap_or(0)),
            _ => Err(QueryError::Runtime("a number of rows is expected".to_owned())),
        }
    }

    pub(super) fn values(
        &self,
        columns: &[Column],
        rows: &[Vec<Value>],
    ) -> Result<LogicalPlan, QueryError> {
        let rows = rows.iter().map(|row| row.iter().map(scalar_value).collect());
        self.cells(columns, rows.collect())
    }

    /// Rows that a query computes from nothing, in the order in which it writes them.
    pub(super) fn printed(
        &self,
        columns: &[Column],
        rows: &[&[Expr]],
    ) -> Result<LogicalPlan, QueryError> {
        let cell = |item: &Expr| -> Result<_, QueryError> {
            match &item.kind {
                ExprKind::Literal(value) => Ok(scalar_value(value)),
                _ => Ok(self.constant(item)?.cast_to(&arrow_type(item.ty))?),
            }
        };
        let rows = rows.iter().map(|row| row.iter().map(cell).collect());
        self.cells(columns, rows.collect::<Result<_, _>>()?)
    }

    fn cells(
        &self,
        columns: &[Column],
        rows: Vec<Vec<ScalarValue>>,
    ) -> Result<LogicalPlan, QueryError> {
        let schema = schema_of(columns);
        let mut arrays = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            arrays.push(match rows.is_empty() {
                true => arrow::array::new_empty_array(&arrow_type(column.ty)),
                false => ScalarValue::iter_to_array(rows.iter().map(|row| row[at].clone()))?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
            .map_err(DataFusionError::from)?;
        self.memory(schema, vec![batch])
    }

    pub(super) fn range(&self, ty: Type, bounds: [&Expr; 3]) -> Result<LogicalPlan, QueryError> {
        let [from, to, step] = bounds.map(|bound| self.constant(bound));
        let range = range::Range::of(ty, from?, to?, step?)?;
        let source = provider_as_source(Arc::new(range.table()?));
        Ok(LogicalPlanBuilder::scan("rows", source, None)?.build()?)
    }
}
