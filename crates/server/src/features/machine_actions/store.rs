//! Every change of an action's state, each with its entry in the log, in one transaction.
//!
//! ```text
//! Pending ─► InProgress ─► Succeeded | Failed | TimeOut | Cancelled
//!    └─────► Failed | TimeOut | Cancelled
//! ```

use super::trail::{self, Entry};
use crate::edge::ApiError;
use crate::features::machines;
use crate::state::State;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_contract::sensor::{
    Command, CommandOutcome, CommandStatus, Finding, OrderResult, OrderStatus, Refusal,
};
use vigie_database::{DatabaseError, Transaction};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
/// An order that no sensor has begun lives this long (documentation of live response and of actions
/// on offline devices), in microseconds.
const LIFETIME: i64 = 72 * HOUR;

/// Type of the orders that investigations give; not a type of the API.
pub const ORDERS_INVESTIGATE: &str = "Investigate";

/// How long a begun order of a type may take, in microseconds. Only running a script has a documented
/// limit (10 minutes); the others are bounds after which nobody expects a result any more.
fn longest_run(kind: &str) -> i64 {
    match kind {
        "RunAntiVirusScan" => 24 * HOUR,
        "CollectInvestigationPackage" | "LiveResponse" => 2 * HOUR,
        _ => HOUR,
    }
}

/// An order to be given.
pub struct NewAction {
    pub tenant: Uuid,
    pub machine: String,
    pub machine_name: String,
    /// The API's `type`.
    pub kind: &'static str,
    pub scope: Option<String>,
    pub requestor: String,
    /// The application, for the rows of hunting.
    pub app_id: Option<Uuid>,
    pub comment: String,
    pub command: Command,
    pub related_sha1: Option<String>,
    pub external_id: Option<String>,
    /// Live response steps in the API's shape.
    pub commands: Option<Json>,
    pub investigation: Option<String>,
}

/// Writes a pending action; its id. The caller commits and wakes the sensor.
pub async fn insert(
    transaction: &mut Transaction,
    now: i64,
    new: &NewAction,
) -> Result<Uuid, ApiError> {
    let id = Uuid::new_v4();
    let text = id.to_string();
    let insert = "INSERT INTO machine_actions (id, tenant, machine, name, type, scope, status, \
        requestor, requestor_comment, command, error_code, created, updated, expires, \
        external_id, related_sha1, commands, investigation) VALUES \
        ($1, $2, $3, $4, $5, $6, 'Pending', $7, $8, $9, 0, $10, $10, $11, $12, $13, $14, $15)";
    let values = [
        text.as_str().into(),
        new.tenant.to_string().into(),
        new.machine.as_str().into(),
        new.machine_name.as_str().into(),
        new.kind.into(),
        new.scope.clone().into(),
        new.requestor.as_str().into(),
        new.comment.as_str().into(),
        json!(new.command).to_string().into(),
        now.into(),
        (now + LIFETIME).into(),
        new.external_id.clone().into(),
        new.related_sha1.clone().into(),
        new.commands.as_ref().map(Json::to_string).into(),
        new.investigation.clone().into(),
    ];
    match transaction.execute(insert, &values).await {
        Ok(_) => {}
        // The unique index over open actions: also two callers at one instant.
        Err(DatabaseError::Constraint(_)) => {
            let message = "Action is already in progress";
            return Err(ApiError::new(400, "ActiveRequestAlreadyExists", message));
        }
        Err(error) => return Err(error.into()),
    }
    let entry = Entry {
        action: &text,
        tenant: new.tenant,
        kind: new.kind,
        machine: &new.machine,
        machine_name: &new.machine_name,
        actor: &new.requestor,
        app_id: new.app_id,
        event: "Requested",
        detail: json!({"comment": new.comment, "scope": new.scope, "sha1": new.related_sha1}),
    };
    trail::write(transaction, now, &entry).await?;
    Ok(id)
}

/// What of an action its changes need.
pub struct Known {
    pub tenant: Uuid,
    pub kind: String,
    pub status: String,
    machine_name: String,
    commands: Option<Json>,
    cancel_requestor: Option<String>,
}

/// An action of a machine, as it stands in this transaction.
pub async fn known(
    transaction: &mut Transaction,
    machine: &str,
    id: &str,
) -> Result<Known, ApiError> {
    let select = "SELECT tenant, type, status, name, commands, cancel_requestor \
                  FROM machine_actions WHERE id = $1 AND machine = $2";
    let rows = transaction.read(select, &[id.into(), machine.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Order", id))?;
    let commands = row.optional_text(4)?.map(serde_json::from_str).transpose();
    Ok(Known {
        tenant: Uuid::try_parse(row.text(0)?).map_err(ApiError::internal)?,
        kind: row.text(1)?.to_owned(),
        status: row.text(2)?.to_owned(),
        machine_name: row.text(3)?.to_owned(),
        commands: commands.map_err(ApiError::internal)?,
        cancel_requestor: row.optional_text(5)?.map(str::to_owned),
    })
}

/// What a sensor says of its order: an error 409 if the action has ended and the sensor asks to go on.
pub async fn report(
    state: &State,
    machine: &str,
    id: &str,
    result: &OrderResult,
) -> Result<(), ApiError> {
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let known = known(&mut transaction, machine, id).await?;
    if !matches!(known.status.as_str(), "Pending" | "InProgress") {
        if result.status == OrderStatus::InProgress {
            let message = format!("the action has ended as {}", known.status);
            return Err(ApiError::new(409, "OrderEnded", message));
        }
        // A result that is repeated, or that came too late to count.
        return Ok(());
    }
    let status = format!("{:?}", result.status);
    let commands = known.commands.clone().map(|mut commands| {
        apply(&mut commands, &result.commands);
        commands.to_string()
    });
    // The time limit begins anew with the order itself: until then the machine may have been off.
    let update = "UPDATE machine_actions SET status = $1, error = $2, error_code = $3, \
                  updated = $4, commands = $5, findings = $6, \
                  expires = CASE WHEN status = 'Pending' THEN $7 ELSE expires END, \
                  started = COALESCE(started, $4) \
                  WHERE id = $8 AND status IN ('Pending', 'InProgress')";
    let findings = (!result.findings.is_empty()).then(|| json!(result.findings).to_string());
    let values = [
        status.as_str().into(),
        result.error.clone().into(),
        i64::from(result.error_code).into(),
        now.into(),
        commands.into(),
        findings.into(),
        (now + longest_run(&known.kind)).into(),
        id.into(),
    ];
    if transaction.execute(update, &values).await? == 0 {
        // Another node ended it in between.
        return Err(ApiError::new(409, "OrderEnded", "the action has ended"));
    }
    if status != known.status {
        let mut detail = json!({"error": result.error, "errorHResult": result.error_code});
        if !result.findings.is_empty() {
            detail["findings"] = json!(result.findings);
        }
        log(&mut transaction, now, (id, machine, &known), ("sensor", status.as_str()), detail)
            .await?;
    }
    if known.kind == "Offboard" && result.status == OrderStatus::Succeeded {
        machines::offboard(&mut transaction, machine).await?;
    }
    transaction.commit().await?;
    state.publish.notify_one();
    Ok(())
}

/// Puts the outcomes of steps into the API's `commands`.
fn apply(commands: &mut Json, outcomes: &[CommandOutcome]) {
    let micros = |time: chrono::DateTime<chrono::Utc>| time.timestamp_micros();
    for outcome in outcomes {
        let Some(command) = commands.get_mut(outcome.index) else { continue };
        command["startTime"] = super::time_text(micros(outcome.started)).into();
        command["endTime"] = super::optional_time(outcome.ended.map(micros));
        // The documentation knows no state between Created and the end.
        command["commandStatus"] = match outcome.status {
            CommandStatus::InProgress => "Created",
            CommandStatus::Completed => "Completed",
            CommandStatus::Failed | CommandStatus::Cancelled => "Failed",
        }
        .into();
        command["errors"] = json!(outcome.errors);
    }
}

async fn log(
    transaction: &mut Transaction,
    now: i64,
    (id, machine, known): (&str, &str, &Known),
    (actor, event): (&str, &str),
    detail: Json,
) -> Result<(), ApiError> {
    let entry = Entry {
        action: id,
        tenant: known.tenant,
        kind: &known.kind,
        machine,
        machine_name: &known.machine_name,
        actor,
        app_id: None,
        event,
        detail,
    };
    trail::write(transaction, now, &entry).await
}

/// Cancels: at once what no sensor has begun, else the sensor is asked to stop.
pub async fn cancel(
    state: &State,
    machine: &str,
    id: &str,
    requestor: &str,
    comment: Option<&str>,
) -> Result<(), ApiError> {
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let known = known(&mut transaction, machine, id).await?;
    let ended = !matches!(known.status.as_str(), "Pending" | "InProgress");
    if ended || known.cancel_requestor.is_some() {
        let message = match ended {
            true => format!("The action has ended as {} and cannot be cancelled", known.status),
            false => "The action is being cancelled already".to_owned(),
        };
        return Err(ApiError::bad_request(message));
    }
    let update = "UPDATE machine_actions SET cancelled = $1, updated = $1, cancel_requestor = $2, \
                  cancel_comment = $3, \
                  status = CASE WHEN status = 'Pending' THEN 'Cancelled' ELSE status END \
                  WHERE id = $4";
    let values = [now.into(), requestor.into(), comment.map(str::to_owned).into(), id.into()];
    transaction.execute(update, &values).await?;
    let event = if known.status == "Pending" { "Cancelled" } else { "CancelRequested" };
    let detail = json!({"comment": comment});
    log(&mut transaction, now, (id, machine, &known), (requestor, event), detail).await?;
    transaction.commit().await?;
    state.publish.notify_one();
    Ok(())
}

/// Ends actions whose time is over.
pub async fn expire(state: &State) -> Result<(), ApiError> {
    let now = state.now();
    let select = "SELECT id, machine FROM machine_actions \
                  WHERE status IN ('Pending', 'InProgress') AND expires < $1 LIMIT 1000";
    let late = state.database.read(select, &[now.into()]).await?;
    for row in &late {
        let (id, machine) = (row.text(0)?, row.text(1)?);
        let mut transaction = state.database.begin().await?;
        let known = known(&mut transaction, machine, id).await?;
        let reason = match known.status.as_str() {
            "Pending" => "the machine did not fetch the order in time",
            _ => "the sensor did not end the order in time",
        };
        let update = "UPDATE machine_actions SET status = 'TimeOut', updated = $1, error = $2 \
                      WHERE id = $3 AND status = $4";
        let values = [now.into(), reason.into(), id.into(), known.status.as_str().into()];
        if transaction.execute(update, &values).await? > 0 {
            let detail = json!({"error": reason});
            log(&mut transaction, now, (id, machine, &known), ("server", "TimeOut"), detail)
                .await?;
            transaction.commit().await?;
        }
    }
    if !late.is_empty() {
        state.publish.notify_one();
    }
    Ok(())
}

/// Orders that a machine is to fetch: pending ones, and those that it is to stop.
pub struct Open {
    pub id: Uuid,
    pub command: String,
    pub requestor: String,
    pub created: i64,
    pub expires: i64,
    /// Set where the order runs and is to be stopped; by whom.
    pub cancel_requestor: Option<String>,
}

pub async fn open(state: &State, machine: &str) -> Result<Vec<Open>, ApiError> {
    let select = "SELECT id, command, requestor, created, expires, status, cancel_requestor \
                  FROM machine_actions WHERE machine = $1 AND expires > $2 AND (status = 'Pending' \
                  OR (status = 'InProgress' AND cancelled IS NOT NULL)) ORDER BY created, id";
    let rows = state.database.read(select, &[machine.into(), state.now().into()]).await?;
    let open = rows.iter().map(|row| {
        let runs = row.text(5)? == "InProgress";
        Ok(Open {
            id: Uuid::try_parse(row.text(0)?).map_err(ApiError::internal)?,
            command: row.text(1)?.to_owned(),
            requestor: row.text(2)?.to_owned(),
            created: row.integer(3)?,
            expires: row.integer(4)?,
            cancel_requestor: row.optional_text(6)?.filter(|_| runs).map(str::to_owned),
        })
    });
    open.collect()
}

/// Machines with something to fetch.
pub async fn machines_with_orders(state: &State) -> Result<Vec<String>, ApiError> {
    let select = "SELECT DISTINCT machine FROM machine_actions WHERE status = 'Pending' \
                  OR (status = 'InProgress' AND cancelled IS NOT NULL)";
    let rows = state.database.read(select, &[]).await?;
    rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
}

/// How many live response sessions of a tenant are open, how many were begun since a time, and when
/// the first of those was.
pub async fn sessions(
    state: &State,
    tenant: &str,
    since: i64,
) -> Result<(i64, i64, i64), ApiError> {
    let select = "SELECT \
        COALESCE(SUM(CASE WHEN status IN ('Pending', 'InProgress') THEN 1 ELSE 0 END), 0), \
        COALESCE(SUM(CASE WHEN created > $1 THEN 1 ELSE 0 END), 0), \
        COALESCE(MIN(CASE WHEN created > $1 THEN created ELSE NULL END), 0) \
        FROM machine_actions WHERE tenant = $2 AND type = 'LiveResponse' AND (created > $1 OR \
        status IN ('Pending', 'InProgress'))";
    let rows = state.database.read(select, &[since.into(), tenant.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::internal("a sum has a row"))?;
    Ok((row.integer(0)?, row.integer(1)?, row.integer(2)?))
}

/// One order of an investigation, as far as it got.
pub struct Investigated {
    pub id: String,
    pub status: String,
    pub machine: String,
    pub machine_name: String,
    pub created: i64,
    /// Last change, in microseconds since the Unix epoch.
    pub updated: i64,
    pub error: Option<String>,
    pub findings: Vec<Finding>,
}

impl Investigated {
    pub fn is_open(&self) -> bool {
        matches!(&*self.status, "Pending" | "InProgress")
    }
}

/// The orders to look that an investigation gave.
pub async fn orders_of_investigation(
    state: &State,
    investigation: &str,
) -> Result<Vec<Investigated>, ApiError> {
    let select = "SELECT id, status, machine, name, created, updated, error, findings \
                  FROM machine_actions WHERE investigation = $1 AND type = $2 \
                  ORDER BY created, id";
    let values = [investigation.into(), ORDERS_INVESTIGATE.into()];
    let rows = state.database.read(select, &values).await?;
    let orders = rows.iter().map(|row| {
        let findings = serde_json::from_str(row.optional_text(7)?.unwrap_or("[]"));
        Ok(Investigated {
            id: row.text(0)?.to_owned(),
            status: row.text(1)?.to_owned(),
            machine: row.text(2)?.to_owned(),
            machine_name: row.text(3)?.to_owned(),
            created: row.integer(4)?,
            updated: row.integer(5)?,
            error: row.optional_text(6)?.map(str::to_owned),
            findings: findings.map_err(ApiError::internal)?,
        })
    });
    orders.collect()
}

/// How an action stands: its state and its `errorHResult`.
pub async fn standing(state: &State, id: &str) -> Result<Option<(String, i64)>, ApiError> {
    let select = "SELECT status, error_code FROM machine_actions WHERE id = $1";
    let rows = state.database.read(select, &[id.into()]).await?;
    rows.first().map(|row| Ok((row.text(0)?.to_owned(), row.integer(1)?))).transpose()
}

/// Writes into the log that a sensor refused an order that came to it from somewhere.
pub async fn refused(
    state: &State,
    tenant: Uuid,
    machine: &str,
    refusal: &Refusal,
) -> Result<(), ApiError> {
    let mut transaction = state.database.begin().await?;
    let select = "SELECT name FROM machines WHERE id = $1";
    let rows = transaction.read(select, &[machine.into()]).await?;
    let machine_name = rows.first().map_or(Ok(""), |row| row.text(0))?.to_owned();
    let claimed = refusal.claimed_id.map(|id| id.to_string()).unwrap_or_default();
    let entry = Entry {
        action: &claimed,
        tenant,
        kind: "RefusedOrder",
        machine,
        machine_name: &machine_name,
        actor: "sensor",
        app_id: None,
        event: "Refused",
        detail: json!({"error": refusal.reason.chars().take(1000).collect::<String>()}),
    };
    trail::write(&mut transaction, state.now(), &entry).await?;
    transaction.commit().await?;
    state.publish.notify_one();
    Ok(())
}
