//! Signed tokens of others (RFC 7515, compact form): client assertions and those of federated
//! issuers. Only RSA and P-256 signatures are known; `none` and HMAC are not (RFC 8725, section 3.1).

use crate::SignInError;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value as Json;

/// One library pads what RFC 7515 says is not padded.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token whose signature has not been looked at yet.
pub struct Jws<'a> {
    pub header: Json,
    pub claims: Json,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub fn parse(token: &'a str) -> Option<Jws<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Json>(&LENIENT.decode(part).ok()?).ok();
        let (header, claims) = (json(header)?, json(claims)?);
        if !header.is_object() || !claims.is_object() || header.get("crit").is_some() {
            return None;
        }
        Some(Jws { header, claims, signed, signature: LENIENT.decode(signature).ok()? })
    }

    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A date claim in seconds since the Unix epoch; may be a fraction. A date that is there and is
    /// none is no date left out (RFC 7519, section 4.1).
    pub fn date(&self, claim: &str) -> Result<Option<f64>, SignInError> {
        match self.claims.get(claim) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(SignInError::assertion_time),
        }
    }

    /// A header's base64url value without padding.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        Some(self.header.get(name)?.as_str()?.trim_end_matches('='))
    }

    /// Whether an audience of the token is one of those.
    pub fn has_audience(&self, accepted: &[String]) -> bool {
        let is = |value: &Json| {
            value.as_str().is_some_and(|aud| accepted.iter().any(|a| a.eq_ignore_ascii_case(aud)))
        };
        match self.claims.get("aud") {
            Some(Json::Array(list)) => list.iter().any(is),
            Some(value) => is(value),
            None => false,
        }
    }

    /// Verifies with an RSA key in PKCS #1 DER form.
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let message = self.signed.as_bytes();
        let verified = match self.header.get("alg").and_then(Json::as_str) {
            Some("RS256") => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
                .verify(message, &self.signature),
            Some("PS256") => UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public_key)
                .verify(message, &self.signature),
            _ => return false,
        };
        verified.is_ok()
    }

    /// Verifies with the keys of a set (RFC 7517), by the token's key id where it has one.
    pub fn is_signed_by_one_of(&self, keys: &Json) -> bool {
        let kid = self.header.get("kid");
        let keys = keys.get("keys").and_then(Json::as_array).into_iter().flatten();
        let named = keys.filter(|key| match (kid, key.get("kid")) {
            (Some(kid), Some(own)) => kid == own,
            _ => true,
        });
        named.into_iter().any(|key| self.is_signed_by_jwk(key).unwrap_or(false))
    }

    fn is_signed_by_jwk(&self, key: &Json) -> Option<bool> {
        let part = |name: &str| LENIENT.decode(key.get(name)?.as_str()?).ok();
        let message = self.signed.as_bytes();
        let alg = self.header.get("alg")?.as_str()?;
        let verified = match (key.get("kty")?.as_str()?, alg) {
            ("RSA", "RS256") => RsaPublicKeyComponents { n: part("n")?, e: part("e")? }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                &self.signature,
            ),
            ("RSA", "PS256") => RsaPublicKeyComponents { n: part("n")?, e: part("e")? }.verify(
                &RSA_PSS_2048_8192_SHA256,
                message,
                &self.signature,
            ),
            ("EC", "ES256") => {
                let point = [vec![4], part("x")?, part("y")?].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, &self.signature)
            }
            _ => return None,
        };
        Some(verified.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// No text panics, and none is accepted by a key that did not sign it.
        #[test]
        fn no_text_is_accepted(token in "([A-Za-z0-9_=-]{0,40}\\.){0,4}[A-Za-z0-9_=-]{0,40}", noise in ".{0,60}") {
            let keys = serde_json::json!({"keys": [
                {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "x": "AA", "y": "AA"}, {}, 1,
            ]});
            for text in [token.as_str(), noise.as_str()] {
                if let Some(jws) = Jws::parse(text) {
                    proptest::prop_assert!(!jws.is_signed_by_one_of(&keys));
                    proptest::prop_assert!(!jws.is_signed_by(noise.as_bytes()));
                }
            }
        }

        /// Headers and claims of any shape.
        #[test]
        fn no_shape_is_accepted(alg in "RS256|PS256|ES256|none|HS256", kid in ".{0,8}", aud in ".{0,8}") {
            let encode = |part: Json| LENIENT.encode(part.to_string());
            let header = encode(serde_json::json!({"alg": alg, "kid": kid}));
            let claims = serde_json::json!({"aud": [aud, 1, null], "exp": "soon", "nbf": null});
            let claims = encode(claims);
            let token = format!("{header}.{claims}.AAAA");
            let jws = Jws::parse(&token).expect("well formed");
            let keys = serde_json::json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]});
            proptest::prop_assert!(!jws.is_signed_by_one_of(&keys));
            proptest::prop_assert_eq!(jws.date("exp"), Err(SignInError::assertion_time()));
            proptest::prop_assert_eq!(jws.date("nbf"), Ok(None));
            proptest::prop_assert_eq!(jws.date("iat"), Ok(None));
            proptest::prop_assert!(jws.has_audience(&[aud]));
        }
    }
}
