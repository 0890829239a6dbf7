//! The operations that give orders to one machine, and the one that takes them back.

use super::store::{self, NewAction};
use super::{COLLECTION, load};
use crate::edge::{ApiError, Call, json};
use crate::features::{library, machines, whereabouts};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value as Json;
use vigie_contract::sensor::{Command, IsolationType, ScanType};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    comment: String,
    isolation_type: Option<String>,
    scan_type: Option<String>,
    sha1: Option<String>,
    external_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CancelBody {
    comment: Option<String>,
}

/// What an operation wants done, besides machine and caller.
pub struct Wanted {
    pub kind: &'static str,
    pub scope: Option<String>,
    pub comment: String,
    pub command: Command,
    pub related_sha1: Option<String>,
    pub external_id: Option<String>,
    /// Live response steps in the API's shape.
    pub commands: Option<Json>,
}

impl Wanted {
    fn new(kind: &'static str, body: &Body, command: Command) -> Wanted {
        Wanted {
            kind,
            scope: None,
            comment: body.comment.clone(),
            command,
            related_sha1: None,
            external_id: body.external_id.clone(),
            commands: None,
        }
    }
}

/// `POST /api/machines/{id}/isolate`
pub async fn isolate(state: &State, call: Call) -> Result<Response, ApiError> {
    let body = body(&call)?;
    let isolation_type = match body.isolation_type.as_deref() {
        Some("Full") | None => IsolationType::Full,
        Some("Selective") => IsolationType::Selective,
        Some("UnManagedDevice") => {
            let message = "Invalid input IsolationType: UnManagedDevice contains a device without \
                           a sensor by means of the others, which this server does not support";
            return Err(ApiError::new(400, "InvalidInput", message));
        }
        Some(other) => {
            let message =
                format!("IsolationType: 'Full' or 'Selective' is expected, not '{other}'");
            return Err(ApiError::body(message));
        }
    };
    let mut wanted = Wanted::new("Isolate", &body, Command::Isolate { isolation_type });
    wanted.scope = Some(format!("{isolation_type:?}"));
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/unisolate`
pub async fn unisolate(state: &State, call: Call) -> Result<Response, ApiError> {
    let wanted = Wanted::new("Unisolate", &body(&call)?, Command::Unisolate {});
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/restrictCodeExecution`
pub async fn restrict(state: &State, call: Call) -> Result<Response, ApiError> {
    let command = Command::RestrictCodeExecution {};
    let wanted = Wanted::new("RestrictCodeExecution", &body(&call)?, command);
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/unrestrictCodeExecution`
pub async fn unrestrict(state: &State, call: Call) -> Result<Response, ApiError> {
    let command = Command::UnrestrictCodeExecution {};
    let wanted = Wanted::new("UnrestrictCodeExecution", &body(&call)?, command);
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/runAntiVirusScan`; the tenant's library may hold rules for it.
pub async fn scan(state: &State, call: Call) -> Result<Response, ApiError> {
    let body = body(&call)?;
    let scan_type = match body.scan_type.as_deref() {
        Some("Quick") => ScanType::Quick,
        Some("Full") => ScanType::Full,
        other => {
            let found = other.unwrap_or("nothing");
            let message = format!("ScanType: 'Quick' or 'Full' is expected, not '{found}'");
            return Err(ApiError::body(message));
        }
    };
    let rules = library::rules(state, &call.caller.tenant.to_string()).await?;
    let command = Command::RunAntiVirusScan { scan_type, rules };
    let mut wanted = Wanted::new("RunAntiVirusScan", &body, command);
    wanted.scope = Some(format!("{scan_type:?}"));
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/collectInvestigationPackage`
pub async fn collect_package(state: &State, call: Call) -> Result<Response, ApiError> {
    let command = Command::CollectInvestigationPackage {};
    let wanted = Wanted::new("CollectInvestigationPackage", &body(&call)?, command);
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/offboard`
pub async fn offboard(state: &State, call: Call) -> Result<Response, ApiError> {
    let wanted = Wanted::new("Offboard", &body(&call)?, Command::Offboard {});
    give(state, call, wanted).await
}

/// `POST /api/machines/{id}/StopAndQuarantineFile`
pub async fn stop_and_quarantine(state: &State, call: Call) -> Result<Response, ApiError> {
    let body = body(&call)?;
    let sha1 = body.sha1.clone().unwrap_or_default().to_lowercase();
    if sha1.len() != 40 || !sha1.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!("Hash value {sha1} is invalid");
        return Err(ApiError::new(400, "InvalidHashValue", message));
    }
    let tenant = call.caller.tenant;
    let machine = machines::visible(state, &call, &call.parameters[0]).await?;
    let machine = machine["id"].as_str().unwrap_or_default();
    let known_paths = whereabouts::paths(state, tenant, machine, &sha1).await?;
    let command = Command::StopAndQuarantineFile { sha1: sha1.clone(), known_paths };
    let mut wanted = Wanted::new("StopAndQuarantineFile", &body, command);
    wanted.related_sha1 = Some(sha1);
    give(state, call, wanted).await
}

fn body(call: &Call) -> Result<Body, ApiError> {
    let body: Body = call.json()?;
    if body.comment.trim().is_empty() {
        return Err(ApiError::body("Comment: a comment is expected"));
    }
    Ok(body)
}

/// Writes the action and wakes the machine's sensor.
pub async fn give(state: &State, call: Call, wanted: Wanted) -> Result<Response, ApiError> {
    store::expire(state).await?;
    let tenant = call.caller.tenant;
    let machine = machines::visible(state, &call, &call.parameters[0]).await?;
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let new = NewAction {
        tenant,
        machine: text("id"),
        machine_name: text("computerDnsName"),
        kind: wanted.kind,
        scope: wanted.scope,
        requestor: call.actor(),
        app_id: Some(call.caller.app_id),
        comment: wanted.comment,
        command: wanted.command,
        related_sha1: wanted.related_sha1,
        external_id: wanted.external_id,
        commands: wanted.commands,
        investigation: None,
    };
    let mut transaction = state.database.begin().await?;
    let id = store::insert(&mut transaction, state.now(), &new).await?;
    transaction.commit().await?;
    state.waiting.wake(&new.machine);
    state.publish.notify_one();
    let entity = load(state, &call, &id.to_string()).await?;
    let status = call.operation.success_status.unwrap_or(201);
    Ok(json(status, &COLLECTION.entity(&call, entity)))
}

/// The permission that an action of a type needs, also to be cancelled.
fn permission(kind: &str) -> &'static str {
    match kind {
        "Isolate" | "Unisolate" => "Machine.Isolate",
        "RestrictCodeExecution" | "UnrestrictCodeExecution" => "Machine.RestrictExecution",
        "RunAntiVirusScan" => "Machine.Scan",
        "CollectInvestigationPackage" => "Machine.CollectForensics",
        "Offboard" => "Machine.Offboard",
        "StopAndQuarantineFile" => "Machine.StopAndQuarantine",
        _ => "Machine.LiveResponse",
    }
}

/// `POST /api/machineactions/{id}/cancel`; needs the permission of the action's own type.
pub async fn cancel(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: CancelBody = if call.body.is_empty() { CancelBody::default() } else { call.json()? };
    store::expire(state).await?;
    let action = load(state, &call, &call.parameters[0]).await?;
    let text = |name: &str| action[name].as_str().unwrap_or_default();
    let needed = permission(text("type"));
    let held = call.caller.user.as_ref().map_or(&call.caller.roles, |user| &user.scopes);
    if !held.iter().any(|permission| permission == needed) {
        let message = format!("Missing application roles. API required roles: {needed}");
        return Err(ApiError::new(403, "Forbidden", message));
    }
    let (id, machine) = (text("id"), text("machineId"));
    let by = call.actor();
    store::cancel(state, machine, id, &by, body.comment.as_deref()).await?;
    state.waiting.wake(machine);
    let entity = load(state, &call, id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}
