//! The token endpoints: which grant, and those that need little.

use super::request::{Ask, Form, Version};
use super::scopes::{Asked, OpenId};
use crate::audit::Entry;
use crate::directory::{Account, Client};
use crate::{Resource, SignInError};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value as Json;
use uuid::Uuid;

/// Largest body of a token request.
const LARGEST_BODY: usize = 64 * 1024;
/// Members of a query that would be credentials in the wrong place.
const NEVER_IN_QUERIES: &[&str] = &[
    "client_secret",
    "client_assertion",
    "password",
    "code",
    "refresh_token",
    "assertion",
    "device_code",
];

/// What a grant answered; whether browsers of other origins may read it.
pub struct Answer {
    pub body: Json,
    pub cross_origin: bool,
}

impl From<Json> for Answer {
    fn from(body: Json) -> Answer {
        Answer { body, cross_origin: false }
    }
}

/// Serves `…/oauth2/token` and `…/oauth2/v2.0/token`.
pub async fn serve(ask: &Ask, method: &Method, body: Body) -> Response {
    if method == Method::OPTIONS {
        return preflight(ask);
    }
    let outcome = async {
        let form = read(ask, method, body).await?;
        grant(ask, &form).await
    };
    let (mut response, cross_origin) = match outcome.await {
        Ok(answer) => (ask.json(StatusCode::OK, &answer.body), answer.cross_origin),
        // What a browser application did wrong may be read by it: the answer holds no secret.
        Err(error) => (ask.refuse(&error), error.number != 9_002_326),
    };
    if let Some(origin) = ask.headers.get(header::ORIGIN).filter(|_| cross_origin) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Whether an application may redeem across origins is known from its code alone, so browsers may
/// ask all.
fn preflight(ask: &Ask) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(origin) = ask.headers.get(header::ORIGIN) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let methods = HeaderValue::from_static("POST, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(wanted) = ask.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// The form of a POST; on the v1 path also of a GET with a body, which two shipped clients send.
pub async fn read(ask: &Ask, method: &Method, body: Body) -> Result<Form, SignInError> {
    let body = axum::body::to_bytes(body, LARGEST_BODY).await;
    let body: Bytes = body.map_err(|_| SignInError::malformed("The request body is too large."))?;
    let lenient = method == Method::GET && ask.version == Version::V1 && !body.is_empty();
    if method != Method::POST && !lenient {
        return Err(SignInError::method_not_allowed(method.as_str()));
    }
    let query = Form::parse(ask.query.as_bytes())?;
    if let Some(name) = NEVER_IN_QUERIES.iter().find(|name| query.get(name).is_some()) {
        let text = format!("The parameter '{name}' must not be sent in the query.");
        return Err(SignInError::malformed(text));
    }
    Form::of_body(&ask.headers, &body)
}

async fn grant(ask: &Ask, form: &Form) -> Result<Answer, SignInError> {
    ask.directory.maintain_keys().await?;
    let tenant = ask.tenant().await?;
    match form.required("grant_type")? {
        "client_credentials" => ask.client_credentials(form, tenant).await.map(Answer::from),
        "authorization_code" => ask.redeem_code(form, tenant).await,
        "refresh_token" => ask.refresh(form, tenant).await,
        "password" => ask.password_grant(form, tenant).await.map(Answer::from),
        "device_code" | "urn:ietf:params:oauth:grant-type:device_code" => {
            ask.poll(form, tenant).await.map(Answer::from)
        }
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
            ask.on_behalf_of(form, tenant).await.map(Answer::from)
        }
        other => Err(SignInError::grant_unsupported(&other.chars().take(100).collect::<String>())),
    }
}

impl Ask {
    /// RFC 6749, section 4.4.
    async fn client_credentials(
        &self,
        form: &Form,
        tenant: Option<Uuid>,
    ) -> Result<Json, SignInError> {
        let tenant = tenant.ok_or_else(SignInError::tenant_not_named)?;
        let caller = self.caller(form, Some(tenant)).await?;
        if caller.proof == super::client::Proof::None {
            return Err(SignInError::secret_missing());
        }
        let (audience, resource) = self.application_resource(form)?;
        let (client, proof) = (&caller.client, caller.proof);
        let answer = self.application_answer(tenant, client, proof, resource, &audience).await?;
        let actor = client.app_id.to_string();
        self.directory.note_soon(Entry {
            tenant: Some(tenant),
            actor: &actor,
            action: "signIn",
            target: &audience,
            outcome: "success",
            address: Some(&self.address),
        });
        Ok(answer)
    }

    /// The audience as asked for, and its resource.
    fn application_resource(&self, form: &Form) -> Result<(String, Resource), SignInError> {
        let named = match self.version {
            Version::V1 => form.get("resource").unwrap_or("00000002-0000-0000-c000-000000000000"),
            Version::V2 => {
                if form.get("resource").is_some() {
                    return Err(SignInError::resource_on_v2());
                }
                let scope = form.required("scope")?;
                let mut scopes = scope.split_whitespace();
                let only = scopes.next().filter(|_| scopes.next().is_none());
                let resource = only.and_then(|scope| scope.strip_suffix("/.default"));
                resource.ok_or_else(|| SignInError::scope_not_default(scope))?
            }
        };
        let found = self.find_resource(named);
        let found =
            found.ok_or_else(|| SignInError::resource_not_found(named, &self.tenant_name))?;
        Ok((named.to_owned(), found))
    }

    /// What the request asks for; refuses a request that asks for nothing.
    pub fn asked_or_refused(&self, form: &Form) -> Result<Asked, SignInError> {
        self.asked(form)?.ok_or_else(|| SignInError::parameter_missing("scope"))
    }

    /// Refuses a user that may not use the application in the tenant now.
    pub async fn check_user(
        &self,
        client: &Client,
        tenant: Uuid,
        account: &Account,
    ) -> Result<(), SignInError> {
        if account.tenant != tenant {
            return Err(SignInError::user_of_another_tenant());
        }
        if !account.enabled {
            return Err(SignInError::user_disabled());
        }
        if account.blocked {
            return Err(SignInError::blocked_by_policy());
        }
        let required = client.principal.as_ref().is_some_and(|p| p.assignment_required);
        if required && !self.directory.is_assigned(tenant, client.app_id, account.id).await? {
            return Err(SignInError::not_assigned(&client.app_id.to_string()));
        }
        Ok(())
    }

    /// Writes a user's sign-in to the audit log. `outcome` is the number of an error, if any.
    pub async fn note_sign_in(&self, account: &Account, target: &str, outcome: Option<u32>) {
        let outcome = outcome.map_or("success".to_owned(), |number| number.to_string());
        let entry = Entry {
            tenant: Some(account.tenant),
            actor: &account.principal_name,
            action: "signIn",
            target,
            outcome: &outcome,
            address: Some(&self.address),
        };
        self.directory.note(entry).await;
    }

    /// The client wants MSAL's account key.
    pub fn wants_client_info(&self, form: &Form) -> bool {
        form.get("client_info") == Some("1")
    }
}

/// A missing scope of a follow-up means the former ones; OpenID Connect's may be left out.
pub fn openid_or(asked: Option<&Asked>, former: OpenId) -> OpenId {
    match asked {
        Some(asked) => OpenId {
            openid: asked.openid.openid || former.openid,
            profile: asked.openid.profile || former.profile,
            email: asked.openid.email && former.email,
            offline_access: former.offline_access,
        },
        None => former,
    }
}
