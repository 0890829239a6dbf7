//! Damaged client assertions and federated tokens.

use crate::damage::{Random, damaged_text, odd_json};
use crate::exchange::{Finding, Sent};
use crate::scene::Scene;
use crate::signer::{ASSERTION, Signer, assertion_claims, rsa_jwk};
use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

/// A signed token without the padding that one library adds to its signature.
pub fn plain_jws(token: &str) -> &str {
    token.trim_end_matches('=')
}

impl Scene {
    /// A client assertion, damaged before or after it is signed.
    pub async fn try_assertion(&self, random: &mut Random) -> Result<String, Finding> {
        let federated = random.one_in(3);
        let (app, signer) = if federated { &self.federated } else { &self.certified };
        let (mut header, mut claims) = match federated {
            false => (signer.header(), assertion_claims(&self.world, app)),
            true => {
                let now = self.world.clock.now().timestamp();
                let claims = json!({"iss": "https://ci.example", "sub": "repo:vigie:main",
                    "aud": "api://AzureADTokenExchange", "iat": now, "exp": now + 300});
                (json!({"alg": "RS256", "kid": "ci"}), claims)
            }
        };
        let good_claims = claims.clone();
        // `None`: what is right depends on the claims.
        let (assertion, fine) = match random.below(12) {
            0 => (signer.sign(&header, &claims), Some(true)),
            1 => {
                let good = signer.sign(&header, &claims);
                let bad = damaged_text(random, &good);
                let fine = plain_jws(&bad) == plain_jws(&good);
                (bad, Some(fine))
            }
            2 => (self.stranger.sign(&header, &claims), Some(false)),
            3 => (self.confused(random, &mut header, &claims, signer), Some(false)),
            4..=6 => {
                let at = random.of(&["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf"]);
                claims[at] = odd_json(random);
                (signer.sign(&header, &claims), None)
            }
            7 | 8 => {
                let at = random.of(&["alg", "kid", "x5t", "x5t#S256", "x5c", "jwk", "crit", "typ"]);
                header[at] = odd_json(random);
                // A header may be odd where it does not matter; who signed it does.
                let signer = if random.one_in(2) { signer } else { &self.stranger };
                let fine = if std::ptr::eq(signer, &self.stranger) { Some(false) } else { None };
                (signer.sign(&header, &claims), fine)
            }
            9 => {
                let (text, other) = (claims.to_string(), odd_json(random).to_string());
                // A member twice: the last one counts, as in every JSON library.
                let name = random.of(&["sub", "iss", "aud", "exp"]);
                let text = format!("{{\"{name}\":{other},{}", &text[1..]);
                (signer.sign_text(&header.to_string(), &text), None)
            }
            10 => {
                let deep = 1 << random.below(16);
                let nested = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
                let text = claims.to_string().replacen('{', &format!("{{\"x\":{nested},"), 1);
                (signer.sign_text(&header.to_string(), &text), None)
            }
            _ => {
                let text = damaged_text(random, &claims.to_string());
                claims = serde_json::from_str(&text).unwrap_or(Json::Null);
                (signer.sign_text(&header.to_string(), &text), None)
            }
        };
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", assertion.as_str()),
            ("scope", SCOPE),
        ];
        if federated || !random.one_in(4) {
            fields.push(("client_id", app));
        }
        let sent = Sent::form(self.world.v2(), encode(&fields).into_bytes());
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let issued = reply.status == 200 && reply.has_token();
        let same = |name: &str| same_claim(&claims[name], &good_claims[name]);
        let right = same("iss")
            && same("sub")
            && (same("aud") || self.audiences().iter().any(|aud| same_claim(&claims["aud"], aud)))
            && self.in_time(&claims);
        let (must, may) = match fine {
            Some(fine) => (fine, fine),
            None => (false, right),
        };
        if (issued && !may) || (must && !issued) {
            let kind = if issued { "a token for a wrong assertion" } else { "a right one refused" };
            return Err(sent.finding(format!("{kind}: {header} {claims} {}", reply.text)));
        }
        Ok(format!("assertion {}", reply.outcome()))
    }

    /// `none`, HMAC with public bytes, another padding, no signature.
    pub fn confused(
        &self,
        random: &mut Random,
        header: &mut Json,
        claims: &Json,
        signer: &Signer,
    ) -> String {
        let signed = signer.sign(header, claims);
        let alg = random.of(&["none", "None", "HS256", "ES256", "RS384", "RS512", "EdDSA", ""]);
        header["alg"] = alg.into();
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = match random.below(4) {
            0 => String::new(),
            1 => signed.rsplit('.').next().unwrap_or_default().to_owned(),
            _ => {
                let jwk = rsa_jwk(signer).to_string();
                let key: &[u8] = match random.below(3) {
                    0 => signer.pem.as_bytes(),
                    1 => &signer.der,
                    _ => jwk.as_bytes(),
                };
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
                URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()))
            }
        };
        format!("{text}.{signature}")
    }

    /// What else an assertion may be for.
    pub fn audiences(&self) -> Vec<Json> {
        let ends = ["oauth2/token", "oauth2/v2.0/token", "v2.0", ""];
        let tenant = self.world.tenant;
        ends.iter().map(|end| json!(format!("{BASE}/{tenant}/{end}"))).collect()
    }

    pub fn in_time(&self, claims: &Json) -> bool {
        let now = self.world.clock.now().timestamp() as f64;
        let date = |name: &str| claims[name].as_f64();
        let starts =
            |name: &str| claims[name].is_null() || date(name).is_some_and(|at| at < now + 301.0);
        date("exp").is_some_and(|at| at > now - 301.0 && at < now + 86_701.0)
            && starts("nbf")
            && (starts("iat") || !claims["nbf"].is_null())
    }
}

/// Names compare without regard to case; an audience may be one of a list.
pub fn same_claim(value: &Json, good: &Json) -> bool {
    let same = |value: &Json| match (value.as_str(), good.as_str()) {
        (Some(value), Some(good)) => value.eq_ignore_ascii_case(good),
        _ => false,
    };
    same(value) || value.as_array().is_some_and(|list| list.iter().any(same))
}
