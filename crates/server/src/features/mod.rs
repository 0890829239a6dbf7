//! Features: one module each, with its tables, its rules and its operations.

pub mod admin;
mod alerts;
pub mod detections;
mod domains;
mod files;
pub mod gathered;
pub mod hunting;
pub mod indicators;
pub mod investigations;
mod ips;
mod library;
pub mod machine_actions;
mod machines;
pub mod metadata;
pub mod openapi;
mod scans;
mod scope;
pub mod sensors;
pub mod service;
mod sightings;
mod users;
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
    database.migrate(&hunting::functions::FUNCTIONS).await?;
    database.migrate(&indicators::INDICATORS).await?;
    database.migrate(&service::SERVICE).await?;
    database.migrate(&scans::SCANS).await?;
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
    ("machines.update", |state, call| machines::update(state, call).boxed()),
    ("machines.tags.set", |state, call| machines::set_tag(state, call).boxed()),
    ("machines.tags.setMultiple", |state, call| machines::set_tag_of_many(state, call).boxed()),
    ("machines.setDeviceValue", |state, call| machines::set_value(state, call).boxed()),
    ("machines.findByIp", |state, call| machines::by_ip(state, call).boxed()),
    ("machines.find", |state, call| machines::by_ip_legacy(state, call).boxed()),
    ("machines.findByTag", |state, call| machines::by_tag(state, call).boxed()),
    ("machines.alerts.list", |state, call| alerts::of_machine(state, call).boxed()),
    ("machines.alerts.count", |state, call| alerts::of_machine(state, call).boxed()),
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
    ("alerts.batchUpdate", |state, call| alerts::update_many(state, call).boxed()),
    ("alerts.domains.list", |state, call| alerts::domains(state, call).boxed()),
    ("alerts.files.list", |state, call| alerts::files(state, call).boxed()),
    ("alerts.ips.list", |state, call| alerts::ips(state, call).boxed()),
    ("alerts.machine.get", |state, call| alerts::machine(state, call).boxed()),
    ("alerts.user.get", |state, call| alerts::user(state, call).boxed()),
    ("indicators.list", |state, call| indicators::list(state, call).boxed()),
    ("indicators.submit", |state, call| indicators::submit(state, call).boxed()),
    ("indicators.import", |state, call| indicators::import(state, call).boxed()),
    ("indicators.delete", |state, call| indicators::delete(state, call).boxed()),
    ("indicators.batchDelete", |state, call| indicators::delete_many(state, call).boxed()),
    ("deviceAvInfo.list", |state, call| gathered::av_info(state, call).boxed()),
    ("assessments.infoGathering.export", |state, call| gathered::export(state, call).boxed()),
    ("scanDefinitions.list", |state, call| scans::list(state, call).boxed()),
    ("scanDefinitions.create", |state, call| scans::create(state, call).boxed()),
    ("scanDefinitions.update", |state, call| scans::update(state, call).boxed()),
    ("scanDefinitions.batchDelete", |state, call| scans::delete_many(state, call).boxed()),
    ("scanDefinitions.historyByDefinition", |state, call| scans::history(state, call).boxed()),
    ("scanDefinitions.historyBySession", |state, call| scans::sessions(state, call).boxed()),
    ("scanAgents.list", |state, call| scans::agents(state, call).boxed()),
    ("scanAgents.get", |state, call| scans::agent(state, call).boxed()),
    ("files.get", |state, call| files::get(state, call).boxed()),
    ("files.stats.get", |state, call| files::stats(state, call).boxed()),
    ("files.machines.list", |state, call| files::machines(state, call).boxed()),
    ("files.alerts.list", |state, call| alerts::of_file(state, call).boxed()),
    ("domains.stats.get", |state, call| domains::stats(state, call).boxed()),
    ("domains.machines.list", |state, call| domains::machines(state, call).boxed()),
    ("domains.alerts.list", |state, call| alerts::of_domain(state, call).boxed()),
    ("ips.stats.get", |state, call| ips::stats(state, call).boxed()),
    ("ips.alerts.list", |state, call| alerts::of_ip(state, call).boxed()),
    ("users.get", |state, call| users::get(state, call).boxed()),
    ("users.machines.list", |state, call| users::machines(state, call).boxed()),
    ("users.alerts.list", |state, call| alerts::of_user(state, call).boxed()),
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
            let group = &call.operation.group;
            let message = format!(
                "{id} ({group}) is not implemented by this server. docs/api-coverage.md lists what is."
            );
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;
    use std::path::Path;
    use vigie_contract::operations::{OPERATIONS, Operation, operation};

    #[test]
    fn every_bound_operation_is_in_the_catalogue_and_has_a_permission() {
        let mut seen = BTreeSet::new();
        for (id, _) in HANDLERS {
            let operation = operation(id).unwrap_or_else(|| panic!("{id} is in no catalogue"));
            assert!(!operation.app_permissions.is_empty(), "{id} would be open to everybody");
            assert!(seen.insert(id), "{id} is bound twice");
        }
    }

    /// Whether an operation is one of vulnerability management, all of which are still to come.
    fn is_of_vulnerabilities(operation: &Operation) -> bool {
        let groups = [
            "Vulnerabilities",
            "Software",
            "Recommendations",
            "Scores",
            "Remediation activities",
            "Assessment exports",
        ];
        let of_machines =
            ["software.list", "vulnerabilities.list", "recommendations.list", "missingKbs.list"];
        let of_a_machine = operation.id.starts_with("machines.");
        groups.contains(&operation.group.as_str())
            || of_a_machine && of_machines.iter().any(|end| operation.id.ends_with(end))
    }

    /// What the page needs of a case of `cases/operations.yaml`.
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Case {
        test: Option<String>,
        none: Option<String>,
        differs: Option<String>,
    }

    type Cases = BTreeMap<String, BTreeMap<String, Case>>;

    fn cell(case: Option<&Case>) -> String {
        match case {
            None => "–".to_owned(),
            Some(Case { differs: Some(differs), .. }) => format!("differs: {differs}"),
            Some(Case { none: Some(reason), .. }) => format!("– ({reason})"),
            Some(Case { test: Some(test), .. }) => format!("`{test}`"),
            Some(_) => "✓".to_owned(),
        }
    }

    /// One line of the page. Panics where a case is missing.
    fn line(operation: &Operation, cases: &BTreeMap<String, Case>) -> String {
        let id = &operation.id;
        let case = |name: &str| cases.get(name);
        let needed = |name: &str| {
            cell(Some(case(name).unwrap_or_else(|| panic!("{id} has no case called '{name}'"))))
        };
        let empty = match operation.is_list() {
            true => needed("empty"),
            false => cell(case("empty")),
        };
        let success = needed("success");
        let elsewhere = case("success").is_some_and(|case| case.test.is_some());
        let user = match (operation.delegated_permissions.is_empty(), elsewhere) {
            (true, _) => "– (for applications)".to_owned(),
            (false, true) => "not tried".to_owned(),
            (false, false) => success.clone(),
        };
        let errors = operation.errors.iter().map(|error| {
            let name = format!("{} {}: {}", error.status, error.code, error.when);
            format!("{} {}, {} {}", error.status, error.code, error.when, needed(&name))
        });
        let errors = errors.collect::<Vec<_>>().join("; ");
        let bad = needed("bad input");
        format!("| `{id}` | ✓ | ✓ | {success} | {user} | {bad} | {empty} | {errors} |")
    }

    const LEGEND: &str = "
What answers is tried by tests of `crates/server/tests/api`. ✓ in the columns of success, bad input,
empty result and errors is a case of `crates/server/cases/operations.yaml`, sent by the test
`operations`; other cells name the test that covers it. Each success is tried with an application's
token and with a user's. That no operation answers without a token, or with every permission but its
own, is tried for all of them by `edge::no_operation_of_the_catalogue_answers_without_its_permission`
and `user_context::a_user_needs_the_scope_and_the_role`.
";

    /// `docs/api-coverage.md` is made here; `VIGIE_UPDATE=1` writes it, without it a difference
    /// fails. So does an operation that is neither bound nor of vulnerability management, and a
    /// missing case.
    #[test]
    fn the_coverage_page_is_as_the_program_is() {
        let cases = include_str!("../../cases/operations.yaml");
        let cases: Cases = serde_saphyr::from_str(cases).expect("cases");
        let bound = |operation: &Operation| HANDLERS.iter().any(|(id, _)| *id == operation.id);
        let number = OPERATIONS.iter().filter(|operation| bound(operation)).count();
        let mut page = format!(
            "# Operations of the resource API\n\nMade by a test of the program out of \
             `catalogue/operations.json`. {number} of {} operations answer from stored facts; the \
             others, which are vulnerability management, answer 501 with the code \
             `NotImplemented`.\n",
            OPERATIONS.len()
        );
        let mut group = "";
        for operation in OPERATIONS.iter() {
            if operation.group != group {
                group = &operation.group;
                let head =
                    "| operation | request | application permissions | state |\n|---|---|---|---|";
                let _ = writeln!(page, "\n## {group}\n\n{head}");
            }
            let state = match (bound(operation), is_of_vulnerabilities(operation)) {
                (true, _) => "answers",
                (false, true) => "501: vulnerability management",
                (false, false) => panic!("{} is neither bound nor explained", operation.id),
            };
            let _ = writeln!(
                page,
                "| `{}` | `{} {}` | {} | {state} |",
                operation.id,
                operation.method,
                operation.path,
                operation.app_permissions.join(", "),
            );
        }
        let _ = writeln!(page, "\n# What is tested\n{LEGEND}");
        let _ = writeln!(
            page,
            "| operation | no token | wrong permission | success, application | success, user | bad \
             input | empty result | documented errors |\n|---|---|---|---|---|---|---|---|"
        );
        let none = BTreeMap::new();
        for operation in OPERATIONS.iter().filter(|operation| bound(operation)) {
            let _ =
                writeln!(page, "{}", line(operation, cases.get(&operation.id).unwrap_or(&none)));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api-coverage.md");
        if std::env::var_os("VIGIE_UPDATE").is_some() {
            std::fs::write(&path, &page).expect("written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == page, "docs/api-coverage.md is not as the program is: VIGIE_UPDATE=1");
    }

    /// A case that names a test names one that there is.
    #[test]
    fn tests_that_cases_name_are_there() {
        let cases: Cases =
            serde_saphyr::from_str(include_str!("../../cases/operations.yaml")).expect("cases");
        for test in cases.values().flat_map(BTreeMap::values).filter_map(|case| case.test.as_ref())
        {
            let (module, name) = test.split_once("::").expect("a module and a name");
            let file = format!("tests/api/{module}.rs");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(text.contains(&format!("fn {name}()")), "{test} is no test");
        }
    }
}
