//! Opening: lock, tables, log.

use super::seen;
use super::shape::shape;
use super::table::Table;
use super::wal::{self, Payload, Sequences};
use super::writer::Writer;
use super::{Background, Lake, LakeConfig, LakeError, Shared, keep_house, rows};
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

impl Lake {
    /// Opens the lake at `config.root`, creating it if missing, and reads back what the log holds.
    /// Must be called within a tokio runtime.
    ///
    /// Errors: [`LakeError::Locked`] while another process has it open; [`LakeError::Io`]. Damaged
    /// files do not keep the lake from opening: they are told by [`Lake::problems`] and by queries
    /// of the tables concerned.
    pub async fn open(mut config: LakeConfig) -> Result<Lake, LakeError> {
        let wal_folder = config.root.join("wal");
        std::fs::create_dir_all(&wal_folder).map_err(|error| LakeError::io(&wal_folder, error))?;
        // Telemetry tells everything about a machine: for nobody but its keeper.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&config.root, private)
            .map_err(|error| LakeError::io(&config.root, error))?;
        config.root =
            (config.root.canonicalize()).map_err(|error| LakeError::io(&config.root, error))?;
        let wal_folder = config.root.join("wal");
        let lock = lock(&config.root)?;
        let shared = Arc::new(Shared {
            wal_folder,
            lock: Mutex::new(Some(lock)),
            tables: RwLock::new(HashMap::new()),
            sequences: Mutex::new(Sequences::new()),
            log: Mutex::new(None),
            hot_rows: AtomicUsize::new(0),
            hot_bytes: AtomicUsize::new(0),
            oldest_hot: Mutex::new(None),
            flush_wanted: Notify::new(),
            flushed: Notify::new(),
            flushing: tokio::sync::Mutex::new(()),
            compacting: tokio::sync::Mutex::new(()),
            replaced: Mutex::new(Vec::new()),
            damaged_segments: Mutex::default(),
            problems: Mutex::default(),
            config,
        });
        let committed = shared.load_tables().await?;
        let replaying = shared.clone();
        let last_segment = tokio::task::spawn_blocking(move || replaying.replay(&committed));
        let last_segment = last_segment.await.map_err(|_| LakeError::Closed)??;
        let (log, writer) = Writer::start(&shared, last_segment + 1)?;
        *shared.log.lock() = Some(log);
        let cancel = CancellationToken::new();
        let task = (shared.config.background)
            .then(|| tokio::spawn(keep_house(Arc::downgrade(&shared), cancel.clone())));
        let background = Background {
            _cancel_at_drop: cancel.clone().drop_guard(),
            cancel,
            task: Mutex::new(task),
            writer: Mutex::new(Some(writer)),
        };
        Ok(Lake { shared, background: Arc::new(background) })
    }
}

/// Takes the exclusive lock and leaves our process id for the one who is refused.
fn lock(root: &Path) -> Result<File, LakeError> {
    let path = root.join("lock");
    let io = |error| LakeError::io(&path, error);
    let mut file =
        (File::options().read(true).write(true).create(true).truncate(false).open(&path))
            .map_err(io)?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match rustix::fs::flock(&file, exclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(LakeError::Locked { root: root.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(error) => return Err(io(error.into())),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

/// Which log segments each table has already in its files.
type Committed = HashMap<(Uuid, &'static str), u64>;

impl Shared {
    /// Reads the Delta logs of all tables, several at once.
    async fn load_tables(&self) -> Result<Committed, LakeError> {
        let mut tables = Vec::new();
        for (tenant, folder) in tenant_folders(&self.config.root)? {
            for path in entries(&folder)? {
                let shape = path.file_name().and_then(|name| shape(name.to_str()?));
                if let Some(shape) = shape
                    && path.join("_delta_log").is_dir()
                {
                    tables.push((tenant, self.table(tenant, shape)));
                }
            }
        }
        let loads = tables.iter().map(|(tenant, table)| async move {
            let mut delta = table.delta.lock().await;
            let loaded = delta.load().await;
            ((*tenant, table), loaded, delta.committed_segment())
        });
        let mut loads =
            futures::stream::StreamExt::buffer_unordered(futures::stream::iter(loads), 8);
        let mut committed = Committed::new();
        while let Some(((tenant, table), loaded, segment)) =
            futures::StreamExt::next(&mut loads).await
        {
            match loaded {
                Ok(files) => {
                    remove_debris(table, &files);
                    table.set_files(files);
                    committed.extend(segment.map(|segment| ((tenant, table.shape.name), segment)));
                }
                Err(error) => {
                    table.set_damaged(error.to_string());
                    self.report(error.to_string());
                }
            }
        }
        Ok(committed)
    }

    /// Brings the log's rows back into memory. Returns the last segment number ever used.
    fn replay(&self, committed: &Committed) -> Result<u64, LakeError> {
        let mut last = committed.values().copied().max().unwrap_or(0);
        for number in wal::segments(&self.wal_folder)? {
            last = last.max(number);
            let path = wal::segment_path(&self.wal_folder, number);
            let mut segment = wal::read(&path, number)?;
            for payload in segment.payloads {
                match payload {
                    Payload::Snapshot(snapshot) => {
                        let mut sequences = self.sequences.lock();
                        for (source, sequence) in snapshot {
                            let known = sequences.entry(source).or_insert(0);
                            *known = sequence.max(*known);
                        }
                    }
                    Payload::Batch(batch) => {
                        if let Err(error) = self.replay_batch(number, batch, committed) {
                            segment.damage.push(format!("{}: {error}", path.display()));
                        }
                    }
                }
            }
            if !segment.damage.is_empty() {
                self.damaged_segments.lock().insert(number);
                segment.damage.into_iter().for_each(|damage| self.report(damage));
            }
        }
        Ok(last)
    }

    fn replay_batch(
        &self,
        number: u64,
        batch: wal::BatchRecord,
        committed: &Committed,
    ) -> Result<(), LakeError> {
        let tables = rows::parse(&batch.body, &batch.constants, batch.ingested_micros)?;
        if batch.sequence > 0 {
            let mut sequences = self.sequences.lock();
            let known = sequences.entry((batch.tenant, batch.source)).or_insert(0);
            if batch.sequence <= *known {
                return Ok(());
            }
            *known = batch.sequence;
        }
        for (shape, rows) in tables {
            if committed.get(&(batch.tenant, shape.name)).is_none_or(|segment| number > *segment) {
                self.install(batch.tenant, shape, number, rows);
            }
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, LakeError> {
    let io = |error| LakeError::io(folder, error);
    (std::fs::read_dir(folder).map_err(io)?).map(|entry| Ok(entry.map_err(io)?.path())).collect()
}

fn tenant_folders(root: &Path) -> Result<Vec<(Uuid, PathBuf)>, LakeError> {
    let tenant = |path: PathBuf| Some((Uuid::try_parse(path.file_name()?.to_str()?).ok()?, path));
    Ok(entries(root)?.into_iter().filter_map(tenant).collect())
}

/// Removes Parquet files and summaries that no commit names: left by a crash, or replaced before it.
fn remove_debris(table: &Table, files: &[super::table::LakeFile]) {
    let Ok(entries) = entries(&table.folder) else { return };
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(".parquet") && !files.iter().any(|file| file.path == name) {
            tracing::info!(file = %path.display(), "removing a file that is not part of its table");
            let _ = std::fs::remove_file(&path);
        }
    }
    let kept: HashSet<PathBuf> =
        files.iter().map(|file| seen::path(&table.folder, &file.path)).collect();
    for path in self::entries(&seen::folder(&table.folder)).unwrap_or_default() {
        if !kept.contains(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
}
