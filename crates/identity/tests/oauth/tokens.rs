//! Tokens for users.

use crate::support::*;
use serde_json::json;
use uuid::Uuid;
use vigie_contract::administration::*;
use vigie_identity::Resource;

async fn signed_in(world: &World, more: &[(&str, &str)]) -> (String, String, Answer) {
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Alert.Read", "Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let code = authorize(world, &app, "root", more).await["code"].clone();
    let mut fields = redemption(&app, &secret, &code);
    fields.push(("client_info", "1"));
    let answer = world.form(&world.v2(), &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    (app, secret, answer)
}

// CHECKLIST 70, 72, 78
#[tokio::test]
async fn the_answer_holds_what_msal_needs() {
    let world = World::start().await;
    let (_, _, answer) = signed_in(&world, &[]).await;
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 3599);
    for name in ["access_token", "refresh_token", "id_token", "client_info", "scope"] {
        assert!(answer.body[name].is_string(), "{name}: {}", answer.text);
    }
    use base64::Engine as _;
    let info = answer.text_of("client_info");
    let info = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(info).expect("unpadded");
    let info: serde_json::Value = serde_json::from_slice(&info).expect("JSON");
    let oid = claims(answer.text_of("id_token"))["oid"].clone();
    assert_eq!(info, json!({"uid": oid, "utid": world.tenant.to_string()}));
    // Each of the three comes only when it is asked for.
    let (_, _, bare) =
        signed_in(&world, &[("scope", "https://api.securitycenter.microsoft.com/Machine.Read")])
            .await;
    assert!(bare.body.get("id_token").is_none() && bare.body.get("refresh_token").is_none());
    let scope = "https://api.securitycenter.microsoft.com/Machine.Read openid";
    let (_, _, nameless) = signed_in(&world, &[("scope", scope)]).await;
    assert!(claims(nameless.text_of("id_token")).get("name").is_none());
}

// CHECKLIST 75
#[tokio::test]
async fn delegated_tokens_tell_of_the_user() {
    let world = World::start().await;
    let (app, _, answer) = signed_in(&world, &[]).await;
    let token = answer.text_of("access_token");
    let told = claims(token);
    for (claim, value) in [
        ("acr", json!("1")),
        ("amr", json!(["pwd"])),
        ("appid", json!(app)),
        ("appidacr", json!("1")),
        ("aud", json!(DEFENDER)),
        ("family_name", json!("Sur")),
        ("given_name", json!("Given")),
        ("ipaddr", json!("192.0.2.10")),
        ("name", json!("Display of root@tests.example")),
        ("scp", json!("Machine.Read")),
        ("tid", json!(world.tenant.to_string())),
        ("unique_name", json!("root@tests.example")),
        ("upn", json!("root@tests.example")),
        ("ver", json!("1.0")),
        ("wids", json!(["62e90394-69f5-4237-9190-012177145e10"])),
    ] {
        assert_eq!(told[claim], value, "{claim}");
    }
    assert!(told.get("roles").is_none() && told.get("idtyp").is_none());
    assert_ne!(told["sub"], told["oid"]);
    let caller = world.directory.verify(token, Resource::Defender).expect("accepted");
    let user = caller.user.expect("a user");
    assert_eq!(user.principal_name, "root@tests.example");
    assert_eq!(user.scopes, ["Machine.Read"]);
    assert_eq!(user.methods, ["pwd"]);
    assert!(caller.roles.is_empty());
    // A public client has no proof.
    let public = world.public().await;
    world.consent(&public, &["Machine.Read"]).await;
    let local = [("redirect_uri", "http://localhost")];
    let code = authorize(&world, &public, "root", &local).await["code"].clone();
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", public.as_str()),
        ("code", code.as_str()),
        ("redirect_uri", "http://localhost"),
        ("code_verifier", VERIFIER),
    ];
    let answer = world.form(&world.v2(), &fields).await;
    assert_eq!(claims(answer.text_of("access_token"))["appidacr"], "0");
}

// CHECKLIST 76
#[tokio::test]
async fn an_application_may_take_tokens_of_version_2() {
    let world = World::start().await;
    let registration = Registration {
        offered_scopes: vec!["access_as_user".to_owned()],
        accepted_token_version: 2,
        ..Registration::default()
    };
    let middle = world.application(&[], registration).await;
    let (app, secret) = world.confidential(web_registration()).await;
    let scope = format!("api://{middle}/access_as_user openid profile");
    let code = authorize(&world, &app, "mira", &[("scope", &scope)]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    let token = answer.text_of("access_token");
    let told = claims(token);
    for (claim, value) in [
        ("aud", json!(middle)),
        ("iss", json!(format!("{BASE}/{}/v2.0", world.tenant))),
        ("azp", json!(app)),
        ("azpacr", json!("1")),
        ("name", json!("Display of mira@tests.example")),
        ("preferred_username", json!("mira@tests.example")),
        ("scp", json!("access_as_user")),
        ("tid", json!(world.tenant.to_string())),
        ("ver", json!("2.0")),
    ] {
        assert_eq!(told[claim], value, "{claim}");
    }
    for claim in ["appid", "upn", "unique_name"] {
        assert!(told.get(claim).is_none(), "{claim}");
    }
    assert!(part(token, 0).get("x5t").is_none());
}

// CHECKLIST 77
#[tokio::test]
async fn id_tokens_are_for_the_client() {
    let world = World::start().await;
    let (app, _, answer) = signed_in(&world, &[("nonce", "n-0S6_WzA2Mj")]).await;
    let id = claims(answer.text_of("id_token"));
    let again = signed_in(&world, &[]).await.2;
    for (claim, value) in [
        ("aud", json!(app)),
        ("iss", json!(format!("{BASE}/{}/v2.0", world.tenant))),
        ("nonce", json!("n-0S6_WzA2Mj")),
        ("tid", json!(world.tenant.to_string())),
        ("preferred_username", json!("root@tests.example")),
        ("name", json!("Display of root@tests.example")),
        ("ver", json!("2.0")),
    ] {
        assert_eq!(id[claim], value, "{claim}");
    }
    for claim in ["iat", "nbf", "exp"] {
        assert!(id[claim].is_i64(), "{claim}");
    }
    assert_eq!(id["oid"], claims(again.text_of("id_token"))["oid"]);
    assert_ne!(id["sub"], claims(again.text_of("id_token"))["sub"], "pairwise: another client");
    // The v1 form, with what retired libraries look for.
    let secret = world.secret(&app).await;
    let path = format!(
        "/{}/oauth2/authorize?{}",
        world.tenant,
        encode(&[
            ("client_id", &app),
            ("response_type", "code"),
            ("redirect_uri", REDIRECT),
            ("resource", DEFENDER),
        ])
    );
    let mut browser = Browser::new(&world);
    browser.open(&path).await;
    let code = fields(&browser.sign_in("root").await.location())["code"].clone();
    let mut redeemed = redemption(&app, &secret, &code);
    redeemed.retain(|(name, _)| *name != "code_verifier");
    redeemed.push(("resource", DEFENDER));
    let answer = world.form(&world.v1(), &redeemed).await;
    let v1 = claims(answer.text_of("id_token"));
    assert_eq!(v1["upn"], "root@tests.example");
    assert_eq!(v1["unique_name"], "root@tests.example");
    assert_eq!((&v1["ver"], &v1["sub"]), (&json!("1.0"), &id["sub"]), "the same for one client");
    assert_eq!(answer.body["resource"], DEFENDER);
    assert!(answer.body["expires_in"].is_string() && answer.body["refresh_token"].is_string());
}

// CHECKLIST 81
#[tokio::test]
async fn id_tokens_and_keys_that_tokens_bring_are_refused() {
    let world = World::start().await;
    let (app, _, answer) = signed_in(&world, &[]).await;
    let id = answer.text_of("id_token");
    let own = Resource::Application(Uuid::try_parse(&app).expect("an id"));
    for resource in [Resource::Defender, Resource::Directory, own] {
        assert!(world.directory.verify(id, resource).is_err(), "{resource:?}");
    }
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let token = answer.text_of("access_token");
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("jwk", json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("kid", json!("other")),
    ] {
        let mut header = part(token, 0);
        header[name] = value;
        let parts: Vec<&str> = token.split('.').collect();
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let forged = format!("{header}.{}.{}", parts[1], parts[2]);
        assert!(world.directory.verify(&forged, Resource::Defender).is_err(), "{name}");
    }
    assert!(world.directory.verify(token, Resource::Administration).is_err(), "another resource");
    world.clock.advance(chrono::TimeDelta::minutes(61));
    assert!(world.directory.verify(token, Resource::Defender).is_err(), "expired");
}

#[tokio::test]
async fn an_application_asks_on_behalf_of_its_caller() {
    let world = World::start().await;
    let mut registration = web_registration();
    registration.offered_scopes = vec!["access_as_user".to_owned()];
    let middle = world.application(&[], registration).await;
    let middle_secret = world.secret(&middle).await;
    let (app, secret) = world.confidential(web_registration()).await;
    let scope = format!("api://{middle}/access_as_user openid");
    let code = authorize(&world, &app, "mira", &[("scope", &scope)]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    let assertion = answer.text_of("access_token").to_owned();
    let ask = async |assertion: &str, client: (&str, &str)| {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("client_id", client.0),
            ("client_secret", client.1),
            ("assertion", assertion),
            ("requested_token_use", "on_behalf_of"),
            ("scope", "https://api.securitycenter.microsoft.com/Machine.Read offline_access"),
        ];
        world.form(&world.v2(), &fields).await
    };
    let own = (middle.as_str(), middle_secret.as_str());
    refused("no consent", &ask(&assertion, own).await, 400, 65001, "invalid_grant");
    world.consent(&middle, &["Machine.Read"]).await;
    let answer = ask(&assertion, own).await;
    let told = claims(answer.text_of("access_token"));
    assert_eq!(told["upn"], "mira@tests.example");
    assert_eq!((&told["appid"], &told["appidacr"]), (&json!(middle), &json!("1")));
    assert_eq!((&told["aud"], &told["scp"]), (&json!(DEFENDER), &json!("Machine.Read")));
    assert!(answer.body["refresh_token"].is_string());
    // A token for somebody else, an id token, no token at all.
    let other = ask(&assertion, (&app, &secret)).await;
    refused("another's token", &other, 400, 50013, "invalid_grant");
    refused("no token", &ask("a.b.c", own).await, 400, 50013, "invalid_grant");
    let next = told["aud"].as_str().map(|_| answer.text_of("access_token").to_owned());
    refused(
        "wrong audience",
        &ask(&next.expect("a token"), own).await,
        400,
        50013,
        "invalid_grant",
    );
}
