//! Discovery, keys, instances and realms.

use crate::support::*;
use chrono::TimeDelta;
use serde_json::{Value as Json, json};
use vigie_contract::administration::Registration;

// CHECKLIST 12, 13, 15, 16, 22
#[tokio::test]
async fn documents_name_every_endpoint() {
    let world = World::start().await;
    let tenant = world.tenant.to_string();
    let v2 = world.get(&format!("/{tenant}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(v2.status, 200);
    for name in [
        "authorization_endpoint",
        "token_endpoint",
        "device_authorization_endpoint",
        "jwks_uri",
        "userinfo_endpoint",
        "end_session_endpoint",
        "introspection_endpoint",
        "revocation_endpoint",
    ] {
        assert!(v2.text_of(name).starts_with(BASE), "{name}: {}", v2.text);
    }
    for name in [
        "response_types_supported",
        "response_modes_supported",
        "subject_types_supported",
        "id_token_signing_alg_values_supported",
        "scopes_supported",
        "token_endpoint_auth_methods_supported",
        "claims_supported",
    ] {
        assert!(!v2.body[name].as_array().expect("a list").is_empty(), "{name}");
    }
    for name in
        ["tenant_region_scope", "cloud_instance_name", "cloud_graph_host_name", "msgraph_host"]
    {
        assert!(v2.body[name].is_string(), "{name}");
    }
    assert_eq!(v2.body["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(v2.body["issuer"], format!("{BASE}/{tenant}/v2.0"));
    let by_domain = world.get(&format!("/{DOMAIN}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(by_domain.body["issuer"], v2.body["issuer"]);
    let v1 = world.get(&format!("/{tenant}/.well-known/openid-configuration")).await;
    assert_eq!(v1.body["issuer"], format!("https://sts.windows.net/{tenant}/"));
    assert_eq!(v1.body["token_endpoint"], format!("{BASE}/{tenant}/oauth2/token"));
    // Tokens say what discovery says.
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &code)).await;
    assert_eq!(claims(answer.text_of("id_token"))["iss"], v2.body["issuer"]);
    assert_eq!(claims(answer.text_of("access_token"))["iss"], v1.body["issuer"]);
}

// CHECKLIST 14, 17
#[tokio::test]
async fn any_tenant_is_a_template_and_an_unknown_one_an_error() {
    let world = World::start().await;
    for name in ["common", "organizations", "Common"] {
        let document = world.get(&format!("/{name}/v2.0/.well-known/openid-configuration")).await;
        assert_eq!(document.body["issuer"], format!("{BASE}/{{tenantid}}/v2.0"));
    }
    for path in ["nowhere.example/v2.0", "nowhere.example"] {
        let answer = world.get(&format!("/{path}/.well-known/openid-configuration")).await;
        refused(path, &answer, 400, 90002, "invalid_tenant");
    }
}

// CHECKLIST 18
#[tokio::test]
async fn instances_are_this_server_and_no_other() {
    let world = World::start().await;
    // Some clients drop the port that they were given.
    for (host, called) in [
        ("login.tests.example:8443", "login.tests.example:8443"),
        ("other.tests.example", "other.tests.example:8443"),
    ] {
        let path = format!(
            "/common/discovery/instance?api-version=1.0&authorization_endpoint=https://{host}/{DOMAIN}/oauth2/v2.0/authorize"
        );
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let expected = format!("https://{called}/{DOMAIN}/v2.0/.well-known/openid-configuration");
        assert_eq!(answer.body["tenant_discovery_endpoint"], expected);
        assert_eq!(answer.body["api-version"], "1.0");
        let metadata = &answer.body["metadata"][0];
        assert_eq!(metadata["preferred_network"], host);
        assert_eq!(metadata["preferred_cache"], host);
        let aliases = metadata["aliases"].as_array().expect("a list");
        assert!(aliases.contains(&json!(host)), "{aliases:?}");
    }
    let foreign = "/common/discovery/instance?api-version=1.1&authorization_endpoint=https://login.evil.example/common/oauth2/authorize";
    refused("foreign", &world.get(foreign).await, 400, 50049, "invalid_instance");
    let none = world.get("/common/discovery/instance?api-version=1.1").await;
    refused("no address", &none, 400, 90014, "invalid_request");
}

// CHECKLIST 19
#[tokio::test]
async fn realms_tell_domains_and_nothing_of_users() {
    let world = World::start().await;
    let realm = async |user: &str| {
        let answer = world.get(&format!("/common/userrealm/{user}?api-version=1.0")).await;
        assert_eq!(answer.status, 200);
        answer.body
    };
    let mira = realm("mira@tests.example").await;
    for name in ["ver", "account_type", "domain_name", "cloud_instance_name", "cloud_audience_urn"]
    {
        assert!(mira[name].is_string(), "{name}: {mira}");
    }
    assert_eq!(mira["account_type"], "Managed");
    assert_eq!(realm("nobody@tests.example").await, mira);
    for unknown in ["mira@elsewhere.example", "mira", "mira@common", "%40"] {
        assert_eq!(realm(unknown).await["account_type"], "Unknown", "{unknown}");
    }
}

async fn keys(world: &World) -> Vec<Json> {
    let answer = world.get(&format!("/{}/discovery/v2.0/keys", world.tenant)).await;
    answer.body["keys"].as_array().expect("keys").clone()
}

async fn token(world: &World, app: &str, secret: &str) -> String {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app),
        ("client_secret", secret),
        ("scope", SCOPE),
    ];
    world.form(&world.v2(), &fields).await.text_of("access_token").to_owned()
}

fn verifies(token: &str, keys: &[Json]) -> bool {
    let kid = &part(token, 0)["kid"];
    let Some(key) = keys.iter().find(|key| key["kid"] == *kid) else { return false };
    let part = |name: &str| key[name].as_str().expect("a text");
    let decoding = jsonwebtoken::DecodingKey::from_rsa_components(part("n"), part("e"));
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Json>(token, &decoding.expect("a key"), &validation).is_ok()
}

// CHECKLIST 20, 79
#[tokio::test]
async fn keys_are_public_and_verify() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let keys = keys(&world).await;
    for key in &keys {
        assert_eq!((&key["kty"], &key["use"]), (&json!("RSA"), &json!("sig")));
        assert_eq!(key["issuer"], format!("{BASE}/{}/v2.0", world.tenant));
        for name in ["kid", "n", "e", "x5t"] {
            assert!(!key[name].as_str().expect("a text").is_empty(), "{name}");
        }
        for private in ["d", "p", "q", "dp", "dq", "qi"] {
            assert!(key.get(private).is_none(), "{private}");
        }
        // The certificate is of the same key, and the thumbprint is the certificate's.
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        use sha1::Digest as _;
        let der = STANDARD.decode(key["x5c"][0].as_str().expect("a certificate")).expect("base64");
        assert_eq!(key["x5t"], URL_SAFE_NO_PAD.encode(sha1::Sha1::digest(&der)));
        let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().expect("a text")).expect("base64url");
        assert!(der.windows(n.len()).any(|window| window == n), "another key's certificate");
    }
    assert!(verifies(&token(&world, &app, &secret).await, &keys));
}

// CHECKLIST 21
#[tokio::test]
async fn keys_rotate_without_an_outage_and_survive_a_restart() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let first = part(&token(&world, &app, &secret).await, 0)["kid"].clone();
    world.clock.advance(TimeDelta::days(91));
    let before = token(&world, &app, &secret).await;
    let listed = keys(&world).await;
    assert_eq!(listed.len(), 2, "the next key is published");
    assert_eq!(part(&before, 0)["kid"], first, "ahead of its use");
    world.clock.advance(TimeDelta::hours(25));
    let after = token(&world, &app, &secret).await;
    let second = part(&after, 0)["kid"].clone();
    assert_ne!(second, first);
    // What the old key signed can still be verified, by clients and by the API.
    assert!(verifies(&before, &keys(&world).await));
    assert!(verifies(&after, &keys(&world).await));
    let resource = vigie_identity::Resource::Defender;
    assert!(world.directory.verify(&after, resource).is_ok());
    world.clock.advance(TimeDelta::days(4));
    token(&world, &app, &secret).await;
    let kids: Vec<Json> = keys(&world).await.iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids, std::slice::from_ref(&second), "the old key has ended");
    let path = world.folder.path().join("state.db");
    let database = vigie_database::Database::open_file(&path).await.expect("opened");
    let master = vigie_identity::MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
    let opened = vigie_identity::Directory::open(database, master, world.clock.clone()).await;
    let opened = opened.expect("opened again");
    let again = token(&world, &app, &secret).await;
    assert!(opened.verify(&again, resource).is_ok(), "a restart keeps the keys");
    assert_eq!(part(&again, 0)["kid"], second);
}
