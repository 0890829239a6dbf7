//! Which columns plans have, what they hold, and their order.

use super::{Planner, hidden};
use crate::error::QueryError;
use crate::expressions::{column_name, scalar_value, typed};
use datafusion::common::Column as DfColumn;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr_rewriter::normalize_sorts;
use datafusion::logical_expr::{
    Expr as Df, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, ident, lit,
};
use std::sync::Arc;
use vigie_kql::plan::{Expr, ExprKind, INGESTION_TIME, Plan, SortKey};

/// The qualifier of stored columns.
const TABLE: &str = "t";

impl Planner<'_> {
    /// A table's columns, those that `plan` is read for.
    pub(super) fn table(&self, name: &str, plan: &Plan) -> Result<LogicalPlan, QueryError> {
        let provider = self.database.provider(name)?;
        let schema = provider.schema();
        let mut places: Vec<usize> =
            (0..plan.columns.len()).filter(|at| self.needs.column(plan, *at)).collect();
        if places.is_empty() {
            // Rows without a column would lose their number.
            places.push(0);
        }
        let (mut stored, mut exprs) = (Vec::new(), Vec::new());
        for at in places {
            let column = &plan.columns[at];
            let name = match column.name.as_str() {
                INGESTION_TIME => crate::lake::INGESTION_TIME,
                name => name,
            };
            // Rows in memory of another program may lack a column.
            let value = match schema.index_of(name) {
                Ok(place) => {
                    stored.push(place);
                    Df::Column(DfColumn::new(Some(TABLE), name))
                }
                Err(_) => lit(scalar_value(&vigie_kql::plan_text::null_of(column.ty))),
            };
            exprs.push(value.alias(column_name(at)));
        }
        if stored.is_empty() {
            stored.push(0);
        }
        let scan = LogicalPlanBuilder::scan(TABLE, provider_as_source(provider), Some(stored))?;
        let scan = Arc::new(scan.build()?);
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, scan)?))
    }

    /// Those columns of `input`, which is what `plan` became, that somebody reads.
    pub(super) fn needed(
        &self,
        input: LogicalPlan,
        plan: &Plan,
    ) -> Result<LogicalPlan, QueryError> {
        let names = (0..plan.columns.len()).filter(|at| self.needs.column(plan, *at));
        let names: Vec<String> = names.map(column_name).chain(hidden(&input)).collect();
        let there = input.schema().fields().iter().map(|field| field.name());
        let mut kept: Vec<Df> = there.filter(|name| names.contains(name)).map(ident).collect();
        if kept.is_empty() {
            // Rows without a column would lose their number.
            kept.extend(input.schema().fields().first().map(|field| ident(field.name())));
        }
        projected(input, kept)
    }

    /// `input`, which is what `plan` became, with exactly the columns that somebody reads of it, as
    /// all inputs of a union have to have them.
    pub(super) fn alike(&self, input: LogicalPlan, plan: &Plan) -> Result<LogicalPlan, QueryError> {
        let Some(needed) = self.needs.columns(plan) else { return Ok(input) };
        let kept = hidden(&input);
        let mut exprs: Vec<Df> = needed.iter().map(|at| ident(column_name(*at))).collect();
        if exprs.is_empty() {
            exprs.push(lit(true).alias("u"));
        } else if input.schema().fields().len() == needed.len() + kept.len() {
            return Ok(input);
        }
        exprs.extend(kept.iter().map(ident));
        projected(input, exprs)
    }

    /// The items as columns of these numbers.
    pub(super) fn project(
        &self,
        input: LogicalPlan,
        items: &[Expr],
        places: &[usize],
    ) -> Result<LogicalPlan, QueryError> {
        let mut exprs = Vec::with_capacity(items.len());
        for (item, at) in items.iter().zip(places) {
            let value = typed(self.expressions().expr(item)?, item.ty, input.schema())?;
            exprs.push(value.alias(column_name(*at)));
        }
        exprs.extend(hidden(&input).iter().map(ident));
        projected(input, exprs)
    }

    /// In order of keys within groups; the first `limit` rows where one is given.
    pub(super) fn sorted(
        &self,
        input: LogicalPlan,
        keys: &[SortKey],
        limit: Option<usize>,
    ) -> Result<LogicalPlan, QueryError> {
        let is_column = |key: &SortKey| matches!(key.expr.kind, ExprKind::Column(_));
        if keys.iter().all(is_column) {
            let keys = self.sort_keys(keys, &input)?;
            return ordered(input, keys, limit);
        }
        // DataFusion 55 simplifies a computed key on one side of a merge only, and then misses the
        // order that it asked for: such keys become columns first.
        let own: Vec<Df> = input.schema().fields().iter().map(|f| ident(f.name())).collect();
        let mut wider = own.clone();
        let mut order: Vec<_> =
            hidden(&input).iter().map(|name| ident(name).sort(true, true)).collect();
        for (at, key) in keys.iter().enumerate() {
            let name = format!("o{at}");
            let value = typed(self.expressions().expr(&key.expr)?, key.expr.ty, input.schema())?;
            wider.push(value.alias(&name));
            order.push(ident(name).sort(!key.descending, key.nulls_first));
        }
        let wider = projected(input, wider)?;
        projected(ordered(wider, order, limit)?, own)
    }

    /// Sorted within groups.
    pub(super) fn sort_keys(
        &self,
        keys: &[SortKey],
        input: &LogicalPlan,
    ) -> Result<Vec<SortExpr>, QueryError> {
        let mut all: Vec<_> =
            hidden(input).iter().map(|name| ident(name).sort(true, true)).collect();
        for key in keys {
            let value = self.expressions().expr(&key.expr)?;
            all.push(value.sort(!key.descending, key.nulls_first));
        }
        Ok(all)
    }
}

/// `input` with these columns. The builder would look each name up in all schemas below first, which
/// takes longer than everything else where no column has a qualifier; scans alone give them.
pub(super) fn projected(input: LogicalPlan, exprs: Vec<Df>) -> Result<LogicalPlan, QueryError> {
    if input.schema().iter().any(|(qualifier, _)| qualifier.is_some()) {
        return Ok(LogicalPlanBuilder::from(input).project(exprs)?.build()?);
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// `input` in the order of `keys`, the first `limit` rows of it. Not by the builder: as in SQL, that
/// takes a key for what a projection below reads if it reads a column of that name, and here the
/// columns of every operator are called alike.
pub(super) fn ordered(
    input: LogicalPlan,
    keys: Vec<SortExpr>,
    limit: Option<usize>,
) -> Result<LogicalPlan, QueryError> {
    let expr = normalize_sorts(keys, &input)?;
    Ok(LogicalPlan::Sort(Sort { expr, input: Arc::new(input), fetch: limit }))
}
