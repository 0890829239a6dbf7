//! `runAntiVirusScan`: files are compared with YARA rules and, where it is installed, with ClamAV's
//! signatures.
//!
//! One thread of lowest priority reads one file at a time, so a scan takes at most one core, which it
//! leaves to whoever wants it, and the memory of one file.

mod clamav;
mod rules;
mod yara;

use super::executor::{Executor, Run};
use super::installed::Installed;
use super::quarantine::{Found, Judge, open_regular, walk};
use super::{FAILED_HRESULT, failed, succeeded};
use crate::process::pids;
use rules::{Rules, Text};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vigie_contract::sensor::{FileReference, OrderResult, OrderStatus, ScanType};

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
    rules: &[FileReference],
) -> OrderResult {
    // A thread of its own: priority cannot be raised again for whatever comes after.
    let scanned = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lower_priority();
            scan(executor, run, scan_type, rules)
        });
        thread.join()
    });
    scanned.unwrap_or_else(|_| failed("the scan failed internally", FAILED_HRESULT))
}

fn scan(
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
    let rules = Rules::new(executor.policy.rules_folder.as_deref(), texts, &mut problems);
    let mut scan = Scan { executor, run, rules, counts: Counts::default(), seen: Vec::new() };
    let folders = match scan_type {
        ScanType::Quick => &executor.policy.quick_scan_folders,
        ScanType::Full => &executor.policy.full_scan_folders,
    };
    scan.running_programs();
    scan.folders(folders);
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

/// The scan waits for everything else that wants the processor or the disk.
fn lower_priority() {
    // linux/ioprio.h: class "idle", for this thread.
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: both calls take numbers alone; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IDLE);
    }
}

struct Scan<'a> {
    executor: &'a Executor,
    run: &'a Run,
    rules: Rules,
    counts: Counts,
    /// Files in which something was found.
    seen: Vec<PathBuf>,
}

impl Scan<'_> {
    fn running_programs(&mut self) {
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
                self.file(&program, &path);
            }
        }
    }

    fn folders(&mut self, folders: &[PathBuf]) {
        let stop = self.run.transfer.stop.clone();
        let vault = self.executor.state_dir.join("vault");
        walk(folders, &|| stop.is_cancelled(), &mut |path, _| {
            if !path.starts_with(&vault) {
                self.file(path, path);
            }
        });
    }

    /// Scans what `opened` leads to, which is known as `path`.
    fn file(&mut self, opened: &Path, path: &Path) {
        let Ok(file) = open_regular(opened) else {
            self.counts.unreadable += 1;
            return;
        };
        let size = file.metadata().map_or(0, |data| data.len());
        let largest = self.executor.policy.largest_scanned_bytes;
        if size > largest {
            self.counts.too_large += 1;
            return;
        }
        let mut bytes = Vec::with_capacity(size as usize);
        if file.take(largest).read_to_end(&mut bytes).is_err() {
            self.counts.unreadable += 1;
            return;
        }
        self.counts.files += 1;
        self.counts.bytes += bytes.len() as u64;
        let names = self.rules.matches(&bytes);
        if !names.is_empty() {
            let threat = names.join(",");
            self.found(Detection { path: path.to_owned(), threat, engine: "Vigie" });
        }
    }

    /// Reports a detection and, if the policy says so, puts the file in quarantine.
    fn found(&mut self, detection: Detection) {
        let Detection { path, threat, engine } = detection;
        if self.seen.contains(&path) {
            return;
        }
        self.counts.detections += 1;
        let mut row = self.executor.event("AntivirusDetection");
        row.text("FileName", path.file_name().unwrap_or_default().to_string_lossy());
        row.text("FolderPath", path.to_string_lossy());
        if let Some(hashes) = self.executor.processes.hash_file(&path) {
            row.text("SHA1", hashes.sha1.clone());
            row.text("SHA256", hashes.sha256.clone());
            row.text("MD5", hashes.md5.clone());
            row.number("FileSize", hashes.size);
        }
        let removed = self.executor.policy.quarantine_detections.then(|| self.quarantine(&path));
        let (removed, kept) = match removed {
            Some(Ok(())) => (true, None),
            Some(Err(reason)) => (false, Some(reason)),
            None => (false, Some("the policy leaves detected files in place".to_owned())),
        };
        self.counts.removed += u64::from(removed);
        let fields = json!({
            "ThreatName": threat, "Engine": engine, "WasRemediated": removed,
            "ReasonNotRemediated": kept, "ActionId": self.run.order.id,
        });
        row.json("AdditionalFields", &fields);
        self.executor.put(row);
        self.seen.push(path);
    }

    fn quarantine(&self, path: &Path) -> Result<(), String> {
        let mut found = match Found::open(path, None) {
            Ok(Some(found)) => found,
            Ok(None) => return Err("the file has changed".to_owned()),
            Err(error) => return Err(format!("{error:#}")),
        };
        let installed = Installed::read(&self.executor.policy.package_database).ok();
        let judge = Judge { executor: self.executor, installed: installed.as_ref() };
        if let Some(reason) = judge.refuses(&mut found) {
            return Err(reason);
        }
        let taken = self.executor.quarantine.take(self.executor, self.run, found);
        taken.map_err(|error| format!("{error:#}"))
    }
}
