//! Alerts: listed and changed; raised by reference to an event or by detections; their rows for
//! hunting.

mod by_reference;
mod change;
mod evidence;
mod investigated;
mod raise;
mod related;

pub use by_reference::create_by_reference;
pub use change::{update, update_many};
pub use investigated::{
    Queued, are_resolved, count_of_investigation, evidence_of_investigation, join, leave, queued,
    set_state,
};
pub use raise::{NewAlert, Source, add_events, publish, queue_rows, raise};
pub use related::{
    domains, files, ips, machine, of_domain, of_file, of_ip, of_machine, of_user, user,
};

use super::{optional_time, scope, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Counted, Property, Query, TEXTS, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use vigie_database::{Migrations, Row, Transaction};

pub const ALERTS: Migrations = Migrations {
    feature: "alerts",
    steps: &[
        "
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
",
        "
ALTER TABLE alerts DROP COLUMN evidence;
ALTER TABLE alerts ADD COLUMN related_user TEXT;
ALTER TABLE alerts ADD COLUMN related_domain TEXT;
ALTER TABLE alerts ADD COLUMN logged_on_users TEXT NOT NULL DEFAULT '[]';
ALTER TABLE alerts ADD COLUMN investigation BIGINT;
ALTER TABLE alerts ADD COLUMN investigation_state TEXT NOT NULL DEFAULT 'UnsupportedAlertType';
CREATE INDEX alerts_created ON alerts (tenant, created DESC, id, status, severity, category);
CREATE INDEX alerts_updated ON alerts (tenant, updated);
CREATE INDEX alerts_incident ON alerts (tenant, incident);
CREATE INDEX alerts_machine ON alerts (machine, status);
",
        evidence::TABLE,
        investigated::INDEXES,
        "
DROP INDEX alerts_updated;
CREATE INDEX alerts_updated ON alerts (tenant, updated, created DESC, id);
CREATE INDEX alerts_status ON alerts (tenant, status, created DESC, id, severity, category);
CREATE TABLE alert_counts (
    tenant TEXT NOT NULL, seconds BIGINT NOT NULL, began BIGINT NOT NULL, number BIGINT NOT NULL,
    PRIMARY KEY (tenant, seconds, began));
INSERT INTO alert_counts (tenant, seconds, began, number)
    SELECT tenant, 86400, created - created % 86400000000, COUNT(*) FROM alerts GROUP BY 1, 3;
INSERT INTO alert_counts (tenant, seconds, began, number)
    SELECT tenant, 60, created - created % 60000000, COUNT(*) FROM alerts GROUP BY 1, 3;
",
        "
DROP TABLE alert_counts;
CREATE TABLE alert_counts (
    tenant TEXT NOT NULL, seconds BIGINT NOT NULL, began BIGINT NOT NULL, severity TEXT NOT NULL,
    status TEXT NOT NULL, number BIGINT NOT NULL,
    PRIMARY KEY (tenant, seconds, began, severity, status));
INSERT INTO alert_counts (tenant, seconds, began, severity, status, number)
    SELECT tenant, 86400, created - created % 86400000000, severity, status, COUNT(*) FROM alerts
    GROUP BY 1, 3, 4, 5;
INSERT INTO alert_counts (tenant, seconds, began, severity, status, number)
    SELECT tenant, 60, created - created % 60000000, severity, status, COUNT(*) FROM alerts
    GROUP BY 1, 3, 4, 5;
",
    ],
};

pub const SEVERITIES: &[&str] = &["Informational", "Low", "Medium", "High"];

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const GROUP: &str = "(SELECT m.group_name FROM machines m WHERE m.id = t.machine)";

const COUNTED: Counted =
    Counted { table: "alert_counts", time: "t.created", kinds: &["t.severity", "t.status"] };

pub const COLLECTION: Collection = Collection {
    name: "Alerts",
    from: "alerts t",
    columns: "t.id, t.machine, t.name, t.title, t.description, t.recommended_action, t.severity, \
              t.category, t.status, t.assigned_to, t.classification, t.determination, \
              t.detection_source, t.incident, t.comments, t.created, t.updated, t.resolved, \
              t.first_event, t.last_event, t.tenant, t.techniques, t.detector, t.related_user, \
              t.related_domain, t.logged_on_users, t.investigation, t.investigation_state, \
              (SELECT m.group_name FROM machines m WHERE m.id = t.machine)",
    properties: &[
        property("id", "t.id", Type::Text),
        property("title", "t.title", Type::Text),
        property("description", "t.description", Type::Text),
        property("recommendedAction", "t.recommended_action", Type::Text),
        property("severity", "t.severity", Type::Text),
        property("status", "t.status", Type::Text),
        property("category", "t.category", Type::Text),
        property("assignedTo", "t.assigned_to", Type::Text),
        property("classification", "t.classification", Type::Text),
        property("determination", "t.determination", Type::Text),
        property("detectionSource", "t.detection_source", Type::Text),
        property("detectorId", "t.detector", Type::Guid),
        property("machineId", "t.machine", Type::Guid),
        property("computerDnsName", "t.name", Type::Text),
        property("rbacGroupName", GROUP, Type::Text),
        property("incidentId", "t.incident", Type::Integer),
        property("investigationId", "t.investigation", Type::Integer),
        property("investigationState", "t.investigation_state", Type::Text),
        property("aadTenantId", "t.tenant", Type::Guid),
        property("mitreTechniques", "t.techniques", TEXTS),
        property("alertCreationTime", "t.created", Type::Time),
        property("lastUpdateTime", "t.updated", Type::Time),
        property("firstEventTime", "t.first_event", Type::Time),
        property("lastEventTime", "t.last_event", Type::Time),
        property("resolvedTime", "t.resolved", Type::Time),
        property("evidence", "t.id", Type::Many(&evidence::EVIDENCE)),
    ],
    shown: &[
        "threatFamilyName",
        "threatName",
        "relatedUser",
        "loggedOnUsers",
        "comments",
        "domains",
    ],
    expandable: &["evidence"],
    key: "t.created DESC, t.id",
    never_null: &["t.created", "t.updated", "t.severity", "t.status", "t.incident", "t.machine"],
    counted: Some(COUNTED),
    max_page: 10_000,
};

/// A transaction that raises alerts or changes how they are counted.
pub async fn write(state: &State) -> Result<Transaction, ApiError> {
    Ok(state.database.begin_in_turn("alerts").await?)
}

/// Gives an alert a status, and counts it there. The transaction is one of [`write`].
async fn set_status(
    transaction: &mut Transaction,
    now: i64,
    id: &str,
    status: &str,
) -> Result<(), ApiError> {
    let select = "SELECT tenant, created, severity, status, resolved FROM alerts WHERE id = $1";
    let rows = transaction.read(select, &[id.into()]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (tenant, created, severity) = (row.text(0)?, row.integer(1)?, row.text(2)?);
    let was = row.text(3)?;
    let resolved = match status {
        "Resolved" => Some(row.optional_integer(4)?.unwrap_or(now)),
        _ => None,
    };
    let set = "UPDATE alerts SET status = $1, resolved = $2, updated = $3 WHERE id = $4";
    transaction.execute(set, &[status.into(), resolved.into(), now.into(), id.into()]).await?;
    if was != status {
        COUNTED.change(transaction, tenant, created, &[severity, was], -1).await?;
        COUNTED.change(transaction, tenant, created, &[severity, status], 1).await?;
    }
    Ok(())
}

/// `GET /api/alerts`, newest first. Clients that ask for what changed since the last row that they
/// read get it oldest change first, so that the last row is where they go on.
pub async fn list(state: &State, mut call: Call) -> Result<Response, ApiError> {
    let by_change = |filter: &str| filter.to_ascii_lowercase().contains("lastupdatetime");
    if call.parameter("$orderby").is_none() && call.parameter("$filter").is_some_and(by_change) {
        call.query.push(("$orderby".to_owned(), "lastUpdateTime asc".to_owned()));
    }
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    answer(state, &call, query).await
}

/// The list of a query.
async fn answer(state: &State, call: &Call, mut query: Query) -> Result<Response, ApiError> {
    scope::restrict(&mut query, call, "t.machine");
    let page = COLLECTION.page(state, &query, call).await?;
    let mut entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    if !query.expand.is_empty() {
        expand(state, &mut entities).await?;
    }
    Ok(COLLECTION.respond(call, &query, &page, entities))
}

/// Fills in the evidence.
async fn expand(state: &State, entities: &mut [Json]) -> Result<(), ApiError> {
    let ids: Vec<String> =
        entities.iter().filter_map(|entity| entity["id"].as_str().map(str::to_owned)).collect();
    let mut evidence = evidence::load(&state.database, &ids).await?;
    for (entity, id) in entities.iter_mut().zip(&ids) {
        entity["evidence"] = evidence.remove(id).unwrap_or_default().into();
    }
    Ok(())
}

/// `GET /api/alerts/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let entity = visible(state, &call, &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// One alert with its evidence, if the caller may see its machine.
async fn visible(state: &State, call: &Call, id: &str) -> Result<Json, ApiError> {
    let alert = load(state, &call.caller.tenant.to_string(), id).await?;
    match scope::is_visible(call, &alert) {
        true => Ok(alert),
        false => Err(ApiError::not_found("Alert", id)),
    }
}

async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sql =
        format!("SELECT {} FROM alerts t WHERE t.tenant = $1 AND t.id = $2", COLLECTION.columns);
    let rows = state.database.read(&sql, &[tenant.into(), id.into()]).await?;
    let shown: String = id.chars().take(200).collect();
    let row = rows.first().ok_or_else(|| ApiError::not_found("Alert", &shown))?;
    let mut alert = [entity(row)?];
    expand(state, &mut alert).await?;
    let [alert] = alert;
    Ok(alert)
}

/// An alert without its evidence.
fn entity(row: &Row) -> Result<Json, ApiError> {
    let parsed = |text: &str| serde_json::from_str::<Json>(text).map_err(ApiError::internal);
    let related_user = match row.optional_text(23)? {
        Some(user) => json!({"userName": user, "domainName": row.optional_text(24)?}),
        None => Json::Null,
    };
    Ok(json!({
        "id": row.text(0)?,
        "incidentId": row.integer(13)?,
        "investigationId": row.optional_integer(26)?,
        "assignedTo": row.optional_text(9)?,
        "severity": row.text(6)?,
        "status": row.text(8)?,
        "classification": row.optional_text(10)?,
        "determination": row.optional_text(11)?,
        "investigationState": row.text(27)?,
        "detectionSource": row.text(12)?,
        "detectorId": row.optional_text(22)?,
        "category": row.text(7)?,
        "threatFamilyName": null,
        "title": row.text(3)?,
        "description": row.text(4)?,
        "recommendedAction": row.text(5)?,
        "alertCreationTime": time_text(row.integer(15)?),
        "firstEventTime": optional_time(row.optional_integer(18)?),
        "lastEventTime": optional_time(row.optional_integer(19)?),
        "lastUpdateTime": time_text(row.integer(16)?),
        "resolvedTime": optional_time(row.optional_integer(17)?),
        "machineId": row.text(1)?,
        "computerDnsName": row.text(2)?,
        "rbacGroupName": row.optional_text(28)?,
        "aadTenantId": row.text(20)?,
        "threatName": null,
        "mitreTechniques": parsed(row.text(21)?)?,
        "relatedUser": related_user,
        "loggedOnUsers": parsed(row.text(25)?)?,
        "comments": parsed(row.text(14)?)?,
        "evidence": [],
        "domains": [],
    }))
}

/// The evidence of a machine's alerts that are not resolved.
pub async fn open_evidence(
    state: &State,
    tenant: &str,
    machine: &str,
) -> Result<Vec<Json>, ApiError> {
    let select = "SELECT id FROM alerts WHERE tenant = $1 AND machine = $2 AND \
                  status <> 'Resolved' ORDER BY created DESC LIMIT 100";
    let rows = state.database.read(select, &[tenant.into(), machine.into()]).await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(row.text(0)?.to_owned());
    }
    let mut found = evidence::load(&state.database, &ids).await?;
    Ok(ids.iter().flat_map(|id| found.remove(id).unwrap_or_default()).collect())
}
