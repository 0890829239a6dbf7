//! `stopAndQuarantineFile`: every process that runs a file is ended, and the file itself is sealed in
//! the vault and removed, wherever it is found.
//!
//! A file is looked for among running programs, where this machine's events named it, and in the
//! policy's folders. It is removed before its processes are ended, so that nothing starts them again
//! from it. A file that is an unchanged part of an installed package, the program of process 1, the
//! sensor itself and what the policy protects are left alone.

mod processes;
mod search;
mod vault;

pub use search::{Found, open_regular, walk};
pub use vault::{Sealed, Threat, Vault};

use super::executor::{Executor, Run};
use super::installed::Installed;
use super::{DENIED_HRESULT, FAILED_HRESULT, NOT_FOUND_HRESULT, failed, succeeded};
use crate::rows::Row;
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vigie_contract::sensor::OrderResult;

/// Folders are searched for at most this long.
const LONGEST_SEARCH: Duration = Duration::from_secs(300);
/// What starts again is ended again, this many times.
const ROUNDS: usize = 3;

pub struct Quarantine {
    pub vault: Vault,
}

/// What an order did so far.
#[derive(Default)]
struct Tally {
    sealed: Vec<PathBuf>,
    /// The same as the vault has it.
    in_vault: Vec<Sealed>,
    ended: Vec<u32>,
    refused: Vec<String>,
    errors: Vec<String>,
}

impl Quarantine {
    pub fn new(state_dir: &Path) -> Result<Quarantine> {
        Ok(Quarantine { vault: Vault::open(state_dir)? })
    }

    pub fn stop_and_quarantine(
        &self,
        executor: &Executor,
        run: &Run,
        sha1: &str,
        known_paths: &[String],
    ) -> OrderResult {
        // A restart may have cut this order off: what it sealed before counts, and is told again, since
        // its row may have been lost with the sensor.
        let mut tally = Tally { in_vault: self.sealed_by(run), ..Tally::default() };
        for sealed in &tally.in_vault {
            self.tell(executor, run, sealed);
            tally.sealed.push(sealed.path.clone());
        }
        let installed = Installed::read(&executor.policy).ok();
        let judge = Judge { executor, installed: installed.as_ref() };
        let mut search = processes::Search::new(sha1);
        let running = search.running();
        let mut paths: Vec<PathBuf> = running.iter().map(|process| process.file.clone()).collect();
        paths.extend(known_paths.iter().map(PathBuf::from));
        self.take_all(&judge, run, sha1, paths, &mut tally);
        if tally.refused.is_empty() {
            end_all(&mut search, running, &mut tally);
            let until = Instant::now() + LONGEST_SEARCH;
            let stop = || run.is_stopped() || Instant::now() >= until;
            let found = search::with_hash(&executor.policy.search_folders, sha1, &stop);
            self.take_all(&judge, run, sha1, found, &mut tally);
            let running = search.running();
            end_all(&mut search, running, &mut tally);
        }
        outcome(sha1, &tally)
    }

    fn take_all(
        &self,
        judge: &Judge<'_>,
        run: &Run,
        sha1: &str,
        mut paths: Vec<PathBuf>,
        tally: &mut Tally,
    ) {
        paths.sort();
        paths.dedup();
        for path in paths {
            let Ok(Some(mut found)) = Found::open(&path, Some(sha1)) else { continue };
            if let Some(reason) = judge.refuses(&mut found) {
                tally.refused.push(format!("{}: {reason}", path.display()));
                continue;
            }
            match self.take(judge.executor, run, found, None, &mut tally.in_vault) {
                Ok(()) => tally.sealed.push(path),
                Err(error) => tally.errors.push(format!("{}: {error:#}", path.display())),
            }
        }
    }

    /// Seals one file and removes it. One that this order sealed before a restart, but did not come
    /// to remove, has its place in the vault; `before` is all that this order has sealed.
    pub fn take(
        &self,
        executor: &Executor,
        run: &Run,
        mut found: Found,
        threat: Option<Threat<'_>>,
        before: &mut Vec<Sealed>,
    ) -> Result<()> {
        let sha1 = found.sha1()?;
        if before.iter().any(|sealed| sealed.path == found.path && sealed.sha1 == sha1) {
            return found.remove();
        }
        let sealed = self.vault.seal(&mut found, &run.order, threat, executor.clock.now())?;
        before.push(sealed.clone());
        found.remove()?;
        tracing::warn!(path = %sealed.path.display(), id = %sealed.id, "file quarantined");
        self.tell(executor, run, &sealed);
        Ok(())
    }

    /// What this very order has sealed so far; reads the whole vault.
    pub fn sealed_by(&self, run: &Run) -> Vec<Sealed> {
        let mut all = self.vault.list().unwrap_or_default();
        all.retain(|sealed| sealed.order == Some(run.order.id));
        all
    }

    pub fn tell(&self, executor: &Executor, run: &Run, sealed: &Sealed) {
        let mut row = executor.event("FileQuarantined");
        describe(&mut row, sealed);
        let fields = json!({"QuarantineId": sealed.id, "ActionId": run.order.id,
                            "Requestor": run.order.requestor});
        row.json("AdditionalFields", &fields);
        executor.put(row);
    }
}

fn end_all(
    search: &mut processes::Search<'_>,
    mut running: Vec<processes::Running>,
    tally: &mut Tally,
) {
    for _ in 0..ROUNDS {
        if running.is_empty() {
            return;
        }
        for process in &running {
            match process.end() {
                Ok(()) => tally.ended.push(process.pid),
                Err(error) => tally.errors.push(format!("process {}: {error}", process.pid)),
            }
        }
        running = search.running();
    }
    let still: Vec<String> = running.iter().map(|process| process.pid.to_string()).collect();
    if !still.is_empty() {
        tally.errors.push(format!("processes start again: {}", still.join(", ")));
    }
}

/// Columns of the file itself.
fn describe(row: &mut Row, sealed: &Sealed) {
    let name = sealed.path.file_name().unwrap_or_default().to_string_lossy();
    row.text("FileName", name);
    row.text("FolderPath", sealed.path.to_string_lossy());
    row.text("SHA1", sealed.sha1.clone());
    row.text("SHA256", sealed.sha256.clone());
    row.number("FileSize", sealed.size as i64);
}

/// What may not be quarantined.
pub struct Judge<'a> {
    pub executor: &'a Executor,
    pub installed: Option<&'a Installed>,
}

impl Judge<'_> {
    pub fn refuses(&self, found: &mut Found) -> Option<String> {
        let policy = &self.executor.policy;
        if policy.is_protected(&found.path) || found.path.starts_with(&self.executor.state_dir) {
            return Some("this machine's policy protects it".to_owned());
        }
        if found.is_same_as("/proc/self/exe") {
            return Some("it is the sensor itself".to_owned());
        }
        if found.is_same_as("/proc/1/exe") {
            return Some("it is the program of process 1".to_owned());
        }
        if policy.quarantine_package_files {
            return None;
        }
        let path = found.path.clone();
        let package = self.installed?.package_of(&path, found.rewound().ok()?)?;
        Some(format!("it is an unchanged part of the installed package {package}"))
    }
}

fn outcome(sha1: &str, tally: &Tally) -> OrderResult {
    let (mut ended, mut sealed) = (tally.ended.clone(), tally.sealed.clone());
    ended.sort_unstable();
    ended.dedup();
    sealed.sort();
    sealed.dedup();
    let mut text =
        format!("{} files were quarantined and {} processes were ended", sealed.len(), ended.len());
    for path in &sealed {
        text.push_str(&format!("; {}", path.display()));
    }
    if !tally.refused.is_empty() {
        return failed(format!("refused: {}", tally.refused.join("; ")), DENIED_HRESULT);
    }
    if !tally.errors.is_empty() {
        return failed(format!("{text}; but: {}", tally.errors.join("; ")), FAILED_HRESULT);
    }
    if sealed.is_empty() && ended.is_empty() {
        let message = format!("no file with the SHA-1 {sha1} was found on this machine");
        return failed(message, NOT_FOUND_HRESULT);
    }
    OrderResult { error: Some(text), ..succeeded() }
}
