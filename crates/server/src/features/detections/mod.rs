//! Detections: rules in KQL that run over arriving events and raise alerts.

use super::alerts::{NewAlert, Source, add_events, raise};
use crate::edge::ApiError;
use crate::state::State;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;
use uuid::Uuid;
use vigie_database::Migrations;
use vigie_hunting::{Database, Limits};

pub const DETECTIONS: Migrations = Migrations {
    feature: "detections",
    steps: &["
CREATE TABLE detection_hits (
    tenant TEXT NOT NULL, rule TEXT NOT NULL, event TEXT NOT NULL, seen BIGINT NOT NULL,
    PRIMARY KEY (tenant, rule, event));
"],
};

/// How often arriving events are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Alerts that one rule raises in one run at most (custom detections of the original: 100).
const ALERTS_PER_RUN: usize = 100;
/// Further events of the same rule and machine belong to the alert that is open for this long.
const SAME_ALERT_MICROS: i64 = 24 * 3_600_000_000;
/// Events are remembered for longer than any rule looks back.
const REMEMBERED_MICROS: i64 = 48 * 3_600_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    id: Uuid,
    title: String,
    description: String,
    recommended_action: String,
    severity: String,
    category: String,
    /// MITRE ATT&CK technique ids.
    techniques: Vec<String>,
    /// What the alert says that it comes from.
    #[serde(default)]
    source: Source,
    query: String,
}

/// The rules that come with the server.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("../../../../../catalogue/detections.yaml"))
        .expect("catalogue/detections.yaml is part of the program")
});

/// Runs the rules until the server stops.
pub async fn run(state: State) {
    // Rows of each tenant when its rules last ran: where nothing arrived, nothing is to be found.
    let mut rows_then: HashMap<Uuid, u64> = HashMap::new();
    loop {
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let tenants = match state.directory.tenants().await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::error!(%error, "detections wait for the directory");
                continue;
            }
        };
        for tenant in tenants {
            let rows = state.lake.tenant_tables(tenant.id).iter().map(|table| table.rows).sum();
            if rows_then.get(&tenant.id) == Some(&rows) {
                continue;
            }
            if let Err(error) = run_tenant(&state, tenant.id).await {
                tracing::error!(error = error.message, tenant = %tenant.id, "detections failed");
                continue;
            }
            rows_then.insert(tenant.id, rows);
        }
    }
}

async fn run_tenant(state: &State, tenant: Uuid) -> Result<(), ApiError> {
    let forget = "DELETE FROM detection_hits WHERE tenant = $1 AND seen < $2";
    let before = state.now() - REMEMBERED_MICROS;
    state.database.execute(forget, &[tenant.to_string().into(), before.into()]).await?;
    for rule in RULES.iter() {
        if state.stop.is_cancelled() {
            return Ok(());
        }
        run_rule(state, tenant, rule).await?;
    }
    Ok(())
}

async fn run_rule(state: &State, tenant: Uuid, rule: &Rule) -> Result<(), ApiError> {
    let database = Database::Lake { lake: state.lake.clone(), tenant };
    let result = state.engine.run(&database, &rule.query, &Limits::default()).await;
    let result = result.map_err(|error| ApiError::internal(format!("{}: {error}", rule.title)))?;
    let Some(table) = result.tables.first().filter(|table| table.rows() > 0) else {
        return Ok(());
    };
    let mut text = Vec::new();
    table.write_json_lines(&mut text).map_err(ApiError::internal)?;
    let mut machines: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Json = serde_json::from_slice(line).map_err(ApiError::internal)?;
        if let Some(machine) = event["DeviceId"].as_str().filter(|machine| !machine.is_empty()) {
            machines.entry(machine.to_owned()).or_default().push(event);
        }
    }
    for (machine, events) in machines.iter().take(ALERTS_PER_RUN) {
        found(state, tenant, rule, machine, events).await?;
    }
    Ok(())
}

/// Raises an alert for the events that are new, or adds them to the one that is open.
async fn found(
    state: &State,
    tenant: Uuid,
    rule: &Rule,
    machine: &str,
    events: &[Json],
) -> Result<(), ApiError> {
    let (tenant_text, rule_text, now) = (tenant.to_string(), rule.id.to_string(), state.now());
    let mut transaction = state.database.begin().await?;
    let mut new = Vec::new();
    for event in events {
        let key = format!("{machine} {} {}", event["ReportId"], event["Timestamp"]);
        let insert = "INSERT INTO detection_hits (tenant, rule, event, seen) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT DO NOTHING";
        let values =
            [tenant_text.as_str().into(), rule_text.as_str().into(), key.into(), now.into()];
        if transaction.execute(insert, &values).await? > 0 {
            new.push(event.clone());
        }
    }
    let times: Vec<i64> = new.iter().filter_map(time).collect();
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Ok(());
    };
    let alert = NewAlert {
        tenant,
        machine,
        machine_name: new[0]["DeviceName"].as_str().unwrap_or_default(),
        title: &rule.title,
        description: &rule.description,
        recommended_action: &rule.recommended_action,
        severity: &rule.severity,
        category: &rule.category,
        techniques: &rule.techniques,
        source: rule.source,
        detector: Some(rule.id),
        events: &new,
        first_event: *first,
        last_event: *last,
    };
    let open = "SELECT id FROM alerts WHERE tenant = $1 AND machine = $2 AND detector = $3 AND \
                status <> 'Resolved' AND created > $4 ORDER BY created DESC";
    let since = now - SAME_ALERT_MICROS;
    let values = [tenant_text.into(), machine.into(), rule_text.into(), since.into()];
    match transaction.read(open, &values).await?.first() {
        Some(row) => add_events(&mut transaction, now, row.text(0)?, &alert).await?,
        None => {
            let id = raise(&mut transaction, now, &alert).await?;
            tracing::info!(id, title = rule.title, machine, "alert");
        }
    }
    transaction.commit().await?;
    state.publish.notify_one();
    Ok(())
}

/// The event's time in microseconds since the Unix epoch.
fn time(event: &Json) -> Option<i64> {
    let text = event["Timestamp"].as_str()?;
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_contract::clock::Clock;
    use vigie_hunting::{Engine, EngineConfig};

    /// A query that the engine refuses, or that lacks what an alert needs, would raise nothing ever.
    #[tokio::test]
    async fn every_rule_runs_and_returns_what_an_alert_needs() {
        let engine = Engine::new(EngineConfig::new(Clock::default())).expect("an engine");
        for rule in RULES.iter() {
            let result = engine.run(&Database::Empty, &rule.query, &Limits::default()).await;
            let result = result.unwrap_or_else(|error| panic!("{}: {error}", rule.title));
            let columns: Vec<&str> =
                result.tables[0].columns.iter().map(|column| column.name.as_str()).collect();
            for name in ["Timestamp", "DeviceId", "DeviceName", "ReportId"] {
                assert!(columns.contains(&name), "{} returns no {name}", rule.title);
            }
            assert!(super::super::alerts::SEVERITIES.contains(&rule.severity.as_str()));
        }
    }
}
