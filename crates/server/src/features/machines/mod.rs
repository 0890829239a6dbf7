//! Machines: what sensors report of them.

mod change;
mod find;
mod report;
mod users;

pub use change::{offboard, set_tag, set_tag_of_many, set_value, update};
pub use find::{by_ip, by_ip_legacy, by_tag, list_of};
pub use report::store_report;
pub use users::logon_users;

use super::{scope, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Elements, Property, TEXTS, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_contract::sensor::MachineReport;
use vigie_database::{Migrations, Row};

pub const MACHINES: Migrations = Migrations {
    feature: "machines",
    steps: &[
        "
CREATE TABLE machines (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, installation TEXT NOT NULL, public_key TEXT NOT NULL,
    name TEXT NOT NULL, os_platform TEXT NOT NULL, version TEXT, os_build BIGINT, agent_version TEXT,
    last_ip TEXT, last_external_ip TEXT, aad_device_id TEXT, device_value TEXT NOT NULL,
    tags TEXT NOT NULL, report TEXT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL,
    UNIQUE (tenant, installation));
CREATE TABLE machine_users (
    machine TEXT NOT NULL, account_name TEXT NOT NULL, account_domain TEXT NOT NULL,
    account_sid TEXT, logon_types TEXT NOT NULL, first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL, domain_admin BIGINT NOT NULL, only_network BIGINT NOT NULL,
    PRIMARY KEY (machine, account_domain, account_name));
",
        "
ALTER TABLE machines ADD COLUMN group_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN group_name TEXT;
ALTER TABLE machines ADD COLUMN merged_into TEXT;
ALTER TABLE machines ADD COLUMN os_processor TEXT;
ALTER TABLE machines ADD COLUMN os_architecture TEXT;
CREATE INDEX machines_name ON machines (tenant, LOWER(name));
CREATE INDEX machines_aad ON machines (tenant, aad_device_id);
CREATE INDEX machines_page ON machines (tenant, id);
CREATE INDEX machine_users_name ON machine_users (LOWER(account_name));
CREATE TABLE machine_addresses (
    machine TEXT NOT NULL, address TEXT NOT NULL, mac TEXT, type TEXT, status TEXT,
    began BIGINT NOT NULL, ended BIGINT NOT NULL, PRIMARY KEY (machine, address, began));
CREATE INDEX machine_addresses_address ON machine_addresses (address, ended);
",
    ],
};

/// A machine is inactive when it has not reported for seven days (documentation of `healthStatus`).
const HEALTH: &str =
    "CASE WHEN t.last_seen >= {now} - 604800000000 THEN 'Active' ELSE 'Inactive' END";

/// The highest severity among a machine's alerts that are not resolved.
const RISK: &str = "COALESCE((SELECT CASE MAX(CASE a.severity WHEN 'High' THEN 4 WHEN 'Medium' THEN 3 \
    WHEN 'Low' THEN 2 WHEN 'Informational' THEN 1 ELSE 0 END) WHEN 4 THEN 'High' WHEN 3 THEN 'Medium' \
    WHEN 2 THEN 'Low' WHEN 1 THEN 'Informational' ELSE 'None' END FROM alerts a \
    WHERE a.machine = t.id AND a.status <> 'Resolved'), 'None')";

/// Another machine of the tenant has the same name.
const DUPLICATE: &str = "CASE WHEN EXISTS (SELECT 1 FROM machines o WHERE o.tenant = t.tenant AND \
    LOWER(o.name) = LOWER(t.name) AND o.id <> t.id AND o.merged_into IS NULL) THEN 1 ELSE 0 END";

const JOINED: &str = "CASE WHEN t.aad_device_id IS NULL THEN 0 ELSE 1 END";

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const ADDRESSES: Elements = Elements::Rows {
    table: "machine_addresses",
    key: "machine",
    properties: &[
        property("ipAddress", "address", Type::Text),
        property("macAddress", "mac", Type::Text),
        property("type", "type", Type::Text),
        property("operationalStatus", "status", Type::Text),
    ],
};

pub const COLLECTION: Collection = Collection {
    name: "Machines",
    from: "machines t",
    columns: "t.id, t.name, t.os_platform, t.version, t.os_build, t.agent_version, t.last_ip, \
              t.last_external_ip, t.aad_device_id, t.device_value, t.tags, t.report, t.first_seen, \
              t.last_seen, COALESCE((SELECT CASE MAX(CASE a.severity WHEN 'High' THEN 4 WHEN 'Medium' \
              THEN 3 WHEN 'Low' THEN 2 WHEN 'Informational' THEN 1 ELSE 0 END) WHEN 4 THEN 'High' WHEN \
              3 THEN 'Medium' WHEN 2 THEN 'Low' WHEN 1 THEN 'Informational' ELSE 'None' END FROM \
              alerts a WHERE a.machine = t.id AND a.status <> 'Resolved'), 'None'), \
              t.group_id, t.group_name, t.merged_into, CASE WHEN EXISTS (SELECT 1 FROM machines o \
              WHERE o.tenant = t.tenant AND LOWER(o.name) = LOWER(t.name) AND o.id <> t.id AND \
              o.merged_into IS NULL) THEN 1 ELSE 0 END",
    properties: &[
        property("id", "t.id", Type::Guid),
        property("computerDnsName", "t.name", Type::Text),
        property("osPlatform", "t.os_platform", Type::Text),
        property("version", "t.version", Type::Text),
        property("osBuild", "t.os_build", Type::Integer),
        property("osProcessor", "t.os_processor", Type::Text),
        property("osArchitecture", "t.os_architecture", Type::Text),
        property("agentVersion", "t.agent_version", Type::Text),
        property("lastIpAddress", "t.last_ip", Type::Text),
        property("lastExternalIpAddress", "t.last_external_ip", Type::Text),
        property("ipAddresses", "t.id", Type::Many(&ADDRESSES)),
        property("aadDeviceId", "t.aad_device_id", Type::Guid),
        property("isAadJoined", JOINED, Type::Flag),
        property("deviceValue", "t.device_value", Type::Text),
        property("machineTags", "t.tags", TEXTS),
        property("firstSeen", "t.first_seen", Type::Time),
        property("lastSeen", "t.last_seen", Type::Time),
        property("healthStatus", HEALTH, Type::Text),
        property("riskScore", RISK, Type::Text),
        property("exposureLevel", "'None'", Type::Text),
        property("onboardingStatus", "'Onboarded'", Type::Text),
        property("rbacGroupId", "t.group_id", Type::Integer),
        property("rbacGroupName", "t.group_name", Type::Text),
        property("mergedIntoMachineId", "t.merged_into", Type::Guid),
        property("isPotentialDuplication", DUPLICATE, Type::Flag),
        property("isExcluded", "0", Type::Flag),
        property("managedBy", "'Unknown'", Type::Text),
        property("managedByStatus", "'Unknown'", Type::Text),
        property("defenderAvStatus", "'Unknown'", Type::Text),
    ],
    shown: &["exclusionReason", "osVersion", "vmMetadata"],
    expandable: &[],
    key: "t.id",
    never_null: &["t.name", "t.first_seen", "t.last_seen"],
    counted: None,
    max_page: 10_000,
};

/// `GET /api/machines`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let mut query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    scope::restrict(&mut query, &call, "t.id");
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(|row| entity(row, state.now()));
    let entities = entities.collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

/// `GET /api/machines/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let entity = visible(state, &call, &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// One machine that the caller may see, by its id, its Entra device id or its DNS name.
pub async fn visible(state: &State, call: &Call, id: &str) -> Result<Json, ApiError> {
    let machine = load(state, &call.caller.tenant.to_string(), id).await?;
    match scope::is_visible(call, &machine) {
        true => Ok(machine),
        false => Err(ApiError::not_found("Machine", id)),
    }
}

/// One machine of a tenant, by its id, its Entra device id or its DNS name.
pub async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sought = id.trim().to_lowercase();
    let is_id = sought.len() == 40 && sought.bytes().all(|byte| byte.is_ascii_hexdigit());
    let by = match (is_id, Uuid::try_parse(&sought).is_ok()) {
        (true, _) => "t.id",
        (_, true) => "t.aad_device_id",
        _ => "LOWER(t.name)",
    };
    let sql = format!(
        "SELECT {} FROM machines t WHERE t.tenant = $1 AND {by} = $2 \
         ORDER BY CASE WHEN t.merged_into IS NULL THEN 0 ELSE 1 END, t.last_seen DESC LIMIT 1",
        COLLECTION.columns
    );
    let rows = state.database.read(&sql, &[tenant.into(), sought.into()]).await?;
    let shown: String = id.chars().take(200).collect();
    let row = rows.first().ok_or_else(|| ApiError::not_found("Machine", &shown))?;
    entity(row, state.now())
}

pub(super) fn entity(row: &Row, now: i64) -> Result<Json, ApiError> {
    let report: MachineReport = serde_json::from_str(row.text(11)?).map_err(ApiError::internal)?;
    let last_seen = row.integer(13)?;
    let active = last_seen >= now - 7 * 86_400_000_000;
    let tags: Json = serde_json::from_str(row.text(10)?).map_err(ApiError::internal)?;
    let addresses: Vec<Json> = (report.ip_addresses.iter())
        .map(|address| {
            json!({
                "ipAddress": address.ip_address, "macAddress": address.mac_address,
                "type": address.r#type, "operationalStatus": address.operational_status,
            })
        })
        .collect();
    Ok(json!({
        "id": row.text(0)?,
        "mergedIntoMachineId": row.optional_text(17)?,
        "isPotentialDuplication": row.flag(18)?,
        "isExcluded": false,
        "exclusionReason": null,
        "computerDnsName": row.text(1)?,
        "firstSeen": time_text(row.integer(12)?),
        "lastSeen": time_text(last_seen),
        "osPlatform": row.text(2)?,
        "osVersion": null,
        "osProcessor": report.os_processor,
        "version": row.optional_text(3)?,
        "lastIpAddress": row.optional_text(6)?,
        "lastExternalIpAddress": row.optional_text(7)?,
        "agentVersion": row.optional_text(5)?,
        "osBuild": row.optional_integer(4)?,
        "healthStatus": if active { "Active" } else { "Inactive" },
        "deviceValue": row.text(9)?,
        "rbacGroupId": row.integer(15)?,
        "rbacGroupName": row.optional_text(16)?,
        "riskScore": row.text(14)?,
        "exposureLevel": "None",
        "isAadJoined": row.optional_text(8)?.is_some(),
        "aadDeviceId": row.optional_text(8)?,
        "machineTags": tags,
        "defenderAvStatus": "Unknown",
        "onboardingStatus": "Onboarded",
        "osArchitecture": report.os_architecture,
        "managedBy": "Unknown",
        "managedByStatus": "Unknown",
        "ipAddresses": addresses,
        "vmMetadata": null,
    }))
}
