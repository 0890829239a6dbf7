//! The administration API: [`vigie_contract::administration`] describes it.

mod directory;

use super::hunting::functions;
use super::{detections, machine_actions, sensors, service};
use crate::edge::{ApiError, bearer, json, request_id};
use crate::state::State;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_contract::service::ClockState;
use vigie_hunting::lake::Batch;
use vigie_identity::{DirectoryError, Resource};

/// Largest body of a request.
const LARGEST_BODY: usize = 32 << 20;

/// Serves `/admin/v1/…`.
pub async fn serve(state: State, request: Request) -> Response {
    let id = request_id(request.headers());
    match dispatch(&state, request).await {
        Ok(response) => response,
        Err(error) => error.response(id),
    }
}

async fn dispatch(state: &State, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let actor = authenticate(state, &parts.headers)?;
    let body = axum::body::to_bytes(body, LARGEST_BODY).await;
    let body = body.map_err(|_| ApiError::too_large(LARGEST_BODY))?;
    let path = parts.uri.path().trim_start_matches("/admin/v1").trim_matches('/');
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let directory = &state.directory;
    match (&parts.method, segments.as_slice()) {
        (&Method::GET, ["tenants"]) => list(directory.tenants().await?),
        (&Method::POST, ["tenants"]) => {
            created(&directory.create_tenant(&actor, &parse(&body)?).await?)
        }
        (&Method::GET, ["clock"]) => ok(&ClockState { now: state.clock.now() }),
        (&Method::POST, ["clock"]) => ok(&service::move_clock(state, parse(&body)?)?),
        (&Method::GET, ["document"]) => ok(&directory.export().await?),
        (&Method::PUT, ["document"]) => ok(&directory.apply(&actor, &parse(&body)?).await?),
        (&Method::GET, ["tenants", tenant]) => ok(&directory.tenant(tenant).await?),
        (&Method::DELETE, ["tenants", tenant]) => {
            let tenant = directory.tenant(tenant).await?;
            directory.delete_tenant(&actor, tenant.id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (method, ["tenants", tenant, rest @ ..]) => {
            let tenant = directory.tenant(tenant).await?.id;
            in_tenant(state, &actor, method, tenant, rest, &parts.uri, body).await
        }
        _ => Err(ApiError::not_found("Path", &path)),
    }
}

async fn in_tenant(
    state: &State,
    actor: &str,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    uri: &http::Uri,
    body: Bytes,
) -> Result<Response, ApiError> {
    match (method, path) {
        (&Method::POST, ["enrolmentkeys"]) => {
            created(&new_enrolment_key(state, tenant, &parse(&body)?).await?)
        }
        (_, ["detections" | "functions" | "service" | "writes", ..]) => {
            service_of(state, method, tenant, path, uri, &body).await
        }
        (&Method::GET, ["responselog"]) => list(machine_actions::log(state, tenant).await?),
        (&Method::GET, ["tables"]) => {
            let tables = state.lake.tenant_tables(tenant).into_iter().map(|table| StoredTable {
                table: table.table,
                rows: table.rows,
                bytes: table.bytes,
                earliest: table.earliest,
                latest: table.latest,
            });
            list(tables.collect())
        }
        (&Method::POST, ["telemetry"]) => {
            let mut source = None;
            let mut sequence = 0;
            let query = uri.query().unwrap_or_default();
            for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
                match name.as_ref() {
                    "source" => source = Some(value.into_owned()),
                    "sequence" => sequence = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
            let source = source.filter(|source| !source.is_empty());
            let source =
                source.ok_or_else(|| ApiError::bad_request("source: a name is expected"))?;
            let source = format!("import:{source}");
            let batch = Batch { tenant, source, sequence, constants: Vec::new(), body };
            ok(&sensors::append(state, batch).await?)
        }
        _ => directory::serve(state, actor, method, tenant, path, uri, &body).await,
    }
}

/// How a tenant is served: its detections, saved functions, plan and switches, and what was written.
async fn service_of(
    state: &State,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    uri: &http::Uri,
    body: &Bytes,
) -> Result<Response, ApiError> {
    match (method, path) {
        (&Method::GET, ["detections"]) => list(detections::list(state, tenant).await?),
        (&Method::POST, ["detections"]) => {
            created(&detections::create(state, tenant, parse(body)?).await?)
        }
        (&Method::GET, ["detections", id]) => ok(&detections::get(state, tenant, id).await?),
        (&Method::PUT, ["detections", id]) => {
            ok(&detections::replace(state, tenant, id, parse(body)?).await?)
        }
        (&Method::DELETE, ["detections", id]) => {
            detections::delete(state, tenant, id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (&Method::POST, ["detections", id, "run"]) => {
            ok(&detections::run_now(state, tenant, id).await?)
        }
        (&Method::GET, ["functions"]) => list(functions::list(state, tenant).await?),
        (&Method::POST, ["functions"]) => {
            created(&functions::create(state, tenant, parse(body)?).await?)
        }
        (&Method::GET, ["functions", name]) => ok(&functions::get(state, tenant, name).await?),
        (&Method::PUT, ["functions", name]) => {
            ok(&functions::replace(state, tenant, name, parse(body)?).await?)
        }
        (&Method::DELETE, ["functions", name]) => {
            functions::delete(state, tenant, name).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (&Method::GET, ["service"]) => ok(&service::settings(state, tenant).await?),
        (&Method::PUT, ["service"]) => ok(&service::set(state, tenant, &parse(body)?).await?),
        (&Method::GET, ["writes"]) => {
            let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
            let top = query.into_iter().find(|(name, _)| name == "top").map(|(_, top)| top.parse());
            let top = top.transpose().map_err(|_| ApiError::bad_request("top: a number"))?;
            list(service::writes(state, tenant, top.unwrap_or(100).min(10_000)).await?)
        }
        _ => Err(ApiError::not_found("Path", &path.join("/"))),
    }
}

/// Issues a key with which sensors enrol.
pub async fn new_enrolment_key(
    state: &State,
    tenant: Uuid,
    new: &NewEnrolmentKey,
) -> Result<EnrolmentKey, ApiError> {
    let enrolment_key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let expires = new.expires.unwrap_or(state.clock.now() + TimeDelta::days(365));
    let insert = "INSERT INTO enrolment_keys (id, tenant, display_name, hash, expires) \
                  VALUES ($1, $2, $3, $4, $5)";
    let values = [
        Uuid::new_v4().to_string().into(),
        tenant.to_string().into(),
        new.display_name.clone().into(),
        state.master.hash(&enrolment_key).into(),
        expires.timestamp_micros().into(),
    ];
    state.database.execute(insert, &values).await?;
    Ok(EnrolmentKey { enrolment_key, expires })
}

/// The application that calls; it needs the administration's role.
fn authenticate(state: &State, headers: &HeaderMap) -> Result<String, ApiError> {
    let token = bearer(headers).ok_or_else(|| ApiError::unauthorized("no bearer token"))?;
    let caller = state.directory.verify(token, Resource::Administration);
    let caller = caller.map_err(|error| ApiError::invalid_token(&error.to_string()))?;
    if !caller.roles.iter().any(|role| role == ROLE) {
        let message = format!("Missing application roles. API required roles: {ROLE}");
        return Err(ApiError::new(403, "Forbidden", message));
    }
    Ok(caller.app_id.to_string())
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::body(format!("Request body is incorrect: {error}")))
}

fn ok(answer: &impl Serialize) -> Result<Response, ApiError> {
    Ok(json(200, &serde_json::to_value(answer).map_err(ApiError::internal)?))
}

fn created(answer: &impl Serialize) -> Result<Response, ApiError> {
    Ok(json(201, &serde_json::to_value(answer).map_err(ApiError::internal)?))
}

fn list<T: Serialize>(value: Vec<T>) -> Result<Response, ApiError> {
    ok(&List { value })
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> ApiError {
        match error {
            DirectoryError::NotFound { .. } => {
                ApiError::new(404, "ResourceNotFound", error.to_string())
            }
            DirectoryError::Conflict { .. } => ApiError::new(409, "Conflict", error.to_string()),
            DirectoryError::Invalid { .. } => ApiError::body(error.to_string()),
            other => ApiError::internal(other),
        }
    }
}
