//! Tokens at the API: signature, issuer, audience, time.

use crate::{Directory, Resource};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// Tokens remembered at most.
const MOST_REMEMBERED: usize = 10_000;

/// Who calls, as a valid token says: an application, or a user by means of an application.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    pub tenant: Uuid,
    pub app_id: Uuid,
    pub app_name: String,
    /// The service principal, or the user.
    pub object_id: Uuid,
    /// Application permissions; empty where a user calls.
    pub roles: Vec<String>,
    /// Set where a user calls.
    pub user: Option<SignedInUser>,
    /// Names of the device groups whose machines the caller sees and acts on, `UnassignedGroup`
    /// among them where machines of no group are; `None`: all machines. The API's edge sets it, for
    /// the operation that is called.
    pub device_groups: Option<Vec<String>>,
    /// The token's own id, for logs.
    pub token_id: String,
}

/// The user of a token, and what the token lets an application do for them.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedInUser {
    pub principal_name: String,
    pub display_name: String,
    /// Delegated permissions.
    pub scopes: Vec<String>,
    /// Template ids of directory roles, as at sign-in.
    pub directory_roles: Vec<String>,
    /// How the user authenticated (RFC 8176), for example `pwd`, `mfa`.
    pub methods: Vec<String>,
}

impl Caller {
    /// Who did it, for audits and for properties such as `requestor`: the user's name, else the
    /// application's, else its id.
    pub fn actor(&self) -> String {
        match &self.user {
            Some(user) => user.principal_name.clone(),
            None if self.app_name.is_empty() => self.app_id.to_string(),
            None => self.app_name.clone(),
        }
    }

    /// Whether machines of the device group may be seen; machines of none are in `UnassignedGroup`.
    pub fn sees(&self, device_group: &str) -> bool {
        self.device_groups.as_ref().is_none_or(|groups| groups.iter().any(|g| g == device_group))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's signature is not valid")]
    Signature,
    #[error("the token has expired or is not valid yet")]
    Expired,
    #[error("the token's audience is another resource")]
    Audience,
    #[error("the token's issuer is not this tenant's")]
    Issuer,
}

pub(crate) struct Verified {
    pub caller: Caller,
    pub resource: Resource,
    /// `acr`-like facts that on-behalf-of carries over: seconds of the sign-in.
    pub authenticated: i64,
    pub not_before: i64,
    pub expires: i64,
}

/// Claims of both versions of access tokens.
#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    nbf: i64,
    exp: i64,
    /// Version 1; id tokens have neither, and are refused for it.
    appid: Option<Uuid>,
    /// Version 2.
    azp: Option<Uuid>,
    #[serde(default)]
    app_displayname: String,
    oid: Uuid,
    tid: Uuid,
    #[serde(default)]
    roles: Vec<String>,
    scp: Option<String>,
    upn: Option<String>,
    preferred_username: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    wids: Vec<String>,
    #[serde(default)]
    amr: Vec<String>,
    auth_time: Option<i64>,
    uti: String,
    ver: String,
}

impl Directory {
    /// The caller of a bearer token for the resource. A token that was seen before is compared by
    /// its hash alone, and its time.
    pub fn verify(&self, token: &str, resource: Resource) -> Result<Caller, VerifyError> {
        Ok(self.verified(token, resource)?.caller.clone())
    }

    pub(crate) fn verified(
        &self,
        token: &str,
        resource: Resource,
    ) -> Result<Arc<Verified>, VerifyError> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let known = self.shared().verified.read().get(&key).cloned();
        let verified = match known {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify_signature(token)?);
                let mut remembered = self.shared().verified.write();
                if remembered.len() >= MOST_REMEMBERED {
                    let now = self.clock().now().timestamp();
                    remembered.retain(|_, verified| verified.expires > now);
                    if remembered.len() >= MOST_REMEMBERED {
                        remembered.clear();
                    }
                }
                remembered.insert(key, verified.clone());
                verified
            }
        };
        let now = self.clock().now().timestamp();
        if now >= verified.expires || now < verified.not_before {
            return Err(VerifyError::Expired);
        }
        if verified.resource != resource {
            return Err(VerifyError::Audience);
        }
        Ok(verified)
    }

    fn verify_signature(&self, token: &str) -> Result<Verified, VerifyError> {
        let header = decode_header(token).map_err(|_| VerifyError::Malformed)?;
        // A key that the token itself brings or points to is never looked at (RFC 8725, 3.10).
        if header.alg != Algorithm::RS256
            || header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
        {
            return Err(VerifyError::Signature);
        }
        let keys = self.keys();
        let key = keys.iter().find(|key| header.kid.as_deref() == Some(&key.kid));
        let key = key.ok_or(VerifyError::Signature)?;
        let decoding =
            DecodingKey::from_rsa_components(&key.n, &key.e).map_err(|_| VerifyError::Signature)?;
        let mut validation = Validation::new(Algorithm::RS256);
        // Time and audience are checked by the caller, against this server's own clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = decode::<Claims>(token, &decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => VerifyError::Signature,
                _ => VerifyError::Malformed,
            })?
            .claims;
        let issued_here = match claims.ver.as_str() {
            "1.0" => claims.iss == format!("https://sts.windows.net/{}/", claims.tid),
            "2.0" => claims.iss.ends_with(&format!("/{}/v2.0", claims.tid)),
            _ => false,
        };
        if !issued_here {
            return Err(VerifyError::Issuer);
        }
        let own = &self.authority().identifiers;
        let resource = Resource::find(&claims.aud, own).ok_or(VerifyError::Audience)?;
        let app_id = claims.appid.or(claims.azp).ok_or(VerifyError::Malformed)?;
        let principal_name = claims.upn.or(claims.preferred_username).unwrap_or_default();
        let user = claims.scp.map(|scopes| SignedInUser {
            principal_name,
            display_name: claims.name,
            scopes: scopes.split(' ').map(str::to_owned).collect(),
            directory_roles: claims.wids,
            methods: claims.amr,
        });
        let caller = Caller {
            tenant: claims.tid,
            app_id,
            app_name: claims.app_displayname,
            object_id: claims.oid,
            roles: if user.is_some() { Vec::new() } else { claims.roles },
            user,
            device_groups: None,
            token_id: claims.uti,
        };
        Ok(Verified {
            caller,
            resource,
            authenticated: claims.auth_time.unwrap_or(claims.nbf),
            not_before: claims.nbf,
            expires: claims.exp,
        })
    }
}
