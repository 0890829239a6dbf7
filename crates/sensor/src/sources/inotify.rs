//! File events by inotify(7): without privileges, and without knowing the process.

use super::files::{Change, Files};
use super::netlink::u32_at;
use super::{Context, TICK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Folders below the watched ones that are followed at most; the kernel has a bound of its own.
const MOST_FOLDERS: usize = 8192;

const CREATE: u32 = WatchFlags::CREATE.bits();
const DELETE: u32 = WatchFlags::DELETE.bits();
const CLOSE_WRITE: u32 = WatchFlags::CLOSE_WRITE.bits();
const MOVED_FROM: u32 = WatchFlags::MOVED_FROM.bits();
const MOVED_TO: u32 = WatchFlags::MOVED_TO.bits();
/// `IN_ISDIR`, `IN_Q_OVERFLOW` and `IN_IGNORED` come from the kernel only.
const IS_FOLDER: u32 = 0x4000_0000;
const OVERFLOW: u32 = 0x4000;
const IGNORED: u32 = 0x8000;

pub struct Watch {
    inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
}

impl Watch {
    pub fn open(folders: &[PathBuf]) -> Result<Watch, String> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| error.to_string())?;
        let mut watch = Watch { inotify, folders: HashMap::new() };
        for folder in folders {
            watch.add(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        Ok(watch)
    }

    /// Watches a folder and all below it; links are not followed.
    fn add(&mut self, folder: &Path) -> rustix::io::Result<()> {
        let mut open = vec![folder.to_owned()];
        let mut first = true;
        while let Some(folder) = open.pop() {
            if self.folders.len() >= MOST_FOLDERS {
                tracing::warn!(folder = %folder.display(), "too many folders, not watched");
                return Ok(());
            }
            let wanted = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR
                | WatchFlags::DONT_FOLLOW;
            match inotify::add_watch(&self.inotify, &folder, wanted) {
                Ok(number) => self.folders.insert(number, folder.clone()),
                Err(error) if first => return Err(error),
                // It was removed, or may not be read, meanwhile.
                Err(_) => continue,
            };
            first = false;
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            open.extend(below.map(|entry| entry.path()));
        }
        Ok(())
    }

    pub fn run(mut self, context: &Context) {
        let mut files = Files::new(context);
        let mut buffer = vec![0; 64 * 1024];
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        while !context.stop.is_cancelled() {
            let _ = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout));
            if let Ok(length) = rustix::io::read(&self.inotify, &mut buffer[..]) {
                self.take(context, &mut files, &buffer[..length]);
            }
            files.report_overdue();
        }
    }

    /// `struct inotify_event`: watch, mask, cookie, length of the name, name.
    fn take(&mut self, context: &Context, files: &mut Files, mut bytes: &[u8]) {
        // Both halves of a move come one after the other, joined by the cookie.
        let mut moved: Option<(u32, PathBuf)> = None;
        while let (Some(number), Some(mask), Some(cookie), Some(length)) =
            (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8), u32_at(bytes, 12))
        {
            let end = 16 + length as usize;
            let Some(name) = bytes.get(16..end) else { return };
            bytes = &bytes[end..];
            if mask & OVERFLOW != 0 {
                // The kernel does not say how many were dropped.
                context.sink.lost("file", 1);
                continue;
            }
            let number = number as i32;
            if mask & IGNORED != 0 {
                self.folders.remove(&number);
                continue;
            }
            let Some(folder) = self.folders.get(&number) else { continue };
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let path = folder.join(OsStr::from_bytes(name));
            if let Some((_, from)) = moved.take_if(|(of, _)| *of != cookie || mask & MOVED_TO == 0)
            {
                files.take(Change::Deleted(from), None);
            }
            if mask & IS_FOLDER != 0 {
                if mask & (CREATE | MOVED_TO) != 0 {
                    let _ = self.add(&path);
                }
                continue;
            }
            match mask & (CREATE | DELETE | CLOSE_WRITE | MOVED_FROM | MOVED_TO) {
                CREATE => files.take(Change::Created(path), None),
                CLOSE_WRITE => files.take(Change::Written(path), None),
                DELETE => files.take(Change::Deleted(path), None),
                MOVED_FROM => moved = Some((cookie, path)),
                MOVED_TO => match moved.take() {
                    Some((_, from)) => files.take(Change::Renamed { from, to: path }, None),
                    // From a folder that is not watched: new here.
                    None => files.take(Change::Created(path), None),
                },
                _ => {}
            }
        }
        if let Some((_, from)) = moved {
            // To a folder that is not watched: gone from here.
            files.take(Change::Deleted(from), None);
        }
    }
}
