//! Device codes.

use crate::support::*;
use chrono::TimeDelta;
use vigie_contract::administration::Registration;

const SCOPES: &str =
    "https://api.securitycenter.microsoft.com/Machine.Read openid profile offline_access";

async fn start(world: &World, app: &str) -> Answer {
    let path = format!("/{}/oauth2/v2.0/devicecode", world.tenant);
    world.form(&path, &[("client_id", app), ("scope", SCOPES)]).await
}

async fn poll(world: &World, app: &str, code: &str) -> Answer {
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", app),
        ("device_code", code),
    ];
    world.form(&world.v2(), &fields).await
}

async fn ready(world: &World) -> String {
    let app = world.public().await;
    world.consent(&app, &["Machine.Read"]).await;
    app
}

// CHECKLIST 88, 89, 92
#[tokio::test]
async fn a_user_signs_a_device_in() {
    let mut world = World::start().await;
    let app = world.public().await;
    let started = start(&world, &app).await;
    assert_eq!(started.status, 200, "{}", started.text);
    assert_eq!(started.body["verification_uri"], started.body["verification_url"]);
    assert_eq!((&started.body["expires_in"], &started.body["interval"]), (&900.into(), &5.into()));
    let (device, user_code) = (started.text_of("device_code"), started.text_of("user_code"));
    assert_eq!(device.len(), 45, "256 bits behind a prefix");
    assert!(started.text_of("message").contains(user_code));
    assert!(started.text_of("message").contains(started.text_of("verification_uri")));
    assert_eq!(user_code.len(), 9);
    assert!(!user_code.contains(['A', 'E', 'I', 'O', 'U', '0', '1', 'S', '5']), "{user_code}");
    world.address = "198.51.100.7".parse().expect("an address");
    let mut browser = Browser::new(&world);
    let page = started.text_of("verification_uri").strip_prefix(BASE).expect("here").to_owned();
    browser.open(&page).await;
    browser.submit(&[("otc", "BBBBBBBBB")]).await;
    assert!(browser.page.text.contains("didn&#39;t work"), "{}", browser.page.text);
    // Without regard to case and blanks.
    let typed = format!(" {} {}", user_code[..4].to_lowercase(), &user_code[4..]);
    browser.submit(&[("otc", &typed)]).await;
    assert_eq!(browser.title(), "Sign in", "a code alone signs nobody in");
    browser.sign_in("mira").await;
    assert_eq!(browser.title(), "Permissions requested");
    browser.submit(&[("decision", "accept")]).await;
    assert_eq!(browser.title(), "Sign in on another device");
    for told in ["Client &lt;of&gt; tests", "192.0.2.10", "mira@tests.example"] {
        assert!(browser.page.text.contains(told), "{told}: {}", browser.page.text);
    }
    refused("not yet", &poll(&world, &app, device).await, 400, 70016, "authorization_pending");
    browser.submit(&[("decision", "continue")]).await;
    assert_eq!(browser.title(), "Signed in");
    let answer = poll(&world, &app, device).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(claims(answer.text_of("access_token"))["scp"], "Machine.Read");
    assert_eq!(claims(answer.text_of("id_token"))["preferred_username"], "mira@tests.example");
    assert!(answer.body["refresh_token"].is_string());
    refused("again", &poll(&world, &app, device).await, 400, 70018, "bad_verification_code");
}

// CHECKLIST 90
#[tokio::test]
async fn polls_are_read_in_every_form() {
    let world = World::start().await;
    let app = ready(&world).await;
    let v1 = format!("/{}/oauth2/devicecode", world.tenant);
    let started = world.form(&v1, &[("client_id", &app), ("resource", DEFENDER)]).await;
    assert!(started.body["expires_in"].is_string(), "{}", started.text);
    let code = started.text_of("device_code");
    let urn = "urn:ietf:params:oauth:grant-type:device_code";
    for (grant, names) in [
        (urn, vec!["device_code"]),
        (urn, vec!["code"]),
        ("device_code", vec!["code"]),
        ("device_code", vec!["code", "device_code"]),
    ] {
        for path in [world.v1(), world.v2()] {
            world.clock.advance(TimeDelta::seconds(6));
            let mut fields = vec![("grant_type", grant), ("client_id", app.as_str())];
            fields.extend(names.iter().map(|name| (*name, code)));
            let answer = world.form(&path, &fields).await;
            refused(grant, &answer, 400, 70016, "authorization_pending");
        }
    }
}

// CHECKLIST 91
#[tokio::test]
async fn polls_are_told_what_is_wrong() {
    let world = World::start().await;
    let app = ready(&world).await;
    let started = start(&world, &app).await;
    let code = started.text_of("device_code");
    refused("first", &poll(&world, &app, code).await, 400, 70016, "authorization_pending");
    world.clock.advance(TimeDelta::seconds(2));
    refused("too fast", &poll(&world, &app, code).await, 400, 70016, "slow_down");
    // Five seconds more from now on.
    world.clock.advance(TimeDelta::seconds(6));
    refused("still too fast", &poll(&world, &app, code).await, 400, 70016, "slow_down");
    world.clock.advance(TimeDelta::seconds(16));
    refused("patient", &poll(&world, &app, code).await, 400, 70016, "authorization_pending");
    refused("wrong", &poll(&world, &app, "nonsense").await, 400, 70018, "bad_verification_code");
    let other = ready(&world).await;
    refused("another's", &poll(&world, &other, code).await, 400, 70018, "bad_verification_code");
    let mut browser = Browser::new(&world);
    browser.open("/common/oauth2/deviceauth").await;
    browser.submit(&[("otc", started.text_of("user_code"))]).await;
    browser.sign_in("mira").await;
    browser.submit(&[("decision", "cancel")]).await;
    assert_eq!(browser.title(), "Sign-in cancelled");
    refused("declined", &poll(&world, &app, code).await, 400, 70017, "authorization_declined");
    let started = start(&world, &app).await;
    world.clock.advance(TimeDelta::minutes(16));
    let late = poll(&world, &app, started.text_of("device_code")).await;
    refused("expired", &late, 400, 70020, "expired_token");
    browser.open("/common/oauth2/deviceauth").await;
    browser.submit(&[("otc", started.text_of("user_code"))]).await;
    assert_eq!(browser.title(), "Enter code", "an expired code is none");
}

// CHECKLIST 89
#[tokio::test]
async fn guessing_user_codes_is_slowed_down() {
    let world = World::start().await;
    let mut browser = Browser::new(&world);
    browser.open("/common/oauth2/deviceauth").await;
    let mut slowed = false;
    for _ in 0..30 {
        let answer = browser.submit(&[("otc", "BCDFHJKLM")]).await;
        if answer.status == 429 {
            assert!(!answer.header("retry-after").is_empty());
            slowed = true;
            break;
        }
    }
    assert!(slowed);
}

// CHECKLIST 93
#[tokio::test]
async fn only_public_clients_use_devices_and_passwords() {
    let world = World::start().await;
    world.settings(|settings| settings.allow_password_grant = true).await;
    let app = world.application(&[], Registration::default()).await;
    refused("device", &start(&world, &app).await, 401, 7000218, "invalid_client");
    let fields = [
        ("grant_type", "password"),
        ("client_id", app.as_str()),
        ("username", "mira@tests.example"),
        ("password", PASSWORD),
        ("scope", SCOPES),
    ];
    refused("password", &world.form(&world.v2(), &fields).await, 401, 7000218, "invalid_client");
}
