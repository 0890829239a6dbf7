//! Errors that come back to the client, or are shown, with number, OAuth code, status and fields; and
//! that each number of the table and of the program is provoked by some test.

use crate::support::*;
use chrono::TimeDelta;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;
use vigie_contract::administration::*;

/// The numbers of the project's table that can occur here, one a line.
const TABLE: &str = include_str!("errors.txt");

async fn web(world: &World) -> String {
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    app
}

// CHECKLIST 47, 99
#[tokio::test]
async fn what_is_wrong_with_a_request_comes_back_with_number_code_and_fields() {
    let world = World::start().await;
    let app = web(&world).await;
    let long = "n".repeat(5000);
    let two = format!("{DEFENDER}/Machine.Read https://graph.microsoft.com/User.Read");
    for (name, more, number, code) in [
        ("type", [("response_type", "pigeon")], 70005, "unsupported_response_type"),
        ("token", [("response_type", "token")], 700051, "unsupported_response_type"),
        ("id token", [("response_type", "id_token")], 700054, "unsupported_response_type"),
        ("mode", [("response_mode", "pigeon")], 70007, "invalid_request"),
        ("scope", [("scope", "Everything.Please")], 70011, "invalid_scope"),
        ("no scope", [("scope", "")], 900144, "invalid_request"),
        ("two resources", [("scope", &two)], 28000, "invalid_request"),
        ("challenge", [("code_challenge", "short")], 501491, "invalid_request"),
        ("method", [("code_challenge_method", "plain")], 9002313, "invalid_request"),
        ("prompt", [("prompt", "none login")], 9002313, "invalid_request"),
        ("nonce", [("nonce", &long)], 9002313, "invalid_request"),
        ("claims", [("claims", "{")], 9002313, "invalid_request"),
        ("max_age", [("max_age", "soon")], 9002313, "invalid_request"),
        ("request", [("request", "a.b.c")], 90025, "request_not_supported"),
        ("silent", [("prompt", "none")], 50058, "login_required"),
    ] {
        let answer = world.get(&authorize_path(&world, &app, &more)).await;
        sent_back(name, &answer, number, code);
    }
}

// CHECKLIST 47, 58, 65, 66, 99
#[tokio::test]
async fn what_stands_against_a_user_comes_back_with_number_code_and_fields() {
    let world = World::start().await;
    let app = web(&world).await;
    let alerts = format!("{DEFENDER}/Alert.Read");
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[("scope", &alerts)])).await;
    browser.sign_in("mira").await;
    let answer = browser.submit(&[("decision", "cancel")]).await;
    sent_back("declined", answer, 65004, "access_denied");
    let silent = ("prompt", "none");
    let path = authorize_path(&world, &app, &[("scope", &alerts), silent]);
    sent_back("no consent", browser.open(&path).await, 65001, "consent_required");
    let path = authorize_path(&world, &app, &[("login_hint", "root@tests.example"), silent]);
    sent_back("another account", browser.open(&path).await, 16000, "interaction_required");
    // An administrator's matter: the page says so, and leads back.
    let isolate = format!("{DEFENDER}/Machine.Isolate");
    browser.open(&authorize_path(&world, &app, &[("scope", &isolate)])).await;
    assert_eq!(browser.title(), "Need admin approval");
    assert!(browser.page.text.contains("AADSTS90094: "), "{}", browser.page.text);
    let link = browser.page.text.split("<a href=\"").nth(1).and_then(|rest| rest.split('"').next());
    let back = fields(&link.expect("a way back").replace("&amp;", "&"));
    assert_eq!((back["error"].as_str(), back["state"].as_str()), ("consent_required", "s t&a+te"));
    let id = Uuid::try_parse(&app).expect("an id");
    let change = ServicePrincipalChange {
        assignment_required: Some(true),
        assigned_users: Some(Vec::new()),
        ..ServicePrincipalChange::default()
    };
    let set = world.directory.change_service_principal("tests", world.tenant, id, &change).await;
    set.expect("changed");
    let answer = browser.open(&authorize_path(&world, &app, &[])).await;
    sent_back("not assigned", answer, 50105, "access_denied");
    let disabled = UserChange { enabled: Some(false), ..UserChange::default() };
    let set = world.directory.change_user("tests", world.tenant, "mira@tests.example", &disabled);
    set.await.expect("changed");
    browser.open(&authorize_path(&world, &app, &[])).await;
    assert_eq!(browser.title(), "Sign in", "who is disabled has no session");
}

// CHECKLIST 47, 99, 102
#[tokio::test]
async fn what_can_be_sent_nowhere_is_shown_with_its_number() {
    let world = World::start().await;
    let app = web(&world).await;
    let nobody = Uuid::new_v4().to_string();
    let path = |app: &str, more: &[(&str, &str)]| authorize_path(&world, app, more);
    let elsewhere = [("redirect_uri", "https://elsewhere.example/")];
    for (name, path, status, number) in [
        ("address", path(&app, &elsewhere), 400, 50011),
        ("application", path(&nobody, &[]), 400, 700016),
        ("no application", path("", &[]), 400, 900144),
        ("tenant", path(&app, &[]).replace(&world.tenant.to_string(), &nobody), 400, 90002),
        ("no address", format!("/{}/adminconsent?client_id={app}", world.tenant), 400, 90014),
        ("reloaded", format!("/{}/login", world.tenant), 400, 9002313),
    ] {
        on_page(name, &world.get(&path).await, status, number);
    }
    let id = Uuid::try_parse(&app).expect("an id");
    let off = Registration { enabled: false, ..web_registration() };
    world.directory.set_registration("tests", world.tenant, id, &off).await.expect("set");
    on_page("disabled", &world.get(&path(&app, &[])).await, 400, 7000112);
    // A page that lies open too long, or that another browser sends.
    let app = web(&world).await;
    let mut browser = Browser::new(&world);
    browser.open(&path(&app, &[])).await;
    let kept = std::mem::take(&mut browser.cookies);
    let (action, fields) = form_of(&browser.page.text);
    let pairs: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    on_page("another browser", &world.form(&action, &pairs).await, 400, 90019);
    browser.cookies = kept;
    world.clock.advance(TimeDelta::hours(1));
    let late = browser.submit(&[("login", "mira@tests.example"), ("passwd", PASSWORD)]).await;
    on_page("too late", late, 400, 90019);
}

#[tokio::test]
async fn a_user_of_another_tenant_and_a_wrong_second_factor_are_told() {
    let world = World::start().await;
    world.second_tenant().await;
    let mut registration = web_registration();
    registration.multi_tenant = false;
    let app = world.application(&[], registration).await;
    // The application's own tenant alone: a customer's user finds it nowhere.
    let path = authorize_path(&world, &app, &[]);
    let path = path.replace(&world.tenant.to_string(), "common");
    let mut browser = Browser::new(&world);
    browser.open(&path).await;
    let answer = browser.sign_in("chief@customer.example").await;
    sent_back("another tenant", answer, 700016, "unauthorized_client");
    let added = world.directory.set_totp("tests", world.tenant, "mira@tests.example").await;
    added.expect("added");
    world.clock.advance(TimeDelta::seconds(2));
    let app = web(&world).await;
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[])).await;
    browser.sign_in("mira").await;
    assert_eq!(browser.title(), "Enter code");
    browser.submit(&[("otc", "000000")]).await;
    assert_eq!(browser.title(), "Enter code");
    assert_eq!(world.outcomes("mira@tests.example").await[0], "50074");
    let silent = [("prompt", "none")];
    let answer = browser.open(&authorize_path(&world, &app, &silent)).await;
    sent_back("half signed in", answer, 50058, "login_required");
}

/// A user that moves between tenants, id and all, takes no grant of the former one along.
#[tokio::test]
async fn a_grant_of_a_user_that_moved_to_another_tenant_is_refused() {
    let world = World::start().await;
    let customer = world.second_tenant().await;
    let app = world.public().await;
    world.consent(&app, &["Machine.Read"]).await;
    let path = format!("/{}/oauth2/v2.0/devicecode", world.tenant);
    let scope = format!("{DEFENDER}/Machine.Read");
    let started = world.form(&path, &[("client_id", &app), ("scope", &scope)]).await;
    let mut browser = Browser::new(&world);
    browser.open("/common/oauth2/deviceauth").await;
    browser.submit(&[("otc", started.text_of("user_code"))]).await;
    browser.sign_in("mira").await;
    browser.submit(&[("decision", "continue")]).await;
    assert_eq!(browser.title(), "Signed in");
    let name = "mira@tests.example";
    let id = world.directory.user(world.tenant, name).await.expect("found").id;
    world.directory.delete_user("tests", world.tenant, name).await.expect("deleted");
    let moved = NewUser {
        id: Some(id),
        user_principal_name: "mira@customer.example".to_owned(),
        password: PASSWORD.to_owned(),
        ..NewUser::default()
    };
    world.directory.create_user("tests", customer, &moved).await.expect("made");
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", app.as_str()),
        ("device_code", started.text_of("device_code")),
    ];
    refused("moved", &world.form(&world.v2(), &fields).await, 400, 50020, "access_denied");
}

/// An application that declares no permission of what it asks all of.
#[tokio::test]
async fn who_asks_for_all_and_declares_nothing_is_told() {
    let world = World::start().await;
    let registration = Registration { delegated_permissions: Vec::new(), ..web_registration() };
    let app = world.application(&[], registration).await;
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[("scope", SCOPE)])).await;
    let answer = browser.sign_in("mira").await;
    sent_back("nothing declared", answer, 650056, "unauthorized_client");
}

/// The lines of a file that are no comments, without separators in numbers.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("read");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let lines: Vec<&str> = lines.filter_map(|line| line.split(" // ").next()).collect();
    lines.join("\n").replace('_', "")
}

fn code_in(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.map(|path| code_of(&path)).collect::<Vec<_>>().join("\n")
}

/// Looks into the program and the tests themselves: a number that stands in no test is provoked by
/// none.
#[test]
fn every_number_is_provoked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = code_in(&root.join("src")) + &code_in(&root.join("src/sign_in"));
    // The first argument of whatever makes an error, where it is a number.
    let made = program.split("SignInError::").skip(1).filter_map(|rest| {
        let (name, arguments) = rest.split_once('(')?;
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric());
        arguments.trim_start().split(|c: char| !c.is_ascii_digit()).next().filter(|_| is_name)
    });
    let made: BTreeSet<&str> = made.filter(|number| number.len() >= 5).collect();
    assert!(made.len() > 50, "{made:?}");
    let tests = code_in(&root.join("tests/oauth"));
    let provoked: BTreeSet<&str> = tests.split(|c: char| !c.is_ascii_digit()).collect();
    let all = TABLE.split_whitespace().chain(made);
    let missing: Vec<&str> = all.filter(|number| !provoked.contains(number)).collect();
    assert!(missing.is_empty(), "no test provokes {missing:?}");
}
