//! Discovery documents, key sets and instance discovery.

use crate::Directory;
use crate::error::SignInError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use uuid::Uuid;

/// Tenant names that stand for any tenant.
const ANY: &[&str] = &["common", "organizations", "consumers"];

pub async fn serve(
    directory: &Directory,
    tenant: &str,
    endpoint: &str,
    base: &str,
    parts: &Parts,
) -> Response {
    let v2 = match endpoint {
        ".well-known/openid-configuration" | "discovery/keys" => false,
        "v2.0/.well-known/openid-configuration" | "discovery/v2.0/keys" => true,
        "discovery/instance" => return instance(base, parts),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let lower = tenant.to_ascii_lowercase();
    let id = match ANY.contains(&lower.as_str()) {
        true => "{tenantid}".to_owned(),
        false => match directory.tenant_id(tenant).await {
            Ok(Some(id)) => id.to_string(),
            Ok(None) => {
                let mut error = SignInError::tenant_not_found(tenant);
                error.code = "invalid_tenant";
                return error.response(Uuid::new_v4(), directory.clock().now(), false);
            }
            Err(error) => {
                tracing::error!(%error, "discovery failed");
                let error = SignInError::internal();
                return error.response(Uuid::new_v4(), directory.clock().now(), false);
            }
        },
    };
    if endpoint.ends_with("keys") {
        let keys: Vec<_> = directory.shared().keys.iter().map(|key| key.jwk()).collect();
        return Json(json!({ "keys": keys })).into_response();
    }
    // The issuer of tokens is the one that clients of the original expect, wherever the server is.
    let issuer = match v2 {
        true => format!("{base}/{id}/v2.0"),
        false => format!("https://sts.windows.net/{id}/"),
    };
    let path = if v2 { "oauth2/v2.0" } else { "oauth2" };
    let keys = if v2 { "discovery/v2.0/keys" } else { "discovery/keys" };
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/{tenant}/{path}/authorize"),
        "token_endpoint": format!("{base}/{tenant}/{path}/token"),
        "jwks_uri": format!("{base}/{tenant}/{keys}"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "oid", "tid", "ver", "appid", "roles"],
        "tenant_region_scope": null,
        "cloud_instance_name": "microsoftonline.com",
    }))
    .into_response()
}

/// What MSAL asks before it trusts an authority: this host is its own cloud.
fn instance(base: &str, parts: &Parts) -> Response {
    let query = parts.uri.query().unwrap_or_default();
    let asked = url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "authorization_endpoint")
        .map(|(_, value)| value.into_owned());
    let tenant = asked
        .as_deref()
        .and_then(|endpoint| endpoint.split("://").nth(1)?.split('/').nth(1))
        .unwrap_or("common")
        .to_owned();
    let host = base.trim_start_matches("https://");
    Json(json!({
        "tenant_discovery_endpoint": format!("{base}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{
            "preferred_network": host, "preferred_cache": host, "aliases": [host],
        }],
    }))
    .into_response()
}
