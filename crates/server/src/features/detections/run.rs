//! When rules run, and what becomes of their rows.

use super::built_in::{self, RULES};
use super::findings::{Finding, found, time};
use super::rules::own;
use crate::edge::ApiError;
use crate::features::hunting::database;
use crate::state::State;
use chrono::TimeDelta;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use uuid::Uuid;
use vigie_contract::detection::{Detection, Frequency};
use vigie_hunting::{Database, Limits};

/// How often arriving events are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Alerts that one rule raises in one run at most (limit of custom detections).
const ALERTS_PER_RUN: usize = 100;
/// Events are remembered for longer than any rule looks back.
const REMEMBERED_MICROS: i64 = 31 * 24 * 3_600_000_000;

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
        let due = match with_due_rules(&state).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(error = error.message, "detections wait for their rules");
                continue;
            }
        };
        for tenant in tenants {
            let rows: u64 =
                state.lake.tenant_tables(tenant.id).iter().map(|table| table.rows).sum();
            let then = rows_then.get(&tenant.id).copied().unwrap_or(0);
            let (arrived, due) = (then != rows, due.contains(&tenant.id.to_string()));
            // Most of very many tenants cost nothing here.
            if !arrived && !due {
                continue;
            }
            if let Err(error) = run_tenant(&state, tenant.id, arrived).await {
                tracing::error!(error = error.message, tenant = %tenant.id, "detections failed");
                continue;
            }
            rows_then.insert(tenant.id, rows);
        }
    }
}

/// Tenants that have a rule of their own to run now.
async fn with_due_rules(state: &State) -> Result<HashSet<String>, ApiError> {
    let sql = "SELECT DISTINCT tenant FROM detection_rules WHERE next_run <= $1 AND enabled <> 0";
    let rows = state.database.read(sql, &[state.now().into()]).await?;
    rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
}

async fn run_tenant(state: &State, tenant: Uuid, arrived: bool) -> Result<(), ApiError> {
    let database = database(state, tenant).await?;
    if arrived {
        let forget = "DELETE FROM detection_hits WHERE tenant = $1 AND seen < $2";
        let before = state.now() - REMEMBERED_MICROS;
        state.database.execute(forget, &[tenant.to_string().into(), before.into()]).await?;
        for rule in RULES.iter() {
            if state.stop.is_cancelled() {
                return Ok(());
            }
            evaluate(state, tenant, &database, rule).await?;
        }
    }
    for rule in own(state, tenant).await? {
        let waits = rule.rule.frequency == Frequency::Continuous && !arrived;
        // Of several nodes one runs the rule: the one that moves its next run.
        if rule.rule.enabled
            && !waits
            && !state.stop.is_cancelled()
            && take_turn(state, &rule).await?
        {
            run_and_note(state, tenant, &database, &rule).await?;
        }
    }
    Ok(())
}

/// Whether the rule is due and this node's to run.
async fn take_turn(state: &State, rule: &Detection) -> Result<bool, ApiError> {
    let next = state.now() + micros(rule.rule.frequency.period());
    let update = "UPDATE detection_rules SET next_run = $1 WHERE id = $2 AND next_run <= $3";
    let values = [next.into(), rule.id.to_string().into(), state.now().into()];
    Ok(state.database.execute(update, &values).await? > 0)
}

/// Runs a tenant's own rule and notes what became of it.
pub(super) async fn run_rule(
    state: &State,
    tenant: Uuid,
    rule: &Detection,
) -> Result<(), ApiError> {
    run_and_note(state, tenant, &database(state, tenant).await?, rule).await
}

async fn run_and_note(
    state: &State,
    tenant: Uuid,
    database: &Database,
    rule: &Detection,
) -> Result<(), ApiError> {
    let status = match evaluate(state, tenant, database, rule).await {
        Ok(()) => "Completed".to_owned(),
        Err(error) => format!("Failed: {}", error.message),
    };
    let update = "UPDATE detection_rules SET last_run = $1, last_status = $2, next_run = $3 \
                  WHERE id = $4";
    let next = state.now() + micros(rule.rule.frequency.period());
    let values = [state.now().into(), status.into(), next.into(), rule.id.to_string().into()];
    state.database.execute(update, &values).await?;
    Ok(())
}

/// Finds a rule's events and raises their alerts.
async fn evaluate(
    state: &State,
    tenant: Uuid,
    database: &Database,
    rule: &Detection,
) -> Result<(), ApiError> {
    let (id, rule, first_run) = (rule.id, &rule.rule, rule.last_run.is_none() && !rule.built_in);
    let result = state.engine.run(database, &rule.query, &Limits::default()).await;
    let result = result.map_err(|error| ApiError::internal(format!("{}: {error}", rule.title)))?;
    let Some(table) = result.tables.last().filter(|table| table.rows() > 0) else {
        return Ok(());
    };
    let look_back = if first_run { TimeDelta::days(30) } else { rule.frequency.look_back() };
    let since = state.now() - micros(look_back);
    let mut text = Vec::new();
    table.write_json_lines(&mut text).map_err(ApiError::internal)?;
    let mut machines: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Json = serde_json::from_slice(line).map_err(ApiError::internal)?;
        let recent = time(&event).is_some_and(|time| time >= since);
        let machine = event["DeviceId"].as_str().filter(|machine| recent && !machine.is_empty());
        if let Some(machine) = machine {
            machines.entry(machine.to_owned()).or_default().push(event);
        }
    }
    let finding = Finding {
        tenant,
        rule: id,
        title: &rule.title,
        description: &rule.description,
        recommended_action: &rule.recommended_action,
        severity: &rule.severity,
        category: &rule.category,
        techniques: &rule.techniques,
        source: built_in::source(id),
    };
    for (machine, events) in machines.iter().take(ALERTS_PER_RUN) {
        found(state, &finding, machine, events).await?;
    }
    Ok(())
}

fn micros(time: TimeDelta) -> i64 {
    time.num_microseconds().unwrap_or(i64::MAX / 4)
}
