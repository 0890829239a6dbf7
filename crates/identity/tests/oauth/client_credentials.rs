//! The client credentials grant.

use crate::support::*;
use serde_json::json;
use vigie_contract::administration::Registration;

async fn v2(world: &World, app: &str, secret: &str, more: &[(&str, &str)]) -> Answer {
    let mut fields =
        vec![("grant_type", "client_credentials"), ("client_id", app), ("client_secret", secret)];
    fields.extend(more);
    world.form(&world.v2(), &fields).await
}

async fn v1(world: &World, app: &str, secret: &str, more: &[(&str, &str)]) -> Answer {
    let mut fields =
        vec![("grant_type", "client_credentials"), ("client_id", app), ("client_secret", secret)];
    fields.extend(more);
    world.form(&world.v1(), &fields).await
}

// CHECKLIST 36, 38, 41
#[tokio::test]
async fn the_scope_is_one_resource_with_default() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let two = format!("{SCOPE} https://graph.microsoft.com/.default");
    for (scope, number, code) in [
        ("", 900144, "invalid_request"),
        ("https://api.securitycenter.microsoft.com/Machine.Read", 1002012, "invalid_scope"),
        ("openid", 1002012, "invalid_scope"),
        (two.as_str(), 1002012, "invalid_scope"),
        ("https://other.example/.default", 500011, "invalid_resource"),
    ] {
        let answer = v2(&world, &app, &secret, &[("scope", scope)]).await;
        refused(scope, &answer, 400, number, code);
    }
    let answer = v2(&world, &app, &secret, &[("scope", SCOPE), ("resource", DEFENDER)]).await;
    refused("resource on v2", &answer, 400, 901002, "invalid_request");
    let answer = v1(&world, &app, &secret, &[("resource", "https://other.example")]).await;
    refused("unknown", &answer, 400, 500011, "invalid_resource");
    let answer = v1(&world, &app, &secret, &[("resource", DEFENDER), ("scope", "x y z")]).await;
    assert_eq!(answer.status, 200, "scope is ignored on v1: {}", answer.text);
}

// CHECKLIST 37
#[tokio::test]
async fn v1_names_a_resource_or_gets_the_directory() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    for resource in [DEFENDER.to_owned(), format!("{DEFENDER}/")] {
        let answer = v1(&world, &app, &secret, &[("resource", &resource)]).await;
        let claims = claims(answer.text_of("access_token"));
        assert_eq!(claims["aud"], resource);
        assert_eq!(claims["roles"], json!(["Machine.Read.All"]));
    }
    let answer = v1(&world, &app, &secret, &[]).await;
    let claims = claims(answer.text_of("access_token"));
    assert_eq!(claims["aud"], "00000002-0000-0000-c000-000000000000");
    assert!(claims.get("roles").is_none(), "{claims}");
}

// CHECKLIST 39, 40
#[tokio::test]
async fn the_resource_answers_to_all_its_names() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    for name in [
        "https://api.securitycenter.microsoft.com",
        "https://api.securitycenter.windows.com",
        "https://api.security.microsoft.com",
        "https://securitycenter.onmicrosoft.com/windowsatpservice",
        "fc780465-2017-40d4-a0c5-307022471b92",
        BASE,
        "https://other.tests.example",
        "login.tests.example:8443",
        "other.tests.example",
        // A double slash before `.default`: the identifier ends in one.
        "https://api.securitycenter.microsoft.com/",
    ] {
        let answer = v2(&world, &app, &secret, &[("scope", &format!("{name}/.default"))]).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        let token = answer.text_of("access_token");
        assert_eq!(claims(token)["aud"], name);
        let caller = world.directory.verify(token, vigie_identity::Resource::Defender);
        assert_eq!(caller.expect("accepted").roles, ["Machine.Read.All"]);
    }
}

// CHECKLIST 42, 43
#[tokio::test]
async fn roles_are_those_granted_and_nothing_else_is_issued() {
    let world = World::start().await;
    let granted = ["Alert.Read.All", "Machine.Isolate"];
    let app = world.application(&granted, Registration::default()).await;
    let secret = world.secret(&app).await;
    let more = [("scope", SCOPE), ("client_info", "1")];
    let answer = v2(&world, &app, &secret, &more).await;
    assert_eq!(claims(answer.text_of("access_token"))["roles"], json!(granted));
    for name in ["refresh_token", "id_token", "client_info", "scope"] {
        assert!(answer.body.get(name).is_none(), "{name}: {}", answer.text);
    }
    assert_eq!(world.outcomes(&app).await, ["success"], "it is in the audit log");
    let none = world.application(&[], Registration::default()).await;
    let secret = world.secret(&none).await;
    let answer = v2(&world, &none, &secret, &more).await;
    assert!(claims(answer.text_of("access_token")).get("roles").is_none());
}

// CHECKLIST 44
#[tokio::test]
async fn an_application_names_its_tenant() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", SCOPE),
    ];
    for tenant in ["common", "organizations", "Consumers"] {
        let answer = world.form(&format!("/{tenant}/oauth2/v2.0/token"), &fields).await;
        refused(tenant, &answer, 400, 50059, "invalid_request");
    }
}

// CHECKLIST 70, 71
#[tokio::test]
async fn both_endpoints_answer_with_their_own_types() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let answer = v2(&world, &app, &secret, &[("scope", SCOPE)]).await;
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 3599);
    assert_eq!(answer.body["ext_expires_in"], 3599);
    assert!(answer.body.get("foci").is_none() && answer.body.get("resource").is_none());
    let answer = v1(&world, &app, &secret, &[("resource", DEFENDER)]).await;
    let claims = claims(answer.text_of("access_token"));
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], "3599");
    assert_eq!(answer.body["ext_expires_in"], "3599");
    assert_eq!(answer.body["expires_on"], claims["exp"].to_string());
    assert_eq!(answer.body["not_before"], claims["nbf"].to_string());
    assert_eq!(answer.body["resource"], DEFENDER);
}

// CHECKLIST 73, 74, 79, 80
#[tokio::test]
async fn application_tokens_are_of_version_1_from_both_endpoints() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let tenant = world.tenant.to_string();
    let mut ids = std::collections::BTreeSet::new();
    for answer in [
        v2(&world, &app, &secret, &[("scope", SCOPE)]).await,
        v1(&world, &app, &secret, &[("resource", DEFENDER)]).await,
    ] {
        let token = answer.text_of("access_token");
        let (header, claims) = (part(token, 0), claims(token));
        assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!("RS256")));
        assert_eq!(header["kid"], header["x5t"]);
        let issuer = format!("https://sts.windows.net/{tenant}/");
        for (claim, value) in [
            ("aud", json!(DEFENDER)),
            ("iss", json!(issuer)),
            ("idp", json!(issuer)),
            ("appid", json!(app)),
            ("appidacr", json!("1")),
            ("app_displayname", json!("Client <of> tests")),
            ("idtyp", json!("app")),
            ("tid", json!(tenant)),
            ("ver", json!("1.0")),
            ("roles", json!(["Machine.Read.All"])),
        ] {
            assert_eq!(claims[claim], value, "{claim}");
        }
        for claim in ["aio", "rh", "uti", "tenant_region_scope"] {
            assert!(claims[claim].is_string(), "{claim}: {claims}");
        }
        assert_eq!(claims["oid"], claims["sub"]);
        let time = |claim: &str| claims[claim].as_i64().expect("a time");
        assert!((3600 - 1..=5400).contains(&(time("exp") - time("iat"))));
        assert!(time("nbf") < time("iat"));
        ids.insert(claims["uti"].to_string());
    }
    assert_eq!(ids.len(), 2, "each token has an id of its own");
    world.settings(|settings| settings.access_token_seconds = 5400).await;
    let answer = v2(&world, &app, &secret, &[("scope", SCOPE)]).await;
    assert_eq!(answer.body["expires_in"], 5400);
}
