//! An authorization server in this process, spoken to as over the wire, and a browser that follows
//! forms as a person without script would.

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tempfile::TempDir;
use tower::ServiceExt as _;
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_contract::clock::Clock;
use vigie_database::Database;
use vigie_identity::{Authority, Directory, MasterKey, PeerAddress};

pub const DEFENDER: &str = "https://api.securitycenter.microsoft.com";
pub const SCOPE: &str = "https://api.securitycenter.microsoft.com/.default";
pub const BASE: &str = "https://login.tests.example:8443";
pub const DOMAIN: &str = "tests.example";
pub const PASSWORD: &str = "correct horse battery staple";
pub const REDIRECT: &str = "https://client.example/cb";
/// RFC 7636, appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub struct World {
    pub directory: Directory,
    pub router: Router,
    pub clock: Clock,
    pub tenant: Uuid,
    /// Where requests come from.
    pub address: IpAddr,
    pub folder: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Json,
}

impl Answer {
    pub fn text_of(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn location(&self) -> String {
        assert_eq!(self.status, 303, "{}", self.text);
        self.header("location").to_owned()
    }
}

impl World {
    /// A tenant with two users: `mira`, who may do nothing but sign in, and `root`, who administers.
    pub async fn start() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
        World::on(database, folder).await
    }

    pub async fn on(database: Database, folder: TempDir) -> World {
        let clock = Clock::default();
        let master = MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
        let directory = Directory::open(database, master, clock.clone()).await.expect("opened");
        let names = ["other.tests.example".to_owned()];
        directory.set_authority(Authority::new(BASE, &names));
        let router = vigie_identity::router(directory.clone());
        let new = NewTenant {
            display_name: "Tests".to_owned(),
            domains: vec![DOMAIN.to_owned()],
            ..NewTenant::default()
        };
        let tenant = directory.create_tenant("tests", &new).await.expect("made").id;
        let address = "192.0.2.10".parse().expect("an address");
        let world = World { directory, router, clock, tenant, address, folder };
        world.user("mira", &[]).await;
        world.user("root", &["Global Administrator"]).await;
        // Passwords set in the same microsecond as a sign-in would end it.
        world.clock.advance(TimeDelta::seconds(2));
        world
    }

    pub async fn user(&self, name: &str, roles: &[&str]) -> User {
        self.user_in(self.tenant, &format!("{name}@{DOMAIN}"), roles).await
    }

    pub async fn user_in(&self, tenant: Uuid, name: &str, roles: &[&str]) -> User {
        let new = NewUser {
            user_principal_name: name.to_owned(),
            display_name: Some(format!("Display of {name}")),
            given_name: Some("Given".to_owned()),
            surname: Some("Sur".to_owned()),
            password: PASSWORD.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..NewUser::default()
        };
        self.directory.create_user("tests", tenant, &new).await.expect("made")
    }

    pub async fn second_tenant(&self) -> Uuid {
        let new = NewTenant {
            display_name: "Customer".to_owned(),
            domains: vec!["customer.example".to_owned()],
            ..NewTenant::default()
        };
        let tenant = self.directory.create_tenant("tests", &new).await.expect("made").id;
        self.user_in(tenant, "chief@customer.example", &["Global Administrator"]).await;
        self.user_in(tenant, "clerk@customer.example", &[]).await;
        self.clock.advance(TimeDelta::seconds(2));
        tenant
    }

    pub async fn settings(&self, change: impl FnOnce(&mut TenantSettings)) {
        let mut settings = TenantSettings::default();
        change(&mut settings);
        let set = self.directory.set_tenant_settings("tests", self.tenant, &settings).await;
        set.expect("set");
    }

    /// A confidential application with a secret: its id and the secret.
    pub async fn confidential(&self, registration: Registration) -> (String, String) {
        let id = self.application(&["Machine.Read.All"], registration).await;
        let secret = self.secret(&id).await;
        (id, secret)
    }

    pub async fn secret(&self, app: &str) -> String {
        let app = Uuid::try_parse(app).expect("an id");
        let new = NewSecret::default();
        self.directory.add_secret("tests", self.tenant, app, &new).await.expect("made").secret
    }

    pub async fn application(&self, permissions: &[&str], registration: Registration) -> String {
        let new = NewApplication {
            app_id: None,
            display_name: "Client <of> tests".to_owned(),
            permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
            registration,
        };
        let made = self.directory.create_application("tests", self.tenant, &new).await;
        made.expect("made").app_id.to_string()
    }

    /// A public application with a loopback redirect, that reads machines and alerts.
    pub async fn public(&self) -> String {
        self.application(&[], public_registration()).await
    }

    /// Consent of everybody in the tenant.
    pub async fn consent(&self, app: &str, scopes: &[&str]) {
        let app = Uuid::try_parse(app).expect("an id");
        let change = ServicePrincipalChange {
            delegated: Some(vec![DelegatedGrant {
                user: None,
                resource: "WindowsDefenderATP".to_owned(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            }]),
            ..ServicePrincipalChange::default()
        };
        let changed =
            self.directory.change_service_principal("tests", self.tenant, app, &change).await;
        changed.expect("changed");
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request.extensions_mut().insert(PeerAddress(self.address));
        let response = self.router.clone().oneshot(request).await.expect("answered");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Json::Null);
        Answer { status: parts.status, headers: parts.headers, text, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], Body::empty())).await
    }

    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.form_with(path, fields, &[]).await
    }

    pub async fn form_with(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend(headers);
        self.send(request(Method::POST, path, &all, Body::from(encode(fields)))).await
    }

    /// A form as it stands.
    pub async fn form_raw(&self, path: &str, body: &str) -> Answer {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.send(request(Method::POST, path, &form, Body::from(body.to_owned()))).await
    }

    pub fn v2(&self) -> String {
        format!("/{}/oauth2/v2.0/token", self.tenant)
    }

    pub fn v1(&self) -> String {
        format!("/{}/oauth2/token", self.tenant)
    }

    /// The outcomes of sign-ins in the audit log, newest first.
    pub async fn outcomes(&self, actor: &str) -> Vec<String> {
        let filter = vigie_identity::AuditFilter {
            actor: Some(actor.to_owned()),
            action: Some("signIn".to_owned()),
            ..Default::default()
        };
        let log = self.directory.audit_log(self.tenant, &filter).await.expect("read");
        log.into_iter().map(|entry| entry.outcome).collect()
    }
}

pub fn public_registration() -> Registration {
    Registration {
        allow_public_client: true,
        redirect_uris: RedirectUris {
            public_client: vec!["http://localhost".to_owned()],
            ..RedirectUris::default()
        },
        delegated_permissions: vec!["Alert.Read".to_owned(), "Machine.Read".to_owned()],
        ..Registration::default()
    }
}

pub fn web_registration() -> Registration {
    Registration {
        redirect_uris: RedirectUris { web: vec![REDIRECT.to_owned()], ..RedirectUris::default() },
        delegated_permissions: vec!["Alert.Read".to_owned(), "Machine.Read".to_owned()],
        ..Registration::default()
    }
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "login.tests.example:8443");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

pub fn encode(fields: &[(&str, &str)]) -> String {
    let mut serializer = url::form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(fields);
    serializer.finish()
}

/// The header or claims of a token.
pub fn part(token: &str, index: usize) -> Json {
    let part = token.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

pub fn claims(token: &str) -> Json {
    part(token, 1)
}

/// Fields of an address's query or fragment.
pub fn fields(address: &str) -> BTreeMap<String, String> {
    let at = address.find(['?', '#']).map_or(address.len(), |at| at + 1);
    url::form_urlencoded::parse(&address.as_bytes()[at..]).into_owned().collect()
}

/// Checks every field of a refusal.
pub fn refused(name: &str, answer: &Answer, status: u16, number: u64, code: &str) {
    let body = &answer.body;
    assert_eq!(answer.status, status, "{name}: {}", answer.text);
    assert_eq!(body["error"], code, "{name}: {body}");
    assert_eq!(body["error_codes"], serde_json::json!([number]), "{name}: {body}");
    let description = answer.text_of("error_description");
    assert!(description.starts_with(&format!("AADSTS{number}: ")), "{name}: {description}");
    for (label, field) in [
        ("Trace ID: ", "trace_id"),
        ("Correlation ID: ", "correlation_id"),
        ("Timestamp: ", "timestamp"),
    ] {
        let told = format!("{label}{}", answer.text_of(field));
        assert!(description.contains(&told), "{name}: {description}");
    }
    assert!(answer.text_of("error_uri").ends_with(&format!("?code={number}")), "{name}");
    assert_eq!(answer.header("x-ms-request-id"), answer.text_of("trace_id"), "{name}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8", "{name}");
    assert!(answer.header("cache-control").contains("no-store"), "{name}");
}

/// A browser: keeps cookies, shows pages, sends forms.
pub struct Browser<'a> {
    pub world: &'a World,
    pub cookies: BTreeMap<String, String>,
    pub page: Answer,
}

impl<'a> Browser<'a> {
    pub fn new(world: &'a World) -> Browser<'a> {
        let page = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            text: String::new(),
            body: Json::Null,
        };
        Browser { world, cookies: BTreeMap::new(), page }
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> &Answer {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        self.page = self.world.send(request(method, path, &headers, Body::from(body))).await;
        for set in self.page.headers.get_all(header::SET_COOKIE) {
            let set = set.to_str().expect("text");
            for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(set.contains(attribute), "{set}");
            }
            let (name, value) = set.split(';').next().and_then(|p| p.split_once('=')).expect("=");
            assert!(name.starts_with("__Host-"), "{set}");
            match set.contains("Max-Age=0") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        if self.page.header("content-type").starts_with("text/html") {
            check_page(&self.page);
        }
        &self.page
    }

    pub async fn open(&mut self, path: &str) -> &Answer {
        self.send(Method::GET, path, String::new()).await
    }

    /// Fills in the page's only form and presses a button, by its value where it has one.
    pub async fn submit(&mut self, filled: &[(&str, &str)]) -> &Answer {
        let (action, mut fields) = form_of(&self.page.text);
        for (name, value) in filled {
            fields.insert((*name).to_owned(), (*value).to_owned());
        }
        let pairs: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send(Method::POST, &action, encode(&pairs)).await
    }

    pub async fn sign_in(&mut self, name: &str) -> &Answer {
        let name = if name.contains('@') { name.to_owned() } else { format!("{name}@{DOMAIN}") };
        assert!(self.page.text.contains("name=\"passwd\""), "no sign-in page: {}", self.page.text);
        self.submit(&[("login", &name), ("passwd", PASSWORD)]).await
    }

    pub fn title(&self) -> &str {
        let text = &self.page.text;
        text.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).unwrap_or("no page")
    }
}

/// Address and prefilled fields of a page's only form.
pub fn form_of(html: &str) -> (String, BTreeMap<String, String>) {
    let form = html.split("<form").nth(1).unwrap_or_else(|| panic!("no form in {html}"));
    let form = form.split("</form>").next().expect("an end");
    let action = attribute(form, "action").expect("an address");
    let mut fields = BTreeMap::new();
    for input in form.split("<input").skip(1) {
        let input = input.split('>').next().expect("an end");
        if input.contains("type=\"checkbox\"") {
            continue;
        }
        if let Some(name) = attribute(input, "name") {
            fields.insert(name, attribute(input, "value").unwrap_or_default());
        }
    }
    (action, fields)
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
    Some(
        value
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&amp;", "&"),
    )
}

/// What every page must have.
fn check_page(page: &Answer) {
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action"] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert!(page.header("cache-control").contains("no-store"));
    assert!(page.text.contains("<html lang=\"en\">") && page.text.contains("viewport"));
    assert_eq!(page.text.matches("<h1>").count(), 1, "{}", page.text);
    assert!(page.text.matches("type=\"password\"").count() <= 1);
    for input in page.text.split("<input").skip(1) {
        let input = input.split('>').next().expect("an end");
        if input.contains("type=\"hidden\"") {
            continue;
        }
        let id = attribute(input, "id").expect("an id for its label");
        assert!(page.text.contains(&format!("for=\"{id}\"")), "{input} has no label");
    }
}

/// The code and the other members of an authorization that a user goes through.
pub async fn authorize(
    world: &World,
    app: &str,
    user: &str,
    more: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let mut browser = Browser::new(world);
    browser.open(&authorize_path(world, app, more)).await;
    browser.sign_in(user).await;
    if browser.page.text.contains("Permissions requested") {
        browser.submit(&[("decision", "accept")]).await;
    }
    fields(&browser.page.location())
}

pub fn authorize_path(world: &World, app: &str, more: &[(&str, &str)]) -> String {
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::from([
        ("client_id", app),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        (
            "scope",
            "https://api.securitycenter.microsoft.com/Machine.Read openid profile offline_access",
        ),
        ("state", "s t&a+te"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    for (name, value) in more {
        match value.is_empty() {
            true => pairs.remove(name),
            false => pairs.insert(name, value),
        };
    }
    let pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
    format!("/{}/oauth2/v2.0/authorize?{}", world.tenant, encode(&pairs))
}

/// Fields that redeem a code.
pub fn redemption<'a>(app: &'a str, secret: &'a str, code: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", app),
        ("client_secret", secret),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]
}

/// Checks every field of a refusal that came back to the client.
pub fn sent_back(name: &str, answer: &Answer, number: u64, code: &str) {
    let location = answer.location();
    assert!(location.starts_with(REDIRECT), "{name}: {location}");
    let back = fields(&location);
    assert_eq!(back["error"], code, "{name}: {back:?}");
    assert_eq!(back["state"], "s t&a+te", "{name}: {back:?}");
    assert!(!back.contains_key("code"), "{name}: {back:?}");
    described(name, &back["error_description"], number);
    assert!(back["error_uri"].ends_with(&format!("?code={number}")), "{name}: {back:?}");
}

/// Checks a refusal that is shown, since it can be sent nowhere.
pub fn on_page(name: &str, answer: &Answer, status: u16, number: u64) {
    assert_eq!(answer.status, status, "{name}: {}", answer.text);
    assert!(answer.header("location").is_empty(), "{name}");
    let text = &answer.text;
    assert!(text.contains(&format!("role=\"alert\">AADSTS{number}: ")), "{name}: {text}");
    for told in ["Request id: ", "Correlation id: ", "Timestamp: "] {
        assert!(text.contains(told), "{name}: {text}");
    }
    assert!(text.contains(answer.header("x-ms-request-id")), "{name}: {text}");
}

fn described(name: &str, description: &str, number: u64) {
    assert!(description.starts_with(&format!("AADSTS{number}: ")), "{name}: {description}");
    for label in ["Trace ID: ", "Correlation ID: ", "Timestamp: "] {
        assert!(description.contains(label), "{name}: {description}");
    }
}
