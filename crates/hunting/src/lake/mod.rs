//! The event lake: durable rows of hunting tables, visible to queries as soon as they are durable.
//!
//! A batch is parsed into columns, written to the log ([`wal`], [`writer`]) and kept in memory
//! ([`hot`]). In the background, complete segments of the log become one Parquet file per tenant
//! and table ([`parquet_file`]), committed to that table's Delta log ([`delta`]) together with the
//! segment's number, so that a crash between commit and removal of the segment duplicates nothing.
//!
//! ```text
//! {root}/lock                                 one process at a time
//! {root}/wal/{segment}.wal                    the log
//! {root}/{tenant}/{Table}/*.parquet           rows, sorted by Timestamp
//! {root}/{tenant}/{Table}/_delta_log/         Delta Lake: DuckDB, Spark, Polars can read it
//! {root}/{tenant}/{Table}/_seen/*.seen        what the files tell of hashes, addresses, hosts
//! ```
//!
//! Tables are not partitioned: files are sorted and carry their time range in Delta's statistics,
//! which prunes as well as a date partition, while an import of a year would otherwise write
//! hundreds of small files for each segment. Compaction keeps days apart instead.

mod append;
mod compact;
mod delta;
mod error;
mod flush;
mod hot;
mod load;
mod open;
mod parquet_file;
mod readers;
mod retain;
mod rows;
mod scan;
mod seen;
mod shape;
mod table;
#[cfg(test)]
mod tests;
mod ticks;
mod wal;
mod watch;
mod writer;

pub use append::{Appended, Arriving, Batch};
pub use compact::Compacted;
pub use error::LakeError;
pub use flush::Flushed;
pub use load::Loaded;
pub use retain::Expired;
pub use seen::{Seen, Thing, host_of};
pub use shape::INGESTION_TIME;
pub use table::TableStatistics;
pub use watch::{Sighting, Watch};

use chrono::TimeDelta;
use datafusion::catalog::TableProvider;
use hashbrown::{HashMap, HashSet};
use hot::HotBatch;
use parking_lot::{Mutex, RwLock};
use shape::Shape;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use table::Table;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use vigie_contract::clock::Clock;
use wal::Sequences;

/// Where the lake lives and how it keeps house.
#[derive(Clone, Debug)]
pub struct LakeConfig {
    /// Created if missing.
    pub root: PathBuf,
    pub clock: Clock,
    /// Rows whose `Timestamp` is older are hidden and in time removed; `None` keeps everything.
    pub retention: Option<TimeDelta>,
    pub flush: FlushPolicy,
    /// Size that compaction aims at.
    pub compaction: CompactionPolicy,
    /// How long a replaced file stays on disk for the queries that still read it.
    pub grace: TimeDelta,
    /// Whether flush, compaction and retention run by themselves. Tests switch it off.
    pub background: bool,
}

impl LakeConfig {
    /// Retention of 30 days and the sizes that suit a server of a few cores.
    pub fn new(root: impl Into<PathBuf>, clock: Clock) -> LakeConfig {
        LakeConfig {
            root: root.into(),
            clock,
            retention: Some(TimeDelta::days(30)),
            flush: FlushPolicy::default(),
            compaction: CompactionPolicy::default(),
            grace: TimeDelta::minutes(15),
            background: true,
        }
    }
}

/// Rows in memory become Parquet as soon as one of these is reached.
#[derive(Clone, Debug)]
pub struct FlushPolicy {
    pub rows: usize,
    /// Memory that the rows take.
    pub bytes: usize,
    /// Age of the oldest row.
    pub after: TimeDelta,
}

impl Default for FlushPolicy {
    fn default() -> FlushPolicy {
        FlushPolicy { rows: 500_000, bytes: 64 << 20, after: TimeDelta::minutes(5) }
    }
}

/// What compaction makes of small files.
#[derive(Clone, Debug)]
pub struct CompactionPolicy {
    /// Files of half these sizes and more are left alone.
    pub rows: usize,
    pub bytes: u64,
    /// Files of about the same size and day that are merged at once.
    pub files: usize,
}

impl Default for CompactionPolicy {
    fn default() -> CompactionPolicy {
        CompactionPolicy { rows: 2_000_000, bytes: 256 << 20, files: 8 }
    }
}

/// The lake. Clones share it; the last one dropped stops its background work without flushing,
/// which loses nothing: the log is read again at the next [`Lake::open`].
#[derive(Clone)]
pub struct Lake {
    shared: Arc<Shared>,
    background: Arc<Background>,
}

struct Background {
    cancel: CancellationToken,
    _cancel_at_drop: DropGuard,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What appends, queries and the background share.
struct Shared {
    config: LakeConfig,
    wal_folder: PathBuf,
    /// Holds the exclusive lock on the root until the lake is closed.
    lock: Mutex<Option<File>>,
    tables: RwLock<HashMap<(Uuid, &'static str), Arc<Table>>>,
    sequences: Mutex<Sequences>,
    /// Taken by `close`.
    log: Mutex<Option<mpsc::Sender<writer::Message>>>,
    hot_rows: AtomicUsize,
    hot_bytes: AtomicUsize,
    /// When the oldest row in memory came in, microseconds since the Unix epoch.
    oldest_hot: Mutex<Option<i64>>,
    flush_wanted: Notify,
    flushed: Notify,
    flushing: tokio::sync::Mutex<()>,
    compacting: tokio::sync::Mutex<()>,
    /// Replaced files and when they may be removed.
    replaced: Mutex<Vec<retain::Replaced>>,
    damaged_segments: Mutex<HashSet<u64>>,
    problems: Mutex<Vec<String>>,
}

impl Shared {
    /// Makes a durable batch visible.
    fn install(&self, tenant: Uuid, shape: &'static Shape, segment: u64, batch: HotBatch) {
        self.oldest_hot.lock().get_or_insert_with(|| self.config.clock.now().timestamp_micros());
        self.hot_rows.fetch_add(batch.rows, Ordering::Relaxed);
        let table = self.table(tenant, shape);
        let (before, after) = table.push_hot(segment, batch);
        self.hot_bytes.fetch_add(after, Ordering::Relaxed);
        self.hot_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// The table, made known if it is new. Nothing is written to disk for it yet.
    fn table(&self, tenant: Uuid, shape: &'static Shape) -> Arc<Table> {
        if let Some(table) = self.tables.read().get(&(tenant, shape.name)) {
            return table.clone();
        }
        let folder = self.config.root.join(tenant.to_string()).join(shape.name);
        (self.tables.write().entry((tenant, shape.name)))
            .or_insert_with(|| Arc::new(Table::new(shape, folder)))
            .clone()
    }

    fn all_tables(&self) -> Vec<Arc<Table>> {
        self.tables.read().values().cloned().collect()
    }

    fn last_sequence(&self, tenant: Uuid, source: &str) -> u64 {
        self.sequences.lock().get(&(tenant, source.to_owned())).copied().unwrap_or(0)
    }

    /// Rows older than this, in microseconds since the Unix epoch, are out of retention.
    fn horizon(&self) -> Option<i64> {
        let retention = self.config.retention?;
        Some((self.config.clock.now() - retention).timestamp_micros())
    }

    fn report(&self, problem: String) {
        tracing::error!(problem, "lake");
        self.problems.lock().push(problem);
    }
}

impl Lake {
    /// The highest batch number stored of a source; 0 if none.
    pub fn last_sequence(&self, tenant: Uuid, source: &str) -> u64 {
        self.shared.last_sequence(tenant, source)
    }

    /// What is stored of each table of a tenant, by name; tables without a row are left out.
    pub fn tenant_tables(&self, tenant: Uuid) -> Vec<TableStatistics> {
        let mut statistics: Vec<TableStatistics> = (self.shared.tables.read().iter())
            .filter(|((owner, _), _)| *owner == tenant)
            .map(|(_, table)| table.statistics())
            .filter(|statistics| statistics.rows > 0)
            .collect();
        statistics.sort_by(|a, b| a.table.cmp(&b.table));
        statistics
    }

    /// Whether a tenant has no row in a table.
    pub(crate) fn is_vacant(&self, tenant: Uuid, table: &str) -> bool {
        let Some(shape) = shape::shape(table) else { return true };
        let tables = self.shared.tables.read();
        let found = tables.get(&(tenant, shape.name));
        found.is_none_or(|table| table.statistics().rows == 0)
    }

    /// Memory that rows not yet in Parquet take.
    pub fn memory_bytes(&self) -> usize {
        self.shared.hot_bytes.load(Ordering::Relaxed)
    }

    /// Damage found on disk since the lake was opened, each text with file and place.
    pub fn problems(&self) -> Vec<String> {
        self.shared.problems.lock().clone()
    }

    /// The rows of a table as the engine reads them, `None` for a name that is no hunting table.
    /// Strings, guids and dynamics are `Utf8View`, times `Int64` ticks of 100 ns since 0001-01-01;
    /// the hidden column [`INGESTION_TIME`] comes last.
    pub(crate) fn table(&self, tenant: Uuid, table: &str) -> Option<Arc<dyn TableProvider>> {
        let shape = shape::shape(table)?;
        Some(Arc::new(scan::LakeTable::new(self.shared.clone(), self.shared.table(tenant, shape))))
    }

    /// Writes everything to Parquet and ends the background work. Later calls fail with
    /// [`LakeError::Closed`]; queries under way can finish, unless whoever opens the folder next
    /// removes their files.
    pub async fn close(&self) -> Result<(), LakeError> {
        self.background.cancel.cancel();
        let task = self.background.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
        let flushed = self.flush().await;
        drop(self.shared.log.lock().take());
        let writer = self.background.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        drop(self.shared.lock.lock().take());
        flushed.map(|_| ())
    }
}

/// How often the background looks whether a flush is due.
const FLUSH_TICK: Duration = Duration::from_secs(1);
/// How often it compacts and removes.
const HOUSEKEEPING_TICK: Duration = Duration::from_secs(60);

/// Flush, compaction and retention until cancelled. Errors are logged and tried again.
async fn keep_house(shared: std::sync::Weak<Shared>, cancel: CancellationToken) {
    let mut housekeeping = tokio::time::Instant::now() + HOUSEKEEPING_TICK;
    let mut pause = Duration::ZERO;
    loop {
        let Some(lake) = shared.upgrade() else { return };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(FLUSH_TICK + pause) => {}
            () = lake.flush_wanted.notified(), if pause.is_zero() => {}
        }
        if lake.flush_is_due() {
            match lake.flush().await {
                Ok(_) => pause = Duration::ZERO,
                Err(error) => {
                    pause = (pause * 2).clamp(FLUSH_TICK, HOUSEKEEPING_TICK);
                    tracing::error!(%error, retry_in = ?(FLUSH_TICK + pause), "flush failed; the log keeps the rows");
                }
            }
        }
        if tokio::time::Instant::now() >= housekeeping {
            if let Err(error) = lake.compact(&cancel).await {
                tracing::error!(%error, "compaction failed; the small files stay");
            }
            if let Err(error) = lake.expire().await {
                tracing::error!(%error, "retention failed; it is tried again");
            }
            lake.summarise(&cancel).await;
            housekeeping = tokio::time::Instant::now() + HOUSEKEEPING_TICK;
        }
    }
}
