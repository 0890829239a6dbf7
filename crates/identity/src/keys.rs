//! Keys that sign tokens.

use crate::seal::{MasterKey, fill};
use crate::{DirectoryError, micros};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{encoding::AsDer as _, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use sha1::{Digest as _, Sha1};
use vigie_database::Database;

/// What sealed private keys are sealed for.
const PURPOSE: &str = "signing key";

/// An RSA key of 2048 bits.
pub struct SigningKey {
    pub kid: String,
    pair: RsaKeyPair,
    /// Modulus and exponent in base64url, as in a JWK.
    pub n: String,
    pub e: String,
}

impl SigningKey {
    fn from_der(der: &[u8]) -> Result<SigningKey, DirectoryError> {
        let damaged = |_| DirectoryError::Damaged("a signing key cannot be read".to_owned());
        let pair = RsaKeyPair::from_pkcs8(der).map_err(damaged)?;
        let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let exponent = pair.public_key().exponent().big_endian_without_leading_zero().to_vec();
        let kid = BASE64.encode(Sha1::digest(&modulus));
        Ok(SigningKey { kid, pair, n: BASE64.encode(modulus), e: BASE64.encode(exponent) })
    }

    /// A signed JWT (RS256) of the claims.
    pub fn sign(&self, claims: &Json) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "x5t": self.kid, "kid": self.kid});
        let encode = |part: &Json| BASE64.encode(part.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        (self.pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature))
            .expect("an RSA key signs any text");
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        token
    }

    /// The public key as a JWK (RFC 7517).
    pub fn jwk(&self) -> Json {
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "x5t": self.kid,
            "n": self.n, "e": self.e,
        })
    }
}

/// All keys, newest last; a first one is made if there is none.
pub async fn load(
    database: &Database,
    master: &MasterKey,
    now: DateTime<Utc>,
) -> Result<Vec<SigningKey>, DirectoryError> {
    let select = "SELECT private_key FROM signing_keys ORDER BY created";
    let mut rows = database.read(select, &[]).await?;
    if rows.is_empty() {
        let made = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)
            .map_err(|_| DirectoryError::Damaged("no signing key can be made".to_owned()))?;
        let der = made.as_der().map_err(|_| {
            DirectoryError::Damaged("a new signing key cannot be written".to_owned())
        })?;
        let kid = SigningKey::from_der(der.as_ref())?.kid;
        let sealed = master.seal(PURPOSE, der.as_ref());
        let insert = "INSERT INTO signing_keys (kid, private_key, created) VALUES ($1, $2, $3)";
        database.execute(insert, &[kid.into(), sealed.into(), micros(now).into()]).await?;
        rows = database.read(select, &[]).await?;
    }
    rows.iter()
        .map(|row| {
            let der = master.open(PURPOSE, row.bytes(0)?).ok_or_else(|| {
                let message = "the signing keys were sealed under another master key";
                DirectoryError::Damaged(message.to_owned())
            })?;
            SigningKey::from_der(&der)
        })
        .collect()
}

/// An opaque value of 16 random bytes.
pub fn opaque() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    BASE64.encode(bytes)
}
