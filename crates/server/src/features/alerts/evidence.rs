//! Evidence of alerts: the entities of the events that raised them.

use super::super::time_text;
use crate::edge::ApiError;
use crate::odata::{self, Elements, Property, Type};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use vigie_database::{Database, Row, Transaction, Value};

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

/// Every entity tells every property; what does not apply to it is null (documentation of
/// `evidence`). The SQL is the column of `alert_evidence`.
const PROPERTIES: &[Property] = &[
    property("entityType", "entity_type", Type::Text),
    property("evidenceCreationTime", "created", Type::Time),
    property("sha1", "sha1", Type::Guid),
    property("sha256", "sha256", Type::Guid),
    property("fileName", "file_name", Type::Text),
    property("filePath", "file_path", Type::Text),
    property("processId", "process_id", Type::Integer),
    property("processCommandLine", "process_command_line", Type::Text),
    property("processCreationTime", "process_creation_time", Type::Time),
    property("parentProcessId", "parent_process_id", Type::Integer),
    property("parentProcessCreationTime", "parent_process_creation_time", Type::Time),
    property("parentProcessFileName", "parent_process_file_name", Type::Text),
    property("parentProcessFilePath", "parent_process_file_path", Type::Text),
    property("ipAddress", "ip_address", Type::Text),
    property("url", "url", Type::Text),
    property("registryKey", "registry_key", Type::Text),
    property("registryHive", "registry_hive", Type::Text),
    property("registryValueType", "registry_value_type", Type::Text),
    property("registryValue", "registry_value", Type::Text),
    property("accountName", "account_name", Type::Text),
    property("domainName", "domain_name", Type::Text),
    property("userSid", "user_sid", Type::Text),
    property("aadUserId", "aad_user_id", Type::Guid),
    property("userPrincipalName", "user_principal_name", Type::Text),
    property("detectionStatus", "detection_status", Type::Text),
];

pub const EVIDENCE: Elements =
    Elements::Rows { table: "alert_evidence", key: "alert", properties: PROPERTIES };

/// The table of the entities, in the order of [`PROPERTIES`]; `host` is the host of `url`.
pub const TABLE: &str = "
CREATE TABLE alert_evidence (
    alert TEXT NOT NULL, tenant TEXT NOT NULL, position BIGINT NOT NULL, host TEXT,
    entity_type TEXT NOT NULL, created BIGINT NOT NULL, sha1 TEXT, sha256 TEXT, file_name TEXT,
    file_path TEXT, process_id BIGINT, process_command_line TEXT, process_creation_time BIGINT,
    parent_process_id BIGINT, parent_process_creation_time BIGINT, parent_process_file_name TEXT,
    parent_process_file_path TEXT, ip_address TEXT, url TEXT, registry_key TEXT, registry_hive TEXT,
    registry_value_type TEXT, registry_value TEXT, account_name TEXT, domain_name TEXT,
    user_sid TEXT, aad_user_id TEXT, user_principal_name TEXT, detection_status TEXT,
    PRIMARY KEY (alert, position));
CREATE INDEX alert_evidence_sha1 ON alert_evidence (tenant, sha1) WHERE sha1 IS NOT NULL;
CREATE INDEX alert_evidence_sha256 ON alert_evidence (tenant, sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX alert_evidence_ip ON alert_evidence (tenant, ip_address) WHERE ip_address IS NOT NULL;
CREATE INDEX alert_evidence_host ON alert_evidence (tenant, host) WHERE host IS NOT NULL;
CREATE INDEX alert_evidence_user ON alert_evidence (tenant, LOWER(account_name))
    WHERE account_name IS NOT NULL;
";

/// A property of an entity and the column of an event that it is taken from.
type Source = (&'static str, &'static str);

const USER: &[Source] = &[
    ("accountName", "AccountName"),
    ("domainName", "AccountDomain"),
    ("userSid", "AccountSid"),
    ("aadUserId", "AccountObjectId"),
    ("userPrincipalName", "AccountUpn"),
];
const INITIATING_USER: &[Source] = &[
    ("accountName", "InitiatingProcessAccountName"),
    ("domainName", "InitiatingProcessAccountDomain"),
    ("userSid", "InitiatingProcessAccountSid"),
    ("aadUserId", "InitiatingProcessAccountObjectId"),
    ("userPrincipalName", "InitiatingProcessAccountUpn"),
];
const PROCESS: &[Source] = &[
    ("processId", "ProcessId"),
    ("processCommandLine", "ProcessCommandLine"),
    ("processCreationTime", "ProcessCreationTime"),
    ("sha1", "SHA1"),
    ("sha256", "SHA256"),
    ("fileName", "FileName"),
    ("filePath", "FolderPath"),
    ("parentProcessId", "InitiatingProcessId"),
    ("parentProcessCreationTime", "InitiatingProcessCreationTime"),
    ("parentProcessFileName", "InitiatingProcessFileName"),
    ("parentProcessFilePath", "InitiatingProcessFolderPath"),
];
const INITIATING_PROCESS: &[Source] = &[
    ("processId", "InitiatingProcessId"),
    ("processCommandLine", "InitiatingProcessCommandLine"),
    ("processCreationTime", "InitiatingProcessCreationTime"),
    ("sha1", "InitiatingProcessSHA1"),
    ("sha256", "InitiatingProcessSHA256"),
    ("fileName", "InitiatingProcessFileName"),
    ("filePath", "InitiatingProcessFolderPath"),
    ("parentProcessId", "InitiatingProcessParentId"),
    ("parentProcessCreationTime", "InitiatingProcessParentCreationTime"),
    ("parentProcessFileName", "InitiatingProcessParentFileName"),
];
const FILE: &[Source] =
    &[("sha1", "SHA1"), ("sha256", "SHA256"), ("fileName", "FileName"), ("filePath", "FolderPath")];
const IP: &[Source] = &[("ipAddress", "RemoteIP")];
const URL: &[Source] = &[("url", "RemoteUrl")];
const REGISTRY: &[Source] = &[
    ("registryKey", "RegistryKey"),
    ("registryValueType", "RegistryValueType"),
    ("registryValue", "RegistryValueData"),
];

/// The entities of events, each once; `created` in microseconds since the Unix epoch.
pub fn of_events(events: &[Json], created: i64) -> Vec<Json> {
    let mut all = Vec::new();
    for event in events {
        let new = not_yet_in(&all, of_event(event, created));
        all.extend(new);
    }
    all
}

/// Those of the new entities that an alert does not have yet.
pub fn not_yet_in(have: &[Json], new: Vec<Json>) -> Vec<Json> {
    // When it was attached makes no other entity of it.
    let same = |a: &Json, b: &Json| {
        let names = PROPERTIES.iter().map(|property| property.name);
        names.filter(|name| *name != "evidenceCreationTime").all(|name| a[name] == b[name])
    };
    new.into_iter().filter(|entity| !have.iter().any(|other| same(other, entity))).collect()
}

fn of_event(event: &Json, created: i64) -> Vec<Json> {
    let has = |column: &str| !matches!(&event[column], Json::Null) && event[column] != "";
    let of = |kind: &str, sources: &[Source]| {
        let mut entity: Map<String, Json> =
            PROPERTIES.iter().map(|property| (property.name.to_owned(), Json::Null)).collect();
        entity.insert("entityType".to_owned(), kind.into());
        entity.insert("evidenceCreationTime".to_owned(), time_text(created).into());
        for (name, column) in sources.iter().filter(|(_, column)| has(column)) {
            let value = match PROPERTIES.iter().find(|property| property.name == *name) {
                // The same text however the event wrote it.
                Some(Property { ty: Type::Time, .. }) => event[*column]
                    .as_str()
                    .and_then(odata::time)
                    .map_or(Json::Null, |time| time_text(time.timestamp_micros()).into()),
                _ => event[*column].clone(),
            };
            entity.insert((*name).to_owned(), value);
        }
        if kind != "User" {
            entity.insert("detectionStatus".to_owned(), "Detected".into());
        }
        Json::Object(entity)
    };
    let mut entities = Vec::new();
    if has("AccountName") {
        entities.push(of("User", USER));
    } else if has("InitiatingProcessAccountName") {
        entities.push(of("User", INITIATING_USER));
    }
    if has("ProcessId") {
        entities.push(of("Process", PROCESS));
    } else {
        if has("InitiatingProcessId") {
            entities.push(of("Process", INITIATING_PROCESS));
        }
        if has("FileName") {
            entities.push(of("File", FILE));
        }
    }
    for (column, kind, sources) in
        [("RemoteIP", "Ip", IP), ("RemoteUrl", "Url", URL), ("RegistryKey", "Registry", REGISTRY)]
    {
        if has(column) {
            entities.push(of(kind, sources));
        }
    }
    entities
}

/// The host of a URL, also of one without scheme; in lower case.
pub fn host_of(url: &str) -> Option<String> {
    vigie_hunting::lake::host_of(url).map(str::to_lowercase)
}

/// Writes entities of an alert behind those that it has.
pub async fn store(
    transaction: &mut Transaction,
    tenant: &str,
    alert: &str,
    first: usize,
    entities: &[Json],
) -> Result<(), ApiError> {
    let columns: Vec<&str> = PROPERTIES.iter().map(|property| property.sql).collect();
    let places: Vec<String> = (1..=PROPERTIES.len() + 4).map(|at| format!("${at}")).collect();
    let insert = format!(
        "INSERT INTO alert_evidence (alert, tenant, position, host, {}) VALUES ({})",
        columns.join(", "),
        places.join(", ")
    );
    for (position, entity) in (first as i64..).zip(entities) {
        let host = entity["url"].as_str().and_then(host_of);
        let mut values: Vec<Value> =
            vec![alert.into(), tenant.into(), position.into(), host.into()];
        values.extend(PROPERTIES.iter().map(|property| {
            match (property.ty, &entity[property.name]) {
                (Type::Integer, value) => value.as_i64().into(),
                (Type::Time, value) => {
                    let time = value.as_str().and_then(odata::time);
                    time.map(|time| time.timestamp_micros()).into()
                }
                (_, Json::Null) => None::<String>.into(),
                (Type::Guid, Json::String(text)) => text.to_lowercase().into(),
                (_, Json::String(text)) => text.as_str().into(),
                (_, other) => other.to_string().into(),
            }
        }));
        transaction.execute(&insert, &values).await?;
    }
    Ok(())
}

/// The entities of alerts, by the alert's id.
pub async fn load(
    database: &Database,
    alerts: &[String],
) -> Result<HashMap<String, Vec<Json>>, ApiError> {
    let mut all: HashMap<String, Vec<Json>> = HashMap::new();
    for some in alerts.chunks(500) {
        let places: Vec<String> = (1..=some.len()).map(|at| format!("${at}")).collect();
        let sql = select(&format!("IN ({})", places.join(", ")));
        let values: Vec<Value> = some.iter().map(|alert| alert.as_str().into()).collect();
        for row in database.read(&sql, &values).await? {
            all.entry(row.text(0)?.to_owned()).or_default().push(entity(&row)?);
        }
    }
    Ok(all)
}

/// The entities of one alert, inside a transaction.
pub async fn load_one(transaction: &mut Transaction, alert: &str) -> Result<Vec<Json>, ApiError> {
    let rows = transaction.read(&select("= $1"), &[alert.into()]).await?;
    rows.iter().map(entity).collect()
}

fn select(which: &str) -> String {
    let columns: Vec<&str> = PROPERTIES.iter().map(|property| property.sql).collect();
    format!(
        "SELECT alert, {} FROM alert_evidence WHERE alert {which} ORDER BY alert, position",
        columns.join(", ")
    )
}

fn entity(row: &Row) -> Result<Json, ApiError> {
    let mut entity = Map::new();
    for (at, property) in (1..).zip(PROPERTIES) {
        let value = match property.ty {
            Type::Integer => row.optional_integer(at)?.map_or(Json::Null, Json::from),
            Type::Time => row.optional_integer(at)?.map_or(Json::Null, |t| time_text(t).into()),
            _ => row.optional_text(at)?.map_or(Json::Null, Json::from),
        };
        entity.insert(property.name.to_owned(), value);
    }
    Ok(Json::Object(entity))
}

/// An entity as a row of `AlertEvidence`, without what all rows of the alert share.
pub fn hunting_row(entity: &Json) -> Json {
    let columns = [
        ("EntityType", "entityType"),
        ("FileName", "fileName"),
        ("FolderPath", "filePath"),
        ("SHA1", "sha1"),
        ("SHA256", "sha256"),
        ("ProcessCommandLine", "processCommandLine"),
        ("RemoteIP", "ipAddress"),
        ("RemoteUrl", "url"),
        ("RegistryKey", "registryKey"),
        ("RegistryValueData", "registryValue"),
        ("AccountName", "accountName"),
        ("AccountDomain", "domainName"),
        ("AccountSid", "userSid"),
        ("AccountObjectId", "aadUserId"),
        ("AccountUpn", "userPrincipalName"),
    ];
    let mut row = json!({"EvidenceRole": "Related"});
    for (column, property) in columns {
        if !entity[property].is_null() {
            row[column] = entity[property].clone();
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_user_process_and_address_once() {
        let event = json!({
            "InitiatingProcessAccountName": "mira", "InitiatingProcessId": 7,
            "InitiatingProcessFileName": "curl", "RemoteIP": "192.0.2.1", "RemoteUrl": "",
        });
        let entities = of_events(&[event.clone(), event], 0);
        let kinds: Vec<&str> = entities.iter().filter_map(|e| e["entityType"].as_str()).collect();
        assert_eq!(kinds, ["User", "Process", "Ip"]);
        assert_eq!(entities[1]["processId"], 7);
        assert_eq!(entities[1]["url"], Json::Null);
        assert!(not_yet_in(&entities, entities.clone()).is_empty());
        let row = hunting_row(&entities[2]);
        assert_eq!(
            row,
            json!({"EvidenceRole": "Related", "EntityType": "Ip", "RemoteIP": "192.0.2.1"})
        );
    }

    #[test]
    fn hosts_of_urls_with_and_without_scheme() {
        for (url, host) in [
            ("https://User@WWW.example.com:8443/a?b", "www.example.com"),
            ("example.com/path", "example.com"),
            ("example.com.", "example.com"),
            ("http://[2001:db8::1]:80/", "2001:db8::1"),
        ] {
            assert_eq!(host_of(url).as_deref(), Some(host), "{url}");
        }
        assert_eq!(host_of(""), None);
    }
}
