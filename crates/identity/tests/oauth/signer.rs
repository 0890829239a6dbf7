//! Applications that prove themselves with keys of their own.

use crate::support::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vigie_contract::administration::*;

pub const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A key with its certificate.
pub struct Signer {
    pair: RsaKeyPair,
    pub pem: String,
    pub der: Vec<u8>,
}

impl Signer {
    pub fn new() -> Signer {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("made");
        let pair = RsaKeyPair::from_pkcs8(&key.serialize_der()).expect("a key");
        Signer { pair, pem: certificate.pem(), der: certificate.der().to_vec() }
    }

    pub fn thumbprint(&self) -> Vec<u8> {
        Sha1::digest(&self.der).to_vec()
    }

    pub fn sign(&self, header: &Json, claims: &Json) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs what need not be JSON.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let padding: &dyn aws_lc_rs::signature::RsaEncoding = match header.contains("\"PS256\"") {
            true => &RSA_PSS_SHA256,
            false => &RSA_PKCS1_SHA256,
        };
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(padding, &random, text.as_bytes(), &mut signature).expect("signed");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn header(&self) -> Json {
        json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(&self.der))})
    }
}

pub async fn certified(world: &World, signer: &Signer) -> String {
    let app = world.application(&["Machine.Read.All"], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let new = NewCertificate { display_name: None, certificate: signer.pem.clone() };
    world.directory.add_certificate("tests", world.tenant, id, &new).await.expect("added");
    app
}

pub fn assertion_claims(world: &World, app: &str) -> Json {
    let now = world.clock.now().timestamp();
    json!({
        "iss": app, "sub": app, "aud": format!("{BASE}/{}/oauth2/v2.0/token", world.tenant),
        "jti": Uuid::new_v4().to_string(), "iat": now, "nbf": now, "exp": now + 600,
    })
}

/// The public key of a JWK set.
pub fn rsa_jwk(signer: &Signer) -> Json {
    use aws_lc_rs::signature::KeyPair as _;
    let public = signer.pair.public_key();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "RSA", "kid": "ci", "use": "sig",
        "n": part(public.modulus().big_endian_without_leading_zero()),
        "e": part(public.exponent().big_endian_without_leading_zero())})
}
