//! The sensor protocol's client side: one call per request of [`vigie_contract::sensor`].

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use thiserror::Error;
use uuid::Uuid;
use vigie_contract::sensor::*;

/// Longest time that a long poll may be held, in seconds.
pub const LONGEST_POLL_SECONDS: u64 = 50;

/// Why a call brought no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// No answer: network, name resolution, TLS (also: the server's certificate is not of the CA).
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused; `code` and `message` as it said them.
    #[error("the server refused with {status} {code}: {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(String),
}

impl CallError {
    /// Whether the session (or its absence) is the reason, so that a new one may help.
    pub fn is_session(&self) -> bool {
        matches!(self, CallError::Refused { status: 401, .. })
    }

    /// Whether the order that the call is about has ended, or is none of this sensor's.
    pub fn is_order_over(&self) -> bool {
        matches!(self, CallError::Refused { status: 404 | 409 | 410, .. })
    }

    /// Whether the same call can never succeed, because of what was sent.
    pub fn is_bad_content(&self) -> bool {
        matches!(self, CallError::Refused { status: 400 | 413 | 415 | 422, .. })
    }
}

/// Calls one server, trusting nothing but the given CA.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// `server_url` like `https://vigie.example:8443`; `ca_pem` one or several PEM certificates.
    pub fn new(server_url: &str, ca_pem: &str) -> anyhow::Result<Client> {
        let base = server_url.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base)
            .map_err(|error| anyhow::anyhow!("server address {base}: {error}"))?;
        anyhow::ensure!(url.scheme() == "https", "server address {base}: must begin with https://");
        let roots = reqwest::Certificate::from_pem_bundle(ca_pem.as_bytes())
            .map_err(|error| anyhow::anyhow!("the server's CA is not PEM: {error}"))?;
        anyhow::ensure!(!roots.is_empty(), "the server's CA file holds no certificate");
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_keep_alive_while_idle(true)
            .user_agent(concat!("vigie-sensor/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Client { http, base })
    }

    pub async fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, CallError> {
        self.post("enrol", None, request).await
    }

    pub async fn session(&self, request: &SessionRequest) -> Result<Session, CallError> {
        self.post("session", None, request).await
    }

    pub async fn report(&self, token: &str, report: &MachineReport) -> Result<(), CallError> {
        let request = self.http.post(self.url("report")).bearer_auth(token).json(report);
        self.send(request, 30).await.map(drop)
    }

    /// Sends a batch that is already JSON under zstd.
    pub async fn telemetry(
        &self,
        token: &str,
        sequence: u64,
        zstd_json: Bytes,
    ) -> Result<Acknowledgement, CallError> {
        let request = self
            .http
            .post(self.url(&format!("telemetry?sequence={sequence}")))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .header("content-encoding", "zstd")
            .body(zstd_json);
        read(self.send(request, 60).await?).await
    }

    /// Waits up to `wait` seconds for orders; none is an empty list.
    pub async fn orders(&self, token: &str, wait: u64) -> Result<Orders, CallError> {
        let request = self.http.get(self.url(&format!("orders?wait={wait}"))).bearer_auth(token);
        read(self.send(request, wait + 20).await?).await
    }

    pub async fn order_result(
        &self,
        token: &str,
        id: Uuid,
        result: &OrderResult,
    ) -> Result<(), CallError> {
        let url = self.url(&format!("orders/{id}/result"));
        self.send(self.http.post(url).bearer_auth(token).json(result), 30).await.map(drop)
    }

    /// Tells of an order that was not taken.
    pub async fn order_refused(&self, token: &str, refusal: &Refusal) -> Result<(), CallError> {
        let url = self.url("orders/refused");
        self.send(self.http.post(url).bearer_auth(token).json(refusal), 30).await.map(drop)
    }

    /// Bytes of a library file that an order names.
    pub async fn order_file(
        &self,
        token: &str,
        id: Uuid,
        sha256: &str,
    ) -> Result<Bytes, CallError> {
        let url = self.url(&format!("orders/{id}/files/{sha256}"));
        let response = self.send(self.http.get(url).bearer_auth(token), 120).await?;
        response.bytes().await.map_err(|error| CallError::Unreachable(with_causes(&error)))
    }

    /// Sends a piece of an upload; an empty one asks how much the server has.
    pub async fn upload_piece(
        &self,
        token: &str,
        (id, position): (Uuid, usize),
        offset: u64,
        bytes: Bytes,
    ) -> Result<UploadState, CallError> {
        let url = self.url(&format!("orders/{id}/uploads/{position}?offset={offset}"));
        let request = self
            .http
            .post(url)
            .bearer_auth(token)
            .header("content-type", "application/octet-stream")
            .body(bytes);
        read(self.send(request, 60).await?).await
    }

    pub async fn upload_end(
        &self,
        token: &str,
        (id, position): (Uuid, usize),
        end: &UploadEnd,
    ) -> Result<(), CallError> {
        let url = self.url(&format!("orders/{id}/uploads/{position}/end"));
        self.send(self.http.post(url).bearer_auth(token).json(end), 120).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/sensor/v1/{path}", self.base)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
        body: &B,
    ) -> Result<T, CallError> {
        let mut request = self.http.post(self.url(path)).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        read(self.send(request, 30).await?).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        seconds: u64,
    ) -> Result<reqwest::Response, CallError> {
        let response = request
            .timeout(Duration::from_secs(seconds))
            .send()
            .await
            .map_err(|error| CallError::Unreachable(with_causes(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: serde_json::Value = response.json().await.unwrap_or_default();
        let text = |name: &str| body["error"][name].as_str().map(str::to_owned);
        Err(CallError::Refused {
            status: status.as_u16(),
            code: text("code").unwrap_or_else(|| {
                status.canonical_reason().unwrap_or("unknown status").to_owned()
            }),
            message: text("message").unwrap_or_default(),
        })
    }
}

async fn read<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, CallError> {
    response.json().await.map_err(|error| CallError::Unreadable(with_causes(&error)))
}

/// The HTTP library names the cause (refused, unknown issuer …) only in the chain of sources.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
