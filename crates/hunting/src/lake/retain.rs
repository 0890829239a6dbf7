//! Retention, and removal of files that nobody reads any more.

use super::seen;
use super::table::{LakeFile, Table};
use super::{Lake, LakeError, Shared};
use chrono::{DateTime, Utc};
use std::path::PathBuf;
use std::sync::Arc;

/// What retention did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Files taken out of their tables.
    pub files: usize,
    pub rows: usize,
    /// Files removed from disk, their grace over.
    pub removed: usize,
}

/// A file that is no longer part of its table.
pub struct Replaced {
    pub path: PathBuf,
    pub since: DateTime<Utc>,
}

impl Lake {
    /// Takes files out whose rows are all older than the retention (of files that are only partly
    /// so, queries hide the old rows), and removes replaced files after their grace.
    pub async fn expire(&self) -> Result<Expired, LakeError> {
        self.shared.expire().await
    }
}

impl Shared {
    pub(super) async fn expire(&self) -> Result<Expired, LakeError> {
        let _not_while_merging = self.compacting.lock().await;
        let mut expired = Expired::default();
        if let Some(horizon) = self.horizon() {
            for table in self.all_tables() {
                let is_old =
                    |file: &&Arc<LakeFile>| file.time.is_some_and(|(_, max)| max < horizon);
                let old: Vec<_> = table.snapshot().files.iter().filter(is_old).cloned().collect();
                if old.is_empty() || table.is_damaged() {
                    continue;
                }
                let now = self.config.clock.now();
                let mut delta = table.delta.lock().await;
                delta.commit(table.shape, &[], &old, None, now).await?;
                table.replace_files(&old, vec![]);
                drop(delta);
                expired.files += old.len();
                expired.rows += old.iter().map(|file| file.rows).sum::<usize>();
                self.retire(&table, &old, now);
            }
        }
        expired.removed = self.remove_replaced();
        Ok(expired)
    }

    /// Notes files for removal after the grace.
    pub(super) fn retire(&self, table: &Table, files: &[Arc<LakeFile>], now: DateTime<Utc>) {
        let replaced =
            |file: &Arc<LakeFile>| Replaced { path: table.folder.join(&file.path), since: now };
        self.replaced.lock().extend(files.iter().map(replaced));
    }

    fn remove_replaced(&self) -> usize {
        let until = self.config.clock.now() - self.config.grace;
        let due: Vec<Replaced> = {
            let mut replaced = self.replaced.lock();
            let (due, later) = replaced.drain(..).partition(|file| file.since <= until);
            *replaced = later;
            due
        };
        for file in &due {
            let summary = file.path.parent().zip(file.path.file_name());
            if let Some((folder, name)) = summary {
                let _ = std::fs::remove_file(seen::path(folder, &name.to_string_lossy()));
            }
            if let Err(error) = std::fs::remove_file(&file.path) {
                tracing::warn!(file = %file.path.display(), %error, "replaced file not removed");
            }
        }
        due.len()
    }
}
