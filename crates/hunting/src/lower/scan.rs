//! The conditions and assignments of `scan`, one row at a time.

use super::Planner;
use crate::error::QueryError;
use crate::expressions::{column_name, typed};
use crate::functions::{Cell, Cells, array_of, arrow_type};
use crate::operators;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;
use vigie_kql::plan::{Expr, ExprKind, ScanStep};
use vigie_kql::types::Type;

/// Expressions over a row and the states of the steps, lowered once.
pub struct Evaluator {
    steps: Vec<Step>,
    /// The columns that any expression reads: place in row and states together, and type.
    read: Vec<(usize, Type)>,
    schema: SchemaRef,
}

struct Step {
    condition: Arc<dyn PhysicalExpr>,
    assignments: Vec<(usize, Arc<dyn PhysicalExpr>)>,
}

impl Evaluator {
    /// `columns` are the types of a state: the input's, then the declared ones.
    pub fn new(
        planner: &Planner<'_>,
        columns: &[Type],
        steps: &[ScanStep],
    ) -> Result<Evaluator, QueryError> {
        let mut read = Vec::new();
        let mut written = Vec::new();
        for step in steps {
            let mut condition = step.condition.clone();
            place(&mut condition, columns, &mut read);
            let mut assignments = step.assignments.clone();
            assignments.iter_mut().for_each(|(_, value)| place(value, columns, &mut read));
            written.push((condition, assignments));
        }
        let fields = read.iter().enumerate();
        let fields = fields.map(|(at, (_, ty))| Field::new(column_name(at), arrow_type(*ty), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let known = DFSchema::try_from(schema.as_ref().clone())?;
        let lowered = |expr: &Expr| -> Result<_, QueryError> {
            let value = typed(planner.expressions().expr(expr)?, expr.ty, &known)?;
            Ok(planner.session.state.create_physical_expr(value, &known)?)
        };
        let mut steps = Vec::new();
        for (condition, assignments) in &written {
            let assignments = assignments.iter().map(|(at, value)| Ok((*at, lowered(value)?)));
            steps.push(Step {
                condition: lowered(condition)?,
                assignments: assignments.collect::<Result<_, QueryError>>()?,
            });
        }
        Ok(Evaluator { steps, read, schema })
    }

    /// `states` are the states of all steps, one behind the other.
    pub fn condition(
        &self,
        step: usize,
        row: &[Cell<'static>],
        states: &[Cell<'static>],
    ) -> Result<bool, QueryError> {
        let value = self.value(&self.steps[step].condition, row, states)?;
        Ok(value == Cell::Bool(true))
    }

    /// The row with the step's assignments.
    pub fn extend(
        &self,
        step: usize,
        row: &[Cell<'static>],
        states: &[Cell<'static>],
    ) -> Result<Vec<Cell<'static>>, QueryError> {
        let mut extended = row.to_vec();
        for (at, value) in &self.steps[step].assignments {
            extended[*at] = self.value(value, row, states)?;
        }
        Ok(extended)
    }

    fn value(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        row: &[Cell<'static>],
        states: &[Cell<'static>],
    ) -> Result<Cell<'static>, QueryError> {
        let arrays = self.read.iter().map(|(at, ty)| {
            let cell = match at.checked_sub(row.len()) {
                None => &row[*at],
                Some(at) => &states[at],
            };
            array_of(*ty, std::iter::once(cell.clone()))
        });
        let batch = operators::batch(&self.schema, arrays.collect(), 1)?;
        let array = expr.evaluate(&batch)?.into_array(1)?;
        Ok(Cells::of(&array)?.get(0).into_owned())
    }
}

/// Replaces columns and states by places among those that are read.
fn place(expr: &mut Expr, columns: &[Type], read: &mut Vec<(usize, Type)>) {
    let mut of = |at: usize, ty: Type| match read.iter().position(|(known, _)| *known == at) {
        Some(found) => ExprKind::Column(found),
        None => {
            read.push((at, ty));
            ExprKind::Column(read.len() - 1)
        }
    };
    match &mut expr.kind {
        ExprKind::Column(at) => expr.kind = of(*at, columns[*at]),
        ExprKind::ScanState { step, column } => {
            // Behind the row, which is as long as a state.
            let at = columns.len() * (*step + 1) + *column;
            expr.kind = of(at, columns[*column]);
        }
        ExprKind::Call { arguments, .. } => {
            arguments.iter_mut().for_each(|argument| place(argument, columns, read));
        }
        ExprKind::Cast(inner) => place(inner, columns, read),
        ExprKind::Member { base, key } => {
            place(base, columns, read);
            place(key, columns, read);
        }
        ExprKind::InQuery { value, .. } => place(value, columns, read),
        ExprKind::Literal(_) | ExprKind::ScalarQuery(_) => {}
    }
}
