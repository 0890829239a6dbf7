//! Discovery documents, key sets, instance discovery and user realms.

use crate::SignInError;
use crate::resource::DIRECTORY_SCOPES;
use crate::sign_in::request::{Ask, Form, Version, is_any};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value as Json, json};

/// Serves what is found below a tenant besides the endpoints of sign-in. `path` is as written.
pub async fn serve(ask: &Ask, endpoint: &str, path: &str) -> Response {
    let outcome = match endpoint {
        ".well-known/openid-configuration" | "v2.0/.well-known/openid-configuration" => {
            document(ask).await
        }
        "discovery/keys" | "discovery/v2.0/keys" => keys(ask).await,
        "discovery/instance" => instance(ask),
        _ => match endpoint.strip_prefix("userrealm/") {
            Some(_) => user_realm(ask, path).await,
            None => return StatusCode::NOT_FOUND.into_response(),
        },
    };
    match outcome {
        Ok(body) => {
            let mut response = ask.json(StatusCode::OK, &body);
            // Browser applications read discovery from their own origin.
            let any = http::HeaderValue::from_static("*");
            response.headers_mut().insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            response
        }
        Err(error) => ask.refuse(&error),
    }
}

/// The tenant's id, or the template of the names that stand for any tenant.
async fn tenant_id(ask: &Ask) -> Result<String, SignInError> {
    match ask.tenant().await {
        Ok(Some(id)) => Ok(id.to_string()),
        Ok(None) => Ok("{tenantid}".to_owned()),
        Err(mut error) => {
            if error.number == 90002 {
                error.code = "invalid_tenant";
            }
            Err(error)
        }
    }
}

fn issuer(ask: &Ask, id: &str) -> String {
    match ask.version {
        Version::V1 => format!("https://sts.windows.net/{id}/"),
        Version::V2 => format!("{}/{id}/v2.0", ask.base),
    }
}

async fn document(ask: &Ask) -> Result<Json, SignInError> {
    let id = tenant_id(ask).await?;
    // Discovery by a domain names the tenant by its id, as the issuer does.
    let tenant = if ask.any_tenant() { ask.tenant_name.to_lowercase() } else { id.clone() };
    let (base, v2) = (&ask.base, ask.version == Version::V2);
    let oauth2 = format!("{base}/{tenant}/{}", if v2 { "oauth2/v2.0" } else { "oauth2" });
    let keys = if v2 { "discovery/v2.0/keys" } else { "discovery/keys" };
    Ok(json!({
        "issuer": issuer(ask, &id),
        "authorization_endpoint": format!("{oauth2}/authorize"),
        "token_endpoint": format!("{oauth2}/token"),
        "device_authorization_endpoint": format!("{oauth2}/devicecode"),
        "end_session_endpoint": format!("{oauth2}/logout"),
        "introspection_endpoint": format!("{oauth2}/introspect"),
        "revocation_endpoint": format!("{oauth2}/revoke"),
        "userinfo_endpoint": format!("{base}/oidc/userinfo"),
        "jwks_uri": format!("{base}/{tenant}/{keys}"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
        "introspection_endpoint_auth_methods_supported":
            ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        "revocation_endpoint_auth_methods_supported":
            ["client_secret_post", "client_secret_basic", "private_key_jwt", "none"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "client_credentials", "password",
            "urn:ietf:params:oauth:grant-type:device_code",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ],
        "code_challenge_methods_supported": ["S256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token", "token"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": DIRECTORY_SCOPES,
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "aud", "exp", "iat", "auth_time", "acr", "nonce",
            "preferred_username", "name", "tid", "ver", "at_hash", "c_hash", "email", "oid", "upn",
            "unique_name", "amr",
        ],
        "claims_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "authorization_response_iss_parameter_supported": true,
        "frontchannel_logout_supported": false,
        "http_logout_supported": true,
        "tenant_region_scope": "WW",
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": "graph.microsoft.com",
    }))
}

async fn keys(ask: &Ask) -> Result<Json, SignInError> {
    let id = tenant_id(ask).await?;
    ask.directory.maintain_keys().await?;
    let issuer = (ask.version == Version::V2).then(|| issuer(ask, &id));
    let keys: Vec<Json> =
        ask.directory.keys().iter().map(|key| key.jwk(issuer.as_deref())).collect();
    Ok(json!({ "keys": keys }))
}

/// What MSAL asks before it trusts an authority: this host is its own cloud.
fn instance(ask: &Ask) -> Result<Json, SignInError> {
    let query = Form::parse(ask.query.as_bytes())?;
    let asked = query
        .get("authorization_endpoint")
        .ok_or_else(|| SignInError::field_missing("authorization_endpoint"))?;
    let named = asked.strip_prefix("https://").and_then(|rest| rest.split_once('/'));
    let known = named.and_then(|(host, path)| {
        // Some clients drop the port.
        let authority = ask.directory.authority();
        Some((authority.known(host)?, path.split('/').next().unwrap_or("common")))
    });
    let unknown = || {
        let text = "Unknown or invalid instance.";
        SignInError::new(50049, "invalid_instance", 400, text)
    };
    let (host, tenant) = known.ok_or_else(unknown)?;
    // The port that the client dropped is still the one that it has to call.
    let port = ask.base.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.starts_with('/'));
    let with_port =
        port.and_then(|port| ask.directory.authority().known(&format!("{host}:{port}")));
    let called = with_port.unwrap_or(host);
    let mut aliases: Vec<&str> =
        ask.directory.authority().hosts().iter().map(String::as_str).collect();
    aliases.sort_unstable();
    aliases.dedup();
    Ok(json!({
        "tenant_discovery_endpoint":
            format!("https://{called}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": query.get("api-version").unwrap_or("1.1"),
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": aliases }],
    }))
}

/// Whether a user signs in here: told by the domain alone, so that nobody learns who exists.
async fn user_realm(ask: &Ask, path: &str) -> Result<Json, SignInError> {
    let user = path.rsplit('/').next().unwrap_or_default();
    let user = percent_encoding::percent_decode_str(user).decode_utf8_lossy();
    let domain = user.rsplit_once('@').map_or("", |(_, domain)| domain);
    let known =
        !domain.is_empty() && !is_any(domain) && ask.directory.tenant_id(domain).await?.is_some();
    let mut answer = json!({
        "ver": "1.0", "account_type": "Unknown", "domain_name": domain,
        "cloud_instance_name": "microsoftonline.com",
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    });
    if known {
        answer["account_type"] = "Managed".into();
    }
    Ok(answer)
}
