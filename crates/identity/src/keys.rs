//! Keys that sign tokens. They change every few months: the next one is published a day before it
//! signs, and an old one stays published until the last token that it signed has ended. Several
//! nodes share them through the database.

use crate::seal::{MasterKey, fill};
use crate::{Directory, DirectoryError, micros, time};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{encoding::AsDer as _, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value as Json, json};
use sha1::{Digest as _, Sha1};
use std::sync::Arc;
use vigie_database::Database;

/// What sealed private keys are sealed for.
const PURPOSE: &str = "signing key";
/// How long a key signs.
const SIGNS: TimeDelta = TimeDelta::days(90);
/// How long a key is published before it signs.
const AHEAD: TimeDelta = TimeDelta::days(1);
/// Longer than any token lives.
const LONGEST_TOKEN: TimeDelta = TimeDelta::days(2);
/// Seconds after which a node looks for keys that another one made.
const READ_AGAIN: i64 = 300;

/// An RSA key of 2048 bits.
pub struct SigningKey {
    pub kid: String,
    pair: RsaKeyPair,
    /// Modulus and exponent in base64url, as in a JWK.
    pub n: String,
    pub e: String,
    /// A certificate of the key, signed by itself, for clients that want one: DER in base64.
    x5c: String,
    /// Headers of the tokens of either version, encoded.
    header_1: String,
    header_2: String,
    created: DateTime<Utc>,
}

impl SigningKey {
    fn from_der(der: &[u8], created: DateTime<Utc>) -> Result<SigningKey, DirectoryError> {
        let damaged = |_| DirectoryError::Damaged("a signing key cannot be read".to_owned());
        let pair = RsaKeyPair::from_pkcs8(der).map_err(damaged)?;
        let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let exponent = pair.public_key().exponent().big_endian_without_leading_zero().to_vec();
        let certificate = certificate(der, created)?;
        let kid = BASE64.encode(Sha1::digest(&certificate));
        let (n, e) = (BASE64.encode(modulus), BASE64.encode(exponent));
        let x5c = STANDARD.encode(certificate);
        let header = |header: Json| BASE64.encode(header.to_string());
        let header_1 = header(json!({"typ": "JWT", "alg": "RS256", "x5t": kid, "kid": kid}));
        let header_2 = header(json!({"typ": "JWT", "alg": "RS256", "kid": kid}));
        Ok(SigningKey { kid, pair, n, e, x5c, header_1, header_2, created })
    }

    /// A signed JWT (RS256) of the claims. Tokens of version 1 name the key a second time.
    pub fn sign(&self, claims: &Json, version_1: bool) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are JSON");
        let mut token = String::with_capacity(400 + claims.len() * 4 / 3 + 512);
        token.push_str(if version_1 { &self.header_1 } else { &self.header_2 });
        token.push('.');
        BASE64.encode_string(claims, &mut token);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        (self.pair.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature))
            .expect("an RSA key signs any text");
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        token
    }

    /// The public key as a JWK (RFC 7517).
    pub fn jwk(&self, issuer: Option<&str>) -> Json {
        let mut jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "x5t": self.kid,
            "n": self.n, "e": self.e, "x5c": [self.x5c],
        });
        if let Some(issuer) = issuer {
            jwk["issuer"] = issuer.into();
        }
        jwk
    }
}

/// The same certificate on every node and after every start: RS256 and all fields are fixed.
fn certificate(der: &[u8], created: DateTime<Utc>) -> Result<Vec<u8>, DirectoryError> {
    let made = || -> Result<Vec<u8>, rcgen::Error> {
        let key = rcgen::KeyPair::try_from(der)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Vigie token signing");
        params.serial_number = Some(rcgen::SerialNumber::from(created.timestamp().unsigned_abs()));
        let start = std::time::SystemTime::from(created);
        params.not_before = start.into();
        params.not_after = (start + std::time::Duration::from_secs(5 * 365 * 86_400)).into();
        Ok(params.self_signed(&key)?.der().to_vec())
    };
    made().map_err(|error| DirectoryError::Damaged(format!("signing key: {error}")))
}

impl Directory {
    pub(crate) fn keys(&self) -> Arc<Vec<SigningKey>> {
        self.shared().keys.read().clone()
    }

    /// A JWT signed with the key whose turn it is: the newest that has been published long enough,
    /// or the oldest.
    pub(crate) fn sign(&self, claims: &Json, version_1: bool) -> String {
        let keys = self.keys();
        let known_since = self.clock().now() - AHEAD;
        let ready = keys.iter().rev().find(|key| key.created <= known_since);
        let key = ready.or(keys.first()).expect("there is a key since `open`");
        key.sign(claims, version_1)
    }

    /// Reads the keys again where that was long ago, makes the next one when it is time, and removes
    /// those whose tokens have all ended.
    pub async fn maintain_keys(&self) -> Result<(), DirectoryError> {
        let now = self.clock().now();
        {
            let mut read = self.shared().keys_read.lock();
            if (now.timestamp() - *read).abs() < READ_AGAIN {
                return Ok(());
            }
            *read = now.timestamp();
        }
        let newest = self.keys().last().map(|key| key.created);
        if newest.is_none_or(|created| now - created >= SIGNS) {
            insert(self.database(), self.master(), now, newest).await?;
        }
        let keys = load(self.database(), self.master(), now).await?;
        *self.shared().keys.write() = Arc::new(keys);
        self.sweep().await
    }
}

/// Stores a new key, unless another node stored one after `newest`.
async fn insert(
    database: &Database,
    master: &MasterKey,
    now: DateTime<Utc>,
    newest: Option<DateTime<Utc>>,
) -> Result<(), DirectoryError> {
    let made = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)
        .map_err(|_| DirectoryError::Damaged("no signing key can be made".to_owned()))?;
    let der = made
        .as_der()
        .map_err(|_| DirectoryError::Damaged("a new signing key cannot be written".to_owned()))?;
    let kid = SigningKey::from_der(der.as_ref(), now)?.kid;
    let sealed = master.seal(PURPOSE, der.as_ref());
    let insert = "INSERT INTO signing_keys (kid, private_key, created) \
                  SELECT $1, $2, $3 WHERE NOT EXISTS \
                  (SELECT 1 FROM signing_keys WHERE created > $4)";
    let after = newest.map_or(-1, micros);
    database
        .execute(insert, &[kid.into(), sealed.into(), micros(now).into(), after.into()])
        .await?;
    Ok(())
}

/// All keys that may have signed a token that lives, newest last; a first one is made if there is
/// none.
pub async fn load(
    database: &Database,
    master: &MasterKey,
    now: DateTime<Utc>,
) -> Result<Vec<SigningKey>, DirectoryError> {
    let select = "SELECT private_key, created FROM signing_keys ORDER BY created, kid";
    let mut rows = database.read(select, &[]).await?;
    if rows.is_empty() {
        insert(database, master, now, None).await?;
        rows = database.read(select, &[]).await?;
    }
    let mut keys = Vec::new();
    for row in &rows {
        let der = master.open(PURPOSE, row.bytes(0)?).ok_or_else(|| {
            let message = "the signing keys were sealed under another master key";
            DirectoryError::Damaged(message.to_owned())
        })?;
        keys.push(SigningKey::from_der(&der, time(row.integer(1)?))?);
    }
    // A key's last token was signed when its successor's turn came.
    let ended = |successor: &SigningKey| successor.created + AHEAD + LONGEST_TOKEN < now;
    while keys.len() > 1 && ended(&keys[1]) {
        let delete = "DELETE FROM signing_keys WHERE created = $1";
        database.execute(delete, &[micros(keys.remove(0).created).into()]).await?;
    }
    Ok(keys)
}

/// Opaque values of 16 random bytes each, drawn at once: every draw asks the system too.
pub fn opaque<const N: usize>() -> [String; N] {
    let mut bytes = [[0; 16]; N];
    fill(bytes.as_flattened_mut());
    bytes.map(|value| BASE64.encode(value))
}
