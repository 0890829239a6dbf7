//! Text → rows, within limits.

use crate::database::Database;
use crate::error::{Limit, QueryError};
use crate::external::ExternalSources;
use crate::lower::Planner;
use crate::result::{QueryResult, ResultTable, bytes_of};
use crate::session::Session;
use arrow::array::RecordBatch;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlanBuilder;
use futures::StreamExt as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie_contract::clock::Clock;
use vigie_kql::plan::Query;
use vigie_kql::types::UNIX_EPOCH_TICKS;
use vigie_kql::{BindOptions, Schemas, bind};

/// Resources of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Memory that all queries together may take before they spill to disk.
    pub memory_bytes: usize,
    /// Threads that queries run on.
    pub threads: usize,
    /// Where queries spill; the system's folder if missing.
    pub spill_folder: Option<PathBuf>,
    /// What `externaldata` may read.
    pub external: ExternalSources,
    pub clock: Clock,
}

impl EngineConfig {
    /// A gigabyte and all cores.
    pub fn new(clock: Clock) -> EngineConfig {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        EngineConfig {
            memory_bytes: 1 << 30,
            threads,
            spill_folder: None,
            external: ExternalSources::default(),
            clock,
        }
    }
}

/// What one query may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// More rows than these are cut off.
    pub rows: usize,
    pub bytes: usize,
    pub time: Duration,
}

impl Default for Limits {
    /// The documented ones of `POST /api/advancedqueries/run`.
    fn default() -> Limits {
        Limits { rows: 100_000, bytes: 124 << 20, time: Duration::from_secs(200) }
    }
}

/// A stage of a query's way, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Tokens,
    Syntax,
    Plan,
    Logical,
    Physical,
}

/// Runs queries on threads of its own, so that they take no time from requests. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    config: EngineConfig,
    session: Session,
    /// `None` only while dropping.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// Errors: threads or the spill folder cannot be had.
    pub fn new(config: EngineConfig) -> Result<Engine, QueryError> {
        let internal = |error: &dyn std::fmt::Display| QueryError::Internal(error.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("vigie-hunting")
            .enable_all()
            .build()
            .map_err(|error| internal(&error))?;
        let mode = match &config.spill_folder {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::OsTmpDirectory,
        };
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(config.memory_bytes)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
            .build_arc()?;
        let session = Session::new(&config, environment);
        Ok(Engine { shared: Arc::new(Shared { config, session, runtime: Some(runtime) }) })
    }

    /// Runs a query. Dropping the future cancels it.
    pub async fn run(
        &self,
        database: &Database,
        text: &str,
        limits: &Limits,
    ) -> Result<QueryResult, QueryError> {
        let (engine, database, text, limits) =
            (self.clone(), database.clone(), text.to_owned(), limits.clone());
        let handle = self.handle()?;
        let time = limits.time;
        let work = async move { engine.run_here(&database, &text, &limits).await };
        // A panic in a query is that query's error.
        let work = futures::FutureExt::catch_unwind(AssertUnwindSafe(work));
        let task = AbortOnDrop(handle.spawn(work));
        match tokio::time::timeout(time, task).await {
            Err(_) => Err(QueryError::Limit(Limit::Time)),
            Ok(Ok(Ok(result))) => result,
            Ok(Ok(Err(panic))) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                Err(QueryError::Internal(format!("panic: {}", text.unwrap_or_default())))
            }
            Ok(Err(error)) => Err(QueryError::Internal(error.to_string())),
        }
    }

    fn handle(&self) -> Result<tokio::runtime::Handle, QueryError> {
        let runtime = self.shared.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| QueryError::Internal("the engine has ended".into()))?;
        Ok(runtime.handle().clone())
    }

    /// Binds a query; plugins whose columns depend on data run here, one after the other.
    async fn bind(
        &self,
        database: &Database,
        text: &str,
    ) -> Result<(Query, Vec<RecordBatch>), QueryError> {
        let now = self.shared.config.clock.now();
        let now = now.timestamp_micros() * 10 + UNIX_EPOCH_TICKS;
        let (mut known, mut batches) = (Vec::new(), Vec::new());
        loop {
            let options = BindOptions { now, schemas: Schemas::Known(known.clone()) };
            let query = bind(text, database.schema(), &options).map_err(QueryError::Rejected)?;
            let Some(open) = &query.open else { return Ok((query, batches)) };
            let mut planner = self.planner(database, &batches);
            let (columns, batch) = planner.open(open).await?;
            known.push(columns);
            batches.push(batch);
        }
    }

    fn planner<'a>(&'a self, database: &'a Database, plugins: &'a [RecordBatch]) -> Planner<'a> {
        Planner::new(&self.shared.session, database, plugins, &self.shared.config.external)
    }

    async fn run_here(
        &self,
        database: &Database,
        text: &str,
        limits: &Limits,
    ) -> Result<QueryResult, QueryError> {
        let began = Instant::now();
        let (query, plugins) = self.bind(database, text).await?;
        let mut tables = Vec::new();
        let mut planner = self.planner(database, &plugins);
        for plan in &query.statements {
            let lowered = planner.plan(plan).await?;
            let bounded = LogicalPlanBuilder::from(lowered).limit(0, Some(limits.rows))?.build()?;
            let mut rows = self.shared.session.stream(&bounded).await?;
            let mut table = ResultTable { columns: plan.columns.clone(), batches: Vec::new() };
            let mut bytes = 0usize;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                bytes += bytes_of(&batch);
                // What is larger in memory than twice the limit is larger than it as text.
                if bytes > limits.bytes.saturating_mul(2) {
                    return Err(QueryError::Limit(Limit::Size));
                }
                table.batches.push(batch);
            }
            tables.push(table);
        }
        Ok(QueryResult { tables, render: query.render, seconds: began.elapsed().as_secs_f64() })
    }

    /// Plans a query and does not run it, but for what plans depend on (`toscalar`, open plugins).
    /// How long it took from text to physical plan.
    ///
    /// Errors: those of [`Engine::run`] that do not need a row.
    pub async fn compile(&self, database: &Database, text: &str) -> Result<Duration, QueryError> {
        let began = Instant::now();
        let (query, plugins) = self.bind(database, text).await?;
        let mut planner = self.planner(database, &plugins);
        for plan in &query.statements {
            let lowered = planner.plan(plan).await?;
            self.shared.session.state.create_physical_plan(&lowered).await?;
        }
        Ok(began.elapsed())
    }

    /// What a query becomes at a stage of its way.
    pub async fn explain(
        &self,
        database: &Database,
        text: &str,
        stage: Stage,
    ) -> Result<String, QueryError> {
        use std::fmt::Write as _;
        let mut out = String::new();
        match stage {
            Stage::Tokens => {
                for token in vigie_kql::lexer::tokens(text).0 {
                    let _ =
                        writeln!(out, "{}..{} {:?}", token.span.start, token.span.end, token.kind);
                }
                return Ok(out);
            }
            Stage::Syntax => {
                let parsed = vigie_kql::parser::parse(text);
                if !parsed.diagnostics.is_empty() {
                    return Err(QueryError::Rejected(parsed.diagnostics));
                }
                for statement in parsed.statements {
                    let _ = writeln!(out, "{statement:#?}");
                }
                return Ok(out);
            }
            _ => {}
        }
        let (query, plugins) = self.bind(database, text).await?;
        if stage == Stage::Plan {
            return Ok(query.to_string());
        }
        let mut planner = self.planner(database, &plugins);
        for plan in &query.statements {
            let lowered = planner.plan(plan).await?;
            let state = &self.shared.session.state;
            let optimized = state.optimize(&lowered)?;
            if stage == Stage::Logical {
                let _ = writeln!(out, "{}", optimized.display_indent());
                continue;
            }
            let physical = state.create_physical_plan(&lowered).await?;
            let shown = datafusion::physical_plan::displayable(physical.as_ref());
            let _ = writeln!(out, "{}", shown.indent(true));
        }
        Ok(out)
    }

    /// Answers one line of the conformance protocol: `{"id","query","database"}` →
    /// `{"id","columns":[{"name","type"}],"rows":[[…]]}` or `{"id","error","kind"}`.
    ///
    /// `hunting` is what the database of that name is; the other one is `docs`,
    /// [`Database::Samples`].
    pub async fn answer(&self, line: &str, hunting: &Database) -> String {
        let request: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let id = request["id"].clone();
        let query = request["query"].as_str().unwrap_or_default();
        let database = match request["database"].as_str() {
            Some("docs") => &Database::Samples,
            _ => hunting,
        };
        let answer = match self.run(database, query, &Limits::default()).await {
            Ok(result) => {
                let Some(table) = result.tables.last() else {
                    return serde_json::json!({"id": id, "error": "no result", "kind": "semantic"})
                        .to_string();
                };
                let columns: Vec<_> = (table.columns.iter())
                    .map(|c| serde_json::json!({"name": c.name, "type": c.ty.name()}))
                    .collect();
                serde_json::json!({"id": id, "columns": columns, "rows": table.conformance_rows()})
            }
            Err(error) => {
                let kind = match &error {
                    QueryError::Rejected(_) => "semantic",
                    QueryError::Limit(_) => "limit",
                    QueryError::Runtime(_) => "runtime",
                    QueryError::Internal(_) => "internal",
                };
                let text = match &error {
                    QueryError::Rejected(diagnostics) => {
                        diagnostics.iter().map(|d| d.display(query)).collect::<Vec<_>>().join("\n")
                    }
                    other => other.to_string(),
                };
                serde_json::json!({"id": id, "error": text, "kind": kind})
            }
        };
        answer.to_string()
    }
}

/// Ends the task when nobody waits for it any more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}
