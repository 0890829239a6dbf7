//! Files and what lies inside zip, tar and gzip.

use crate::FileReport;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

/// Largest size that one member may unfold to; more is taken for a decompression bomb.
const LARGEST_MEMBER: u64 = 16 << 30;
/// A member may not be more than this times larger than the archive that holds it.
const LARGEST_RATIO: u64 = 500;

/// Receives each member with its name; answers whether to go on.
type Visit<'a> = dyn FnMut(&str, &mut dyn BufRead) -> bool + 'a;

/// Visits the file itself, or every member of an archive. Members that cannot be read are returned
/// as reports with one bad line; the others are visited.
pub fn members(path: &Path, visit: &mut Visit<'_>) -> io::Result<Vec<FileReport>> {
    let name = path.display().to_string();
    let mut file = BufReader::new(File::open(path)?);
    let limit = (file.get_ref().metadata()?.len().max(1 << 16) * LARGEST_RATIO).min(LARGEST_MEMBER);
    let magic: Vec<u8> = file.fill_buf()?.iter().take(4).copied().collect();
    if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
        return zip_members(&name, file, limit, visit);
    }
    if magic.starts_with(&[0x1f, 0x8b]) {
        let unzipped = Bounded { inner: MultiGzDecoder::new(file), left: limit };
        return plain_or_tar(&name, BufReader::with_capacity(1 << 16, unzipped), visit);
    }
    plain_or_tar(&name, file, visit)
}

fn zip_members(
    name: &str,
    file: impl Read + Seek,
    limit: u64,
    visit: &mut Visit<'_>,
) -> io::Result<Vec<FileReport>> {
    let mut problems = Vec::new();
    let mut archive = match zip::ZipArchive::new(file) {
        Ok(archive) => archive,
        Err(error) => return Ok(vec![problem(name.to_owned(), format!("bad zip: {error}"))]),
    };
    for index in 0..archive.len() {
        let member = match archive.by_index(index) {
            Ok(member) => member,
            Err(error) => {
                problems.push(problem(format!("{name}!{index}"), error.to_string()));
                continue;
            }
        };
        let path = String::from_utf8_lossy(member.name_raw()).into_owned();
        // macOS adds a `._` twin with resource data to every member.
        let hidden = path.rsplit('/').next().is_some_and(|file| file.starts_with("._"));
        if member.is_dir() || hidden {
            continue;
        }
        let mut reader = BufReader::new(Bounded { inner: member, left: limit });
        if !visit(&format!("{name}!{path}"), &mut reader) {
            break;
        }
    }
    Ok(problems)
}

/// A tar header has `ustar` at byte 257.
fn plain_or_tar(
    name: &str,
    mut reader: impl BufRead,
    visit: &mut Visit<'_>,
) -> io::Result<Vec<FileReport>> {
    let start = match reader.fill_buf() {
        Ok(start) => start,
        Err(error) => return Ok(vec![problem(name.to_owned(), error.to_string())]),
    };
    if start.get(257..262) != Some(b"ustar") {
        visit(name, &mut reader);
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let mut archive = tar::Archive::new(reader);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => return Ok(vec![problem(name.to_owned(), format!("bad tar: {error}"))]),
    };
    for member in entries {
        match member {
            Ok(member) if member.header().entry_type().is_file() => {
                let path = member.path_bytes();
                let path = String::from_utf8_lossy(&path).into_owned();
                if path.rsplit('/').next().is_some_and(|file| file.starts_with("._")) {
                    continue;
                }
                if !visit(&format!("{name}!{path}"), &mut BufReader::new(member)) {
                    break;
                }
            }
            Ok(_) => {}
            Err(error) => {
                problems.push(problem(name.to_owned(), error.to_string()));
                break;
            }
        }
    }
    Ok(problems)
}

fn problem(name: String, reason: String) -> FileReport {
    let mut report = FileReport { name, ..FileReport::default() };
    report.bad(0, reason);
    report
}

/// Ends with an error where a member unfolds to more than it may.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "unfolds to more than an archive may")
        })?;
        Ok(read)
    }
}
