//! Authorization codes (RFC 6749, section 4.1; RFC 7636): made at the authorization endpoint,
//! redeemed once.

use super::client::Caller;
use super::refresh::{Stored, new_token, token_hash};
use super::request::{Ask, Form};
use super::token::Answer;
use crate::directory::parse_uuid;
use crate::{DirectoryError, SignInError, micros};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use http::header;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How long a code can be redeemed.
const LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// What a code is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Code {
    pub stored: Stored,
    pub redirect_uri: String,
    pub platform: Platform,
    pub challenge: Option<Challenge>,
    pub nonce: Option<String>,
}

/// For what kind of application a redirect URI is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Platform {
    Web,
    Spa,
    Public,
}

/// A challenge of RFC 7636.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    pub value: String,
    pub plain: bool,
}

impl Challenge {
    /// RFC 7636, section 4.6.
    fn is_met_by(&self, verifier: &str) -> bool {
        let computed = match self.plain {
            true => verifier.to_owned(),
            false => BASE64.encode(Sha256::digest(verifier)),
        };
        verify_slices_are_equal(computed.as_bytes(), self.value.as_bytes()).is_ok()
    }
}

impl Ask {
    /// Makes a code for a user that has signed in and consented.
    pub async fn store_code(
        &self,
        tenant: Uuid,
        app_id: Uuid,
        user: Uuid,
        code: &Code,
    ) -> Result<String, SignInError> {
        let (token, hash) = new_token();
        let content = serde_json::to_string(code).map_err(|error| {
            DirectoryError::Damaged(format!("a code cannot be written: {error}"))
        })?;
        let insert = "INSERT INTO codes (hash, family, tenant, app_id, user_id, content, expires, \
                      spent) VALUES ($1, $2, $3, $4, $5, $6, $7, 0)";
        let values = [
            hash.into(),
            code.stored.family.as_str().into(),
            tenant.to_string().into(),
            app_id.to_string().into(),
            user.to_string().into(),
            content.into(),
            micros(self.now() + LIFETIME).into(),
        ];
        self.directory.database().execute(insert, &values).await?;
        Ok(token)
    }

    /// The authorization code grant.
    pub async fn redeem_code(
        &self,
        form: &Form,
        tenant: Option<Uuid>,
    ) -> Result<Answer, SignInError> {
        let caller = self.caller(form, tenant).await?;
        let hash = token_hash(form.required("code")?).ok_or_else(SignInError::grant_malformed)?;
        let redirect_uri = form.required("redirect_uri")?;
        let first_use = "UPDATE codes SET spent = 1 WHERE hash = $1 AND spent = 0";
        let won = self.directory.database().execute(first_use, &[hash.clone().into()]).await? == 1;
        let select = "SELECT family, tenant, app_id, user_id, content, expires FROM codes \
                      WHERE hash = $1";
        let rows = self.directory.database().read(select, &[hash.clone().into()]).await?;
        let row = rows.first().ok_or_else(SignInError::grant_expired)?;
        if !won {
            let again = "UPDATE codes SET spent = 2 WHERE hash = $1";
            self.directory.database().execute(again, &[hash.into()]).await?;
            self.revoke_family(row.text(0)?).await?;
            return Err(SignInError::code_spent());
        }
        if row.integer(5)? <= micros(self.now()) {
            return Err(SignInError::grant_expired());
        }
        let code: Code = serde_json::from_str(row.text(4)?)
            .map_err(|error| DirectoryError::Damaged(format!("a code cannot be read: {error}")))?;
        let user_tenant = parse_uuid(row.text(1)?)?;
        if parse_uuid(row.text(2)?)? != caller.client.app_id
            || tenant.is_some_and(|tenant| tenant != user_tenant)
        {
            return Err(SignInError::grant_invalid("the code was issued to another application"));
        }
        if code.redirect_uri != redirect_uri {
            return Err(SignInError::grant_invalid("the redirect URI is another one"));
        }
        self.check_verifier(form, code.challenge.as_ref())?;
        self.check_platform(code.platform, &caller)?;
        let browser = code.platform == Platform::Spa;
        let missing = || SignInError::grant_invalid("the user is gone");
        let account = self.directory.account(parse_uuid(row.text(3)?)?).await?;
        let account = account.ok_or_else(missing)?;
        let app_id = caller.client.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(user_tenant)).await?;
        self.check_user(&client, user_tenant, &account).await?;
        let mut stored = code.stored.clone();
        stored.proven = caller.proof != super::client::Proof::None;
        stored.code = Some(BASE64.encode(&hash));
        if browser {
            stored = stored.for_browser(self);
        }
        let asked = self.redeemed(form, &stored)?;
        let proven = (client, caller.proof);
        let mut grant = self.grant(form, proven, account, asked, stored.signed_in()).await?;
        grant.openid = stored.openid;
        grant.nonce = code.nonce;
        let body = self.user_answer(&grant, Some(stored)).await?;
        self.note_sign_in(&grant.account, &app_id, None).await;
        Ok(Answer { body, cross_origin: browser })
    }

    /// Web applications prove themselves; single-page applications redeem across origins, and they
    /// alone.
    fn check_platform(&self, platform: Platform, caller: &Caller) -> Result<(), SignInError> {
        match (platform, self.headers.contains_key(header::ORIGIN)) {
            (Platform::Web, false) => caller.must_prove(),
            (Platform::Spa, false) => Err(SignInError::cross_origin(9_002_327)),
            (Platform::Web | Platform::Public, true) => Err(SignInError::cross_origin(9_002_326)),
            (Platform::Spa, true) | (Platform::Public, false) => Ok(()),
        }
    }

    /// What the code stands for; a v1 client may name its resource only now, a v2 client must not
    /// name two.
    fn redeemed(&self, form: &Form, stored: &Stored) -> Result<super::scopes::Asked, SignInError> {
        let names_resource = form.get("resource").is_some();
        let named = match self.version {
            super::request::Version::V1 if !names_resource => None,
            _ => self.asked(form)?,
        };
        let former = self.find_resource(&stored.audience);
        let former = former
            .ok_or_else(|| SignInError::resource_not_found(&stored.audience, &self.tenant_name))?;
        let was_default = former == crate::Resource::Directory;
        Ok(match named {
            Some(named) if names_resource && was_default => named,
            Some(named) if named.resource == former && !stored.all => named,
            _ => stored.asked(former),
        })
    }

    fn check_verifier(
        &self,
        form: &Form,
        challenge: Option<&Challenge>,
    ) -> Result<(), SignInError> {
        match (challenge, form.get("code_verifier")) {
            (None, None) => Ok(()),
            (Some(challenge), Some(verifier)) if challenge.is_met_by(verifier) => Ok(()),
            (Some(_), None) => Err(SignInError::parameter_missing("code_verifier")),
            // A verifier without a challenge means that somebody took the challenge away.
            _ => Err(SignInError::verifier_mismatch()),
        }
    }
}
