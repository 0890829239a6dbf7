//! The edge of the resource API: which operation, who calls, may they.

mod access;
pub mod body;
mod error;
mod paths;
mod throttle;

pub use error::ApiError;
pub use throttle::Counters;

use crate::features::{self, gathered, metadata, service};
use crate::state::State;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_contract::operations::Operation;
use vigie_identity::Caller;

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
    /// The path ended in `/$count`: the list's length is the answer.
    pub count: bool,
}

impl Call {
    /// The body as JSON of a known shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body = body::read(&self.headers, &self.body, self.operation.request_body.as_ref())?;
        serde_json::from_value(body)
            .map_err(|error| ApiError::body(format!("Request body is incorrect: {error}")))
    }

    /// Who calls, as entities name them: a user by the principal name, an application by its name.
    pub fn actor(&self) -> String {
        match (&self.caller.user, self.caller.app_name.as_str()) {
            (Some(user), _) => user.principal_name.clone(),
            (None, "") => self.caller.app_id.to_string(),
            (None, name) => name.to_owned(),
        }
    }

    /// Who calls, by the id that does not change with a name.
    pub fn creator(&self) -> String {
        match &self.caller.user {
            Some(_) => self.caller.object_id.to_string(),
            None => self.caller.app_id.to_string(),
        }
    }

    /// The value of a parameter of the query that is no option of OData.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Serves `/api/…`.
pub async fn serve(state: State, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let id = request_id(&parts.headers);
    if let Some(document) = described(&parts) {
        return document;
    }
    let mut write = None;
    let outcome = async {
        let found = paths::find(&parts.method, parts.uri.path())?;
        let mut caller = access::authenticate(&state, &parts.headers)?;
        access::authorize(&state, &mut caller, found.operation).await?;
        service::meet(&state, caller.tenant, caller.app_id, found.operation).await?;
        let limit = features::largest_body(found.operation).unwrap_or(LARGEST_BODY);
        let body = axum::body::to_bytes(body, limit).await;
        let body = body.map_err(|_| ApiError::too_large(limit))?;
        let query = parts.uri.query().unwrap_or_default();
        // PostgreSQL keeps no text with U+0000.
        let decoded = percent_encoding::percent_decode_str(query).decode_utf8();
        if decoded.map_or(true, |text| text.contains('\0')) {
            return Err(ApiError::bad_request("The query is not valid UTF-8 without U+0000."));
        }
        let query = url::form_urlencoded::parse(query.as_bytes());
        let call = Call {
            operation: found.operation,
            caller,
            parameters: found.parameters,
            query: query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            headers: parts.headers.clone(),
            body,
            base: base(&parts),
            path: parts.uri.path().to_owned(),
            count: found.count,
        };
        if service::is_write(call.operation) {
            write = Some(service::Remembered::of(&call));
        }
        features::dispatch(&state, call).await
    };
    let mut response = match outcome.await {
        Ok(response) => response,
        Err(error) => error.response(id),
    };
    if let Some(write) = write
        && let Err(error) = service::remember(&state, &write, response.status().as_u16(), id).await
    {
        tracing::error!(error = error.message, request = %id, "a write is not remembered");
    }
    access::challenge(&state, &parts, &mut response);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("x-ms-request-id", id.clone());
        headers.insert("client-request-id", id);
    }
    headers.insert("odata-version", HeaderValue::from_static("4.0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The address that the client called, up to `/api`.
fn base(parts: &Parts) -> String {
    // HTTP/2 names the host in the address, HTTP/1.1 in a header.
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    format!("https://{}/api", authority.or(named).unwrap_or("127.0.0.1:8443"))
}

/// The documents that tell of the service and of no tenant: they need no token.
fn described(parts: &Parts) -> Option<Response> {
    let path = parts.uri.path().trim_end_matches('/').to_ascii_lowercase();
    match (parts.method.as_str(), path.trim_end_matches("/v1.0")) {
        ("GET", "/api") => Some(json(200, &metadata::service(&base(parts)))),
        ("GET", "/api/$metadata" | "/api/v1.0/$metadata") => {
            let xml = [(header::CONTENT_TYPE, "application/xml")];
            Some((xml, metadata::DOCUMENT.as_str()).into_response())
        }
        _ => None,
    }
}

/// Serves the files of exports: the link is the permission.
pub async fn serve_export(state: State, request: Request) -> Response {
    let id = request_id(request.headers());
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    let query = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    let proof = query.into_iter().find(|(name, _)| name == "sig").map(|(_, proof)| proof);
    match gathered::file(&state, name, &proof.unwrap_or_default()).await {
        Ok(file) => ([(header::CONTENT_TYPE, "application/gzip")], file).into_response(),
        Err(error) => error.response(id),
    }
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

/// A JSON answer.
pub fn json(status: u16, body: &Json) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let content_type = "application/json; odata.metadata=minimal; charset=utf-8";
    (status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response()
}
