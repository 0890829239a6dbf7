//! What a person is on the way to. It travels in the pages' forms, sealed and bound to the browser, so
//! that nobody else's form can be slipped in (RFC 6819, section 4.4.1.8).

use super::authorize::Authorization;
use super::browser::Session;
use super::request::{Ask, Form};
use crate::SignInError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What flows are sealed for.
const PURPOSE: &str = "browser flow";
/// Seconds that a page may lie open.
const LIFETIME: i64 = 1800;

/// Where the way leads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Goal {
    /// Back to a client.
    Authorize(Box<Authorization>),
    /// To a device that shows a code: the code's hash in base64url.
    Device { user_code: String },
    /// To an administrator's consent for an application.
    AdminConsent { query: String },
}

/// A person on the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flow {
    pub goal: Goal,
    /// Path and version of the first request.
    pub tenant_name: String,
    pub v2: bool,
    browser: String,
    expires: i64,
    /// The user has signed in on this way, not just before it.
    pub signed_in: bool,
    /// The user has chosen which account to go on with.
    pub chosen: bool,
    /// The user has consented on this way.
    pub consented: bool,
    /// Password was right, second factor is missing: the user.
    pub half: Option<Uuid>,
    /// The consent that the page asks for.
    pub consent: Option<ConsentAsked>,
}

/// A consent that was asked for, and of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsentAsked {
    pub user: Uuid,
    pub app_id: Uuid,
    /// The resource of the scopes.
    pub audience: String,
    pub scopes: Vec<String>,
    /// Application permissions of the Defender resource.
    pub roles: Vec<String>,
    /// Always for everybody in the tenant.
    pub for_all: bool,
}

impl Flow {
    pub fn new(ask: &Ask, goal: Goal, browser: String) -> Flow {
        Flow {
            goal,
            tenant_name: ask.tenant_name.clone(),
            v2: ask.version == super::request::Version::V2,
            browser,
            expires: ask.now().timestamp() + LIFETIME,
            signed_in: false,
            chosen: false,
            consented: false,
            half: None,
            consent: None,
        }
    }

    /// For the form of a page.
    pub fn seal(&self, ask: &Ask) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        BASE64.encode(ask.directory.master().seal(PURPOSE, &text))
    }

    /// Where the way's forms may lead: for `form-action`.
    pub fn leads_to(&self) -> Option<String> {
        match &self.goal {
            Goal::Authorize(authorization) => {
                Some(super::redirect::origin(&authorization.redirect_uri))
            }
            Goal::AdminConsent { query } => {
                let query = Form::parse(query.as_bytes()).ok()?;
                Some(super::redirect::origin(query.get("redirect_uri")?))
            }
            Goal::Device { .. } => None,
        }
    }

    /// Whether the session can go on, for a request of this tenant.
    pub fn fits(&self, session: &Session, tenant: Option<Uuid>) -> bool {
        tenant.is_none_or(|tenant| tenant == session.account.tenant)
    }
}

impl Ask {
    /// The flow of a page's form. Errors: it was made for another browser, or lies open too long.
    pub fn open_flow(&self, form: &Form) -> Result<Flow, SignInError> {
        let stale = || {
            let text = "The page was open too long, was made for another browser, or cookies are \
                        off. Start again from the application.";
            SignInError::new(90_019, "invalid_request", 400, text)
        };
        let sealed = BASE64.decode(form.required("ctx")?).map_err(|_| stale())?;
        let text = self.directory.master().open(PURPOSE, &sealed).ok_or_else(stale)?;
        let flow: Flow = serde_json::from_slice(&text).map_err(|_| stale())?;
        let same = self.browser().is_some_and(|browser| browser == flow.browser);
        match same && flow.expires > self.now().timestamp() {
            true => Ok(flow),
            false => Err(stale()),
        }
    }
}
