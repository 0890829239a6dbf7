//! What every endpoint knows of its request.

use crate::{Directory, SignInError};
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

/// Where a connection comes from; the HTTP server adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// Which of the two generations of endpoints was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// Names that stand for any tenant.
const ANY: &[&str] = &["common", "organizations", "consumers"];

/// A request to the authorization server.
#[derive(Clone)]
pub struct Ask {
    pub directory: Directory,
    /// As written in the path.
    pub tenant_name: String,
    pub version: Version,
    /// The address that answers name.
    pub base: String,
    pub headers: HeaderMap,
    pub query: String,
    /// Where the request comes from.
    pub address: String,
    /// The caller's id for the request, else one of ours.
    pub correlation: Uuid,
    /// Our id of the request.
    pub trace: Uuid,
}

impl Ask {
    /// Takes the headers out of the request.
    pub fn new(
        directory: &Directory,
        parts: &mut Parts,
        tenant_name: &str,
        version: Version,
    ) -> Ask {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let named = parts.headers.get("client-request-id").and_then(|id| id.to_str().ok());
        let named = named.map(str::to_owned).or_else(|| {
            let mut fields = url::form_urlencoded::parse(query.as_bytes());
            fields.find(|(name, _)| name == "client-request-id").map(|(_, id)| id.into_owned())
        });
        Ask {
            directory: directory.clone(),
            tenant_name: tenant_name.to_owned(),
            version,
            base: directory.authority().base(parts),
            address: address(parts),
            correlation: named
                .and_then(|id| Uuid::try_parse(&id).ok())
                .unwrap_or_else(Uuid::new_v4),
            trace: Uuid::new_v4(),
            query,
            // Last: the lines above read them.
            headers: std::mem::take(&mut parts.headers),
        }
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.directory.clock().now()
    }

    /// Whether the path names no tenant of its own.
    pub fn any_tenant(&self) -> bool {
        is_any(&self.tenant_name)
    }

    /// The tenant of the path; `None` for a name that stands for any.
    pub async fn tenant(&self) -> Result<Option<Uuid>, SignInError> {
        if self.any_tenant() {
            return Ok(None);
        }
        let found = self.directory.tenant_id(&self.tenant_name).await?;
        found.map(Some).ok_or_else(|| SignInError::tenant_not_found(&self.tenant_name))
    }

    /// A JSON answer that nobody keeps (RFC 6749, section 5.1).
    pub fn json(&self, status: StatusCode, body: &Json) -> Response {
        let content_type = HeaderValue::from_static("application/json; charset=utf-8");
        let body = serde_json::to_vec(body).expect("an answer is JSON");
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// Adds the headers of every answer, once it is made.
    pub fn finish(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        let no_store = HeaderValue::from_static("no-store, no-cache");
        headers.insert(header::CACHE_CONTROL, no_store);
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let text = |id: Uuid| HeaderValue::from_str(&id.to_string()).ok();
        if let Some(id) = text(self.trace) {
            headers.insert("x-ms-request-id", id);
        }
        let wanted = self.headers.get("return-client-request-id");
        if wanted.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
            && let Some(id) = text(self.correlation)
        {
            headers.insert("client-request-id", id);
        }
        response
    }

    /// `AADSTSn: … Trace ID: … Correlation ID: … Timestamp: …`
    pub fn description(&self, error: &SignInError) -> String {
        format!(
            "AADSTS{}: {} Trace ID: {} Correlation ID: {} Timestamp: {}",
            error.number,
            error.text,
            self.trace,
            self.correlation,
            self.timestamp()
        )
    }

    pub fn timestamp(&self) -> String {
        self.now().format("%Y-%m-%d %H:%M:%SZ").to_string()
    }

    /// An error of the token endpoint and its like.
    pub fn refuse(&self, error: &SignInError) -> Response {
        let mut body = json!({
            "error": error.code,
            "error_description": self.description(error),
            "error_codes": [error.number],
            "timestamp": self.timestamp(),
            "trace_id": self.trace.to_string(),
            "correlation_id": self.correlation.to_string(),
            "error_uri": format!("{}/error?code={}", self.base, error.number),
        });
        if let Some(suberror) = error.suberror {
            body["suberror"] = suberror.into();
        }
        if let Some(claims) = error.claims {
            body["claims"] = claims.into();
        }
        let mut response = self.json(error.status, &body);
        let headers = response.headers_mut();
        // RFC 6749, section 5.2: a client that used Basic is answered in its scheme.
        if error.status == StatusCode::UNAUTHORIZED && self.basic().is_some() {
            let challenge = HeaderValue::from_static("Basic realm=\"token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = error.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    /// What stands behind `Basic ` in the request.
    pub fn basic(&self) -> Option<&str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then(|| rest.trim())
    }

    /// The bearer token of the request.
    pub fn bearer(&self) -> Option<&str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    }
}

/// Whether a name stands for any tenant.
pub fn is_any(name: &str) -> bool {
    ANY.iter().any(|any| any.eq_ignore_ascii_case(name))
}

/// The peer, or what a reverse proxy on this machine says of it.
fn address(parts: &Parts) -> String {
    let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let forwarded = forwarded.and_then(|list| list.rsplit(',').next());
    match (peer, forwarded.and_then(|text| text.trim().parse::<IpAddr>().ok())) {
        (Some(peer), Some(forwarded)) if peer.is_loopback() => forwarded.to_string(),
        (Some(peer), _) => peer.to_string(),
        (None, _) => "unknown".to_owned(),
    }
}

/// Fields of a form or query; an empty value counts as absent.
#[derive(Clone, Debug, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Fields of a body. The content type may be missing: some clients omit it.
    pub fn of_body(headers: &HeaderMap, body: &Bytes) -> Result<Form, SignInError> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_none_or(|value| {
            let kind = value.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        if !is_form {
            let text = "The request body must be sent as application/x-www-form-urlencoded.";
            return Err(SignInError::malformed(text));
        }
        Form::parse(body)
    }

    /// Fields as encoded in forms and queries; one that occurs twice is refused (RFC 6749, sections
    /// 3.1 and 3.2).
    pub fn parse(encoded: &[u8]) -> Result<Form, SignInError> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            if fields.insert(name.to_string(), value.into_owned()).is_some() {
                // What stands there may be a secret in the wrong place, so it is not told.
                let known =
                    name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                let name = if known { name.as_ref() } else { "…" };
                let text = format!("The parameter '{name}' is duplicated.");
                return Err(SignInError::malformed(text));
            }
        }
        Ok(Form(fields))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn required(&self, name: &str) -> Result<&str, SignInError> {
        self.get(name).ok_or_else(|| SignInError::parameter_missing(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// What a client encodes is read as it was; what nobody encoded panics nowhere.
        #[test]
        fn forms_are_read_as_they_were_written(value in ".{1,60}", noise in ".{0,80}") {
            let mut encoded = url::form_urlencoded::Serializer::new(String::new());
            let encoded = encoded.append_pair("state", &value).finish();
            let form = Form::parse(encoded.as_bytes()).expect("a form");
            proptest::prop_assert_eq!(form.get("state"), Some(value.as_str()));
            if let Err(error) = Form::parse(noise.as_bytes()) {
                proptest::prop_assert_eq!(error.number, 9_002_313);
            }
        }
    }
}
