//! A client of the resource API: signs in with the client credentials grant, calls operations,
//! follows pages, waits when it is told to. It speaks to Vigie and to Microsoft's cloud alike.

mod pages;
mod sign_in;

pub use pages::Pages;
pub use sign_in::Credentials;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// How often a request is repeated after 429 or 503 before the answer is given to the caller.
const RETRIES: u32 = 5;
/// Longest wait that a server can ask for before the client gives up instead.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token endpoint refused; `description` is its text, with the AADSTS number.
    #[error("sign-in failed: {description}")]
    SignIn { code: String, description: String },
    /// The API answered with an error.
    #[error("{status} {code}: {message}")]
    Api { status: StatusCode, code: String, message: String },
    #[error("{0}")]
    Unexpected(String),
    /// The server was not reached or the connection broke.
    #[error("{}", transport(.0))]
    Transport(#[from] reqwest::Error),
}

/// A signed-in application.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    api: Url,
    sign_in: std::sync::Arc<sign_in::SignIn>,
}

/// Where the API and its authority are, and whom to trust.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// For example `https://127.0.0.1:8443` or `https://api.securitycenter.microsoft.com`.
    pub api: Url,
    /// For example `https://127.0.0.1:8443` or `https://login.microsoftonline.com`.
    pub authority: Url,
    /// PEM text of a certificate authority to trust besides the system's.
    pub ca_pem: Option<String>,
}

impl Client {
    pub fn new(endpoints: &Endpoints, credentials: Credentials) -> Result<Client, Error> {
        let http = http_client(endpoints.ca_pem.as_deref())?;
        let sign_in = sign_in::SignIn::new(endpoints.authority.clone(), credentials);
        Ok(Client { http, api: endpoints.api.clone(), sign_in: sign_in.into() })
    }

    /// A bearer token for the API, from memory while it is valid.
    pub async fn token(&self) -> Result<String, Error> {
        self.sign_in.token(&self.http).await
    }

    /// `GET path?query`, one answer.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Error> {
        self.request(Method::GET, self.url(path, query)?, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.request(Method::POST, self.url(path, &[])?, Some(body)).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        self.request(method, self.url(path, &[])?, body).await
    }

    /// A list, page by page along `@odata.nextLink`.
    pub fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Pages, Error> {
        Ok(Pages::new(self.clone(), self.url(path, query)?))
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, Error> {
        let mut url = self
            .api
            .join(path)
            .map_err(|error| Error::Unexpected(format!("{path} is not a path: {error}")))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Sends one request; repeats it after 429 and 503 as `Retry-After` says, and once with a new
    /// token after 401 (the token may have been revoked while it looked valid).
    async fn request(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let mut renewed = false;
        let mut tries = 0;
        loop {
            let token = self.token().await?;
            let mut request = self.http.request(method.clone(), url.clone()).bearer_auth(&token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.sign_in.forget(&token).await;
                continue;
            }
            let throttled = matches!(status.as_u16(), 429 | 503);
            if throttled && tries < RETRIES {
                let wait = retry_after(&response).unwrap_or(Duration::from_secs(1 << tries));
                if wait <= LONGEST_WAIT {
                    tries += 1;
                    tokio::time::sleep(wait).await;
                    continue;
                }
            }
            let text = response.text().await?;
            return if status.is_success() { answer(&text) } else { Err(api_error(status, &text)) };
        }
    }
}

/// An HTTP client that also trusts `ca_pem`.
pub fn http_client(ca_pem: Option<&str>) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("vigie/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10));
    if let Some(pem) = ca_pem {
        for certificate in reqwest::Certificate::from_pem_bundle(pem.as_bytes())? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder.build()?)
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An empty body (204) is null; `$count` answers a bare number, which is JSON too.
fn answer(text: &str) -> Result<Value, Error> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text)
        .map_err(|error| Error::Unexpected(format!("the answer is not JSON: {error}")))
}

fn api_error(status: StatusCode, text: &str) -> Error {
    let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let field = |name: &str| body["error"][name].as_str().map(str::to_owned);
    Error::Api {
        status,
        code: field("code").unwrap_or_else(|| "unknown".to_owned()),
        message: field("message").unwrap_or_else(|| text.chars().take(500).collect()),
    }
}

/// The innermost cause says what happened; the outer texts only name layers.
fn transport(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error.url() {
        Some(url) => format!("{}: {cause}", url.origin().ascii_serialization()),
        None => cause.to_string(),
    }
}
