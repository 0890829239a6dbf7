//! What alerts tell of the investigation that they are part of.

use super::{evidence, set_status};
use crate::edge::ApiError;
use crate::state::State;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_database::Transaction;

pub const INDEXES: &str = "
CREATE INDEX alerts_queued ON alerts (created) WHERE investigation_state = 'Queued';
CREATE INDEX alerts_investigation ON alerts (investigation) WHERE investigation IS NOT NULL;
";

/// An alert that waits for its investigation.
pub struct Queued {
    pub id: String,
    pub tenant: Uuid,
    pub machine: String,
    pub machine_name: String,
}

/// The alerts that wait, oldest first.
pub async fn queued(state: &State) -> Result<Vec<Queued>, ApiError> {
    let select = "SELECT id, tenant, machine, name FROM alerts \
                  WHERE investigation_state = 'Queued' ORDER BY created LIMIT 100";
    let mut all = Vec::new();
    for row in state.database.read(select, &[]).await? {
        all.push(Queued {
            id: row.text(0)?.to_owned(),
            tenant: Uuid::try_parse(row.text(1)?).map_err(ApiError::internal)?,
            machine: row.text(2)?.to_owned(),
            machine_name: row.text(3)?.to_owned(),
        });
    }
    Ok(all)
}

/// Makes an alert part of an investigation that runs; false if another node did so before.
pub async fn join(
    transaction: &mut Transaction,
    now: i64,
    alert: &str,
    investigation: i64,
) -> Result<bool, ApiError> {
    let update = "UPDATE alerts SET investigation = $1, investigation_state = 'Running', \
                  updated = $2 WHERE id = $3 AND investigation IS NULL";
    let values = [investigation.into(), now.into(), alert.into()];
    Ok(transaction.execute(update, &values).await? > 0)
}

/// Takes an alert out of the queue: its tenant wants no investigation any more.
pub async fn leave(state: &State, alert: &str) -> Result<(), ApiError> {
    let update = "UPDATE alerts SET investigation_state = 'TerminatedBySystem', updated = $1 \
                  WHERE id = $2 AND investigation_state = 'Queued'";
    state.database.execute(update, &[state.now().into(), alert.into()]).await?;
    Ok(())
}

/// Tells an investigation's alerts how it stands, and resolves them if asked to.
pub async fn set_state(
    transaction: &mut Transaction,
    now: i64,
    investigation: i64,
    name: &str,
    resolve: bool,
) -> Result<(), ApiError> {
    let update =
        "UPDATE alerts SET investigation_state = $1, updated = $2 WHERE investigation = $3";
    transaction.execute(update, &[name.into(), now.into(), investigation.into()]).await?;
    if resolve {
        let select = "SELECT id FROM alerts WHERE investigation = $1 AND status <> 'Resolved'";
        for row in transaction.read(select, &[investigation.into()]).await? {
            set_status(transaction, now, row.text(0)?, "Resolved").await?;
        }
    }
    Ok(())
}

/// How many alerts an investigation has.
pub async fn count_of_investigation(
    transaction: &mut Transaction,
    investigation: i64,
) -> Result<usize, ApiError> {
    let select = "SELECT id FROM alerts WHERE investigation = $1";
    Ok(transaction.read(select, &[investigation.into()]).await?.len())
}

/// Whether all alerts of an investigation are resolved.
pub async fn are_resolved(state: &State, investigation: i64) -> Result<bool, ApiError> {
    let select = "SELECT id FROM alerts WHERE investigation = $1 AND status <> 'Resolved' LIMIT 1";
    Ok(state.database.read(select, &[investigation.into()]).await?.is_empty())
}

/// The alerts of an investigation by number, and the evidence of all of them.
pub async fn evidence_of_investigation(
    state: &State,
    investigation: i64,
) -> Result<(usize, Vec<Json>), ApiError> {
    let select = "SELECT id FROM alerts WHERE investigation = $1 ORDER BY created, id";
    let rows = state.database.read(select, &[investigation.into()]).await?;
    let ids = rows.iter().map(|row| Ok(row.text(0)?.to_owned()));
    let ids = ids.collect::<Result<Vec<String>, ApiError>>()?;
    let mut found = evidence::load(&state.database, &ids).await?;
    let evidence = ids.iter().flat_map(|id| found.remove(id).unwrap_or_default());
    Ok((ids.len(), evidence.collect()))
}
