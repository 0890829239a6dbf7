//! Device health and information gathering: what machines report of their protection, as rows of
//! `DeviceTvmInfoGathering`. Where no machine reports, the lists are empty.

use super::{machines, sightings};
use crate::edge::{ApiError, Call, json};
use crate::odata::{List, Property, Type};
use crate::state::State;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value as Json, json};
use std::io::Write as _;
use uuid::Uuid;
use vigie_database::Value;

const fn property(name: &'static str, ty: Type) -> Property {
    Property { name, sql: "", ty }
}

const AV_INFO: List = List {
    name: "DeviceAvInfo",
    properties: &[
        property("id", Type::Text),
        property("machineId", Type::Text),
        property("computerDnsName", Type::Text),
        property("osKind", Type::Text),
        property("osPlatform", Type::Text),
        property("osVersion", Type::Text),
        property("avMode", Type::Text),
        property("avSignatureVersion", Type::Text),
        property("avEngineVersion", Type::Text),
        property("avPlatformVersion", Type::Text),
        property("lastSeenTime", Type::Time),
        property("quickScanResult", Type::Text),
        property("quickScanError", Type::Text),
        property("quickScanTime", Type::Time),
        property("fullScanResult", Type::Text),
        property("fullScanError", Type::Text),
        property("fullScanTime", Type::Time),
        property("dataRefreshTimestamp", Type::Time),
        property("avEngineUpdateTime", Type::Time),
        property("avSignatureUpdateTime", Type::Time),
        property("avPlatformUpdateTime", Type::Time),
        property("avIsSignatureUpToDate", Type::Text),
        property("avIsEngineUpToDate", Type::Text),
        property("avIsPlatformUpToDate", Type::Text),
        property("avSignaturePublishTime", Type::Time),
        property("rbacGroupName", Type::Text),
        property("rbacGroupId", Type::Integer),
    ],
};

/// A property and the member of the gathered information that it is taken from.
const GATHERED: &[(&str, &str)] = &[
    ("avMode", "AvMode"),
    ("avSignatureVersion", "AvSignatureVersion"),
    ("avEngineVersion", "AvEngineVersion"),
    ("avPlatformVersion", "AvPlatformVersion"),
    ("avEngineUpdateTime", "AvEngineUpdateTime"),
    ("avSignatureUpdateTime", "AvSignatureUpdateTime"),
    ("avPlatformUpdateTime", "AvPlatformUpdateTime"),
    ("avSignaturePublishTime", "AvSignaturePublishTime"),
    ("avIsSignatureUpToDate", "AvIsSignatureUptoDate"),
    ("avIsEngineUpToDate", "AvIsEngineUptodate"),
    ("avIsPlatformUpToDate", "AvIsPlatformUptodate"),
];

/// The latest report of each device.
async fn latest(state: &State, tenant: Uuid) -> Result<Vec<Json>, ApiError> {
    let query = "DeviceTvmInfoGathering | summarize arg_max(Timestamp, *) by DeviceId | order by \
                 DeviceId asc";
    Ok(sightings::rows(state, tenant, query).await?.into_iter().next().unwrap_or_default())
}

/// What a row gathered, as an object.
fn gathered(row: &Json) -> Json {
    match &row["AdditionalFields"] {
        Json::String(text) => serde_json::from_str(text).unwrap_or(Json::Null),
        other => other.clone(),
    }
}

/// A member by its name without regard to case: sources differ.
fn member<'a>(gathered: &'a Json, name: &str) -> &'a Json {
    let members = gathered.as_object().into_iter().flatten();
    let mut found = members.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.next().map_or(&Json::Null, |(_, value)| value)
}

/// `GET /api/deviceavinfo`
pub async fn av_info(state: &State, call: Call) -> Result<Response, ApiError> {
    let mut entities = Vec::new();
    for row in latest(state, call.caller.tenant).await? {
        let gathered = gathered(&row);
        if member(&gathered, "AvMode").is_null() {
            continue;
        }
        let device = row["DeviceId"].as_str().unwrap_or_default();
        // A device that the caller may not see, or that is no machine of the tenant's.
        let Ok(machine) = machines::visible(state, &call, device).await else { continue };
        let mut entity = av_entity(&row, &gathered, &machine);
        for (name, of) in GATHERED {
            entity[*name] = text(member(&gathered, of));
        }
        entities.push(entity);
    }
    AV_INFO.respond(&call, entities)
}

fn av_entity(row: &Json, gathered: &Json, machine: &Json) -> Json {
    let platform = machine["osPlatform"].as_str().unwrap_or_default().to_lowercase();
    let kind = match platform.as_str() {
        "linux" => "linux",
        "macos" => "mac",
        _ => "windows",
    };
    let scans = member(gathered, "AvScanResults");
    let parsed = scans.as_str().and_then(|text| serde_json::from_str::<Json>(text).ok());
    let scans = parsed.unwrap_or_else(|| scans.clone());
    let scan = |which: &str, name: &str| text(member(member(&scans, which), name));
    let machine_id = machine["id"].as_str().unwrap_or_default();
    json!({
        "id": Uuid::new_v5(&Uuid::NAMESPACE_OID, machine_id.as_bytes()),
        "machineId": machine_id,
        "computerDnsName": machine["computerDnsName"],
        "osKind": kind,
        "osPlatform": machine["osPlatform"],
        "osVersion": machine["version"],
        "lastSeenTime": machine["lastSeen"],
        "quickScanResult": scan("Quick", "ScanStatus"),
        "quickScanError": scan("Quick", "ErrorCode"),
        "quickScanTime": scan("Quick", "Timestamp"),
        "fullScanResult": scan("Full", "ScanStatus"),
        "fullScanError": scan("Full", "ErrorCode"),
        "fullScanTime": scan("Full", "Timestamp"),
        "dataRefreshTimestamp": sightings::time(&row["Timestamp"]),
        "rbacGroupName": machine["rbacGroupName"],
        "rbacGroupId": machine["rbacGroupId"],
    })
}

/// A value as the text that the API writes; null where there is none.
fn text(value: &Json) -> Json {
    match value {
        Json::Null => Json::Null,
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::String(text) if text.is_empty() => Json::Null,
        Json::String(text) if text == "true" => "True".into(),
        Json::String(text) if text == "false" => "False".into(),
        Json::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// Hours that a link of an export is valid: `sasValidHours`, 1 if it is missing.
fn valid_hours(call: &Call) -> Result<i64, ApiError> {
    let text = call.parameter("sasValidHours").or(call.parameter("$sasValidHours"));
    let Some(text) = text else { return Ok(1) };
    let hours = text.parse::<i64>().ok().filter(|hours| (1..=6).contains(hours));
    hours.ok_or_else(|| ApiError::bad_request("sasValidHours: a number from 1 to 6 is expected"))
}

/// `GET /api/machines/InfoGatheringExport`: links to files, none where nothing was gathered.
pub async fn export(state: &State, call: Call) -> Result<Response, ApiError> {
    let hours = valid_hours(&call)?;
    let rows = latest(state, call.caller.tenant).await?;
    let mut files = Vec::new();
    if !rows.is_empty() {
        let expires = state.clock.now().timestamp() + hours * 3600;
        let payload = format!("{}.{expires}", call.caller.tenant);
        let proof = state.master.hash(&signed(&payload));
        let proof: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        let host = call.base.trim_end_matches("/api");
        files.push(format!("{host}/exports/v1/InfoGatheringExport/{payload}.json.gz?sig={proof}"));
    }
    let context = "microsoft.windowsDefenderATP.api.ExportFilesResponse";
    Ok(json(
        200,
        &json!({
            "@odata.context": format!("{}/$metadata#{context}", call.base),
            "exportFiles": files,
            "generatedTime": super::time_text(state.now()),
        }),
    ))
}

/// What the proof of a link is made of.
fn signed(payload: &str) -> String {
    format!("export InfoGatheringExport {payload}")
}

/// The file of a link, as `GET /exports/v1/InfoGatheringExport/…` without a token: one line a device,
/// compressed. `name` is `{tenant}.{expiry}.json.gz`.
pub async fn file(state: &State, name: &str, proof: &str) -> Result<Vec<u8>, ApiError> {
    let refused = || ApiError::new(403, "Forbidden", "The link is not valid, or no longer.");
    let payload = name.strip_suffix(".json.gz").ok_or_else(refused)?;
    let bytes: Option<Vec<u8>> = (0..proof.len() / 2)
        .map(|at| u8::from_str_radix(proof.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    if !bytes.is_some_and(|bytes| state.master.is_hash_of(&bytes, &signed(payload))) {
        return Err(refused());
    }
    let (tenant, expires) = payload.split_once('.').ok_or_else(refused)?;
    let tenant = Uuid::try_parse(tenant).map_err(|_| refused())?;
    if expires.parse::<i64>().map_err(|_| refused())? <= state.clock.now().timestamp() {
        return Err(refused());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for row in latest(state, tenant).await? {
        let device = row["DeviceId"].as_str().unwrap_or_default();
        let select = "SELECT name, os_platform, group_id, group_name FROM machines WHERE id = $1 \
                      AND tenant = $2";
        let values: [Value; 2] = [device.into(), tenant.to_string().into()];
        let found = state.database.read(select, &values).await?;
        let Some(machine) = found.first() else { continue };
        let line = json!({
            "DeviceId": device,
            "DeviceName": machine.text(0)?,
            "OSPlatform": machine.text(1)?,
            "RbacGroupId": machine.integer(2)?,
            "RbacGroupName": machine.optional_text(3)?,
            "LastSeenTime": sightings::time(&row["LastSeenTime"]),
            "Timestamp": sightings::time(&row["Timestamp"]),
            "DeviceGatheredInfo": gathered(&row),
        });
        writeln!(encoder, "{line}").map_err(ApiError::internal)?;
    }
    encoder.finish().map_err(ApiError::internal)
}
