//! The kernel asks before each exec, by fanotify(7) with `FAN_OPEN_EXEC_PERM`, and this thread
//! answers. When the descriptor is closed, by an end of any kind, the kernel allows what waits.

use super::judge::Judge;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio_util::sync::CancellationToken;

// linux/fanotify.h
const FAN_OPEN_EXEC_PERM: u64 = 0x4_0000;
const FAN_CLASS_CONTENT: u32 = 0x4;
const FAN_CLOEXEC: u32 = 0x1;
const FAN_NONBLOCK: u32 = 0x2;
const FAN_UNLIMITED_QUEUE: u32 = 0x10;
const FAN_UNLIMITED_MARKS: u32 = 0x20;
const FAN_MARK_ADD: u32 = 0x1;
const FAN_MARK_FILESYSTEM: u32 = 0x100;
const FAN_ALLOW: u32 = 1;
const FAN_DENY: u32 = 2;
/// Bytes of `struct fanotify_event_metadata`.
const METADATA_BYTES: usize = 24;
/// File systems that hold no programs.
const WITHOUT_PROGRAMS: [&str; 19] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "mqueue",
    "pstore",
    "configfs",
    "efivarfs",
    "fusectl",
    "autofs",
    "rpc_pipefs",
    "binfmt_misc",
    "nsfs",
    "selinuxfs",
];

pub struct Guard {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Guard {
    /// Runs a guard's loop on a thread of its own.
    pub fn start(run: impl FnOnce(&CancellationToken) + Send + 'static) -> Result<Guard> {
        let stop = CancellationToken::new();
        let thread = std::thread::Builder::new().name("vigie-guard".to_owned()).spawn({
            let stop = stop.clone();
            move || run(&stop)
        })?;
        Ok(Guard { stop, thread })
    }

    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the guard of code execution ended by a panic");
        }
    }
}

/// Has the kernel ask for every exec on these file systems; on all of them where none is named.
pub fn ask(file_systems: &[PathBuf]) -> Result<OwnedFd> {
    let flags =
        FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS;
    let events = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
    // SAFETY: makes a descriptor from numbers alone.
    let fd = unsafe { libc::fanotify_init(flags, events as u32) };
    if fd < 0 {
        return Err(Error::last_os_error())
            .context("the kernel does not let this sensor decide about execution (fanotify)");
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fanotify = unsafe { OwnedFd::from_raw_fd(fd) };
    match file_systems {
        [] => mark_all(&fanotify)?,
        named => {
            for path in named {
                mark(&fanotify, path).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(fanotify)
}

/// Marks each mounted file system that can hold programs. One that refuses is no reason to leave the
/// others open, but the root must be among them.
fn mark_all(fanotify: &OwnedFd) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let root = std::fs::metadata("/")?.dev();
    let mut marked = HashSet::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (words.next(), words.next()) else { continue };
        if WITHOUT_PROGRAMS.contains(&kind) {
            continue;
        }
        let place = PathBuf::from(place.replace("\\040", " "));
        let Ok(data) = std::fs::metadata(&place) else { continue };
        if marked.contains(&data.dev()) {
            continue;
        }
        match mark(fanotify, &place) {
            Ok(()) => {
                marked.insert(data.dev());
            }
            Err(error) => {
                tracing::warn!(place = %place.display(), kind, %error, "execution not restricted");
            }
        }
    }
    ensure!(marked.contains(&root), "the kernel lets this sensor not watch the root file system");
    Ok(())
}

fn mark(fanotify: &OwnedFd, path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    let marked = unsafe {
        libc::fanotify_mark(
            fanotify.as_raw_fd(),
            FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
            FAN_OPEN_EXEC_PERM,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    };
    if marked != 0 {
        bail!(Error::last_os_error());
    }
    Ok(())
}

/// Answers the kernel until told to stop.
pub fn run(fanotify: &OwnedFd, mut judge: Judge, stop: &CancellationToken) {
    let mut buffer = vec![0; 64 * 1024];
    let tick = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    while !stop.is_cancelled() {
        let _ = poll(&mut [PollFd::new(fanotify, PollFlags::IN)], Some(&tick));
        let Ok(length) = rustix::io::read(fanotify, &mut buffer[..]) else { continue };
        let mut events = &buffer[..length];
        while let Some((mask, fd, pid, bytes)) = parse(events) {
            events = &events[bytes.min(events.len())..];
            if fd < 0 {
                continue;
            }
            // SAFETY: the kernel opened this descriptor for the reader of the event.
            let mut file = unsafe { File::from_raw_fd(fd) };
            if mask & FAN_OPEN_EXEC_PERM != 0 {
                let allowed = judge.may_start(&mut file, pid);
                answer(fanotify, fd, if allowed { FAN_ALLOW } else { FAN_DENY });
            }
        }
    }
}

fn answer(fanotify: &OwnedFd, fd: i32, response: u32) {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&fd.to_ne_bytes());
    bytes[4..].copy_from_slice(&response.to_ne_bytes());
    if let Err(error) = rustix::io::write(fanotify, &bytes) {
        tracing::error!(%error, "the kernel takes no answer about an execution");
    }
}

/// Mask, descriptor, process and length of the first event.
fn parse(bytes: &[u8]) -> Option<(u64, i32, u32, usize)> {
    let head: &[u8; METADATA_BYTES] = bytes.get(..METADATA_BYTES)?.try_into().ok()?;
    let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
    let length = u32::from_ne_bytes(four(0)) as usize;
    let mask = u64::from_ne_bytes(head[8..16].try_into().ok()?);
    let (fd, pid) = (i32::from_ne_bytes(four(16)), u32::from_ne_bytes(four(20)));
    (length >= METADATA_BYTES).then_some((mask, fd, pid, length))
}
