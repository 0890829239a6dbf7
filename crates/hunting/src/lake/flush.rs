//! Complete log segments → Parquet.

use super::delta::WAL;
use super::parquet_file::{remove, write_sorted};
use super::table::Table;
use super::writer::Message;
use super::{Lake, LakeError, Shared, wal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    pub rows: usize,
    pub files: usize,
}

impl Lake {
    /// Writes all rows that are in memory now to Parquet. A table that cannot be written does not
    /// keep the others back; its error is returned at the end and its rows stay in log and memory.
    pub async fn flush(&self) -> Result<Flushed, LakeError> {
        self.shared.flush().await
    }
}

impl Shared {
    /// More in memory than the policy allows.
    pub(super) fn is_full(&self) -> bool {
        let policy = &self.config.flush;
        self.hot_rows.load(Ordering::Relaxed) >= policy.rows
            || self.hot_bytes.load(Ordering::Relaxed) >= policy.bytes
    }

    pub(super) fn flush_is_due(&self) -> bool {
        let age = |oldest: i64| self.config.clock.now().timestamp_micros() - oldest;
        let limit = self.config.flush.after.num_microseconds().unwrap_or(i64::MAX);
        self.is_full() || self.oldest_hot.lock().is_some_and(|oldest| age(oldest) >= limit)
    }

    pub(super) async fn flush(&self) -> Result<Flushed, LakeError> {
        let _one_at_a_time = self.flushing.lock().await;
        let log = self.log.lock().clone().ok_or(LakeError::Closed)?;
        let (reply, active) = oneshot::channel();
        log.send(Message::Rotate(reply)).await.map_err(|_| LakeError::Closed)?;
        let active = active.await.map_err(|_| LakeError::Closed)??;
        // Rows that arrive from now on belong to the next flush.
        let oldest = self.oldest_hot.lock().take();
        let mut flushed = Flushed::default();
        let mut failed = None;
        for table in self.all_tables() {
            match self.flush_table(&table, active).await {
                Ok(rows) if rows > 0 => {
                    flushed.rows += rows;
                    flushed.files += 1;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(table = table.shape.name, %error, "rows stay in the log");
                    failed = Some(error);
                }
            }
        }
        if failed.is_some() {
            let mut current = self.oldest_hot.lock();
            *current = oldest.or(*current);
        }
        self.remove_segments(active)?;
        self.flushed.notify_waiters();
        failed.map_or(Ok(flushed), Err)
    }

    /// Returns the rows written.
    async fn flush_table(&self, table: &Arc<Table>, active: u64) -> Result<usize, LakeError> {
        let Some((last, batches)) = table.complete(active) else { return Ok(0) };
        let writing = table.clone();
        let file = tokio::task::spawn_blocking(move || {
            write_sorted(writing.shape, &writing.folder, &batches)
        });
        let file = file.await.map_err(|error| LakeError::Io {
            path: table.folder.clone(),
            reason: format!("writer stopped: {error}"),
        })??;
        let mut delta = table.delta.lock().await;
        let now = self.config.clock.now();
        let added = std::slice::from_ref(&file);
        if let Err(error) = delta.commit(table.shape, added, &[], Some((WAL, last)), now).await {
            // The commit may have gone through all the same (a failed sync, for example); then the
            // file is part of the table and has to stay.
            if delta.committed_segment().is_none_or(|segment| segment < last) {
                remove(&table.folder.join(&file.path));
                return Err(error);
            }
            tracing::warn!(table = table.shape.name, %error, "committed, with an error after it");
        }
        drop(delta);
        let (rows, bytes) = table.hot_to_file(last, file);
        self.hot_rows.fetch_sub(rows, Ordering::Relaxed);
        self.hot_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(rows)
    }

    /// Removes segments that no table needs any more; damaged ones are kept under another name.
    fn remove_segments(&self, active: u64) -> Result<(), LakeError> {
        let needed = self.all_tables().iter().filter_map(|table| table.first_hot_segment()).min();
        let keep_from = needed.map_or(active, |needed| needed.min(active));
        for number in wal::segments(&self.wal_folder)? {
            if number >= keep_from {
                break;
            }
            let path = wal::segment_path(&self.wal_folder, number);
            let removed = if self.damaged_segments.lock().remove(&number) {
                std::fs::rename(&path, path.with_extension("damaged"))
            } else {
                std::fs::remove_file(&path)
            };
            removed.map_err(|error| LakeError::io(&path, error))?;
        }
        Ok(())
    }
}
