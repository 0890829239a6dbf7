//! Files: what the tenant's machines saw of them. What the world knows of a file is not ours to
//! know: those properties are null.

use super::{machines, optional_time, sightings, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{List, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_hunting::lake::Thing;

const fn property(name: &'static str, ty: Type) -> Property {
    Property { name, sql: "", ty }
}

/// Lists of files.
pub const FILES: List = List {
    name: "Files",
    properties: &[
        property("sha1", Type::Text),
        property("sha256", Type::Text),
        property("md5", Type::Text),
        property("globalPrevalence", Type::Integer),
        property("globalFirstObserved", Type::Time),
        property("globalLastObserved", Type::Time),
        property("size", Type::Integer),
        property("fileType", Type::Text),
        property("isPeFile", Type::Flag),
        property("filePublisher", Type::Text),
        property("fileProductName", Type::Text),
        property("signer", Type::Text),
        property("issuer", Type::Text),
        property("signerHash", Type::Text),
        property("isValidCertificate", Type::Flag),
        property("determinationType", Type::Text),
        property("determinationValue", Type::Text),
    ],
};

/// Machines in an answer.
const MOST_MACHINES: usize = 10_000;
/// Names in the statistics.
const NAMES: usize = 5;

/// Tables whose rows are about a file of their own.
const OWN: &[&str] =
    &["DeviceFileEvents", "DeviceProcessEvents", "DeviceImageLoadEvents", "DeviceEvents"];
/// Tables whose rows name the file of the process that did it.
const INITIATING: &[&str] = &[
    "DeviceProcessEvents",
    "DeviceNetworkEvents",
    "DeviceFileEvents",
    "DeviceRegistryEvents",
    "DeviceLogonEvents",
    "DeviceImageLoadEvents",
    "DeviceEvents",
];

/// A SHA-1 or SHA-256 in lower case.
pub fn hash(text: &str) -> Result<String, ApiError> {
    let fits = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(text.to_lowercase()) } else { Err(ApiError::hash(text)) }
}

/// The file of a hash, as the lake counts sightings.
fn thing(hash: &str) -> Thing {
    match hash.len() {
        64 => Thing::Sha256(hash.to_owned()),
        _ => Thing::Sha1(hash.to_owned()),
    }
}

/// Every row that names a file between two times, in microseconds since the Unix epoch; hashes in
/// either case, as sightings count them.
fn hits(hash: &str, first: i64, last: i64) -> String {
    let column = if hash.len() == 64 { "SHA256" } else { "SHA1" };
    let between = format!(
        "Timestamp between (datetime({}) .. datetime({}))",
        time_text(first),
        time_text(last)
    );
    let own = OWN.iter().map(|table| {
        let (publisher, product) = match *table {
            "DeviceProcessEvents" => {
                ("ProcessVersionInfoCompanyName", "ProcessVersionInfoProductName")
            }
            _ => ("''", "''"),
        };
        format!(
            "({table} | where {between} and {column} =~ '{hash}' | project Sha1 = SHA1, \
             Sha256 = SHA256, Md5 = MD5, Size = FileSize, Publisher = {publisher}, \
             Product = {product})"
        )
    });
    let initiating = INITIATING.iter().map(|table| {
        format!(
            "({table} | where {between} and InitiatingProcess{column} =~ '{hash}' | project \
             Sha1 = InitiatingProcessSHA1, Sha256 = InitiatingProcessSHA256, \
             Md5 = InitiatingProcessMD5, Size = InitiatingProcessFileSize, \
             Publisher = InitiatingProcessVersionInfoCompanyName, \
             Product = InitiatingProcessVersionInfoProductName)"
        )
    });
    format!("union {}", own.chain(initiating).collect::<Vec<_>>().join(", "))
}

/// The file's entity, `None` for one that nobody saw within 30 days.
pub async fn facts(state: &State, tenant: Uuid, hash: &str) -> Result<Option<Json>, ApiError> {
    let seen = sightings::of(state, tenant, thing(hash), sightings::LONGEST).await?;
    let (Some(first), Some(last)) = (seen.first, seen.last) else { return Ok(None) };
    let query = format!(
        "{} | summarize Sha1 = max(Sha1), Sha256 = max(Sha256), Md5 = max(Md5), \
         Size = max(Size), Publisher = max(Publisher), Product = max(Product)",
        hits(hash, first, last)
    );
    let rows = sightings::rows(state, tenant, &query).await?;
    let mut file = unknown(hash);
    let Some(row) = rows.first().and_then(|rows| rows.first()) else { return Ok(Some(file)) };
    let text = |column: &str| row[column].as_str().filter(|value: &&str| !value.is_empty());
    for (name, column) in [("sha1", "Sha1"), ("sha256", "Sha256"), ("md5", "Md5")] {
        if let Some(value) = text(column) {
            file[name] = value.to_lowercase().into();
        }
    }
    for (name, column) in [("filePublisher", "Publisher"), ("fileProductName", "Product")] {
        if let Some(value) = text(column) {
            file[name] = value.into();
        }
    }
    file["size"] = row["Size"].clone();
    let Some(sha1) = file["sha1"].as_str() else { return Ok(Some(file)) };
    let query = format!(
        "DeviceFileCertificateInfo | where SHA1 =~ {} | top 1 by Timestamp desc | project Signer, \
         SignerHash, Issuer, IsTrusted",
        sightings::literal(sha1)
    );
    let rows = sightings::rows(state, tenant, &query).await?;
    if let Some(row) = rows.first().and_then(|rows| rows.first()) {
        for (name, column) in
            [("signer", "Signer"), ("signerHash", "SignerHash"), ("issuer", "Issuer")]
        {
            file[name] = sightings::text(&row[column]);
        }
        file["isValidCertificate"] = row["IsTrusted"].clone();
    }
    Ok(Some(file))
}

/// A file of which only the hash is known.
pub fn unknown(hash: &str) -> Json {
    let (sha1, sha256) = if hash.len() == 64 { (None, Some(hash)) } else { (Some(hash), None) };
    json!({
        "sha1": sha1,
        "sha256": sha256,
        "md5": null,
        "globalPrevalence": null,
        "globalFirstObserved": null,
        "globalLastObserved": null,
        "size": null,
        "fileType": null,
        "isPeFile": null,
        "filePublisher": null,
        "fileProductName": null,
        "signer": null,
        "issuer": null,
        "signerHash": null,
        "isValidCertificate": null,
        "determinationType": "Unknown",
        "determinationValue": null,
    })
}

/// `GET /api/files/{hash}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let hash = hash(&call.parameters[0])?;
    let file = facts(state, call.caller.tenant, &hash).await?;
    let mut file = file.ok_or_else(|| ApiError::not_found("File", &hash))?;
    let mut answer = json!({"@odata.context": format!("{}/$metadata#Files/$entity", call.base)});
    if let (Some(answer), Some(file)) = (answer.as_object_mut(), file.as_object_mut()) {
        answer.append(file);
    }
    Ok(json(200, &answer))
}

/// `GET /api/files/{hash}/machines`
pub async fn machines(state: &State, call: Call) -> Result<Response, ApiError> {
    let hash = hash(&call.parameters[0])?;
    let seen = sightings::of(state, call.caller.tenant, thing(&hash), sightings::LONGEST).await?;
    let ids = &seen.devices[..seen.devices.len().min(MOST_MACHINES)];
    machines::list_of(state, &call, ids).await
}

/// `GET /api/files/{hash}/stats`
pub async fn stats(state: &State, call: Call) -> Result<Response, ApiError> {
    let (hash, hours) = (hash(&call.parameters[0])?, sightings::look_back(&call)?);
    let seen = sightings::of(state, call.caller.tenant, thing(&hash), hours).await?;
    if seen.times == 0 {
        return Err(ApiError::not_found("File", &hash));
    }
    let names: Vec<&str> = seen.names.iter().take(NAMES).map(|(name, _)| name.as_str()).collect();
    let context = "microsoft.windowsDefenderATP.api.InOrgFileStats";
    Ok(json(
        200,
        &json!({
            "@odata.context": format!("{}/$metadata#{context}", call.base),
            "sha1": if hash.len() == 40 { Some(hash) } else { seen.other_hash },
            "organizationPrevalence": seen.devices.len(),
            "orgPrevalence": seen.devices.len().to_string(),
            "orgFirstSeen": optional_time(seen.first),
            "orgLastSeen": optional_time(seen.last),
            "globallyPrevalence": null,
            "globalFirstObserved": null,
            "globalLastObserved": null,
            "topFileNames": names,
        }),
    ))
}
