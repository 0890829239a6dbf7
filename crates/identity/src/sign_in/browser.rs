//! Browsers: a cookie that binds forms to the browser they were made for, and one for the session of
//! who signed in.

use super::refresh::{new_token, token_hash};
use super::request::Ask;
use crate::directory::{Account, parse_uuid};
use crate::{SignInError, micros};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The prefix makes browsers insist on HTTPS, this host alone and every path.
const SESSION: &str = "__Host-vigie-session";
const BROWSER: &str = "__Host-vigie-browser";

/// Who is signed in in a browser.
#[derive(Clone)]
pub struct Session {
    pub account: Account,
    /// How the user authenticated (RFC 8176).
    pub methods: Vec<String>,
    /// When, in microseconds since the Unix epoch.
    pub authenticated: i64,
    hash: Vec<u8>,
}

impl Session {
    /// What `session_state` tells a client: the same for one session.
    pub fn state(&self) -> Uuid {
        let bytes: [u8; 16] = self.hash[..16].try_into().unwrap_or_default();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Whether the user gave a second factor.
    pub fn has_second_factor(&self) -> bool {
        self.methods.iter().any(|method| method == "mfa")
    }
}

impl Ask {
    fn cookie(&self, wanted: &str) -> Option<&str> {
        let cookies = self.headers.get_all(header::COOKIE).iter();
        let mut pairs = cookies.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
        pairs.find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == wanted).then_some(value)
        })
    }

    /// What forms of this browser are bound to; `None` where it sent no cookie of ours.
    pub fn browser(&self) -> Option<String> {
        let hash = token_hash(self.cookie(BROWSER)?)?;
        Some(BASE64.encode(hash))
    }

    /// Who is signed in in this browser.
    pub async fn session(&self) -> Result<Option<Session>, SignInError> {
        let Some(hash) = self.cookie(SESSION).and_then(token_hash) else { return Ok(None) };
        let select = "SELECT user_id, amr, authenticated FROM sessions \
                      WHERE hash = $1 AND expires > $2";
        let values = [hash.clone().into(), micros(self.now()).into()];
        let rows = self.directory.database().read(select, &values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let account = self.directory.account(parse_uuid(row.text(0)?)?).await?;
        let authenticated = row.integer(2)?;
        let account = account.filter(|account| {
            account.enabled && !account.blocked && account.password_changed <= authenticated
        });
        let methods = row.text(1)?.split(' ').map(str::to_owned).collect();
        Ok(account.map(|account| Session { account, methods, authenticated, hash }))
    }

    /// A new session, with an id of its own, in place of the browser's earlier one; and its cookie.
    pub async fn open_session(
        &self,
        account: &Account,
        methods: &[&str],
    ) -> Result<(Session, HeaderValue), SignInError> {
        let hours = self.directory.settings(account.tenant).await?.session_hours;
        let (token, hash) = new_token();
        let authenticated = micros(self.now());
        let mut transaction = self.directory.database().begin().await?;
        if let Some(earlier) = self.cookie(SESSION).and_then(token_hash) {
            let delete = "DELETE FROM sessions WHERE hash = $1";
            transaction.execute(delete, &[earlier.into()]).await?;
        }
        let insert = "INSERT INTO sessions (hash, tenant, user_id, amr, authenticated, expires) \
                      VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            hash.clone().into(),
            account.tenant.to_string().into(),
            account.id.to_string().into(),
            methods.join(" ").into(),
            authenticated.into(),
            micros(self.now() + TimeDelta::hours(hours)).into(),
        ];
        transaction.execute(insert, &values).await?;
        transaction.commit().await?;
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        let session = Session { account: account.clone(), methods, authenticated, hash };
        Ok((session, cookie(SESSION, &token)))
    }

    /// Ends the browser's session; the header that removes its cookie.
    pub async fn close_session(&self) -> Result<HeaderValue, SignInError> {
        if let Some(hash) = self.cookie(SESSION).and_then(token_hash) {
            let delete = "DELETE FROM sessions WHERE hash = $1";
            self.directory.database().execute(delete, &[hash.into()]).await?;
        }
        let gone = format!("{SESSION}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
        Ok(HeaderValue::from_str(&gone).unwrap_or(HeaderValue::from_static("")))
    }

    /// The browser's cookie, made if it has none: what to bind forms to, and the header to set.
    pub fn bind(&self) -> (String, Option<HeaderValue>) {
        match self.browser() {
            Some(browser) => (browser, None),
            None => {
                let (token, _) = new_token();
                let hash = BASE64.encode(Sha256::digest(&token));
                (hash, Some(cookie(BROWSER, &token)))
            }
        }
    }
}

fn cookie(name: &str, value: &str) -> HeaderValue {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Adds a cookie to an answer.
pub fn set_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
