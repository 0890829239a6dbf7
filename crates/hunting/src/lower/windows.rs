//! Functions that look at neighbouring rows: `prev`, `next`, `row_number`, `row_cumsum` ….

use super::Planner;
use crate::error::QueryError;
use crate::expressions::column_name;
use crate::operators;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::LogicalPlan;
use std::sync::Arc;
use vigie_kql::functions;
use vigie_kql::plan::{Expr, ExprKind};

/// Whether a call inside looks at other rows.
pub fn any(exprs: &[Expr]) -> bool {
    exprs.iter().any(is_windowed)
}

fn is_window(function: &str) -> bool {
    functions::find(function).is_some_and(|function| function.window)
}

fn is_windowed(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call { function, arguments } => is_window(function) || any(arguments),
        ExprKind::Cast(inner) => is_windowed(inner),
        ExprKind::Member { base, key } => is_windowed(base) || is_windowed(key),
        ExprKind::InQuery { value, .. } => is_windowed(value),
        _ => false,
    }
}

impl Planner<'_> {
    /// Computes the window functions in `exprs` over all rows of `input`, which has `width` columns:
    /// the rows with further columns, and the expressions over them.
    pub(super) async fn windowed(
        &self,
        input: LogicalPlan,
        width: usize,
        exprs: &[Expr],
    ) -> Result<(LogicalPlan, Vec<Expr>), QueryError> {
        let rows = self.in_groups(self.rows(input).await?)?;
        let starts = operators::group_starts(&rows)?;
        let mut state = Computing { batch: rows, starts, width };
        let mut found = Vec::with_capacity(exprs.len());
        for expr in exprs {
            found.push(self.take_windows(expr, &mut state)?);
        }
        Ok((self.memory(state.batch.schema(), vec![state.batch])?, found))
    }

    /// `expr` with its window calls, innermost first, replaced by columns that hold their results.
    fn take_windows(&self, expr: &Expr, state: &mut Computing) -> Result<Expr, QueryError> {
        let kind = match &expr.kind {
            ExprKind::Call { function, arguments } => {
                let mut taken = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    taken.push(self.take_windows(argument, state)?);
                }
                if !is_window(function) {
                    ExprKind::Call { function, arguments: taken }
                } else {
                    let mut arrays = Vec::with_capacity(taken.len());
                    for argument in &taken {
                        arrays.push(self.evaluate(argument, &state.batch)?);
                    }
                    let array = operators::window(function, &arrays, expr.ty, &state.starts)?;
                    state.push(array)?
                }
            }
            ExprKind::Cast(inner) => ExprKind::Cast(Box::new(self.take_windows(inner, state)?)),
            ExprKind::Member { base, key } => ExprKind::Member {
                base: Box::new(self.take_windows(base, state)?),
                key: Box::new(self.take_windows(key, state)?),
            },
            ExprKind::InQuery { operator, value, plan } => ExprKind::InQuery {
                operator,
                value: Box::new(self.take_windows(value, state)?),
                plan: plan.clone(),
            },
            other => other.clone(),
        };
        Ok(Expr { ty: expr.ty, kind })
    }
}

/// Rows that get a column for each window call.
struct Computing {
    batch: RecordBatch,
    /// Whether a row is the first of its group.
    starts: Vec<bool>,
    width: usize,
}

impl Computing {
    fn push(&mut self, array: ArrayRef) -> Result<ExprKind, QueryError> {
        let at = self.width;
        self.width += 1;
        let mut fields = self.batch.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(column_name(at), array.data_type().clone(), true)));
        let mut arrays = self.batch.columns().to_vec();
        arrays.push(array);
        let schema = Arc::new(Schema::new(fields));
        self.batch = operators::batch(&schema, arrays, self.batch.num_rows())?;
        Ok(ExprKind::Column(at))
    }
}
