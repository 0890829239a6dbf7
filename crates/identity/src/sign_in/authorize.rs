//! The authorization endpoint (RFC 6749, section 4.1.1; OpenID Connect Core, section 3.1.2).

use super::browser::{Session, set_cookie};
use super::client::Proof;
use super::code::{Challenge, Code, Platform};
use super::flow::{Flow, Goal};
use super::issue::{Grant, client_info};
use super::redirect::{Mode, platform};
use super::refresh::Stored;
use super::request::{Ask, Form, Version};
use super::scopes::Asked;
use super::{pages, read_form};
use crate::SignInError;
use crate::directory::{Account, Client};
use axum::body::Body;
use axum::response::Response;
use http::Method;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Longest `state` and `nonce`, in bytes.
const LONGEST_STATE: usize = 4096;

/// A request that may be answered at its redirect URI.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorization {
    pub client_id: String,
    pub redirect_uri: String,
    pub platform: Platform,
    pub mode: Mode,
    pub state: Option<String>,
    /// The request's members as they came.
    pub query: String,
}

/// What a request asks for, besides who and where.
pub struct Wish {
    code: bool,
    id_token: bool,
    token: bool,
    pub asked: Asked,
    nonce: Option<String>,
    challenge: Option<Challenge>,
    pub prompt: Vec<String>,
    pub login_hint: Option<String>,
    domain_hint: Option<String>,
    max_age: Option<i64>,
    client_info: bool,
}

impl Wish {
    /// What the sign-in page begins with: the name, or the domain of it.
    fn name_hint(&self) -> Option<String> {
        let domain = || self.domain_hint.as_ref().map(|domain| format!("@{domain}"));
        self.login_hint.clone().or_else(domain)
    }

    pub fn prompts(&self, value: &str) -> bool {
        self.prompt.iter().any(|prompt| prompt == value)
    }
}

/// Serves `…/authorize`: by GET, or by POST with the members in the body.
pub async fn serve(ask: &Ask, method: &Method, body: Body) -> Response {
    let outcome = async {
        let encoded = match *method {
            Method::GET | Method::HEAD => ask.query.clone(),
            Method::POST => {
                let body = axum::body::to_bytes(body, super::LARGEST_FORM).await;
                let body = body.map_err(|_| SignInError::malformed("The request is too large."))?;
                String::from_utf8_lossy(&body).into_owned()
            }
            _ => return Err(SignInError::malformed("GET or POST is expected.")),
        };
        let form = Form::parse(encoded.as_bytes())?;
        let authorization = ask.authorization(&form, encoded).await?;
        let (browser, cookie) = ask.bind();
        let session = ask.session().await?;
        let flow = Flow::new(ask, Goal::Authorize(Box::new(authorization)), browser);
        Ok(set_cookie(ask.go_on(flow, session).await, cookie))
    };
    match outcome.await {
        Ok(response) => response,
        Err(error) => pages::error(ask, &error),
    }
}

impl Ask {
    /// Client and redirect URI of a request; until they are known to be good, errors are shown and
    /// sent nowhere.
    async fn authorization(
        &self,
        form: &Form,
        query: String,
    ) -> Result<Authorization, SignInError> {
        let client_id = form.get("client_id");
        let client_id = client_id.ok_or_else(|| SignInError::parameter_missing("client_id"))?;
        let tenant = self.tenant().await?;
        let (client, _) = self.find_client(client_id, tenant).await?;
        let unknown = || SignInError::redirect_unknown(client_id);
        let redirect_uri = match form.get("redirect_uri") {
            Some(uri) => uri.to_owned(),
            None => self.only_redirect(&client).ok_or_else(unknown)?,
        };
        let platform = platform(&client.registration, &redirect_uri).ok_or_else(unknown)?;
        let response_type = form.get("response_type").unwrap_or_default();
        let mode = match form.get("response_mode") {
            Some("fragment") => Mode::Fragment,
            Some("form_post") => Mode::FormPost,
            None if response_type.contains("token") => Mode::Fragment,
            _ => Mode::Query,
        };
        Ok(Authorization {
            client_id: client_id.to_owned(),
            redirect_uri,
            platform,
            mode,
            state: form.get("state").map(str::to_owned),
            query,
        })
    }

    /// The older endpoint goes to the one registered URI where the request names none (RFC 6749,
    /// section 3.1.2.3): links for partners' customers do not.
    fn only_redirect(&self, client: &Client) -> Option<String> {
        let uris = &client.registration.redirect_uris;
        let mut all = uris.web.iter().chain(&uris.spa).chain(&uris.public_client);
        let only = all.next().filter(|_| all.next().is_none());
        only.filter(|_| self.version == Version::V1).cloned()
    }

    /// Leads a person one step further: to a page, or back to the client.
    pub async fn authorize_step(
        &self,
        flow: Flow,
        authorization: &Authorization,
        session: Option<Session>,
    ) -> Response {
        match self.authorize_or_refuse(flow, authorization, session).await {
            Ok(response) => response,
            Err(error) => self.refuse_back(authorization, &error),
        }
    }

    /// An error at the client's redirect URI (RFC 6749, section 4.1.2.1).
    pub fn refuse_back(&self, authorization: &Authorization, error: &SignInError) -> Response {
        let description = self.description(error);
        let code = match error.code {
            "invalid_grant" if error.number == 65001 => "consent_required",
            "invalid_grant" => "access_denied",
            code => code,
        };
        let uri = format!("{}/error?code={}", self.base, error.number);
        let mut members =
            vec![("error", code), ("error_description", &description), ("error_uri", &uri)];
        members.extend(authorization.state.as_deref().map(|state| ("state", state)));
        self.send_back(&authorization.redirect_uri, authorization.mode, &members)
    }

    async fn authorize_or_refuse(
        &self,
        mut flow: Flow,
        authorization: &Authorization,
        session: Option<Session>,
    ) -> Result<Response, SignInError> {
        let form = Form::parse(authorization.query.as_bytes())?;
        let tenant = self.tenant().await?;
        let (client, _) = self.find_client(&authorization.client_id, tenant).await?;
        let wish = self.wish(&form, &client, authorization.platform)?;
        self.known_scopes(&wish.asked).await?;
        let silent = wish.prompts("none");
        let Some(session) = self.usable(&flow, &wish, session, tenant)? else {
            return match silent {
                true => Err(SignInError::login_required()),
                false => Ok(pages::sign_in(self, &flow, wish.name_hint().as_deref(), None)),
            };
        };
        if wish.prompts("select_account") && !flow.signed_in && !flow.chosen {
            return Ok(pages::choose(self, &flow, &session.account));
        }
        if session.account.has_second_factor && !session.has_second_factor() {
            flow.half = Some(session.account.id);
            return match silent {
                true => Err(SignInError {
                    code: "interaction_required",
                    ..SignInError::second_factor_needed()
                }),
                false => Ok(pages::second_factor(self, &flow, &session.account, None)),
            };
        }
        let user_tenant = session.account.tenant;
        let (client, _) = self.find_client(&authorization.client_id, Some(user_tenant)).await?;
        self.check_user(&client, user_tenant, &session.account).await?;
        let missing =
            self.missing_consent(&client, user_tenant, session.account.id, &wish.asked).await?;
        let ask_anyway = wish.prompts("consent") || wish.prompts("admin_consent");
        if !missing.is_empty() || (ask_anyway && !flow.consented) {
            if silent {
                return Err(SignInError::consent_missing(&authorization.client_id));
            }
            return self.ask_consent(flow, &client, &session, &wish.asked, missing).await;
        }
        self.grant_authorization(authorization, client, session, wish).await
    }

    /// The session, where it may be used for this request.
    fn usable(
        &self,
        flow: &Flow,
        wish: &Wish,
        session: Option<Session>,
        tenant: Option<Uuid>,
    ) -> Result<Option<Session>, SignInError> {
        let Some(session) = session.filter(|session| flow.fits(session, tenant)) else {
            return Ok(None);
        };
        let fresh =
            |seconds: i64| self.now().timestamp() - session.authenticated / 1_000_000 <= seconds;
        let old = wish.max_age.is_some_and(|seconds| !fresh(seconds)) && !flow.signed_in;
        if (wish.prompts("login") && !flow.signed_in) || old {
            return Ok(None);
        }
        let other = wish.login_hint.as_ref().is_some_and(|hint| {
            hint.contains('@') && !hint.eq_ignore_ascii_case(&session.account.principal_name)
        });
        if other && !flow.signed_in && !flow.chosen {
            return match wish.prompts("none") {
                true => Err(SignInError::several_accounts()),
                false => Ok(None),
            };
        }
        Ok(Some(session))
    }

    /// Reads what the request wishes. Errors go to the redirect URI.
    fn wish(&self, form: &Form, client: &Client, platform: Platform) -> Result<Wish, SignInError> {
        for name in ["request", "request_uri"] {
            if form.get(name).is_some() {
                let text = format!("The parameter '{name}' is not supported.");
                return Err(SignInError::new(90_025, "request_not_supported", 400, text));
            }
        }
        for name in ["state", "nonce"] {
            if form.get(name).is_some_and(|value| value.len() > LONGEST_STATE) {
                return Err(SignInError::malformed(format!("The parameter '{name}' is too long.")));
            }
        }
        if let Some(claims) = form.get("claims")
            && !serde_json::from_str::<serde_json::Value>(claims).is_ok_and(|c| c.is_object())
        {
            return Err(SignInError::malformed("The parameter 'claims' is no JSON object."));
        }
        let (code, id_token, token) = response_types(form, client)?;
        let asked = match self.asked(form)? {
            Some(asked) => asked,
            None => return Err(SignInError::parameter_missing("scope")),
        };
        let nonce = form.get("nonce").map(str::to_owned);
        if id_token && nonce.is_none() {
            return Err(SignInError::parameter_missing("nonce"));
        }
        let challenge = challenge(form, client, platform, code)?;
        let max_age = form.get("max_age").map(str::parse::<i64>).transpose();
        let max_age = max_age.map_err(|_| SignInError::malformed("'max_age' is no number."))?;
        let prompt: Vec<String> =
            form.get("prompt").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let known = ["none", "login", "consent", "select_account", "admin_consent", "create"];
        let unknown = prompt.iter().any(|prompt| !known.contains(&prompt.as_str()));
        if unknown || (prompt.len() > 1 && prompt.iter().any(|prompt| prompt == "none")) {
            return Err(SignInError::malformed("The value of 'prompt' is not supported."));
        }
        Ok(Wish {
            code,
            id_token,
            token,
            asked,
            nonce,
            challenge,
            prompt,
            login_hint: form.get("login_hint").map(str::to_owned),
            domain_hint: form.get("domain_hint").map(str::to_owned),
            max_age,
            client_info: self.wants_client_info(form),
        })
    }

    /// The answer to a request whose user has signed in and consented.
    async fn grant_authorization(
        &self,
        authorization: &Authorization,
        client: Arc<Client>,
        session: Session,
        wish: Wish,
    ) -> Result<Response, SignInError> {
        let tenant = session.account.tenant;
        let stored = Stored::new(&wish.asked, session.methods.clone(), session.authenticated);
        let mut members: Vec<(&str, String)> = Vec::new();
        if wish.code {
            let code = Code {
                stored,
                redirect_uri: authorization.redirect_uri.clone(),
                platform: authorization.platform,
                challenge: wish.challenge.clone(),
                nonce: wish.nonce.clone(),
            };
            let user = session.account.id;
            members.push(("code", self.store_code(tenant, client.app_id, user, &code).await?));
        }
        if wish.id_token || wish.token {
            let code = members.first().map(|(_, code)| code.clone());
            let grant = self.implicit(client, &session, &wish).await?;
            let times = self.times(tenant).await?;
            let token = match wish.token {
                true => Some(self.access_token(&grant, &times).await?),
                false => None,
            };
            if wish.id_token {
                let (code, token) = (code.as_deref(), token.as_deref());
                members.push(("id_token", self.id_token(&grant, self.version, code, token).await?));
            }
            if let Some(token) = token {
                members.push(("access_token", token));
                members.push(("token_type", "Bearer".to_owned()));
                members.push(("expires_in", times.lifetime.to_string()));
                members.push(("scope", self.told_scopes(&grant)));
            }
        }
        members.extend(authorization.state.clone().map(|state| ("state", state)));
        members.push(("session_state", session.state().to_string()));
        if wish.client_info {
            members.push(("client_info", client_info(&session.account)));
        }
        // RFC 9207: which server answers.
        members.push(("iss", self.issuer(tenant, self.version)));
        let members: Vec<(&str, &str)> =
            members.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Ok(self.send_back(&authorization.redirect_uri, authorization.mode, &members))
    }

    async fn implicit(
        &self,
        client: Arc<Client>,
        session: &Session,
        wish: &Wish,
    ) -> Result<Grant, SignInError> {
        let account: &Account = &session.account;
        let scopes = self.consented(&client, account.tenant, account.id, &wish.asked).await?;
        Ok(Grant {
            tenant: account.tenant,
            client,
            account: account.clone(),
            resource: wish.asked.resource,
            audience: wish.asked.audience.clone(),
            scopes,
            all: wish.asked.all(),
            openid: wish.asked.openid,
            methods: session.methods.clone(),
            authenticated: session.authenticated / 1_000_000,
            nonce: wish.nonce.clone(),
            proof: Proof::None,
            client_info: wish.client_info,
        })
    }
}

/// `code`, `id_token`, `token`, or several: which of them; and whether the mode suits.
fn response_types(form: &Form, client: &Client) -> Result<(bool, bool, bool), SignInError> {
    let named = form.get("response_type");
    let named = named.ok_or_else(|| SignInError::parameter_missing("response_type"))?;
    let has = |kind: &str| named.split_whitespace().any(|named| named == kind);
    let known = |kind: &str| matches!(kind, "code" | "id_token" | "token");
    if !named.split_whitespace().all(known) {
        return Err(SignInError::response_type_unsupported());
    }
    let (code, id_token, token) = (has("code"), has("id_token"), has("token"));
    if token && !client.registration.allow_implicit_access_token {
        return Err(SignInError::response_type_off(700_051));
    }
    if id_token && !client.registration.allow_implicit_id_token {
        return Err(SignInError::response_type_off(700_054));
    }
    match form.get("response_mode") {
        None | Some("fragment" | "form_post") => {}
        // Tokens never travel in a query.
        Some("query") if !id_token && !token => {}
        Some(_) => return Err(SignInError::response_mode_unsupported()),
    }
    Ok((code, id_token, token))
}

/// RFC 7636, section 4.3; needed of whoever has no other proof (RFC 9700, section 2.1.1).
fn challenge(
    form: &Form,
    client: &Client,
    platform: Platform,
    code: bool,
) -> Result<Option<Challenge>, SignInError> {
    let Some(value) = form.get("code_challenge") else {
        let must = platform != Platform::Web && code;
        return match must && !client.registration.allow_missing_challenge {
            true => Err(SignInError::parameter_missing("code_challenge")),
            false => Ok(None),
        };
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    if !(43..=128).contains(&value.len()) || !value.chars().all(allowed) {
        return Err(SignInError::challenge_malformed());
    }
    let plain = match form.get("code_challenge_method") {
        Some("S256") => false,
        None | Some("plain") if client.registration.allow_plain_challenge => true,
        _ => {
            let text = "The value of 'code_challenge_method' is not supported; use S256.";
            return Err(SignInError::malformed(text));
        }
    };
    Ok(Some(Challenge { value: value.to_owned(), plain }))
}

/// A page's form, of the endpoint's own pages.
pub async fn posted(ask: &Ask, method: &Method, body: Body) -> Result<Form, SignInError> {
    match *method {
        Method::POST => read_form(ask, body).await,
        _ => Err(SignInError::malformed("The page was reloaded. Start again.")),
    }
}
