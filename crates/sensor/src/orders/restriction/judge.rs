//! May this file start?

use super::Surroundings;
use crate::orders::installed::Installed;
use crate::rows::Row;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// Verdicts that are remembered, by version of the file.
const MOST_VERDICTS: usize = 16 * 1024;
/// How often the package database is looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

type Version = (u64, u64, i64, i64, i64, i64, u64);

pub struct Judge {
    surroundings: Surroundings,
    installed: Option<Installed>,
    /// The database as it is read anew.
    coming: Option<Receiver<Installed>>,
    looked: Instant,
    verdicts: HashMap<Version, bool>,
}

impl Judge {
    /// Fails where there is neither a package database nor a list of allowed programs: nothing at
    /// all could start.
    pub fn new(surroundings: Surroundings) -> Result<Judge> {
        let installed = Installed::read(&surroundings.policy);
        if surroundings.policy.allowed_programs.is_empty() {
            installed.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).context(
                "code execution cannot be restricted: neither dpkg nor rpm says what is installed, \
                 and the policy allows no programs",
            )?;
        }
        let (installed, verdicts) = (installed.ok(), HashMap::new());
        let (looked, coming) = (Instant::now(), None);
        Ok(Judge { surroundings, installed, coming, looked, verdicts })
    }

    /// Whether the file that a process wants to start may. A refusal becomes a row.
    pub fn may_start(&mut self, file: &mut File, pid: u32) -> bool {
        // The sensor's own children are its scripts and tools, each checked before.
        if pid == std::process::id() || parent_of(pid) == Some(std::process::id()) {
            return true;
        }
        self.renew();
        let Ok(data) = file.metadata() else { return false };
        let version = (
            data.dev(),
            data.ino(),
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
            data.len(),
        );
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        let path = std::fs::read_link(link).unwrap_or_default();
        let verdict = match self.verdicts.get(&version) {
            Some(verdict) => *verdict,
            None => {
                let verdict = self.judge(&path, file);
                if self.verdicts.len() >= MOST_VERDICTS {
                    self.verdicts.clear();
                }
                self.verdicts.insert(version, verdict);
                verdict
            }
        };
        if !verdict {
            self.report(&path, pid, data.len());
        }
        verdict
    }

    fn judge(&self, path: &Path, file: &mut File) -> bool {
        let policy = &self.surroundings.policy;
        let own = std::env::current_exe().is_ok_and(|own| own == path);
        own || policy.allowed_programs.iter().any(|allowed| path.starts_with(allowed))
            || (self.installed.as_ref())
                .is_some_and(|installed| installed.package_of(path, file).is_some())
    }

    /// Has the package database read again after it changed; until then the last one counts.
    fn renew(&mut self) {
        match self.coming.as_ref().map(Receiver::try_recv) {
            Some(Ok(installed)) => {
                self.installed = Some(installed);
                self.verdicts.clear();
                self.coming = None;
            }
            Some(Err(TryRecvError::Disconnected)) => self.coming = None,
            Some(Err(TryRecvError::Empty)) => return,
            None => {}
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        if let Some(installed) = self.installed.as_ref().filter(|known| known.is_stale()) {
            self.coming = Some(installed.renew());
        }
    }

    fn report(&self, path: &Path, pid: u32, size: u64) {
        tracing::warn!(path = %path.display(), pid, "program not started: execution is restricted");
        let Surroundings { processes, sink, clock, .. } = &self.surroundings;
        let mut row = Row::new(clock.now(), "AppControlExecutableBlocked");
        row.text("FileName", path.file_name().unwrap_or_default().to_string_lossy());
        row.text("FolderPath", path.to_string_lossy());
        if let Some(hashes) = processes.hash_file(path) {
            row.text("SHA1", hashes.sha1.clone());
            row.text("SHA256", hashes.sha256.clone());
            row.text("MD5", hashes.md5.clone());
        }
        row.number("FileSize", size as i64);
        // Before its exec, a process still has the image of who starts it.
        if let Some(process) = processes.find(pid) {
            processes.describe_initiating(&mut row, &process);
        }
        sink.put("response", "DeviceEvents", row);
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
