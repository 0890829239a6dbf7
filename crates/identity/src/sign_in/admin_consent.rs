//! Consent of a tenant's administrator for an application, its own or a partner's: all that the
//! application declares, for everybody.

use super::browser::{Session, set_cookie};
use super::code::Platform;
use super::flow::{ConsentAsked, Flow, Goal};
use super::pages;
use super::redirect::{Mode, platform};
use super::request::{Ask, Form};
use crate::directory::Client;
use crate::{DEFENDER_APP_ID, SignInError};
use axum::response::Response;
use http::Method;
use std::sync::Arc;

/// Serves `…/adminconsent`.
pub async fn serve(ask: &Ask, method: &Method) -> Response {
    let outcome = async {
        if method != Method::GET && method != Method::HEAD {
            return Err(SignInError::malformed("GET is expected."));
        }
        let form = Form::parse(ask.query.as_bytes())?;
        ask.consenting_client(&form).await?;
        let (browser, cookie) = ask.bind();
        let session = ask.session().await?;
        let flow = Flow::new(ask, Goal::AdminConsent { query: ask.query.clone() }, browser);
        Ok(set_cookie(ask.go_on(flow, session).await, cookie))
    };
    match outcome.await {
        Ok(response) => response,
        Err(error) => pages::error(ask, &error),
    }
}

impl Ask {
    /// The application of the request, whose redirect URI is known to be good.
    async fn consenting_client(&self, form: &Form) -> Result<(Arc<Client>, Platform), SignInError> {
        let missing = |name: &str| SignInError::field_missing(name);
        let client_id = form.get("client_id").ok_or_else(|| missing("client_id"))?;
        let redirect_uri = form.get("redirect_uri").ok_or_else(|| missing("redirect_uri"))?;
        let (client, _) = self.find_client(client_id, self.tenant().await?).await?;
        let platform = platform(&client.registration, redirect_uri);
        let platform = platform.ok_or_else(|| SignInError::redirect_unknown(client_id))?;
        Ok((client, platform))
    }

    /// Leads an administrator one step further.
    pub async fn admin_consent_step(
        &self,
        mut flow: Flow,
        query: &str,
        session: Option<Session>,
    ) -> Result<Response, SignInError> {
        let form = Form::parse(query.as_bytes())?;
        let tenant = self.tenant().await?;
        let (client, _) = self.consenting_client(&form).await?;
        let Some(session) = session.filter(|session| flow.fits(session, tenant)) else {
            return Ok(pages::sign_in(self, &flow, None, None));
        };
        let account = &session.account;
        if account.has_second_factor && !session.has_second_factor() {
            flow.half = Some(account.id);
            return Ok(pages::second_factor(self, &flow, account, None));
        }
        let app_id = client.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(account.tenant)).await?;
        if !account.may_consent_for_all() {
            return self.refuse_admin_consent(query, &SignInError::admin_consent_needed());
        }
        if flow.consented {
            let tenant = account.tenant.to_string();
            let mut members = vec![("admin_consent", "True"), ("tenant", tenant.as_str())];
            members.extend(form.get("state").map(|state| ("state", state)));
            members.extend(form.get("scope").map(|scope| ("scope", scope)));
            let uri = form.get("redirect_uri").unwrap_or_default();
            return Ok(self.send_back(uri, Mode::Query, &members));
        }
        flow.consent = Some(ConsentAsked {
            user: account.id,
            app_id: client.app_id,
            audience: DEFENDER_APP_ID.to_owned(),
            scopes: client.registration.delegated_permissions.clone(),
            // In its own tenant an application's permissions are set where it is registered.
            roles: match client.owner_tenant == account.tenant {
                true => Vec::new(),
                false => client.registration.application_permissions.clone(),
            },
            for_all: true,
        });
        Ok(pages::consent(self, &flow, &client, account, true))
    }

    /// What a client is told whose customer said no, or could not say yes.
    pub fn refuse_admin_consent(
        &self,
        query: &str,
        error: &SignInError,
    ) -> Result<Response, SignInError> {
        let form = Form::parse(query.as_bytes())?;
        let description = self.description(error);
        let mut members = vec![
            ("error", error.code),
            ("error_description", description.as_str()),
            ("admin_consent", "False"),
        ];
        members.extend(form.get("state").map(|state| ("state", state)));
        let uri = form.get("redirect_uri").unwrap_or_default();
        Ok(self.send_back(uri, Mode::Query, &members))
    }
}
