//! Detections: rules in KQL that run over arriving events, or every so often, and raise alerts.

mod built_in;
mod findings;
mod rules;
mod run;
mod validate;

pub use findings::{Finding, found};
pub use rules::{create, delete, get, list, replace, run_now};
pub use run::run;

use vigie_database::Migrations;

pub const DETECTIONS: Migrations = Migrations {
    feature: "detections",
    steps: &[
        "
CREATE TABLE detection_hits (
    tenant TEXT NOT NULL, rule TEXT NOT NULL, event TEXT NOT NULL, seen BIGINT NOT NULL,
    PRIMARY KEY (tenant, rule, event));
",
        "
CREATE TABLE detection_rules (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, enabled BIGINT NOT NULL,
    body TEXT NOT NULL, last_run BIGINT, last_status TEXT, next_run BIGINT NOT NULL,
    UNIQUE (tenant, name));
CREATE INDEX detection_rules_due ON detection_rules (next_run);
",
    ],
};
