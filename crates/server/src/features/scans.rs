//! Authenticated scans: definitions are kept and administered. No sensor carries them out, so that
//! their histories are empty.

use super::{machines, optional_time};
use crate::edge::body::choice;
use crate::edge::{ApiError, Call, json};
use crate::odata::{List, Property, Type};
use crate::state::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::net::IpAddr;
use uuid::Uuid;
use vigie_database::{Migrations, Row};

pub const SCANS: Migrations = Migrations {
    feature: "scans",
    steps: &["
CREATE TABLE scan_definitions (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL,
    active BIGINT NOT NULL, target TEXT NOT NULL, interval_hours BIGINT NOT NULL,
    target_type TEXT NOT NULL, machine TEXT NOT NULL, authentication BYTEA NOT NULL,
    created_by TEXT NOT NULL, created BIGINT NOT NULL);
CREATE INDEX scan_definitions_tenant ON scan_definitions (tenant, id);
"],
};

const TYPES: &[&str] = &["Windows", "Network"];
const TARGET_TYPES: &[&str] = &["Ip", "Hostname"];
/// What the secrets of a definition are sealed for.
const PURPOSE: &str = "scan authentication";
/// Targets of one definition.
const MOST_TARGETS: usize = 4096;
/// Definitions in one request.
const MOST: usize = 500;

const fn property(name: &'static str, ty: Type) -> Property {
    Property { name, sql: "", ty }
}

const DEFINITIONS: List = List {
    name: "DeviceAuthenticatedScanDefinitions",
    properties: &[
        property("id", Type::Text),
        property("scanType", Type::Text),
        property("scanName", Type::Text),
        property("isActive", Type::Flag),
        property("target", Type::Text),
        property("orgId", Type::Text),
        property("intervalInHours", Type::Integer),
        property("createdBy", Type::Text),
        property("targetType", Type::Text),
        property("scanAuthenticationParams", Type::Text),
        property("scannerAgent", Type::Text),
        property("latestScan", Type::Text),
    ],
};

const AGENTS: List = List {
    name: "DeviceAuthenticatedScanAgents",
    properties: &[
        property("id", Type::Text),
        property("machineId", Type::Text),
        property("computerDnsName", Type::Text),
        property("machineName", Type::Text),
        property("lastSeen", Type::Time),
        property("assignedApplicationId", Type::Text),
        property("scannerSoftwareVersion", Type::Text),
        property("lastCommandExecutionTimestamp", Type::Time),
        property("mdeClientVersion", Type::Text),
    ],
};

const SELECT: &str = "SELECT t.id, t.type, t.name, t.active, t.target, t.tenant, t.interval_hours, \
    t.created_by, t.target_type, t.machine, m.name, m.last_seen, m.agent_version \
    FROM scan_definitions t JOIN machines m ON m.id = t.machine WHERE t.tenant = $1";

/// `GET /api/DeviceAuthenticatedScanDefinitions`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let sql = format!("{SELECT} ORDER BY t.created, t.id");
    let rows = state.database.read(&sql, &[call.caller.tenant.to_string().into()]).await?;
    DEFINITIONS.respond(&call, rows.iter().map(definition).collect::<Result<Vec<_>, _>>()?)
}

/// A definition; what signs in to the scanned devices is never shown.
fn definition(row: &Row) -> Result<Json, ApiError> {
    Ok(json!({
        "id": row.text(0)?,
        "scanType": row.text(1)?,
        "scanName": row.text(2)?,
        "isActive": row.flag(3)?,
        "target": row.text(4)?,
        "orgId": row.text(5)?,
        "intervalInHours": row.integer(6)?,
        "createdBy": row.text(7)?,
        "targetType": row.text(8)?,
        "scanAuthenticationParams": null,
        "scannerAgent": {
            "id": format!("{}_{}", row.text(5)?, row.text(9)?),
            "machineId": row.text(9)?,
            "machineName": row.text(10)?,
            "lastSeen": optional_time(row.optional_integer(11)?),
            "assignedApplicationId": null,
            "scannerSoftwareVersion": null,
            "lastCommandExecutionTimestamp": null,
            "mdeClientVersion": row.optional_text(12)?,
        },
        "latestScan": {"status": null, "failureReason": null, "executionDateTime": null},
    }))
}

async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sql = format!("{SELECT} AND t.id = $2");
    let rows = state.database.read(&sql, &[tenant.into(), id.to_lowercase().into()]).await?;
    let shown: String = id.chars().take(80).collect();
    definition(rows.first().ok_or_else(|| ApiError::not_found("Scan definition", &shown))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    scan_type: Option<String>,
    scan_name: Option<String>,
    is_active: Option<bool>,
    target: Option<String>,
    interval_in_hours: Option<i64>,
    target_type: Option<String>,
    scanner_agent: Option<Agent>,
    scan_authentication_params: Option<Json>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    machine_id: String,
}

/// Checks what was sent, brings names into their documented spelling; the machine's id, if one was
/// named.
async fn check(state: &State, call: &Call, body: &mut Body) -> Result<Option<String>, ApiError> {
    if let Some(ty) = &body.scan_type {
        body.scan_type = Some(choice("scanType", ty, TYPES)?.to_owned());
    }
    if let Some(ty) = &body.target_type {
        let ty = if ty.eq_ignore_ascii_case("IP Address") { "Ip" } else { ty };
        body.target_type = Some(choice("targetType", ty, TARGET_TYPES)?.to_owned());
    }
    if body.scan_name.as_ref().is_some_and(|name| name.trim().is_empty() || name.len() > 500) {
        return Err(ApiError::body("scanName: a name of 1 to 500 characters is expected"));
    }
    if body.interval_in_hours.is_some_and(|hours| !(1..=8760).contains(&hours)) {
        return Err(ApiError::body("intervalInHours: a number from 1 to 8760 is expected"));
    }
    if let Some(target) = &body.target {
        let addresses = body.target_type.as_deref() != Some("Hostname");
        let targets: Vec<&str> = target.split(',').map(str::trim).collect();
        if targets.len() > MOST_TARGETS {
            return Err(ApiError::batch_size(targets.len(), MOST_TARGETS));
        }
        for target in targets {
            let fits = match addresses {
                true => target.parse::<IpAddr>().is_ok() || target.parse::<ipnet::IpNet>().is_ok(),
                false => !target.is_empty() && !target.contains(char::is_whitespace),
            };
            if !fits {
                return Err(if addresses {
                    ApiError::ip(target)
                } else {
                    ApiError::domain(target)
                });
            }
        }
    }
    match &body.scanner_agent {
        None => Ok(None),
        Some(agent) => {
            let machine = machines::visible(state, call, &agent.machine_id).await?;
            Ok(machine["id"].as_str().map(str::to_owned))
        }
    }
}

/// `POST /api/DeviceAuthenticatedScanDefinitions`
pub async fn create(state: &State, call: Call) -> Result<Response, ApiError> {
    let mut body: Body = call.json()?;
    let machine = check(state, &call, &mut body).await?;
    let machine = machine.ok_or_else(|| ApiError::missing("scannerAgent"))?;
    let authentication = body.scan_authentication_params.unwrap_or_default().to_string();
    let (id, tenant) = (Uuid::new_v4().to_string(), call.caller.tenant.to_string());
    let insert = "INSERT INTO scan_definitions (id, tenant, type, name, active, target, \
        interval_hours, target_type, machine, authentication, created_by, created) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let values = [
        id.as_str().into(),
        tenant.as_str().into(),
        body.scan_type.into(),
        body.scan_name.into(),
        body.is_active.unwrap_or(true).into(),
        body.target.into(),
        body.interval_in_hours.into(),
        body.target_type.into(),
        machine.into(),
        state.master.seal(PURPOSE, authentication.as_bytes()).into(),
        call.actor().into(),
        state.now().into(),
    ];
    state.database.execute(insert, &values).await?;
    answer(state, &call, &id).await
}

/// `PATCH /api/DeviceAuthenticatedScanDefinitions/{id}`
pub async fn update(state: &State, call: Call) -> Result<Response, ApiError> {
    let mut body: Body = call.json()?;
    let tenant = call.caller.tenant.to_string();
    let found = load(state, &tenant, &call.parameters[0]).await?;
    if body.target_type.is_none() {
        body.target_type = found["targetType"].as_str().map(str::to_owned);
    }
    let machine = check(state, &call, &mut body).await?;
    let id = found["id"].as_str().unwrap_or_default().to_owned();
    let authentication = body.scan_authentication_params.map(|params| params.to_string());
    let sealed = authentication.map(|text| state.master.seal(PURPOSE, text.as_bytes()));
    let update = "UPDATE scan_definitions SET type = COALESCE($1, type), name = COALESCE($2, name), \
        active = COALESCE($3, active), target = COALESCE($4, target), \
        interval_hours = COALESCE($5, interval_hours), target_type = COALESCE($6, target_type), \
        machine = COALESCE($7, machine), authentication = COALESCE($8, authentication) \
        WHERE id = $9";
    let values = [
        body.scan_type.into(),
        body.scan_name.into(),
        body.is_active.map(i64::from).into(),
        body.target.into(),
        body.interval_in_hours.into(),
        body.target_type.into(),
        machine.into(),
        vigie_database::Value::Bytes(sealed),
        id.as_str().into(),
    ];
    state.database.execute(update, &values).await?;
    answer(state, &call, &id).await
}

async fn answer(state: &State, call: &Call, id: &str) -> Result<Response, ApiError> {
    let mut found = load(state, &call.caller.tenant.to_string(), id).await?;
    let context = format!("{}/$metadata#{}/$entity", call.base, DEFINITIONS.name);
    let mut answer = json!({"@odata.context": context});
    if let (Some(answer), Some(found)) = (answer.as_object_mut(), found.as_object_mut()) {
        answer.append(found);
    }
    Ok(json(200, &answer))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definitions {
    scan_definition_ids: Vec<String>,
}

impl Definitions {
    fn of(call: &Call) -> Result<Vec<String>, ApiError> {
        let body: Definitions = call.json()?;
        match body.scan_definition_ids.len() {
            0 => Err(ApiError::missing("ScanDefinitionIds")),
            many if many > MOST => Err(ApiError::batch_size(many, MOST)),
            _ => Ok(body.scan_definition_ids),
        }
    }
}

/// `POST /api/DeviceAuthenticatedScanDefinitions/BatchDelete`: all of them or none.
pub async fn delete_many(state: &State, call: Call) -> Result<Response, ApiError> {
    let ids = Definitions::of(&call)?;
    let mut transaction = state.database.begin().await?;
    for id in &ids {
        let delete = "DELETE FROM scan_definitions WHERE tenant = $1 AND id = $2";
        let values = [call.caller.tenant.to_string().into(), id.to_lowercase().into()];
        if transaction.execute(delete, &values).await? == 0 {
            let id: String = id.chars().take(80).collect();
            return Err(ApiError::not_found("Scan definition", &id));
        }
    }
    transaction.commit().await?;
    Ok(StatusCode::OK.into_response())
}

/// `POST …/GetScanHistoryByScanDefinitionId`: no scan has run.
pub async fn history(state: &State, call: Call) -> Result<Response, ApiError> {
    for id in Definitions::of(&call)? {
        load(state, &call.caller.tenant.to_string(), &id).await?;
    }
    Ok(empty_history(&call))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sessions {
    session_ids: Vec<String>,
}

/// `POST …/GetScanHistoryBySessionId`: there is no session.
pub async fn sessions(_state: &State, call: Call) -> Result<Response, ApiError> {
    let body: Sessions = call.json()?;
    match body.session_ids.len() {
        0 => Err(ApiError::missing("SessionIds")),
        many if many > MOST => Err(ApiError::batch_size(many, MOST)),
        _ => Ok(empty_history(&call)),
    }
}

fn empty_history(call: &Call) -> Response {
    let host = call.base.trim_end_matches("/api");
    json(200, &json!({"@odata.context": format!("{host}{}", call.path), "value": []}))
}

/// The machines that definitions name as their scanners.
async fn agents_of(state: &State, call: &Call) -> Result<Vec<Json>, ApiError> {
    let sql = format!("{SELECT} ORDER BY t.machine");
    let rows = state.database.read(&sql, &[call.caller.tenant.to_string().into()]).await?;
    let mut agents: Vec<Json> = Vec::new();
    for row in &rows {
        let mut agent = definition(row)?["scannerAgent"].take();
        agent["computerDnsName"] = agent["machineName"].clone();
        if !agents.iter().any(|known| known["id"] == agent["id"]) {
            agents.push(agent);
        }
    }
    Ok(agents)
}

/// `GET /api/DeviceAuthenticatedScanAgents`
pub async fn agents(state: &State, call: Call) -> Result<Response, ApiError> {
    let agents = agents_of(state, &call).await?;
    AGENTS.respond(&call, agents)
}

/// `GET /api/DeviceAuthenticatedScanAgents/{id}`, by its id or its machine's.
pub async fn agent(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = call.parameters[0].to_lowercase();
    let agents = agents_of(state, &call).await?;
    let found = agents.into_iter().find(|agent| agent["id"] == id || agent["machineId"] == id);
    let found = found.ok_or_else(|| ApiError::not_found("Scan agent", &call.parameters[0]))?;
    let context = format!("{}/$metadata#{}/$entity", call.base, AGENTS.name);
    // The documentation shows the one entity in a list.
    Ok(json(200, &json!({"@odata.context": context, "value": [found]})))
}
