//! Looking for an alert's entities on this machine; changes nothing.

use super::executor::{Executor, Run};
use super::installed::Installed;
use super::package::autostart_files;
use super::quarantine::open_regular;
use super::succeeded;
use crate::process::{Process, pids};
use crate::sources::sock_diag::{ESTABLISHED, Sockets};
use std::path::Path;
use vigie_contract::sensor::{Finding, InvestigatedEntities, OrderResult};

/// Findings of one machine; more would tell nothing new.
const MOST_FINDINGS: usize = 200;

pub fn run(executor: &Executor, run: &Run, entities: &InvestigatedEntities) -> OrderResult {
    let installed = Installed::read(&executor.policy.package_database).ok();
    let mut search = Search { executor, entities, installed, findings: Vec::new() };
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
    }
    search.connections();
    search.findings.truncate(MOST_FINDINGS);
    OrderResult { findings: search.findings, ..succeeded() }
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
        self.add("Process", entity, place, hash, path);
    }

    fn file(&mut self, kind: &str, path: &Path) {
        let Some(hashes) = self.executor.processes.hash_file(path) else { return };
        if self.entities.sha1.contains(&hashes.sha1) {
            let (entity, place) = (hashes.sha1.clone(), path.display().to_string());
            self.add(kind, entity.clone(), place, Some(entity), path);
        }
    }

    fn connections(&mut self) {
        let found = Sockets::open().and_then(|mut sockets| sockets.tcp());
        for entry in found.unwrap_or_default() {
            let remote = entry.remote.ip().to_string();
            if entry.state == ESTABLISHED && self.entities.ip_addresses.contains(&remote) {
                let place = format!("{} to {}", entry.local, entry.remote);
                self.add("Connection", remote, place, None, Path::new(""));
            }
        }
    }

    fn add(
        &mut self,
        kind: &str,
        entity: String,
        place: String,
        sha1: Option<String>,
        path: &Path,
    ) {
        let package = self.installed.as_ref().and_then(|installed| {
            installed.package_of(path, &mut open_regular(path).ok()?).map(str::to_owned)
        });
        self.findings.push(Finding { kind: kind.to_owned(), entity, place, sha1, package });
    }
}
