//! Tokens: access tokens of both versions, id tokens, and the answer that carries them.

use super::client::Proof;
use super::refresh::Stored;
use super::request::{Ask, Form, Version};
use super::scopes::{Asked, DEFAULT, OpenId};
use crate::directory::{Account, Client};
use crate::keys::opaque;
use crate::{Resource, SignInError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// Seconds that a token is valid before its issue: clocks differ.
const EARLY: i64 = 300;

/// What a user's tokens say.
pub struct Grant {
    pub tenant: Uuid,
    pub client: Arc<Client>,
    pub account: Account,
    pub resource: Resource,
    pub audience: String,
    /// Scopes of the access token.
    pub scopes: Vec<String>,
    /// Whether the request asked for all that was granted.
    pub all: bool,
    pub openid: OpenId,
    /// How the user authenticated (RFC 8176).
    pub methods: Vec<String>,
    /// When, in seconds since the Unix epoch.
    pub authenticated: i64,
    pub nonce: Option<String>,
    pub proof: Proof,
    pub client_info: bool,
}

/// How a user has signed in.
pub struct SignedIn {
    /// RFC 8176.
    pub methods: Vec<String>,
    /// In seconds since the Unix epoch.
    pub authenticated: i64,
}

impl Grant {
    /// The user's id for one application, which is the same for ever and tells other applications
    /// nothing (OpenID Connect Core, section 8.1).
    pub fn subject(&self, ask: &Ask, audience: &str) -> String {
        subject(ask, audience, self.account.id)
    }
}

/// The pairwise subject of a user for an application.
pub fn subject(ask: &Ask, audience: &str, user: Uuid) -> String {
    BASE64.encode(ask.directory.master().hash(&format!("subject {audience} {user}")))
}

impl Ask {
    /// `sts` form, which the original keeps for tokens of version 1, or this server's own.
    pub fn issuer(&self, tenant: Uuid, version: Version) -> String {
        match version {
            Version::V1 => format!("https://sts.windows.net/{tenant}/"),
            Version::V2 => format!("{}/{tenant}/v2.0", self.base),
        }
    }

    /// Version of access tokens that the resource takes.
    pub async fn token_version(&self, resource: Resource) -> Result<Version, SignInError> {
        let Resource::Application(app_id) = resource else { return Ok(Version::V1) };
        let missing = || SignInError::resource_not_found(&app_id.to_string(), &self.tenant_name);
        let owner = self.directory.owner(app_id).await?.ok_or_else(missing)?;
        let client = self.directory.client(owner, app_id).await?.ok_or_else(missing)?;
        Ok(match client.registration.accepted_token_version {
            2 => Version::V2,
            _ => Version::V1,
        })
    }

    /// The token answer of an application in its own name.
    pub async fn application_answer(
        &self,
        tenant: Uuid,
        client: &Client,
        proof: Proof,
        resource: Resource,
        audience: &str,
    ) -> Result<Json, SignInError> {
        let missing =
            || SignInError::application_not_found(&client.app_id.to_string(), &self.tenant_name);
        let principal = client.principal.as_ref().ok_or_else(missing)?;
        let name = resource.name();
        let roles = principal.roles.iter().filter(|(resource, _)| *resource == name);
        let roles: Vec<&str> = roles.map(|(_, role)| role.as_str()).collect();
        let version = self.token_version(resource).await?;
        let times = self.times(tenant).await?;
        let issuer = self.issuer(tenant, version);
        let object_id = principal.object_id.to_string();
        let [aio, rh, uti] = opaque();
        let mut claims = json!({
            "iss": issuer, "iat": times.issued, "nbf": times.starts, "exp": times.expires,
            "aio": aio, "idtyp": "app", "oid": object_id, "rh": format!("0.{rh}."),
            "sub": object_id, "tid": tenant.to_string(), "uti": uti,
        });
        self.client_claims(&mut claims, version, client, proof, resource, audience);
        if version == Version::V1 {
            claims["idp"] = issuer.into();
            claims["tenant_region_scope"] = "WW".into();
        }
        if !roles.is_empty() {
            claims["roles"] = json!(roles);
        }
        let token = self.directory.sign(&claims, version == Version::V1);
        Ok(self.answer(&times, audience, token))
    }

    /// What tokens will say of a user who may use the application, as far as consent goes.
    pub async fn grant(
        &self,
        form: &Form,
        (client, proof): (Arc<Client>, Proof),
        account: Account,
        asked: Asked,
        signed_in: SignedIn,
    ) -> Result<Grant, SignInError> {
        let tenant = account.tenant;
        let scopes = self.consented(&client, tenant, account.id, &asked).await?;
        Ok(Grant {
            tenant,
            client,
            account,
            resource: asked.resource,
            all: asked.all(),
            audience: asked.audience,
            scopes,
            openid: asked.openid,
            methods: signed_in.methods,
            authenticated: signed_in.authenticated,
            nonce: None,
            proof,
            client_info: self.wants_client_info(form),
        })
    }

    /// The token answer for a user. `refresh` is what a refresh token will stand for.
    pub async fn user_answer(
        &self,
        grant: &Grant,
        refresh: Option<Stored>,
    ) -> Result<Json, SignInError> {
        let times = self.times(grant.tenant).await?;
        let token = self.access_token(grant, &times).await?;
        let mut answer = self.answer(&times, &grant.audience, token);
        answer["scope"] = self.told_scopes(grant).into();
        if grant.openid.openid {
            answer["id_token"] = self.id_token(grant, self.version, None, None).await?.into();
        }
        if grant.openid.offline_access
            && let Some(stored) = refresh
        {
            let issued = self.store_refresh_token(
                grant.tenant,
                grant.client.app_id,
                grant.account.id,
                stored,
            );
            answer["refresh_token"] = issued.await?.into();
        }
        if grant.client_info {
            answer["client_info"] = client_info(&grant.account).into();
        }
        Ok(answer)
    }

    pub async fn access_token(&self, grant: &Grant, times: &Times) -> Result<String, SignInError> {
        let version = self.token_version(grant.resource).await?;
        let account = &grant.account;
        let issuer = self.issuer(grant.tenant, version);
        let [aio, rh, uti] = opaque();
        let mut claims = json!({
            "iss": issuer, "iat": times.issued, "nbf": times.starts, "exp": times.expires,
            "aio": aio, "name": account.display_name, "oid": account.id.to_string(),
            "rh": format!("0.{rh}."), "scp": grant.scopes.join(" "),
            "sub": grant.subject(self, &grant.resource.app_id()), "tid": grant.tenant.to_string(),
            "uti": uti, "auth_time": grant.authenticated,
        });
        let (client, proof) = (&grant.client, grant.proof);
        self.client_claims(&mut claims, version, client, proof, grant.resource, &grant.audience);
        match version {
            Version::V1 => {
                claims["acr"] = "1".into();
                claims["amr"] = json!(grant.methods);
                claims["ipaddr"] = self.address.as_str().into();
                claims["unique_name"] = account.principal_name.as_str().into();
                claims["upn"] = account.principal_name.as_str().into();
                claims["wids"] = json!(directory_roles(account));
                claims["tenant_region_scope"] = "WW".into();
                name_claims(&mut claims, account);
            }
            Version::V2 => {
                claims["preferred_username"] = account.principal_name.as_str().into();
            }
        }
        Ok(self.directory.sign(&claims, version == Version::V1))
    }

    fn client_claims(
        &self,
        claims: &mut Json,
        version: Version,
        client: &Client,
        proof: Proof,
        resource: Resource,
        audience: &str,
    ) {
        let app_id = client.app_id.to_string();
        match version {
            Version::V1 => {
                claims["ver"] = "1.0".into();
                claims["aud"] = audience.into();
                claims["appid"] = app_id.into();
                claims["appidacr"] = proof.acr().into();
                claims["app_displayname"] = client.display_name.as_str().into();
            }
            Version::V2 => {
                claims["ver"] = "2.0".into();
                claims["aud"] = resource.app_id().into();
                claims["azp"] = app_id.into();
                claims["azpacr"] = proof.acr().into();
            }
        }
    }

    /// An id token (OpenID Connect Core, sections 2 and 3.1.3.7). `code` and `token` are bound to it
    /// by their hashes where they come by the same answer.
    pub async fn id_token(
        &self,
        grant: &Grant,
        version: Version,
        code: Option<&str>,
        token: Option<&str>,
    ) -> Result<String, SignInError> {
        let settings = self.directory.settings(grant.tenant).await?;
        let (account, issued) = (&grant.account, self.now().timestamp());
        let app_id = grant.client.app_id.to_string();
        let [rh, uti] = opaque();
        let mut claims = json!({
            "aud": app_id, "iss": self.issuer(grant.tenant, version), "iat": issued,
            "nbf": issued - EARLY, "exp": issued + settings.id_token_seconds,
            "oid": account.id.to_string(), "rh": format!("0.{rh}."),
            "sub": grant.subject(self, &app_id), "tid": grant.tenant.to_string(), "uti": uti,
            "auth_time": grant.authenticated,
            "ver": if version == Version::V1 { "1.0" } else { "2.0" },
        });
        if grant.openid.profile || version == Version::V1 {
            claims["name"] = account.display_name.as_str().into();
            claims["preferred_username"] = account.principal_name.as_str().into();
        }
        if grant.openid.email {
            claims["email"] = account.principal_name.as_str().into();
        }
        if version == Version::V1 {
            claims["amr"] = json!(grant.methods);
            claims["ipaddr"] = self.address.as_str().into();
            claims["unique_name"] = account.principal_name.as_str().into();
            claims["upn"] = account.principal_name.as_str().into();
            name_claims(&mut claims, account);
        }
        for (name, value) in [("c_hash", code), ("at_hash", token)] {
            if let Some(value) = value {
                claims[name] = BASE64.encode(&Sha256::digest(value)[..16]).into();
            }
        }
        if let Some(nonce) = &grant.nonce {
            claims["nonce"] = nonce.as_str().into();
        }
        Ok(self.directory.sign(&claims, version == Version::V1))
    }

    pub async fn times(&self, tenant: Uuid) -> Result<Times, SignInError> {
        let lifetime = self.directory.settings(tenant).await?.access_token_seconds;
        let issued = self.now().timestamp();
        Ok(Times { issued, starts: issued - EARLY, expires: issued + lifetime, lifetime })
    }

    fn answer(&self, times: &Times, audience: &str, token: String) -> Json {
        match self.version {
            // The v1 endpoint sends its numbers as texts.
            Version::V1 => json!({
                "token_type": "Bearer", "expires_in": times.lifetime.to_string(),
                "ext_expires_in": times.lifetime.to_string(),
                "expires_on": times.expires.to_string(), "not_before": times.starts.to_string(),
                "resource": audience, "access_token": token,
            }),
            Version::V2 => json!({
                "token_type": "Bearer", "expires_in": times.lifetime,
                "ext_expires_in": times.lifetime, "access_token": token,
            }),
        }
    }

    /// Scopes as clients of the endpoint compare them.
    pub fn told_scopes(&self, grant: &Grant) -> String {
        if self.version == Version::V1 {
            return grant.scopes.join(" ");
        }
        let qualified = |scope: &str| match grant.resource {
            Resource::Directory => scope.to_owned(),
            _ => format!("{}/{scope}", grant.audience),
        };
        let mut told: Vec<String> = grant.scopes.iter().map(|scope| qualified(scope)).collect();
        told.extend(grant.all.then(|| qualified(DEFAULT)));
        let openid = &grant.openid;
        for (name, on) in [
            ("openid", openid.openid),
            ("profile", openid.profile),
            ("email", openid.email),
            ("offline_access", openid.offline_access),
        ] {
            if on && !told.iter().any(|scope| scope == name) {
                told.push(name.to_owned());
            }
        }
        told.join(" ")
    }
}

/// Times of a token in seconds since the Unix epoch.
pub struct Times {
    pub issued: i64,
    pub starts: i64,
    pub expires: i64,
    pub lifetime: i64,
}

fn name_claims(claims: &mut Json, account: &Account) {
    for (claim, value) in [("given_name", &account.given_name), ("family_name", &account.surname)] {
        if let Some(value) = value {
            claims[claim] = value.as_str().into();
        }
    }
}

/// Template ids of the account's directory roles.
fn directory_roles(account: &Account) -> Vec<&'static str> {
    let ids = account.roles.iter().filter_map(|role| {
        crate::directory::ROLES.iter().find(|(name, _)| name == role).map(|(_, id)| *id)
    });
    ids.collect()
}

/// What MSAL builds its account key from.
pub fn client_info(account: &Account) -> String {
    let info = json!({"uid": account.id.to_string(), "utid": account.tenant.to_string()});
    BASE64.encode(info.to_string())
}
