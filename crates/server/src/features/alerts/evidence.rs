//! Evidence of alerts: the entities of the events that raised them.

use serde_json::{Map, Value as Json, json};

/// Every entity tells every property; what does not apply to it is null (documentation of
/// `evidence`).
const PROPERTIES: &[&str] = &[
    "entityType",
    "evidenceCreationTime",
    "sha1",
    "sha256",
    "fileName",
    "filePath",
    "processId",
    "processCommandLine",
    "processCreationTime",
    "parentProcessId",
    "parentProcessCreationTime",
    "parentProcessFileName",
    "parentProcessFilePath",
    "ipAddress",
    "url",
    "registryKey",
    "registryHive",
    "registryValueType",
    "registryValue",
    "accountName",
    "domainName",
    "userSid",
    "aadUserId",
    "userPrincipalName",
    "detectionStatus",
];

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

/// The entities of events, each once.
pub fn of_events(events: &[Json], created: &str) -> Vec<Json> {
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
        PROPERTIES.iter().all(|name| *name == "evidenceCreationTime" || a[*name] == b[*name])
    };
    new.into_iter().filter(|entity| !have.iter().any(|other| same(other, entity))).collect()
}

fn of_event(event: &Json, created: &str) -> Vec<Json> {
    let has = |column: &str| !matches!(&event[column], Json::Null) && event[column] != "";
    let of = |kind: &str, sources: &[Source]| {
        let mut entity: Map<String, Json> =
            PROPERTIES.iter().map(|name| ((*name).to_owned(), Json::Null)).collect();
        entity.insert("entityType".to_owned(), kind.into());
        entity.insert("evidenceCreationTime".to_owned(), created.into());
        for (property, column) in sources.iter().filter(|(_, column)| has(column)) {
            entity.insert((*property).to_owned(), event[*column].clone());
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
        let entities = of_events(&[event.clone(), event], "2026-01-01T00:00:00Z");
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
}
