//! SHA-1, SHA-256 and MD5 of program files, computed once per version of a file.

use super::Image;
use super::read::FileVersion;
use crate::identity::hex;
use md5::Md5;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Larger files are not hashed: it would hold up the events behind them.
const LARGEST_FILE: u64 = 128 * 1024 * 1024;
/// Versions of files that are remembered; the whole memory is dropped when full.
const MOST_FILES: usize = 4096;

/// Hashes in lower-case hexadecimal digits and the size in bytes.
#[derive(Debug)]
pub struct FileHashes {
    pub sha1: String,
    pub sha256: String,
    pub md5: String,
    pub size: i64,
}

#[derive(Default)]
pub struct Hashes(Mutex<HashMap<FileVersion, Option<Arc<FileHashes>>>>);

impl Hashes {
    /// Hashes of a process's program, if the file is still the one that was executed.
    pub fn of_image(&self, image: &Image) -> Option<Arc<FileHashes>> {
        let version = image.file?;
        if let Some(known) = self.0.lock().get(&version) {
            return known.clone();
        }
        self.compute(Path::new(&image.path), Some(version))
    }

    /// Hashes of a file as it is now.
    pub fn of_path(&self, path: &Path) -> Option<Arc<FileHashes>> {
        self.compute(path, None)
    }

    fn compute(&self, path: &Path, expected: Option<FileVersion>) -> Option<Arc<FileHashes>> {
        // Without O_NONBLOCK the opening of a named pipe would wait for its other end.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mut file = File::options().read(true).custom_flags(flags).open(path).ok()?;
        let found = version_of(&file)?;
        if expected.is_some_and(|expected| expected != found) {
            return None;
        }
        if let Some(known) = self.0.lock().get(&found) {
            return known.clone();
        }
        let hashes = (found.size <= LARGEST_FILE).then(|| hash(&mut file)).flatten().map(Arc::new);
        let mut all = self.0.lock();
        if all.len() >= MOST_FILES {
            all.clear();
        }
        all.insert(found, hashes.clone());
        hashes
    }
}

fn version_of(file: &File) -> Option<FileVersion> {
    let data = file.metadata().ok().filter(|data| data.is_file())?;
    Some(FileVersion {
        device: (rustix::fs::major(data.dev()), rustix::fs::minor(data.dev())),
        inode: data.ino(),
        modified: (data.mtime(), data.mtime_nsec() as u32),
        size: data.size(),
    })
}

fn hash(file: &mut File) -> Option<FileHashes> {
    let (mut sha1, mut sha256, mut md5) = (Sha1::new(), Sha256::new(), Md5::new());
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).ok()?;
        if read == 0 {
            break;
        }
        size += read as i64;
        if size as u64 > LARGEST_FILE {
            return None;
        }
        sha1.update(&buffer[..read]);
        sha256.update(&buffer[..read]);
        md5.update(&buffer[..read]);
    }
    Some(FileHashes {
        sha1: hex(&sha1.finalize()),
        sha256: hex(&sha256.finalize()),
        md5: hex(&md5.finalize()),
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes_and_a_changed_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let hashes = Hashes::default();
        std::fs::write(&path, "abc").unwrap();
        let found = hashes.of_path(&path).unwrap();
        // The examples of RFC 1321 and FIPS 180.
        assert_eq!(found.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(found.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(found.sha256.starts_with("ba7816bf8f01cfea"));
        std::fs::write(&path, "abcd").unwrap();
        assert_ne!(hashes.of_path(&path).unwrap().sha1, found.sha1);
        assert!(hashes.of_path(folder.path()).is_none());
    }
}
