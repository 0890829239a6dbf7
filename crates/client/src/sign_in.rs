//! The client credentials grant (RFC 6749, section 4.4) on the v2.0 token endpoint.

use crate::Error;
use serde::Deserialize;
use std::fmt;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use url::Url;

/// An application's proof of itself.
#[derive(Clone)]
pub struct Credentials {
    /// GUID or verified domain.
    pub tenant: String,
    pub client_id: String,
    pub client_secret: String,
    /// For example `https://api.securitycenter.microsoft.com/.default`.
    pub scope: String,
}

impl Credentials {
    /// The scope that stands for all permissions of the Defender resource.
    pub const DEFENDER: &'static str = "https://api.securitycenter.microsoft.com/.default";
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} in {})", self.client_id, self.tenant)
    }
}

pub(crate) struct SignIn {
    authority: Url,
    credentials: Credentials,
    cached: Mutex<Option<Token>>,
}

struct Token {
    text: String,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl SignIn {
    pub(crate) fn new(authority: Url, credentials: Credentials) -> SignIn {
        SignIn { authority, credentials, cached: Mutex::new(None) }
    }

    pub(crate) async fn token(&self, http: &reqwest::Client) -> Result<String, Error> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.text.clone());
        }
        let answer = self.request(http).await?;
        // A minute early, so that a token never expires on its way.
        let valid = Duration::from_secs(answer.expires_in.saturating_sub(60));
        let text = answer.access_token;
        *cached = Some(Token { text: text.clone(), renew_at: Instant::now() + valid });
        Ok(text)
    }

    /// Drops `token` if it is still the cached one.
    pub(crate) async fn forget(&self, token: &str) {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_some_and(|cached| cached.text == token) {
            *cached = None;
        }
    }

    async fn request(&self, http: &reqwest::Client) -> Result<Answer, Error> {
        let credentials = &self.credentials;
        let url = self
            .authority
            .join(&format!("/{}/oauth2/v2.0/token", credentials.tenant))
            .map_err(|error| Error::Unexpected(format!("bad tenant: {error}")))?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &credentials.client_id),
            ("client_secret", &credentials.client_secret),
            ("scope", &credentials.scope),
        ];
        let response = http.post(url).form(&form).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .map_err(|error| Error::Unexpected(format!("bad token answer: {error}")));
        }
        match serde_json::from_str::<Refusal>(&text) {
            Ok(refusal) => Err(Error::SignIn {
                code: refusal.error,
                // The first line holds the sentence; the others are trace data.
                description: refusal.error_description.lines().next().unwrap_or("").to_owned(),
            }),
            Err(_) => Err(Error::Unexpected(format!("the token endpoint answered {status}"))),
        }
    }
}
