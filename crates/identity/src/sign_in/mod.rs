//! The authorization server's endpoints. The first part of every path names a tenant.

mod admin_consent;
mod authorize;
mod browser;
mod client;
mod code;
mod device;
mod device_page;
mod flow;
mod introspect;
mod issue;
mod jws;
mod logout;
mod on_behalf_of;
mod pages;
mod password;
mod redirect;
mod refresh;
pub(crate) mod request;
mod scopes;
mod sign_in_page;
mod token;
mod user_info;

pub use request::PeerAddress;

use crate::Directory;
use crate::discovery;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use request::{Ask, Version};

/// The authorization server: every path of which a tenant is the first part.
pub fn router(directory: Directory) -> Router {
    Router::new().fallback(serve).with_state(directory)
}

async fn serve(State(directory): State<Directory>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().trim_matches('/').to_owned();
    let (tenant, endpoint) = path.split_once('/').unwrap_or((&path, ""));
    let tenant = percent_encoding::percent_decode_str(tenant).decode_utf8_lossy();
    // Paths match without regard to case: clients differ.
    let endpoint = endpoint.to_ascii_lowercase();
    let version = if endpoint.contains("v2.0") { Version::V2 } else { Version::V1 };
    let ask = Ask::new(&directory, &mut parts, &tenant, version);
    let plain = endpoint.replace("v2.0/", "");
    let method = &parts.method;
    let response = match plain.as_str() {
        "oauth2/token" => token::serve(&ask, method, body).await,
        "oauth2/devicecode" => device::serve(&ask, method, body).await,
        "oauth2/introspect" => introspect::introspect(&ask, method, body).await,
        "oauth2/revoke" => introspect::revoke(&ask, method, body).await,
        "oauth2/authorize" => authorize::serve(&ask, method, body).await,
        "oauth2/deviceauth" => device_page::serve(&ask, method, body).await,
        "oauth2/logout" => logout::serve(&ask, method, body).await,
        "adminconsent" => admin_consent::serve(&ask, method).await,
        "login" | "mfa" | "consent" | "device" | "select" => {
            sign_in_page::serve(&ask, &plain, method, body).await
        }
        "openid/userinfo" => user_info::serve(&ask, method).await,
        "userinfo" if tenant.eq_ignore_ascii_case("oidc") => user_info::serve(&ask, method).await,
        _ => discovery::serve(&ask, &endpoint, &path).await,
    };
    ask.finish(response)
}

/// The largest form of a page.
const LARGEST_FORM: usize = 64 * 1024;

/// A page's form.
async fn read_form(ask: &Ask, body: Body) -> Result<request::Form, crate::SignInError> {
    let body = axum::body::to_bytes(body, LARGEST_FORM).await;
    let body = body.map_err(|_| crate::SignInError::malformed("The request body is too large."))?;
    request::Form::of_body(&ask.headers, &body)
}
