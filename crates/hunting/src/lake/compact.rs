//! Small files → large files.

use super::parquet_file::{SortedFile, remove};
use super::table::{LakeFile, Table};
use super::{CompactionPolicy, Lake, LakeError, Shared};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt as _;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub files_before: usize,
    pub files_after: usize,
    pub rows: usize,
}

/// Rows read at once from each file; small, since up to [`MAX_INPUTS`] files are open together.
const BATCH_ROWS: usize = 2048;
/// Files merged at once, bounding the memory of their readers.
const MAX_INPUTS: usize = 24;

impl Lake {
    /// Merges small files of all tables until there is nothing left to merge.
    pub async fn compact(&self) -> Result<Compacted, LakeError> {
        self.shared.compact(&self.background.cancel).await
    }
}

impl Shared {
    /// Stops between two merges when cancelled.
    pub(super) async fn compact(&self, cancel: &CancellationToken) -> Result<Compacted, LakeError> {
        let _one_at_a_time = self.compacting.lock().await;
        let mut total = Compacted::default();
        let today = day(self.config.clock.now().timestamp_micros());
        for table in self.all_tables() {
            if table.is_damaged() {
                continue;
            }
            while !cancel.is_cancelled() {
                let files = table.snapshot().files;
                let Some(group) = choose(&files, &self.config.compaction, today) else { break };
                let merged = self.merge(&table, &group).await?;
                total.files_before += group.len();
                total.files_after += 1;
                total.rows += merged;
            }
        }
        Ok(total)
    }

    /// Returns the rows merged.
    async fn merge(&self, table: &Arc<Table>, group: &[Arc<LakeFile>]) -> Result<usize, LakeError> {
        let (reading, inputs) = (table.clone(), group.to_vec());
        let runtime = tokio::runtime::Handle::current();
        let file = tokio::task::spawn_blocking(move || merge_files(&reading, &inputs, &runtime));
        let file = file.await.map_err(|error| LakeError::Io {
            path: table.folder.clone(),
            reason: format!("compaction stopped: {error}"),
        })??;
        let rows: usize = group.iter().map(|file| file.rows).sum();
        let path = table.folder.join(&file.path);
        if file.rows != rows {
            remove(&path);
            let reason =
                format!("the files to merge hold {} rows, their log says {rows}", file.rows);
            return Err(LakeError::Damaged { path: table.folder.clone(), reason });
        }
        let mut delta = table.delta.lock().await;
        let now = self.config.clock.now();
        delta.commit(table.shape, std::slice::from_ref(&file), group, None, now).await?;
        table.replace_files(group, vec![file]);
        drop(delta);
        self.retire(table, group, now);
        Ok(rows)
    }
}

fn day(micros: i64) -> i64 {
    micros.div_euclid(86_400_000_000)
}

/// Files to merge next: of one day and about one size, so that a row is rewritten only a few times
/// before its file is large enough. Of days that are over, whatever is left is merged.
fn choose(
    files: &[Arc<LakeFile>],
    policy: &CompactionPolicy,
    today: i64,
) -> Option<Vec<Arc<LakeFile>>> {
    let small = |file: &LakeFile| file.rows < policy.rows / 2 && file.size < policy.bytes / 2;
    let mut by_day: BTreeMap<i64, Vec<&Arc<LakeFile>>> = BTreeMap::new();
    for file in files.iter().filter(|file| small(file)) {
        by_day.entry(file.time.map_or(today, |(_, max)| day(max))).or_default().push(file);
    }
    for (day, mut files) in by_day {
        files.sort_by_key(|file| (size_class(file.rows), file.time, file.path.clone()));
        let groups: Vec<&[&Arc<LakeFile>]> = if day < today {
            vec![&files]
        } else {
            files.chunk_by(|a, b| size_class(a.rows) == size_class(b.rows)).collect()
        };
        let at_least = if day < today { 2 } else { policy.files.max(2) };
        for group in groups {
            let fitting = fitting(group, policy);
            if fitting.len() >= at_least || (fitting.len() >= 2 && fitting.len() < group.len()) {
                return Some(fitting);
            }
        }
    }
    None
}

/// The first files of the group that together stay within the size that compaction aims at.
fn fitting(group: &[&Arc<LakeFile>], policy: &CompactionPolicy) -> Vec<Arc<LakeFile>> {
    let (mut rows, mut bytes) = (0, 0);
    let fits = |file: &&&Arc<LakeFile>| {
        rows += file.rows;
        bytes += file.size;
        rows <= policy.rows && bytes <= policy.bytes
    };
    group.iter().take(MAX_INPUTS).take_while(fits).map(|file| Arc::clone(file)).collect()
}

fn size_class(rows: usize) -> u32 {
    (rows / 512 + 1).ilog(8)
}

/// Merges sorted files into one, page by page. Blocks.
fn merge_files(
    table: &Table,
    inputs: &[Arc<LakeFile>],
    runtime: &tokio::runtime::Handle,
) -> Result<LakeFile, LakeError> {
    let mut readers = Vec::with_capacity(inputs.len());
    for input in inputs {
        let path = table.folder.join(&input.path);
        let file = File::open(&path).map_err(|error| LakeError::io(&path, error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
            .map_err(|error| LakeError::Damaged {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        readers.push((path, reader));
    }
    let shape = table.shape;
    let used: Vec<usize> = (0..shape.kinds.len())
        .filter(|&index| {
            let name = shape.stored_name(index);
            readers.iter().any(|(_, reader)| schema_of(reader).index_of(name).is_ok())
        })
        .collect();
    let schema: SchemaRef =
        Arc::new(shape.stored.project(&used).expect("columns of the same schema"));
    let streams = (readers.into_iter())
        .map(|(path, reader)| -> SendableRecordBatchStream {
            let (used, output) = (used.clone(), schema.clone());
            let batches = reader.map(move |batch| {
                let batch = batch.map_err(|error| {
                    let reason = error.to_string();
                    let damaged = LakeError::Damaged { path: path.clone(), reason };
                    datafusion::error::DataFusionError::External(Box::new(damaged))
                })?;
                let columns = used.iter().map(|&index| {
                    match batch.column_by_name(shape.stored_name(index)) {
                        Some(column) => column.clone(),
                        None => shape.missing_stored(index, batch.num_rows()),
                    }
                });
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                Ok(RecordBatch::try_new_with_options(output.clone(), columns.collect(), &options)?)
            });
            Box::pin(RecordBatchStreamAdapter::new(schema.clone(), futures::stream::iter(batches)))
        })
        .collect();
    let mut file = SortedFile::create(shape, &table.folder, schema.clone())?;
    let mut rows = merged(streams, &schema, shape.timestamp.is_some())
        .map_err(|error| LakeError::about(&table.folder, &error))?;
    while let Some(batch) = runtime.block_on(rows.next()) {
        file.write(&batch.map_err(|error| LakeError::about(&table.folder, &error))?)?;
    }
    file.finish()
}

fn schema_of(reader: &ParquetRecordBatchReader) -> SchemaRef {
    arrow::array::RecordBatchReader::schema(reader)
}

fn merged(
    streams: Vec<SendableRecordBatchStream>,
    schema: &SchemaRef,
    sorted: bool,
) -> datafusion::error::Result<SendableRecordBatchStream> {
    if !sorted {
        let all = futures::stream::iter(streams).flatten();
        return Ok(Box::pin(RecordBatchStreamAdapter::new(schema.clone(), all)));
    }
    let ascending = SortOptions { descending: false, nulls_first: false };
    let mut order = vec![PhysicalSortExpr::new(col("Timestamp", schema)?, ascending)];
    if schema.index_of("DeviceId").is_ok() {
        order.push(PhysicalSortExpr::new(col("DeviceId", schema)?, ascending));
    }
    let order = LexOrdering::new(order).expect("not empty");
    // Bounded by the number and batch size of the inputs; what the summary gathers comes on top.
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(schema.clone())
        .with_expressions(&order)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(8192)
        .with_reservation(MemoryConsumer::new("compaction").register(&pool))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(day: i64, rows: usize) -> Arc<LakeFile> {
        let at = day * 86_400_000_000;
        let path = format!("{day}-{rows}-{}", uuid::Uuid::new_v4());
        Arc::new(LakeFile { path, size: rows as u64 * 50, rows, time: Some((at, at + 1)) })
    }

    #[test]
    fn files_of_one_day_and_size_are_merged_once_there_are_enough() {
        let policy = CompactionPolicy::default();
        let mut files: Vec<_> = (0..7).map(|_| file(10, 1000)).collect();
        assert_eq!(choose(&files, &policy, 10), None, "seven are not yet worth it");
        files.push(file(10, 900_000));
        files.push(file(10, 5_000_000));
        assert_eq!(choose(&files, &policy, 10), None, "other sizes do not count");
        files.push(file(10, 1200));
        assert_eq!(choose(&files, &policy, 10).map(|group| group.len()), Some(8));
    }

    #[test]
    fn what_is_left_of_a_past_day_is_merged() {
        let files = [file(9, 100), file(9, 300_000), file(10, 100)];
        let group = choose(&files, &CompactionPolicy::default(), 10).expect("a group");
        assert_eq!(group.iter().map(|file| file.rows).collect::<Vec<_>>(), [100, 300_000]);
        assert_eq!(
            choose(&files[2..], &CompactionPolicy::default(), 11),
            None,
            "one file is as good as it gets"
        );
    }

    #[test]
    fn merged_files_stay_within_the_size_aimed_at() {
        let files: Vec<_> = (0..10).map(|_| file(10, 450_000)).collect();
        let group = choose(&files, &CompactionPolicy::default(), 10).expect("a group");
        assert_eq!(group.len(), 4);
    }
}
