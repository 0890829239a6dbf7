//! Operators that make rows out of one row each (`mv-expand`, `parse`, `parse-kv`), as a node of
//! DataFusion's plans: batch by batch, on all threads, and only the columns that somebody reads.

use crate::error::QueryError;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr as Df, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt as _;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Rows of the input that are worked on at once, at first and at most.
const SLICES: (usize, usize) = (16, 8192);
/// Rows that are made at once, as far as the rows before tell: what becomes many rows must not fill
/// the memory.
const MADE: usize = 32_768;

/// Rows that an operator made of some rows.
pub struct RowsMade {
    /// The row that each came from.
    pub origin: UInt32Array,
    /// The operator's own columns.
    pub arrays: Vec<ArrayRef>,
}

/// An operator that looks at one row at a time.
pub trait RowOperator: Send + Sync {
    /// What plans call it.
    fn name(&self) -> &'static str;

    /// The rows made of `rows` rows, whose values the operator asked for.
    fn make(&self, values: &[ArrayRef], rows: usize) -> Result<RowsMade, QueryError>;
}

/// Puts `operator` on `input`: it reads the columns `values`, whose names nothing else has, and gives
/// the columns `made`; all other columns of the input go through.
pub fn row_wise(
    input: LogicalPlan,
    operator: Arc<dyn RowOperator>,
    values: Vec<String>,
    made: Vec<Field>,
) -> Result<LogicalPlan> {
    let node = RowWise::over(input, Shared(operator), values.into(), made.into())?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// An operator, compared by identity.
#[derive(Clone)]
struct Shared(Arc<dyn RowOperator>);

impl Shared {
    fn place(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }
}

#[derive(Clone)]
struct RowWise {
    input: LogicalPlan,
    operator: Shared,
    values: Arc<[String]>,
    made: Arc<[Field]>,
    /// Columns that go through, then those made.
    schema: DFSchemaRef,
}

impl RowWise {
    fn over(
        input: LogicalPlan,
        operator: Shared,
        values: Arc<[String]>,
        made: Arc<[Field]>,
    ) -> Result<RowWise> {
        let through = input.schema().fields().iter();
        let through = through.filter(|field| !values.contains(field.name()));
        let fields = through.map(|field| field.as_ref().clone()).chain(made.iter().cloned());
        let fields = fields.map(|field| (None, Arc::new(field))).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(RowWise { input, operator, values, made, schema })
    }
}

impl PartialEq for RowWise {
    fn eq(&self, other: &RowWise) -> bool {
        self.operator.place() == other.operator.place() && self.input == other.input
    }
}

impl Eq for RowWise {}

impl Hash for RowWise {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operator.place().hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for RowWise {
    fn partial_cmp(&self, other: &RowWise) -> Option<Ordering> {
        match self.operator.place().cmp(&other.operator.place()) {
            Ordering::Equal => self.input.partial_cmp(&other.input),
            unequal => Some(unequal),
        }
    }
}

impl fmt::Debug for RowWise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl UserDefinedLogicalNodeCore for RowWise {
    fn name(&self) -> &str {
        self.operator.0.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Df> {
        Vec::new()
    }

    /// What a row keeps can be asked of it before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.made.iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made: Vec<&str> = self.made.iter().map(|field| field.name().as_str()).collect();
        write!(f, "{}: {}", self.operator.0.name(), made.join(", "))
    }

    fn with_exprs_and_inputs(&self, _: Vec<Df>, inputs: Vec<LogicalPlan>) -> Result<RowWise> {
        let input = inputs.into_iter().next();
        let input = input.ok_or_else(|| DataFusionError::Internal("an input is missing".into()))?;
        RowWise::over(input, self.operator.clone(), self.values.clone(), self.made.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let through = output_columns.iter().map(|at| self.schema.field(*at).name());
        let wanted = through.chain(self.values.iter());
        let mut wanted: Vec<usize> =
            wanted.filter_map(|name| input.index_of_column_by_name(None, name)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Some(vec![wanted])
    }
}

/// Plans the nodes of this module.
#[derive(Debug)]
pub struct RowWisePlanner;

#[async_trait]
impl ExtensionPlanner for RowWisePlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<RowWise>(), inputs) else {
            return Ok(None);
        };
        let schema = node.schema.inner().clone();
        let exec = RowWiseExec::over(input.clone(), node.operator.clone(), &node.values, schema)?;
        Ok(Some(Arc::new(exec)))
    }
}

#[derive(Clone)]
struct RowWiseExec {
    input: Arc<dyn ExecutionPlan>,
    operator: Shared,
    /// Columns of the input that the operator reads, and those that go through.
    values: Vec<usize>,
    through: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl RowWiseExec {
    fn over(
        input: Arc<dyn ExecutionPlan>,
        operator: Shared,
        values: &[String],
        schema: SchemaRef,
    ) -> Result<RowWiseExec> {
        let from = input.schema();
        let values =
            values.iter().map(|name| Ok(from.index_of(name)?)).collect::<Result<Vec<_>>>()?;
        let through = (0..from.fields().len()).filter(|at| !values.contains(at)).collect();
        RowWiseExec::with(input, operator, values, through, schema)
    }

    fn with(
        input: Arc<dyn ExecutionPlan>,
        operator: Shared,
        values: Vec<usize>,
        through: Vec<usize>,
        schema: SchemaRef,
    ) -> Result<RowWiseExec> {
        let mapping = ProjectionMapping::from_indices(&through, &input.schema())?;
        let known: EquivalenceProperties = input.equivalence_properties().project(&mapping, schema);
        let properties = PlanProperties::new(
            known,
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let properties = Arc::new(properties);
        Ok(RowWiseExec { input, operator, values, through, properties })
    }

    fn made(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let values: Vec<ArrayRef> =
            self.values.iter().map(|at| batch.column(*at).clone()).collect();
        let made = self.operator.0.make(&values, batch.num_rows());
        let made = made.map_err(|error| match error {
            QueryError::Runtime(message) => DataFusionError::Execution(message),
            other => DataFusionError::External(Box::new(other)),
        })?;
        let rows = made.origin.len();
        let same = rows == batch.num_rows()
            && made.origin.values().iter().enumerate().all(|(at, from)| at == *from as usize);
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for at in &self.through {
            let column = batch.column(*at);
            arrays.push(if same { column.clone() } else { take(column, &made.origin, None)? });
        }
        arrays.extend(made.arrays);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }
}

impl fmt::Debug for RowWiseExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowWiseExec: {}", self.operator.0.name())
    }
}

impl DisplayAs for RowWiseExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowWiseExec: {}", self.operator.0.name())
    }
}

impl ExecutionPlan for RowWiseExec {
    fn name(&self) -> &str {
        "RowWiseExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next();
        let input = input.ok_or_else(|| DataFusionError::Internal("an input is missing".into()))?;
        let (values, through) = (self.values.clone(), self.through.clone());
        let exec = RowWiseExec::with(input, self.operator.clone(), values, through, self.schema())?;
        Ok(Arc::new(exec))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (exec, schema) = (self.clone(), self.schema());
        let made_schema = schema.clone();
        let state = (input, None::<(RecordBatch, usize)>, SLICES.0);
        let made = futures::stream::try_unfold(state, move |(mut input, waiting, slice)| {
            let (exec, schema) = (exec.clone(), made_schema.clone());
            async move {
                let (batch, at) = match waiting {
                    Some(waiting) => waiting,
                    None => match input.next().await.transpose()? {
                        Some(batch) => (batch, 0),
                        None => return Ok(None),
                    },
                };
                let rows = slice.min(batch.num_rows() - at);
                let made = exec.made(&batch.slice(at, rows), &schema)?;
                let each = made.num_rows().div_ceil(rows.max(1)).max(1);
                let slice = (MADE / each).clamp(1, SLICES.1);
                let waiting = (at + rows < batch.num_rows()).then_some((batch, at + rows));
                Ok(Some((made, (input, waiting, slice))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, made)))
    }
}
