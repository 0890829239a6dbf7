//! Advanced hunting: `POST /api/advancedqueries/run` and `/api/advancedhunting/run`.

pub mod functions;
mod quota;

pub use quota::Quotas;

use crate::edge::{ApiError, Call};
use crate::state::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use std::time::Instant;
use uuid::Uuid;
use vigie_hunting::{Database, Limit, Limits, QueryError};

/// The API words this limit otherwise than the portal does (documentation of the operation).
const TOO_LARGE: &str = "Query execution has exceeded the allowed result size. Optimize your query by \
                         limiting the number of results and try again";

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "query")]
    #[serde(rename = "Query")]
    query: String,
}

pub async fn run(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: Body = call.json()?;
    let database = database(state, call.caller.tenant).await?;
    let limits = Limits::default();
    let tenant = call.caller.tenant;
    let began = state.now();
    if let Some(quotas) = &state.quotas {
        quotas.begin(tenant, began).map_err(|exceeded| {
            ApiError::too_many_requests(exceeded.message, exceeded.retry_after)
        })?;
    }
    // Booked also where the caller goes away, which ends the query.
    let _running = Running { state, tenant, began, clock: Instant::now() };
    let result = state.engine.run(&database, &body.query, &limits).await;
    let result = result.map_err(|error| api_error(error, &body.query))?;
    let table = result.tables.last();
    let table = table.ok_or_else(|| ApiError::bad_request("The query has no tabular result."))?;
    let mut text = Vec::new();
    table.write_api_json(result.seconds, &mut text).map_err(ApiError::internal)?;
    if text.len() > limits.bytes {
        return Err(ApiError::bad_request(TOO_LARGE));
    }
    let content_type = "application/json; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// A tenant's rows and its saved functions.
pub async fn database(state: &State, tenant: Uuid) -> Result<Database, ApiError> {
    let rows = Database::Lake { lake: state.lake.clone(), tenant };
    Ok(match functions::saved(state, tenant).await? {
        Some(saved) => rows.with(saved),
        None => rows,
    })
}

/// Books the running time when it is dropped.
struct Running<'a> {
    state: &'a State,
    tenant: Uuid,
    began: i64,
    clock: Instant,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(quotas) = &self.state.quotas {
            let took = i64::try_from(self.clock.elapsed().as_micros()).unwrap_or(i64::MAX);
            quotas.end(self.tenant, self.began, took);
        }
    }
}

fn api_error(error: QueryError, query: &str) -> ApiError {
    match error {
        QueryError::Rejected(diagnostics) => {
            let texts: Vec<String> = diagnostics.iter().take(5).map(|d| d.display(query)).collect();
            ApiError::bad_request(texts.join("\n"))
        }
        QueryError::Limit(Limit::Size) => ApiError::bad_request(TOO_LARGE),
        QueryError::Internal(cause) => {
            tracing::error!(cause, "query failed");
            let message = "An unexpected error occurred during query execution. Please try again in \
                           a few minutes.";
            ApiError::new(500, "InternalServerError", message)
        }
        other => ApiError::bad_request(other.to_string()),
    }
}
