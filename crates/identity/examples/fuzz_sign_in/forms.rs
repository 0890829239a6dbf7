//! Damaged forms.

use crate::assertions::plain_jws;
use crate::damage::{PIECES, Random, damaged, damaged_text};
use crate::exchange::{Fields, Finding, Sent, owned, sent_fields};
use crate::scene::Scene;
use crate::signer::ASSERTION;
use crate::support::*;
use http::Method;

impl Scene {
    /// A good request of some kind: endpoint, fields.
    pub async fn good_form(&self, random: &mut Random) -> Result<(String, Fields), Finding> {
        let (app, secret) = (self.web.0.as_str(), self.web.1.as_str());
        let (token, kind) = (self.token_path(random), random.below(24));
        let with = |more: &[(&str, &str)]| {
            let mut all = owned(&[("client_id", app), ("client_secret", secret)]);
            all.extend(owned(more));
            all
        };
        let endpoint = |name: &str| format!("/{}/oauth2/v2.0/{name}", self.world.tenant);
        let refresh = self.refresh.iter().next().map(String::as_str).unwrap_or_default();
        Ok(match kind {
            0..=5 => {
                let grant = ("grant_type", "client_credentials");
                (self.world.v1(), with(&[grant, ("scope", SCOPE), ("resource", DEFENDER)]))
            }
            6..=8 => {
                (endpoint("token"), with(&[("grant_type", "client_credentials"), ("scope", SCOPE)]))
            }
            9..=12 => {
                let grant = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
                (token, with(&grant))
            }
            13..=15 => {
                let code = self.code(random).await?;
                (token, owned(&redemption(app, secret, &code)))
            }
            16 => {
                let scope = format!("{DEFENDER}/Machine.Read offline_access");
                (endpoint("devicecode"), owned(&[("client_id", &self.public), ("scope", &scope)]))
            }
            17 => (
                token,
                owned(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                    ("client_id", &self.public),
                    ("device_code", refresh),
                ]),
            ),
            18 => (
                token,
                owned(&[
                    ("grant_type", "password"),
                    ("client_id", &self.public),
                    ("username", "mira@tests.example"),
                    ("password", PASSWORD),
                    ("scope", &format!("{DEFENDER}/Machine.Read")),
                    ("resource", DEFENDER),
                ]),
            ),
            19 => (endpoint("introspect"), with(&[("token", &self.access)])),
            20 => (endpoint("revoke"), with(&[("token", "1.unknown")])),
            21 => (
                token,
                with(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("requested_token_use", "on_behalf_of"),
                    ("assertion", &self.access),
                    ("scope", &format!("{DEFENDER}/Machine.Read")),
                ]),
            ),
            _ => (
                endpoint("token"),
                owned(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", &self.certified.0),
                    ("client_assertion_type", ASSERTION),
                    ("client_assertion", &self.good_assertion()),
                    ("scope", SCOPE),
                ]),
            ),
        })
    }

    /// A damaged form at the token endpoint or one of its like.
    pub async fn try_form(&mut self, random: &mut Random) -> Result<String, Finding> {
        let (mut path, mut fields) = self.good_form(random).await?;
        let good = fields.clone();
        for _ in 0..random.below(3) {
            let at = random.below(fields.len());
            match random.below(6) {
                0 if fields.len() > 1 => drop(fields.remove(at)),
                1 => fields.push(fields[at].clone()),
                2 => fields[at].1 = random.of(PIECES).to_owned(),
                3 => fields[at].1 = damaged_text(random, &fields[at].1.clone()),
                4 => {
                    let other = random.below(fields.len());
                    let value = fields[other].1.clone();
                    fields[other].1 = std::mem::replace(&mut fields[at].1, value);
                }
                _ => fields[at].0 = damaged_text(random, &fields[at].0.clone()),
            }
        }
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut body = encode(&pairs).into_bytes();
        if random.one_in(3) {
            body = damaged(random, &body);
        }
        if random.one_in(20) {
            path = format!("{path}?{}", encode(&[(random.of(PIECES), random.of(PIECES))]));
        }
        let mut sent = Sent::form(path, body);
        match random.below(30) {
            0 => sent.headers.clear(),
            1 => sent.headers[0].1 = damaged(random, &sent.headers[0].1.clone()),
            2 => sent.headers.push(("origin", b"https://client.example".to_vec())),
            3 => sent.method = Method::GET,
            4 => sent.method = random.of(&[&Method::PUT, &Method::OPTIONS, &Method::HEAD]).clone(),
            _ => {}
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let endpoint = sent
            .path
            .split(['/', '?'])
            .find(|part| ["token", "devicecode", "introspect", "revoke"].contains(part));
        if endpoint == Some("token") && reply.status == 200 && reply.has_token() {
            self.check_entitled(&sent, &good)?;
            let (fields, _) = sent_fields(&sent.body);
            let of_web = fields.get("grant_type").is_some_and(|grant| grant != "password");
            if let Some(token) = reply.json["refresh_token"].as_str()
                && of_web
                && self.refresh.len() < 100
            {
                self.refresh.insert(token.to_owned());
            }
        } else if endpoint != Some("introspect") && reply.has_token() {
            return Err(sent.finding("a token where none is issued"));
        }
        Ok(format!("{} {}", endpoint.unwrap_or("other"), reply.outcome()))
    }

    /// Whether whoever sent this had every credential that the grant needs.
    pub fn check_entitled(&self, sent: &Sent, good: &Fields) -> Result<(), Finding> {
        let (fields, twice) = sent_fields(&sent.body);
        let get = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let was = |name: &str| {
            let found = good.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let client = get("client_id").trim_matches(['{', '}']).replace("urn:uuid:", "");
        let same_client =
            client.replace('-', "").eq_ignore_ascii_case(&was("client_id").replace('-', ""));
        let by_secret = same_client && get("client_secret") == self.web.1;
        let by_assertion = plain_jws(get("client_assertion")) == plain_jws(was("client_assertion"))
            && !was("client_assertion").is_empty();
        let entitled = match get("grant_type") {
            "client_credentials" => by_secret || by_assertion,
            "refresh_token" => by_secret && self.refresh.contains(get("refresh_token")),
            "authorization_code" => {
                by_secret
                    && get("code") == was("code")
                    && get("code_verifier") == VERIFIER
                    && get("redirect_uri") == REDIRECT
            }
            "password" => {
                same_client
                    && get("username").trim().eq_ignore_ascii_case("mira@tests.example")
                    && get("password") == PASSWORD
            }
            grant if grant.ends_with("jwt-bearer") => by_secret && get("assertion") == self.access,
            _ => false,
        };
        match entitled && !twice {
            true => Ok(()),
            false => Err(sent.finding("a token for a damaged credential")),
        }
    }
}
