//! Tokens at the API: signature, issuer, audience, time.

use crate::{Directory, Resource};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// Tokens remembered at most.
const MOST_REMEMBERED: usize = 10_000;

/// Who calls, as a valid token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    pub tenant: Uuid,
    pub app_id: Uuid,
    pub app_name: String,
    pub object_id: Uuid,
    /// Application permissions.
    pub roles: Vec<String>,
    /// The token's own id, for logs.
    pub token_id: String,
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
    caller: Caller,
    resource: Resource,
    not_before: i64,
    expires: i64,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    nbf: i64,
    exp: i64,
    appid: Uuid,
    #[serde(default)]
    app_displayname: String,
    oid: Uuid,
    tid: Uuid,
    #[serde(default)]
    roles: Vec<String>,
    uti: String,
    ver: String,
}

impl Directory {
    /// The caller of a bearer token for the resource. A token that was seen before is compared by
    /// its hash alone, and its time.
    pub fn verify(&self, token: &str, resource: Resource) -> Result<Caller, VerifyError> {
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
        Ok(verified.caller.clone())
    }

    fn verify_signature(&self, token: &str) -> Result<Verified, VerifyError> {
        let header = decode_header(token).map_err(|_| VerifyError::Malformed)?;
        if header.alg != Algorithm::RS256 {
            return Err(VerifyError::Signature);
        }
        let key = self.shared().keys.iter().find(|key| header.kid.as_deref() == Some(&key.kid));
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
        if claims.iss != format!("https://sts.windows.net/{}/", claims.tid) || claims.ver != "1.0" {
            return Err(VerifyError::Issuer);
        }
        let resource = Resource::find(&claims.aud).ok_or(VerifyError::Audience)?;
        Ok(Verified {
            caller: Caller {
                tenant: claims.tid,
                app_id: claims.appid,
                app_name: claims.app_displayname,
                object_id: claims.oid,
                roles: claims.roles,
                token_id: claims.uti,
            },
            resource,
            not_before: claims.nbf,
            expires: claims.exp,
        })
    }
}
