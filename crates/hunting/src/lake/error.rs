//! What can go wrong with the lake.

use std::path::{Path, PathBuf};

/// Why the lake refused or failed. Cheap to clone, since one failed sync answers many batches.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LakeError {
    /// The batch is not JSON of the documented shape. Nothing of it is stored.
    #[error("malformed batch: {reason}")]
    Malformed { reason: String },
    /// A row does not fit its table. Nothing of the batch is stored.
    #[error("table {table}, row {row}, column {column}: {reason}")]
    Rejected {
        table: String,
        /// Counted from 0 within the batch and table.
        row: usize,
        /// Empty where the row or table as a whole is wrong.
        column: String,
        reason: String,
    },
    /// Another process has the lake open.
    #[error("the lake at {} is in use by another process{}", root.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { root: PathBuf, pid: Option<u32> },
    /// No space left. The batch is not acknowledged; later ones are taken once there is space.
    #[error("{}: no space left on the device", path.display())]
    DiskFull { path: PathBuf },
    /// Rows arrive faster than they can be written; try again later.
    #[error("the lake has {bytes} bytes waiting to be written and takes no more for now")]
    Overloaded { bytes: usize },
    #[error("the lake is closed")]
    Closed,
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    /// A file on disk is not what it should be.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
}

impl LakeError {
    pub(super) fn io(path: &Path, error: std::io::Error) -> LakeError {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => LakeError::DiskFull { path: path.to_owned() },
            _ => LakeError::Io { path: path.to_owned(), reason: error.to_string() },
        }
    }

    /// An error of Parquet, Arrow or Delta about a file. A full disk is found in the chain of
    /// causes, since these libraries wrap it several times.
    pub(super) fn about(path: &Path, error: &(dyn std::error::Error + 'static)) -> LakeError {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && matches!(io.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
            {
                return LakeError::DiskFull { path: path.to_owned() };
            }
            cause = error.source();
        }
        LakeError::Io { path: path.to_owned(), reason: error.to_string() }
    }
}
