//! File events by fanotify(7) for whole file systems, with the process that caused them. Events
//! carry the folder's handle and the name; handles are resolved to paths and remembered. Events
//! outside the watched folders are passed over.

use super::files::{Change, Files};
use super::{Context, TICK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{FromRawFd, OwnedFd};
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io::Error;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

// linux/fanotify.h; libc does not have all of them.
const FAN_CREATE: u64 = 0x100;
const FAN_DELETE: u64 = 0x200;
const FAN_CLOSE_WRITE: u64 = 0x8;
const FAN_RENAME: u64 = 0x1000_0000;
const FAN_Q_OVERFLOW: u64 = 0x4000;
const FAN_ONDIR: u64 = 0x4000_0000;
const FAN_CLASS_NOTIF: u32 = 0;
const FAN_CLOEXEC: u32 = 0x1;
const FAN_NONBLOCK: u32 = 0x2;
const FAN_UNLIMITED_QUEUE: u32 = 0x10;
const FAN_REPORT_DIR_FID: u32 = 0x400;
const FAN_REPORT_NAME: u32 = 0x800;
const FAN_MARK_ADD: u32 = 0x1;
const FAN_MARK_FILESYSTEM: u32 = 0x100;
const INFO_DFID_NAME: u8 = 2;
const INFO_OLD_DFID_NAME: u8 = 10;
const INFO_NEW_DFID_NAME: u8 = 12;
/// Bytes of `struct fanotify_event_metadata`.
const METADATA_BYTES: usize = 24;
/// Bytes of `struct fanotify_event_info_header` and the file system id behind it.
const INFO_BYTES: usize = 12;
/// Folders whose path is remembered; a rename of a folder drops them all.
const MOST_PATHS: usize = 4096;

pub struct Watch {
    fanotify: OwnedFd,
    /// An open folder of each watched file system, by its id, to resolve handles with.
    mounts: HashMap<[u8; 8], OwnedFd>,
    watched: Vec<PathBuf>,
    paths: HashMap<Vec<u8>, PathBuf>,
}

impl Watch {
    pub fn open(folders: &[PathBuf]) -> Result<Watch, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let flags = FAN_CLASS_NOTIF
            | FAN_CLOEXEC
            | FAN_NONBLOCK
            | FAN_UNLIMITED_QUEUE
            | FAN_REPORT_DIR_FID
            | FAN_REPORT_NAME;
        // SAFETY: makes a descriptor from numbers alone.
        let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as u32) };
        if fd < 0 {
            return Err(Error::last_os_error().to_string());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fanotify = unsafe { OwnedFd::from_raw_fd(fd) };
        let (mounts, watched, paths) = (HashMap::new(), Vec::new(), HashMap::new());
        let mut watch = Watch { fanotify, mounts, watched, paths };
        for folder in folders {
            watch.add(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        Ok(watch)
    }

    fn add(&mut self, folder: &Path) -> std::io::Result<()> {
        let folder = folder.canonicalize()?;
        let opened = std::fs::File::open(&folder)?;
        if !opened.metadata()?.is_dir() {
            return Err(Error::from_raw_os_error(libc::ENOTDIR));
        }
        let path = CString::new(folder.as_os_str().as_bytes())?;
        let events = FAN_CREATE | FAN_DELETE | FAN_CLOSE_WRITE | FAN_RENAME | FAN_ONDIR;
        // SAFETY: the path is a C string that outlives the call.
        let marked = unsafe {
            libc::fanotify_mark(
                self.fanotify.as_raw_fd(),
                FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
                events,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        if marked != 0 {
            return Err(Error::last_os_error());
        }
        self.mounts.insert(file_system_id(&path)?, opened.into());
        self.watched.push(folder);
        Ok(())
    }

    pub fn run(mut self, context: &Context) {
        let mut files = Files::new(context);
        let mut buffer = vec![0; 256 * 1024];
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        while !context.stop.is_cancelled() {
            let _ = poll(&mut [PollFd::new(&self.fanotify, PollFlags::IN)], Some(&timeout));
            if let Ok(length) = rustix::io::read(&self.fanotify, &mut buffer[..]) {
                self.take(context, &mut files, &buffer[..length]);
            }
            files.report_overdue();
        }
    }

    fn take(&mut self, context: &Context, files: &mut Files, mut bytes: &[u8]) {
        while let Some(event) = parse(bytes) {
            bytes = &bytes[event.bytes..];
            if event.mask & FAN_Q_OVERFLOW != 0 {
                context.sink.lost("file", 1);
                continue;
            }
            if event.mask & FAN_ONDIR != 0 {
                // Paths of everything below are other ones now.
                if event.mask & (FAN_RENAME | FAN_DELETE) != 0 {
                    self.paths.clear();
                }
                continue;
            }
            if event.pid == std::process::id() {
                continue;
            }
            for change in self.changes(&event) {
                files.take(change, Some(event.pid));
            }
        }
    }

    /// What an event tells, in the order of happening: the kernel merges events of one file.
    fn changes(&mut self, event: &Event) -> Vec<Change> {
        let mut changes = Vec::new();
        let here = event.here.as_ref().and_then(|place| self.resolve(place));
        if let Some(path) = here {
            if event.mask & FAN_CREATE != 0 {
                changes.push(Change::Created(path.clone()));
            }
            if event.mask & FAN_CLOSE_WRITE != 0 {
                changes.push(Change::Written(path.clone()));
            }
            if event.mask & FAN_DELETE != 0 {
                changes.push(Change::Deleted(path));
            }
        }
        if event.mask & FAN_RENAME != 0 {
            let from = event.old.as_ref().and_then(|place| self.resolve(place));
            let to = event.new.as_ref().and_then(|place| self.resolve(place));
            match (from, to) {
                (Some(from), Some(to)) => changes.push(Change::Renamed { from, to }),
                // Out of, or into, the watched folders.
                (Some(from), None) => changes.push(Change::Deleted(from)),
                (None, Some(to)) => changes.push(Change::Created(to)),
                (None, None) => {}
            }
        }
        changes
    }

    /// The path of a place, if it lies in a watched folder.
    fn resolve(&mut self, place: &Place) -> Option<PathBuf> {
        if !self.paths.contains_key(&place.folder) {
            let path = self.open_handle(&place.folder)?;
            if self.paths.len() >= MOST_PATHS {
                self.paths.clear();
            }
            self.paths.insert(place.folder.clone(), path);
        }
        let folder = &self.paths[&place.folder];
        let is_watched = self.watched.iter().any(|watched| folder.starts_with(watched));
        is_watched.then(|| folder.join(OsStr::from_bytes(&place.name)))
    }

    /// Asks the kernel for the path of a folder's handle; fails when it is gone.
    fn open_handle(&self, folder: &[u8]) -> Option<PathBuf> {
        let mount = self.mounts.get(folder.get(..8)?)?;
        // The kernel reads a `struct file_handle`, whose two numbers want alignment.
        let mut handle: Vec<u32> = vec![0; folder.len().div_ceil(4)];
        for (word, bytes) in handle.iter_mut().zip(folder[8..].chunks(4)) {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(padded);
        }
        // SAFETY: the handle is one that the kernel made, with its own length in front.
        let fd = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                handle.as_mut_ptr().cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        // A folder that was removed has no path any more.
        std::fs::symlink_metadata(&path).ok().filter(|data| data.nlink() > 0)?;
        Some(path)
    }
}

fn file_system_id(path: &CString) -> std::io::Result<[u8; 8]> {
    // SAFETY: an all-zero structure is valid, and statfs fills it from a C string.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    if unsafe { libc::statfs(path.as_ptr(), &raw mut found) } != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: `fsid_t` is two 32-bit numbers.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(found.f_fsid) })
}

/// A name in a folder; the folder as file system id and handle.
#[derive(Debug, PartialEq)]
struct Place {
    folder: Vec<u8>,
    name: Vec<u8>,
}

struct Event {
    bytes: usize,
    mask: u64,
    pid: u32,
    here: Option<Place>,
    old: Option<Place>,
    new: Option<Place>,
}

fn parse(bytes: &[u8]) -> Option<Event> {
    let u32_at = super::netlink::u32_at;
    let length = u32_at(bytes, 0)? as usize;
    let mask = u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
    let pid = u32_at(bytes, 20)?;
    let mut event = Event { bytes: length, mask, pid, here: None, old: None, new: None };
    let mut infos = bytes.get(METADATA_BYTES..length)?;
    while infos.len() > INFO_BYTES {
        let kind = infos[0];
        let size = usize::from(super::netlink::u16_at(infos, 2)?);
        let place = infos.get(..size).and_then(place_of);
        match kind {
            INFO_DFID_NAME => event.here = place,
            INFO_OLD_DFID_NAME => event.old = place,
            INFO_NEW_DFID_NAME => event.new = place,
            _ => {}
        }
        infos = infos.get(size.max(1)..)?;
    }
    Some(event)
}

/// Header (4 bytes), file system id (8), length and type of the handle (8), handle, name.
fn place_of(info: &[u8]) -> Option<Place> {
    let handle_bytes = super::netlink::u32_at(info, INFO_BYTES)? as usize;
    let end = INFO_BYTES + 8 + handle_bytes;
    let folder = info.get(4..end)?.to_vec();
    let name = info.get(end..)?.split(|&byte| byte == 0).next()?.to_vec();
    Some(Place { folder, name })
}
