//! Raw Linux audit records (`type=SYSCALL msg=audit(1604996384.965:93777): …`) → rows.
//!
//! Records with the same time and serial number are one event; they stand together, and the next
//! serial number ends the event (auditd's EOE record is often filtered out of recordings).

use crate::rows::Maker;
use crate::{Row, values};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use vigie_contract::tables::{Table, table};

/// Arguments taken from an EXECVE record at most.
const MOST_ARGUMENTS: usize = 4096;

/// Fields of one record by name.
type Fields = HashMap<String, String>;

/// The records of one event that have come so far.
#[derive(Default)]
pub struct Group {
    serial: String,
    device: Option<String>,
    records: Vec<(String, Fields)>,
}

/// Whether a line is an audit record.
pub fn is_record(line: &str) -> bool {
    line.contains("type=") && line.contains("msg=audit(")
}

impl Group {
    /// Takes a record; returns the event before it, where this record begins a new one.
    pub fn take(&mut self, line: &str) -> Result<Option<Group>, String> {
        let (head, body) = line.split_once("msg=audit(").ok_or("no msg=audit(…)")?;
        let (serial, body) = body.split_once(')').ok_or("msg=audit( without )")?;
        let head = fields(head);
        let kind = head.get("type").ok_or("no type=")?.clone();
        let finished =
            (self.serial != serial && !self.records.is_empty()).then(|| std::mem::take(self));
        self.serial = serial.to_owned();
        self.device = head.get("node").cloned().or(self.device.take());
        let mut body = fields(body.trim_start_matches(':'));
        // User-space records wrap their fields in msg='…'.
        if let Some(inner) = body.remove("msg") {
            body.extend(fields(&inner));
        }
        self.records.push((kind, body));
        Ok(finished)
    }

    /// The event that the last records made.
    pub fn rest(&mut self) -> Option<Group> {
        (!self.records.is_empty()).then(|| std::mem::take(self))
    }

    /// What reports call the event where it has no row: its system call or first record's type.
    pub fn id(&self) -> String {
        match self.record("SYSCALL").and_then(|fields| fields.get("syscall")) {
            Some(number) => format!("SYSCALL {number}"),
            None => self.records.first().map(|(kind, _)| kind.clone()).unwrap_or_default(),
        }
    }

    fn record(&self, kind: &str) -> Option<&Fields> {
        self.records.iter().find(|(other, _)| other == kind).map(|(_, fields)| fields)
    }

    /// The rows that the event becomes; none where the tables have no counterpart.
    pub fn rows(&self, device: &str, maker: &mut Maker) -> Result<Vec<Row>, String> {
        let seconds = self.serial.split(':').next().unwrap_or_default();
        let time = seconds
            .parse::<f64>()
            .ok()
            .and_then(|seconds| DateTime::from_timestamp_micros((seconds * 1e6).round() as i64))
            .ok_or_else(|| format!("'{}' is no audit time", self.serial))?;
        let device = self.device.as_deref().unwrap_or(device);
        if let Some(call) = self.record("SYSCALL") {
            return Ok(self.system_call(call, device, time, maker));
        }
        Ok(self.user_record(device, time, maker).into_iter().collect())
    }

    fn system_call(
        &self,
        call: &Fields,
        device: &str,
        time: DateTime<Utc>,
        maker: &mut Maker,
    ) -> Vec<Row> {
        let number = text(call, "syscall");
        let succeeded = text(call, "success") == "yes";
        // Numbers of the x86_64 table; recordings of other machines are left unmapped by `arch`.
        if call.get("arch").is_some_and(|arch| arch != "c000003e") {
            return Vec::new();
        }
        match number {
            "59" | "322" if succeeded => vec![self.exec(call, device, time, maker)],
            "42" => self.connection(call, device, time, maker).into_iter().collect(),
            "43" | "288" if succeeded => {
                let action = "InboundConnectionAccepted";
                self.socket(call, action, "Remote", device, time, maker).into_iter().collect()
            }
            "2" | "257" | "85" | "87" | "263" | "82" | "264" | "316" if succeeded => {
                self.files(call, device, time, maker)
            }
            "101" if succeeded => {
                let mut row = maker.draft(hunting("DeviceEvents"), device, time);
                row.put("ActionType", "PTraceDetected");
                initiating(&mut row, call);
                row.put(
                    "ProcessId",
                    &i64::from_str_radix(text(call, "a1"), 16)
                        .map_or(String::new(), |pid| pid.to_string()),
                );
                vec![row.finish()]
            }
            _ => Vec::new(),
        }
    }

    fn exec(&self, call: &Fields, device: &str, time: DateTime<Utc>, maker: &mut Maker) -> Row {
        let mut row = maker.draft(hunting("DeviceProcessEvents"), device, time);
        row.put("ActionType", "ProcessCreated");
        row.put("ProcessId", text(call, "pid"));
        row.put("ProcessCreationTime", &values::format_time(time));
        row.form("@path", text(call, "exe"));
        row.put("ProcessCommandLine", &self.command_line());
        row.put("AccountName", user(call, "UID", "uid"));
        row.put("LogonId", text(call, "ses"));
        row.put("InitiatingProcessId", text(call, "ppid"));
        row.put("AdditionalFields.LoginUid", text(call, "auid"));
        row.put("AdditionalFields.EffectiveUid", text(call, "euid"));
        row.put("AdditionalFields.Tty", text(call, "tty"));
        if let Some(cwd) = self.record("CWD") {
            row.put("AdditionalFields.CurrentDirectory", text(cwd, "cwd"));
        }
        row.recall(&format!("pid:{}", text(call, "ppid")));
        row.remember(&format!("pid:{}", text(call, "pid")));
        row.finish()
    }

    /// From EXECVE's `a0 … aN`, else from PROCTITLE, which the kernel cuts at 128 bytes.
    fn command_line(&self) -> String {
        let Some(execve) = self.record("EXECVE") else {
            return self.record("PROCTITLE").map_or(String::new(), |title| {
                text(title, "proctitle").trim_end_matches('\0').replace('\0', " ")
            });
        };
        let count = text(execve, "argc").parse().unwrap_or(0usize).min(MOST_ARGUMENTS);
        let arguments: Vec<&str> = (0..count).map(|n| text(execve, &format!("a{n}"))).collect();
        arguments.join(" ")
    }

    fn connection(
        &self,
        call: &Fields,
        device: &str,
        time: DateTime<Utc>,
        maker: &mut Maker,
    ) -> Option<Row> {
        let action = match text(call, "exit") {
            "0" => "ConnectionSuccess",
            // EINPROGRESS: a connection without waiting has begun.
            "-115" => "ConnectionRequest",
            _ => "ConnectionFailed",
        };
        self.socket(call, action, "Remote", device, time, maker)
    }

    fn socket(
        &self,
        call: &Fields,
        action: &str,
        end: &str,
        device: &str,
        time: DateTime<Utc>,
        maker: &mut Maker,
    ) -> Option<Row> {
        let (address, port) = socket_address(text(self.record("SOCKADDR")?, "saddr"))?;
        let mut row = maker.draft(hunting("DeviceNetworkEvents"), device, time);
        row.put("ActionType", action);
        row.put(&format!("{end}IP"), &address);
        row.put(&format!("{end}Port"), &port.to_string());
        initiating(&mut row, call);
        row.recall(&format!("pid:{}", text(call, "pid")));
        Some(row.finish())
    }

    fn files(
        &self,
        call: &Fields,
        device: &str,
        time: DateTime<Utc>,
        maker: &mut Maker,
    ) -> Vec<Row> {
        let cwd = self.record("CWD").map_or("", |cwd| text(cwd, "cwd"));
        let path = |wanted: &str| {
            self.records.iter().find_map(|(kind, fields)| {
                let found = kind == "PATH" && text(fields, "nametype") == wanted;
                found.then(|| absolute(cwd, text(fields, "name")))
            })
        };
        let (created, deleted) = (path("CREATE"), path("DELETE"));
        let (action, new, old) = match (created, deleted) {
            (Some(new), Some(old)) => ("FileRenamed", new, Some(old)),
            (Some(new), None) => ("FileCreated", new, None),
            (None, Some(old)) => ("FileDeleted", old, None),
            (None, None) => return Vec::new(),
        };
        let mut row = maker.draft(hunting("DeviceFileEvents"), device, time);
        row.put("ActionType", action);
        row.form("@path", &new);
        if let Some(old) = old {
            row.put("PreviousFolderPath", &old);
            row.put("PreviousFileName", values::file_name(&old));
        }
        initiating(&mut row, call);
        row.recall(&format!("pid:{}", text(call, "pid")));
        vec![row.finish()]
    }

    /// Records that user-space programs write: logons and accounts.
    fn user_record(&self, device: &str, time: DateTime<Utc>, maker: &mut Maker) -> Option<Row> {
        let (kind, fields) = self.records.first()?;
        let failed = text(fields, "res") == "failed";
        let (table, action) = match kind.as_str() {
            "USER_LOGIN" if failed => ("DeviceLogonEvents", "LogonFailed"),
            "USER_LOGIN" => ("DeviceLogonEvents", "LogonSuccess"),
            "USER_AUTH" if failed => ("DeviceLogonEvents", "LogonFailed"),
            "USER_START" if !failed => ("DeviceLogonEvents", "LogonSuccess"),
            "ADD_USER" => ("DeviceEvents", "UserAccountCreated"),
            "DEL_USER" => ("DeviceEvents", "UserAccountDeleted"),
            "ADD_GROUP" => ("DeviceEvents", "SecurityGroupCreated"),
            "DEL_GROUP" => ("DeviceEvents", "SecurityGroupDeleted"),
            "USER_CHAUTHTOK" => ("DeviceEvents", "PasswordChangeAttempt"),
            _ => return None,
        };
        let mut row = maker.draft(hunting(table), device, time);
        row.put("ActionType", action);
        let account = match text(fields, "acct") {
            "" => text(fields, "id"),
            account => account,
        };
        if kind.ends_with("_GROUP") {
            row.put("AdditionalFields.GroupName", account);
        } else {
            row.put("AccountName", account);
        }
        row.put("RemoteIP", known(text(fields, "addr")));
        row.put("RemoteDeviceName", known(text(fields, "hostname")));
        row.put("LogonId", text(fields, "ses"));
        row.put("InitiatingProcessId", text(fields, "pid"));
        row.form("@initiating", text(fields, "exe"));
        let logon = match text(fields, "terminal") {
            "ssh" | "sshd" => "Network",
            "cron" => "Batch",
            terminal if terminal.contains("tty") || terminal == ":0" => "Interactive",
            _ => "",
        };
        row.put("LogonType", logon);
        Some(row.finish())
    }
}

fn initiating(row: &mut crate::rows::Draft<'_>, call: &Fields) {
    row.put("InitiatingProcessId", text(call, "pid"));
    row.put("InitiatingProcessParentId", text(call, "ppid"));
    row.form("@initiating", text(call, "exe"));
    row.put("InitiatingProcessAccountName", user(call, "UID", "uid"));
}

/// The enriched name (`UID="root"`), else the number.
fn user<'a>(call: &'a Fields, name: &str, number: &str) -> &'a str {
    match text(call, name) {
        "" => text(call, number),
        name => name,
    }
}

fn known(text: &str) -> &str {
    if text == "?" { "" } else { text }
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

fn hunting(name: &str) -> &'static Table {
    table(name).expect("the catalogue has the device tables")
}

fn absolute(directory: &str, name: &str) -> String {
    if name.starts_with('/') || directory.is_empty() {
        name.to_owned()
    } else {
        format!("{}/{name}", directory.trim_end_matches('/'))
    }
}

/// `name=value` pairs: bare, in double or single quotes, or hexadecimal where the kernel found a
/// byte that it would not print. The separator 0x1d begins the enriched fields.
fn fields(line: &str) -> Fields {
    let mut fields = Fields::new();
    let mut rest = line.trim_start();
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.rsplit([' ', '\u{1d}', ',']).next().unwrap_or(name);
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_once([' ', '\u{1d}']).unwrap_or((value, "")),
        };
        let value = match quote {
            None if may_be_hex(name) => unhex(value).unwrap_or_else(|| value.to_owned()),
            _ if value == "(null)" || value == "(none)" => String::new(),
            _ => value.to_owned(),
        };
        fields.insert(name.to_owned(), value);
        rest = after;
    }
    fields
}

/// Fields that auditd writes in hexadecimal where they hold unusual bytes.
fn may_be_hex(name: &str) -> bool {
    let argument = name.strip_prefix('a').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    // The first four arguments of a SYSCALL record are bare hexadecimal numbers, those of EXECVE
    // are quoted or encoded; both look alike, and a number decodes to text only by accident.
    argument || matches!(name, "proctitle" | "exe" | "comm" | "cwd" | "name" | "cmd" | "acct")
}

fn unhex(text: &str) -> Option<String> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

/// A `sockaddr` in hexadecimal; IPv4 and IPv6 only.
fn socket_address(hex: &str) -> Option<(String, u16)> {
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let address = match family {
        2 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).to_string(),
        10 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).to_string(),
        _ => return None,
    };
    Some((address, port))
}
