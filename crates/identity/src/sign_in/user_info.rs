//! User info (OpenID Connect Core, section 5.3).

use super::issue::subject;
use super::request::Ask;
use crate::Resource;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

/// Serves `/oidc/userinfo`.
pub async fn serve(ask: &Ask, method: &Method) -> Response {
    if method != Method::GET && method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let verified = ask.bearer().map(|token| ask.directory.verify(token, Resource::Directory));
    let Some(Ok(caller)) = verified else { return refuse(ask, verified.is_some()) };
    let account = match ask.directory.account(caller.object_id).await {
        Ok(account) => account.filter(|account| account.enabled && caller.user.is_some()),
        Err(error) => return ask.refuse(&error.into()),
    };
    let Some(account) = account else { return refuse(ask, true) };
    let mut answer = json!({
        "sub": subject(ask, &caller.app_id.to_string(), account.id),
        "name": account.display_name, "email": account.principal_name,
        "preferred_username": account.principal_name,
    });
    for (claim, value) in [("given_name", account.given_name), ("family_name", account.surname)] {
        if let Some(value) = value {
            answer[claim] = value.into();
        }
    }
    ask.json(StatusCode::OK, &answer)
}

/// RFC 6750, section 3.
fn refuse(ask: &Ask, sent: bool) -> Response {
    let body = json!({"error": {"code": "InvalidAuthenticationToken",
        "message": "The access token is missing, has expired, or was issued for another resource."}});
    let mut response = ask.json(StatusCode::UNAUTHORIZED, &body);
    let challenge = match sent {
        true => r#"Bearer realm="", error="invalid_token""#,
        false => r#"Bearer realm="""#,
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
