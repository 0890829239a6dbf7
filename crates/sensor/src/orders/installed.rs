//! Files of installed packages, out of dpkg's database: path → MD5, as the package brought it.
//!
//! MD5 is what dpkg records. A file that was made to have the MD5 of a packaged one at that one's own
//! path needs a second preimage, which MD5 still withstands.

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders that a merged `/usr` holds; packages may still name the old ones.
const MERGED: [&str; 4] = ["bin/", "sbin/", "lib/", "lib64/"];

struct Entry {
    md5: [u8; 16],
    package: u32,
}

/// The database as it was when it was read.
pub struct Installed {
    files: HashMap<Box<str>, Entry>,
    packages: Vec<Box<str>>,
    read_at: Option<SystemTime>,
    folder: PathBuf,
}

impl Installed {
    /// Reads the database in a folder, usually `/var/lib/dpkg`.
    pub fn read(folder: &Path) -> Result<Installed> {
        let mut installed = Installed {
            files: HashMap::new(),
            packages: Vec::new(),
            read_at: changed(folder),
            folder: folder.to_owned(),
        };
        let info = folder.join("info");
        let entries = std::fs::read_dir(&info)
            .with_context(|| format!("no dpkg database at {}", folder.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(package) = name.to_str().and_then(|name| name.strip_suffix(".md5sums")) else {
                continue;
            };
            let package = package.split(':').next().unwrap_or(package);
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines = text.lines().filter_map(|line| line.split_once("  "));
            installed.add(package, lines.map(|(md5, path)| (path, md5)));
        }
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        for paragraph in status.split("\n\n") {
            let package = paragraph.lines().find_map(|line| line.strip_prefix("Package: "));
            let lines = paragraph.lines().filter(|line| line.starts_with(" /"));
            let files = lines.filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?))
            });
            installed.add(package.unwrap_or_default(), files);
        }
        ensure!(!installed.files.is_empty(), "dpkg's database names no file");
        Ok(installed)
    }

    fn add<'a>(&mut self, package: &str, files: impl Iterator<Item = (&'a str, &'a str)>) {
        let number = self.packages.len() as u32;
        self.packages.push(package.into());
        for (path, md5) in files {
            if let Some(md5) = digest(md5) {
                self.files.insert(normal(path), Entry { md5, package: number });
            }
        }
    }

    /// The database as it is now, if packages were installed or removed since.
    pub fn renewed(&self) -> Option<Installed> {
        let stale = changed(&self.folder) != self.read_at;
        stale.then(|| Installed::read(&self.folder).ok()).flatten()
    }

    /// The package whose unchanged file this is.
    pub fn package_of(&self, path: &Path, file: &mut File) -> Option<&str> {
        let entry = self.files.get(&normal(path.to_str()?))?;
        (md5_of(file).ok()? == entry.md5).then(|| &*self.packages[entry.package as usize])
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn changed(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder.join("status")).and_then(|data| data.modified()).ok()
}

/// A path without the slash in front, under the merged `/usr`.
fn normal(path: &str) -> Box<str> {
    let path = path.trim_start_matches('/');
    match MERGED.iter().any(|folder| path.starts_with(folder)) {
        true => format!("usr/{path}").into(),
        false => path.into(),
    }
}

fn digest(text: &str) -> Option<[u8; 16]> {
    let mut digest = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(digest)
}

fn md5_of(file: &mut File) -> std::io::Result<[u8; 16]> {
    let mut hash = Md5::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::hex;

    #[test]
    fn only_the_packages_own_unchanged_files_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("info")).unwrap();
        let program = root.path().join("program");
        std::fs::write(&program, "abc").unwrap();
        let md5 = hex(&Md5::digest("abc"));
        let relative = program.to_str().unwrap().trim_start_matches('/');
        let sums = format!("{md5}  {relative}\n{md5}  bin/cat\n");
        std::fs::write(folder.path().join("info/tools:amd64.md5sums"), sums).unwrap();
        let status = format!("Package: init\nConffiles:\n /etc/init.d/x {md5}\n\nPackage: b\n");
        std::fs::write(folder.path().join("status"), status).unwrap();

        let installed = Installed::read(folder.path()).unwrap();
        let package = |path: &str| {
            let mut file = File::open(&program).unwrap();
            installed.package_of(Path::new(path), &mut file).map(str::to_owned)
        };
        assert_eq!(package(program.to_str().unwrap()).as_deref(), Some("tools"));
        // A merged /usr has one file under two names.
        assert_eq!(package("/usr/bin/cat").as_deref(), Some("tools"));
        assert_eq!(package("/bin/cat").as_deref(), Some("tools"));
        assert_eq!(package("/etc/init.d/x").as_deref(), Some("init"));
        assert_eq!(package("/tmp/program"), None);
        std::fs::write(&program, "abcd").unwrap();
        assert_eq!(package(program.to_str().unwrap()), None, "a changed file is no package's");
        assert!(Installed::read(root.path()).is_err());
    }
}
