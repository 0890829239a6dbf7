//! Alerts: listed, changed, raised by reference to an event of the lake; their rows for hunting.

use super::{machines, optional_time, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_database::{Migrations, Row, Transaction};
use vigie_hunting::lake::Batch;
use vigie_hunting::{Database, Limits};

pub const ALERTS: Migrations = Migrations {
    feature: "alerts",
    steps: &["
CREATE TABLE alerts (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    title TEXT NOT NULL, description TEXT NOT NULL, recommended_action TEXT NOT NULL,
    severity TEXT NOT NULL, category TEXT NOT NULL, status TEXT NOT NULL, assigned_to TEXT,
    classification TEXT, determination TEXT, detection_source TEXT NOT NULL,
    incident BIGINT NOT NULL, comments TEXT NOT NULL, evidence TEXT NOT NULL,
    created BIGINT NOT NULL, updated BIGINT NOT NULL, resolved BIGINT, first_event BIGINT,
    last_event BIGINT);
CREATE TABLE alert_rows (
    number BIGINT PRIMARY KEY, tenant TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE alert_numbers (name TEXT PRIMARY KEY, last BIGINT NOT NULL);
INSERT INTO alert_numbers (name, last) VALUES ('row', 0), ('incident', 0);
"],
};

const SEVERITIES: &[&str] = &["Informational", "Low", "Medium", "High"];
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
              t.first_event, t.last_event, t.tenant",
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
    key: "t.created DESC, t.id",
    max_page: 10_000,
};

/// `GET /api/alerts`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    for name in &query.expand {
        if name != "evidence" {
            return Err(ApiError::odata(format!("'{name}' cannot be expanded.")));
        }
    }
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
    let evidence = if with_evidence { parsed(row.text(15)?)? } else { json!([]) };
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
        "detectorId": null,
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
        "mitreTechniques": [],
        "relatedUser": null,
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceBody {
    #[serde(alias = "MachineId")]
    machine_id: String,
    #[serde(alias = "Severity")]
    severity: String,
    #[serde(alias = "Title")]
    title: String,
    #[serde(alias = "Description")]
    description: String,
    #[serde(alias = "RecommendedAction")]
    recommended_action: String,
    #[serde(alias = "EventTime")]
    event_time: chrono::DateTime<chrono::Utc>,
    #[serde(alias = "ReportId")]
    report_id: Json,
    #[serde(alias = "Category")]
    category: String,
}

/// Tables whose events an alert may refer to.
const REFERABLE: &[&str] = &[
    "DeviceProcessEvents",
    "DeviceNetworkEvents",
    "DeviceFileEvents",
    "DeviceLogonEvents",
    "DeviceRegistryEvents",
    "DeviceImageLoadEvents",
    "DeviceEvents",
];

/// `POST /api/alerts/createAlertByReference`: the event must be in the lake.
pub async fn create_by_reference(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ReferenceBody = call.json()?;
    one_of("severity", Some(&body.severity), SEVERITIES)?;
    let tenant = call.caller.tenant;
    let machine = machines::load(state, &tenant.to_string(), &body.machine_id).await?;
    let machine_id = machine["id"].as_str().unwrap_or_default().to_owned();
    let report_id = match &body.report_id {
        Json::String(text) => text.parse::<i64>().ok(),
        other => other.as_i64(),
    };
    let report_id = report_id.ok_or_else(|| ApiError::body("reportId: a number is expected"))?;
    let event = find_event(state, tenant, &machine_id, report_id, body.event_time).await?;
    let event = event.ok_or_else(|| {
        let id = format!("{report_id} of {machine_id} at {}", body.event_time.to_rfc3339());
        ApiError::not_found("Event", &id)
    })?;
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let incident = next_number(&mut transaction, "incident").await?;
    let id = format!("da{}_{}", Uuid::new_v4().simple(), report_id);
    let at = body.event_time.timestamp_micros();
    let insert = "INSERT INTO alerts (id, tenant, machine, name, title, description, \
        recommended_action, severity, category, status, detection_source, incident, comments, \
        evidence, created, updated, first_event, last_event) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
        $9, 'New', 'CustomerTI', $10, '[]', $11, $12, $12, $13, $13)";
    let evidence = json!([evidence_of(&event, now)]);
    let name = machine["computerDnsName"].as_str().unwrap_or_default();
    let values = [
        id.as_str().into(),
        tenant.to_string().into(),
        machine_id.as_str().into(),
        name.into(),
        body.title.as_str().into(),
        body.description.as_str().into(),
        body.recommended_action.as_str().into(),
        body.severity.as_str().into(),
        body.category.as_str().into(),
        incident.into(),
        evidence.to_string().into(),
        now.into(),
        at.into(),
    ];
    transaction.execute(insert, &values).await?;
    let number = next_number(&mut transaction, "row").await?;
    let rows = json!({"tables": {
        "AlertInfo": [{
            "Timestamp": time_text(now), "AlertId": id, "Title": body.title,
            "Category": body.category, "Severity": body.severity,
            "ServiceSource": "Microsoft Defender for Endpoint", "DetectionSource": "Custom TI",
        }],
        "AlertEvidence": [{
            "Timestamp": time_text(now), "AlertId": id, "Title": body.title,
            "ServiceSource": "Microsoft Defender for Endpoint", "EntityType": "Machine",
            "EvidenceRole": "Impacted", "DeviceId": machine_id, "DeviceName": name,
        }],
    }});
    let insert = "INSERT INTO alert_rows (number, tenant, body) VALUES ($1, $2, $3)";
    let values = [number.into(), tenant.to_string().into(), rows.to_string().into()];
    transaction.execute(insert, &values).await?;
    transaction.commit().await?;
    state.publish.notify_one();
    let entity = load(state, &tenant.to_string(), &id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

async fn next_number(transaction: &mut Transaction, name: &str) -> Result<i64, ApiError> {
    let add = "UPDATE alert_numbers SET last = last + 1 WHERE name = $1";
    transaction.execute(add, &[name.into()]).await?;
    let select = "SELECT last FROM alert_numbers WHERE name = $1";
    let rows = transaction.read(select, &[name.into()]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.integer(0))?)
}

/// The event of a machine with that report id at that time, to the second.
async fn find_event(
    state: &State,
    tenant: Uuid,
    machine: &str,
    report_id: i64,
    time: chrono::DateTime<chrono::Utc>,
) -> Result<Option<Json>, ApiError> {
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let database = Database::Lake { lake: state.lake.clone(), tenant };
    for table in REFERABLE {
        let query = format!(
            "{table} | where DeviceId == '{machine}' and ReportId == {report_id} and Timestamp \
             between (datetime({time}) - 1s .. datetime({time}) + 1s) | take 1"
        );
        let result = state.engine.run(&database, &query, &Limits::default()).await;
        let result = result.map_err(ApiError::internal)?;
        if let Some(found) = result.tables.first().filter(|table| table.rows() > 0) {
            let mut text = Vec::new();
            found.write_json_lines(&mut text).map_err(ApiError::internal)?;
            return Ok(serde_json::from_slice(&text).ok());
        }
    }
    Ok(None)
}

/// The event as evidence of an alert.
fn evidence_of(event: &Json, now: i64) -> Json {
    let or_null = |name: &str| match &event[name] {
        Json::String(text) if text.is_empty() => Json::Null,
        value => value.clone(),
    };
    let has_process = !event["ProcessId"].is_null();
    let entity = if has_process { "Process" } else { "Ip" };
    json!({
        "entityType": entity,
        "evidenceCreationTime": time_text(now),
        "sha1": or_null("SHA1"),
        "sha256": or_null("SHA256"),
        "fileName": or_null("FileName"),
        "filePath": or_null("FolderPath"),
        "processId": event["ProcessId"],
        "processCommandLine": or_null("ProcessCommandLine"),
        "processCreationTime": or_null("ProcessCreationTime"),
        "parentProcessId": event["InitiatingProcessId"],
        "parentProcessFileName": or_null("InitiatingProcessFileName"),
        "ipAddress": or_null("RemoteIP"),
        "accountName": or_null("AccountName"),
        "domainName": or_null("AccountDomain"),
        "detectionStatus": "Detected",
    })
}

/// Brings rows of alerts to the lake until the server stops: written with the alert in one
/// transaction, numbered, so that none is lost and none stored twice.
pub async fn publish(state: State) {
    loop {
        if let Err(error) = publish_once(&state).await {
            tracing::error!(error = error.message, "rows of alerts are published later");
        }
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = state.publish.notified() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(10)) => {}
        }
    }
}

async fn publish_once(state: &State) -> Result<(), ApiError> {
    let select = "SELECT number, tenant, body FROM alert_rows ORDER BY number LIMIT 100";
    for row in state.database.read(select, &[]).await? {
        let number = row.integer(0)?;
        let batch = Batch {
            tenant: Uuid::try_parse(row.text(1)?).map_err(ApiError::internal)?,
            source: "alerts".to_owned(),
            sequence: number.unsigned_abs(),
            constants: Vec::new(),
            body: row.text(2)?.to_owned().into(),
        };
        state.lake.append(batch).await.map_err(ApiError::internal)?;
        let delete = "DELETE FROM alert_rows WHERE number = $1";
        state.database.execute(delete, &[number.into()]).await?;
    }
    Ok(())
}
