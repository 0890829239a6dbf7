//! Rows of file events, and the merging of what belongs together: a file that is created, written
//! and closed is one `FileCreated`, with the hash of what was written.

use super::Context;
use crate::rows::Row;
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A created file is reported when it is closed, at the latest after this time.
const AWAIT_CLOSE: Duration = Duration::from_secs(2);
/// Created files that may wait; beyond that they are reported at once.
const MOST_WAITING: usize = 4096;

/// What happened to a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Created(PathBuf),
    /// Closed after having been open for writing.
    Written(PathBuf),
    Deleted(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
}

/// Turns changes into rows.
pub struct Files<'a> {
    context: &'a Context,
    /// As the kernel names it.
    own_folder: PathBuf,
    created: HashMap<PathBuf, (Instant, Option<u32>)>,
}

impl<'a> Files<'a> {
    pub fn new(context: &'a Context) -> Files<'a> {
        let own_folder = std::fs::canonicalize(&context.own_folder);
        let own_folder = own_folder.unwrap_or_else(|_| context.own_folder.clone());
        Files { context, own_folder, created: HashMap::new() }
    }

    /// Takes a change made by this process, if it is known which.
    pub fn take(&mut self, change: Change, pid: Option<u32>) {
        match change {
            Change::Created(path) => {
                if self.created.len() < MOST_WAITING {
                    self.created.insert(path, (Instant::now(), pid));
                } else {
                    self.report("FileCreated", &path, None, pid);
                }
            }
            Change::Written(path) => {
                let was_created = self.created.remove(&path).is_some();
                let action = if was_created { "FileCreated" } else { "FileModified" };
                self.report(action, &path, None, pid);
            }
            Change::Deleted(path) => {
                if let Some((_, creator)) = self.created.remove(&path) {
                    self.report("FileCreated", &path, None, creator);
                }
                self.report("FileDeleted", &path, None, pid);
            }
            Change::Renamed { from, to } => {
                if let Some((_, creator)) = self.created.remove(&from) {
                    self.report("FileCreated", &from, None, creator);
                }
                self.report("FileRenamed", &to, Some(&from), pid);
            }
        }
    }

    /// Reports created files that nobody closed (links, device nodes, files kept open).
    pub fn report_overdue(&mut self) {
        let overdue: Vec<PathBuf> = self
            .created
            .iter()
            .filter(|(_, (at, _))| at.elapsed() >= AWAIT_CLOSE)
            .map(|(path, _)| path.clone())
            .collect();
        for path in overdue {
            if let Some((_, pid)) = self.created.remove(&path) {
                self.report("FileCreated", &path, None, pid);
            }
        }
    }

    fn report(&self, action: &str, path: &Path, previous: Option<&Path>, pid: Option<u32>) {
        let context = self.context;
        let own = path.starts_with(&self.own_folder);
        let process = pid.and_then(|pid| context.processes.find(pid));
        let mut row = Row::new(context.clock.now(), if own { "TamperingAttempt" } else { action });
        row.text("FileName", name_of(path));
        row.text("FolderPath", path.to_string_lossy());
        if let Some(previous) = previous {
            row.text("PreviousFileName", name_of(previous));
            row.text("PreviousFolderPath", previous.to_string_lossy());
        }
        if own {
            let fields = json!({"TamperingAction": action, "Status": "the sensor's own file"});
            row.json("AdditionalFields", &fields);
        } else if action != "FileDeleted"
            && let Some(hashes) = context.processes.hash_file(path)
        {
            row.text("SHA1", hashes.sha1.clone());
            row.text("SHA256", hashes.sha256.clone());
            row.text("MD5", hashes.md5.clone());
            row.number("FileSize", hashes.size);
        }
        if let Some(process) = process {
            context.processes.describe_initiating(&mut row, &process);
        }
        if own {
            // Columns that the other table does not have.
            row.0.remove("PreviousFileName");
            row.0.remove("PreviousFolderPath");
            context.sink.put("file", "DeviceEvents", row);
        } else {
            context.sink.put("file", "DeviceFileEvents", row);
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
