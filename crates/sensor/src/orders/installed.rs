//! Files of installed packages: path → hash, as the package brought it. dpkg's database is read, and
//! where that names nothing, `rpm` is asked for its own, which has had three formats.
//!
//! MD5 is what dpkg records. A file that was made to have the MD5 of a packaged one at that one's own
//! path needs a second preimage, which MD5 still withstands. Packages of rpm carry SHA-256.

use super::policy::Policy;
use crate::confinement::{self, Reach};
use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};
use sha2::Sha256;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Folders that a merged `/usr` holds; packages may still name the old ones.
const MERGED: [&str; 4] = ["bin/", "sbin/", "lib/", "lib64/"];
const RPM: &str = "/usr/bin/rpm";
/// One line a file: package, hash, path.
const RPM_FORMAT: &str = "[%{=NAME}\\t%{FILEDIGESTS}\\t%{FILENAMES}\\n]";

#[derive(Clone, Copy, PartialEq)]
enum Hash {
    Md5([u8; 16]),
    Sha256([u8; 32]),
}

struct Entry {
    hash: Hash,
    package: u32,
}

/// The database as it was when it was read.
pub struct Installed {
    files: HashMap<Box<str>, Entry>,
    packages: Vec<Box<str>>,
    read_at: Option<SystemTime>,
    source: Source,
}

/// Where a database is.
#[derive(Clone)]
enum Source {
    /// dpkg's folder, usually `/var/lib/dpkg`.
    Dpkg(PathBuf),
    Rpm {
        program: PathBuf,
        folder: PathBuf,
    },
}

impl Installed {
    /// Reads the database of this machine's package manager.
    pub fn read(policy: &Policy) -> Result<Installed> {
        let dpkg = Source::Dpkg(policy.package_database.clone());
        let program = policy.rpm.clone().unwrap_or_else(|| RPM.into());
        match Installed::of(dpkg) {
            Err(_) if program.is_file() => Installed::of(Source::rpm(program)?),
            outcome => outcome,
        }
    }

    fn of(source: Source) -> Result<Installed> {
        let mut installed = Installed {
            files: HashMap::new(),
            packages: Vec::new(),
            read_at: source.changed(),
            source: source.clone(),
        };
        match &source {
            Source::Dpkg(folder) => {
                confinement::run(Reach::Reading, || installed.add_dpkg(folder))??;
            }
            Source::Rpm { program, .. } => installed.add_rpm(program)?,
        }
        ensure!(!installed.files.is_empty(), "the package database names no file");
        Ok(installed)
    }

    fn add_dpkg(&mut self, folder: &Path) -> Result<()> {
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
            self.add(package, lines.map(|(md5, path)| (path, md5)));
        }
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        for paragraph in status.split("\n\n") {
            let package = paragraph.lines().find_map(|line| line.strip_prefix("Package: "));
            let lines = paragraph.lines().filter(|line| line.starts_with(" /"));
            let files = lines.filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?))
            });
            self.add(package.unwrap_or_default(), files);
        }
        Ok(())
    }

    fn add_rpm(&mut self, program: &Path) -> Result<()> {
        let lines = ask(program, &["--query", "--all", "--queryformat", RPM_FORMAT])?;
        let mut files: Vec<(&str, &str, &str)> = lines
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(3, '\t');
                Some((words.next()?, words.next()?, words.next()?))
            })
            .collect();
        files.sort_unstable();
        for of_package in files.chunk_by(|(one, ..), (other, ..)| one == other) {
            let named = of_package.iter().map(|(_, hash, path)| (*path, *hash));
            self.add(of_package[0].0, named);
        }
        Ok(())
    }

    fn add<'a>(&mut self, package: &str, files: impl Iterator<Item = (&'a str, &'a str)>) {
        let number = self.packages.len() as u32;
        self.packages.push(package.into());
        for (path, hash) in files {
            if let Some(hash) = parse(hash) {
                self.files.insert(normal(path), Entry { hash, package: number });
            }
        }
    }

    /// Whether packages were installed or removed since it was read.
    pub fn is_stale(&self) -> bool {
        self.source.changed() != self.read_at
    }

    /// Reads it anew on a thread of its own, which the judge of executions does not wait for: `rpm`
    /// needs its leave to start.
    pub fn renew(&self) -> std::sync::mpsc::Receiver<Installed> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let source = self.source.clone();
        std::thread::spawn(move || match Installed::of(source) {
            Ok(installed) => drop(sender.send(installed)),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the package database is not read anew"
                );
            }
        });
        receiver
    }

    /// The package whose unchanged file this is.
    pub fn package_of(&self, path: &Path, file: &mut File) -> Option<&str> {
        let entry = self.files.get(&normal(path.to_str()?))?;
        let found = match entry.hash {
            Hash::Md5(_) => Hash::Md5(hash::<Md5>(file).ok()?.try_into().ok()?),
            Hash::Sha256(_) => Hash::Sha256(hash::<Sha256>(file).ok()?.try_into().ok()?),
        };
        (found == entry.hash).then(|| &*self.packages[entry.package as usize])
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl Source {
    fn rpm(program: PathBuf) -> Result<Source> {
        let folder = ask(&program, &["--eval", "%_dbpath"])?.trim().into();
        Ok(Source::Rpm { program, folder })
    }

    /// When the database was last written.
    fn changed(&self) -> Option<SystemTime> {
        match self {
            Source::Dpkg(folder) => {
                std::fs::metadata(folder.join("status")).and_then(|data| data.modified()).ok()
            }
            Source::Rpm { folder, .. } => {
                let entries = std::fs::read_dir(folder).ok()?.flatten();
                // Locks and shared memory change with every reader.
                let is_data = |entry: &std::fs::DirEntry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    !name.starts_with('.') && !name.ends_with("-shm") && !name.starts_with("__db")
                };
                let times = entries.filter(is_data).filter_map(|entry| {
                    entry.metadata().ok().and_then(|data| data.modified().ok())
                });
                times.max()
            }
        }
    }
}

/// What a program of the package manager prints.
fn ask(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| program.display().to_string())?;
    if !output.status.success() {
        bail!("{} ended with {}", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A path without the slash in front, under the merged `/usr`.
fn normal(path: &str) -> Box<str> {
    let path = path.trim_start_matches('/');
    match MERGED.iter().any(|folder| path.starts_with(folder)) {
        true => format!("usr/{path}").into(),
        false => path.into(),
    }
}

/// A hash in hexadecimal digits, of a kind that is known here; folders and links have none.
fn parse(text: &str) -> Option<Hash> {
    let bytes: Vec<u8> = (text.is_ascii() && text.len().is_multiple_of(2)).then(|| {
        let pairs = (0..text.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16)).collect::<Result<_, _>>().ok()
    })??;
    match bytes.len() {
        16 => Some(Hash::Md5(bytes.try_into().ok()?)),
        32 => Some(Hash::Sha256(bytes.try_into().ok()?)),
        _ => None,
    }
}

fn hash<D: Digest>(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut hash = D::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::hex;
    use std::os::unix::fs::PermissionsExt;

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

        let none = Some(PathBuf::from("/no/such/rpm"));
        let of = |package_database: &Path| Policy {
            package_database: package_database.to_owned(),
            rpm: none.clone(),
            ..Policy::default()
        };
        let installed = Installed::read(&of(folder.path())).unwrap();
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
        assert!(Installed::read(&of(root.path())).is_err());
    }

    #[test]
    fn where_dpkg_knows_nothing_rpm_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (program, rpm) = (folder.path().join("program"), folder.path().join("rpm"));
        let database = folder.path().join("database");
        std::fs::create_dir(&database).unwrap();
        std::fs::write(database.join("rpmdb.sqlite"), "1").unwrap();
        std::fs::write(&program, "abc").unwrap();
        let sha256 = hex(&Sha256::digest("abc"));
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --eval ]; then echo {}; exit; fi\n\
             printf 'tools\\t{sha256}\\t{}\\ntools\\t\\t/etc\\nother\\t00\\t/x\\n'\n",
            database.display(),
            program.display()
        );
        std::fs::write(&rpm, script).unwrap();
        std::fs::set_permissions(&rpm, std::fs::Permissions::from_mode(0o700)).unwrap();
        let policy = Policy {
            package_database: "/no/such/dpkg".into(),
            rpm: Some(rpm),
            ..Policy::default()
        };
        let installed = Installed::read(&policy).unwrap();
        let package = || {
            let mut file = File::open(&program).unwrap();
            installed.package_of(&program, &mut file).map(str::to_owned)
        };
        assert_eq!((package().as_deref(), installed.len()), (Some("tools"), 1));
        std::fs::write(&program, "abcd").unwrap();
        assert_eq!(package(), None);

        assert!(!installed.is_stale());
        std::fs::write(database.join("rpmdb.sqlite-wal"), "2").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let wal = File::options().write(true).open(database.join("rpmdb.sqlite-wal")).unwrap();
        wal.set_modified(later).unwrap();
        assert!(installed.is_stale());
        assert!(!installed.renew().recv().unwrap().is_stale());
    }
}
