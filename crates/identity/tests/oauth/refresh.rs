//! Refresh tokens.

use crate::support::*;
use chrono::TimeDelta;
use vigie_contract::administration::UserChange;

const SCOPES: &str =
    "https://api.securitycenter.microsoft.com/.default openid profile offline_access";

/// A public client's refresh token.
async fn public(world: &World) -> (String, String) {
    let app = world.public().await;
    world.consent(&app, &["Alert.Read", "Machine.Read"]).await;
    let token = public_token(world, &app).await;
    (app, token)
}

async fn public_token(world: &World, app: &str) -> String {
    let more = [("redirect_uri", "http://localhost"), ("scope", SCOPES)];
    let code = authorize(world, app, "mira", &more).await["code"].clone();
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", app),
        ("code", code.as_str()),
        ("redirect_uri", "http://localhost"),
        ("code_verifier", VERIFIER),
    ];
    world.form(&world.v2(), &fields).await.text_of("refresh_token").to_owned()
}

async fn refresh(world: &World, app: &str, token: &str, more: &[(&str, &str)]) -> Answer {
    let mut fields =
        vec![("grant_type", "refresh_token"), ("client_id", app), ("refresh_token", token)];
    fields.extend(more);
    world.form(&world.v2(), &fields).await
}

// CHECKLIST 83, 86
#[tokio::test]
async fn a_refresh_token_is_opaque_and_narrows() {
    let world = World::start().await;
    let (app, token) = public(&world).await;
    assert_eq!(token.len(), 45, "256 bits behind a prefix");
    let stored = std::fs::read(world.folder.path().join("state.db-wal")).expect("read");
    assert!(!stored.windows(token.len()).any(|window| window == token.as_bytes()));
    let same = refresh(&world, &app, &token, &[]).await;
    assert_eq!(claims(same.text_of("access_token"))["scp"], "Alert.Read Machine.Read");
    assert!(same.body["id_token"].is_string(), "{}", same.text);
    let token = same.text_of("refresh_token").to_owned();
    let narrow = [("scope", "https://api.securitycenter.microsoft.com/Alert.Read")];
    let narrowed = refresh(&world, &app, &token, &narrow).await;
    assert_eq!(claims(narrowed.text_of("access_token"))["scp"], "Alert.Read");
    // Narrowed for once: the next may have the former scopes again.
    let token = narrowed.text_of("refresh_token").to_owned();
    let again = refresh(&world, &app, &token, &[]).await;
    assert_eq!(claims(again.text_of("access_token"))["scp"], "Alert.Read Machine.Read");
    let token = again.text_of("refresh_token").to_owned();
    let wide = [("scope", "https://api.securitycenter.microsoft.com/Machine.Isolate")];
    refused("widened", &refresh(&world, &app, &token, &wide).await, 400, 65001, "invalid_grant");
    // The older endpoint redeems it for another resource.
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", app.as_str()),
        ("refresh_token", token.as_str()),
        ("resource", "https://api.security.microsoft.com"),
    ];
    let answer = world.form(&world.v1(), &fields).await;
    assert_eq!(answer.body["resource"], "https://api.security.microsoft.com");
}

// CHECKLIST 84
#[tokio::test]
async fn a_spent_token_of_a_public_client_ends_its_family() {
    let world = World::start().await;
    let (app, first) = public(&world).await;
    let second = refresh(&world, &app, &first, &[]).await.text_of("refresh_token").to_owned();
    assert_ne!(first, second);
    // Libraries refresh in parallel.
    world.clock.advance(TimeDelta::seconds(10));
    assert_eq!(refresh(&world, &app, &first, &[]).await.status, 200);
    world.clock.advance(TimeDelta::seconds(60));
    refused("reused", &refresh(&world, &app, &first, &[]).await, 400, 70000, "invalid_grant");
    refused("its child", &refresh(&world, &app, &second, &[]).await, 400, 70000, "invalid_grant");
    assert!(world.outcomes("mira@tests.example").await.contains(&"70000".to_owned()));
    // Another sign-in of the same user is another family.
    let other = public_token(&world, &app).await;
    assert_eq!(refresh(&world, &app, &other, &[]).await.status, 200);
}

// CHECKLIST 85
#[tokio::test]
async fn confidential_clients_prove_themselves() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    let token = answer.text_of("refresh_token").to_owned();
    refused("no proof", &refresh(&world, &app, &token, &[]).await, 401, 7000218, "invalid_client");
    let proof = [("client_secret", secret.as_str())];
    for _ in 0..2 {
        assert_eq!(refresh(&world, &app, &token, &proof).await.status, 200);
        world.clock.advance(TimeDelta::minutes(5));
    }
    let (other, _) = public(&world).await;
    refused(
        "another client",
        &refresh(&world, &other, &token, &[]).await,
        400,
        70000,
        "invalid_grant",
    );
}

// CHECKLIST 87
#[tokio::test]
async fn refresh_tokens_end_for_told_reasons() {
    let world = World::start().await;
    let (app, token) = public(&world).await;
    refused("malformed", &refresh(&world, &app, "x", &[]).await, 400, 9002313, "invalid_grant");
    let unknown = format!("1.{}", CHALLENGE);
    refused("unknown", &refresh(&world, &app, &unknown, &[]).await, 400, 70000, "invalid_grant");
    let name = "mira@tests.example";
    let change = UserChange { password: Some("another password".to_owned()), ..Default::default() };
    world.directory.change_user("tests", world.tenant, name, &change).await.expect("changed");
    refused("password", &refresh(&world, &app, &token, &[]).await, 400, 50173, "invalid_grant");
    let change = UserChange { password: Some(PASSWORD.to_owned()), ..Default::default() };
    world.directory.change_user("tests", world.tenant, name, &change).await.expect("changed");
    world.clock.advance(TimeDelta::seconds(2));
    let token = public_token(&world, &app).await;
    world.clock.advance(TimeDelta::days(89));
    let token = refresh(&world, &app, &token, &[]).await.text_of("refresh_token").to_owned();
    world.clock.advance(TimeDelta::days(89));
    let token = refresh(&world, &app, &token, &[]).await.text_of("refresh_token").to_owned();
    world.clock.advance(TimeDelta::days(91));
    refused("unused", &refresh(&world, &app, &token, &[]).await, 400, 700082, "invalid_grant");
}
