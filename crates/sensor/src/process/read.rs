//! Reading one process from `/proc`, the facts that vanish first before all others.

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, readlinkat, statx};
use std::sync::LazyLock;
use vigie_contract::clock::Clock;

/// Longest command line that is kept, in bytes; the kernel allows 128 KiB an argument.
const LONGEST_COMMAND_LINE: usize = 32 * 1024;

/// A process's program and surroundings at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Last element of the path, or the kernel's 15-byte name where the path could not be read.
    pub name: String,
    /// Empty for kernel threads and processes that ended while being read.
    pub path: String,
    pub command_line: String,
    pub current_directory: String,
    pub parent_pid: u32,
    pub uid: u32,
    pub effective_uid: u32,
    /// Who logged on first (`/proc/PID/loginuid`); not set for services.
    pub login_uid: Option<u32>,
    pub audit_session: Option<u32>,
    pub session_id: u32,
    /// Number of the controlling terminal, 0 for none.
    pub terminal: i32,
    /// Start after boot, from the kernel's 10 ms ticks.
    pub start_milliseconds: i64,
    /// Device, inode, change time and size of the program's file: the key of its hashes.
    pub file: Option<FileVersion>,
}

/// One version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileVersion {
    pub device: (u32, u32),
    pub inode: u64,
    pub modified: (i64, u32),
    pub size: u64,
}

static TICKS_PER_SECOND: LazyLock<i64> =
    // SAFETY: asks for a constant of the system.
    LazyLock::new(|| unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1));

/// When the kernel started, by the given clock.
pub fn boot_time(clock: &Clock) -> DateTime<Utc> {
    let mut since = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure; this clock exists on every Linux that has the rest of `/proc`.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut since) };
    clock.now() - TimeDelta::seconds(since.tv_sec) - TimeDelta::microseconds(since.tv_nsec / 1000)
}

/// Everything about a process that can be had; `None` when it is gone altogether.
pub fn read_image(pid: u32) -> Option<Image> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
    let link = |name: &str| {
        let target = readlinkat(&folder, name, Vec::new()).ok()?;
        Some(target.to_string_lossy().into_owned())
    };
    // A short-lived program takes these two with it at its end; the rest stays with the zombie.
    let path = link("exe").unwrap_or_default();
    let command_line = read_file(&folder, "cmdline", LONGEST_COMMAND_LINE).unwrap_or_default();
    let file = version_of(&folder);
    let current_directory = link("cwd").unwrap_or_default();
    let stat = read_file(&folder, "stat", 1024)?;
    let mut image = parse_stat(&String::from_utf8_lossy(&stat))?;
    if let Some(status) = read_file(&folder, "status", 4096) {
        (image.uid, image.effective_uid) = parse_uids(&String::from_utf8_lossy(&status));
    }
    let audit_number = |name: &str| {
        let text = String::from_utf8(read_file(&folder, name, 32)?).ok()?;
        text.trim().parse().ok().filter(|&number| number != u32::MAX)
    };
    image.login_uid = audit_number("loginuid");
    image.audit_session = audit_number("sessionid");
    image.path = path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned();
    if let Some(name) = image.path.rsplit('/').next().filter(|name| !name.is_empty()) {
        image.name = name.to_owned();
    }
    image.command_line = join_arguments(&command_line);
    if image.command_line.is_empty() && !image.path.is_empty() {
        image.command_line.clone_from(&image.path);
    }
    image.current_directory = current_directory;
    image.file = file;
    Some(image)
}

/// The thread group (process) that a thread number belongs to.
pub fn thread_group_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

fn read_file(folder: &OwnedFd, name: &str, limit: usize) -> Option<Vec<u8>> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = vec![0; limit.min(4096)];
    let mut length = 0;
    loop {
        let read = rustix::io::read(&file, &mut bytes[length..]).ok()?;
        length += read;
        if read == 0 || length == limit {
            break;
        }
        if length == bytes.len() {
            bytes.resize((length * 2).min(limit), 0);
        }
    }
    bytes.truncate(length);
    Some(bytes)
}

fn version_of(folder: &OwnedFd) -> Option<FileVersion> {
    let wanted = StatxFlags::INO | StatxFlags::MTIME | StatxFlags::SIZE;
    let found = statx(folder, "exe", AtFlags::empty(), wanted).ok()?;
    Some(FileVersion {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        size: found.stx_size,
    })
}

/// `/proc/PID/stat` (proc_pid_stat(5)); the name stands in brackets and may hold any character.
fn parse_stat(text: &str) -> Option<Image> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
    Some(Image {
        name: text.get(open + 1..close)?.to_owned(),
        parent_pid: u32::try_from(number(1)?).ok()?,
        session_id: u32::try_from(number(3)?).unwrap_or(0),
        terminal: i32::try_from(number(4)?).unwrap_or(0),
        start_milliseconds: number(19)? * 1000 / *TICKS_PER_SECOND,
        ..Image::default()
    })
}

/// Real and effective uid.
fn parse_uids(status: &str) -> (u32, u32) {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut numbers = line.split_ascii_whitespace().filter_map(|text| text.parse().ok());
    let real = numbers.next().unwrap_or(0);
    (real, numbers.next().unwrap_or(real))
}

/// Arguments joined by spaces; one that holds a space or is empty is put in double quotes, so that
/// the line can be read back by a person.
fn join_arguments(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return String::new();
    }
    let mut line = String::with_capacity(bytes.len());
    for argument in bytes.split(|&byte| byte == 0) {
        if !line.is_empty() {
            line.push(' ');
        }
        let argument = String::from_utf8_lossy(argument);
        if argument.is_empty() || argument.contains([' ', '\t']) && !argument.contains('"') {
            line.push('"');
            line.push_str(&argument);
            line.push('"');
        } else {
            line.push_str(&argument);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_brackets_and_spaces_in_the_name() {
        let text = "42 (a) b (c) S 7 42 41 34816 42 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let image = parse_stat(text).unwrap();
        assert_eq!((image.name.as_str(), image.parent_pid), ("a) b (c", 7));
        assert_eq!((image.session_id, image.terminal), (41, 34816));
        assert_eq!(image.start_milliseconds, 12345 * 1000 / *TICKS_PER_SECOND);
        assert!(parse_stat("42 (cut").is_none());
    }

    #[test]
    fn arguments_stay_apart_when_joined() {
        let cases: [(&[u8], &str); 5] = [
            (b"true\0", "true"),
            (b"sh\0-c\0echo a b\0", "sh -c \"echo a b\""),
            (b"x\0\0y\0", "x \"\" y"),
            (b"say\0\"a b\"\0", "say \"a b\""),
            (b"", ""),
        ];
        for (bytes, line) in cases {
            assert_eq!(join_arguments(bytes), line);
        }
    }

    #[test]
    fn this_process_is_read_whole() {
        let image = read_image(std::process::id()).unwrap();
        let program = std::env::current_exe().unwrap();
        assert_eq!(image.path, program.to_str().unwrap());
        assert_eq!(image.name, program.file_name().unwrap().to_str().unwrap());
        assert_eq!(image.uid, rustix::process::getuid().as_raw());
        assert!(image.file.is_some() && image.start_milliseconds > 0);
        assert!(read_image(u32::MAX).is_none());
    }
}
