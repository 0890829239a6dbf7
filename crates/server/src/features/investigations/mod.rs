//! Automated investigations: the entities of a machine's alerts are looked for on every machine that
//! saw them.
//!
//! An investigation gives one order to each machine and is at its end when all of those are. What was
//! found and belongs to no installed package waits for a person (`PendingApproval`).

mod entities;

use super::alerts::{self, NewAlert, Source};
use super::machine_actions::{self, Investigated, NewAction, ORDERS_INVESTIGATE};
use super::{machines, optional_time, scope, whereabouts};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_contract::sensor::Command;
use vigie_database::{Migrations, Row};

pub const INVESTIGATIONS: Migrations = Migrations {
    feature: "investigations",
    steps: &["
CREATE TABLE investigations (
    number BIGINT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, details TEXT, alert TEXT NOT NULL, started BIGINT NOT NULL, ended BIGINT);
CREATE TABLE investigation_numbers (last BIGINT NOT NULL);
INSERT INTO investigation_numbers (last) VALUES (0);
"],
};

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const COLLECTION: Collection = Collection {
    name: "Investigations",
    from: "investigations t",
    columns: "t.number, t.started, t.ended, t.state, t.details, t.machine, t.name, t.alert",
    properties: &[
        property("id", "CAST(t.number AS TEXT)", Type::Text),
        property("startTime", "t.started", Type::Time),
        property("state", "t.state", Type::Text),
        property("machineId", "t.machine", Type::Text),
        property("triggeringAlertId", "t.alert", Type::Text),
    ],
    shown: &["endTime", "cancelledBy", "statusDetails", "computerDnsName"],
    expandable: &[],
    key: "t.number DESC",
    never_null: &[],
    counted: None,
    max_page: 10_000,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    comment: String,
}

/// `GET /api/investigations`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let tenant = call.caller.tenant.to_string();
    advance(state, &tenant).await?;
    let mut query = COLLECTION.query(&call, Some(&tenant))?;
    scope::restrict(&mut query, &call, "t.machine");
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

/// `GET /api/investigations/{id}`, by its number or by the alert that started it.
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let tenant = call.caller.tenant.to_string();
    advance(state, &tenant).await?;
    let id = &call.parameters[0];
    let entity = load(state, &tenant, id).await?;
    let machine = entity["machineId"].as_str().unwrap_or_default();
    if machines::visible(state, &call, machine).await.is_err() {
        return Err(ApiError::not_found("Investigation", id));
    }
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let select = format!(
        "SELECT {} FROM investigations t WHERE t.tenant = $1 AND \
         (CAST(t.number AS TEXT) = $2 OR t.alert = $2)",
        COLLECTION.columns
    );
    let rows = state.database.read(&select, &[tenant.into(), id.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Investigation", id))?;
    entity(row)
}

fn entity(row: &Row) -> Result<Json, ApiError> {
    Ok(json!({
        "id": row.integer(0)?.to_string(),
        "startTime": optional_time(Some(row.integer(1)?)),
        "endTime": optional_time(row.optional_integer(2)?),
        "state": row.text(3)?,
        "cancelledBy": null,
        "statusDetails": row.optional_text(4)?,
        "machineId": row.text(5)?,
        "computerDnsName": row.text(6)?,
        "triggeringAlertId": row.text(7)?,
    }))
}

/// `POST /api/machines/{id}/startInvestigation`
pub async fn start(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: Body = call.json()?;
    if body.comment.trim().is_empty() {
        return Err(ApiError::body("Comment: a comment is expected"));
    }
    machine_actions::expire(state).await?;
    let tenant = call.caller.tenant;
    let machine = machines::visible(state, &call, &call.parameters[0]).await?;
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let (machine, name) = (text("id"), text("computerDnsName"));
    let evidence = alerts::open_evidence(state, &tenant.to_string(), &machine).await?;
    let entities = entities::of_evidence(&evidence);
    let mut others = whereabouts::machines(state, tenant, &entities.sha1).await?;
    others.retain(|(other, _)| *other != machine);
    let mut visible = Vec::with_capacity(others.len());
    for other in others {
        if machines::visible(state, &call, &other.0).await.is_ok() {
            visible.push(other);
        }
    }

    let requestor = call.actor();
    let (number, alert) =
        insert(state, tenant, (&machine, &name), &requestor, &body.comment).await?;
    for (machine, machine_name) in std::iter::once((machine, name)).chain(visible) {
        let new = NewAction {
            tenant,
            machine: machine.clone(),
            machine_name,
            kind: ORDERS_INVESTIGATE,
            scope: None,
            requestor: requestor.clone(),
            app_id: Some(call.caller.app_id),
            comment: body.comment.clone(),
            command: Command::Investigate { entities: entities.clone() },
            related_sha1: None,
            external_id: None,
            commands: None,
            investigation: Some(number.to_string()),
        };
        let mut transaction = state.database.begin().await?;
        match machine_actions::insert(&mut transaction, state.now(), &new).await {
            Ok(_) => transaction.commit().await?,
            // Another investigation is at work there and finds the same.
            Err(error) if error.code == "ActiveRequestAlreadyExists" => {
                tracing::info!(machine, number, "an investigation runs on this machine already");
            }
            Err(error) => return Err(error),
        }
        state.waiting.wake(&machine);
    }
    state.publish.notify_one();
    advance(state, &tenant.to_string()).await?;
    let entity = load(state, &tenant.to_string(), &alert).await?;
    Ok(json(201, &COLLECTION.entity(&call, entity)))
}

/// Writes the investigation and the alert that stands for it; number and the alert's id.
async fn insert(
    state: &State,
    tenant: Uuid,
    (machine, name): (&str, &str),
    requestor: &str,
    comment: &str,
) -> Result<(i64, String), ApiError> {
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let description = format!("{requestor} started an investigation of this machine: {comment}");
    let alert = NewAlert {
        tenant,
        machine,
        machine_name: name,
        title: "Automated investigation started manually",
        description: &description,
        recommended_action: "See the investigation's findings.",
        severity: "Informational",
        category: "SuspiciousActivity",
        techniques: &[],
        source: Source::AutomatedInvestigation,
        detector: None,
        events: &[],
        first_event: now,
        last_event: now,
    };
    let alert = alerts::raise(&mut transaction, now, &alert).await?;
    transaction.execute("UPDATE investigation_numbers SET last = last + 1", &[]).await?;
    let rows = transaction.read("SELECT last FROM investigation_numbers", &[]).await?;
    let number = rows.first().map_or(Ok(0), |row| row.integer(0))?;
    let insert = "INSERT INTO investigations (number, tenant, machine, name, state, alert, started) \
                  VALUES ($1, $2, $3, $4, 'Running', $5, $6)";
    let values = [
        number.into(),
        tenant.to_string().into(),
        machine.into(),
        name.into(),
        alert.as_str().into(),
        now.into(),
    ];
    transaction.execute(insert, &values).await?;
    transaction.commit().await?;
    Ok((number, alert))
}

/// Ends the investigations of a tenant whose orders are all at their end.
async fn advance(state: &State, tenant: &str) -> Result<(), ApiError> {
    machine_actions::expire(state).await?;
    let select = "SELECT number FROM investigations WHERE tenant = $1 AND state = 'Running'";
    for row in state.database.read(select, &[tenant.into()]).await? {
        let number = row.integer(0)?;
        let orders = machine_actions::orders_of_investigation(state, &number.to_string()).await?;
        let open = |order: &Investigated| matches!(&*order.status, "Pending" | "InProgress");
        if orders.iter().any(open) {
            continue;
        }
        let (name, details) = outcome(&orders);
        let ended = orders.iter().map(|order| order.updated).max().unwrap_or(state.now());
        let update = "UPDATE investigations SET state = $1, details = $2, ended = $3 \
                      WHERE number = $4 AND state = 'Running'";
        let values = [name.into(), details.into(), ended.into(), number.into()];
        state.database.execute(update, &values).await?;
    }
    Ok(())
}

/// State and details of an investigation whose orders have ended.
fn outcome(orders: &[Investigated]) -> (&'static str, String) {
    let succeeded = orders.iter().filter(|order| order.status == "Succeeded").count();
    let mut details = format!("{succeeded} of {} machines were looked at.", orders.len());
    for order in orders.iter().filter(|order| order.status != "Succeeded") {
        let error = order.error.as_deref().unwrap_or("no reason was given");
        details.push_str(&format!(" {}: {}: {error}.", order.machine_name, order.status));
    }
    let mut suspicious = 0;
    for order in orders {
        for finding in &order.findings {
            let verdict = match &finding.package {
                Some(package) => format!("clean, part of the package {package}"),
                None => {
                    suspicious += 1;
                    "suspicious".to_owned()
                }
            };
            details.push_str(&format!(
                " {}: {} {} ({}): {verdict}.",
                order.machine_name, finding.kind, finding.place, finding.entity
            ));
        }
    }
    let state = match (succeeded, suspicious) {
        (0, _) => "Failed",
        (_, 1..) => "PendingApproval",
        _ if succeeded < orders.len() => "PartiallyInvestigated",
        _ => "Benign",
    };
    (state, details)
}
