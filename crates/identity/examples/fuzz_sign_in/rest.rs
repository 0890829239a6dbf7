//! Basic headers, access tokens, page forms and paths.

use crate::damage::{PIECES, Random, damaged, damaged_text, odd_json};
use crate::exchange::{Finding, Sent};
use crate::scene::Scene;
use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::Method;
use uuid::Uuid;
use vigie_identity::Resource;

impl Scene {
    /// A Basic header, damaged before or after its base64.
    pub async fn try_basic(&self, random: &mut Random) -> Result<String, Finding> {
        let (app, secret) = &self.web;
        let mut pair = format!("{app}:{secret}").into_bytes();
        if random.one_in(2) {
            pair = damaged(random, &pair);
        }
        let mut value = format!("Basic {}", STANDARD.encode(&pair)).into_bytes();
        if random.one_in(2) {
            value = damaged(random, &value);
        }
        let grant = [("grant_type", "client_credentials"), ("scope", SCOPE)];
        let mut sent = Sent::form(self.world.v2(), encode(&grant).into_bytes());
        sent.headers.push(("authorization", value.clone()));
        if random.one_in(10) {
            sent.headers.push(("authorization", damaged(random, &value)));
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        if reply.status == 200 {
            let text = String::from_utf8_lossy(&value).into_owned();
            let sent_pair =
                text.split_once(' ').and_then(|(_, rest)| STANDARD.decode(rest.trim()).ok());
            // Form-encoded: the parser of forms reads either half.
            let half = |half: &[u8]| {
                let doubled = [b"x=".as_slice(), half].concat();
                url::form_urlencoded::parse(&doubled).next().map(|(_, value)| value.into_owned())
            };
            let sent_pair = sent_pair.unwrap_or_default();
            let colon = sent_pair.iter().position(|byte| *byte == b':').unwrap_or(0);
            let (id, rest) = sent_pair.split_at(colon);
            let id = half(id).and_then(|id| Uuid::try_parse(&id).ok());
            let right = id.is_some_and(|id| id.to_string() == *app)
                && half(rest.get(1..).unwrap_or_default()).as_ref() == Some(secret);
            if !right {
                return Err(sent.finding("a token for a wrong Basic header"));
            }
        }
        if reply.status == 401 && !reply.header("www-authenticate").starts_with("Basic") {
            return Err(sent.finding("no challenge for Basic"));
        }
        Ok(format!("basic {}", reply.outcome()))
    }

    /// A damaged access token, at the resource's verifier and at the endpoints that take one.
    pub async fn try_bearer(&self, random: &mut Random) -> Result<String, Finding> {
        let parts: Vec<&str> = self.access.split('.').collect();
        let token = match random.below(5) {
            0 => self.access.clone(),
            1 | 2 => damaged_text(random, &self.access),
            3 => {
                let mut header = part(&self.access, 0);
                let at = random.of(&["alg", "kid", "jku", "jwk", "x5u", "typ", "crit"]);
                header[at] = odd_json(random);
                let header = URL_SAFE_NO_PAD.encode(header.to_string());
                let claims = match random.one_in(2) {
                    true => parts[1].to_owned(),
                    false => {
                        URL_SAFE.encode(damaged_text(random, &claims(&self.access).to_string()))
                    }
                };
                format!("{header}.{claims}.{}", parts[2])
            }
            _ => self.stranger.sign(&part(&self.access, 0), &claims(&self.access)),
        };
        let sent = Sent::form(
            format!("/{}/oauth2/v2.0/introspect", self.world.tenant),
            encode(&[
                ("client_id", &self.web.0),
                ("client_secret", &self.web.1),
                ("token", &token),
            ])
            .into_bytes(),
        );
        let accepted = self.world.directory.verify(&token, Resource::Defender).is_ok();
        if accepted != (token == self.access) {
            return Err(sent.finding(format!("the verifier says {accepted} of {token}")));
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let active = reply.json["active"] == true;
        if active && token != self.access && !self.refresh.contains(&token) {
            return Err(sent.finding("a damaged token is active"));
        }
        let mut info = Sent::get("/oidc/userinfo".to_owned());
        info.headers.push(("authorization", format!("Bearer {token}").into_bytes()));
        self.send(random, &info).await?;
        Ok(format!("bearer {active}"))
    }

    /// Forms of pages: what they carry was made by somebody else, or damaged.
    pub async fn try_page(&self, random: &mut Random) -> Result<String, Finding> {
        let start = match random.below(2) {
            0 => format!("/{}/oauth2/v2.0/deviceauth", self.world.tenant),
            _ => authorize_path(&self.world, &self.web.0, &[]),
        };
        let page = self.send(random, &Sent::get(start)).await?;
        let Some(page) = page.filter(|page| page.text.contains("<form")) else {
            return Ok("no page".to_owned());
        };
        let (action, mut fields) = form_of(&page.text);
        let path = match random.below(3) {
            0 => action,
            _ => {
                let form = random.of(&["login", "mfa", "consent", "device", "select"]);
                format!("/{}/{form}", self.world.tenant)
            }
        };
        fields.insert("decision".to_owned(), random.of(&["accept", "continue", "x"]).to_owned());
        fields.insert("otc".to_owned(), random.of(PIECES).to_owned());
        fields.insert("login".to_owned(), random.of(PIECES).to_owned());
        if let Some(context) = fields.get_mut("ctx")
            && random.one_in(2)
        {
            *context = damaged_text(random, context);
        }
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut sent = Sent::form(path, encode(&pairs).into_bytes());
        let cookie = page.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let cookie = match random.below(4) {
            0 => damaged(random, cookie.as_bytes()),
            1 => self.cookies.clone().into_bytes(),
            _ => cookie.into_bytes(),
        };
        sent.headers.push(("cookie", cookie));
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let told = reply.headers.get_all("set-cookie").iter();
        let signed_in =
            told.into_iter().any(|set| set.as_bytes().starts_with(b"__Host-vigie-session"));
        if signed_in || reply.headers.contains_key("location") {
            return Err(sent.finding("a page's form led somewhere without a password"));
        }
        Ok(format!("page {}", reply.status))
    }

    /// Paths and methods of every kind.
    pub async fn try_path(&self, random: &mut Random) -> Result<String, Finding> {
        let tenant = self.world.tenant.to_string();
        let tenant = random.of(&[tenant.as_str(), "common", "tests.example", "TESTS.example", "x"]);
        let end = random.of(&[
            "oauth2/v2.0/token",
            "oauth2/token",
            "oauth2/v2.0/authorize",
            "oauth2/logout",
            "oauth2/deviceauth",
            "v2.0/.well-known/openid-configuration",
            ".well-known/openid-configuration",
            "discovery/v2.0/keys",
            "discovery/instance?authorization_endpoint=https://login.tests.example/x/oauth2",
            "userrealm/mira@tests.example?api-version=1.0",
            "adminconsent?client_id=1&redirect_uri=2",
            "openid/userinfo",
        ]);
        let path = format!("/{tenant}/{end}");
        let path = if random.one_in(5) { path } else { damaged_text(random, &path) };
        let mut sent = Sent::get(path);
        sent.method =
            random.of(&[&Method::GET, &Method::POST, &Method::HEAD, &Method::DELETE]).clone();
        if random.one_in(3) {
            let id = damaged(random, Uuid::nil().to_string().as_bytes());
            sent.headers.push(("client-request-id", id));
            sent.headers.push(("return-client-request-id", b"true".to_vec()));
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        if reply.has_token() {
            return Err(sent.finding("a token by a path alone"));
        }
        Ok(format!("path {}", reply.outcome()))
    }
}
