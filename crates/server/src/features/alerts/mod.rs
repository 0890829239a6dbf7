//! Alerts: listed and changed; raised by reference to an event or by detections; their rows for
//! hunting.

mod by_reference;
mod evidence;
mod raise;

pub use by_reference::create_by_reference;
pub use raise::{NewAlert, Source, add_events, publish, queue_rows, raise};

use super::{optional_time, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use vigie_database::{Migrations, Row};

pub const ALERTS: Migrations = Migrations {
    feature: "alerts",
    steps: &["
CREATE TABLE alerts (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    title TEXT NOT NULL, description TEXT NOT NULL, recommended_action TEXT NOT NULL,
    severity TEXT NOT NULL, category TEXT NOT NULL, status TEXT NOT NULL, assigned_to TEXT,
    classification TEXT, determination TEXT, detection_source TEXT NOT NULL,
    incident BIGINT NOT NULL, techniques TEXT NOT NULL, comments TEXT NOT NULL,
    evidence TEXT NOT NULL, detector TEXT,
    created BIGINT NOT NULL, updated BIGINT NOT NULL, resolved BIGINT, first_event BIGINT,
    last_event BIGINT);
CREATE TABLE alert_rows (
    number BIGINT PRIMARY KEY, tenant TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE alert_numbers (name TEXT PRIMARY KEY, last BIGINT NOT NULL);
INSERT INTO alert_numbers (name, last) VALUES ('row', 0), ('incident', 0);
"],
};

pub const SEVERITIES: &[&str] = &["Informational", "Low", "Medium", "High"];
const STATUSES: &[&str] = &["New", "InProgress", "Resolved"];
const CLASSIFICATIONS: &[&str] =
    &["TruePositive", "InformationalExpectedActivity", "FalsePositive"];
const DETERMINATIONS: &[&str] = &[
    "MultiStagedAttack",
    "MaliciousUserActivity",
    "CompromisedUser",
    "Malware",
    "Phishing",
    "UnwantedSoftware",
    "Other",
    "SecurityTesting",
    "LineOfBusinessApplication",
    "ConfirmedUserActivity",
    "ConfirmedActivity",
    "Clean",
    "NotMalicious",
    "InsufficientData",
];

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const COLLECTION: Collection = Collection {
    name: "Alerts",
    from: "alerts t",
    columns: "t.id, t.machine, t.name, t.title, t.description, t.recommended_action, t.severity, \
              t.category, t.status, t.assigned_to, t.classification, t.determination, \
              t.detection_source, t.incident, t.comments, t.evidence, t.created, t.updated, t.resolved, \
              t.first_event, t.last_event, t.tenant, t.techniques, t.detector",
    properties: &[
        property("id", "t.id", Type::Text),
        property("title", "t.title", Type::Text),
        property("severity", "t.severity", Type::Text),
        property("status", "t.status", Type::Text),
        property("category", "t.category", Type::Text),
        property("assignedTo", "t.assigned_to", Type::Text),
        property("classification", "t.classification", Type::Text),
        property("determination", "t.determination", Type::Text),
        property("detectionSource", "t.detection_source", Type::Text),
        property("machineId", "t.machine", Type::Text),
        property("computerDnsName", "t.name", Type::Text),
        property("incidentId", "t.incident", Type::Integer),
        property("alertCreationTime", "t.created", Type::Time),
        property("lastUpdateTime", "t.updated", Type::Time),
        property("firstEventTime", "t.first_event", Type::Time),
        property("lastEventTime", "t.last_event", Type::Time),
    ],
    shown: &[
        "investigationId",
        "investigationState",
        "detectorId",
        "threatFamilyName",
        "description",
        "recommendedAction",
        "resolvedTime",
        "rbacGroupName",
        "aadTenantId",
        "threatName",
        "mitreTechniques",
        "relatedUser",
        "loggedOnUsers",
        "comments",
        "evidence",
        "domains",
    ],
    expandable: &["evidence"],
    key: "t.created DESC, t.id",
    max_page: 10_000,
};

/// `GET /api/alerts`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    let with_evidence = !query.expand.is_empty();
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(|row| entity(row, with_evidence));
    let entities = entities.collect::<Result<Vec<_>, _>>()?;
    Ok(json(200, &COLLECTION.answer(&call, &query, &page, entities)))
}

/// `GET /api/alerts/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let entity = load(state, &call.caller.tenant.to_string(), &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sql =
        format!("SELECT {} FROM alerts t WHERE t.tenant = $1 AND t.id = $2", COLLECTION.columns);
    let rows = state.database.read(&sql, &[tenant.into(), id.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Alert", id))?;
    entity(row, true)
}

fn entity(row: &Row, with_evidence: bool) -> Result<Json, ApiError> {
    let parsed = |text: &str| serde_json::from_str::<Json>(text).map_err(ApiError::internal);
    let comments = parsed(row.text(14)?)?;
    let evidence = parsed(row.text(15)?)?;
    let techniques = parsed(row.text(22)?)?;
    let user = evidence.as_array().into_iter().flatten().find(|e| e["entityType"] == "User");
    let related_user = user.map_or(
        Json::Null,
        |user| json!({"userName": user["accountName"], "domainName": user["domainName"]}),
    );
    let evidence = if with_evidence { evidence } else { json!([]) };
    Ok(json!({
        "id": row.text(0)?,
        "incidentId": row.integer(13)?,
        "investigationId": null,
        "assignedTo": row.optional_text(9)?,
        "severity": row.text(6)?,
        "status": row.text(8)?,
        "classification": row.optional_text(10)?,
        "determination": row.optional_text(11)?,
        "investigationState": "UnsupportedAlertType",
        "detectionSource": row.text(12)?,
        "detectorId": row.optional_text(23)?,
        "category": row.text(7)?,
        "threatFamilyName": null,
        "title": row.text(3)?,
        "description": row.text(4)?,
        "recommendedAction": row.text(5)?,
        "alertCreationTime": time_text(row.integer(16)?),
        "firstEventTime": optional_time(row.optional_integer(19)?),
        "lastEventTime": optional_time(row.optional_integer(20)?),
        "lastUpdateTime": time_text(row.integer(17)?),
        "resolvedTime": optional_time(row.optional_integer(18)?),
        "machineId": row.text(1)?,
        "computerDnsName": row.text(2)?,
        "rbacGroupName": null,
        "aadTenantId": row.text(21)?,
        "threatName": null,
        "mitreTechniques": techniques,
        "relatedUser": related_user,
        "loggedOnUsers": [],
        "comments": comments,
        "evidence": evidence,
        "domains": [],
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateBody {
    #[serde(alias = "Status")]
    status: Option<String>,
    #[serde(alias = "AssignedTo")]
    assigned_to: Option<String>,
    #[serde(alias = "Classification")]
    classification: Option<String>,
    #[serde(alias = "Determination")]
    determination: Option<String>,
    #[serde(alias = "Comment")]
    comment: Option<String>,
}

/// `PATCH /api/alerts/{id}`
pub async fn update(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: UpdateBody = call.json()?;
    one_of("status", body.status.as_deref(), STATUSES)?;
    one_of("classification", body.classification.as_deref(), CLASSIFICATIONS)?;
    one_of("determination", body.determination.as_deref(), DETERMINATIONS)?;
    let (tenant, id) = (call.caller.tenant.to_string(), call.parameters[0].clone());
    load(state, &tenant, &id).await?;
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let columns = [
        ("status", &body.status),
        ("assigned_to", &body.assigned_to),
        ("classification", &body.classification),
        ("determination", &body.determination),
    ];
    for (column, value) in columns {
        if let Some(value) = value {
            let set = format!("UPDATE alerts SET {column} = $1, updated = $2 WHERE id = $3");
            let values = [value.as_str().into(), now.into(), id.as_str().into()];
            transaction.execute(&set, &values).await?;
        }
    }
    if body.status.as_deref() == Some("Resolved") {
        let set = "UPDATE alerts SET resolved = $1 WHERE id = $2 AND resolved IS NULL";
        transaction.execute(set, &[now.into(), id.as_str().into()]).await?;
    }
    if let Some(comment) = &body.comment {
        let select = "SELECT comments FROM alerts WHERE id = $1";
        let rows = transaction.read(select, &[id.as_str().into()]).await?;
        let text = rows.first().map_or(Ok("[]"), |row| row.text(0))?;
        let mut comments: Vec<Json> = serde_json::from_str(text).map_err(ApiError::internal)?;
        comments.push(json!({
            "comment": comment, "createdBy": call.caller.app_name, "createdTime": time_text(now),
        }));
        let set = "UPDATE alerts SET comments = $1, updated = $2 WHERE id = $3";
        let values = [json!(comments).to_string().into(), now.into(), id.as_str().into()];
        transaction.execute(set, &values).await?;
    }
    transaction.commit().await?;
    let entity = load(state, &tenant, &id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

fn one_of(name: &str, value: Option<&str>, allowed: &[&str]) -> Result<(), ApiError> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            let allowed = allowed.join(", ");
            Err(ApiError::body(format!("{name}: '{value}' is not one of {allowed}")))
        }
        _ => Ok(()),
    }
}

/// The evidence of a machine's alerts that are not resolved.
pub async fn open_evidence(
    state: &State,
    tenant: &str,
    machine: &str,
) -> Result<Vec<Json>, ApiError> {
    let select = "SELECT evidence FROM alerts WHERE tenant = $1 AND machine = $2 AND \
                  status <> 'Resolved' ORDER BY created DESC LIMIT 100";
    let mut all = Vec::new();
    for row in state.database.read(select, &[tenant.into(), machine.into()]).await? {
        let evidence: Vec<Json> = serde_json::from_str(row.text(0)?).map_err(ApiError::internal)?;
        all.extend(evidence);
    }
    Ok(all)
}
