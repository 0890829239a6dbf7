//! Names and passwords, second factors, locks.

use crate::support::*;
use chrono::TimeDelta;
use vigie_contract::administration::UserChange;

const SCOPES: &str =
    "https://api.securitycenter.microsoft.com/Machine.Read openid profile offline_access";

async fn ready(world: &World) -> String {
    world.settings(|settings| settings.allow_password_grant = true).await;
    let app = world.public().await;
    world.consent(&app, &["Machine.Read"]).await;
    app
}

async fn grant(world: &World, app: &str, name: &str, password: &str) -> Answer {
    let fields = [
        ("grant_type", "password"),
        ("client_id", app),
        ("username", name),
        ("password", password),
        ("scope", SCOPES),
    ];
    world.form(&world.v2(), &fields).await
}

async fn change(world: &World, change: UserChange) {
    let name = "mira@tests.example";
    world.directory.change_user("tests", world.tenant, name, &change).await.expect("changed");
    world.clock.advance(TimeDelta::seconds(2));
}

// CHECKLIST 94
#[tokio::test]
async fn the_password_grant_is_off_until_a_tenant_wants_it() {
    let world = World::start().await;
    let app = world.public().await;
    world.consent(&app, &["Machine.Read"]).await;
    let answer = grant(&world, &app, "mira@tests.example", PASSWORD).await;
    refused("off", &answer, 400, 70003, "unsupported_grant_type");
    let app = ready(&world).await;
    let answer = grant(&world, &app, "Mira@Tests.example", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(claims(answer.text_of("access_token"))["amr"], serde_json::json!(["pwd"]));
    assert!(answer.body["refresh_token"].is_string() && answer.body["id_token"].is_string());
    let v1 = [
        ("grant_type", "password"),
        ("client_id", app.as_str()),
        ("username", "mira@tests.example"),
        ("password", PASSWORD),
        ("resource", DEFENDER),
        ("scope", "openid"),
        ("response_type", "token"),
    ];
    let answer = world.form(&world.v1(), &v1).await;
    assert_eq!(answer.body["resource"], DEFENDER, "{}", answer.text);
    assert_eq!(claims(answer.text_of("access_token"))["scp"], "Machine.Read");
    // The tenant of the name, where the path names none.
    let answer = world.form("/organizations/oauth2/token", &v1).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = world.form("/common/oauth2/token", &v1).await;
    refused("common", &answer, 400, 9001023, "invalid_request");
}

// CHECKLIST 95
#[tokio::test]
async fn a_missing_user_is_like_a_wrong_password() {
    let world = World::start().await;
    let app = ready(&world).await;
    let strip = |answer: &Answer| {
        let mut body = answer.body.clone();
        for name in ["trace_id", "correlation_id", "timestamp", "error_description"] {
            body[name] = serde_json::Value::Null;
        }
        body
    };
    let wrong = grant(&world, &app, "mira@tests.example", "wrong password").await;
    refused("wrong", &wrong, 400, 50126, "invalid_grant");
    for name in ["nobody@tests.example", "nobody@elsewhere.example", "nobody"] {
        let missing = grant(&world, &app, name, "wrong password").await;
        assert_eq!(strip(&missing), strip(&wrong), "{name}");
    }
    // The sign-in page tells no more.
    let mut texts = Vec::new();
    for name in ["mira@tests.example", "nobody@tests.example"] {
        let mut browser = Browser::new(&world);
        browser.open(&authorize_path(&world, &app, &[("redirect_uri", "http://localhost")])).await;
        browser.submit(&[("login", name), ("passwd", "wrong password")]).await;
        let text = browser.page.text.replace(name, "");
        texts.push(text.split("<p class=\"error\"").nth(1).expect("an alert").to_owned());
    }
    assert_eq!(texts[0], texts[1]);
    world
        .settings(|settings| {
            settings.allow_password_grant = true;
            settings.disclose_missing_users = true;
        })
        .await;
    let missing = grant(&world, &app, "nobody@tests.example", "wrong password").await;
    refused("told", &missing, 400, 50034, "invalid_grant");
}

// CHECKLIST 96
#[tokio::test]
async fn an_account_locks_for_a_while_but_not_for_who_is_known_there() {
    let mut world = World::start().await;
    let app = ready(&world).await;
    let name = "mira@tests.example";
    // The right holder has signed in from here.
    assert_eq!(grant(&world, &app, name, PASSWORD).await.status, 200);
    let home = world.address;
    world.address = "203.0.113.66".parse().expect("an address");
    for _ in 0..10 {
        let wrong = grant(&world, &app, name, "wrong password").await;
        refused("wrong", &wrong, 400, 50126, "invalid_grant");
    }
    let locked = grant(&world, &app, name, PASSWORD).await;
    refused("locked, whatever the password", &locked, 400, 50053, "invalid_grant");
    world.address = "203.0.113.67".parse().expect("an address");
    let locked = grant(&world, &app, name, PASSWORD).await;
    refused("locked for strangers elsewhere", &locked, 400, 50053, "invalid_grant");
    let stranger = world.address;
    world.address = home;
    assert_eq!(grant(&world, &app, name, PASSWORD).await.status, 200, "but not at home");
    world.address = stranger;
    world.clock.advance(TimeDelta::seconds(61));
    refused("once more", &grant(&world, &app, name, "wrong").await, 400, 50126, "invalid_grant");
    world.clock.advance(TimeDelta::seconds(61));
    let longer = grant(&world, &app, name, PASSWORD).await;
    refused("longer", &longer, 400, 50053, "invalid_grant");
    world.clock.advance(TimeDelta::seconds(61));
    assert_eq!(grant(&world, &app, name, PASSWORD).await.status, 200, "never for good");
    // A user that does not exist locks in the same way.
    for _ in 0..10 {
        grant(&world, &app, "nobody@tests.example", "wrong password").await;
    }
    let locked = grant(&world, &app, "nobody@tests.example", "wrong password").await;
    refused("nobody", &locked, 400, 50053, "invalid_grant");
}

// CHECKLIST 97
#[tokio::test]
async fn states_of_users_are_told_to_who_knows_the_password() {
    let world = World::start().await;
    let app = ready(&world).await;
    let name = "mira@tests.example";
    let on = Some(true);
    change(&world, UserChange { enabled: Some(false), ..UserChange::default() }).await;
    refused("disabled", &grant(&world, &app, name, PASSWORD).await, 400, 50057, "invalid_grant");
    refused("not told", &grant(&world, &app, name, "wrong").await, 400, 50126, "invalid_grant");
    change(&world, UserChange { enabled: on, password_expired: on, ..UserChange::default() }).await;
    refused("expired", &grant(&world, &app, name, PASSWORD).await, 400, 50055, "invalid_grant");
    let blocked =
        UserChange { password_expired: Some(false), blocked: on, ..UserChange::default() };
    change(&world, blocked).await;
    let answer = grant(&world, &app, name, PASSWORD).await;
    refused("blocked", &answer, 400, 53003, "invalid_grant");
    assert!(answer.text_of("claims").starts_with('{'));
    change(&world, UserChange { blocked: Some(false), ..UserChange::default() }).await;
    world.directory.set_totp("tests", world.tenant, name).await.expect("set");
    let answer = grant(&world, &app, name, PASSWORD).await;
    refused("second factor", &answer, 400, 50076, "invalid_grant");
    assert_eq!(answer.body["suberror"], "basic_action");
    world.directory.remove_totp("tests", world.tenant, name).await.expect("removed");
    assert_eq!(grant(&world, &app, name, PASSWORD).await.status, 200);
}

/// RFC 6238, as an authenticator application computes it.
fn totp(secret: &str, seconds: i64) -> String {
    use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut buffer, mut bytes) = (0, 0u32, Vec::new());
    for c in secret.chars() {
        buffer = buffer << 5 | alphabet.find(c).expect("base32") as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    let tag = sign(&key, &(seconds / 30).to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 15);
    let number = u32::from_be_bytes(tag[at..at + 4].try_into().expect("four")) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_told() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let issued = world.directory.set_totp("tests", world.tenant, "mira@tests.example").await;
    let issued = issued.expect("set");
    assert!(issued.uri.starts_with("otpauth://totp/"));
    let mut browser = Browser::new(&world);
    browser.open(&authorize_path(&world, &app, &[])).await;
    browser.sign_in("mira").await;
    assert_eq!(browser.title(), "Enter code");
    assert!(!browser.cookies.contains_key("__Host-vigie-session"), "half is not signed in");
    browser.submit(&[("otc", "000000")]).await;
    assert!(browser.page.text.contains("didn't work"), "{}", browser.page.text);
    let code = totp(&issued.secret, world.clock.now().timestamp());
    let back = fields(&browser.submit(&[("otc", &code)]).await.location());
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &back["code"])).await;
    let told = claims(answer.text_of("access_token"));
    assert_eq!(told["amr"], serde_json::json!(["pwd", "mfa"]));
    // The same code does not work a second time.
    let mut other = Browser::new(&world);
    other.open(&authorize_path(&world, &app, &[])).await;
    other.sign_in("mira").await;
    other.submit(&[("otc", &code)]).await;
    assert_eq!(other.title(), "Enter code");
    for _ in 0..8 {
        other.submit(&[("otc", "000000")]).await;
    }
    let answer = other.submit(&[("otc", "000000")]).await;
    assert!(answer.text.contains("AADSTS50053"), "{}", answer.text);
}

// CHECKLIST 98
#[tokio::test]
async fn passwords_are_stored_slowly_hashed_and_hashed_anew_when_parameters_change() {
    let world = World::start().await;
    let app = ready(&world).await;
    let path = world.folder.path().join("state.db");
    let database = vigie_database::Database::open_file(&path).await.expect("opened");
    let read = async || {
        let select = "SELECT password FROM users WHERE user_principal_name = $1";
        let rows = database.read(select, &["mira@tests.example".into()]).await.expect("read");
        rows[0].text(0).expect("a text").to_owned()
    };
    assert!(read().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    // A hash of earlier parameters.
    use argon2::PasswordHasher as _;
    let weak = argon2::Params::new(1024, 1, 1, None).expect("parameters");
    let weak = argon2::Argon2::from(weak).hash_password(PASSWORD.as_bytes()).expect("hashed");
    let set = "UPDATE users SET password = $1 WHERE user_principal_name = $2";
    let values = [weak.to_string().into(), "mira@tests.example".into()];
    database.execute(set, &values).await.expect("set");
    assert_eq!(grant(&world, &app, "mira@tests.example", PASSWORD).await.status, 200);
    assert!(read().await.contains("m=19456,t=2"), "{}", read().await);
    assert_eq!(grant(&world, &app, "mira@tests.example", PASSWORD).await.status, 200);
}
