//! What the pages' forms lead to: sign-in, second factor, choice of account, consent.

use super::authorize::posted;
use super::browser::{Session, set_cookie};
use super::flow::{ConsentAsked, Flow, Goal};
use super::pages;
use super::request::{Ask, Form, Version};
use super::scopes::{Asked, DEFAULT, needs_administrator};
use crate::directory::Client;
use crate::{Resource, SignInError};
use axum::body::Body;
use axum::response::Response;
use http::Method;

/// Serves the forms of pages, by the last part of their path.
pub async fn serve(ask: &Ask, form: &str, method: &Method, body: Body) -> Response {
    let outcome = async {
        let posted = posted(ask, method, body).await?;
        let flow = ask.open_flow(&posted)?;
        let ask = ask.for_flow(&flow);
        match form {
            "login" => ask.sign_in(flow, &posted).await,
            "mfa" => ask.second_factor(flow, &posted).await,
            "select" => ask.select(flow, &posted).await,
            "consent" => ask.decide_consent(flow, &posted).await,
            _ => ask.decide_device_page(flow, &posted).await,
        }
    };
    match outcome.await {
        Ok(response) => response,
        Err(error) => pages::error(ask, &error),
    }
}

impl Ask {
    /// The same request, on behalf of the flow's first one.
    pub fn for_flow(&self, flow: &Flow) -> Ask {
        let version = if flow.v2 { Version::V2 } else { Version::V1 };
        Ask { tenant_name: flow.tenant_name.clone(), version, ..self.clone() }
    }

    /// Leads a person one step further on their way.
    pub async fn go_on(&self, flow: Flow, session: Option<Session>) -> Response {
        let outcome = match flow.goal.clone() {
            Goal::Authorize(authorization) => {
                return self.authorize_step(flow, &authorization, session).await;
            }
            Goal::Device { user_code } => self.device_step(flow, &user_code, session).await,
            Goal::AdminConsent { query } => self.admin_consent_step(flow, &query, session).await,
        };
        match outcome {
            Ok(response) => response,
            Err(error) => pages::error(self, &error),
        }
    }

    async fn sign_in(&self, mut flow: Flow, form: &Form) -> Result<Response, SignInError> {
        let name = form.get("login").unwrap_or_default();
        let password = form.get("passwd").unwrap_or_default();
        let tenant = self.tenant().await?;
        let account = match self.authenticate(tenant, name, password).await {
            Ok(account) => account,
            Err(error) if error.code == "invalid_grant" => {
                return Ok(pages::sign_in(self, &flow, Some(name), Some(&error)));
            }
            Err(error) => return Err(error),
        };
        if account.has_second_factor {
            flow.half = Some(account.id);
            return Ok(pages::second_factor(self, &flow, &account, None));
        }
        flow.signed_in = true;
        let (session, cookie) = self.open_session(&account, &["pwd"]).await?;
        self.note_sign_in(&account, "browser", None).await;
        Ok(set_cookie(self.go_on(flow, Some(session)).await, Some(cookie)))
    }

    async fn second_factor(&self, mut flow: Flow, form: &Form) -> Result<Response, SignInError> {
        let half = flow.half.ok_or_else(|| SignInError::malformed("No password was given."))?;
        let account = self.directory.account(half).await?;
        let account = account.ok_or_else(SignInError::wrong_second_factor)?;
        let key = format!("second factor of {}", account.id);
        let key = self.directory.lock_key(&key, &self.address).await?;
        if self.directory.is_locked(&key).await? {
            return Err(SignInError::account_locked());
        }
        let code = form.get("otc").unwrap_or_default();
        if !self.directory.spend_totp(account.id, code).await? {
            self.directory.count_failure(&key).await?;
            let error = SignInError::wrong_second_factor();
            self.note_sign_in(&account, "second factor", Some(error.number)).await;
            return Ok(pages::second_factor(self, &flow, &account, Some(&error)));
        }
        flow.half = None;
        flow.signed_in = true;
        let (session, cookie) = self.open_session(&account, &["pwd", "mfa"]).await?;
        self.note_sign_in(&account, "browser", None).await;
        Ok(set_cookie(self.go_on(flow, Some(session)).await, Some(cookie)))
    }

    async fn select(&self, mut flow: Flow, form: &Form) -> Result<Response, SignInError> {
        if form.get("decision") == Some("other") {
            return Ok(pages::sign_in(self, &flow, None, None));
        }
        flow.chosen = true;
        let session = self.session().await?;
        Ok(self.go_on(flow, session).await)
    }

    /// A page that asks for consent, or says who could give it.
    pub async fn ask_consent(
        &self,
        mut flow: Flow,
        client: &Client,
        session: &Session,
        asked: &Asked,
        missing: Vec<String>,
    ) -> Result<Response, SignInError> {
        let account = &session.account;
        let mut scopes = match asked.all() {
            true => self.declared(client, asked).await?,
            false => self.known_scopes(asked).await?,
        };
        scopes.extend(missing.into_iter().filter(|scope| scope != DEFAULT));
        scopes.retain(|scope| scope != DEFAULT);
        scopes.sort();
        scopes.dedup();
        let administrator = account.may_consent_for_all();
        // What the application declares for itself is granted only by an administrator, who is asked
        // for all of it at once.
        let foreign = client.owner_tenant != account.tenant;
        let roles = match administrator && asked.all() && foreign {
            true => client.registration.application_permissions.clone(),
            false => Vec::new(),
        };
        if scopes.is_empty() && roles.is_empty() && asked.resource != Resource::Directory {
            let text = format!(
                "Misconfigured application: '{}' declares no permission of the resource {}.",
                client.app_id, asked.audience
            );
            return Err(SignInError::new(650_056, "unauthorized_client", 400, text));
        }
        let settings = self.directory.settings(account.tenant).await?;
        // A user's own profile is nobody else's matter.
        let needs = asked.resource != Resource::Directory
            && (!settings.allow_user_consent
                || scopes.iter().any(|scope| needs_administrator(asked.resource, scope)));
        if needs && !administrator {
            return Ok(pages::needs_administrator(self, &flow, client, account));
        }
        flow.consent = Some(ConsentAsked {
            user: account.id,
            app_id: client.app_id,
            audience: asked.audience.clone(),
            scopes,
            roles,
            for_all: false,
        });
        Ok(pages::consent(self, &flow, client, account, administrator))
    }

    async fn decide_consent(&self, mut flow: Flow, form: &Form) -> Result<Response, SignInError> {
        let session = self.session().await?;
        let consent = flow.consent.take();
        let (Some(session), Some(consent)) = (session, consent) else {
            return Err(SignInError::malformed("Nobody is signed in. Start again."));
        };
        if session.account.id != consent.user {
            return Err(SignInError::malformed("Another user signed in meanwhile. Start again."));
        }
        if form.get("decision") != Some("accept") {
            let error = SignInError::consent_declined();
            self.note_sign_in(&session.account, "consent", Some(error.number)).await;
            return self.decline(&flow, &error).await;
        }
        let administrator = session.account.may_consent_for_all();
        let everybody = consent.for_all || form.get("everybody") == Some("1");
        if (everybody || !consent.roles.is_empty()) && !administrator {
            return Err(SignInError::admin_consent_needed());
        }
        let missing = || SignInError::resource_not_found(&consent.audience, &self.tenant_name);
        let resource = self.find_resource(&consent.audience).ok_or_else(missing)?;
        let scopes: Vec<(Resource, String)> =
            consent.scopes.iter().map(|scope| (resource, scope.clone())).collect();
        let user = (!everybody).then_some(consent.user);
        let (actor, tenant) = (&session.account.principal_name, session.account.tenant);
        self.directory
            .consent(actor, tenant, consent.app_id, user, &scopes, &consent.roles)
            .await?;
        flow.consented = true;
        Ok(self.go_on(flow, Some(session)).await)
    }

    /// Where a person goes who said no.
    async fn decline(&self, flow: &Flow, error: &SignInError) -> Result<Response, SignInError> {
        match &flow.goal {
            Goal::Authorize(authorization) => Ok(self.refuse_back(authorization, error)),
            Goal::AdminConsent { query } => self.refuse_admin_consent(query, error),
            Goal::Device { user_code } => {
                self.decide_device(&super::device_page::stored_code(user_code), None).await?;
                Ok(pages::message("Sign-in cancelled", "You can close this page now."))
            }
        }
    }
}
