//! Features: one module each, with its tables, its rules and its operations.

pub mod admin;
mod alerts;
pub mod detections;
pub mod hunting;
mod investigations;
mod library;
pub mod machine_actions;
mod machines;
pub mod sensors;
mod whereabouts;

use crate::edge::{ApiError, Call};
use crate::state::State;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use vigie_contract::operations::Operation;
use vigie_database::{Database, DatabaseError};

pub use alerts::publish;

/// Makes all features' tables.
pub async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    database.migrate(&machines::MACHINES).await?;
    database.migrate(&machine_actions::MACHINE_ACTIONS).await?;
    database.migrate(&alerts::ALERTS).await?;
    database.migrate(&detections::DETECTIONS).await?;
    database.migrate(&library::LIBRARY).await?;
    database.migrate(&investigations::INVESTIGATIONS).await?;
    database.migrate(&sensors::SENSORS).await
}

type Handler = for<'a> fn(&'a State, Call) -> BoxFuture<'a, Result<Response, ApiError>>;

/// What answers an operation, by the operation's id in the catalogue.
const HANDLERS: &[(&str, Handler)] = &[
    ("machines.list", |state, call| machines::list(state, call).boxed()),
    ("machines.get", |state, call| machines::get(state, call).boxed()),
    ("machines.logonUsers.list", |state, call| machines::logon_users(state, call).boxed()),
    ("machines.tags.set", |state, call| machines::set_tag(state, call).boxed()),
    ("machines.isolate", |state, call| machine_actions::isolate(state, call).boxed()),
    ("machines.unisolate", |state, call| machine_actions::unisolate(state, call).boxed()),
    ("machines.restrictCodeExecution", |state, call| {
        machine_actions::restrict(state, call).boxed()
    }),
    ("machines.unrestrictCodeExecution", |state, call| {
        machine_actions::unrestrict(state, call).boxed()
    }),
    ("machines.runAntiVirusScan", |state, call| machine_actions::scan(state, call).boxed()),
    ("machines.collectInvestigationPackage", |state, call| {
        machine_actions::collect_package(state, call).boxed()
    }),
    ("machines.offboard", |state, call| machine_actions::offboard(state, call).boxed()),
    ("machines.stopAndQuarantineFile", |state, call| {
        machine_actions::stop_and_quarantine(state, call).boxed()
    }),
    ("machines.runLiveResponse", |state, call| {
        machine_actions::run_live_response(state, call).boxed()
    }),
    ("machineActions.list", |state, call| machine_actions::list(state, call).boxed()),
    ("machineActions.get", |state, call| machine_actions::get(state, call).boxed()),
    ("machineActions.cancel", |state, call| machine_actions::cancel(state, call).boxed()),
    ("machineActions.getPackageUri", |state, call| {
        machine_actions::package_uri(state, call).boxed()
    }),
    ("machineActions.getLiveResponseResultDownloadLink", |state, call| {
        machine_actions::result_link(state, call).boxed()
    }),
    ("libraryFiles.list", |state, call| library::list(state, call).boxed()),
    ("libraryFiles.upload", |state, call| library::upload(state, call).boxed()),
    ("libraryFiles.delete", |state, call| library::delete(state, call).boxed()),
    ("machines.startInvestigation", |state, call| investigations::start(state, call).boxed()),
    ("investigations.list", |state, call| investigations::list(state, call).boxed()),
    ("investigations.get", |state, call| investigations::get(state, call).boxed()),
    ("alerts.list", |state, call| alerts::list(state, call).boxed()),
    ("alerts.get", |state, call| alerts::get(state, call).boxed()),
    ("alerts.update", |state, call| alerts::update(state, call).boxed()),
    ("alerts.createByReference", |state, call| alerts::create_by_reference(state, call).boxed()),
    ("advancedQueries.run", |state, call| hunting::run(state, call).boxed()),
    ("advancedHunting.run", |state, call| hunting::run(state, call).boxed()),
];

/// How large the body of an operation may be, where it is not as usual; in bytes.
pub fn largest_body(operation: &Operation) -> Option<usize> {
    (operation.id == "libraryFiles.upload").then_some(library::LARGEST_BODY)
}

/// Calls the operation's handler. The caller is known and allowed by now.
pub async fn dispatch(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = call.operation.id.as_str();
    match HANDLERS.iter().find(|(operation, _)| *operation == id) {
        Some((_, handler)) => handler(state, call).await,
        None => {
            let message = format!("The operation {id} is not implemented by this server yet.");
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
    use super::HANDLERS;
    use vigie_contract::operations::operation;

    #[test]
    fn every_bound_operation_is_in_the_catalogue_and_has_a_permission() {
        for (id, _) in HANDLERS {
            let operation = operation(id).unwrap_or_else(|| panic!("{id} is in no catalogue"));
            assert!(!operation.app_permissions.is_empty(), "{id} would be open to everybody");
        }
    }
}
