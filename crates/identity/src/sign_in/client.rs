//! Which application asks, and its proof (RFC 6749, section 2.3; RFC 7523).

use super::jws::Jws;
use super::request::{Ask, Form};
use crate::audit::Entry;
use crate::directory::{Client, parse_uuid};
use crate::{Directory, DirectoryError, SignInError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// The only type of assertion (RFC 7523, section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Seconds that clocks may differ.
const SKEW: f64 = 300.0;
/// Seconds that an assertion may live.
const LONGEST_ASSERTION: f64 = 86_400.0;

/// How an application proved itself; `appidacr` of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: a public client.
    None,
    Secret,
    Assertion,
}

impl Proof {
    /// `0`, `1` or `2`.
    pub fn acr(self) -> &'static str {
        match self {
            Proof::None => "0",
            Proof::Secret => "1",
            Proof::Assertion => "2",
        }
    }
}

/// An application that is known, and has proved itself where it sent a credential.
pub struct Caller {
    /// The application as the tenant sees it.
    pub client: Arc<Client>,
    pub proof: Proof,
}

impl Caller {
    /// Refuses a confidential client that sent nothing.
    pub fn must_prove(&self) -> Result<(), SignInError> {
        match self.proof {
            Proof::None => Err(SignInError::credential_missing()),
            _ => Ok(()),
        }
    }

    /// Refuses who is neither proved nor marked as a public client.
    pub fn may_be_public(&self) -> Result<(), SignInError> {
        match self.client.registration.allow_public_client {
            true => Ok(()),
            false => self.must_prove(),
        }
    }
}

/// A credential as it was sent.
enum Credential<'a> {
    None,
    Secret(String),
    Assertion(&'a str),
}

impl Ask {
    /// The application that asks, with its proof checked. `tenant` is that of the request.
    pub async fn caller(&self, form: &Form, tenant: Option<Uuid>) -> Result<Caller, SignInError> {
        let (client_id, credential) = self.credential(form)?;
        let (client, tenant) = self.find_client(&client_id, tenant).await?;
        let proof = match credential {
            Credential::None => Ok(Proof::None),
            _ if is_public(&client) => Err(SignInError::public_client_credential()),
            Credential::Secret(secret) => self.check_secret(&client, &secret),
            Credential::Assertion(token) => self.check_assertion(&client, tenant, token).await,
        };
        match proof {
            Ok(proof) => Ok(Caller { client, proof }),
            Err(error) => Err(self.failed(&client, tenant, error).await),
        }
    }

    /// The application of an id, usable in the tenant; without a tenant, in its own.
    pub async fn find_client(
        &self,
        client_id: &str,
        tenant: Option<Uuid>,
    ) -> Result<(Arc<Client>, Uuid), SignInError> {
        let not_found = || SignInError::application_not_found(client_id, &self.tenant_name);
        let app_id = Uuid::try_parse(client_id).map_err(|_| not_found())?;
        let tenant = match tenant {
            Some(tenant) => tenant,
            None => self.directory.owner(app_id).await?.ok_or_else(not_found)?,
        };
        let client = self.directory.client(tenant, app_id).await?.ok_or_else(not_found)?;
        let disabled = client.principal.as_ref().is_some_and(|principal| !principal.enabled);
        if disabled || !client.registration.enabled {
            return Err(SignInError::application_disabled(client_id));
        }
        Ok((client, tenant))
    }

    fn credential<'a>(&self, form: &'a Form) -> Result<(String, Credential<'a>), SignInError> {
        let secret = form.get("client_secret").map(str::to_owned);
        let assertion = form.get("client_assertion");
        let basic = self.basic().map(basic_pair).transpose()?;
        let ways = [secret.is_some(), assertion.is_some(), basic.is_some()];
        if ways.iter().filter(|used| **used).count() > 1 {
            let text = "The request must use one method of client authentication only.";
            return Err(SignInError::malformed(text));
        }
        if let Some((id, secret)) = basic {
            if form.get("client_id").is_some_and(|named| !named.eq_ignore_ascii_case(&id)) {
                let text = "The Authorization header and 'client_id' name different applications.";
                return Err(SignInError::malformed(text));
            }
            return Ok(match secret.is_empty() {
                true => (id, Credential::None),
                false => (id, Credential::Secret(secret)),
            });
        }
        if let Some(assertion) = assertion {
            if form.required("client_assertion_type")? != ASSERTION_TYPE {
                return Err(SignInError::assertion_invalid("its type is unknown"));
            }
            // RFC 7523, section 3: the assertion itself names the client.
            let named = form.get("client_id").map(str::to_owned);
            let named = named.or_else(|| Some(Jws::parse(assertion)?.text("sub")?.to_owned()));
            let named = named.ok_or_else(|| SignInError::parameter_missing("client_id"))?;
            return Ok((named, Credential::Assertion(assertion)));
        }
        let id = form.required("client_id")?.to_owned();
        Ok((id, secret.map_or(Credential::None, Credential::Secret)))
    }

    fn check_secret(&self, client: &Client, secret: &str) -> Result<Proof, SignInError> {
        let (mut proven, mut expired) = (false, false);
        // Every secret is compared, so that the time tells nothing of their order.
        for (hash, expires) in &client.secrets {
            if self.directory.master().is_hash_of(hash, secret) {
                if *expires > self.now() { proven = true } else { expired = true }
            }
        }
        match (proven, expired) {
            (true, _) => Ok(Proof::Secret),
            (false, true) => Err(SignInError::expired_secret(&client.app_id.to_string())),
            (false, false) => Err(SignInError::wrong_secret(&client.app_id.to_string())),
        }
    }

    async fn check_assertion(
        &self,
        client: &Client,
        tenant: Uuid,
        token: &str,
    ) -> Result<Proof, SignInError> {
        let invalid = SignInError::assertion_invalid;
        let jws = Jws::parse(token).ok_or_else(|| invalid("it is malformed"))?;
        let app_id = client.app_id.to_string();
        let own = |claim: &str| jws.text(claim).is_some_and(|v| v.eq_ignore_ascii_case(&app_id));
        if jws.text("iss").is_some_and(|issuer| issuer.contains("://")) {
            return self.check_federated(client, &jws).await;
        }
        if !own("iss") || !own("sub") {
            return Err(SignInError::assertion_of_another(&app_id));
        }
        let x5t = jws.header_value("x5t").or(jws.header_value("kid"));
        let sha256 = jws.header_value("x5t#S256");
        let named = client.certificates.iter().find(|certificate| {
            sha256.is_some_and(|thumbprint| thumbprint == certificate.thumbprint_sha256)
                || x5t.is_some_and(|thumbprint| {
                    thumbprint == certificate.thumbprint
                        || thumbprint == certificate.thumbprint_sha256
                })
        });
        let certificate = named.ok_or_else(|| invalid("its key is not registered"))?;
        if !jws.is_signed_by(&certificate.public_key) {
            return Err(invalid("its signature does not verify"));
        }
        if certificate.expires <= self.now() || certificate.starts > self.now() {
            return Err(invalid("the certificate of its key is not valid now"));
        }
        if !jws.has_audience(&self.accepted_audiences(tenant)) {
            return Err(invalid("its audience is not this token endpoint"));
        }
        self.check_times(&jws)?;
        self.check_repetition(client, tenant, &jws).await?;
        Ok(Proof::Assertion)
    }

    /// Token endpoints and issuers of the tenant, by every name that reaches this server.
    fn accepted_audiences(&self, tenant: Uuid) -> Vec<String> {
        let mut accepted = vec![format!("https://sts.windows.net/{tenant}/")];
        for host in self.directory.authority().hosts() {
            for name in [tenant.to_string().as_str(), &self.tenant_name] {
                for end in ["oauth2/token", "oauth2/v2.0/token", "v2.0", ""] {
                    accepted.push(format!("https://{host}/{name}/{end}"));
                }
            }
        }
        accepted
    }

    fn check_times(&self, jws: &Jws) -> Result<(), SignInError> {
        let now = self.now().timestamp_micros() as f64 / 1e6;
        let expires = jws.date("exp")?.ok_or_else(SignInError::assertion_time)?;
        let starts = jws.date("nbf")?.or(jws.date("iat")?).unwrap_or(now);
        let lives = expires > now - SKEW && expires <= now + LONGEST_ASSERTION + SKEW;
        match lives && starts <= now + SKEW {
            true => Ok(()),
            false => Err(SignInError::assertion_time()),
        }
    }

    /// Where the tenant wants it, an assertion works once (RFC 7523, section 3, item 7).
    async fn check_repetition(
        &self,
        client: &Client,
        tenant: Uuid,
        jws: &Jws<'_>,
    ) -> Result<(), SignInError> {
        if !self.directory.settings(tenant).await?.refuse_repeated_assertions {
            return Ok(());
        }
        let id = jws.text("jti").ok_or_else(|| SignInError::assertion_invalid("it has no jti"))?;
        let id = Sha256::digest(format!("{} {id}", client.app_id)).to_vec();
        let expires = jws.date("exp")?.ok_or_else(SignInError::assertion_time)?;
        let expires = (expires + SKEW) * 1e6;
        let insert = "INSERT INTO assertion_ids (id, expires) VALUES ($1, $2) \
                      ON CONFLICT (id) DO NOTHING";
        let values = [id.into(), (expires as i64).into()];
        match self.directory.database().execute(insert, &values).await? {
            0 => Err(SignInError::assertion_invalid("it was used already")),
            _ => Ok(()),
        }
    }

    /// A token of another issuer in place of an assertion of the application's own.
    async fn check_federated(&self, client: &Client, jws: &Jws<'_>) -> Result<Proof, SignInError> {
        let (issuer, subject) = (jws.text("iss"), jws.text("sub"));
        let found = client.federated.iter().find(|known| {
            issuer == Some(&known.issuer)
                && subject == Some(&known.subject)
                && jws.has_audience(std::slice::from_ref(&known.audience))
        });
        let known = found.ok_or_else(SignInError::no_federated_credential)?;
        let signed = match &known.keys {
            Some(keys) => jws.is_signed_by_one_of(keys),
            // Nothing is fetched from elsewhere: without keys the issuer is one of our tenants.
            None => {
                let ours = self.is_own_issuer(&known.issuer);
                let keys: Vec<_> = self.directory.keys().iter().map(|key| key.jwk(None)).collect();
                ours && jws.is_signed_by_one_of(&serde_json::json!({ "keys": keys }))
            }
        };
        if !signed {
            return Err(SignInError::assertion_invalid("its signature does not verify"));
        }
        self.check_times(jws)?;
        Ok(Proof::Assertion)
    }

    fn is_own_issuer(&self, issuer: &str) -> bool {
        let own = issuer.strip_prefix("https://").and_then(|rest| rest.split_once('/'));
        own.is_some_and(|(host, _)| {
            host == "sts.windows.net" || self.directory.authority().known(host).is_some()
        })
    }

    /// A failure is written down, and slowed down where it is one of many.
    async fn failed(&self, client: &Client, tenant: Uuid, error: SignInError) -> SignInError {
        let (actor, outcome) = (client.app_id.to_string(), error.number.to_string());
        let entry = Entry {
            tenant: Some(tenant),
            actor: &actor,
            action: "signIn",
            target: "token",
            outcome: &outcome,
            address: Some(&self.address),
        };
        let protection = &self.directory.shared().protection;
        let subject = format!("{actor} {}", self.address);
        let now = self.now().timestamp();
        let wait = protection.wait(&subject, now);
        protection.failed(&subject, now);
        if wait > 0 {
            // Not written: a flood must not fill the log.
            return SignInError::too_many_requests(wait);
        }
        self.directory.note(entry).await;
        error
    }
}

/// Whether the application cannot have a credential.
fn is_public(client: &Client) -> bool {
    client.registration.allow_public_client && !client.has_credentials()
}

/// Both halves are form-encoded before base64 (RFC 6749, section 2.3.1).
fn basic_pair(encoded: &str) -> Result<(String, String), SignInError> {
    let decoded = STANDARD.decode(encoded).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let malformed = || SignInError::malformed("The Authorization header is malformed.");
    let (id, secret) = pair.ok_or_else(malformed)?;
    let plain =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    Ok((plain(id), plain(secret)))
}

impl Directory {
    /// The tenant that registered an application.
    pub(crate) async fn owner(&self, app_id: Uuid) -> Result<Option<Uuid>, DirectoryError> {
        let select = "SELECT tenant FROM applications WHERE app_id = $1";
        let rows = self.database().read(select, &[app_id.to_string().into()]).await?;
        rows.first().map(|row| parse_uuid(row.text(0)?)).transpose()
    }
}
