//! The edge of the resource API: which operation, who calls, may they.

mod error;
mod paths;

pub use error::ApiError;

use crate::features;
use crate::state::State;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_contract::operations::Operation;
use vigie_identity::{Caller, Resource};

/// Largest body of an API request.
const LARGEST_BODY: usize = 4 << 20;

/// A request to one operation, its caller known and allowed.
pub struct Call {
    pub operation: &'static Operation,
    pub caller: Caller,
    /// Values of the path's parameters, in order.
    pub parameters: Vec<String>,
    /// Decoded query, names as written.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// For example `https://127.0.0.1:8443/api`, for links.
    pub base: String,
    /// The request's own path, for links.
    pub path: String,
}

impl Call {
    /// The body as JSON of a known shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if content_type.is_some_and(|value| !value.to_ascii_lowercase().contains("json")) {
            return Err(ApiError::media_type());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::body(format!("Request body is incorrect: {error}")))
    }
}

/// Serves `/api/…`.
pub async fn serve(state: State, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let id = request_id(&parts.headers);
    let outcome = async {
        let found = paths::find(&parts.method, parts.uri.path())?;
        let caller = authenticate(&state, &parts.headers)?;
        authorize(&caller, found.operation)?;
        let limit = features::largest_body(found.operation).unwrap_or(LARGEST_BODY);
        let body = axum::body::to_bytes(body, limit).await;
        let body = body.map_err(|_| ApiError::too_large(limit))?;
        // HTTP/2 names the host in the address, HTTP/1.1 in a header.
        let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = authority.or(named).unwrap_or("127.0.0.1:8443");
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let call = Call {
            operation: found.operation,
            caller,
            parameters: found.parameters,
            query: query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            headers: parts.headers.clone(),
            body,
            base: format!("https://{host}/api"),
            path: parts.uri.path().to_owned(),
        };
        features::dispatch(&state, call).await
    };
    let mut response = match outcome.await {
        Ok(response) => response,
        Err(error) => error.response(id),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("x-ms-request-id", id.clone());
        headers.insert("client-request-id", id);
    }
    headers.insert("odata-version", HeaderValue::from_static("4.0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The caller's id for the request where it is one, else a new one.
pub fn request_id(headers: &HeaderMap) -> Uuid {
    let named = ["client-request-id", "x-ms-client-request-id"];
    let id = named.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    id.and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_else(Uuid::new_v4)
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn authenticate(state: &State, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers).ok_or_else(|| ApiError::unauthorized("no bearer token"))?;
    (state.directory.verify(token, Resource::Defender))
        .map_err(|error| ApiError::unauthorized(&error.to_string()))
}

/// Any one of the operation's permissions suffices.
fn authorize(caller: &Caller, operation: &Operation) -> Result<(), ApiError> {
    let allowed = operation.app_permissions.iter().any(|p| caller.roles.contains(p));
    if allowed { Ok(()) } else { Err(ApiError::forbidden(operation, &caller.roles)) }
}

/// A JSON answer.
pub fn json(status: u16, body: &Json) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let content_type = "application/json; odata.metadata=minimal; charset=utf-8";
    (status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response()
}
