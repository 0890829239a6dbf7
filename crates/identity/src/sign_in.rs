//! The token endpoints: client credentials (RFC 6749, section 4.4), v1 and v2.

use crate::audit::Entry;
use crate::discovery;
use crate::error::SignInError;
use crate::keys::opaque;
use crate::{Directory, DirectoryError, Resource};
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json_, json};
use std::collections::HashMap;
use uuid::Uuid;

/// Seconds that a token is valid.
const LIFETIME: i64 = 3599;
/// Largest body of a token request.
const LARGEST_BODY: usize = 64 * 1024;

/// The authorization server: every path of which a tenant is the first part. Anything else falls
/// through to `otherwise`.
pub fn router(directory: Directory) -> Router {
    Router::new().fallback(serve).with_state(directory)
}

/// Whether a path belongs to the authorization server.
pub fn is_sign_in_path(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["/oauth2/", "/.well-known/openid-configuration", "/discovery/"]
        .iter()
        .any(|part| path.contains(part))
}

async fn serve(State(directory): State<Directory>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_matches('/').to_owned();
    let (tenant, endpoint) = path.split_once('/').unwrap_or((&path, ""));
    let endpoint = endpoint.to_ascii_lowercase();
    let base = base_url(&parts);
    match endpoint.as_str() {
        "oauth2/token" | "oauth2/v2.0/token" => {
            let version = if endpoint.contains("v2.0") { Version::V2 } else { Version::V1 };
            let correlation = correlation_id(&parts.headers);
            let now = directory.clock().now();
            let basic = parts.headers.contains_key(header::AUTHORIZATION);
            if parts.method != Method::POST {
                let error = SignInError::method_not_allowed(parts.method.as_str());
                return error.response(correlation, now, basic);
            }
            let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
                Ok(body) => body,
                Err(_) => {
                    let error = SignInError::malformed("The request body is too large.");
                    return error.response(correlation, now, basic);
                }
            };
            match token(&directory, tenant, version, &parts.headers, &body).await {
                Ok(answer) => {
                    let mut response = Json(answer).into_response();
                    let headers = response.headers_mut();
                    let no_store = HeaderValue::from_static("no-store, no-cache");
                    headers.insert(header::CACHE_CONTROL, no_store);
                    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
                    response
                }
                Err(error) => error.response(correlation, now, basic),
            }
        }
        _ => discovery::serve(&directory, tenant, &endpoint, &base, &parts).await,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

/// The address under which the caller reached this server.
fn base_url(parts: &http::request::Parts) -> String {
    // HTTP/2 names the host in the address, HTTP/1.1 in a header.
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    format!("https://{}", authority.or(named).unwrap_or("127.0.0.1:8443"))
}

fn correlation_id(headers: &HeaderMap) -> Uuid {
    let named = headers.get("client-request-id").and_then(|id| id.to_str().ok());
    named.and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_else(Uuid::new_v4)
}

async fn token(
    directory: &Directory,
    tenant_name: &str,
    version: Version,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Json_, SignInError> {
    let form = form(headers, body)?;
    if matches!(tenant_name.to_ascii_lowercase().as_str(), "common" | "organizations" | "consumers")
    {
        return Err(SignInError::tenant_not_named());
    }
    let tenant = directory.tenant_id(tenant_name).await.map_err(internal)?;
    let tenant = tenant.ok_or_else(|| SignInError::tenant_not_found(tenant_name))?;
    let grant =
        form.get("grant_type").ok_or_else(|| SignInError::parameter_missing("grant_type"))?;
    if grant != "client_credentials" {
        return Err(SignInError::grant_unsupported(grant));
    }
    let (client_id, secret) = credentials(headers, &form)?;
    let not_found = || SignInError::application_not_found(&client_id, &tenant.to_string());
    let app_id = Uuid::try_parse(&client_id).map_err(|_| not_found())?;
    let client = directory.client(tenant, app_id).await.map_err(internal)?;
    let client = client.ok_or_else(not_found)?;
    let secret = match secret {
        Some(secret) => secret,
        None if form.contains_key("client_assertion") => {
            return Err(SignInError::assertion_unsupported());
        }
        None => return Err(SignInError::secret_missing()),
    };
    let now = directory.clock().now();
    let mut expired = false;
    let mut proven = false;
    // Every secret is compared, so that the time tells nothing of their order.
    for (hash, expires) in &client.secrets {
        if directory.shared().master.is_hash_of(hash, &secret) {
            if *expires > now { proven = true } else { expired = true }
        }
    }
    if !proven {
        let error = match expired {
            true => SignInError::expired_secret(&client_id),
            false => SignInError::wrong_secret(&client_id),
        };
        sign_in_entry(directory, tenant, &client_id, error.number).await;
        return Err(error);
    }
    let (audience, resource) = resource(version, &form, &tenant.to_string())?;
    let roles: Vec<&str> = (client.grants.iter())
        .filter(|(name, _)| name == resource.name())
        .map(|(_, role)| role.as_str())
        .collect();
    let (issued, expires) = (now.timestamp(), now.timestamp() + LIFETIME);
    let issuer = format!("https://sts.windows.net/{tenant}/");
    let mut claims = json!({
        "aud": audience, "iss": issuer, "iat": issued, "nbf": issued, "exp": expires,
        "aio": opaque(), "appid": app_id.to_string(), "appidacr": "1",
        "app_displayname": client.display_name, "idp": issuer, "idtyp": "app",
        "oid": client.object_id.to_string(), "rh": format!("0.{}.", opaque()),
        "sub": client.object_id.to_string(), "tid": tenant.to_string(),
        "uti": opaque(), "ver": "1.0",
    });
    if !roles.is_empty() {
        claims["roles"] = json!(roles);
    }
    let token = directory.signing_key().sign(&claims);
    Ok(match version {
        // The v1 endpoint sends its numbers as texts.
        Version::V1 => json!({
            "token_type": "Bearer", "expires_in": LIFETIME.to_string(),
            "ext_expires_in": LIFETIME.to_string(), "expires_on": expires.to_string(),
            "not_before": issued.to_string(), "resource": audience, "access_token": token,
        }),
        Version::V2 => json!({
            "token_type": "Bearer", "expires_in": LIFETIME, "ext_expires_in": LIFETIME,
            "access_token": token,
        }),
    })
}

/// A failed sign-in goes to the audit log; that it cannot be written must not help anybody in.
async fn sign_in_entry(directory: &Directory, tenant: Uuid, client_id: &str, number: u32) {
    let outcome = number.to_string();
    let entry = Entry {
        tenant: Some(tenant),
        actor: client_id,
        action: "signIn",
        target: "token",
        outcome: &outcome,
    };
    let written = async {
        let mut transaction = directory.database().begin().await?;
        directory.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok::<_, DirectoryError>(())
    };
    if let Err(error) = written.await {
        tracing::warn!(%error, "a failed sign-in was not written to the audit log");
    }
}

fn internal(error: DirectoryError) -> SignInError {
    tracing::error!(%error, "sign-in failed");
    SignInError::internal()
}

/// Fields of the form; a field given twice is refused (RFC 6749, section 3.2).
fn form(headers: &HeaderMap, body: &Bytes) -> Result<HashMap<String, String>, SignInError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = content_type.is_some_and(|value| {
        value.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
    });
    if !is_form {
        let text = "The request body must be sent as application/x-www-form-urlencoded.";
        return Err(SignInError::malformed(text));
    }
    let mut fields = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        if fields.insert(name.to_string(), value.into_owned()).is_some() {
            let text = format!("The parameter '{name}' is duplicated.");
            return Err(SignInError::malformed(text));
        }
    }
    Ok(fields)
}

/// Client id and secret, from the form or from HTTP Basic (RFC 6749, section 2.3.1).
fn credentials(
    headers: &HeaderMap,
    form: &HashMap<String, String>,
) -> Result<(String, Option<String>), SignInError> {
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(encoded) = basic.and_then(|value| value.strip_prefix("Basic ")) {
        let decoded = STANDARD.decode(encoded.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let Some((id, secret)) = pair else {
            return Err(SignInError::malformed("The Authorization header is malformed."));
        };
        let plain = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        return Ok((plain(id), Some(plain(secret)).filter(|secret| !secret.is_empty())));
    }
    let id = form.get("client_id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| SignInError::parameter_missing("client_id"))?;
    Ok((id.clone(), form.get("client_secret").filter(|secret| !secret.is_empty()).cloned()))
}

/// The audience as asked for, and its resource.
fn resource(
    version: Version,
    form: &HashMap<String, String>,
    tenant: &str,
) -> Result<(String, Resource), SignInError> {
    let named = match version {
        Version::V1 => form
            .get("resource")
            .cloned()
            .ok_or_else(|| SignInError::parameter_missing("resource"))?,
        Version::V2 => {
            if form.contains_key("resource") {
                return Err(SignInError::resource_on_v2());
            }
            let scope = form.get("scope").ok_or_else(|| SignInError::parameter_missing("scope"))?;
            let mut scopes = scope.split_whitespace();
            let only = scopes.next().filter(|_| scopes.next().is_none());
            let resource = only.and_then(|scope| scope.strip_suffix("/.default"));
            resource.ok_or_else(|| SignInError::scope_not_default(scope))?.to_owned()
        }
    };
    let found = Resource::find(&named);
    let found = found.ok_or_else(|| SignInError::resource_not_found(&named, tenant))?;
    Ok((named, found))
}
