//! The sensor protocol, version 1: JSON over the server's one TLS listener, under `/sensor/v1`.
//!
//! | request | body → answer | |
//! |---|---|---|
//! | `POST /sensor/v1/enrol` | [`EnrolRequest`] → [`Enrolled`] | once, with the tenant's enrolment key |
//! | `POST /sensor/v1/session` | [`SessionRequest`] → [`Session`] | signed with the sensor's own key |
//! | `POST /sensor/v1/report` | [`MachineReport`] → 204 | at start, on change, every 5 minutes |
//! | `POST /sensor/v1/telemetry?sequence=N` | [`TelemetryBatch`] → [`Acknowledgement`] | durable once answered |
//! | `GET /sensor/v1/orders?wait=SECONDS` | → [`Orders`] | long poll, at most 60 s |
//! | `POST /sensor/v1/orders/{id}/result` | [`OrderResult`] → 204 | repeated until answered |
//! | `POST /sensor/v1/orders/refused` | [`Refusal`] → 204 | an order that was none of this server's |
//! | `GET /sensor/v1/orders/{id}/files/{sha256}` | → the file's bytes | a library file the order names |
//! | `POST /sensor/v1/orders/{id}/uploads/{n}?offset=N` | bytes → [`UploadState`] | resumable |
//! | `POST /sensor/v1/orders/{id}/uploads/{n}/end` | [`UploadEnd`] → 204 | checked by its hash |
//!
//! **Orders.** The server signs an order and repeats it in every answer until the sensor says
//! `InProgress`, which it does before it begins: the answer 409 means that the order has ended
//! meanwhile (cancelled, timed out) and must not be begun, or must be stopped. A sensor that is cut
//! off by a restart says `InProgress` again and goes on. Orders of different kinds run side by side.
//!
//! **Uploads** are sent in pieces in order; a piece at a wrong offset is not stored, and the answer
//! says from where to go on.
//!
//! All but the first two carry `Authorization: Bearer <session token>`. Errors have the API's shape,
//! `{"error":{"code","message","target"}}`. Bodies may be sent with `Content-Encoding: zstd` or
//! `gzip`. Batches are numbered from 1 by the sensor and sent in order; the server answers a number
//! that it has already stored without storing it again, so sending until acknowledged is safe.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Largest body of one telemetry request after decompression, in bytes.
pub const MAX_TELEMETRY_BYTES: usize = 16 * 1024 * 1024;

/// Largest piece of an upload, in bytes.
pub const UPLOAD_PIECE_BYTES: usize = 1024 * 1024;

/// Largest upload as a whole, in bytes.
pub const MAX_UPLOAD_BYTES: u64 = 512 * 1024 * 1024;

/// Makes a machine known to a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolRequest {
    /// The tenant's enrolment key, as the administrator gave it.
    pub enrolment_key: String,
    /// The sensor's Ed25519 public key, base64 of its 32 bytes.
    pub public_key: String,
    /// Stable id of this installation of the operating system, so that a machine that enrols again
    /// keeps its machine id: on Linux the SHA-1 of `/etc/machine-id` under a fixed prefix.
    pub installation_id: String,
    pub report: MachineReport,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolled {
    pub tenant_id: Uuid,
    /// 40 hexadecimal digits: the API's machine id and hunting's `DeviceId`.
    pub machine_id: String,
    /// Ed25519 public key (base64) that signs this tenant's orders.
    pub order_key: String,
}

/// Proof of the sensor's key: an Ed25519 signature over
/// `vigie-session\n{machineId}\n{unix seconds}`; the server refuses times over 5 minutes off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRequest {
    pub machine_id: String,
    pub unix_seconds: i64,
    /// Base64.
    pub signature: String,
}

/// The text that [`SessionRequest::signature`] signs.
pub fn session_text(machine_id: &str, unix_seconds: i64) -> String {
    format!("vigie-session\n{machine_id}\n{unix_seconds}")
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub token: String,
    pub expires_in_seconds: u64,
}

/// What a sensor knows of its machine; replaces the previous report as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineReport {
    /// Fully qualified where known.
    pub computer_dns_name: String,
    /// API wording: `Linux`, `Windows11`, `WindowsServer2022`, `macOS` …
    pub os_platform: String,
    /// For example `12.5` or `22H2`.
    pub version: Option<String>,
    pub os_build: Option<i64>,
    /// `64-bit` or `32-bit`.
    pub os_architecture: Option<String>,
    /// `x64`, `arm64`, `x86`.
    pub os_processor: Option<String>,
    /// Distribution name for hunting's `OSDistribution`, kernel release for `OSVersionInfo`.
    pub os_distribution: Option<String>,
    pub os_version_info: Option<String>,
    pub agent_version: String,
    pub ip_addresses: Vec<IpAddress>,
    pub logged_on_users: Vec<LogonUser>,
    /// Sources of telemetry in use, best first, with the reason where a better one is missing.
    pub providers: Vec<Provider>,
    /// Whether this sensor carries out response actions at all (`--allow-response`).
    pub response_allowed: bool,
    /// The isolation in force on the machine: `None`, `Full` or `Selective`.
    pub isolation: Option<String>,
    /// Whether only programs of installed packages may start (`restrictCodeExecution`).
    pub execution_restricted: bool,
    /// Events lost since start, by source; reported, never hidden.
    pub lost_events: BTreeMap<String, u64>,
    /// Tags that the sensor was configured with (simulated machines carry `vigie-lab`).
    pub tags: Vec<String>,
    /// Device id in the directory, where the machine is joined.
    pub aad_device_id: Option<Uuid>,
}

/// One address of a network interface, in the API's wording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpAddress {
    pub ip_address: String,
    /// Twelve hexadecimal digits without separators, upper case.
    pub mac_address: Option<String>,
    /// `Ethernet`, `SoftwareLoopback`, `Tunnel` …
    pub r#type: Option<String>,
    /// `Up` or `Down`.
    pub operational_status: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogonUser {
    pub account_name: String,
    pub account_domain: String,
    /// On Linux the uid, as text.
    pub account_sid: Option<String>,
    pub first_seen: DateTime<Utc>,
    pub last_seen: DateTime<Utc>,
    /// `Interactive`, `RemoteInteractive` …
    pub logon_type: String,
    pub is_domain_admin: bool,
    pub is_only_network_user: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// `process`, `network`, `file`, `logon`.
    pub source: String,
    /// For example `proc-polling`, `proc-connector`, `audit`, `fanotify`, `sock-diag`, `ebpf`.
    pub provider: String,
    /// Why no better provider is in use, empty when this is the best.
    pub reason: String,
}

/// Rows by hunting table. A row is a JSON object of that table's columns; the server fills
/// `DeviceId`, `DeviceName` and `TenantId`-like columns itself, unknown columns are refused.
/// Times are RFC 3339 in UTC. `ReportId` counts per sensor.
#[derive(Debug, Serialize, Deserialize)]
pub struct TelemetryBatch {
    pub tables: BTreeMap<String, Vec<Box<RawValue>>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The highest sequence that is durable.
    pub sequence: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub orders: Vec<SignedOrder>,
}

/// An order as signed text: the sensor verifies the exact bytes, then parses them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedOrder {
    /// JSON text of an [`Order`].
    pub order: String,
    /// Base64 Ed25519 signature of `order` under the tenant's order key.
    pub signature: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The machine action's id; an order runs at most once per id.
    pub id: Uuid,
    pub machine_id: String,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub requestor: String,
    pub command: Command,
}

/// What a sensor is to do. A sensor refuses kinds that it does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Command {
    Isolate {
        isolation_type: IsolationType,
    },
    Unisolate {},
    RestrictCodeExecution {},
    UnrestrictCodeExecution {},
    StopAndQuarantineFile {
        /// 40 hexadecimal digits in lower case.
        sha1: String,
        /// Where this machine's events named the file.
        known_paths: Vec<String>,
    },
    RunAntiVirusScan {
        scan_type: ScanType,
        /// The tenant's own YARA rules, out of its library.
        rules: Vec<FileReference>,
    },
    CollectInvestigationPackage {},
    LiveResponse {
        commands: Vec<LiveCommand>,
    },
    /// Forget the server and stop.
    Offboard {},
    /// Look for entities of an alert on this machine; changes nothing.
    Investigate {
        entities: InvestigatedEntities,
    },
    /// Stop the order of this id, if it still can be stopped.
    Cancel {
        action_id: Uuid,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationType {
    Full,
    Selective,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanType {
    Quick,
    Full,
}

/// A file of the tenant's library, bound by its hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReference {
    /// Without any folder.
    pub name: String,
    /// 64 hexadecimal digits in lower case.
    pub sha256: String,
    pub size: u64,
}

/// Whether a text names a file and cannot lead out of a folder, on any system. Both sides look: a
/// server at what it takes, a sensor at what it is told.
pub fn is_file_name(name: &str) -> bool {
    let harmless = |letter: char| !letter.is_control() && !"/\\:".contains(letter);
    let short = !name.is_empty() && name.len() <= 255;
    short && name != "." && name != ".." && name.chars().all(harmless)
}

/// One step of a live response session; steps run in order, and one that fails ends the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum LiveCommand {
    /// Puts a library file into the session's folder.
    PutFile { file: FileReference },
    /// Runs a library file; its [`ScriptTranscript`] is uploaded under the step's number.
    RunScript {
        script: FileReference,
        /// One line, split into words as a shell does.
        args: String,
    },
    /// Uploads a file of the machine under the step's number.
    GetFile { path: String },
}

/// What a script said, as the API hands it out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptTranscript {
    pub script_name: String,
    /// Negative for a script that was ended by a signal or by its time limit.
    pub exit_code: i32,
    pub script_output: String,
    pub script_errors: String,
}

/// What an investigation looks for; hashes in lower-case hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InvestigatedEntities {
    pub sha1: Vec<String>,
    /// Paths of files, which are looked at in addition to running programs and autostarts.
    pub paths: Vec<String>,
    pub process_names: Vec<String>,
    pub ip_addresses: Vec<String>,
}

/// One thing that an investigation found on a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `File`, `Process`, `Autostart` or `Connection`.
    pub kind: String,
    /// The entity that was looked for: a hash, a path, a name or an address.
    pub entity: String,
    /// Where it was found, for a person to read.
    pub place: String,
    pub sha1: Option<String>,
    /// The file, where there is one.
    #[serde(default)]
    pub path: Option<String>,
    /// The installed package that the file is an unchanged part of.
    pub package: Option<String>,
}

/// How an order goes on or ended. Repeating one changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderResult {
    pub status: OrderStatus,
    /// Set with `Failed`: a sentence for the person who gave the order. With other states it may say
    /// what was done.
    pub error: Option<String>,
    /// The `errorHResult` of the machine action; 0 when fine.
    #[serde(default)]
    pub error_code: i32,
    /// The steps of a live response session, as far as they have begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandOutcome>,
    /// What an investigation found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl OrderResult {
    pub fn of(status: OrderStatus) -> OrderResult {
        let (commands, findings) = (Vec::new(), Vec::new());
        OrderResult { status, error: None, error_code: 0, commands, findings }
    }

    pub fn failed(error: impl Into<String>, error_code: i32) -> OrderResult {
        OrderResult {
            error: Some(error.into()),
            error_code,
            ..OrderResult::of(OrderStatus::Failed)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderStatus {
    InProgress,
    Succeeded,
    Failed,
    Cancelled,
}

/// An order that a sensor did not take: forged, altered, for another machine, past its end, or under
/// the id of another one. It is told for the audit log; nothing in it can be trusted but the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The id that the order claimed to have, where it could be read.
    pub claimed_id: Option<Uuid>,
    pub reason: String,
}

/// How a step of a live response session goes on or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandOutcome {
    /// From 0.
    pub index: usize,
    pub status: CommandStatus,
    pub started: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    pub errors: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandStatus {
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

/// How much of an upload the server has, in bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadState {
    pub received: u64,
}

/// Ends an upload: the server compares what it has and makes it available.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadEnd {
    /// Name for the person who downloads it, without any folder.
    pub name: String,
    pub size: u64,
    /// 64 hexadecimal digits in lower case.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::is_file_name;

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for name in ["script.sh", "a b.ps1", "ärger.sh", "..a"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "..\\b", "C:x", "a\nb", &"x".repeat(256)] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
