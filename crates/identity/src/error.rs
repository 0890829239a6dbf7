//! Errors of sign-in in Entra's form: an OAuth error with an AADSTS number.

use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use uuid::Uuid;

/// An error of the token endpoint (RFC 6749, section 5.2) with Entra's additions.
#[derive(Clone, Debug, PartialEq)]
pub struct SignInError {
    /// AADSTS number.
    pub number: u32,
    /// OAuth error code.
    pub code: &'static str,
    pub status: StatusCode,
    /// Text behind `AADSTSn: `.
    pub text: String,
}

impl SignInError {
    fn new(number: u32, code: &'static str, status: u16, text: String) -> SignInError {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        SignInError { number, code, status, text }
    }

    pub fn tenant_not_found(tenant: &str) -> SignInError {
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are \
             signing into the correct cloud. Check with your subscription administrator, this may \
             happen if there are no active subscriptions for the tenant."
        );
        SignInError::new(90002, "invalid_request", 400, text)
    }

    pub fn tenant_not_named() -> SignInError {
        let text = "No tenant-identifying information found in either the request or implied by any \
                    provided credentials.";
        SignInError::new(50059, "invalid_request", 400, text.to_owned())
    }

    pub fn application_not_found(app_id: &str, tenant: &str) -> SignInError {
        let text = format!(
            "Application with identifier '{app_id}' was not found in the directory '{tenant}'. This \
             can happen if the application has not been installed by the administrator of the \
             tenant or consented to by any user in the tenant. You may have sent your \
             authentication request to the wrong tenant."
        );
        SignInError::new(700016, "unauthorized_client", 400, text)
    }

    pub fn wrong_secret(app_id: &str) -> SignInError {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app '{app_id}'."
        );
        SignInError::new(7000215, "invalid_client", 401, text)
    }

    pub fn expired_secret(app_id: &str) -> SignInError {
        let text = format!("The provided client secret keys for app '{app_id}' are expired.");
        SignInError::new(7000222, "invalid_client", 401, text)
    }

    pub fn secret_missing() -> SignInError {
        let text = "'client_assertion', 'client_secret' or 'request' is required for the \
                    'client_credentials' grant type.";
        SignInError::new(7000216, "invalid_client", 401, text.to_owned())
    }

    pub fn assertion_unsupported() -> SignInError {
        let text = "Client assertion is not supported by this server yet; use a client secret.";
        SignInError::new(700027, "invalid_client", 401, text.to_owned())
    }

    pub fn parameter_missing(name: &str) -> SignInError {
        let text = format!("The request body must contain the following parameter: '{name}'.");
        SignInError::new(900144, "invalid_request", 400, text)
    }

    pub fn malformed(text: impl Into<String>) -> SignInError {
        SignInError::new(9002313, "invalid_request", 400, text.into())
    }

    pub fn method_not_allowed(method: &str) -> SignInError {
        let text = format!("The endpoint only accepts POST requests. Received a {method} request.");
        SignInError::new(900561, "invalid_request", 405, text)
    }

    pub fn grant_unsupported(grant: &str) -> SignInError {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        SignInError::new(70003, "unsupported_grant_type", 400, text)
    }

    pub fn resource_not_found(resource: &str, tenant: &str) -> SignInError {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. \
             This can happen if the application has not been installed by the administrator of the \
             tenant or consented to by any user in the tenant. You might have sent your \
             authentication request to the wrong tenant."
        );
        SignInError::new(500011, "invalid_resource", 400, text)
    }

    pub fn scope_not_default(scope: &str) -> SignInError {
        let text = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a \
             scope value with /.default suffixed to the resource identifier (application ID URI)."
        );
        SignInError::new(1002012, "invalid_scope", 400, text)
    }

    pub fn resource_on_v2() -> SignInError {
        let text = "The 'resource' request parameter is not supported.";
        SignInError::new(901002, "invalid_request", 400, text.to_owned())
    }

    pub fn internal() -> SignInError {
        let text =
            "An unexpected, non-retryable error stemming from the directory service has occurred.";
        SignInError::new(90006, "server_error", 500, text.to_owned())
    }

    /// The answer; `correlation` is the caller's request id.
    pub fn response(&self, correlation: Uuid, now: DateTime<Utc>, basic: bool) -> Response {
        let trace = Uuid::new_v4();
        let timestamp = now.format("%Y-%m-%d %H:%M:%SZ").to_string();
        let description = format!(
            "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}",
            self.number, self.text
        );
        let body = json!({
            "error": self.code,
            "error_description": description,
            "error_codes": [self.number],
            "timestamp": timestamp,
            "trace_id": trace.to_string(),
            "correlation_id": correlation.to_string(),
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.number),
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        // RFC 6749, section 5.2: a client that used Basic is answered in its scheme.
        if basic && self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        response
    }
}
