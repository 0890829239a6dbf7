//! Machines: what sensors report of them.

use super::{optional_time, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use vigie_contract::sensor::MachineReport;
use vigie_database::{Migrations, Row};

pub const MACHINES: Migrations = Migrations {
    feature: "machines",
    steps: &["
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
"],
};

/// A machine is inactive when it has not reported for seven days (documentation of `healthStatus`).
const HEALTH: &str =
    "CASE WHEN t.last_seen >= {now} - 604800000000 THEN 'Active' ELSE 'Inactive' END";

/// The highest severity among a machine's alerts that are not resolved.
const RISK: &str = "COALESCE((SELECT CASE MAX(CASE a.severity WHEN 'High' THEN 4 WHEN 'Medium' THEN 3 \
    WHEN 'Low' THEN 2 WHEN 'Informational' THEN 1 ELSE 0 END) WHEN 4 THEN 'High' WHEN 3 THEN 'Medium' \
    WHEN 2 THEN 'Low' WHEN 1 THEN 'Informational' ELSE 'None' END FROM alerts a \
    WHERE a.machine = t.id AND a.status <> 'Resolved'), 'None')";

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

pub const COLLECTION: Collection = Collection {
    name: "Machines",
    from: "machines t",
    columns: "t.id, t.name, t.os_platform, t.version, t.os_build, t.agent_version, t.last_ip, \
              t.last_external_ip, t.aad_device_id, t.device_value, t.tags, t.report, t.first_seen, \
              t.last_seen, (SELECT MAX(CASE a.severity WHEN 'High' THEN 4 WHEN 'Medium' THEN 3 WHEN \
              'Low' THEN 2 WHEN 'Informational' THEN 1 ELSE 0 END) FROM alerts a WHERE a.machine = t.id \
              AND a.status <> 'Resolved')",
    properties: &[
        property("id", "t.id", Type::Text),
        property("computerDnsName", "t.name", Type::Text),
        property("osPlatform", "t.os_platform", Type::Text),
        property("version", "t.version", Type::Text),
        property("osBuild", "t.os_build", Type::Integer),
        property("agentVersion", "t.agent_version", Type::Text),
        property("lastIpAddress", "t.last_ip", Type::Text),
        property("lastExternalIpAddress", "t.last_external_ip", Type::Text),
        property("aadDeviceId", "t.aad_device_id", Type::Text),
        property("deviceValue", "t.device_value", Type::Text),
        property("machineTags", "t.tags", Type::Texts),
        property("firstSeen", "t.first_seen", Type::Time),
        property("lastSeen", "t.last_seen", Type::Time),
        property("healthStatus", HEALTH, Type::Text),
        property("riskScore", RISK, Type::Text),
        property("exposureLevel", "'None'", Type::Text),
        property("onboardingStatus", "'Onboarded'", Type::Text),
        property("rbacGroupId", "0", Type::Integer),
    ],
    shown: &[
        "mergedIntoMachineId",
        "isPotentialDuplication",
        "isExcluded",
        "exclusionReason",
        "osVersion",
        "osProcessor",
        "rbacGroupName",
        "isAadJoined",
        "osArchitecture",
        "managedBy",
        "managedByStatus",
        "ipAddresses",
        "vmMetadata",
    ],
    expandable: &[],
    key: "t.id",
    max_page: 10_000,
};

/// `GET /api/machines`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(|row| entity(row, state.now()));
    let entities = entities.collect::<Result<Vec<_>, _>>()?;
    Ok(json(200, &COLLECTION.answer(&call, &query, &page, entities)))
}

/// `GET /api/machines/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let entity = load(state, &call.caller.tenant.to_string(), &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// One machine of a tenant, by its id or its name.
pub async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sql = format!(
        "SELECT {} FROM machines t WHERE t.tenant = $1 AND (t.id = $2 OR LOWER(t.name) = $2)",
        COLLECTION.columns
    );
    let rows = state.database.read(&sql, &[tenant.into(), id.to_lowercase().into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Machine", id))?;
    entity(row, state.now())
}

fn entity(row: &Row, now: i64) -> Result<Json, ApiError> {
    let report: MachineReport = serde_json::from_str(row.text(11)?).map_err(ApiError::internal)?;
    let last_seen = row.integer(13)?;
    let active = last_seen >= now - 7 * 86_400_000_000;
    let tags: Json = serde_json::from_str(row.text(10)?).map_err(ApiError::internal)?;
    let risk = match row.optional_integer(14)? {
        Some(4) => "High",
        Some(3) => "Medium",
        Some(2) => "Low",
        Some(1) => "Informational",
        _ => "None",
    };
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
        "mergedIntoMachineId": null,
        "isPotentialDuplication": false,
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
        "rbacGroupId": 0,
        "rbacGroupName": null,
        "riskScore": risk,
        "exposureLevel": "None",
        "isAadJoined": row.optional_text(8)?.is_some(),
        "aadDeviceId": row.optional_text(8)?,
        "machineTags": tags,
        "onboardingStatus": "Onboarded",
        "osArchitecture": report.os_architecture,
        "managedBy": "Unknown",
        "managedByStatus": "Unknown",
        "ipAddresses": addresses,
        "vmMetadata": null,
    }))
}

/// `GET /api/machines/{id}/logonusers`
pub async fn logon_users(state: &State, call: Call) -> Result<Response, ApiError> {
    let machine = load(state, &call.caller.tenant.to_string(), &call.parameters[0]).await?;
    let id = machine["id"].as_str().unwrap_or_default();
    let select = "SELECT account_name, account_domain, account_sid, logon_types, first_seen, \
                  last_seen, domain_admin, only_network FROM machine_users WHERE machine = $1 \
                  ORDER BY account_domain, account_name";
    let mut users = Vec::new();
    for row in state.database.read(select, &[id.into()]).await? {
        let (name, domain) = (row.text(0)?, row.text(1)?);
        users.push(json!({
            "id": format!("{domain}\\{name}").to_lowercase(),
            "accountName": name,
            "accountDomain": domain,
            "accountSid": row.optional_text(2)?,
            "firstSeen": optional_time(row.optional_integer(4)?),
            "lastSeen": optional_time(row.optional_integer(5)?),
            "mostPrevalentMachineId": null,
            "leastPrevalentMachineId": null,
            "logonTypes": row.text(3)?,
            "logOnMachinesCount": null,
            "isDomainAdmin": row.flag(6)?,
            "isOnlyNetworkUser": row.flag(7)?,
        }));
    }
    let context = format!("{}/$metadata#Users", call.base);
    Ok(json(200, &json!({"@odata.context": context, "value": users})))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagBody {
    value: String,
    action: String,
}

/// `POST /api/machines/{id}/tags`
pub async fn set_tag(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: TagBody = call.json()?;
    let tenant = call.caller.tenant.to_string();
    let machine = load(state, &tenant, &call.parameters[0]).await?;
    let id = machine["id"].as_str().unwrap_or_default().to_owned();
    if body.value.trim().is_empty() || body.value.chars().count() > 200 {
        return Err(ApiError::body("Value: a tag of 1 to 200 characters is expected"));
    }
    let mut transaction = state.database.begin().await?;
    let rows =
        transaction.read("SELECT tags FROM machines WHERE id = $1", &[id.as_str().into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Machine", &id))?;
    let mut tags: Vec<String> = serde_json::from_str(row.text(0)?).map_err(ApiError::internal)?;
    match body.action.as_str() {
        "Add" => {
            if !tags.contains(&body.value) {
                tags.push(body.value);
            }
        }
        "Remove" => tags.retain(|tag| *tag != body.value),
        other => {
            let message = format!("Action: 'Add' or 'Remove' is expected, not '{other}'");
            return Err(ApiError::body(message));
        }
    }
    let set = "UPDATE machines SET tags = $1 WHERE id = $2";
    transaction.execute(set, &[json!(tags).to_string().into(), id.as_str().into()]).await?;
    transaction.commit().await?;
    let entity = load(state, &tenant, &id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// Ends a machine's membership: its sensor's key is taken no longer. What is known of it stays.
pub async fn offboard(
    transaction: &mut vigie_database::Transaction,
    machine: &str,
) -> Result<(), ApiError> {
    let update = "UPDATE machines SET public_key = '' WHERE id = $1";
    transaction.execute(update, &[machine.into()]).await?;
    Ok(())
}

/// Stores a sensor's report; `external` is the address that it came from.
pub async fn store_report(
    state: &State,
    transaction: &mut vigie_database::Transaction,
    machine: &str,
    report: &MachineReport,
    external: Option<&str>,
) -> Result<(), ApiError> {
    let up = |address: &&vigie_contract::sensor::IpAddress| {
        let loopback = address.r#type.as_deref() == Some("SoftwareLoopback");
        !loopback && address.operational_status.as_deref() != Some("Down")
    };
    let first_address = report.ip_addresses.iter().find(up).map(|a| a.ip_address.clone());
    let update = "UPDATE machines SET name = $1, os_platform = $2, version = $3, os_build = $4, \
                  agent_version = $5, last_ip = $6, last_external_ip = $7, aad_device_id = $8, \
                  report = $9, last_seen = $10 WHERE id = $11";
    let values = [
        report.computer_dns_name.as_str().into(),
        report.os_platform.as_str().into(),
        report.version.clone().into(),
        report.os_build.into(),
        report.agent_version.as_str().into(),
        first_address.into(),
        external.map(str::to_owned).into(),
        report.aad_device_id.map(|id| id.to_string()).into(),
        json!(report).to_string().into(),
        state.now().into(),
        machine.into(),
    ];
    transaction.execute(update, &values).await?;
    for user in &report.logged_on_users {
        let insert = "INSERT INTO machine_users (machine, account_name, account_domain, account_sid, \
            logon_types, first_seen, last_seen, domain_admin, only_network) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
            ON CONFLICT (machine, account_domain, account_name) DO UPDATE SET \
            last_seen = excluded.last_seen, logon_types = excluded.logon_types";
        let values = [
            machine.into(),
            user.account_name.as_str().into(),
            user.account_domain.as_str().into(),
            user.account_sid.clone().into(),
            user.logon_type.as_str().into(),
            user.first_seen.timestamp_micros().into(),
            user.last_seen.timestamp_micros().into(),
            user.is_domain_admin.into(),
            user.is_only_network_user.into(),
        ];
        transaction.execute(insert, &values).await?;
    }
    Ok(())
}
