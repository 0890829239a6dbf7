//! What is known of this machine's processes: read once from `/proc`, kept until a little after
//! their end, and written into the columns of every table.

pub mod accounts;
pub mod hashes;
mod read;

pub use read::{Image, boot_time, read_image, thread_group_of};

use crate::rows::Row;
use accounts::Accounts;
use chrono::{DateTime, TimeDelta, Utc};
use hashes::Hashes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie_contract::clock::Clock;

/// Late events of an ended process still find it for this long.
const KEPT_AFTER_END: Duration = Duration::from_secs(30);

/// One process in its present image.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub parent_pid: u32,
    pub started: DateTime<Utc>,
    pub image: Image,
    /// Copied from the parent when this process was first seen, since the parent may end first.
    pub parent_name: String,
    pub parent_started: Option<DateTime<Utc>>,
}

#[derive(Default)]
struct Known {
    by_pid: HashMap<u32, Arc<Process>>,
    ended: VecDeque<(Instant, u32, DateTime<Utc>)>,
}

/// The process cache; shared by all sources.
pub struct Processes {
    known: Mutex<Known>,
    hashes: Hashes,
    accounts: Accounts,
    booted: DateTime<Utc>,
    host: String,
}

impl Processes {
    pub fn new(clock: &Clock, host: String) -> Processes {
        Processes {
            known: Mutex::default(),
            hashes: Hashes::default(),
            accounts: Accounts::default(),
            booted: boot_time(clock),
            host,
        }
    }

    /// Reads all running processes, so that later events have their parents.
    pub fn read_all(&self) {
        let mut pids = pids();
        // Parents mostly have smaller numbers, and children copy facts from them.
        pids.sort_unstable();
        for pid in pids {
            self.find(pid);
        }
    }

    /// Makes a process of an image that was just read, and keeps it under its number.
    pub fn learn(&self, pid: u32, image: Image) -> Arc<Process> {
        let parent = self.find(image.parent_pid);
        self.keep(pid, image, parent.as_deref())
    }

    fn keep(&self, pid: u32, image: Image, parent: Option<&Process>) -> Arc<Process> {
        let process = Arc::new(Process {
            pid,
            parent_pid: image.parent_pid,
            started: self.booted + TimeDelta::milliseconds(image.start_milliseconds),
            parent_name: parent.map(|parent| parent.image.name.clone()).unwrap_or_default(),
            parent_started: parent.map(|parent| parent.started),
            image,
        });
        self.known.lock().by_pid.insert(pid, process.clone());
        process
    }

    /// A forked child has its parent's image until it executes another.
    pub fn forked(&self, parent_pid: u32, pid: u32, at: DateTime<Utc>) {
        let Some(parent) = self.known(parent_pid) else { return };
        let child = Process {
            pid,
            parent_pid,
            started: at,
            parent_name: parent.image.name.clone(),
            parent_started: Some(parent.started),
            image: Image { parent_pid, ..parent.image.clone() },
        };
        self.known.lock().by_pid.insert(pid, Arc::new(child));
    }

    /// Marks the end of a process; it is forgotten a while later.
    pub fn ended(&self, pid: u32) {
        let mut known = self.known.lock();
        let now = Instant::now();
        if let Some(started) = known.by_pid.get(&pid).map(|process| process.started) {
            known.ended.push_back((now, pid, started));
        }
        while let Some((at, pid, started)) = known.ended.front().copied() {
            if now.duration_since(at) < KEPT_AFTER_END {
                break;
            }
            known.ended.pop_front();
            // The number may have been given to another process since.
            if known.by_pid.get(&pid).is_some_and(|process| process.started == started) {
                known.by_pid.remove(&pid);
            }
        }
    }

    /// Ends every known process that is not running; for sources that are not told of ends.
    pub fn end_all_but(&self, running: &[u32]) {
        let running: std::collections::HashSet<u32> = running.iter().copied().collect();
        let gone: Vec<u32> =
            self.known.lock().by_pid.keys().filter(|pid| !running.contains(pid)).copied().collect();
        for pid in gone {
            self.ended(pid);
        }
    }

    /// The process under this number, read from `/proc` with its ancestors if not known.
    pub fn find(&self, pid: u32) -> Option<Arc<Process>> {
        // A loop over the ancestors and no recursion: chains may be long.
        let mut unknown = Vec::new();
        let mut next = pid;
        while next != 0 && unknown.len() < 64 && self.known(next).is_none() {
            let Some(image) = read_image(next) else { break };
            let parent = image.parent_pid;
            unknown.push((next, image));
            next = parent;
        }
        for (pid, image) in unknown.into_iter().rev() {
            let parent = self.known(image.parent_pid);
            self.keep(pid, image, parent.as_deref());
        }
        self.known(pid)
    }

    /// The process as known, without reading.
    pub fn known(&self, pid: u32) -> Option<Arc<Process>> {
        self.known.lock().by_pid.get(&pid).cloned()
    }

    pub fn count(&self) -> usize {
        self.known.lock().by_pid.len()
    }

    /// Hashes of a file by path, computed once per version of the file.
    pub fn hash_file(&self, path: &Path) -> Option<Arc<hashes::FileHashes>> {
        self.hashes.of_path(path)
    }

    pub fn account_name(&self, uid: u32) -> String {
        self.accounts.name(uid)
    }

    /// Domain of local accounts: the machine's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Columns of the process itself, as in `DeviceProcessEvents`.
    pub fn describe(&self, row: &mut Row, process: &Process) {
        let image = &process.image;
        row.text("FileName", image.name.clone());
        row.text("FolderPath", image.path.clone());
        row.number("ProcessId", process.pid);
        row.text("ProcessCommandLine", image.command_line.clone());
        row.time("ProcessCreationTime", process.started);
        row.text("AccountDomain", self.host.clone());
        row.text("AccountName", self.accounts.name(image.uid));
        row.text("AccountSid", image.uid.to_string());
        row.number("CreatedProcessSessionId", image.session_id);
        if let Some(session) = image.audit_session {
            row.number("LogonId", session);
        }
        if let Some(hashes) = self.hashes.of_image(image) {
            row.text("SHA1", hashes.sha1.clone());
            row.text("SHA256", hashes.sha256.clone());
            row.text("MD5", hashes.md5.clone());
            row.number("FileSize", hashes.size);
        }
    }

    /// The `InitiatingProcess…` columns.
    pub fn describe_initiating(&self, row: &mut Row, process: &Process) {
        let image = &process.image;
        row.text("InitiatingProcessFileName", image.name.clone());
        row.text("InitiatingProcessFolderPath", image.path.clone());
        row.number("InitiatingProcessId", process.pid);
        row.text("InitiatingProcessCommandLine", image.command_line.clone());
        row.time("InitiatingProcessCreationTime", process.started);
        row.text("InitiatingProcessAccountDomain", self.host.clone());
        row.text("InitiatingProcessAccountName", self.accounts.name(image.uid));
        row.text("InitiatingProcessAccountSid", image.uid.to_string());
        row.number("InitiatingProcessSessionId", image.session_id);
        row.number("InitiatingProcessParentId", process.parent_pid);
        row.text("InitiatingProcessParentFileName", process.parent_name.clone());
        if let Some(started) = process.parent_started {
            row.time("InitiatingProcessParentCreationTime", started);
        }
        if let Some(hashes) = self.hashes.of_image(image) {
            row.text("InitiatingProcessSHA1", hashes.sha1.clone());
            row.text("InitiatingProcessSHA256", hashes.sha256.clone());
            row.text("InitiatingProcessMD5", hashes.md5.clone());
            row.number("InitiatingProcessFileSize", hashes.size);
        }
    }
}

/// Numbers of the running processes (thread group leaders).
pub fn pids() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}
