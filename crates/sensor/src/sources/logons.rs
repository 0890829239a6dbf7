//! Logons from the accounting files `wtmp` (successes) and `btmp` (failures, root only).

use super::network::ip_type;
use super::utmp::{RECORD_BYTES, Record, records};
use super::{Context, TICK};
use crate::rows::Row;
use std::path::PathBuf;

const WTMP: &str = "/var/log/wtmp";
const BTMP: &str = "/var/log/btmp";
const SOURCE: &str = "logon";

/// A file that grows by records, and how far it was read.
struct Tail {
    path: PathBuf,
    read: u64,
}

impl Tail {
    /// Starts at the present end.
    fn new(path: &str) -> Tail {
        let path = PathBuf::from(path);
        let read = std::fs::metadata(&path).map_or(0, |data| whole(data.len()));
        Tail { path, read }
    }

    fn new_records(&mut self) -> Vec<Record> {
        let Ok(size) = std::fs::metadata(&self.path).map(|data| whole(data.len())) else {
            return Vec::new();
        };
        if size < self.read {
            // Rotated: the new file begins at its start.
            self.read = 0;
        }
        if size == self.read {
            return Vec::new();
        }
        let found = records(&self.path, self.read).unwrap_or_default();
        self.read += (found.len() * RECORD_BYTES) as u64;
        found
    }
}

fn whole(bytes: u64) -> u64 {
    bytes - bytes % RECORD_BYTES as u64
}

pub fn run(context: &Context) {
    let mut successes = Tail::new(WTMP);
    let mut failures = Tail::new(BTMP);
    while !context.stop.is_cancelled() {
        for record in successes.new_records().iter().filter(|record| record.is_user()) {
            context.sink.put(SOURCE, "DeviceLogonEvents", row(context, record, "LogonSuccess"));
        }
        for record in failures.new_records().iter().filter(|record| record.is_attempt()) {
            context.sink.put(SOURCE, "DeviceLogonEvents", row(context, record, "LogonFailed"));
        }
        std::thread::sleep(TICK);
    }
}

fn row(context: &Context, record: &Record, action: &str) -> Row {
    let mut row = Row::new(record.at, action);
    row.text("AccountName", record.user.clone());
    row.text("AccountDomain", context.processes.host());
    row.text("LogonType", if record.is_remote() { "RemoteInteractive" } else { "Interactive" });
    row.flag("IsLocalAdmin", record.user == "root");
    row.text("RemoteDeviceName", record.host.clone());
    if let Some(address) = record.address {
        row.text("RemoteIP", address.to_string());
        row.text("RemoteIPType", ip_type(address));
    }
    if record.session != 0 {
        row.number("LogonId", record.session);
    }
    row.json("AdditionalFields", &serde_json::json!({ "Terminal": record.line }));
    if let Some(process) = context.processes.find(record.pid) {
        context.processes.describe_initiating(&mut row, &process);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::utmp::tests::record;
    use std::io::Write;

    #[test]
    fn only_new_records_are_seen_also_after_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wtmp");
        std::fs::write(&path, record("old", [0; 4], 1)).unwrap();
        let mut tail = Tail::new(path.to_str().unwrap());
        assert!(tail.new_records().is_empty());
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(&record("ada", [0; 4], 2)).unwrap();
        assert_eq!(tail.new_records()[0].user, "ada");
        std::fs::write(&path, []).unwrap();
        assert!(tail.new_records().is_empty());
        std::fs::write(&path, record("bob", [0; 4], 3)).unwrap();
        assert_eq!(tail.new_records()[0].user, "bob");
    }
}
