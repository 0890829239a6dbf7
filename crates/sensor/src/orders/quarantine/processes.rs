//! Processes that run a file: as their program, as a mapped library, or as the script that their
//! interpreter was given.

use super::search::Found;
use crate::process::pids;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of a command line that may name a script.
const ARGUMENTS: usize = 4;

pub struct Running {
    pub pid: u32,
    /// Where the file is, as the process names it.
    pub file: PathBuf,
    handle: OwnedFd,
}

impl Running {
    /// Ends the process and waits until it is gone.
    pub fn end(&self) -> std::io::Result<()> {
        match pidfd_send_signal(&self.handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let mut poll = [rustix::event::PollFd::new(&self.handle, rustix::event::PollFlags::IN)];
        let patience = Duration::from_secs(5);
        let patience = rustix::event::Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&patience)) {
            Ok(0) => Err(std::io::Error::other("it does not end")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Looks for processes that run files of one hash; remembers what it hashed.
pub struct Search<'a> {
    sha1: &'a str,
    /// Whether a file has the hash, by device, inode and time of its last change.
    known: HashMap<(u64, u64, i64, i64), bool>,
}

impl<'a> Search<'a> {
    pub fn new(sha1: &'a str) -> Search<'a> {
        Search { sha1, known: HashMap::new() }
    }

    /// All processes that run such a file now, but the sensor.
    pub fn running(&mut self) -> Vec<Running> {
        let mut found = Vec::new();
        for pid in pids().into_iter().filter(|pid| *pid != std::process::id()) {
            // Opened first: what is read afterwards belongs to this process or to none.
            let Some(handle) =
                Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            if let Some(file) = file_of(pid, &mut |path| self.matches(path)) {
                found.push(Running { pid, file, handle });
            }
        }
        found
    }

    fn matches(&mut self, opened: &Path) -> bool {
        let Ok(data) = std::fs::metadata(opened) else { return false };
        if !data.is_file() {
            return false;
        }
        let key = (data.dev(), data.ino(), data.ctime(), data.ctime_nsec());
        let sha1 = self.sha1;
        *self.known.entry(key).or_insert_with(|| Found::has_hash(opened, sha1))
    }
}

fn file_of(pid: u32, matches: &mut dyn FnMut(&Path) -> bool) -> Option<PathBuf> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let program = folder.join("exe");
    if matches(&program) {
        return Some(named(&std::fs::read_link(&program).ok()?));
    }
    let root = folder.join("root");
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let maps = std::fs::read_to_string(folder.join("maps")).unwrap_or_default();
    let mut mapped: Vec<&str> = (maps.lines().filter(|line| line.contains("r-xp")))
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .collect();
    mapped.dedup();
    for path in mapped {
        if matches(&inside(Path::new(path))) {
            return Some(named(Path::new(path)));
        }
    }
    let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    let current = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
    let arguments = line.split(|&byte| byte == 0).skip(1).take(ARGUMENTS);
    for argument in arguments.filter(|argument| !argument.is_empty()) {
        let path = current.join(std::ffi::OsStr::new(&*String::from_utf8_lossy(argument)));
        if matches(&inside(&path)) {
            return Some(path);
        }
    }
    None
}

/// A removed program's path is marked by the kernel.
fn named(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text))
}
