//! The administration API's part for a tenant's directory.

use super::{created, list, ok, parse};
use crate::edge::ApiError;
use crate::state::State;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{Method, StatusCode, Uri};
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_identity::AuditFilter;

/// A request to something below a tenant.
pub async fn serve(
    state: &State,
    actor: &str,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    uri: &Uri,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let directory = &state.directory;
    match (method, path) {
        (_, ["applications", rest @ ..]) => {
            applications(state, actor, method, tenant, rest, body).await
        }
        (_, ["users", rest @ ..]) => users(state, actor, method, tenant, rest, body).await,
        (_, ["serviceprincipals", rest @ ..]) => {
            service_principals(state, actor, method, tenant, rest, body).await
        }
        (&Method::GET, ["settings"]) => ok(&directory.tenant(&tenant.to_string()).await?.settings),
        (&Method::PUT, ["settings"]) => {
            ok(&directory.set_tenant_settings(actor, tenant, &parse(body)?).await?)
        }
        (&Method::GET, ["groups"]) => list(directory.groups(tenant).await?),
        (&Method::PUT, ["groups"]) => {
            ok(&directory.put_group(actor, tenant, &parse(body)?).await?)
        }
        (&Method::DELETE, ["groups", name]) => {
            directory.delete_group(actor, tenant, name).await?;
            gone()
        }
        (&Method::GET, ["roles"]) => list(directory.rbac_roles(tenant).await?),
        (&Method::PUT, ["roles"]) => {
            ok(&directory.put_rbac_role(actor, tenant, &parse(body)?).await?)
        }
        (&Method::DELETE, ["roles", name]) => {
            directory.delete_rbac_role(actor, tenant, name).await?;
            gone()
        }
        (&Method::GET, ["devicegroups"]) => {
            list(directory.device_groups(tenant).await?.as_ref().clone())
        }
        (&Method::PUT, ["devicegroups"]) => {
            ok(&directory.put_device_group(actor, tenant, &parse(body)?).await?)
        }
        (&Method::DELETE, ["devicegroups", name]) => {
            directory.delete_device_group(actor, tenant, name).await?;
            gone()
        }
        (&Method::GET, ["audit"]) => list(directory.audit_log(tenant, &filter(uri)?).await?),
        _ => Err(ApiError::not_found("Path", &path.join("/"))),
    }
}

async fn applications(
    state: &State,
    actor: &str,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    body: &Bytes,
) -> Result<Response, ApiError> {
    let directory = &state.directory;
    let (id, path) = match path {
        [] if method == Method::GET => return list(directory.applications(tenant).await?),
        [] if method == Method::POST => {
            return created(&directory.create_application(actor, tenant, &parse(body)?).await?);
        }
        [] => return Err(ApiError::not_found("Path", "applications")),
        [id, rest @ ..] => (self::id("application", id)?, rest),
    };
    match (method, path) {
        (&Method::GET, []) => ok(&directory.application(tenant, id).await?),
        (&Method::DELETE, []) => {
            directory.delete_application(actor, tenant, id).await?;
            gone()
        }
        (&Method::PUT, ["permissions"]) => {
            let wanted: Permissions = parse(body)?;
            ok(&directory.set_permissions(actor, tenant, id, &wanted.permissions).await?)
        }
        (&Method::PUT, ["registration"]) => {
            ok(&directory.set_registration(actor, tenant, id, &parse(body)?).await?)
        }
        (&Method::POST, ["secrets"]) => {
            created(&directory.add_secret(actor, tenant, id, &parse(body)?).await?)
        }
        (&Method::DELETE, ["secrets", key]) => {
            directory.remove_secret(actor, tenant, id, self::id("secret", key)?).await?;
            gone()
        }
        (&Method::POST, ["certificates"]) => {
            created(&directory.add_certificate(actor, tenant, id, &parse(body)?).await?)
        }
        (&Method::DELETE, ["certificates", key]) => {
            let key = self::id("certificate", key)?;
            directory.remove_certificate(actor, tenant, id, key).await?;
            gone()
        }
        (&Method::POST, ["federatedcredentials"]) => {
            created(&directory.add_federated_credential(actor, tenant, id, &parse(body)?).await?)
        }
        (&Method::DELETE, ["federatedcredentials", key]) => {
            let key = self::id("federated credential", key)?;
            directory.remove_federated_credential(actor, tenant, id, key).await?;
            gone()
        }
        _ => Err(ApiError::not_found("Path", &path.join("/"))),
    }
}

async fn users(
    state: &State,
    actor: &str,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    body: &Bytes,
) -> Result<Response, ApiError> {
    let directory = &state.directory;
    match (method, path) {
        (&Method::GET, []) => list(directory.users(tenant).await?),
        (&Method::POST, []) => created(&directory.create_user(actor, tenant, &parse(body)?).await?),
        (&Method::GET, [name]) => ok(&directory.user(tenant, name).await?),
        (&Method::PATCH, [name]) => {
            ok(&directory.change_user(actor, tenant, name, &parse(body)?).await?)
        }
        (&Method::DELETE, [name]) => {
            directory.delete_user(actor, tenant, name).await?;
            gone()
        }
        (&Method::POST, [name, "totp"]) => created(&directory.set_totp(actor, tenant, name).await?),
        (&Method::DELETE, [name, "totp"]) => {
            directory.remove_totp(actor, tenant, name).await?;
            gone()
        }
        _ => Err(ApiError::not_found("Path", &path.join("/"))),
    }
}

async fn service_principals(
    state: &State,
    actor: &str,
    method: &Method,
    tenant: Uuid,
    path: &[&str],
    body: &Bytes,
) -> Result<Response, ApiError> {
    let directory = &state.directory;
    match (method, path) {
        (&Method::GET, []) => list(directory.service_principals(tenant).await?),
        (&Method::GET, [app]) => {
            ok(&directory.service_principal(tenant, id("service principal", app)?).await?)
        }
        (&Method::PATCH, [app]) => {
            let (app, change) = (id("service principal", app)?, parse(body)?);
            ok(&directory.change_service_principal(actor, tenant, app, &change).await?)
        }
        (&Method::DELETE, [app]) => {
            let app = id("service principal", app)?;
            directory.delete_service_principal(actor, tenant, app).await?;
            gone()
        }
        _ => Err(ApiError::not_found("Path", &path.join("/"))),
    }
}

fn id(what: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::not_found(what, text))
}

fn gone() -> Result<Response, ApiError> {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Which entries of the audit log are asked for.
fn filter(uri: &Uri) -> Result<AuditFilter, ApiError> {
    let mut filter = AuditFilter::default();
    let time = |name: &str, text: &str| -> Result<DateTime<Utc>, ApiError> {
        text.parse().map_err(|_| ApiError::bad_request(format!("{name}: '{text}' is no time")))
    };
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "since" => filter.since = Some(time("since", &value)?),
            "until" => filter.until = Some(time("until", &value)?),
            "actor" => filter.actor = Some(value.into_owned()),
            "action" => filter.action = Some(value.into_owned()),
            "outcome" => filter.outcome = Some(value.into_owned()),
            "top" => {
                let top = value.parse();
                filter.top =
                    Some(top.map_err(|_| ApiError::bad_request("top: a number is expected"))?);
            }
            other => return Err(ApiError::bad_request(format!("'{other}' filters no entries"))),
        }
    }
    Ok(filter)
}
