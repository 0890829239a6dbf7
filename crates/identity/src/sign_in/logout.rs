//! Signing out (OpenID Connect RP-Initiated Logout).

use super::browser::set_cookie;
use super::jws::Jws;
use super::redirect::platform;
use super::request::{Ask, Form};
use super::{pages, read_form};
use crate::SignInError;
use axum::body::Body;
use axum::response::Response;
use http::Method;
use serde_json::json;

/// Serves `…/logout`.
pub async fn serve(ask: &Ask, method: &Method, body: Body) -> Response {
    let outcome = async {
        let form = match *method {
            Method::POST => read_form(ask, body).await?,
            _ => Form::parse(ask.query.as_bytes())?,
        };
        let session = ask.session().await?;
        let cookie = ask.close_session().await?;
        if let Some(session) = session {
            ask.note_sign_in(&session.account, "sign-out", None).await;
        }
        let response = match ask.after_logout(&form).await? {
            Some(uri) => ask.see_other(&uri),
            None => {
                pages::message("You signed out of your account", "You can close this page now.")
            }
        };
        Ok::<_, SignInError>(set_cookie(response, Some(cookie)))
    };
    match outcome.await {
        Ok(response) => response,
        Err(error) => pages::error(ask, &error),
    }
}

impl Ask {
    /// Where the browser goes: the address that the request names, where it is one of the
    /// application that the request names too.
    async fn after_logout(&self, form: &Form) -> Result<Option<String>, SignInError> {
        let Some(uri) = form.get("post_logout_redirect_uri") else { return Ok(None) };
        let hinted = form.get("id_token_hint").and_then(|token| {
            let jws = Jws::parse(token)?;
            let keys: Vec<_> = self.directory.keys().iter().map(|key| key.jwk(None)).collect();
            // An old id token is as good a hint as a new one.
            jws.is_signed_by_one_of(&json!({ "keys": keys }))
                .then(|| jws.text("aud").map(str::to_owned))?
        });
        let client_id = form.get("client_id").map(str::to_owned).or(hinted);
        let Some(client_id) = client_id else { return Ok(None) };
        let Ok((client, _)) = self.find_client(&client_id, None).await else { return Ok(None) };
        let registration = &client.registration;
        let known = registration.logout_uris.iter().any(|known| known == uri)
            || platform(registration, uri).is_some();
        if !known {
            return Ok(None);
        }
        let separator = if uri.contains('?') { '&' } else { '?' };
        Ok(Some(match form.get("state") {
            Some(state) => {
                let mut serializer = url::form_urlencoded::Serializer::new(String::new());
                let state = serializer.append_pair("state", state).finish().replace('+', "%20");
                format!("{uri}{separator}{state}")
            }
            None => uri.to_owned(),
        }))
    }
}
