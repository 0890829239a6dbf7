//! Refresh tokens (RFC 6749, section 6): stored as hashes, replaced at each use. The spent token of a
//! public client is good for a short while longer, since libraries refresh in parallel; its use
//! after that revokes all that came from the same sign-in (RFC 9700, section 4.14.2).

use super::client::Proof;
use super::issue::{Grant, SignedIn};
use super::request::{Ask, Form};
use super::scopes::{Asked, OpenId};
use super::token::{Answer, openid_or};
use crate::directory::{Account, Client, parse_uuid};
use crate::seal::fill;
use crate::{Resource, SignInError, micros};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use http::header;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;
use vigie_database::Row;

/// How long a spent token may be used again.
const GRACE: TimeDelta = TimeDelta::seconds(30);
/// How long a token of a browser application lives, from the sign-in on.
const BROWSER: TimeDelta = TimeDelta::hours(24);

/// What a code or refresh token stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub family: String,
    /// Resource as the first request named it.
    pub audience: String,
    pub scopes: Vec<String>,
    /// The first request asked for all that was granted.
    pub all: bool,
    pub openid: OpenId,
    pub methods: Vec<String>,
    /// When the user authenticated, in microseconds since the Unix epoch.
    pub authenticated: i64,
    /// The client had proved itself.
    pub proven: bool,
    /// The end, for a browser application: microseconds since the Unix epoch.
    pub browser_until: Option<i64>,
    /// The hash of the code that it came from, in base64url.
    pub code: Option<String>,
}

/// A new secret of 256 bits, in the form of codes and refresh tokens, and its hash.
pub fn new_token() -> (String, Vec<u8>) {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    let token = format!("1.{}", BASE64.encode(bytes));
    let hash = Sha256::digest(&token).to_vec();
    (token, hash)
}

/// The hash of a token as it is stored; `None` for what was never issued in this form.
pub fn token_hash(token: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(token.strip_prefix("1.")?).ok()?;
    (bytes.len() == 32).then(|| Sha256::digest(token).to_vec())
}

impl Stored {
    /// For a sign-in that has just happened.
    pub fn new(asked: &Asked, account_methods: Vec<String>, authenticated: i64) -> Stored {
        Stored {
            family: Uuid::new_v4().to_string(),
            audience: asked.audience.clone(),
            scopes: asked.scopes.clone(),
            all: asked.all(),
            openid: asked.openid,
            methods: account_methods,
            authenticated,
            proven: false,
            browser_until: None,
            code: None,
        }
    }

    /// The end of a browser application's tokens, which begins now.
    pub fn for_browser(mut self, ask: &Ask) -> Stored {
        self.browser_until = Some(micros(ask.now() + BROWSER));
        self
    }

    pub fn signed_in(&self) -> SignedIn {
        SignedIn { methods: self.methods.clone(), authenticated: self.authenticated / 1_000_000 }
    }

    pub fn asked(&self, resource: Resource) -> Asked {
        Asked {
            resource,
            audience: self.audience.clone(),
            scopes: self.scopes.clone(),
            openid: self.openid,
        }
    }
}

impl Ask {
    pub async fn store_refresh_token(
        &self,
        tenant: Uuid,
        app_id: Uuid,
        user: Uuid,
        stored: Stored,
    ) -> Result<String, SignInError> {
        let days = self.directory.settings(tenant).await?.refresh_token_days;
        let expires = stored.browser_until.unwrap_or(micros(self.now() + TimeDelta::days(days)));
        let (token, hash) = new_token();
        let mut transaction = self.directory.database().begin().await?;
        // A code that was used twice by now takes with it what its first use issues.
        let mut reused = false;
        if let Some(code) = stored.code.as_ref().and_then(|code| BASE64.decode(code).ok()) {
            // Locks the row until the token is there, so that a second use finds it.
            let lock = "UPDATE codes SET spent = spent WHERE hash = $1";
            transaction.execute(lock, &[code.clone().into()]).await?;
            let select = "SELECT spent FROM codes WHERE hash = $1";
            let rows = transaction.read(select, &[code.into()]).await?;
            reused = rows.first().map_or(Ok(0), |row| row.integer(0))? > 1;
        }
        let insert = "INSERT INTO refresh_tokens (hash, family, tenant, app_id, user_id, content, \
                      created, expires, revoked) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let content = serde_json::to_string(&stored).map_err(|error| {
            crate::DirectoryError::Damaged(format!("a refresh token cannot be written: {error}"))
        })?;
        let values = [
            hash.into(),
            stored.family.as_str().into(),
            tenant.to_string().into(),
            app_id.to_string().into(),
            user.to_string().into(),
            content.into(),
            micros(self.now()).into(),
            expires.into(),
            reused.into(),
        ];
        transaction.execute(insert, &values).await?;
        transaction.commit().await?;
        Ok(token)
    }

    /// Revokes all refresh tokens of a sign-in.
    pub async fn revoke_family(&self, family: &str) -> Result<(), SignInError> {
        let set = "UPDATE refresh_tokens SET revoked = 1 WHERE family = $1";
        self.directory.database().execute(set, &[family.into()]).await?;
        Ok(())
    }

    /// The refresh token grant.
    pub async fn refresh(&self, form: &Form, tenant: Option<Uuid>) -> Result<Answer, SignInError> {
        let caller = self.caller(form, tenant).await?;
        let hash = token_hash(form.required("refresh_token")?);
        let hash = hash.ok_or_else(SignInError::grant_malformed)?;
        let select = "SELECT tenant, app_id, user_id, content, expires, spent, revoked \
                      FROM refresh_tokens WHERE hash = $1";
        let rows = self.directory.database().read(select, &[hash.clone().into()]).await?;
        let unknown = || SignInError::grant_invalid("the refresh token is unknown or was revoked");
        let row = rows.first().ok_or_else(unknown)?;
        let app_id = parse_uuid(row.text(1)?)?;
        if app_id != caller.client.app_id {
            return Err(SignInError::grant_invalid("it was issued to another application"));
        }
        let stored: Stored = serde_json::from_str(row.text(3)?).map_err(|error| {
            crate::DirectoryError::Damaged(format!("a refresh token cannot be read: {error}"))
        })?;
        if stored.proven {
            caller.must_prove()?;
        }
        let browser = stored.browser_until.is_some();
        if browser && !self.headers.contains_key(header::ORIGIN) {
            return Err(SignInError::cross_origin(9_002_327));
        }
        let user_tenant = parse_uuid(row.text(0)?)?;
        if tenant.is_some_and(|tenant| tenant != user_tenant) {
            return Err(SignInError::grant_invalid("it was issued in another tenant"));
        }
        let account = self.directory.account(parse_uuid(row.text(2)?)?).await?;
        let account = account.ok_or_else(unknown)?;
        self.check_refresh(row, &stored, &account).await?;
        let (client, _) = self.find_client(&app_id.to_string(), Some(user_tenant)).await?;
        self.check_user(&client, user_tenant, &account).await?;
        let grant = self.refreshed(form, &stored, (client, caller.proof), account).await?;
        self.spend(&hash, &stored).await?;
        let body = self.user_answer(&grant, Some(stored)).await?;
        Ok(Answer { body, cross_origin: browser })
    }

    async fn check_refresh(
        &self,
        row: &Row,
        stored: &Stored,
        account: &Account,
    ) -> Result<(), SignInError> {
        let now = micros(self.now());
        // Why it ended is told before that it ended: the client shows the reason.
        if account.password_changed > stored.authenticated {
            return Err(SignInError::password_changed());
        }
        if row.flag(6)? {
            return Err(SignInError::grant_invalid("the refresh token was revoked"));
        }
        if row.integer(4)? <= now {
            return Err(match stored.browser_until {
                Some(_) => SignInError::browser_refresh_token_expired(),
                None => SignInError::refresh_token_inactive(),
            });
        }
        let grace = GRACE.num_microseconds().unwrap_or_default();
        if let Some(spent) = row.optional_integer(5)?
            && !stored.proven
            && now > spent + grace
        {
            self.revoke_family(&stored.family).await?;
            self.note_sign_in(account, "refresh token used twice", Some(70000)).await;
            return Err(SignInError::grant_invalid("the refresh token was used already"));
        }
        Ok(())
    }

    /// What the new tokens say: the former scopes, or those asked for now, of any resource that was
    /// consented to.
    async fn refreshed(
        &self,
        form: &Form,
        stored: &Stored,
        proven: (Arc<Client>, Proof),
        account: Account,
    ) -> Result<Grant, SignInError> {
        let former = self.find_resource(&stored.audience);
        let former = former
            .ok_or_else(|| SignInError::resource_not_found(&stored.audience, &self.tenant_name))?;
        let names_one = form.get("scope").is_some() || form.get("resource").is_some();
        let asked = if names_one { self.asked(form)? } else { None };
        let only_openid = asked.as_ref().is_some_and(|asked| {
            asked.resource == Resource::Directory
                && !form.get("scope").unwrap_or("").contains("User.Read")
                && form.get("resource").is_none()
        });
        let openid = openid_or(asked.as_ref(), stored.openid);
        let asked = match asked {
            Some(asked) if !only_openid => asked,
            _ => stored.asked(former),
        };
        let grant = self.grant(form, proven, account, asked, stored.signed_in()).await?;
        Ok(Grant { openid, ..grant })
    }

    /// Marks the token as used, the first time only.
    async fn spend(&self, hash: &[u8], stored: &Stored) -> Result<(), SignInError> {
        if stored.proven {
            return Ok(());
        }
        let set = "UPDATE refresh_tokens SET spent = $1 WHERE hash = $2 AND spent IS NULL";
        let values = [micros(self.now()).into(), hash.to_vec().into()];
        self.directory.database().execute(set, &values).await?;
        Ok(())
    }
}
