//! One hunting table of one tenant: rows in memory, files, and the switch between the two.

use super::delta::DeltaLog;
use super::hot::{HotBatch, HotRows};
use super::seen::Summary;
use super::shape::Shape;
use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A committed Parquet file.
#[derive(Clone, Debug, PartialEq)]
pub struct LakeFile {
    /// Relative to the table's folder.
    pub path: String,
    pub size: u64,
    pub rows: usize,
    /// Smallest and largest `Timestamp` in microseconds; `None` for tables without it.
    pub time: Option<(i64, i64)>,
}

/// What is stored of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableStatistics {
    pub table: String,
    pub rows: u64,
    /// On disk and in memory together.
    pub bytes: u64,
    pub files: usize,
    /// Smallest and largest `Timestamp`.
    pub earliest: Option<DateTime<Utc>>,
    pub latest: Option<DateTime<Utc>>,
}

pub struct Table {
    pub shape: &'static Shape,
    pub folder: PathBuf,
    state: RwLock<State>,
    /// Held while committing; `None` until the first commit or after opening an existing table.
    pub delta: tokio::sync::Mutex<DeltaLog>,
    /// Summaries that were looked into, by the path of their file.
    pub(super) summaries: Mutex<HashMap<String, Arc<Summary>>>,
    /// Held while a summary is made from its file's rows.
    pub(super) making: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// By log segment.
    hot: BTreeMap<u64, HotRows>,
    files: Arc<Vec<Arc<LakeFile>>>,
    /// Set where the Delta log could not be read: queries of this table fail with this text.
    damaged: Option<String>,
}

/// All rows of a table at one moment.
pub struct Snapshot {
    pub hot: Vec<Arc<HotBatch>>,
    pub files: Arc<Vec<Arc<LakeFile>>>,
    pub damaged: Option<String>,
}

impl Table {
    pub fn new(shape: &'static Shape, folder: PathBuf) -> Table {
        let delta = tokio::sync::Mutex::new(DeltaLog::new(folder.clone()));
        Table {
            shape,
            folder,
            state: RwLock::default(),
            delta,
            summaries: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// Memory of the segment's rows before and after.
    pub fn push_hot(&self, segment: u64, batch: HotBatch) -> (usize, usize) {
        let mut state = self.state.write();
        let rows = state.hot.entry(segment).or_default();
        let before = rows.bytes();
        rows.push(self.shape, batch);
        (before, rows.bytes())
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot {
            hot: state.hot.values().flat_map(|rows| rows.batches.iter().cloned()).collect(),
            files: state.files.clone(),
            damaged: state.damaged.clone(),
        }
    }

    /// The batches of all segments before `active`, and the last of these segments.
    pub fn complete(&self, active: u64) -> Option<(u64, Vec<Arc<HotBatch>>)> {
        let state = self.state.read();
        let (last, _) = state.hot.range(..active).next_back()?;
        let batches = state.hot.range(..active).flat_map(|(_, rows)| rows.batches.iter().cloned());
        Some((*last, batches.collect()))
    }

    /// Replaces the rows of all segments up to `last` by the file they are now in. Returns rows and
    /// bytes of memory that this frees.
    pub fn hot_to_file(&self, last: u64, file: LakeFile) -> (usize, usize) {
        let mut state = self.state.write();
        let kept = state.hot.split_off(&(last + 1));
        let freed = std::mem::replace(&mut state.hot, kept);
        Arc::make_mut(&mut state.files).push(Arc::new(file));
        let rows = freed.values().map(HotRows::rows).sum();
        (rows, freed.values().map(HotRows::bytes).sum())
    }

    /// Replaces files by what they were merged into (or by nothing).
    pub fn replace_files(&self, old: &[Arc<LakeFile>], new: Vec<LakeFile>) {
        let mut state = self.state.write();
        let files = Arc::make_mut(&mut state.files);
        files.retain(|file| !old.iter().any(|old| old.path == file.path));
        files.extend(new.into_iter().map(Arc::new));
        drop(state);
        old.iter().for_each(|file| self.forget_summary(file));
    }

    /// Whether a file is part of the table.
    pub fn holds(&self, file: &LakeFile) -> bool {
        self.state.read().files.iter().any(|held| held.path == file.path)
    }

    pub fn forget_summary(&self, file: &LakeFile) {
        self.summaries.lock().remove(&file.path);
    }

    pub fn set_files(&self, files: Vec<LakeFile>) {
        self.state.write().files = Arc::new(files.into_iter().map(Arc::new).collect());
    }

    pub fn set_damaged(&self, reason: String) {
        self.state.write().damaged = Some(reason);
    }

    pub fn is_damaged(&self) -> bool {
        self.state.read().damaged.is_some()
    }

    /// The first log segment whose rows are still only in memory.
    pub fn first_hot_segment(&self) -> Option<u64> {
        self.state.read().hot.keys().next().copied()
    }

    pub fn statistics(&self) -> TableStatistics {
        let Snapshot { hot, files, .. } = self.snapshot();
        let times = (hot.iter().filter_map(|batch| batch.time))
            .chain(files.iter().filter_map(|file| file.time));
        let range = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let bytes = files.iter().map(|file| file.size).sum::<u64>()
            + hot.iter().map(|batch| batch.bytes as u64).sum::<u64>();
        let rows = files.iter().map(|file| file.rows).sum::<usize>()
            + hot.iter().map(|batch| batch.rows).sum::<usize>();
        TableStatistics {
            table: self.shape.name.to_owned(),
            rows: rows as u64,
            bytes,
            files: files.len(),
            earliest: range.and_then(|(min, _)| DateTime::from_timestamp_micros(min)),
            latest: range.and_then(|(_, max)| DateTime::from_timestamp_micros(max)),
        }
    }
}
