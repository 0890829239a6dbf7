//! A table as the engine scans it: rows in memory and files, at one moment.

use super::hot::HotBatch;
use super::parquet_file::ROW_GROUP_ROWS;
use super::readers::NamingReaders;
use super::shape::{EPOCH_TICKS, Shape};
use super::table::{LakeFile, Snapshot, Table};
use super::ticks::FileColumnsFactory;
use super::{LakeError, Shared};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use datafusion::scalar::ScalarValue;
use std::path::Path;
use std::sync::Arc;

/// One table of one tenant.
pub struct LakeTable {
    shared: Arc<Shared>,
    table: Arc<Table>,
}

impl std::fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LakeTable").field(&self.table.shape.name).finish()
    }
}

impl LakeTable {
    pub fn new(shared: Arc<Shared>, table: Arc<Table>) -> LakeTable {
        LakeTable { shared, table }
    }

    fn shape(&self) -> &'static Shape {
        self.table.shape
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        self.shape().engine.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters prune files here and, pushed further by the physical optimizer, pages and rows.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Snapshot { hot, files, damaged } = self.table.snapshot();
        if let Some(reason) = damaged {
            let path = self.table.folder.clone();
            let damaged = LakeError::Damaged { path, reason };
            return Err(DataFusionError::External(Box::new(damaged)));
        }
        let shape = self.shape();
        let horizon = self.shared.horizon();
        let mut wanted = Range::of(filters);
        if let Some(horizon) = horizon {
            wanted.from = wanted.from.max(horizon);
        }
        let files: Vec<_> = files.iter().filter(|file| wanted.meets(file.time)).cloned().collect();
        let hot: Vec<_> = hot.into_iter().filter(|batch| wanted.meets(batch.time)).collect();

        // Rows out of retention are hidden by a filter, which needs the time even where the query
        // does not; only where some are there.
        let has_old = |time: Option<(i64, i64)>| horizon.zip(time).is_some_and(|(h, t)| t.0 < h);
        let hide = files.iter().any(|file| has_old(file.time))
            || hot.iter().any(|batch| has_old(batch.time));
        let asked: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..shape.kinds.len()).collect(),
        };
        let mut columns = asked.clone();
        let hidden_by = shape.timestamp.filter(|_| hide);
        if let Some(timestamp) = hidden_by.filter(|timestamp| !columns.contains(timestamp)) {
            columns.push(timestamp);
        }
        let schema = Arc::new(shape.engine.project(&columns)?);
        let limit = limit.filter(|_| !hide && filters.is_empty());

        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            parts.push(self.scan_files(&files, &columns, limit, state)?);
        }
        if !hot.is_empty() || parts.is_empty() {
            let rows = RowsInMemory { shape, batches: hot, columns: columns.clone(), schema };
            parts.push(rows.into_plan(limit)?);
        }
        let all = match parts.len() {
            1 => parts.remove(0),
            _ => UnionExec::try_new(parts)?,
        };
        let Some((timestamp, horizon)) = hidden_by.zip(horizon) else { return Ok(all) };
        let at = columns.iter().position(|column| *column == timestamp).expect("added above");
        let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new("Timestamp", at));
        let ticks = horizon.saturating_mul(10).saturating_add(EPOCH_TICKS);
        let within = Arc::new(PhysicalBinary::new(time, Operator::GtEq, lit(ticks)));
        let visible = FilterExecBuilder::new(within, all)
            .apply_projection(Some((0..asked.len()).collect()))?
            .build()?;
        Ok(Arc::new(visible))
    }
}

impl LakeTable {
    fn scan_files(
        &self,
        files: &[Arc<LakeFile>],
        columns: &[usize],
        limit: Option<usize>,
        state: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let shape = self.shape();
        let workers = state.config().target_partitions();
        let groups = pieces(shape, &self.table.folder, files, workers)?;
        let runtime = state.runtime_env();
        let url = ObjectStoreUrl::local_filesystem();
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let readers = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, footers);
        let options = state.config().options().execution.parquet.clone();
        let mut table_options = datafusion::config::TableParquetOptions::new();
        table_options.global = options;
        let source = ParquetSource::new(shape.engine.clone())
            .with_table_parquet_options(table_options)
            .with_parquet_file_reader_factory(Arc::new(NamingReaders(readers)))
            .with_enable_page_index(true)
            .with_bloom_filter_on_read(true);
        let rows = files.iter().map(|file| file.rows).sum();
        let known = Statistics {
            num_rows: Precision::Inexact(rows),
            ..Statistics::new_unknown(&shape.engine)
        };
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(known)
            .with_projection_indices(Some(columns.to_vec()))?
            .with_expr_adapter(Some(Arc::new(FileColumnsFactory { shape })))
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The files in pieces of about a row group, newest first and dealt out to the workers, so that all
/// of them are busy to the end and a query for the newest rows finds them soon.
fn pieces(
    shape: &Shape,
    folder: &Path,
    files: &[Arc<LakeFile>],
    workers: usize,
) -> Result<Vec<FileGroup>> {
    let mut files = files.to_vec();
    files.sort_by_key(|file| std::cmp::Reverse(file.time.map(|(_, latest)| latest)));
    let mut pieces = Vec::new();
    for file in &files {
        let path = object_store::path::Path::from_absolute_path(folder.join(&file.path))
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let statistics = Arc::new(statistics(shape, file));
        let count = file.rows.div_ceil(ROW_GROUP_ROWS).max(1) as u64;
        for piece in 0..count {
            let mut entry = PartitionedFile::new(path.to_string(), file.size);
            if count > 1 {
                let at = |piece: u64| (file.size * piece / count).cast_signed();
                entry = entry.with_range(at(piece), at(piece + 1));
            }
            entry.statistics = Some(statistics.clone());
            pieces.push(entry);
        }
    }
    let mut groups = vec![Vec::new(); workers.clamp(1, pieces.len().max(1))];
    let count = groups.len();
    for (at, piece) in pieces.into_iter().enumerate() {
        groups[at % count].push(piece);
    }
    Ok(groups.into_iter().map(FileGroup::new).collect())
}

/// Rows in memory, converted to the engine's types as they are read.
#[derive(Debug)]
struct RowsInMemory {
    shape: &'static Shape,
    batches: Vec<Arc<HotBatch>>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl RowsInMemory {
    fn into_plan(mut self, limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        self.batches.reverse();
        let schema = self.schema.clone();
        let parts: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(self)];
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts, None, [], false, limit)?))
    }
}

impl PartitionStream for RowsInMemory {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (shape, columns, schema) = (self.shape, self.columns.clone(), self.schema.clone());
        let at_once = context.session_config().batch_size();
        let batches = self.batches.clone().into_iter().flat_map(move |batch| {
            let whole = batch.for_engine(shape, &columns, schema.clone());
            let rows = batch.rows;
            (0..rows).step_by(at_once).map(move |start| match &whole {
                Ok(whole) => Ok(whole.slice(start, at_once.min(rows - start))),
                Err(error) => Err(DataFusionError::Execution(error.to_string())),
            })
        });
        let rows = futures::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// Row count and time range of the file that a piece belongs to.
fn statistics(shape: &Shape, file: &LakeFile) -> Statistics {
    let mut columns = vec![ColumnStatistics::new_unknown(); shape.kinds.len()];
    if let (Some(index), Some((min, max))) = (shape.timestamp, file.time) {
        let ticks = |micros: i64| micros.saturating_mul(10).saturating_add(EPOCH_TICKS);
        let exact = |micros| Precision::Exact(ScalarValue::Int64(Some(ticks(micros))));
        columns[index].min_value = exact(min);
        columns[index].max_value = exact(max);
        columns[index].null_count = Precision::Exact(0);
    }
    Statistics {
        // Of the whole file, where a piece is a part of it.
        num_rows: Precision::Inexact(file.rows),
        total_byte_size: Precision::Inexact(file.size as usize),
        column_statistics: columns,
    }
}

/// Bounds of `Timestamp` that the filters imply, in microseconds, both included.
struct Range {
    from: i64,
    to: i64,
}

impl Range {
    fn of(filters: &[Expr]) -> Range {
        let mut range = Range { from: i64::MIN, to: i64::MAX };
        filters.iter().for_each(|filter| range.narrow(filter));
        range
    }

    fn narrow(&mut self, filter: &Expr) {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return };
        let (op, ticks) = match (left.as_ref(), *op, right.as_ref()) {
            (_, Operator::And, _) => {
                self.narrow(left);
                self.narrow(right);
                return;
            }
            (Expr::Column(column), op, Expr::Literal(ScalarValue::Int64(Some(ticks)), _))
                if column.name == "Timestamp" =>
            {
                (op, *ticks)
            }
            (Expr::Literal(ScalarValue::Int64(Some(ticks)), _), op, Expr::Column(column))
                if column.name == "Timestamp" =>
            {
                let Some(op) = op.swap() else { return };
                (op, *ticks)
            }
            _ => return,
        };
        let micros = ticks.saturating_sub(EPOCH_TICKS).div_euclid(10);
        match op {
            Operator::Gt | Operator::GtEq => self.from = self.from.max(micros),
            Operator::Lt | Operator::LtEq => self.to = self.to.min(micros),
            Operator::Eq => {
                self.from = self.from.max(micros);
                self.to = self.to.min(micros);
            }
            _ => {}
        }
    }

    /// Whether rows with times in this range may be wanted.
    fn meets(&self, time: Option<(i64, i64)>) -> bool {
        time.is_none_or(|(min, max)| max >= self.from && min <= self.to)
    }
}
