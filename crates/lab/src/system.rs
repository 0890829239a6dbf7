//! A simulated machine's files and processes: learnt from the events that it plays, changed by the
//! orders that it carries out, so that both always agree.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vigie_sensor::identity::hex;
use vigie_sensor::rows::Row;

/// Where users may write: what starts from here is no installed program.
const WRITABLE: [&str; 10] = [
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/home/",
    "/root/",
    "\\temp\\",
    "\\downloads\\",
    "\\appdata\\",
    "\\users\\public\\",
    "\\programdata\\",
];
/// The telling part of the antivirus test file.
const TEST_FILE: &str = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE";
/// Files and processes that are kept; an attack that renames thousands needs no more.
const MOST: usize = 5000;

#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub sha1: String,
    /// Known for files that orders brought.
    pub content: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub path: String,
    pub sha1: String,
    pub command_line: String,
}

#[derive(Default)]
pub struct System {
    pub files: BTreeMap<String, File>,
    pub processes: BTreeMap<i64, Process>,
    /// Hashes in quarantine: what they were does nothing any more.
    quarantined: BTreeSet<String>,
    pub isolation: Option<&'static str>,
    pub restricted: bool,
}

/// Whether a path lies where programs are not installed.
pub fn is_writable_place(path: &str) -> bool {
    let path = path.to_lowercase();
    WRITABLE.iter().any(|place| path.contains(place))
}

impl System {
    /// What becomes of an event on this machine: as it is, another one in its place, or none.
    pub fn pass(&mut self, table: &str, mut row: Row) -> Option<(String, Row)> {
        let text = |row: &Row, column: &str| {
            row.0.get(column).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let gone = |sha1: &str| self.quarantined.contains(sha1);
        if gone(&text(&row, "SHA1")) || gone(&text(&row, "InitiatingProcessSHA1")) {
            return None;
        }
        // An isolated machine has no connections to tell of.
        if self.isolation.is_some() && table == "DeviceNetworkEvents" {
            return None;
        }
        let starts = table == "DeviceProcessEvents" && text(&row, "ActionType") == "ProcessCreated";
        if self.restricted && starts && is_writable_place(&text(&row, "FolderPath")) {
            row.text("ActionType", "AppControlExecutableBlocked");
            return Some(("DeviceEvents".to_owned(), row));
        }
        self.learn(&row, "FolderPath", "SHA1");
        self.learn(&row, "InitiatingProcessFolderPath", "InitiatingProcessSHA1");
        if starts && self.processes.len() < MOST {
            let number = row.0.get("ProcessId").and_then(Value::as_i64).unwrap_or_default();
            let process = Process {
                path: text(&row, "FolderPath"),
                sha1: text(&row, "SHA1"),
                command_line: text(&row, "ProcessCommandLine"),
            };
            self.processes.insert(number, process);
        }
        Some((table.to_owned(), row))
    }

    fn learn(&mut self, row: &Row, path: &str, sha1: &str) {
        let text = |column: &str| row.0.get(column).and_then(Value::as_str);
        if let (Some(path), Some(sha1)) = (text(path), text(sha1))
            && self.files.len() < MOST
        {
            let file = File { sha1: sha1.to_owned(), content: None };
            self.files.entry(path.to_owned()).or_insert(file);
        }
    }

    pub fn put(&mut self, path: String, content: Vec<u8>) {
        use sha1::Digest as _;
        let sha1 = hex(&sha1::Sha1::digest(&content));
        self.quarantined.remove(&sha1);
        self.files.insert(path, File { sha1, content: Some(content) });
    }

    /// Ends the processes of a file and takes it away: the paths it was at, and how many ended.
    pub fn quarantine(&mut self, sha1: &str) -> (Vec<String>, usize) {
        let of = |file: &File| file.sha1 == sha1;
        let paths: Vec<String> =
            self.files.iter().filter(|(_, file)| of(file)).map(|(path, _)| path.clone()).collect();
        self.files.retain(|_, file| file.sha1 != sha1);
        let before = self.processes.len();
        self.processes.retain(|_, process| process.sha1 != sha1);
        if !paths.is_empty() || before > self.processes.len() {
            self.quarantined.insert(sha1.to_owned());
        }
        (paths, before - self.processes.len())
    }

    /// What a scan finds: path, hash and name of the threat.
    pub fn threats(&self) -> Vec<(String, String, &'static str)> {
        let threat = |(path, file): (&String, &File)| {
            let test = file
                .content
                .as_ref()
                .is_some_and(|content| String::from_utf8_lossy(content).contains(TEST_FILE));
            let program = file.content.is_none()
                && is_writable_place(path)
                && self.processes.values().any(|process| process.path == *path);
            let name = match (test, program) {
                (true, _) => "EICAR_Test_File",
                (_, true) => "Simulated.ProgramOutOfPlace",
                _ => return None,
            };
            Some((path.clone(), file.sha1.clone(), name))
        };
        self.files.iter().filter_map(threat).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(path: &str, sha1: &str) -> Row {
        let mut row = Row::default();
        row.text("ActionType", "ProcessCreated");
        row.text("FolderPath", path);
        row.text("SHA1", sha1);
        row.number("ProcessId", 7);
        row
    }

    #[test]
    fn orders_change_what_a_machine_does_afterwards() {
        let mut system = System::default();
        let table = "DeviceProcessEvents";
        assert!(system.pass(table, started("/tmp/x", "abc")).is_some());
        assert_eq!(system.threats().len(), 1);
        assert_eq!(system.quarantine("abc"), (vec!["/tmp/x".to_owned()], 1));
        assert!(system.files.is_empty() && system.processes.is_empty());
        assert!(system.pass(table, started("/tmp/x", "abc")).is_none(), "it starts again");
        assert_eq!(system.quarantine("other"), (vec![], 0));

        system.restricted = true;
        let (table, _) = system.pass(table, started("/tmp/y", "d")).unwrap();
        assert_eq!(table, "DeviceEvents");
        assert!(system.pass("DeviceProcessEvents", started("/usr/bin/y", "e")).is_some());

        system.isolation = Some("Full");
        assert!(system.pass("DeviceNetworkEvents", Row::default()).is_none());
        system.put("/opt/f".into(), format!("x{TEST_FILE}").into_bytes());
        assert_eq!(system.threats().len(), 1);
    }
}
