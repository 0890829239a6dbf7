//! Tenants' service settings: plan, trial and the testers' switches; and what was written through
//! the API, by whom.

use crate::edge::{ApiError, Call};
use crate::state::State;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;
use uuid::Uuid;
use vigie_contract::operations::{Operation, operation};
use vigie_contract::service::{Automation, ClockChange, ClockState, PLANS, ServiceSettings, Write};
use vigie_database::{Migrations, Transaction};

pub const SERVICE: Migrations = Migrations {
    feature: "service",
    steps: &["
CREATE TABLE service_settings (tenant TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE api_writes (
    id TEXT PRIMARY KEY, at BIGINT NOT NULL, tenant TEXT NOT NULL, app TEXT NOT NULL,
    actor TEXT NOT NULL, operation TEXT NOT NULL, path TEXT NOT NULL, status BIGINT NOT NULL,
    request TEXT NOT NULL);
CREATE INDEX api_writes_page ON api_writes (tenant, at);
"],
};

/// Longest answer delay.
const LONGEST_DELAY: u64 = 60_000;
/// Writes are remembered for so long.
const REMEMBERED_MICROS: i64 = 180 * 86_400_000_000;

/// The settings of a tenant.
pub async fn settings(state: &State, tenant: Uuid) -> Result<ServiceSettings, ApiError> {
    let select = "SELECT body FROM service_settings WHERE tenant = $1";
    let rows = state.database.read(select, &[tenant.to_string().into()]).await?;
    match rows.first() {
        Some(row) => serde_json::from_str(row.text(0)?).map_err(ApiError::internal),
        None => Ok(ServiceSettings::default()),
    }
}

/// How far investigations go by themselves; not at all where the plan has none.
pub fn automation_of(settings: &ServiceSettings) -> Automation {
    let plan = PLANS.iter().find(|plan| plan.plan == settings.plan);
    let left_out = plan.is_some_and(|plan| {
        plan.excluded_groups.iter().any(|group| group == "Automated investigations")
    });
    if left_out { Automation::default() } else { settings.automation }
}

/// The same for a tenant, as it stands in this transaction.
pub async fn automation(
    transaction: &mut Transaction,
    tenant: Uuid,
) -> Result<Automation, ApiError> {
    let select = "SELECT body FROM service_settings WHERE tenant = $1";
    let rows = transaction.read(select, &[tenant.to_string().into()]).await?;
    let Some(row) = rows.first() else { return Ok(Automation::default()) };
    let settings = serde_json::from_str(row.text(0)?).map_err(ApiError::internal)?;
    Ok(automation_of(&settings))
}

/// Replaces the settings of a tenant.
pub async fn set(
    state: &State,
    tenant: Uuid,
    settings: &ServiceSettings,
) -> Result<ServiceSettings, ApiError> {
    for fault in &settings.faults {
        if !matches!(fault.status, 401 | 429 | 500 | 502 | 503 | 504) {
            let status = fault.status;
            return Err(ApiError::body(format!("faults: status {status} cannot be injected")));
        }
        if fault.every == 0 {
            return Err(ApiError::body("faults: every: a number from 1 on is expected"));
        }
        if let Some(id) = fault.operation.as_ref().filter(|id| operation(id).is_none()) {
            return Err(ApiError::body(format!("faults: there is no operation {id}")));
        }
    }
    if settings.latency_milliseconds > LONGEST_DELAY {
        let message = format!("latencyMilliseconds: at most {LONGEST_DELAY} is expected");
        return Err(ApiError::body(message));
    }
    let body = serde_json::to_string(settings).map_err(ApiError::internal)?;
    let insert = "INSERT INTO service_settings (tenant, body) VALUES ($1, $2) \
                  ON CONFLICT (tenant) DO UPDATE SET body = excluded.body";
    state.database.execute(insert, &[tenant.to_string().into(), body.into()]).await?;
    self::settings(state, tenant).await
}

/// Whether the tenant's plan and trial let the operation answer.
pub fn allowed(
    settings: &ServiceSettings,
    operation: &Operation,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    if settings.trial_ends.is_some_and(|end| end <= now) {
        return Err(ApiError::unauthorized("Account mode is inactive"));
    }
    let Some(plan) = PLANS.iter().find(|plan| plan.plan == settings.plan) else { return Ok(()) };
    if plan.excluded_groups.contains(&operation.group)
        || plan.excluded_operations.contains(&operation.id)
    {
        let message = format!("{} is not part of {}.", operation.group, plan.name);
        return Err(ApiError::disabled(message));
    }
    Ok(())
}

/// Meets a call with what its tenant's settings say: plan, trial, delay, faults and limits.
pub async fn meet(
    state: &State,
    tenant: Uuid,
    app: Uuid,
    operation: &'static Operation,
) -> Result<(), ApiError> {
    let settings = settings(state, tenant).await?;
    allowed(&settings, operation, state.clock.now())?;
    if settings.latency_milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(settings.latency_milliseconds)).await;
    }
    if let Some(fault) = state.counters.fault(tenant, operation, &settings.faults) {
        return Err(fault);
    }
    // Hunting has quotas of its own.
    let counted = settings.throttling.enabled && operation.group != "Advanced hunting";
    if counted && state.quotas.is_some() {
        state.counters.count(tenant, app, operation, &settings, state.now())?;
    }
    Ok(())
}

/// Whether a call of the operation is remembered among the writes.
pub fn is_write(operation: &Operation) -> bool {
    let reads = operation.group == "Advanced hunting" || operation.id.contains(".history");
    operation.method != "GET" && !reads
}

/// Remembers a call that changed something or tried to.
pub async fn remember(
    state: &State,
    call: &Remembered,
    status: u16,
    request: Uuid,
) -> Result<(), ApiError> {
    let mut transaction = state.database.begin().await?;
    let now = state.now();
    let insert = "INSERT INTO api_writes (id, at, tenant, app, actor, operation, path, status, \
                  request) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = [
        Uuid::new_v4().to_string().into(),
        now.into(),
        call.tenant.to_string().into(),
        call.app.to_string().into(),
        call.actor.as_str().into(),
        call.operation.into(),
        call.path.as_str().into(),
        i64::from(status).into(),
        request.to_string().into(),
    ];
    transaction.execute(insert, &values).await?;
    let forget = "DELETE FROM api_writes WHERE tenant = $1 AND at < $2";
    let values = [call.tenant.to_string().into(), (now - REMEMBERED_MICROS).into()];
    transaction.execute(forget, &values).await?;
    Ok(transaction.commit().await?)
}

/// What is remembered of a call.
pub struct Remembered {
    tenant: Uuid,
    app: Uuid,
    actor: String,
    operation: &'static str,
    path: String,
}

impl Remembered {
    pub fn of(call: &Call) -> Remembered {
        Remembered {
            tenant: call.caller.tenant,
            app: call.caller.app_id,
            actor: call.actor(),
            operation: &call.operation.id,
            path: call.path.clone(),
        }
    }
}

/// The latest writes of a tenant.
pub async fn writes(state: &State, tenant: Uuid, top: u32) -> Result<Vec<Write>, ApiError> {
    let select = format!(
        "SELECT at, app, actor, operation, path, status, request FROM api_writes WHERE tenant = $1 \
         ORDER BY at DESC, id LIMIT {top}"
    );
    let mut all = Vec::new();
    for row in state.database.read(&select, &[tenant.to_string().into()]).await? {
        all.push(Write {
            at: DateTime::from_timestamp_micros(row.integer(0)?).unwrap_or_default(),
            app_id: row.text(1)?.to_owned(),
            actor: row.text(2)?.to_owned(),
            operation: row.text(3)?.to_owned(),
            path: row.text(4)?.to_owned(),
            status: row.integer(5)?,
            request_id: Uuid::try_parse(row.text(6)?).map_err(ApiError::internal)?,
        });
    }
    Ok(all)
}

/// Moves the server's clock.
pub fn move_clock(state: &State, change: ClockChange) -> Result<ClockState, ApiError> {
    let longest = TimeDelta::days(3650).num_seconds();
    if change.advance_seconds.abs() > longest {
        let message = format!("advanceSeconds: at most {longest} either way is expected");
        return Err(ApiError::body(message));
    }
    state.clock.advance(TimeDelta::seconds(change.advance_seconds));
    Ok(ClockState { now: state.clock.now() })
}
