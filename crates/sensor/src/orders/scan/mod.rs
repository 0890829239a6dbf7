//! `runAntiVirusScan`: files are compared with YARA rules and, where it is installed, with ClamAV's
//! signatures.
//!
//! One thread finds and opens files, reports and quarantines; the other, the [`inspector`], reads them
//! and compares, at the lowest priority and confined to the files that it is handed. It has one file at
//! a time in memory, and the first waits for it, so a scan takes what nobody else wants.

mod clamav;
mod inspector;
mod rules;
mod yara;

use super::executor::{Executor, Run};
use super::installed::Installed;
use super::quarantine::{Found, Judge, Sealed, Threat, open_regular, walk};
use super::{FAILED_HRESULT, failed, succeeded};
use crate::process::pids;
use crate::rows::Row;
use anyhow::Result;
use inspector::{Inspector, Looked};
use rules::Text;
use serde_json::json;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vigie_contract::sensor::{FileReference, OrderResult, OrderStatus, ScanType};

/// The name of the engine that compares files with YARA rules.
const OWN_ENGINE: &str = "Vigie";

/// A file in which something was found.
struct Detection {
    path: PathBuf,
    threat: String,
    engine: &'static str,
}

/// What a scan saw.
#[derive(Default)]
struct Counts {
    files: u64,
    bytes: u64,
    too_large: u64,
    unreadable: u64,
    detections: u64,
    removed: u64,
}

pub fn run(
    executor: &Executor,
    run: &Run,
    scan_type: ScanType,
    tenant_rules: &[FileReference],
) -> OrderResult {
    let begun = Instant::now();
    let mut texts = Vec::new();
    for reference in tenant_rules {
        match run.transfer.download(reference) {
            Ok(bytes) => {
                let rules = String::from_utf8_lossy(&bytes).into_owned();
                texts.push(Text { name: reference.name.clone(), rules });
            }
            Err(error) => return failed(format!("{}: {error:#}", reference.name), FAILED_HRESULT),
        }
    }
    let mut problems = Vec::new();
    texts.extend(rules::local(executor.policy.rules_folder.as_deref(), &mut problems));
    let folders = match scan_type {
        ScanType::Quick => &executor.policy.quick_scan_folders,
        ScanType::Full => &executor.policy.full_scan_folders,
    };
    let mut scan = Scan {
        executor,
        run,
        counts: Counts::default(),
        seen: Vec::new(),
        sealed: executor.quarantine.sealed_by(run),
        installed: OnceCell::new(),
    };
    scan.resume();
    match scan.compare(texts, folders) {
        Ok(wrong) => problems.extend(wrong),
        Err(error) => return failed(format!("the scan failed: {error:#}"), FAILED_HRESULT),
    }
    let clamav = clamav::find(executor.policy.clamav.as_deref());
    if let Some(program) = clamav.filter(|_| !run.is_stopped()) {
        match clamav::scan(&program, folders, &run.transfer.stop) {
            Ok(found) => found.into_iter().for_each(|found| scan.found(found)),
            Err(error) => problems.push(format!("ClamAV: {error:#}")),
        }
    }
    let stopped = run.is_stopped();
    let counts = scan.counts;
    let action = if stopped { "AntivirusScanCancelled" } else { "AntivirusScanCompleted" };
    let mut row = executor.event(action);
    let fields = json!({
        "ScanTypeIndex": format!("{scan_type:?}"), "ActionId": run.order.id,
        "ScannedFiles": counts.files, "ScannedBytes": counts.bytes,
        "TooLargeFiles": counts.too_large, "UnreadableFiles": counts.unreadable,
        "Detections": counts.detections, "Seconds": begun.elapsed().as_secs_f64(),
    });
    row.json("AdditionalFields", &fields);
    executor.put(row);
    let mut text = format!(
        "{} files were scanned, {} were too large, {} could not be read; {} detections, {} files \
         quarantined",
        counts.files, counts.too_large, counts.unreadable, counts.detections, counts.removed
    );
    if !problems.is_empty() {
        text.push_str(&format!("; {}", problems.join("; ")));
    }
    let status = if stopped { OrderStatus::Cancelled } else { succeeded().status };
    OrderResult { error: Some(text), ..OrderResult::of(status) }
}

struct Scan<'a> {
    executor: &'a Executor,
    run: &'a Run,
    counts: Counts,
    /// Files in which something was found.
    seen: Vec<PathBuf>,
    /// What this order has put in quarantine.
    sealed: Vec<Sealed>,
    /// Read when the first detection needs it.
    installed: OnceCell<Option<Installed>>,
}

impl Scan<'_> {
    /// Has running programs and the files of folders compared with rules; what is wrong with those.
    fn compare(&mut self, texts: Vec<Text>, folders: &[PathBuf]) -> Result<Vec<String>> {
        let largest = self.executor.policy.largest_scanned_bytes;
        let stop = self.run.transfer.stop.clone();
        std::thread::scope(|scope| {
            let mut inspector = Inspector::start(scope, texts, largest, stop);
            self.running_programs(&mut inspector);
            self.folders(&mut inspector, folders);
            let (looked, problems) = inspector.finish()?;
            looked.into_iter().for_each(|looked| self.looked(looked));
            Ok(problems)
        })
    }

    fn running_programs(&mut self, inspector: &mut Inspector<'_>) {
        let mut programs: Vec<PathBuf> =
            pids().into_iter().map(|pid| format!("/proc/{pid}/exe").into()).collect();
        programs.retain(|program| std::fs::metadata(program).is_ok());
        let mut known = std::collections::HashSet::new();
        for program in programs {
            if self.run.is_stopped() {
                return;
            }
            let Ok(path) = std::fs::read_link(&program) else { continue };
            if known.insert(path.clone()) {
                self.file(inspector, &program, &path);
            }
        }
    }

    fn folders(&mut self, inspector: &mut Inspector<'_>, folders: &[PathBuf]) {
        let stop = self.run.transfer.stop.clone();
        let vault = self.executor.state_dir.join("vault");
        walk(folders, &|| stop.is_cancelled(), &mut |path, _| {
            if !path.starts_with(&vault) {
                self.file(inspector, path, path);
            }
        });
    }

    /// Hands over what `opened` leads to, which is known as `path`, and takes what was found so far.
    fn file(&mut self, inspector: &mut Inspector<'_>, opened: &Path, path: &Path) {
        let Ok(file) = open_regular(opened) else {
            self.counts.unreadable += 1;
            return;
        };
        let size = file.metadata().map_or(0, |data| data.len());
        if size > self.executor.policy.largest_scanned_bytes {
            self.counts.too_large += 1;
            return;
        }
        for looked in inspector.look(file, path) {
            self.looked(looked);
        }
    }

    fn looked(&mut self, looked: Looked) {
        let Ok((bytes, names)) = looked.outcome else {
            self.counts.unreadable += 1;
            return;
        };
        self.counts.files += 1;
        self.counts.bytes += bytes;
        if !names.is_empty() {
            let threat = names.join(",");
            self.found(Detection { path: looked.path, threat, engine: OWN_ENGINE });
        }
    }

    /// What this very order quarantined before a restart cut it off is found no more, and its rows may
    /// have been lost with the sensor.
    fn resume(&mut self) {
        for sealed in self.sealed.clone() {
            self.executor.quarantine.tell(self.executor, self.run, &sealed);
            if sealed.path.exists() {
                // Cut off before it was removed: it is found, and removed, again.
                continue;
            }
            let mut row = self.row(&sealed.path);
            row.text("SHA1", sealed.sha1);
            row.text("SHA256", sealed.sha256);
            row.number("FileSize", sealed.size as i64);
            let threat = sealed.threat.unwrap_or_default();
            // What was sealed before engines were written down was most likely found by this one.
            let engine = sealed.engine.as_deref().unwrap_or(OWN_ENGINE);
            self.report(row, &threat, engine, &Ok(()));
            self.seen.push(sealed.path);
        }
    }

    /// Reports a detection and, if the policy says so, puts the file in quarantine.
    fn found(&mut self, detection: Detection) {
        let Detection { path, threat, engine } = detection;
        if self.seen.contains(&path) {
            return;
        }
        let mut row = self.row(&path);
        if let Some(hashes) = self.executor.processes.hash_file(&path) {
            row.text("SHA1", hashes.sha1.clone());
            row.text("SHA256", hashes.sha256.clone());
            row.text("MD5", hashes.md5.clone());
            row.number("FileSize", hashes.size);
        }
        let removed = match self.executor.policy.quarantine_detections {
            true => self.quarantine(&path, Threat { name: &threat, engine }),
            false => Err("the policy leaves detected files in place".to_owned()),
        };
        self.report(row, &threat, engine, &removed);
        self.seen.push(path);
    }

    fn row(&self, path: &Path) -> Row {
        let mut row = self.executor.event("AntivirusDetection");
        row.text("FileName", path.file_name().unwrap_or_default().to_string_lossy());
        row.text("FolderPath", path.to_string_lossy());
        row
    }

    fn report(&mut self, mut row: Row, threat: &str, engine: &str, removed: &Result<(), String>) {
        self.counts.detections += 1;
        self.counts.removed += u64::from(removed.is_ok());
        let fields = json!({
            "ThreatName": threat, "Engine": engine, "WasRemediated": removed.is_ok(),
            "ReasonNotRemediated": removed.as_ref().err(), "ActionId": self.run.order.id,
        });
        row.json("AdditionalFields", &fields);
        self.executor.put(row);
    }

    fn quarantine(&mut self, path: &Path, threat: Threat<'_>) -> Result<(), String> {
        let mut found = match Found::open(path, None) {
            Ok(Some(found)) => found,
            Ok(None) => return Err("the file has changed".to_owned()),
            Err(error) => return Err(format!("{error:#}")),
        };
        let executor = self.executor;
        let installed = self.installed.get_or_init(|| Installed::read(&executor.policy).ok());
        let judge = Judge { executor, installed: installed.as_ref() };
        if let Some(reason) = judge.refuses(&mut found) {
            return Err(reason);
        }
        let before = &mut self.sealed;
        let taken = executor.quarantine.take(executor, self.run, found, Some(threat), before);
        taken.map_err(|error| format!("{error:#}"))
    }
}
