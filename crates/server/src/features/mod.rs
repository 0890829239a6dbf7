//! Features: one module each, with its tables, its rules and its operations.

pub mod admin;
mod alerts;
mod hunting;
mod machine_actions;
mod machines;
pub mod sensors;

use crate::edge::{ApiError, Call};
use crate::state::State;
use axum::response::Response;
use vigie_database::{Database, DatabaseError};

pub use alerts::publish;

/// Makes all features' tables.
pub async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    database.migrate(&machines::MACHINES).await?;
    database.migrate(&machine_actions::MACHINE_ACTIONS).await?;
    database.migrate(&alerts::ALERTS).await?;
    database.migrate(&sensors::SENSORS).await
}

/// Operations that have a handler.
#[cfg(test)]
pub const BOUND: &[&str] = &[
    "machines.list",
    "machines.get",
    "machines.logonUsers.list",
    "machines.tags.set",
    "machines.isolate",
    "machines.unisolate",
    "machineActions.list",
    "machineActions.get",
    "alerts.list",
    "alerts.get",
    "alerts.update",
    "alerts.createByReference",
    "advancedQueries.run",
    "advancedHunting.run",
];

/// Calls the operation's handler. The caller is known and allowed by now.
pub async fn dispatch(state: &State, call: Call) -> Result<Response, ApiError> {
    match call.operation.id.as_str() {
        "machines.list" => machines::list(state, call).await,
        "machines.get" => machines::get(state, call).await,
        "machines.logonUsers.list" => machines::logon_users(state, call).await,
        "machines.tags.set" => machines::set_tag(state, call).await,
        "machines.isolate" => machine_actions::isolate(state, call).await,
        "machines.unisolate" => machine_actions::unisolate(state, call).await,
        "machineActions.list" => machine_actions::list(state, call).await,
        "machineActions.get" => machine_actions::get(state, call).await,
        "alerts.list" => alerts::list(state, call).await,
        "alerts.get" => alerts::get(state, call).await,
        "alerts.update" => alerts::update(state, call).await,
        "alerts.createByReference" => alerts::create_by_reference(state, call).await,
        "advancedQueries.run" | "advancedHunting.run" => hunting::run(state, call).await,
        other => {
            let message = format!("The operation {other} is not implemented by this server yet.");
            Err(ApiError::new(501, "NotImplemented", message))
        }
    }
}

/// A time as the API writes it.
fn time_text(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true).replace('Z', "0Z")
}

fn optional_time(micros: Option<i64>) -> serde_json::Value {
    micros.map_or(serde_json::Value::Null, |micros| time_text(micros).into())
}

#[cfg(test)]
mod tests {
    use super::BOUND;
    use vigie_contract::operations::operation;

    #[test]
    fn every_bound_operation_is_in_the_catalogue_and_has_a_permission() {
        for id in BOUND {
            let operation = operation(id).unwrap_or_else(|| panic!("{id} is in no catalogue"));
            assert!(!operation.app_permissions.is_empty(), "{id} would be open to everybody");
        }
    }
}
