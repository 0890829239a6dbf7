//! Machine actions: orders to sensors and what became of them.
//!
//! | module | holds |
//! |---|---|
//! | [`request`] | the operations that give orders, and cancelling |
//! | [`live_response`] | live response sessions |
//! | [`delivery`] | orders on their way to sensors, and sensors' answers |
//! | [`uploads`] | what sensors send: packages, transcripts, files |
//! | [`links`] | signed links to download it |
//! | [`store`] | the tables and every change of an action's state |
//! | [`trail`] | who did what: the log of orders and their rows for hunting |

mod delivery;
mod links;
mod live_response;
mod request;
mod store;
mod trail;
mod uploads;

pub use delivery::{Waiting, fetch, run as run_deliveries, serve};
pub use links::{download, package_uri, result_link};
pub use live_response::run_live_response;
pub use request::{
    cancel, collect_package, isolate, offboard, restrict, scan, stop_and_quarantine, unisolate,
    unrestrict,
};
pub use store::{
    Investigated, NewAction, ORDERS_INVESTIGATE, expire, insert, orders_of_investigation, standing,
};
pub use trail::list as log;

use super::{machines, optional_time, scope, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use vigie_database::{Migrations, Row};

pub const MACHINE_ACTIONS: Migrations = Migrations {
    feature: "machine_actions",
    steps: &[
        "
CREATE TABLE machine_actions (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    type TEXT NOT NULL, scope TEXT, status TEXT NOT NULL, requestor TEXT NOT NULL,
    requestor_comment TEXT NOT NULL, command TEXT NOT NULL, error TEXT, error_code BIGINT NOT NULL,
    created BIGINT NOT NULL, updated BIGINT NOT NULL, expires BIGINT NOT NULL);
CREATE INDEX machine_actions_open ON machine_actions (machine, status);
",
        "
ALTER TABLE machine_actions ADD COLUMN external_id TEXT;
ALTER TABLE machine_actions ADD COLUMN related_sha1 TEXT;
ALTER TABLE machine_actions ADD COLUMN commands TEXT;
ALTER TABLE machine_actions ADD COLUMN findings TEXT;
ALTER TABLE machine_actions ADD COLUMN investigation TEXT;
ALTER TABLE machine_actions ADD COLUMN started BIGINT;
ALTER TABLE machine_actions ADD COLUMN cancelled BIGINT;
ALTER TABLE machine_actions ADD COLUMN cancel_requestor TEXT;
ALTER TABLE machine_actions ADD COLUMN cancel_comment TEXT;
CREATE UNIQUE INDEX machine_actions_one ON machine_actions (machine, type)
    WHERE status IN ('Pending', 'InProgress');
CREATE INDEX machine_actions_status ON machine_actions (status, expires);
CREATE TABLE machine_action_log (
    id TEXT PRIMARY KEY, action TEXT NOT NULL, tenant TEXT NOT NULL, at BIGINT NOT NULL,
    actor TEXT NOT NULL, event TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX machine_action_log_tenant ON machine_action_log (tenant, at);
CREATE TABLE uploads (
    action TEXT NOT NULL, position BIGINT NOT NULL, received BIGINT NOT NULL, name TEXT,
    sha256 TEXT, PRIMARY KEY (action, position));
CREATE TABLE upload_pieces (
    action TEXT NOT NULL, position BIGINT NOT NULL, start BIGINT NOT NULL, bytes BYTEA NOT NULL,
    PRIMARY KEY (action, position, start));
",
    ],
};

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

/// What machine actions are; investigations' orders to look are none of the API's.
const COLLECTION: Collection = Collection {
    name: "MachineActions",
    from: "machine_actions t",
    columns: "t.id, t.type, t.scope, t.requestor, t.requestor_comment, t.status, t.machine, t.name, \
              t.created, t.updated, t.error, t.error_code, t.external_id, t.related_sha1, \
              t.commands, t.cancelled, t.cancel_requestor, t.cancel_comment",
    properties: &[
        property("id", "t.id", Type::Text),
        property("type", "t.type", Type::Text),
        property("status", "t.status", Type::Text),
        property("machineId", "t.machine", Type::Text),
        property("requestor", "t.requestor", Type::Text),
        property("creationDateTimeUtc", "t.created", Type::Time),
        property("lastUpdateDateTimeUtc", "t.updated", Type::Time),
    ],
    shown: &[
        "title",
        "requestorComment",
        "computerDnsName",
        "cancellationRequestor",
        "cancellationComment",
        "cancellationDateTimeUtc",
        "errorHResult",
        "scope",
        "externalId",
        "requestSource",
        "relatedFileInfo",
        "commands",
        "troubleshootInfo",
    ],
    expandable: &[],
    key: "t.created DESC, t.id",
    never_null: &["t.created", "t.updated"],
    counted: None,
    max_page: 10_000,
};

/// `GET /api/machineactions`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    store::expire(state).await?;
    let mut query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    query.restrict("t.type <> $", ORDERS_INVESTIGATE.into());
    scope::restrict(&mut query, &call, "t.machine");
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

/// `GET /api/machineactions/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    store::expire(state).await?;
    let entity = load(state, &call, &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// One action on a machine that the caller may see.
async fn load(state: &State, call: &Call, id: &str) -> Result<Json, ApiError> {
    let sql = format!(
        "SELECT {} FROM machine_actions t WHERE t.tenant = $1 AND t.id = $2 AND t.type <> $3",
        COLLECTION.columns
    );
    let tenant = call.caller.tenant.to_string();
    let values = [tenant.into(), id.to_lowercase().into(), ORDERS_INVESTIGATE.into()];
    let rows = state.database.read(&sql, &values).await?;
    let unknown = || ApiError::not_found("Machine action", id);
    let action = entity(rows.first().ok_or_else(unknown)?)?;
    let machine = action["machineId"].as_str().unwrap_or_default();
    match machines::visible(state, call, machine).await {
        Ok(_) => Ok(action),
        Err(error) if error.status == 404 => Err(unknown()),
        Err(error) => Err(error),
    }
}

fn entity(row: &Row) -> Result<Json, ApiError> {
    let file = row.optional_text(13)?;
    let file = file.map(|sha1| json!({"fileIdentifier": sha1, "fileIdentifierType": "Sha1"}));
    let commands: Json = match row.optional_text(14)? {
        Some(text) => serde_json::from_str(text).map_err(ApiError::internal)?,
        None => json!([]),
    };
    Ok(json!({
        "id": row.text(0)?,
        "type": row.text(1)?,
        "title": null,
        "requestor": row.text(3)?,
        "requestorComment": row.text(4)?,
        "status": row.text(5)?,
        "machineId": row.text(6)?,
        "computerDnsName": row.text(7)?,
        "creationDateTimeUtc": time_text(row.integer(8)?),
        "lastUpdateDateTimeUtc": time_text(row.integer(9)?),
        "cancellationRequestor": row.optional_text(16)?,
        "cancellationComment": row.optional_text(17)?,
        "cancellationDateTimeUtc": optional_time(row.optional_integer(15)?),
        "errorHResult": row.integer(11)?,
        "scope": row.optional_text(2)?,
        "externalId": row.optional_text(12)?,
        "requestSource": "PublicApi",
        "relatedFileInfo": file,
        "commands": commands,
        "troubleshootInfo": row.optional_text(10)?,
    }))
}
