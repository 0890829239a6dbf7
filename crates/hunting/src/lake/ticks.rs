//! How the engine's columns are read from files: times are stored in microseconds and computed with
//! in ticks, and columns without any value are not in the file at all.

use super::hot::ticks_from_micros;
use super::shape::{EPOCH_TICKS, Kind, Shape};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::scalar::ScalarValue;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Ticks of 100 ns in a microsecond.
const TICKS_PER_MICRO: i64 = 10;

/// Rewrites expressions over a table's engine columns for one of its files.
#[derive(Debug)]
pub struct FileColumnsFactory {
    pub shape: &'static Shape,
}

impl PhysicalExprAdapterFactory for FileColumnsFactory {
    fn create(&self, _: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(FileColumns { shape: self.shape, file }))
    }
}

#[derive(Debug)]
struct FileColumns {
    shape: &'static Shape,
    file: SchemaRef,
}

impl PhysicalExprAdapter for FileColumns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        // From the root, so that a comparison of a time with a literal stays one: statistics can
        // prune by it. What was rewritten is not looked at again.
        let done = |expr| Ok(Transformed::new(expr, true, TreeNodeRecursion::Jump));
        let rewritten = expr.transform_down(|node| {
            if let Some(comparison) = self.comparison(&node) {
                return done(comparison);
            }
            match node.downcast_ref::<Column>() {
                Some(column) => done(self.column(column)?),
                None => Ok(Transformed::no(node)),
            }
        });
        rewritten.data()
    }
}

impl FileColumns {
    /// The file's own column for a time column of the engine.
    fn stored_time(&self, node: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let column = node.downcast_ref::<Column>()?;
        let index = self.shape.column(column.name())?;
        let kind = self.shape.kinds[index];
        let index = self.file.index_of(self.shape.stored_name(index)).ok()?;
        (kind == Kind::Datetime).then(|| Arc::new(Column::new(column.name(), index)) as _)
    }

    /// `ticks column < literal` → `microseconds column < literal`.
    fn comparison(&self, node: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let binary = node.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (binary.left(), binary.right());
        let (time, op, literal) = match (self.stored_time(left), self.stored_time(right)) {
            (Some(time), None) => (time, *binary.op(), right),
            (None, Some(time)) => (time, binary.op().swap()?, left),
            _ => return None,
        };
        let literal = literal.downcast_ref::<Literal>()?;
        let ScalarValue::Int64(Some(ticks)) = literal.value() else { return None };
        let (op, micros) = micros_bound(op, *ticks)?;
        let bound = ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
        Some(Arc::new(BinaryExpr::new(time, op, Arc::new(Literal::new(bound)))))
    }

    fn column(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let name = column.name();
        let index = self.shape.column(name).ok_or_else(|| {
            DataFusionError::Internal(format!("{} has no column {name}", self.shape.name))
        })?;
        let kind = self.shape.kinds[index];
        let Ok(at) = self.file.index_of(self.shape.stored_name(index)) else {
            // The column has no value in any row of the file.
            let missing = match kind.nullable() {
                true => ScalarValue::try_from(&kind.engine())?,
                false => ScalarValue::Utf8View(Some(String::new())),
            };
            return Ok(Arc::new(Literal::new(missing)));
        };
        let stored = Arc::new(Column::new(name, at));
        if kind == Kind::Datetime {
            return Ok(Arc::new(TicksExpr { micros: stored }));
        }
        if *self.file.field(at).data_type() == kind.engine() {
            return Ok(stored);
        }
        datafusion::physical_expr::expressions::cast(stored, &self.file, kind.engine())
    }
}

/// The comparison of microseconds that holds for exactly the whole microseconds whose ticks compare
/// so. `None` where there is no such comparison (equality with a fraction of a microsecond).
fn micros_bound(op: Operator, ticks: i64) -> Option<(Operator, i64)> {
    let since_epoch = ticks.checked_sub(EPOCH_TICKS)?;
    let floor = since_epoch.div_euclid(TICKS_PER_MICRO);
    if since_epoch.rem_euclid(TICKS_PER_MICRO) == 0 {
        return Some((op, floor));
    }
    match op {
        Operator::Lt | Operator::LtEq => Some((Operator::LtEq, floor)),
        Operator::Gt | Operator::GtEq => Some((Operator::Gt, floor)),
        _ => None,
    }
}

/// Microseconds since the Unix epoch → ticks since 0001-01-01.
#[derive(Debug, Eq)]
struct TicksExpr {
    micros: Arc<dyn PhysicalExpr>,
}

impl PartialEq for TicksExpr {
    fn eq(&self, other: &TicksExpr) -> bool {
        self.micros.eq(&other.micros)
    }
}

impl Hash for TicksExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.micros.hash(state);
    }
}

impl fmt::Display for TicksExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticks({})", self.micros)
    }
}

impl PhysicalExpr for TicksExpr {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.micros.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let micros = self.micros.evaluate(batch)?.into_array(batch.num_rows())?;
        let micros = micros.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| {
            DataFusionError::Execution(format!("{} is no time in the file", self.micros))
        })?;
        Ok(ColumnarValue::Array(Arc::new(ticks_from_micros(micros))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.micros]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let micros = children.pop().ok_or_else(|| {
            DataFusionError::Internal("the conversion to ticks has one argument".to_owned())
        })?;
        Ok(Arc::new(TicksExpr { micros }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
