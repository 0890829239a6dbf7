//! The API's one shape of errors: `{"error":{"code","message","target"}}`.

use super::json;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::json;
use uuid::Uuid;
use vigie_contract::operations::Operation;

#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// The challenge says `error="invalid_token"` (RFC 6750, section 3.1).
    pub invalid_token: bool,
    /// Methods of `Allow`.
    pub allow: Option<String>,
}

impl ApiError {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> ApiError {
        let message = message.into();
        ApiError { status, code, message, retry_after: None, invalid_token: false, allow: None }
    }

    pub fn unauthorized(reason: &str) -> ApiError {
        let message = format!("Unauthorized request - reason of failure: {reason}");
        ApiError::new(401, "Unauthorized", message)
    }

    /// A token was sent and is not valid.
    pub fn invalid_token(reason: &str) -> ApiError {
        ApiError { invalid_token: true, ..ApiError::unauthorized(reason) }
    }

    pub fn forbidden(operation: &Operation, roles: &[String]) -> ApiError {
        let mut message = format!(
            "Missing application roles. API required roles: {}",
            operation.app_permissions.join(",")
        );
        if !roles.is_empty() {
            message.push_str(&format!(", application roles: {}.", roles.join(",")));
        }
        ApiError::new(403, "Forbidden", message)
    }

    pub fn not_found(what: &str, id: &str) -> ApiError {
        ApiError::new(404, "ResourceNotFound", format!("{what} {id} was not found"))
    }

    pub fn body(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidRequestBody", message)
    }

    pub fn missing(parameter: &str) -> ApiError {
        let message = format!("Parameter {parameter} is missing.");
        ApiError::new(400, "MissingRequiredParameter", message)
    }

    pub fn hash(value: &str) -> ApiError {
        ApiError::value("InvalidHashValue", "Hash value", value)
    }

    pub fn ip(value: &str) -> ApiError {
        ApiError::value("InvalidIpAddress", "IP address", value)
    }

    pub fn domain(value: &str) -> ApiError {
        ApiError::value("InvalidDomainName", "Domain name", value)
    }

    pub fn url(value: &str) -> ApiError {
        ApiError::value("InvalidUrl", "URL", value)
    }

    fn value(code: &'static str, what: &str, value: &str) -> ApiError {
        let value: String = value.chars().take(200).collect();
        ApiError::new(400, code, format!("{what} {value} is invalid."))
    }

    pub fn batch_size(received: usize, allowed: usize) -> ApiError {
        let message =
            format!("Maximum batch size exceeded. Received: {received}, allowed: {allowed}.");
        ApiError::new(400, "MaximumBatchSizeExceeded", message)
    }

    pub fn method_not_allowed(message: String, allow: String) -> ApiError {
        let error = ApiError::new(405, "MethodNotAllowed", message);
        ApiError { allow: Some(allow), ..error }
    }

    /// What the tenant's plan does not hold.
    pub fn disabled(message: impl Into<String>) -> ApiError {
        ApiError::new(403, "DisabledFeature", message)
    }

    pub fn odata(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "ODataError", message)
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "BadRequest", message)
    }

    /// `retry_after` in seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u64) -> ApiError {
        let error = ApiError::new(429, "TooManyRequests", message);
        ApiError { retry_after: Some(retry_after), ..error }
    }

    pub fn media_type() -> ApiError {
        ApiError::new(415, "UnsupportedMediaType", "The request body must be application/json")
    }

    pub fn too_large(limit: usize) -> ApiError {
        let message = format!("The request body is larger than {limit} bytes");
        ApiError::new(413, "RequestEntityTooLarge", message)
    }

    /// The cause goes to the log, not to the caller.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(%cause, "request failed");
        ApiError::new(500, "InternalServerError", "An unexpected error occurred")
    }

    pub fn response(&self, target: Uuid) -> Response {
        let error =
            json!({"code": self.code, "message": self.message, "target": target.to_string()});
        let mut response = json(self.status, &json!({ "error": error }));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| allow.parse().ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if self.status == 401 {
            // RFC 6750, section 3; the edge adds where to sign in.
            let challenge = HeaderValue::from_static(match self.invalid_token {
                true => "Bearer error=\"invalid_token\"",
                false => "Bearer",
            });
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<vigie_database::DatabaseError> for ApiError {
    fn from(error: vigie_database::DatabaseError) -> ApiError {
        ApiError::internal(error)
    }
}
