//! Rules that a tenant keeps: the administration of them.

use super::built_in::RULES;
use super::run::run_rule;
use super::validate::validate;
use crate::edge::ApiError;
use crate::state::State;
use chrono::DateTime;
use uuid::Uuid;
use vigie_contract::detection::{Detection, NewDetection};
use vigie_database::{DatabaseError, Row};

const SELECT: &str =
    "SELECT id, body, last_run, last_status, next_run FROM detection_rules WHERE tenant = $1";

/// The rules that come with the server, then the tenant's own by name.
pub async fn list(state: &State, tenant: Uuid) -> Result<Vec<Detection>, ApiError> {
    let mut all = RULES.clone();
    all.extend(own(state, tenant).await?);
    Ok(all)
}

/// The tenant's own rules.
pub(super) async fn own(state: &State, tenant: Uuid) -> Result<Vec<Detection>, ApiError> {
    let sql = format!("{SELECT} ORDER BY name");
    let rows = state.database.read(&sql, &[tenant.to_string().into()]).await?;
    rows.iter().map(detection).collect()
}

fn detection(row: &Row) -> Result<Detection, ApiError> {
    let rule: NewDetection = serde_json::from_str(row.text(1)?).map_err(ApiError::internal)?;
    let time = |micros: Option<i64>| micros.and_then(DateTime::from_timestamp_micros);
    Ok(Detection {
        id: Uuid::try_parse(row.text(0)?).map_err(ApiError::internal)?,
        next_run: time(row.optional_integer(4)?).filter(|_| rule.enabled),
        rule,
        built_in: false,
        last_run: time(row.optional_integer(2)?),
        last_run_status: row.optional_text(3)?.map(str::to_owned),
    })
}

/// One rule.
pub async fn get(state: &State, tenant: Uuid, id: &str) -> Result<Detection, ApiError> {
    if let Some(rule) = RULES.iter().find(|rule| rule.id.to_string() == id.to_lowercase()) {
        return Ok(rule.clone());
    }
    let sql = format!("{SELECT} AND id = $2");
    let values = [tenant.to_string().into(), id.to_lowercase().into()];
    let rows = state.database.read(&sql, &values).await?;
    detection(rows.first().ok_or_else(|| ApiError::not_found("Detection", id))?)
}

/// Makes a rule; it runs at once, over the events of 30 days.
pub async fn create(
    state: &State,
    tenant: Uuid,
    mut rule: NewDetection,
) -> Result<Detection, ApiError> {
    validate(state, tenant, &mut rule).await?;
    let id = Uuid::new_v4().to_string();
    let insert = "INSERT INTO detection_rules (id, tenant, name, enabled, body, next_run) \
                  VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [
        id.as_str().into(),
        tenant.to_string().into(),
        rule.display_name.as_str().into(),
        rule.enabled.into(),
        serde_json::to_string(&rule).map_err(ApiError::internal)?.into(),
        state.now().into(),
    ];
    state.database.execute(insert, &values).await.map_err(|error| taken(error, &rule))?;
    get(state, tenant, &id).await
}

/// Replaces a rule; it runs at once.
pub async fn replace(
    state: &State,
    tenant: Uuid,
    id: &str,
    mut rule: NewDetection,
) -> Result<Detection, ApiError> {
    let found = changeable(state, tenant, id).await?;
    validate(state, tenant, &mut rule).await?;
    let update = "UPDATE detection_rules SET name = $1, enabled = $2, body = $3, next_run = $4 \
                  WHERE id = $5";
    let values = [
        rule.display_name.as_str().into(),
        rule.enabled.into(),
        serde_json::to_string(&rule).map_err(ApiError::internal)?.into(),
        state.now().into(),
        found.id.to_string().into(),
    ];
    state.database.execute(update, &values).await.map_err(|error| taken(error, &rule))?;
    get(state, tenant, id).await
}

/// Removes a rule; its alerts stay.
pub async fn delete(state: &State, tenant: Uuid, id: &str) -> Result<(), ApiError> {
    let found = changeable(state, tenant, id).await?;
    let delete = "DELETE FROM detection_rules WHERE id = $1";
    state.database.execute(delete, &[found.id.to_string().into()]).await?;
    Ok(())
}

/// Runs a rule now; what became of it stands in the answer.
pub async fn run_now(state: &State, tenant: Uuid, id: &str) -> Result<Detection, ApiError> {
    let found = changeable(state, tenant, id).await?;
    run_rule(state, tenant, &found).await?;
    get(state, tenant, id).await
}

async fn changeable(state: &State, tenant: Uuid, id: &str) -> Result<Detection, ApiError> {
    let found = get(state, tenant, id).await?;
    match found.built_in {
        true => {
            let message = format!("{} comes with the server and stays as it is", found.rule.title);
            Err(ApiError::new(403, "DisallowedOperation", message))
        }
        false => Ok(found),
    }
}

fn taken(error: DatabaseError, rule: &NewDetection) -> ApiError {
    match error {
        DatabaseError::Constraint(_) => {
            let message = format!("There is a rule named '{}' already", rule.display_name);
            ApiError::new(409, "Conflict", message)
        }
        other => other.into(),
    }
}
