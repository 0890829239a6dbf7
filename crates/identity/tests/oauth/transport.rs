//! Paths, forms, headers and the shape of errors.

use crate::support::*;
use axum::body::Body;
use http::Method;
use vigie_contract::administration::Registration;

async fn token_fields(world: &World) -> (String, String) {
    world.confidential(Registration::default()).await
}

fn good<'a>(app: &'a str, secret: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "client_credentials"),
        ("client_id", app),
        ("client_secret", secret),
        ("scope", SCOPE),
    ]
}

// CHECKLIST 3
#[tokio::test]
async fn addresses_in_answers_come_from_the_configuration() {
    let world = World::start().await;
    let path = format!("/{}/v2.0/.well-known/openid-configuration", world.tenant);
    for (host, base) in [
        ("login.tests.example:8443", BASE),
        ("evil.example", BASE),
        ("login.tests.example:9999", BASE),
        ("other.tests.example:8443", "https://other.tests.example:8443"),
    ] {
        let request = request(Method::GET, &path, &[("host", host)], Body::empty());
        let document = world.send(request).await;
        let issuer = format!("{base}/{}/v2.0", world.tenant);
        assert_eq!(document.body["issuer"], issuer, "{host}");
        assert!(!document.text.contains("evil"), "{}", document.text);
    }
}

// CHECKLIST 4, 5
#[tokio::test]
async fn tenants_and_paths_are_found_in_any_spelling() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let id = world.tenant.to_string();
    for tenant in [id.clone(), id.to_uppercase(), DOMAIN.to_owned(), DOMAIN.to_uppercase()] {
        for end in ["oauth2/v2.0/token", "OAuth2/V2.0/Token"] {
            let answer = world.form(&format!("/{tenant}/{end}"), &good(&app, &secret)).await;
            assert_eq!(answer.status, 200, "{tenant}/{end}: {}", answer.text);
        }
    }
    for path in [
        "/common/UserRealm/mira@tests.example?api-version=1.0",
        "/common/userrealm/mira@tests.example?api-version=1.0",
    ] {
        assert_eq!(world.get(path).await.body["account_type"], "Managed", "{path}");
    }
    // Both generations of every endpoint are there.
    for path in ["oauth2/authorize", "oauth2/v2.0/authorize"] {
        let shown = world.get(&format!("/{id}/{path}")).await;
        assert_eq!(shown.status, 400, "{path}");
        assert!(shown.text.contains("AADSTS900144"), "{path}: {}", shown.text);
    }
    for path in ["oauth2/token", "oauth2/devicecode", "oauth2/v2.0/token", "oauth2/v2.0/devicecode"]
    {
        let answer = world.form(&format!("/{id}/{path}"), &[("a", "b")]).await;
        refused(path, &answer, 400, 900144, "invalid_request");
    }
    for path in [
        "discovery/keys",
        "discovery/v2.0/keys",
        ".well-known/openid-configuration",
        "v2.0/.well-known/openid-configuration",
    ] {
        assert_eq!(world.get(&format!("/common/{path}")).await.status, 200, "{path}");
    }
}

// CHECKLIST 6, 7
#[tokio::test]
async fn forms_are_read_as_clients_send_them() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let body = encode(&good(&app, &secret));
    for content_type in [
        Some("application/x-www-form-urlencoded"),
        Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8"),
        None,
    ] {
        let headers: Vec<(&str, &str)> =
            content_type.into_iter().map(|value| ("content-type", value)).collect();
        let request = request(Method::POST, &world.v2(), &headers, Body::from(body.clone()));
        let answer = world.send(request).await;
        assert_eq!(answer.status, 200, "{content_type:?}: {}", answer.text);
    }
    let other = [("content-type", "application/json")];
    let answer = world.send(request(Method::POST, &world.v2(), &other, Body::from("{}"))).await;
    refused("JSON", &answer, 400, 9002313, "invalid_request");
    // Values that nobody escaped, and members that nobody knows.
    let raw = format!(
        "client_id={app}&client_secret={secret}&grant_type=client_credentials&scope={SCOPE}\
         &x-client-SKU=a b,c|d&clidata=1&client_info=1&redirectUri=x:/y&name=J%C3%BCrgen~(x)"
    );
    let answer = world.form_raw(&world.v2(), &raw).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

// CHECKLIST 8
#[tokio::test]
async fn a_parameter_twice_is_refused_and_an_empty_one_is_absent() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let mut twice = good(&app, &secret);
    twice.push(("scope", SCOPE));
    refused("twice", &world.form(&world.v2(), &twice).await, 400, 9002313, "invalid_request");
    let in_query = format!("{}?a=1&a=2", world.v2());
    let answer = world.form(&in_query, &good(&app, &secret)).await;
    refused("twice in the query", &answer, 400, 9002313, "invalid_request");
    let empty = [("grant_type", ""), ("client_id", app.as_str())];
    refused("empty", &world.form(&world.v2(), &empty).await, 400, 900144, "invalid_request");
    let twice = format!("/{}/oauth2/authorize?client_id={app}&client_id={app}", world.tenant);
    assert!(world.get(&twice).await.text.contains("AADSTS9002313"));
}

// CHECKLIST 9
#[tokio::test]
async fn tokens_are_asked_for_by_post_and_secrets_never_by_query() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = world.send(request(method, &world.v2(), &[], Body::empty())).await;
        refused("method", &answer, 405, 900561, "invalid_request");
    }
    let v1 = encode(&[
        ("grant_type", "client_credentials"),
        ("client_id", &app),
        ("client_secret", &secret),
        ("resource", DEFENDER),
    ]);
    // Two shipped clients send the form in the body of a GET, on the older path.
    let answer = world.send(request(Method::GET, &world.v1(), &[], Body::from(v1.clone()))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = world.send(request(Method::GET, &world.v2(), &[], Body::from(v1))).await;
    refused("GET with a body", &answer, 405, 900561, "invalid_request");
    let path = format!("{}?client-request-id=x&api-version=1.0", world.v2());
    assert_eq!(world.form(&path, &good(&app, &secret)).await.status, 200);
    let path = format!("{}?client_secret={secret}", world.v2());
    let answer = world.form(&path, &good(&app, &secret)).await;
    refused("secret in the query", &answer, 400, 9002313, "invalid_request");
    assert!(!answer.text.contains(&secret));
}

// CHECKLIST 10, 11
#[tokio::test]
async fn answers_are_kept_by_nobody_and_requests_keep_their_id() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let answer = world.form(&world.v2(), &good(&app, &secret)).await;
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert!(answer.header("cache-control").contains("no-store"));
    assert_eq!(answer.header("pragma"), "no-cache");
    assert!(!answer.header("x-ms-request-id").is_empty());
    assert!(answer.header("client-request-id").is_empty(), "only when asked for");
    let id = "0b6f5a4e-7f0a-4c39-8f5e-0d3a1c5e9a77";
    let headers = [("client-request-id", id), ("return-client-request-id", "true")];
    let answer = world.form_with(&world.v2(), &[("a", "b")], &headers).await;
    assert_eq!(answer.body["correlation_id"], id);
    assert_eq!(answer.header("client-request-id"), id);
    let path = format!("{}?client-request-id={id}", world.v2());
    assert_eq!(world.form(&path, &[("a", "b")]).await.body["correlation_id"], id);
}

// CHECKLIST 99, 100, 101
#[tokio::test]
async fn errors_have_their_shape_status_and_number() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let ask = async |change: &[(&str, &str)]| {
        let mut fields = good(&app, &secret);
        for (name, value) in change {
            fields.retain(|(field, _)| field != name);
            fields.push((name, value));
        }
        world.form(&world.v2(), &fields).await
    };
    refused("no grant", &ask(&[("grant_type", "")]).await, 400, 900144, "invalid_request");
    refused("grant", &ask(&[("grant_type", "magic")]).await, 400, 70003, "unsupported_grant_type");
    let unknown = "7f2f7a52-98b8-4d1f-8d4b-54d6b3a8c9aa";
    let answer = ask(&[("client_id", unknown)]).await;
    refused("no such application", &answer, 400, 700016, "unauthorized_client");
    // An application of another tenant is none of this one's.
    let customer = world.second_tenant().await;
    let answer = world.form(&format!("/{customer}/oauth2/v2.0/token"), &good(&app, &secret)).await;
    refused("another tenant's", &answer, 400, 700016, "unauthorized_client");
    let answer = world.form("/nowhere.example/oauth2/v2.0/token", &good(&app, &secret)).await;
    refused("no such tenant", &answer, 400, 90002, "invalid_request");
    let answer = world.form(&world.v2(), &[("grant_type", &"x".repeat(100_000))]).await;
    refused("too large", &answer, 400, 9002313, "invalid_request");
}

// CHECKLIST 102
#[tokio::test]
async fn errors_tell_no_secret_and_escape_what_they_show() {
    let world = World::start().await;
    let (app, secret) = token_fields(&world).await;
    let mut wrong = good(&app, "not-the-secret-0123456789");
    wrong.push(("client_assertion_type", "x"));
    let answer = world.form(&world.v2(), &wrong).await;
    assert!(!answer.text.contains("not-the-secret") && !answer.text.contains(&secret));
    let code = [
        ("grant_type", "authorization_code"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("code", "the-code-that-is-wrong"),
        ("redirect_uri", "https://client.example/cb"),
    ];
    let answer = world.form(&world.v2(), &code).await;
    refused("code", &answer, 400, 9002313, "invalid_grant");
    assert!(!answer.text.contains("the-code"));
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    for path in [
        format!("/{}/oauth2/v2.0/authorize?client_id={script}", world.tenant),
        format!("/{script}/oauth2/v2.0/authorize?client_id={app}"),
        format!("/{}/oauth2/v2.0/authorize?client_id={app}&redirect_uri={script}", world.tenant),
        format!("/common/oauth2/deviceauth?otc={script}"),
    ] {
        let page = world.get(&path).await;
        assert!(!page.text.contains("<script>alert"), "{path}: {}", page.text);
    }
}
