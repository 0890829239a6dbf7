//! Automated investigations: the entities of alerts are looked for on every machine that saw them.
//!
//! One is started by hand for a machine, or, where the tenant's settings say so, by itself for a new
//! alert. It gives an order to each machine, judges what is found, has removed what may be, and is at
//! its end when all of that is.
//!
//! | module | holds |
//! |---|---|
//! | [`entities`] | what is looked for |
//! | [`verdicts`] | what is thought of a finding, and what is removed without asking |
//! | [`progress`] | the way from an alert to the end |
//! | [`store`] | the tables |

mod entities;
mod progress;
mod store;
mod verdicts;

pub use entities::can_look_for;
pub use progress::run;
pub use store::INVESTIGATIONS;

use super::alerts::{self, NewAlert, Source};
use super::{machine_actions, machines, optional_time, scope, whereabouts};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use store::NewInvestigation;
use vigie_contract::sensor::InvestigatedEntities;
use vigie_database::Row;

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
    progress::advance_all(state, call.caller.tenant).await?;
    let mut query = COLLECTION.query(&call, Some(&tenant))?;
    scope::restrict(&mut query, &call, "t.machine");
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

/// `GET /api/investigations/{id}`, by its number or by the alert that started it.
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let tenant = call.caller.tenant.to_string();
    progress::advance_all(state, call.caller.tenant).await?;
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
    let all = entities::of_evidence(&evidence);
    let mut looked = InvestigatedEntities::default();
    let mut rounds = Vec::new();
    loop {
        let wanted = entities::round(&entities::minus(&all, &looked), &evidence);
        // Without anything to look for there is one round, too: the machine has its say.
        if !rounds.is_empty() && entities::is_empty(&wanted) {
            break;
        }
        let mut tasks = vec![progress::task(machine.clone(), name.clone(), &wanted, &[])];
        for seen in whereabouts::machines(state, tenant, &wanted.sha1).await? {
            if seen.machine == machine {
                tasks[0] = progress::task(machine.clone(), name.clone(), &wanted, &seen.paths);
            } else if machines::visible(state, &call, &seen.machine).await.is_ok() {
                tasks.push(progress::task(seen.machine, seen.machine_name, &wanted, &seen.paths));
            }
        }
        looked = entities::union(&looked, &wanted);
        rounds.push((looked.clone(), tasks));
    }

    let now = state.now();
    let requestor = call.actor();
    let description =
        format!("{requestor} started an investigation of this machine: {}", body.comment);
    let alert = NewAlert {
        tenant,
        machine: &machine,
        machine_name: &name,
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
    let mut transaction = alerts::write(state).await?;
    let alert = alerts::raise(&mut transaction, now, &alert).await?;
    let new = NewInvestigation {
        tenant,
        machine: &machine,
        machine_name: &name,
        alert: &alert,
        requestor: &requestor,
        comment: &body.comment,
        app: Some(call.caller.app_id),
    };
    let number = store::insert(&mut transaction, now, &new).await?;
    alerts::join(&mut transaction, now, &alert, number).await?;
    for (round, (looked, tasks)) in (0..).zip(&rounds) {
        store::add_round(&mut transaction, number, round, looked, tasks).await?;
    }
    transaction.commit().await?;
    state.publish.notify_one();
    progress::advance_all(state, tenant).await?;
    let entity = load(state, &tenant.to_string(), &alert).await?;
    Ok(json(201, &COLLECTION.entity(&call, entity)))
}
