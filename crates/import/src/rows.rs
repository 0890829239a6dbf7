//! Events → rows of hunting tables.

use crate::event::Event;
use crate::{Row, mapping, values};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use vigie_contract::tables::Table;

/// Processes remembered at most; beyond that the memory starts afresh.
const REMEMBERED_PROCESSES: usize = 200_000;

/// What a process-create row tells later rows of the same process: columns of
/// DeviceProcessEvents and the column of the initiating process that takes the value.
const REMEMBERED: &[(&str, &str)] = &[
    ("FileName", "InitiatingProcessFileName"),
    ("FolderPath", "InitiatingProcessFolderPath"),
    ("FileSize", "InitiatingProcessFileSize"),
    ("ProcessCommandLine", "InitiatingProcessCommandLine"),
    ("ProcessCreationTime", "InitiatingProcessCreationTime"),
    ("ProcessIntegrityLevel", "InitiatingProcessIntegrityLevel"),
    ("SHA1", "InitiatingProcessSHA1"),
    ("SHA256", "InitiatingProcessSHA256"),
    ("MD5", "InitiatingProcessMD5"),
    ("AccountDomain", "InitiatingProcessAccountDomain"),
    ("AccountName", "InitiatingProcessAccountName"),
    ("LogonId", "InitiatingProcessLogonId"),
    ("ProcessVersionInfoCompanyName", "InitiatingProcessVersionInfoCompanyName"),
    ("ProcessVersionInfoProductName", "InitiatingProcessVersionInfoProductName"),
    ("ProcessVersionInfoProductVersion", "InitiatingProcessVersionInfoProductVersion"),
    ("ProcessVersionInfoOriginalFileName", "InitiatingProcessVersionInfoOriginalFileName"),
    ("ProcessVersionInfoFileDescription", "InitiatingProcessVersionInfoFileDescription"),
    ("InitiatingProcessId", "InitiatingProcessParentId"),
    ("InitiatingProcessFileName", "InitiatingProcessParentFileName"),
    ("InitiatingProcessCreationTime", "InitiatingProcessParentCreationTime"),
];

/// Makes rows; holds what one event tells about later ones.
pub struct Maker {
    shift: TimeDelta,
    /// By device and process GUID, or device and `pid:` number.
    processes: HashMap<(String, String), Map<String, Value>>,
    /// Rows so far by device: the next ReportId.
    reports: HashMap<String, i64>,
}

impl Maker {
    /// `shift` is added to every time.
    pub fn new(shift: TimeDelta) -> Maker {
        Maker { shift, processes: HashMap::new(), reports: HashMap::new() }
    }

    /// The row that an event becomes; `Ok(None)` where the tables have no counterpart.
    pub fn event(&mut self, event: &Event) -> Result<Option<Row>, String> {
        let time = values::parse_time(&event.time)
            .ok_or_else(|| format!("'{}' is no time", event.time))?;
        let Some(target) = mapping::target(event) else { return Ok(None) };
        let mut draft = Draft::new(self, target.table, &event.device, time);
        draft.put("ActionType", target.action);
        let mut remember = None;
        for (name, source) in target.columns {
            let value = mapping::source_value(event, source);
            if value.is_empty() {
                continue;
            }
            match name.as_str() {
                "@process" => {}
                "@remember" => remember = Some(value.to_owned()),
                form if form.starts_with('@') => draft.form(form, value),
                column => draft.put(column, value),
            }
        }
        // Last, because what the event itself says wins over what was remembered.
        if let Some(source) = target.columns.get("@process") {
            draft.recall(mapping::source_value(event, source));
        }
        if let Some(key) = remember {
            draft.remember(&key);
        }
        Ok(Some(draft.finish()))
    }

    /// A row to be filled by the caller, for sources that are not Windows events.
    pub fn draft(&mut self, table: &'static Table, device: &str, time: DateTime<Utc>) -> Draft<'_> {
        Draft::new(self, table, device, time)
    }

    /// A row that already has a hunting table's columns; only times move.
    pub fn exported(&self, table: &'static Table, mut columns: Map<String, Value>) -> Row {
        for column in table.columns.iter().filter(|column| column.ty == "datetime") {
            if let Some(Value::String(text)) = columns.get_mut(&column.name)
                && let Some(time) = values::parse_time(text)
            {
                *text = values::format_time(time + self.shift);
            }
        }
        Row { table: &table.name, columns }
    }
}

/// A row in the making. Setting an empty value or a column that the table lacks does nothing.
pub struct Draft<'a> {
    maker: &'a mut Maker,
    table: &'static Table,
    device: String,
    columns: Map<String, Value>,
    additional: Map<String, Value>,
}

impl<'a> Draft<'a> {
    fn new(
        maker: &'a mut Maker,
        table: &'static Table,
        device: &str,
        time: DateTime<Utc>,
    ) -> Draft<'a> {
        let report = maker.reports.entry(device.to_owned()).or_default();
        *report += 1;
        let report = *report;
        let timestamp = values::format_time(time + maker.shift);
        let mut draft = Draft {
            maker,
            table,
            device: device.to_owned(),
            columns: Map::new(),
            additional: Map::new(),
        };
        draft.columns.insert("Timestamp".to_owned(), timestamp.into());
        draft.put("DeviceId", &device_id(device));
        draft.put("DeviceName", device);
        draft.put("ReportId", &report.to_string());
        draft
    }

    /// Sets a column, or `AdditionalFields.NAME`, from text; the column's type decides the form.
    pub fn put(&mut self, name: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(field) = name.strip_prefix("AdditionalFields.") {
            self.additional.insert(field.to_owned(), text.into());
            return;
        }
        let Some(column) = self.table.columns.iter().find(|column| column.name == name) else {
            return;
        };
        let value = match column.ty.as_str() {
            "datetime" => values::parse_time(text)
                .map(|time| values::format_time(time + self.maker.shift).into()),
            "int" => values::parse_number(text)
                .and_then(|number| i32::try_from(number).ok())
                .map(Value::from),
            "long" => values::parse_number(text).map(Value::from),
            "bool" => text.to_ascii_lowercase().parse::<bool>().ok().map(Value::Bool),
            "real" => text.parse::<f64>().ok().map(Value::from),
            _ => Some(Value::from(text)),
        };
        // A value that its column cannot hold is kept where it does no harm.
        match value {
            Some(value) => drop(self.columns.insert(name.to_owned(), value)),
            None => drop(self.additional.insert(name.to_owned(), text.into())),
        }
    }

    /// Several columns from one value.
    pub fn form(&mut self, form: &str, value: &str) {
        match form {
            "@path" => {
                self.put("FolderPath", value);
                self.put("FileName", values::file_name(value));
            }
            "@initiating" => {
                self.put("InitiatingProcessFolderPath", &value.to_lowercase());
                self.put("InitiatingProcessFileName", values::file_name(value));
            }
            "@user" => {
                let (domain, name) = values::split_user(value);
                self.put("AccountDomain", domain);
                self.put("AccountName", name);
            }
            "@initiatingUser" => {
                let (domain, name) = values::split_user(value);
                self.put("InitiatingProcessAccountDomain", domain);
                self.put("InitiatingProcessAccountName", name);
            }
            "@hashes" => {
                for (name, hash) in values::hashes(value) {
                    match name.as_str() {
                        "SHA1" | "SHA256" | "MD5" => self.put(&name, &hash),
                        _ => self.put(&format!("AdditionalFields.{name}"), &hash),
                    }
                }
            }
            "@registryKey" => self.put("RegistryKey", &values::registry_key(value)),
            "@previousRegistryKey" => {
                self.put("PreviousRegistryKey", &values::registry_key(value));
            }
            "@registryValue" => {
                let (key, name) = value.rsplit_once('\\').unwrap_or((value, ""));
                self.put("RegistryKey", &values::registry_key(key));
                self.put("RegistryValueName", name);
            }
            "@registryData" => {
                let (data, kind) = values::registry_data(value);
                self.put("RegistryValueData", &data);
                self.put("RegistryValueType", kind);
            }
            "@logonType" => self.put("LogonType", values::logon_type(value)),
            "@failure" => self.put("FailureReason", &values::failure_reason(value)),
            "@elevation" => self.put("ProcessTokenElevation", values::token_elevation(value)),
            "@integrity" => self.put("ProcessIntegrityLevel", values::integrity_level(value)),
            "@protocolNumber" => self.put("Protocol", &values::protocol_number(value)),
            "@dnsResults" => {
                self.additional.insert("DnsQueryResult".to_owned(), values::dns_results(value));
            }
            "@zone" => {
                for line in value.lines() {
                    match line.trim().split_once('=') {
                        Some(("HostUrl", url)) => self.put("FileOriginUrl", url),
                        Some(("ReferrerUrl", url)) => self.put("FileOriginReferrerUrl", url),
                        _ => {}
                    }
                }
            }
            other => unreachable!("the mapping's test knows no form {other}"),
        }
    }

    /// Fills what is still unknown of the initiating process.
    pub fn recall(&mut self, key: &str) {
        let key = (self.device.clone(), key.to_owned());
        let Some(process) = self.maker.processes.get(&key) else { return };
        for (name, value) in process {
            let exists = self.table.columns.iter().any(|column| column.name == *name);
            if exists && !self.columns.contains_key(name) {
                self.columns.insert(name.clone(), value.clone());
            }
        }
    }

    /// Keeps this row, a process-create row, for later rows of the process.
    pub fn remember(&mut self, key: &str) {
        if self.maker.processes.len() >= REMEMBERED_PROCESSES {
            self.maker.processes.clear();
        }
        let mut process = Map::new();
        for (from, to) in REMEMBERED {
            let Some(value) = self.columns.get(*from) else { continue };
            let value = match (*to, value) {
                ("InitiatingProcessFolderPath", Value::String(path)) => path.to_lowercase().into(),
                (_, value) => value.clone(),
            };
            process.insert((*to).to_owned(), value);
        }
        self.maker.processes.insert((self.device.clone(), key.to_owned()), process);
    }

    pub fn finish(mut self) -> Row {
        if let Some(Value::String(protocol)) = self.columns.get_mut("Protocol")
            && self.table.name == "DeviceNetworkEvents"
        {
            *protocol = values::protocol(protocol);
        }
        for (address, kind) in [("RemoteIP", "RemoteIPType"), ("LocalIP", "LocalIPType")] {
            if let Some(Value::String(address)) = self.columns.get(address) {
                let found = values::ip_type(address);
                self.put(kind, found);
            }
        }
        let mut columns = self.table.columns.iter();
        // Not every table has the column; there the original has nothing further either.
        let column = columns.find(|column| column.name == "AdditionalFields");
        if let Some(column) = column.filter(|_| !self.additional.is_empty()) {
            let additional = Value::Object(self.additional);
            let dynamic = column.ty == "dynamic";
            let value = if dynamic { additional } else { additional.to_string().into() };
            self.columns.insert("AdditionalFields".to_owned(), value);
        }
        Row { table: &self.table.name, columns: self.columns }
    }
}

/// 40 hexadecimal digits, as device ids have; the same for the same name in any letter case.
fn device_id(name: &str) -> String {
    let digest = Sha1::digest(name.to_lowercase());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
