//! Sends the authorization server what nobody should send: damaged forms, assertions, redirect URIs,
//! Basic headers, access tokens, page forms and paths.
//!
//! `cargo xtask fuzz sign-in MINUTES [SEED]`. A panic, an answer of 5xx, a slow or misshapen answer, a
//! token for a credential that is not exactly the right one, or a redirect to an address that is not
//! registered, is a finding: it is printed with its request, and the exit code is 1. A finding that
//! was mended becomes a test.

#[allow(dead_code)]
#[path = "../tests/oauth/signer.rs"]
mod signer;
#[allow(dead_code)]
#[path = "../tests/oauth/support.rs"]
mod support;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use signer::{ASSERTION, Signer, assertion_claims, certified, rsa_jwk};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use support::*;
use tower::ServiceExt as _;
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_database::Database;
use vigie_identity::{PeerAddress, Resource};

/// No answer may cost more processor time, of a build without optimisation too.
const SLOW: Duration = Duration::from_secs(2);
/// No answer may take longer, on a busy machine too.
const STUCK: Duration = Duration::from_secs(120);
/// Trials in one directory: a new one keeps the audit log short.
const TRIALS: u64 = 20_000;
/// Redirect URIs of the application that the redirects are tried with, by platform.
const WEB: &[&str] = &["https://client.example/cb", "https://client.example/q?fixed=1"];
const SPA: &[&str] = &["https://spa.example/", "http://localhost/spa"];
const NATIVE: &[&str] =
    &["http://localhost", "http://127.0.0.1/cb", "http://[::1]/x", "app.client://done"];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Pieces that parsers have stumbled over.
const PIECES: &[&str] = &[
    "",
    "&",
    "=",
    "==",
    "%",
    "%00",
    "%0d%0aSet-Cookie: a=b",
    "%C0%AF",
    "%ff",
    "%u0041",
    "+",
    " ",
    "\0",
    "\r\nLocation: https://evil.example/",
    "\t",
    "\u{202e}",
    "\u{1F980}",
    "\u{feff}",
    "//evil.example",
    "\\evil.example",
    "@evil.example",
    "/../",
    "/%2e%2e/",
    "#",
    "?",
    ";",
    ":",
    ".",
    "..",
    "https://evil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
    "\"><img src=x>",
    "'><script>alert(1)</script>",
    "-1",
    "0",
    "1e999",
    "99999999999999999999999999",
    "null",
    "[]",
    "{}",
    "{\"a\":",
    "true",
    "common",
    "organizations",
    ".default",
    "openid",
    "offline_access",
    "00000000-0000-0000-0000-000000000000",
    "grant_type=password",
    "client_secret=",
    "code_verifier=",
    "RS256",
    "none",
    "a.b.c",
    "....",
];

/// Bytes left out, doubled, exchanged, put elsewhere, or pieces put in between.
fn damaged(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let (copy, to) = (bytes[at..end].to_vec(), random.below(bytes.len()));
                bytes.splice(to..to, copy);
            }
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            4 => bytes.extend_from_slice(random.of(PIECES).as_bytes()),
            _ => drop(bytes.splice(at..at, random.of(PIECES).bytes())),
        }
    }
    if random.one_in(200) {
        let piece = random.of(PIECES).repeat(1 + random.below(9000));
        bytes.extend_from_slice(piece.as_bytes());
    }
    bytes
}

/// The same of a text, which stays one.
fn damaged_text(random: &mut Random, text: &str) -> String {
    String::from_utf8_lossy(&damaged(random, text.as_bytes())).into_owned()
}

/// What is wrong, and with which request.
struct Finding {
    kind: String,
    request: String,
}

/// A request that is about to be sent.
struct Sent {
    method: Method,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

impl Sent {
    fn form(path: String, body: Vec<u8>) -> Sent {
        let form = b"application/x-www-form-urlencoded".to_vec();
        Sent { method: Method::POST, path, headers: vec![("content-type", form)], body }
    }

    fn get(path: String) -> Sent {
        Sent { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
    }

    fn told(&self) -> String {
        let mut told = format!("{} {}\n", self.method, self.path.escape_debug());
        for (name, value) in &self.headers {
            told.push_str(&format!("{name}: {}\n", value.escape_ascii()));
        }
        let body: String = self.body.escape_ascii().to_string().chars().take(3000).collect();
        told + &body
    }

    fn finding(&self, kind: impl Into<String>) -> Finding {
        Finding { kind: kind.into(), request: self.told() }
    }
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
    json: Json,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn has_token(&self) -> bool {
        ["access_token", "id_token", "refresh_token"].iter().any(|name| !self.json[*name].is_null())
    }

    /// For the tally.
    fn outcome(&self) -> String {
        match self.json["error_codes"][0].as_u64() {
            Some(number) => format!("AADSTS{number}"),
            None => self.status.as_u16().to_string(),
        }
    }
}

/// A directory with one of everything, and the right credentials.
struct Scene {
    world: World,
    /// Of a browser in which `mira` is signed in.
    cookies: String,
    /// A confidential application with a secret, and that has had users sign in.
    web: (String, String),
    certified: (String, Signer),
    /// An application that trusts another issuer, and that issuer.
    federated: (String, Signer),
    public: String,
    /// The application of the redirects.
    redirected: String,
    refresh: HashSet<String>,
    access: String,
    stranger: Signer,
}

impl Scene {
    async fn new() -> Scene {
        let folder = match tempfile::tempdir_in("/dev/shm") {
            Ok(folder) => folder,
            Err(_) => tempfile::tempdir().expect("a folder"),
        };
        let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
        let world = World::on(database, folder).await;
        world.settings(|settings| settings.allow_password_grant = true).await;
        let web = world.confidential(web_registration()).await;
        world.consent(&web.0, &["Machine.Read"]).await;
        let public = world.public().await;
        world.consent(&public, &["Machine.Read"]).await;
        let texts = |list: &[&str]| list.iter().map(|uri| (*uri).to_owned()).collect();
        let registration = Registration {
            redirect_uris: RedirectUris {
                web: texts(WEB),
                spa: texts(SPA),
                public_client: texts(NATIVE),
            },
            allow_implicit_id_token: true,
            ..web_registration()
        };
        let redirected = world.application(&[], registration).await;
        world.consent(&redirected, &["Machine.Read"]).await;
        let signer = Signer::new();
        let certified = (certified(&world, &signer).await, signer);
        let federated = federated(&world).await;
        let code = authorize(&world, &web.0, "mira", &[]).await["code"].clone();
        let answer = world.form(&world.v2(), &redemption(&web.0, &web.1, &code)).await;
        let refresh = HashSet::from([answer.text_of("refresh_token").to_owned()]);
        let access = answer.text_of("access_token").to_owned();
        let mut browser = Browser::new(&world);
        browser.open(&authorize_path(&world, &web.0, &[])).await;
        browser.sign_in("mira").await;
        let cookies: Vec<String> =
            browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let stranger = Signer::new();
        Scene {
            world,
            cookies,
            web,
            certified,
            federated,
            public,
            redirected,
            refresh,
            access,
            stranger,
        }
    }

    /// Sends a request; what every answer must be is checked. `None`: it is no HTTP.
    async fn send(&self, random: &mut Random, sent: &Sent) -> Result<Option<Reply>, Finding> {
        let mut request = Request::builder().method(sent.method.clone()).uri(&sent.path);
        if !random.one_in(50) {
            request = request.header("host", "login.tests.example:8443");
        }
        for (name, value) in &sent.headers {
            request = request.header(*name, value.as_slice());
        }
        let Ok(mut request) = request.body(Body::from(sent.body.clone())) else { return Ok(None) };
        // From everywhere, since failures of one address are slowed down.
        let address = IpAddr::V4(Ipv4Addr::from(random.next() as u32));
        request.extensions_mut().insert(PeerAddress(address));
        let router = self.world.router.clone();
        let answered = tokio::spawn(async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.map(|body| body.to_bytes()))
        });
        let began = processor_time();
        let answered = tokio::time::timeout(STUCK, answered).await;
        let (parts, body) = match answered {
            Err(_) => return Err(sent.finding("no answer")),
            Ok(_) if processor_time() - began > SLOW => return Err(sent.finding("slow")),
            Ok(Err(panic)) => return Err(sent.finding(format!("panic: {panic}"))),
            Ok(Ok(answer)) => answer,
        };
        let body = body.map_err(|error| sent.finding(format!("a broken body: {error}")))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Json::Null);
        let reply = Reply { status: parts.status, headers: parts.headers, text, json };
        check_reply(sent, &reply)?;
        Ok(Some(reply))
    }

    fn token_path(&self, random: &mut Random) -> String {
        match random.below(3) {
            0 => self.world.v1(),
            _ => self.world.v2(),
        }
    }

    /// A code for the web application, by the browser that is signed in.
    async fn code(&self, random: &mut Random) -> Result<String, Finding> {
        let mut sent = Sent::get(authorize_path(&self.world, &self.web.0, &[]));
        sent.headers.push(("cookie", self.cookies.clone().into_bytes()));
        let reply = self.send(random, &sent).await?;
        let location = reply.map(|reply| reply.header("location").to_owned()).unwrap_or_default();
        let code = fields(&location).remove("code");
        code.ok_or_else(|| sent.finding("no code for a good request"))
    }

    fn good_assertion(&self) -> String {
        let (app, signer) = &self.certified;
        signer.sign(&signer.header(), &assertion_claims(&self.world, app))
    }
}

/// An application that trusts an issuer elsewhere, and that issuer.
async fn federated(world: &World) -> (String, Signer) {
    let signer = Signer::new();
    let app = world.application(&["Machine.Read.All"], Registration::default()).await;
    let id = Uuid::try_parse(&app).expect("an id");
    let new = NewFederatedCredential {
        name: "pipeline".to_owned(),
        issuer: "https://ci.example".to_owned(),
        subject: "repo:vigie:main".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        keys: Some(json!({"keys": [rsa_jwk(&signer)]})),
    };
    let added = world.directory.add_federated_credential("tests", world.tenant, id, &new).await;
    added.expect("added");
    (app, signer)
}

/// User and system time of this process, which does nothing else meanwhile: fields 14 and 15 of
/// proc_pid_stat(5), in hundredths of a second.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// What holds for every answer, whatever was asked.
fn check_reply(sent: &Sent, reply: &Reply) -> Result<(), Finding> {
    let wrong = |kind: &str| Err(sent.finding(format!("{kind}: {} {}", reply.status, reply.text)));
    if reply.status.is_server_error() {
        return wrong("a server's error");
    }
    if !reply.header("cache-control").contains("no-store") {
        return wrong("kept by caches");
    }
    let kind = reply.header("content-type");
    if kind.starts_with("text/html") {
        let scripts = reply.text.matches("<script").count();
        let own = reply.text.matches("<script>document.forms[0].submit()</script>").count();
        if scripts != own || reply.text.contains("<img") {
            return wrong("markup that was sent");
        }
        if !reply.header("content-security-policy").contains("default-src 'none'") {
            return wrong("a page without policy");
        }
    }
    if let Some(error) = reply.json["error"].as_str() {
        let Some(number) = reply.json["error_codes"][0].as_u64() else {
            return wrong("an error without number");
        };
        let description = reply.json["error_description"].as_str().unwrap_or_default();
        let whole = !error.is_empty()
            && description.starts_with(&format!("AADSTS{number}: "))
            && description.contains("Trace ID: ")
            && reply.json["trace_id"] == reply.header("x-ms-request-id")
            && reply.json["error_uri"]
                .as_str()
                .is_some_and(|uri| uri.ends_with(&number.to_string()));
        if !whole || reply.has_token() {
            return wrong("an error out of shape");
        }
        if !matches!(reply.status.as_u16(), 400 | 401 | 405 | 429) {
            return wrong("an error of unknown status");
        }
    }
    for set in reply.headers.get_all("set-cookie") {
        if !set.to_str().is_ok_and(|set| set.starts_with("__Host-vigie-")) {
            return wrong("a foreign cookie");
        }
    }
    Ok(())
}

/// Fields of a body as sent, and whether one is there twice.
fn sent_fields(body: &[u8]) -> (BTreeMap<String, String>, bool) {
    let (mut all, mut twice) = (BTreeMap::new(), false);
    for (name, value) in url::form_urlencoded::parse(body) {
        twice |= all.insert(name.into_owned(), value.into_owned()).is_some();
    }
    (all, twice)
}

type Fields = Vec<(String, String)>;

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Scene {
    /// A good request of some kind: endpoint, fields.
    async fn good_form(&self, random: &mut Random) -> Result<(String, Fields), Finding> {
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
    async fn try_form(&mut self, random: &mut Random) -> Result<String, Finding> {
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
    fn check_entitled(&self, sent: &Sent, good: &Fields) -> Result<(), Finding> {
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

/// A signed token without the padding that one library adds to its signature.
fn plain_jws(token: &str) -> &str {
    token.trim_end_matches('=')
}

impl Scene {
    /// A client assertion, damaged before or after it is signed.
    async fn try_assertion(&self, random: &mut Random) -> Result<String, Finding> {
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
    fn confused(
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
    fn audiences(&self) -> Vec<Json> {
        let ends = ["oauth2/token", "oauth2/v2.0/token", "v2.0", ""];
        let tenant = self.world.tenant;
        ends.iter().map(|end| json!(format!("{BASE}/{tenant}/{end}"))).collect()
    }

    fn in_time(&self, claims: &Json) -> bool {
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
fn same_claim(value: &Json, good: &Json) -> bool {
    let same = |value: &Json| match (value.as_str(), good.as_str()) {
        (Some(value), Some(good)) => value.eq_ignore_ascii_case(good),
        _ => false,
    };
    same(value) || value.as_array().is_some_and(|list| list.iter().any(same))
}

fn odd_json(random: &mut Random) -> Json {
    match random.below(9) {
        0 => Json::Null,
        1 => json!(random.next() as i64),
        2 => json!(random.next() as f64 / 3.0),
        3 => json!(-1),
        4 => json!(random.of(PIECES)),
        5 => json!([random.of(PIECES), 1, null, {}]),
        6 => json!({"a": {"b": [random.of(PIECES)]}}),
        7 => json!(true),
        _ => json!(random.of(PIECES).repeat(1 + random.below(500))),
    }
}

impl Scene {
    /// Redirect URIs that are almost the registered ones, at the endpoints that redirect.
    async fn try_redirect(&self, random: &mut Random) -> Result<String, Finding> {
        let all = [WEB, SPA, NATIVE].concat();
        let mut uri = random.of(&all).to_owned();
        match random.below(5) {
            0 => {}
            1 => uri = uri.replacen("localhost", &format!("localhost:{}", odd_port(random)), 1),
            2 => {
                let at = uri.find("//").map_or(0, |at| at + 2);
                uri.insert_str(at, random.of(PIECES));
            }
            _ => uri = damaged_text(random, &uri),
        }
        let state = damaged_text(random, "state");
        let (name, path) = match random.below(8) {
            0 => ("post_logout_redirect_uri", format!("/{}/oauth2/v2.0/logout", self.world.tenant)),
            1 => ("redirect_uri", format!("/{}/adminconsent", self.world.tenant)),
            _ => ("redirect_uri", format!("/{}/oauth2/v2.0/authorize", self.world.tenant)),
        };
        let scope = format!("{DEFENDER}/Machine.Read openid");
        let mut fields = owned(&[
            ("client_id", &self.redirected),
            (name, &uri),
            ("state", &state),
            (
                "response_type",
                random.of(&["code", "code", "id_token", "code id_token", "token", ""]),
            ),
            ("response_mode", random.of(&["", "query", "fragment", "form_post", "x"])),
            ("scope", &scope),
            ("nonce", "n"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("prompt", random.of(&["", "", "none", "login", "consent", "select_account", "x"])),
        ]);
        if random.one_in(3) {
            let at = random.below(fields.len());
            fields[at].1 = damaged_text(random, &fields[at].1.clone());
        }
        if random.one_in(4) {
            fields.push((
                random.of(&["login_hint", "domain_hint", "max_age", "claims"]).to_owned(),
                { random.of(PIECES).to_owned() },
            ));
        }
        let asked: BTreeMap<String, String> = fields.iter().cloned().collect();
        let (uri, state) = (asked[name].clone(), asked["state"].clone());
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut sent = match random.below(6) {
            0 if path.ends_with("authorize") => Sent::form(path, encode(&pairs).into_bytes()),
            _ => Sent::get(format!("{path}?{}", encode(&pairs))),
        };
        // The session goes with a sign-out, so that one is without it.
        if name == "redirect_uri" && !random.one_in(5) {
            sent.headers.push(("cookie", self.cookies.clone().into_bytes()));
        }
        let Some(reply) = self.send(random, &sent).await? else { return Ok("no HTTP".to_owned()) };
        let location = reply.header("location");
        if reply.headers.contains_key("location") {
            if reply.status != 303 {
                return Err(sent.finding(format!("a redirect by {}", reply.status)));
            }
            check_target(&sent, location, &uri)?;
            let back = fields_of_location(location);
            if !state.is_empty() && back.get("state") != Some(&state) {
                return Err(sent.finding(format!("the state was changed: {location}")));
            }
            let kind = if back.contains_key("error") { "error" } else { "success" };
            return Ok(format!("redirect with {kind}"));
        }
        if reply.text.contains("document.forms[0].submit()") {
            let (action, posted) = form_of(&reply.text);
            check_target(&sent, &action, &uri)?;
            if !state.is_empty() && posted.get("state") != Some(&state) {
                return Err(sent.finding(format!("the state was changed: {posted:?}")));
            }
            return Ok("redirect by form".to_owned());
        }
        Ok(format!("redirect page {}", reply.status))
    }
}

/// Members of a redirect, behind those that were registered with it.
fn fields_of_location(location: &str) -> BTreeMap<String, String> {
    let at = location.find('#').or_else(|| location.find('?'));
    let members = at.map_or("", |at| &location[at + 1..]);
    url::form_urlencoded::parse(members.as_bytes()).into_owned().collect()
}

/// A redirect must go where a browser finds a registered address: by what the URL Standard reads, not
/// by the text alone.
fn check_target(sent: &Sent, target: &str, asked: &str) -> Result<(), Finding> {
    let elsewhere = || sent.finding(format!("a redirect elsewhere: {target:?}"));
    if !target.starts_with(asked) || target.chars().any(char::is_control) {
        return Err(elsewhere());
    }
    let parsed = url::Url::parse(target).map_err(|_| elsewhere())?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(elsewhere());
    }
    let known = [WEB, SPA, NATIVE].concat().iter().any(|known| {
        let known = url::Url::parse(known).expect("registered");
        let loopback = matches!(known.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        known.scheme() == parsed.scheme()
            && known.host_str() == parsed.host_str()
            && (known.port() == parsed.port() || loopback)
            && known.path() == parsed.path()
            && known
                .query()
                .is_none_or(|fixed| parsed.query().is_some_and(|query| query.starts_with(fixed)))
    });
    if known { Ok(()) } else { Err(elsewhere()) }
}

fn odd_port(random: &mut Random) -> String {
    match random.below(6) {
        0 => String::new(),
        1 => "+80".to_owned(),
        2 => "-1".to_owned(),
        3 => "99999".to_owned(),
        4 => format!("80{}", random.of(PIECES)),
        _ => (random.next() as u16).to_string(),
    }
}

impl Scene {
    /// A Basic header, damaged before or after its base64.
    async fn try_basic(&self, random: &mut Random) -> Result<String, Finding> {
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
    async fn try_bearer(&self, random: &mut Random) -> Result<String, Finding> {
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
    async fn try_page(&self, random: &mut Random) -> Result<String, Finding> {
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
    async fn try_path(&self, random: &mut Random) -> Result<String, Finding> {
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

    async fn trial(&mut self, random: &mut Random) -> Result<String, Finding> {
        match random.below(14) {
            0..=3 => self.try_form(random).await,
            4..=6 => self.try_assertion(random).await,
            7..=9 => self.try_redirect(random).await,
            10 => self.try_basic(random).await,
            11 => self.try_bearer(random).await,
            12 => self.try_page(random).await,
            _ => self.try_path(random).await,
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut random = Random(seed);
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut findings: HashSet<String> = HashSet::new();
    let mut trials = 0_u64;
    while Instant::now() < end {
        runtime.block_on(async {
            let mut scene = Scene::new().await;
            for _ in 0..TRIALS {
                if Instant::now() >= end {
                    break;
                }
                trials += 1;
                match scene.trial(&mut random).await {
                    Ok(outcome) => *tally.entry(outcome).or_default() += 1,
                    Err(Finding { kind, request }) => {
                        // One of each kind is enough.
                        let short: String =
                            kind.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
                        if findings.insert(short) {
                            println!("FINDING {kind}\n{request}\n");
                        }
                    }
                }
            }
        });
    }
    for (outcome, count) in &tally {
        println!("{count:>9} {outcome}");
    }
    println!("seed {seed}: {trials} trials, {} findings", findings.len());
    std::process::exit(i32::from(!findings.is_empty()));
}
