//! What orders may do on this machine at all: said by its owner in a file that no order can change.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use vigie_contract::sensor::Command;

/// The file of the state folder that is read where no other is named.
const FILE: &str = "policy.json";

/// Bounds of responses, as JSON; what is left out has the value of [`Policy::default`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    /// Types of orders that are carried out (`Isolate`, `LiveResponse` …); all of them if missing.
    /// What ends an isolation or a restriction is always allowed.
    pub orders: Option<Vec<String>>,
    /// dpkg's database, which says what installed packages brought.
    pub package_database: PathBuf,
    /// The program `rpm`, which is asked where there is no such database; `/usr/bin/rpm` if missing.
    pub rpm: Option<PathBuf>,
    /// Files and folders whose programs may start under restricted code execution, besides those of
    /// installed packages.
    pub allowed_programs: Vec<PathBuf>,
    /// File systems whose programs restricted code execution judges, by any path on them; all that
    /// are mounted if empty.
    pub restricted_file_systems: Vec<PathBuf>,
    /// Whether restricted code execution ends programs right after their start, as it does by itself
    /// where the kernel cannot ask before it.
    pub kill_after_start: bool,
    /// Files and folders that are never quarantined.
    pub protected: Vec<PathBuf>,
    /// Whether files of installed packages may be quarantined, too.
    pub quarantine_package_files: bool,
    /// Whether files that a scan finds are put in quarantine.
    pub quarantine_detections: bool,
    /// Folders that are searched for a file to be quarantined, besides where it was seen.
    pub search_folders: Vec<PathBuf>,
    pub quick_scan_folders: Vec<PathBuf>,
    pub full_scan_folders: Vec<PathBuf>,
    /// YARA rules of this machine (`*.yar`, `*.yara`), besides the tenant's.
    pub rules_folder: Option<PathBuf>,
    /// `clamdscan` or `clamscan`; looked for in the usual folders if missing.
    pub clamav: Option<PathBuf>,
    /// Files that are larger are not scanned, in bytes.
    pub largest_scanned_bytes: u64,
    /// Files that are larger are not handed out by GetFile, in bytes.
    pub largest_file_bytes: u64,
    /// Each of a script's two outputs is cut at this length, in bytes.
    pub script_output_bytes: usize,
    /// Time limit of a script, in seconds.
    pub script_seconds: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        let folders = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let writable = ["/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/opt", "/srv"];
        let more = ["/usr/local", "/var/www", "/etc"];
        Policy {
            orders: None,
            package_database: "/var/lib/dpkg".into(),
            rpm: None,
            allowed_programs: Vec::new(),
            restricted_file_systems: Vec::new(),
            kill_after_start: false,
            protected: folders(&["/boot"]),
            quarantine_package_files: false,
            quarantine_detections: false,
            search_folders: folders(&[&writable[..], &more[..]].concat()),
            quick_scan_folders: folders(&[&writable[..], &more[..]].concat()),
            full_scan_folders: folders(&["/"]),
            rules_folder: Some("/etc/vigie/rules".into()),
            clamav: None,
            largest_scanned_bytes: 64 << 20,
            largest_file_bytes: 256 << 20,
            script_output_bytes: 1 << 20,
            // Documentation of RunScript: ten minutes.
            script_seconds: 600,
        }
    }
}

impl Policy {
    /// Reads the named file, else the one of the state folder, else the defaults. A file that others
    /// than its owner may write is refused: it would bound nothing.
    pub fn load(named: Option<&Path>, state_dir: &Path) -> Result<Policy> {
        let usual = state_dir.join(FILE);
        let path = match named {
            Some(path) => path,
            None if usual.exists() => &usual,
            None => return Ok(Policy::default()),
        };
        let name = path.display();
        let text = std::fs::read(path).with_context(|| format!("cannot read the policy {name}"))?;
        let mode = std::fs::metadata(path)?.mode();
        ensure!(mode & 0o022 == 0, "the policy {name} may be written by others than its owner");
        serde_json::from_slice(&text).with_context(|| format!("the policy {name} is wrong"))
    }

    /// Whether an order of this type may be carried out.
    pub fn allows(&self, command: &Command) -> bool {
        let frees = matches!(
            command,
            Command::Unisolate {} | Command::UnrestrictCodeExecution {} | Command::Cancel { .. }
        );
        let kind = kind(command);
        frees || self.orders.as_ref().is_none_or(|orders| orders.iter().any(|order| order == kind))
    }

    pub fn is_protected(&self, path: &Path) -> bool {
        self.protected.iter().any(|protected| path.starts_with(protected))
    }
}

/// The machine action's type of an order.
pub fn kind(command: &Command) -> &'static str {
    match command {
        Command::Isolate { .. } => "Isolate",
        Command::Unisolate {} => "Unisolate",
        Command::RestrictCodeExecution {} => "RestrictCodeExecution",
        Command::UnrestrictCodeExecution {} => "UnrestrictCodeExecution",
        Command::StopAndQuarantineFile { .. } => "StopAndQuarantineFile",
        Command::RunAntiVirusScan { .. } => "RunAntiVirusScan",
        Command::CollectInvestigationPackage {} => "CollectInvestigationPackage",
        Command::LiveResponse { .. } => "LiveResponse",
        Command::Offboard {} => "Offboard",
        Command::Investigate { .. } => "Investigate",
        Command::Cancel { .. } => "Cancel",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_policy_bounds_orders_but_never_keeps_a_machine_shut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(Policy::load(None, folder.path()).unwrap(), Policy::default());
        std::fs::write(&path, r#"{"orders": ["Isolate"], "scriptSeconds": 5}"#).unwrap();
        let policy = Policy::load(None, folder.path()).unwrap();
        assert_eq!(policy.script_seconds, 5);
        assert!(
            policy.allows(&Command::Isolate { isolation_type: crate::orders::IsolationType::Full })
        );
        assert!(policy.allows(&Command::UnrestrictCodeExecution {}));
        assert!(!policy.allows(&Command::Offboard {}));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Policy::load(None, folder.path()).unwrap_err().to_string().contains("others"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, r#"{"order": []}"#).unwrap();
        assert!(Policy::load(None, folder.path()).is_err(), "a misspelt name bounds nothing");
        assert!(Policy::load(Some(Path::new("/none")), folder.path()).is_err());
    }
}
