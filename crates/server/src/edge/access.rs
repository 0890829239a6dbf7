//! Who calls, and whether they may: an application by its permissions; a user by the scope that the
//! application was granted, by the user's own role, and on the machines of the user's device groups.

use super::{ApiError, bearer};
use crate::state::State;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use vigie_contract::operations::Operation;
use vigie_identity::{Caller, Resource, Scope, SignedInUser, role_permissions};

/// The caller of a request's bearer token.
pub fn authenticate(state: &State, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = bearer(headers).ok_or_else(|| ApiError::unauthorized("no bearer token"))?;
    (state.directory.verify(token, Resource::Defender))
        .map_err(|error| ApiError::invalid_token(&error.to_string()))
}

/// Tells in a 401 where to sign in: clients read the address from it.
pub fn challenge(state: &State, parts: &Parts, response: &mut Response) {
    if response.status() != StatusCode::UNAUTHORIZED {
        return;
    }
    let headers = response.headers_mut();
    let told = headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let error = told.is_some_and(|told| told.contains("invalid_token"));
    let mut text = format!(
        "Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\"",
        state.directory.base_url(parts)
    );
    if error {
        text.push_str(", error=\"invalid_token\"");
    }
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
}

/// Refuses what the caller may not do, and says on which device groups they may do it.
pub async fn authorize(
    state: &State,
    caller: &mut Caller,
    operation: &Operation,
) -> Result<(), ApiError> {
    let Some(user) = &caller.user else {
        // Any one of the operation's permissions suffices.
        let allowed = operation.app_permissions.iter().any(|p| caller.roles.contains(p));
        return if allowed { Ok(()) } else { Err(ApiError::forbidden(operation, &caller.roles)) };
    };
    if !operation.delegated_permissions.iter().any(|scope| user.scopes.contains(scope)) {
        return Err(missing_scope(operation, user));
    }
    let access = state.directory.user_access(caller.tenant, caller.object_id).await?;
    let access = access.filter(|access| access.enabled);
    let access = access.ok_or_else(|| ApiError::invalid_token("the user is gone or disabled"))?;
    caller.device_groups = match access.scope(operation) {
        Scope::Refused => return Err(missing_role(operation)),
        Scope::All => None,
        Scope::Groups(groups) => Some(groups),
    };
    Ok(())
}

fn missing_scope(operation: &Operation, user: &SignedInUser) -> ApiError {
    let message = format!(
        "Missing application scopes. API required scopes: {}, application scopes: {}.",
        operation.delegated_permissions.join(","),
        user.scopes.join(",")
    );
    ApiError::new(403, "Forbidden", message)
}

fn missing_role(operation: &Operation) -> ApiError {
    let message = format!(
        "The user has no role that allows this. Any one of these permissions is required: {}",
        role_permissions(operation).join(",")
    );
    ApiError::new(403, "Forbidden", message)
}
