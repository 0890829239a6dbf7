//! What all queries are planned and run with.

use crate::engine::EngineConfig;
use crate::error::QueryError;
use crate::row_wise::RowWisePlanner;
use async_trait::async_trait;
use datafusion::catalog::Session as CatalogSession;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::{QueryPlanner, TaskContext};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use std::sync::Arc;

/// What all queries are planned and run with. One serves all of them: nothing in it belongs to a query,
/// and a copy for each would cost more than planning a short one.
pub struct Session {
    pub state: SessionState,
    task: Arc<TaskContext>,
}

/// Rules of DataFusion's optimizer that have nothing to do in plans made here: these have no
/// sub-queries, no tables with struct columns, and joins that name their keys.
const IDLE_RULES: &[&str] = &[
    "rewrite_set_comparison",
    "decorrelate_predicate_subquery",
    "scalar_subquery_to_join",
    "decorrelate_lateral_join",
    "extract_equijoin_predicate",
    "eliminate_cross_join",
    "unions_to_filter",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
    "filter_null_join_keys",
];

/// Rules that have something to do once more behind all the others. A whole second pass gives other
/// plans for eight of two thousand hunting queries, none of them a better one, and takes a third of
/// planning.
const SECOND_PASS: &[&str] = &[
    "simplify_expressions",
    "eliminate_filter",
    "propagate_empty_relation",
    "push_down_limit",
    "common_sub_expression_eliminate",
];

impl Session {
    pub fn new(config: &EngineConfig, environment: Arc<RuntimeEnv>) -> Session {
        let mut settings = SessionConfig::new()
            .with_target_partitions(config.threads.max(1))
            .with_batch_size(8192)
            .with_collect_statistics(true);
        let options = settings.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        // It compares estimates of nullability that differ for expressions which both sides share.
        options.execution.skip_physical_aggregate_schema_check = true;
        options.sql_parser.enable_ident_normalization = false;
        // The rules hold what a second pass is for.
        options.optimizer.max_passes = 1;
        let mut state = SessionStateBuilder::new()
            .with_config(settings)
            .with_runtime_env(environment)
            .with_default_features()
            .with_analyzer_rules(vec![Arc::new(TypeCoercion::new())])
            .with_optimizer_rules(rules())
            .with_physical_optimizer_rules(physical_rules())
            .with_query_planner(Arc::new(Physical))
            .build();
        // Without them every call of a function gets options of its own, and two calls are compared
        // by all their options.
        let options = state.config_options().clone();
        state.execution_props_mut().config_options = Some(options);
        let task = state.task_ctx();
        Session { state, task }
    }

    /// Starts a plan.
    pub async fn stream(
        &self,
        plan: &LogicalPlan,
    ) -> Result<SendableRecordBatchStream, QueryError> {
        let physical = self.state.create_physical_plan(plan).await?;
        Ok(execute_stream(physical, self.task.clone())?)
    }
}

/// DataFusion's, without those that are idle here, and [`SECOND_PASS`].
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let all = Optimizer::new().rules;
    let first = all.iter().filter(|rule| !IDLE_RULES.contains(&rule.name()));
    let named = |name: &&str| all.iter().find(|rule| rule.name() == *name);
    first.chain(SECOND_PASS.iter().filter_map(named)).cloned().collect()
}

/// DataFusion's, but for its second pass over projections: in the plans of a thousand hunting queries
/// it moves two, and it costs a tenth of planning.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    if let Some(second) = rules.iter().rposition(|rule| rule.name() == "ProjectionPushdown") {
        rules.remove(second);
    }
    rules.push(Arc::new(SoftLimits));
    rules
}

/// Takes back what DataFusion 55 tells an aggregate of a limit where it runs into an error: a distinct
/// whose result has an order stops early only if somebody asked for that order.
#[derive(Debug)]
struct SoftLimits;

impl PhysicalOptimizerRule for SoftLimits {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let unlimited = |node: Arc<dyn ExecutionPlan>| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(node));
            };
            let limit = aggregate.limit_options();
            let is_soft = limit.is_some_and(|limit| limit.descending.is_none())
                && aggregate.get_minmax_desc().is_none();
            if !is_soft || aggregate.is_unordered_unfiltered_group_by_distinct() {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(aggregate.with_new_limit_options(None)) as _))
        };
        Ok(plan.transform_up(unlimited)?.data)
    }

    fn name(&self) -> &'static str {
        "soft_limits"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// DataFusion's planner, and the nodes of our own.
#[derive(Debug)]
struct Physical;

#[async_trait]
impl QueryPlanner for Physical {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn CatalogSession,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let own: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> = vec![Arc::new(RowWisePlanner)];
        DefaultPhysicalPlanner::with_extension_planners(own)
            .create_physical_plan(plan, session)
            .await
    }
}
