//! `mv-apply`, `partition` and what else works on groups of rows: `top-nested`, `scan`, `take` of
//! each group.

use super::columns::projected;
use super::{Planner, hidden, schema_of};
use crate::error::QueryError;
use crate::expressions::{column_name, typed, unsupported};
use crate::functions::{Cell, array_of};
use crate::operators;
use crate::row_wise::RowOperator as _;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr as Df, LogicalPlan, ident};
use std::sync::Arc;
use vigie_kql::plan::{ApplyOutput, Column, Expr, ExprKind, Node, Plan, TopNestedLevel};
use vigie_kql::types::Type;

impl<'a> Planner<'a> {
    /// Rows of one group beside each other, in the order that they had within it.
    pub(super) fn in_groups(&self, rows: RecordBatch) -> Result<RecordBatch, QueryError> {
        match operators::group_order(&rows)? {
            Some(order) => Ok(operators::reordered(&rows, &order)?),
            None => Ok(rows),
        }
    }

    /// The first `count` rows of each group.
    pub(super) async fn take_of_each(
        &self,
        input: LogicalPlan,
        count: usize,
    ) -> Result<LogicalPlan, QueryError> {
        let rows = self.in_groups(self.rows(input).await?)?;
        let starts = operators::group_starts(&rows)?;
        let mut place = 0;
        let mut kept = Vec::new();
        for (row, start) in starts.iter().enumerate() {
            place = if *start { 1 } else { place + 1 };
            if place <= count {
                kept.push(row as u32);
            }
        }
        let batch = operators::reordered(&rows, &UInt32Array::from(kept))?;
        self.memory(batch.schema(), vec![batch])
    }

    pub(super) async fn mv_apply(&mut self, plan: &'a Plan) -> Result<LogicalPlan, QueryError> {
        let Node::MvApply { input, items, kind, item_index, limit, context, plan: inner, output } =
            &*plan.node
        else {
            return Err(QueryError::Internal("mv-apply is expected".to_owned()));
        };
        let limit = limit.as_ref().map(|limit| self.count(limit)).transpose()?;
        let values: Vec<&Expr> = items.iter().map(|item| &item.expr).collect();
        let outer = self.rows_with(input, &values).await?;
        let width = input.columns.len();
        let expand = super::expand(items, *kind, *item_index, limit, context);
        let values = &outer.columns()[width..width + items.len()];
        let made = expand.make(values, outer.num_rows())?;
        // The group is the row of the input.
        let group = format!("g{}", self.contexts.len());
        let mut fields = schema_of(context).fields().to_vec();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for at in 0..context.len() {
            let item = items.iter().position(|item| item.output == at);
            let index = (*item_index && at == context.len() - 1).then_some(items.len());
            arrays.push(match item.or(index) {
                Some(own) => made.arrays[own].clone(),
                None => {
                    take(outer.column(at), &made.origin, None).map_err(DataFusionError::from)?
                }
            });
        }
        fields.push(Arc::new(Field::new(&group, DataType::Int64, true)));
        let origin = made.origin.values().iter().map(|row| i64::from(*row));
        arrays.push(Arc::new(origin.collect::<Int64Array>()));
        let schema = Arc::new(Schema::new(fields));
        let batch = operators::batch(&schema, arrays, made.origin.len())?;
        let rows = self.memory(schema, vec![batch])?;
        self.contexts.push(rows);
        let applied = self.lower(inner).await;
        self.contexts.pop();
        let applied = applied?;
        if !hidden(&applied).contains(&group) {
            return Err(unsupported("a sub-query of 'mv-apply' that reads other rows only"));
        }
        let applied = self.in_groups(self.rows(applied).await?)?;
        let at = applied.schema().index_of(&group).map_err(DataFusionError::from)?;
        let groups = applied.column(at).as_primitive::<Int64Type>();
        let origin: UInt32Array = groups.values().iter().map(|row| *row as u32).collect();
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for from in output {
            arrays.push(match from {
                ApplyOutput::Outer(at) => {
                    take(outer.column(*at), &origin, None).map_err(DataFusionError::from)?
                }
                ApplyOutput::Applied(at) => applied.column(*at).clone(),
            });
        }
        self.made(&plan.columns, &outer, operators::Made { origin, arrays })
    }

    pub(super) async fn partition(
        &mut self,
        input: &'a Plan,
        by: &'a Expr,
        inner: &'a Plan,
    ) -> Result<LogicalPlan, QueryError> {
        let lowered = self.lower(input).await?;
        let outer = hidden(&lowered);
        let group = format!("g{}", self.contexts.len());
        let mut exprs: Vec<Df> =
            (0..input.columns.len()).map(|at| ident(column_name(at))).collect();
        exprs.extend(outer.iter().map(ident));
        let key = typed(self.expressions().expr(by)?, by.ty, lowered.schema())?;
        exprs.push(key.alias(&group));
        let rows = projected(lowered, exprs)?;
        self.contexts.push(rows);
        let made = self.lower(inner).await;
        self.contexts.pop();
        let made = made?;
        let mut exprs: Vec<Df> =
            (0..inner.columns.len()).map(|at| ident(column_name(at))).collect();
        exprs.extend(outer.iter().map(ident));
        projected(made, exprs)
    }

    /// Level by level: an aggregate for each value below the values kept above, the best ones kept.
    pub(super) async fn top_nested(
        &mut self,
        input: &'a Plan,
        levels: &'a [TopNestedLevel],
        columns: &[Column],
    ) -> Result<LogicalPlan, QueryError> {
        let width = input.columns.len();
        let keys: Vec<&Expr> = levels.iter().map(|level| &level.of).collect();
        let mut rows = self.rows_with(input, &keys).await?;
        if rows.schema().fields().iter().any(|field| field.name().starts_with('g')) {
            return Err(unsupported("'top-nested' inside 'mv-apply' or 'partition'"));
        }
        let mut results = Vec::new();
        for (depth, level) in levels.iter().enumerate() {
            let key = |at: usize| Expr { ty: levels[at].of.ty, kind: ExprKind::Column(width + at) };
            let keys: Vec<Expr> = (0..=depth).map(key).collect();
            let count = level.count.as_ref().map(|count| self.count(count)).transpose()?;
            let others = level.others.as_ref().map(|o| self.constant(o)).transpose()?;
            let mut summary = self.level(&rows, &keys, level).await?;
            if let Some(count) = count {
                let best = operators::best_of_each(&summary, depth, count, level.ascending)?;
                let (kept, replaced) =
                    operators::keep_best(&rows, width, depth, &best, others.as_ref())?;
                rows = kept;
                if replaced {
                    summary = self.level(&rows, &keys, level).await?;
                } else {
                    summary = best;
                }
            }
            results.push((summary, level.ascending, others));
        }
        let arrays = operators::nested_rows(&results, columns)?;
        self.computed(columns, arrays)
    }

    /// The aggregate of a level, by the keys down to it.
    async fn level(
        &self,
        rows: &RecordBatch,
        keys: &[Expr],
        level: &TopNestedLevel,
    ) -> Result<RecordBatch, QueryError> {
        let source = self.memory(rows.schema(), vec![rows.clone()])?;
        let aggregates = std::slice::from_ref(&level.by);
        self.rows(self.summarize(source, keys, aggregates)?).await
    }

    /// Every row against the state of every step.
    pub(super) async fn scan(&mut self, plan: &'a Plan) -> Result<LogicalPlan, QueryError> {
        let Node::Scan { input, partition_by, declare, match_id, steps } = &*plan.node else {
            return Err(QueryError::Internal("scan is expected".to_owned()));
        };
        let width = input.columns.len();
        let keys: Vec<&Expr> = partition_by.iter().collect();
        let rows = self.rows_with(input, &keys).await?;
        // Keys of `partition by` are groups like those of enclosing operators.
        let mut fields = rows.schema().fields().to_vec();
        for (at, field) in fields.iter_mut().enumerate().skip(width).take(keys.len()) {
            *field = Arc::new(Field::new(format!("gscan{at}"), field.data_type().clone(), true));
        }
        let schema = Arc::new(Schema::new(fields));
        let rows = operators::batch(&schema, rows.columns().to_vec(), rows.num_rows())?;
        let rows = self.in_groups(rows)?;
        let starts = operators::group_starts(&rows)?;
        // A state has the input's columns, then the declared ones.
        let state_columns: Vec<Type> = (input.columns.iter().map(|c| c.ty))
            .chain(declare.iter().map(|(column, _)| column.ty))
            .collect();
        let mut defaults = Vec::new();
        for (column, default) in declare {
            defaults.push(match default {
                Some(default) => operators::cell_of(&self.constant(default)?, column.ty)?,
                None if column.ty == Type::String => Cell::text(""),
                None => Cell::Null,
            });
        }
        let evaluator = super::scan::Evaluator::new(self, &state_columns, steps)?;
        let blank = (state_columns.iter().take(width))
            .map(|ty| if *ty == Type::String { Cell::text("") } else { Cell::Null })
            .chain(defaults.iter().cloned())
            .collect();
        let outputs = steps.iter().map(|step| (step.output, step.optional)).collect();
        let mut machine = operators::ScanMachine::new(outputs, blank);
        let mut made = Vec::new();
        let columns = operators::cells(&rows, width)?;
        for (row, start) in starts.iter().enumerate() {
            if *start {
                machine.end(&mut made);
            }
            let mut current: Vec<Cell<'static>> =
                columns.iter().map(|cells| cells.get(row).into_owned()).collect();
            current.extend(defaults.iter().cloned());
            for step in (0..steps.len()).rev() {
                if let Some(previous) = machine.previous(step) {
                    let seen = machine.seen(Some(previous));
                    if evaluator.condition(step, &current, &seen)? {
                        let extended = evaluator.extend(step, &current, &seen)?;
                        machine.promote(previous, step, row, extended, &mut made);
                        continue;
                    }
                }
                if step == 0 || machine.is_active(step) {
                    let seen = machine.seen(machine.is_active(step).then_some(step));
                    if evaluator.condition(step, &current, &seen)? {
                        let extended = evaluator.extend(step, &current, &seen)?;
                        machine.repeat(step, row, extended, &mut made);
                    }
                }
            }
        }
        machine.end(&mut made);
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (at, ty) in state_columns.iter().enumerate() {
            let cells = made.iter().map(|row| row.cells[at].clone());
            arrays.push(array_of(*ty, cells));
        }
        if *match_id {
            let ids = made.iter().map(|row| Cell::Long(row.match_id));
            arrays.push(array_of(Type::Long, ids));
        }
        let origin: UInt32Array = made.iter().map(|row| row.origin as u32).collect();
        let outer = operators::without_scan_keys(&rows)?;
        self.made(&plan.columns, &outer, operators::Made { origin, arrays })
    }
}
