//! Machine actions: orders to sensors and what became of them.

use super::{machines, optional_time, sensors, time_text};
use crate::edge::{ApiError, Call, json};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_contract::sensor::{Command, IsolationType};
use vigie_database::{Migrations, Row};

pub const MACHINE_ACTIONS: Migrations = Migrations {
    feature: "machine_actions",
    steps: &["
CREATE TABLE machine_actions (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    type TEXT NOT NULL, scope TEXT, status TEXT NOT NULL, requestor TEXT NOT NULL,
    requestor_comment TEXT NOT NULL, command TEXT NOT NULL, error TEXT, error_code BIGINT NOT NULL,
    created BIGINT NOT NULL, updated BIGINT NOT NULL, expires BIGINT NOT NULL);
CREATE INDEX machine_actions_open ON machine_actions (machine, status);
"],
};

/// An order that no sensor has fetched lives this long, in microseconds.
const LIFETIME: i64 = 3 * 86_400_000_000;

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const COLLECTION: Collection = Collection {
    name: "MachineActions",
    from: "machine_actions t",
    columns: "t.id, t.type, t.scope, t.requestor, t.requestor_comment, t.status, t.machine, t.name, \
              t.created, t.updated, t.error, t.error_code",
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
    max_page: 10_000,
};

/// `GET /api/machineactions`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    expire(state).await?;
    let query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(json(200, &COLLECTION.answer(&call, &query, &page, entities)))
}

/// `GET /api/machineactions/{id}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    expire(state).await?;
    let entity = load(state, &call.caller.tenant.to_string(), &call.parameters[0]).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

async fn load(state: &State, tenant: &str, id: &str) -> Result<Json, ApiError> {
    let sql = format!(
        "SELECT {} FROM machine_actions t WHERE t.tenant = $1 AND t.id = $2",
        COLLECTION.columns
    );
    let rows = state.database.read(&sql, &[tenant.into(), id.to_lowercase().into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Machine action", id))?;
    entity(row)
}

fn entity(row: &Row) -> Result<Json, ApiError> {
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
        "cancellationRequestor": null,
        "cancellationComment": null,
        "cancellationDateTimeUtc": optional_time(None),
        "errorHResult": row.integer(11)?,
        "scope": row.optional_text(2)?,
        "externalId": null,
        "requestSource": "PublicApi",
        "relatedFileInfo": null,
        "commands": [],
        "troubleshootInfo": row.optional_text(10)?,
    }))
}

/// Orders that no sensor took in time.
async fn expire(state: &State) -> Result<(), ApiError> {
    let now = state.now();
    let update = "UPDATE machine_actions SET status = 'TimeOut', updated = $1, \
                  error = 'the machine did not fetch the order in time' \
                  WHERE status = 'Pending' AND expires < $1";
    state.database.execute(update, &[now.into()]).await?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IsolateBody {
    comment: String,
    isolation_type: Option<String>,
}

/// `POST /api/machines/{id}/isolate`
pub async fn isolate(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: IsolateBody = call.json()?;
    let isolation_type = match body.isolation_type.as_deref() {
        Some("Full") | None => IsolationType::Full,
        Some("Selective") => IsolationType::Selective,
        Some(other) => {
            let message =
                format!("IsolationType: 'Full' or 'Selective' is expected, not '{other}'");
            return Err(ApiError::body(message));
        }
    };
    let scope = format!("{isolation_type:?}");
    let command = Command::Isolate { isolation_type };
    order(state, call, "Isolate", Some(&scope), &body.comment, &command).await
}

/// `POST /api/machines/{id}/unisolate`
pub async fn unisolate(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: IsolateBody = call.json()?;
    order(state, call, "Unisolate", None, &body.comment, &Command::Unisolate {}).await
}

async fn order(
    state: &State,
    call: Call,
    kind: &str,
    scope: Option<&str>,
    comment: &str,
    command: &Command,
) -> Result<Response, ApiError> {
    if comment.trim().is_empty() {
        return Err(ApiError::body("Comment: a comment is expected"));
    }
    expire(state).await?;
    let tenant = call.caller.tenant.to_string();
    let machine = machines::load(state, &tenant, &call.parameters[0]).await?;
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let (machine, name) = (text("id"), text("computerDnsName"));
    let id = Uuid::new_v4().to_string();
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let open = "SELECT id FROM machine_actions WHERE machine = $1 AND type = $2 \
                AND status IN ('Pending', 'InProgress')";
    if !transaction.read(open, &[machine.as_str().into(), kind.into()]).await?.is_empty() {
        let message = "Action is already in progress";
        return Err(ApiError::new(400, "ActiveRequestAlreadyExists", message));
    }
    let requestor = match call.caller.app_name.as_str() {
        "" => call.caller.app_id.to_string(),
        name => name.to_owned(),
    };
    let insert = "INSERT INTO machine_actions (id, tenant, machine, name, type, scope, status, \
        requestor, requestor_comment, command, error, error_code, created, updated, expires) VALUES \
        ($1, $2, $3, $4, $5, $6, 'Pending', $7, $8, $9, $10, 0, $11, $11, $12)";
    let values = [
        id.as_str().into(),
        tenant.as_str().into(),
        machine.as_str().into(),
        name.into(),
        kind.into(),
        scope.map(str::to_owned).into(),
        requestor.into(),
        comment.into(),
        json!(command).to_string().into(),
        None::<String>.into(),
        now.into(),
        (now + LIFETIME).into(),
    ];
    transaction.execute(insert, &values).await?;
    transaction.commit().await?;
    sensors::wake(state, &machine);
    let entity = load(state, &tenant, &id).await?;
    Ok(json(201, &COLLECTION.entity(&call, entity)))
}
