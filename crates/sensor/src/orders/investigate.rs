//! Looking for an alert's entities on this machine; changes nothing.

use super::executor::{Executor, Run};
use super::installed::Installed;
use super::package::autostart_files;
use super::quarantine::open_regular;
use super::succeeded;
use crate::process::{Process, pids};
use crate::sources::sock_diag::{ESTABLISHED, Sockets};
use std::io::Read;
use std::path::Path;
use vigie_contract::sensor::{Finding, InvestigatedEntities, OrderResult};

/// Findings of one machine that are told.
const MOST_FINDINGS: usize = 200;
/// Of an autostart's text, the beginning is read, in bytes.
const LARGEST_AUTOSTART: u64 = 1 << 20;

pub fn run(executor: &Executor, run: &Run, entities: &InvestigatedEntities) -> OrderResult {
    let installed = Installed::read(&executor.policy).ok();
    let mut search = Search { executor, entities, installed, findings: Vec::new() };
    // That something starts a package's own program is no finding: everything starts a shell.
    let foreign: Vec<&String> =
        entities.paths.iter().filter(|path| search.package(Path::new(path)).is_none()).collect();
    for pid in pids() {
        if let Some(process) = executor.processes.find(pid) {
            search.process(&process);
        }
    }
    for path in &entities.paths {
        search.file("File", Path::new(path));
    }
    for path in autostart_files() {
        if run.is_stopped() {
            break;
        }
        search.file("Autostart", &path);
        search.autostart(&path, &foreign);
    }
    search.connections();
    let mut findings = search.findings;
    let error = cut(&mut findings);
    OrderResult { findings, error, ..succeeded() }
}

/// Keeps so many findings as are told, those of packages last; says so if there were more.
fn cut(findings: &mut Vec<Finding>) -> Option<String> {
    findings.sort_by_key(|finding| finding.package.is_some());
    let more = findings.len().checked_sub(MOST_FINDINGS).filter(|more| *more > 0)?;
    findings.truncate(MOST_FINDINGS);
    Some(format!("{more} more findings were left out"))
}

struct Search<'a> {
    executor: &'a Executor,
    entities: &'a InvestigatedEntities,
    installed: Option<Installed>,
    findings: Vec<Finding>,
}

impl Search<'_> {
    fn process(&mut self, process: &Process) {
        let image = &process.image;
        let path = Path::new(&image.path);
        let hash = self.executor.processes.hash_file(path).map(|hashes| hashes.sha1.clone());
        let by_hash = hash.as_ref().filter(|sha1| self.entities.sha1.contains(sha1));
        let by_name = self.entities.process_names.iter().find(|name| **name == image.name);
        let Some(entity) = by_hash.or(by_name).cloned() else { return };
        let place = format!("process {} ({})", process.pid, image.command_line);
        self.add("Process", entity, place, hash, Some(path));
    }

    fn file(&mut self, kind: &str, path: &Path) {
        let Some(hashes) = self.executor.processes.hash_file(path) else { return };
        if self.entities.sha1.contains(&hashes.sha1) {
            let (entity, place) = (hashes.sha1.clone(), path.display().to_string());
            self.add(kind, entity.clone(), place, Some(entity), Some(path));
        }
    }

    /// What starts by itself and names one of the paths.
    fn autostart(&mut self, path: &Path, paths: &[&String]) {
        let mut text = Vec::new();
        let Ok(file) = open_regular(path) else { return };
        if file.take(LARGEST_AUTOSTART).read_to_end(&mut text).is_err() {
            return;
        }
        for named in paths {
            if names(&text, named.as_bytes()) {
                let place = format!("{} starts {named}", path.display());
                let hashes = self.executor.processes.hash_file(path);
                let sha1 = hashes.map(|hashes| hashes.sha1.clone());
                self.add("Autostart", (*named).clone(), place, sha1, Some(path));
            }
        }
    }

    fn connections(&mut self) {
        let found = Sockets::open().and_then(|mut sockets| sockets.tcp());
        for entry in found.unwrap_or_default() {
            let remote = entry.remote.ip().to_string();
            if entry.state == ESTABLISHED && self.entities.ip_addresses.contains(&remote) {
                let place = format!("{} to {}", entry.local, entry.remote);
                self.add("Connection", remote, place, None, None);
            }
        }
    }

    /// The package that a file is an unchanged part of.
    fn package(&self, path: &Path) -> Option<String> {
        let installed = self.installed.as_ref()?;
        installed.package_of(path, &mut open_regular(path).ok()?).map(str::to_owned)
    }

    fn add(
        &mut self,
        kind: &str,
        entity: String,
        place: String,
        sha1: Option<String>,
        path: Option<&Path>,
    ) {
        let package = path.and_then(|path| self.package(path));
        let path = path.map(|path| path.display().to_string());
        self.findings.push(Finding { kind: kind.to_owned(), entity, place, sha1, path, package });
    }
}

/// Whether a text holds a path as a whole, not as a part of a longer one.
fn names(text: &[u8], path: &[u8]) -> bool {
    let outside = |byte: Option<&u8>| {
        byte.is_none_or(|byte| !(byte.is_ascii_alphanumeric() || b"/._-".contains(byte)))
    };
    !path.is_empty()
        && memchr::memmem::find_iter(text, path).any(|at| {
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            outside(before) && outside(text.get(at + path.len()))
        })
}

#[cfg(test)]
mod tests {
    use super::{Finding, MOST_FINDINGS, cut, names};

    #[test]
    fn what_belongs_to_packages_is_left_out_first_and_that_is_told() {
        let finding = |place: usize, package: Option<&str>| Finding {
            kind: "File".to_owned(),
            entity: String::new(),
            place: place.to_string(),
            sha1: None,
            path: None,
            package: package.map(str::to_owned),
        };
        let mut findings: Vec<Finding> =
            (0..MOST_FINDINGS).map(|place| finding(place, Some("tools"))).collect();
        assert_eq!(cut(&mut findings), None);
        findings.extend([finding(1000, None), finding(1001, None)]);
        assert_eq!(cut(&mut findings).as_deref(), Some("2 more findings were left out"));
        assert_eq!(findings.len(), MOST_FINDINGS);
        let places: Vec<&str> = findings.iter().map(|finding| &*finding.place).collect();
        assert_eq!(places[..3], ["1000", "1001", "0"]);
    }

    #[test]
    fn only_whole_paths_are_named() {
        let text = b"[Service]\nExecStart=/opt/bad --now\n";
        assert!(names(text, b"/opt/bad"));
        assert!(names(b"/opt/bad", b"/opt/bad"));
        for other in ["/opt/ba", "/opt/bad2", "opt/bad", "/bad", ""] {
            assert!(!names(text, other.as_bytes()), "{other}");
        }
    }
}
