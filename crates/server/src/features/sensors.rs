//! The sensors' endpoints: [`vigie_contract::sensor`] describes them.

use super::{indicators, machine_actions, machines};
use crate::edge::{ApiError, bearer, json, request_id};
use crate::state::State;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use sha1::{Digest as _, Sha1};
use std::io::Read as _;
use std::sync::Arc;
use uuid::Uuid;
use vigie_contract::sensor::*;
use vigie_database::Migrations;
use vigie_hunting::lake::{Batch, LakeError, Watch};

pub const SENSORS: Migrations = Migrations {
    feature: "sensors",
    steps: &["
CREATE TABLE enrolment_keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, display_name TEXT, hash BYTEA NOT NULL,
    expires BIGINT NOT NULL);
CREATE TABLE order_keys (tenant TEXT PRIMARY KEY, private_key BYTEA NOT NULL);
"],
};

/// Seconds that a session lasts.
const SESSION: i64 = 3600;
/// Clocks of sensors may differ by this many seconds.
const SKEW: i64 = 300;
/// Longest wait for orders, in seconds.
const LONGEST_WAIT: u64 = 60;
const PURPOSE: &str = "order key";

/// Serves `/sensor/v1/…`.
pub async fn serve(state: State, request: Request) -> Response {
    let id = request_id(request.headers());
    match dispatch(&state, request).await {
        Ok(response) => response,
        Err(error) => error.response(id),
    }
}

async fn dispatch(state: &State, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches("/sensor/v1/").to_owned();
    let limit = MAX_TELEMETRY_BYTES;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| ApiError::too_large(limit))?;
    let external = parts.headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
    match (&parts.method, path.as_str()) {
        (&Method::POST, "enrol") => {
            let enrolled = enrol(state, parse(&parts.headers, body)?, external).await?;
            Ok(json(200, &serde_json::json!(enrolled)))
        }
        (&Method::POST, "session") => {
            let session = session(state, parse(&parts.headers, body)?).await?;
            Ok(json(200, &serde_json::json!(session)))
        }
        (method, path) => {
            let (tenant, machine) = authenticate(state, &parts.headers)?;
            match (method, path) {
                (&Method::POST, "report") => {
                    let report: MachineReport = parse(&parts.headers, body)?;
                    let mut transaction = state.database.begin().await?;
                    machines::store_report(state, &mut transaction, &machine, &report, external)
                        .await?;
                    transaction.commit().await?;
                    Ok(StatusCode::NO_CONTENT.into_response())
                }
                (&Method::POST, "telemetry") => {
                    let sequence = parameter(&parts.uri, "sequence").unwrap_or(0);
                    if sequence == 0 {
                        return Err(ApiError::bad_request(
                            "sequence: a number from 1 on is expected",
                        ));
                    }
                    let body = unfold(&parts.headers, body)?;
                    let acknowledged = telemetry(state, tenant, machine, sequence, body).await?;
                    Ok(json(200, &serde_json::json!(acknowledged)))
                }
                (&Method::GET, "orders") => {
                    let wait = parameter(&parts.uri, "wait").unwrap_or(0).min(LONGEST_WAIT);
                    let orders = machine_actions::fetch(state, tenant, &machine, wait).await?;
                    Ok(json(200, &serde_json::json!(orders)))
                }
                (method, path) if path.starts_with("orders/") => {
                    let (uri, headers) = (&parts.uri, &parts.headers);
                    machine_actions::serve(state, tenant, &machine, method, uri, headers, body)
                        .await
                }
                _ => Err(ApiError::not_found("Path", path)),
            }
        }
    }
}

/// A number in the query.
pub fn parameter(uri: &http::Uri, name: &str) -> Option<u64> {
    url::form_urlencoded::parse(uri.query()?.as_bytes())
        .find(|(found, _)| found == name)
        .and_then(|(_, value)| value.parse().ok())
}

/// Undoes `Content-Encoding`, within the size that a request may have.
pub fn unfold(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    match encoding {
        None | Some("identity") => Ok(body),
        Some("zstd") => {
            let mut out = Vec::new();
            let decoder = zstd::stream::read::Decoder::new(body.as_ref());
            let decoder = decoder.map_err(|error| ApiError::body(error.to_string()))?;
            (decoder.take(MAX_TELEMETRY_BYTES as u64 + 1).read_to_end(&mut out))
                .map_err(|error| ApiError::body(format!("bad zstd: {error}")))?;
            if out.len() > MAX_TELEMETRY_BYTES {
                return Err(ApiError::too_large(MAX_TELEMETRY_BYTES));
            }
            Ok(out.into())
        }
        Some(other) => {
            let message = format!("Content-Encoding '{other}' is not supported");
            Err(ApiError::new(415, "UnsupportedMediaType", message))
        }
    }
}

/// A body as JSON of a known shape.
pub fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: Bytes) -> Result<T, ApiError> {
    let body = unfold(headers, body)?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::body(format!("Request body is incorrect: {error}")))
}

/// Makes a machine known. The same installation keeps its machine id, whatever its key.
async fn enrol(
    state: &State,
    request: EnrolRequest,
    external: Option<&str>,
) -> Result<Enrolled, ApiError> {
    let tenant = enrolment_tenant(state, &request.enrolment_key).await?;
    let key = STANDARD.decode(&request.public_key).ok().filter(|key| key.len() == 32);
    key.ok_or_else(|| ApiError::body("publicKey: 32 bytes in base64 are expected"))?;
    let text = format!("{tenant}\n{}", request.installation_id);
    let machine: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    let now = state.now();
    let mut transaction = state.database.begin().await?;
    let insert = "INSERT INTO machines (id, tenant, installation, public_key, name, os_platform, \
        device_value, tags, report, first_seen, last_seen) \
        VALUES ($1, $2, $3, $4, $5, $6, 'Normal', $7, '{}', $8, $8) \
        ON CONFLICT (id) DO UPDATE SET public_key = excluded.public_key";
    let values = [
        machine.as_str().into(),
        tenant.to_string().into(),
        request.installation_id.as_str().into(),
        request.public_key.as_str().into(),
        request.report.computer_dns_name.as_str().into(),
        request.report.os_platform.as_str().into(),
        serde_json::json!(request.report.tags).to_string().into(),
        now.into(),
    ];
    transaction.execute(insert, &values).await?;
    machines::store_report(state, &mut transaction, &machine, &request.report, external).await?;
    transaction.commit().await?;
    let order_key = order_key(state, tenant).await?;
    let order_key = STANDARD.encode(order_key.public_key().as_ref());
    Ok(Enrolled { tenant_id: tenant, machine_id: machine, order_key })
}

async fn enrolment_tenant(state: &State, key: &str) -> Result<Uuid, ApiError> {
    let select = "SELECT tenant, hash, expires FROM enrolment_keys";
    let mut found = None;
    for row in state.database.read(select, &[]).await? {
        if state.master.is_hash_of(row.bytes(1)?, key) && row.integer(2)? > state.now() {
            found = Some(Uuid::try_parse(row.text(0)?).map_err(ApiError::internal)?);
        }
    }
    found.ok_or_else(|| ApiError::unauthorized("the enrolment key is not valid"))
}

/// The key pair that signs a tenant's orders; made when first needed.
pub async fn order_key(state: &State, tenant: Uuid) -> Result<Ed25519KeyPair, ApiError> {
    let select = "SELECT private_key FROM order_keys WHERE tenant = $1";
    let tenant = tenant.to_string();
    let mut rows = state.database.read(select, &[tenant.as_str().into()]).await?;
    if rows.is_empty() {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let made = Ed25519KeyPair::generate_pkcs8(&random).map_err(ApiError::internal)?;
        let sealed = state.master.seal(PURPOSE, made.as_ref());
        let insert = "INSERT INTO order_keys (tenant, private_key) VALUES ($1, $2) \
                      ON CONFLICT (tenant) DO NOTHING";
        state.database.execute(insert, &[tenant.as_str().into(), sealed.into()]).await?;
        rows = state.database.read(select, &[tenant.as_str().into()]).await?;
    }
    let row = rows.first().ok_or_else(|| ApiError::internal("no order key"))?;
    let opened = state.master.open(PURPOSE, row.bytes(0)?);
    let opened = opened.ok_or_else(|| ApiError::internal("an order key cannot be opened"))?;
    Ed25519KeyPair::from_pkcs8(&opened).map_err(ApiError::internal)
}

/// A session for whoever proves the machine's key.
async fn session(state: &State, request: SessionRequest) -> Result<Session, ApiError> {
    let refused = || ApiError::unauthorized("the sensor's proof is not valid");
    let now = state.clock.now().timestamp();
    if (now - request.unix_seconds).abs() > SKEW {
        let reason = format!("the sensor's clock differs by more than {SKEW} seconds");
        return Err(ApiError::unauthorized(&reason));
    }
    let select = "SELECT tenant, public_key FROM machines WHERE id = $1";
    let rows = state.database.read(select, &[request.machine_id.as_str().into()]).await?;
    let row = rows.first().ok_or_else(refused)?;
    let key = STANDARD.decode(row.text(1)?).map_err(|_| refused())?;
    let signature = STANDARD.decode(&request.signature).map_err(|_| refused())?;
    let text = session_text(&request.machine_id, request.unix_seconds);
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(text.as_bytes(), &signature).map_err(|_| refused())?;
    let payload = format!("{}.{}.{}", row.text(0)?, request.machine_id, now + SESSION);
    let proof = URL_SAFE_NO_PAD.encode(state.master.hash(&format!("sensor session {payload}")));
    let expires_in_seconds = SESSION.unsigned_abs();
    Ok(Session { token: format!("{payload}.{proof}"), expires_in_seconds })
}

/// Tenant and machine of a session token.
fn authenticate(state: &State, headers: &HeaderMap) -> Result<(Uuid, String), ApiError> {
    let refused = || ApiError::unauthorized("the session is not valid");
    let token = bearer(headers).ok_or_else(refused)?;
    let (payload, proof) = token.rsplit_once('.').ok_or_else(refused)?;
    let proof = URL_SAFE_NO_PAD.decode(proof).map_err(|_| refused())?;
    if !state.master.is_hash_of(&proof, &format!("sensor session {payload}")) {
        return Err(refused());
    }
    let mut parts = payload.split('.');
    let (Some(tenant), Some(machine), Some(expires)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(refused());
    };
    if expires.parse::<i64>().map_err(|_| refused())? <= state.clock.now().timestamp() {
        return Err(ApiError::unauthorized("the session has expired"));
    }
    Ok((Uuid::try_parse(tenant).map_err(|_| refused())?, machine.to_owned()))
}

async fn telemetry(
    state: &State,
    tenant: Uuid,
    machine: String,
    sequence: u64,
    body: Bytes,
) -> Result<Acknowledgement, ApiError> {
    let select = "SELECT name FROM machines WHERE id = $1";
    let rows = state.database.read(select, &[machine.as_str().into()]).await?;
    let name = rows.first().map_or(Ok(""), |row| row.text(0))?.to_owned();
    let constants = vec![("DeviceId".to_owned(), machine.clone()), ("DeviceName".to_owned(), name)];
    let batch = Batch { tenant, source: machine, sequence, constants, body };
    append(state, batch).await
}

/// Stores a batch. What indicators seek in it has become alerts before it is answered, so that a
/// sender who repeats it after a failure loses none.
pub async fn append(state: &State, batch: Batch) -> Result<Acknowledgement, ApiError> {
    let tenant = batch.tenant;
    let list = indicators::watch(state, tenant).await?;
    let watch = list.clone().map(|list| list as Arc<dyn Watch>);
    let arriving = state.lake.take(batch, watch).await.map_err(lake_error)?;
    if let Some(list) = list.filter(|_| !arriving.sightings.is_empty()) {
        indicators::raise(state, tenant, &list, &arriving.sightings).await?;
    }
    let appended = arriving.store().await.map_err(lake_error)?;
    Ok(Acknowledgement { sequence: appended.sequence })
}

/// The lake's errors as answers.
pub fn lake_error(error: LakeError) -> ApiError {
    match error {
        LakeError::Malformed { .. } | LakeError::Rejected { .. } => {
            ApiError::body(error.to_string())
        }
        LakeError::DiskFull { .. } => ApiError::new(507, "InsufficientStorage", error.to_string()),
        LakeError::Overloaded { .. } => ApiError::new(503, "ServiceUnavailable", error.to_string()),
        other => ApiError::internal(other),
    }
}
