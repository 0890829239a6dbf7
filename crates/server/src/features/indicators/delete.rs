//! Indicators go.

use super::{sees_own_only, submit::changed};
use crate::edge::{ApiError, Call};
use crate::state::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use vigie_database::Transaction;

/// Ids in one request.
const MOST: usize = 500;

/// `DELETE /api/indicators/{id}`
pub async fn delete(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = &call.parameters[0];
    let number = id.parse::<i64>().map_err(|_| ApiError::not_found("Indicator", id))?;
    let mut transaction = state.database.begin().await?;
    delete_one(state.now(), &mut transaction, &call, number).await?;
    changed(&mut transaction, &call).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    indicator_ids: Vec<String>,
}

/// `POST /api/indicators/BatchDelete`: all of them or none.
pub async fn delete_many(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: Body = call.json()?;
    if body.indicator_ids.is_empty() {
        return Err(ApiError::body("IndicatorIds: at least one id is expected"));
    }
    if body.indicator_ids.len() > MOST {
        return Err(ApiError::batch_size(body.indicator_ids.len(), MOST));
    }
    let mut numbers = Vec::new();
    for id in &body.indicator_ids {
        let number = id.trim().parse::<i64>();
        let number = number.map_err(|_| {
            let id: String = id.chars().take(80).collect();
            ApiError::body(format!("IndicatorIds: '{id}' is no id of an indicator"))
        })?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let mut transaction = state.database.begin().await?;
    for number in numbers {
        delete_one(state.now(), &mut transaction, &call, number).await?;
    }
    changed(&mut transaction, &call).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn delete_one(
    now: i64,
    transaction: &mut Transaction,
    call: &Call,
    id: i64,
) -> Result<(), ApiError> {
    let tenant = call.caller.tenant.to_string();
    let mut sql = "DELETE FROM indicators WHERE tenant = $1 AND id = $2 AND \
                   (expires IS NULL OR expires > $3)"
        .to_owned();
    let mut values = vec![tenant.into(), id.into(), now.into()];
    if sees_own_only(call) {
        sql.push_str(" AND app = $4");
        values.push(call.caller.app_id.to_string().into());
    }
    match transaction.execute(&sql, &values).await? {
        0 => Err(ApiError::not_found("Indicator", &id.to_string())),
        _ => Ok(()),
    }
}
