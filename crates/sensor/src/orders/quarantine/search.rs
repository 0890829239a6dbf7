//! Files by their hash, opened so that no link, pipe or device can take their place.

use crate::identity::hex;
use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, open, openat, statat, unlinkat};
use sha1::{Digest, Sha1};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that are larger are not hashed in a search, in bytes.
const LARGEST_HASHED: u64 = 1 << 30;
/// File systems without files of this machine (linux/magic.h): proc, sysfs, cgroup2, devpts,
/// securityfs, debugfs, tracefs, bpf, NFS, CIFS, SMB2, FUSE.
const NO_FILES: [i64; 12] = [
    0x9fa0,
    0x6265_6572,
    0x6367_7270,
    0x1cd1,
    0x7363_6673,
    0x6462_6720,
    0x7472_6163,
    0xcafe_4a11,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
];

/// A regular file that was found, with the folder that it is in.
pub struct Found {
    pub path: PathBuf,
    pub metadata: Metadata,
    file: File,
    folder: OwnedFd,
    name: OsString,
}

impl Found {
    /// Opens a regular file; `None` if it has another hash.
    pub fn open(path: &Path, sha1: Option<&str>) -> Result<Option<Found>> {
        let path = std::fs::canonicalize(path.parent().context("no folder")?)?
            .join(path.file_name().context("no file name")?);
        let (parent, name) = (path.parent().context("no folder")?, path.file_name());
        let name = name.context("no file name")?.to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(parent, flags, Mode::empty())?;
        // Without O_NONBLOCK the opening of a named pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(&folder, &name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no regular file");
        if let Some(sha1) = sha1 {
            if hash(&mut file)? != sha1 {
                return Ok(None);
            }
            file.rewind()?;
        }
        Ok(Some(Found { path, metadata, file, folder, name }))
    }

    /// Whether what stands at a path has this hash.
    pub fn has_hash(path: &Path, sha1: &str) -> bool {
        open_regular(path).and_then(|mut file| hash(&mut file)).is_ok_and(|found| found == sha1)
    }

    /// Its SHA-1 in lower-case hexadecimal digits.
    pub fn sha1(&mut self) -> Result<String> {
        Ok(hash(self.rewound()?)?)
    }

    pub fn rewound(&mut self) -> Result<&mut File> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }

    pub fn is_same_as(&self, path: &str) -> bool {
        std::fs::metadata(path).is_ok_and(|data| {
            (data.dev(), data.ino()) == (self.metadata.dev(), self.metadata.ino())
        })
    }

    /// Removes this very file from its folder.
    pub fn remove(&self) -> Result<()> {
        let stands = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let same = stands.st_dev == self.metadata.dev() && stands.st_ino == self.metadata.ino();
        ensure!(same, "another file has taken its place");
        unlinkat(&self.folder, &self.name, AtFlags::empty())?;
        Ok(())
    }
}

/// Opens a regular file, following links in its path, waiting for nobody.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("it is no regular file")),
    }
}

fn hash(file: &mut File) -> std::io::Result<String> {
    let mut hash = Sha1::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Files of a hash in folders and below.
pub fn with_hash(folders: &[PathBuf], sha1: &str, stop: &dyn Fn() -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folders, stop, &mut |path, data| {
        if data.len() <= LARGEST_HASHED && Found::has_hash(path, sha1) {
            found.push(path.to_owned());
        }
    });
    found
}

/// Visits the regular files of folders and below by all their names, never through a link. Folders of
/// file systems that are the kernel's own or another machine's are passed over.
pub fn walk(folders: &[PathBuf], stop: &dyn Fn() -> bool, visit: &mut dyn FnMut(&Path, &Metadata)) {
    let mut seen = std::collections::HashSet::new();
    let mut devices: std::collections::HashMap<u64, bool> = std::collections::HashMap::new();
    let mut open: Vec<PathBuf> = folders.iter().rev().cloned().collect();
    while let Some(folder) = open.pop() {
        let Ok(data) = std::fs::symlink_metadata(&folder) else { continue };
        if data.is_file() {
            visit(&folder, &data);
            continue;
        }
        let holds_files = *devices.entry(data.dev()).or_insert_with(|| {
            rustix::fs::statfs(&folder).is_ok_and(|found| {
                #[allow(clippy::unnecessary_cast, reason = "the field's type differs by platform")]
                let kind = found.f_type as i64;
                !NO_FILES.contains(&kind)
            })
        });
        if !data.is_dir() || !holds_files || !seen.insert((data.dev(), data.ino())) {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if stop() {
                return;
            }
            // The entry's own metadata: links are not followed.
            let Ok(data) = entry.metadata() else { continue };
            let kind = data.file_type();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                // Hard links are visited under each of their names: all of them have to go.
                visit(&entry.path(), &data);
            }
        }
    }
}
