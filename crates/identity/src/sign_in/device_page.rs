//! Where a user enters the code that a device shows (RFC 8628, section 3.3).

use super::authorize::posted;
use super::browser::{Session, set_cookie};
use super::device::user_code_hash;
use super::flow::{Flow, Goal};
use super::pages;
use super::request::{Ask, Form};
use crate::SignInError;
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::Method;

/// Serves `/common/oauth2/deviceauth`: the form, and its code.
pub async fn serve(ask: &Ask, method: &Method, body: Body) -> Response {
    if method == Method::GET || method == Method::HEAD {
        let (browser, cookie) = ask.bind();
        let flow = Flow::new(ask, Goal::Device { user_code: String::new() }, browser);
        return set_cookie(pages::device_code(ask, &flow, None), cookie);
    }
    let outcome = async {
        let form = posted(ask, method, body).await?;
        ask.entered_code(ask.open_flow(&form)?, &form).await
    };
    match outcome.await {
        Ok(response) => response,
        Err(error) => pages::error(ask, &error),
    }
}

/// A code's hash as flows carry it.
pub fn stored_code(text: &str) -> Vec<u8> {
    BASE64.decode(text).unwrap_or_default()
}

impl Ask {
    async fn entered_code(&self, mut flow: Flow, form: &Form) -> Result<Response, SignInError> {
        // Guessing is slowed down by address and by browser (RFC 8628, section 5.1).
        let now = self.now().timestamp();
        let protection = &self.directory.shared().protection;
        let browser = self.browser().unwrap_or_default();
        let subjects = [format!("user code {}", self.address), format!("user code {browser}")];
        let wait = subjects.iter().map(|subject| protection.wait(subject, now)).max();
        if let Some(wait) = wait.filter(|wait| *wait > 0) {
            return Err(SignInError::too_many_requests(wait));
        }
        let hash = user_code_hash(form.get("otc").unwrap_or_default());
        let found = match &hash {
            Some(hash) => self.waiting_device(hash).await?,
            None => None,
        };
        let (Some(hash), Some(_)) = (hash, found) else {
            subjects.iter().for_each(|subject| protection.failed(subject, now));
            let text = "That code didn't work. Check the code and try again.";
            return Ok(pages::device_code(self, &flow, Some(text)));
        };
        flow.goal = Goal::Device { user_code: BASE64.encode(hash) };
        let session = self.session().await?;
        Ok(self.go_on(flow, session).await)
    }

    /// Leads the user of a device one step further.
    pub async fn device_step(
        &self,
        mut flow: Flow,
        user_code: &str,
        session: Option<Session>,
    ) -> Result<Response, SignInError> {
        let device = self.waiting_device(&stored_code(user_code)).await?;
        let device = device.ok_or_else(SignInError::device_code_expired)?;
        let tenant = device.request.tenant;
        let Some(session) = session.filter(|session| flow.fits(session, tenant)) else {
            return Ok(pages::sign_in(self, &flow, None, None));
        };
        let account = &session.account;
        if account.has_second_factor && !session.has_second_factor() {
            flow.half = Some(account.id);
            return Ok(pages::second_factor(self, &flow, account, None));
        }
        let app_id = device.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(account.tenant)).await?;
        self.check_user(&client, account.tenant, account).await?;
        let asked = self.device_asked(&device.request.stored)?;
        let missing = self.missing_consent(&client, account.tenant, account.id, &asked).await?;
        if !missing.is_empty() {
            return self.ask_consent(flow, &client, &session, &asked, missing).await;
        }
        Ok(pages::confirm_device(self, &flow, &client, account, &device.address))
    }

    /// The user's click on the page that shows which application asks, and from where.
    pub async fn decide_device_page(
        &self,
        flow: Flow,
        form: &Form,
    ) -> Result<Response, SignInError> {
        let Goal::Device { user_code } = &flow.goal else {
            return Err(SignInError::malformed("The form belongs to no device."));
        };
        let code = stored_code(user_code);
        let session = self.session().await?;
        let nobody = || SignInError::malformed("Nobody is signed in. Start again.");
        let session = session.ok_or_else(nobody)?;
        let device = self.waiting_device(&code).await?;
        let device = device.ok_or_else(SignInError::device_code_expired)?;
        if form.get("decision") != Some("continue") {
            self.decide_device(&code, None).await?;
            return Ok(pages::message("Sign-in cancelled", "You can close this page now."));
        }
        // All that the step checked must hold at the click too.
        let account = &session.account;
        if !flow.fits(&session, device.request.tenant)
            || (account.has_second_factor && !session.has_second_factor())
        {
            return Err(nobody());
        }
        let user = Some((account, session.methods.as_slice(), session.authenticated));
        if !self.decide_device(&code, user).await? {
            return Err(SignInError::device_code_expired());
        }
        let app_id = device.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(account.tenant)).await?;
        let text = format!(
            "You have signed in to {} on your device. You can close this page now.",
            client.display_name
        );
        Ok(pages::message("Signed in", &text))
    }
}
