//! Sign-in under `kill -9`: the server is killed and started again after every single answer, and at
//! random instants of a redemption. No code works twice, nothing revoked comes back, and nothing
//! that was answered is lost.

use crate::support::{Up, free_port, output, vigie};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const USER: &str = "kim@vigietrial.onmicrosoft.com";
const PASSWORD: &str = "correct horse battery";
const SCOPE: &str = "https://api.securitycenter.microsoft.com/Machine.Read offline_access";
const REDIRECT: &str = "https://client.example/cb";

/// A server that is killed after every answer, and the browser of a user.
struct Mortal {
    folder: TempDir,
    address: String,
    server: Option<Up>,
    tenant: String,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
    lives: u32,
}

/// What came back.
struct Answer {
    status: u16,
    location: String,
    text: String,
    json: Json,
}

impl Answer {
    fn text_of(&self, name: &str) -> String {
        self.json[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.text)).to_owned()
    }

    /// Refused with this number.
    fn refused(&self, number: u64) {
        assert_eq!(self.json["error_codes"][0], number, "{} {}", self.status, self.text);
        assert!(!self.text.contains("access_token"), "{}", self.text);
    }

    /// A member of the redirect's query.
    fn member(&self, name: &str) -> String {
        let at = self.location.find('?').unwrap_or_else(|| panic!("no redirect: {}", self.text));
        let mut all = url::form_urlencoded::parse(&self.location.as_bytes()[at + 1..]);
        let found = all.find(|(member, _)| member == name).map(|(_, value)| value.into_owned());
        found.unwrap_or_else(|| panic!("no {name} in {}", self.location))
    }
}

impl Mortal {
    fn new() -> Mortal {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = Up::on(folder.path(), &["--listen", &address]);
        let tenant = server.value("tenant");
        let pem = std::fs::read(server.value("certificate")).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .redirect(reqwest::redirect::Policy::none())
            // A connection does not outlive its server.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Mortal {
            folder,
            address,
            server: Some(server),
            tenant,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            http,
            cookies: BTreeMap::new(),
            lives: 1,
        }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
        self.lives += 1;
        self.server = Some(Up::on(self.folder.path(), &["--listen", &self.address]));
    }

    /// What the command line prints as it changes something; then the server is killed.
    fn change(&mut self, arguments: &[&str]) -> String {
        let mut command = vigie(arguments);
        command.arg("--data").arg(self.folder.path().join("data"));
        let said = output(command.env("VIGIE_USER_PASSWORD", PASSWORD));
        self.kill();
        said.trim().to_owned()
    }

    fn application(&mut self, arguments: &[&str]) -> String {
        let said = self.change(&[&["app", "create", "-o", "json"][..], arguments].concat());
        let made: Json = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        made["appId"].as_str().unwrap().to_owned()
    }

    fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = request.header("cookie", cookies.join("; "));
        let (answer, set) = self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let headers = response.headers().clone();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            let header = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
            let location = headers.get("location").map(header).unwrap_or_default();
            let json = serde_json::from_str(&text).unwrap_or(Json::Null);
            let set: Vec<String> = headers.get_all("set-cookie").iter().map(header).collect();
            (Answer { status, location, text, json }, set)
        });
        for cookie in set {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        self.kill();
        answer
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    fn open(&mut self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path)))
    }

    /// Fills in a page's form and sends it.
    fn submit(&mut self, page: &Answer, filled: &[(&str, &str)]) -> Answer {
        let form = page.text.split("<form").nth(1).unwrap_or_else(|| panic!("{}", page.text));
        let attribute = |tag: &str, name: &str| {
            let value = tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
            Some(value.replace("&amp;", "&"))
        };
        let mut fields = vec![("ctx", attribute(form, "name=\"ctx\" value").unwrap())];
        fields.extend(filled.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let action = attribute(form, "action").unwrap();
        self.send(self.http.post(self.url(action.trim_start_matches('/'))).form(&fields))
    }

    fn sign_in(&mut self, page: &Answer) -> Answer {
        assert!(page.text.contains("name=\"passwd\""), "no sign-in page: {}", page.text);
        self.submit(page, &[("login", USER), ("passwd", PASSWORD)])
    }

    fn authorize(&mut self, app: &str) -> Answer {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", app).append_pair("response_type", "code");
        query.append_pair("redirect_uri", REDIRECT).append_pair("scope", SCOPE);
        let path = format!("{}/oauth2/v2.0/authorize?{}", self.tenant, query.finish());
        self.open(&path)
    }

    fn form(&mut self, endpoint: &str, fields: &[(&str, &str)]) -> Answer {
        let path = format!("{}/oauth2/v2.0/{endpoint}", self.tenant);
        self.send(self.http.post(self.url(&path)).form(fields))
    }

    fn redeem(&mut self, (app, secret): (&str, &str), code: &str) -> Answer {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", app),
            ("client_secret", secret),
            ("code", code),
            ("redirect_uri", REDIRECT),
        ];
        self.form("token", &fields)
    }

    fn refresh(&mut self, (app, secret): (&str, &str), token: &str) -> Answer {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", app),
            ("client_secret", secret),
            ("refresh_token", token),
        ];
        self.form("token", &fields)
    }
}

/// Name and secret of a web application, and its user.
fn prepared(server: &mut Mortal) -> (String, String) {
    server.change(&["user", "create", USER]);
    let web = ["Web", "--web-redirect", REDIRECT, "--delegated", "Machine.Read"];
    let app = server.application(&web);
    let secret = server.change(&["app", "add-secret", &app]);
    (app, secret)
}

// CHECKLIST 53, 54, 107
#[test]
fn codes_sessions_consent_and_refresh_tokens_outlive_a_kill_after_every_answer() {
    let mut server = Mortal::new();
    let (app, secret) = prepared(&mut server);
    let client = (app.as_str(), secret.as_str());
    // A page, a password, a consent, a code, a token: each is the last answer of its server.
    let page = server.authorize(&app);
    let page = server.sign_in(&page);
    assert!(page.text.contains("Permissions requested"), "{}", page.text);
    let code = server.submit(&page, &[("decision", "accept")]).member("code");
    let issued = server.redeem(client, &code);
    assert_eq!(issued.status, 200, "{}", issued.text);
    let refreshed = server.refresh(client, &issued.text_of("refresh_token"));
    assert_eq!(refreshed.status, 200, "{}", refreshed.text);
    server.redeem(client, &code).refused(54005);
    // The second use revoked what the first had issued, and that stays.
    server.refresh(client, &issued.text_of("refresh_token")).refused(70000);
    server.refresh(client, &refreshed.text_of("refresh_token")).refused(70000);
    // Session and consent are there: no page comes in between.
    let code = server.authorize(&app).member("code");
    let issued = server.redeem(client, &code);
    let token = issued.text_of("refresh_token");
    let fields = [("client_id", client.0), ("client_secret", client.1), ("token", &token)];
    assert_eq!(server.form("revoke", &fields).status, 200);
    server.refresh(client, &token).refused(70000);
    // A session that was ended stays ended, even for whoever kept its cookie.
    let kept = server.cookies.clone();
    let path = format!("{}/oauth2/v2.0/logout", server.tenant);
    assert_eq!(server.open(&path).status, 200);
    server.cookies = kept;
    let page = server.authorize(&app);
    let code = server.sign_in(&page).member("code");
    let token = server.redeem(client, &code).text_of("refresh_token");
    server.change(&["user", "disable", USER]);
    server.refresh(client, &token).refused(50057);
    server.change(&["user", "enable", USER]);
    server.change(&["app", "withdraw", &app]);
    server.refresh(client, &token).refused(65001);
    println!("{} lives", server.lives);
}

// CHECKLIST 92, 107
#[test]
fn secrets_and_device_codes_outlive_a_kill_after_every_answer() {
    let mut server = Mortal::new();
    let (app, secret) = prepared(&mut server);
    let second = server.change(&["app", "add-secret", &app]);
    let token = |server: &mut Mortal, secret: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", secret),
            ("scope", "https://api.securitycenter.microsoft.com/.default"),
        ];
        server.form("token", &fields)
    };
    for secret in [&secret, &second] {
        assert_eq!(token(&mut server, secret).status, 200, "a secret that was shown is lost");
    }
    let shown = server.change(&["app", "show", &app, "-o", "json"]);
    let shown: Json = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
    let secrets = shown["secrets"].as_array().unwrap();
    let first = secrets.iter().find(|known| known["hint"] == secret[..3]).unwrap();
    server.change(&["app", "remove-secret", &app, first["keyId"].as_str().unwrap()]);
    token(&mut server, &secret).refused(7000215);
    assert_eq!(token(&mut server, &second).status, 200);
    let native = ["Device", "--public-client", "--native-redirect", "http://localhost"];
    let native = server.application(&[&native[..], &["--delegated", "Machine.Read"]].concat());
    let started = server.form("devicecode", &[("client_id", &native), ("scope", SCOPE)]);
    let code = started.text_of("device_code");
    let poll =
        [("grant_type", "device_code"), ("client_id", native.as_str()), ("device_code", &code)];
    server.form("token", &poll).refused(70016);
    let page = server.open("common/oauth2/deviceauth");
    let page = server.submit(&page, &[("otc", &started.text_of("user_code"))]);
    let page = server.sign_in(&page);
    let page = server.submit(&page, &[("decision", "accept")]);
    let page = server.submit(&page, &[("decision", "continue")]);
    assert!(page.text.contains("You have signed in"), "{}", page.text);
    let issued = server.form("token", &poll);
    assert_eq!(issued.status, 200, "{}", issued.text);
    server.form("token", &poll).refused(70018);
    println!("{} lives", server.lives);
}

/// The kill comes while a code is redeemed: whether the answer arrived or not, the code gives at most
/// one answer with a token.
// CHECKLIST 53, 107
#[test]
fn a_code_works_once_at_most_whenever_the_kill_comes() {
    let mut server = Mortal::new();
    let (app, secret) = prepared(&mut server);
    let page = server.authorize(&app);
    let page = server.sign_in(&page);
    server.submit(&page, &[("decision", "accept")]).member("code");
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    println!("seed {seed}");
    let mut random = seed;
    let (mut answered, mut later) = (0, 0);
    for _ in 0..12 {
        let code = server.authorize(&app).member("code");
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", &app),
            ("client_secret", &secret),
            ("code", &code),
            ("redirect_uri", REDIRECT),
        ];
        let path = server.url(&format!("{}/oauth2/v2.0/token", server.tenant));
        let request = server.http.post(path).form(&fields);
        let first = server.runtime.spawn(async move {
            let Ok(response) = request.send().await else { return false };
            let whole = response.status().is_success();
            whole && response.text().await.is_ok_and(|text| text.contains("access_token"))
        });
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
        server.kill();
        let first = server.runtime.block_on(first).unwrap();
        let second = server.redeem((&app, &secret), &code);
        let again = second.status == 200;
        assert!(!(first && again), "a code worked twice");
        server.redeem((&app, &secret), &code).refused(54005);
        answered += u32::from(first);
        later += u32::from(again);
    }
    println!("{answered} redeemed before the kill, {later} after it, of 12");
}
