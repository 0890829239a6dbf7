//! Introspection (RFC 7662) and revocation (RFC 7009), which the original does not have.

use super::refresh::{Stored, token_hash};
use super::request::{Ask, Form};
use super::token::read;
use crate::directory::parse_uuid;
use crate::{Resource, SignInError, micros};
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value as Json, json};
use uuid::Uuid;

/// Serves `…/introspect`.
pub async fn introspect(ask: &Ask, method: &Method, body: Body) -> Response {
    let outcome = async {
        let form = read(ask, method, body).await?;
        let caller = ask.caller(&form, ask.tenant().await?).await?;
        caller.must_prove()?;
        ask.described(&form, caller.client.app_id).await
    };
    match outcome.await {
        Ok(answer) => ask.json(StatusCode::OK, &answer),
        Err(error) => ask.refuse(&error),
    }
}

/// Serves `…/revoke`.
pub async fn revoke(ask: &Ask, method: &Method, body: Body) -> Response {
    let outcome = async {
        let form = read(ask, method, body).await?;
        let caller = ask.caller(&form, ask.tenant().await?).await?;
        if caller.client.has_credentials() {
            caller.must_prove()?;
        }
        let token = form.required("token")?;
        // Access tokens end by themselves; a token that is unknown is no error (RFC 7009, 2.2).
        if let Some((app_id, stored, _)) = ask.stored_token(token).await?
            && app_id == caller.client.app_id
        {
            ask.revoke_family(&stored.family).await?;
        }
        Ok::<_, SignInError>(json!({}))
    };
    match outcome.await {
        Ok(answer) => ask.json(StatusCode::OK, &answer),
        Err(error) => ask.refuse(&error),
    }
}

impl Ask {
    /// Application, content and whether it can be used, of a refresh token.
    async fn stored_token(&self, token: &str) -> Result<Option<(Uuid, Stored, bool)>, SignInError> {
        let Some(hash) = token_hash(token) else { return Ok(None) };
        let select = "SELECT app_id, content, revoked, spent, expires FROM refresh_tokens \
                      WHERE hash = $1";
        let rows = self.directory.database().read(select, &[hash.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let Ok(stored) = serde_json::from_str::<Stored>(row.text(1)?) else { return Ok(None) };
        let alive = !row.flag(2)?
            && (stored.proven || row.optional_integer(3)?.is_none())
            && row.integer(4)? > micros(self.now());
        Ok(Some((parse_uuid(row.text(0)?)?, stored, alive)))
    }

    async fn described(&self, form: &Form, app_id: Uuid) -> Result<Json, SignInError> {
        let inactive = json!({"active": false});
        let token = form.required("token")?;
        if let Some((owner, stored, alive)) = self.stored_token(token).await? {
            return Ok(match owner == app_id && alive {
                true => json!({
                    "active": true, "client_id": app_id.to_string(), "token_type": "refresh_token",
                    "scope": stored.scopes.join(" "),
                }),
                false => inactive,
            });
        }
        let resources = [
            Resource::Defender,
            Resource::Directory,
            Resource::Administration,
            Resource::Application(app_id),
        ];
        for resource in resources {
            let Ok(verified) = self.directory.verified(token, resource) else { continue };
            let caller = &verified.caller;
            // Whoever got the token, or is called with it, may look into it; nobody else.
            if caller.app_id != app_id && resource != Resource::Application(app_id) {
                return Ok(inactive);
            }
            let mut answer = json!({
                "active": true, "client_id": caller.app_id.to_string(), "token_type": "Bearer",
                "exp": verified.expires, "nbf": verified.not_before,
                "sub": caller.object_id.to_string(), "jti": caller.token_id,
                "aud": resource.app_id(), "tid": caller.tenant.to_string(),
            });
            match &caller.user {
                Some(user) => {
                    answer["scope"] = user.scopes.join(" ").into();
                    answer["username"] = user.principal_name.as_str().into();
                }
                None => answer["roles"] = json!(caller.roles),
            }
            return Ok(answer);
        }
        Ok(inactive)
    }
}
