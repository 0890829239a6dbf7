//! What all operations have in common: who may call, errors, paths.

use crate::support::{DEFENDER, World, answer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use vigie_contract::operations::{OPERATIONS, Operation};

/// A path of the operation with something in place of its parameters.
fn path(operation: &Operation) -> String {
    let mut path = String::new();
    let mut rest = operation.path.split('?').next().unwrap_or_default();
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push('x');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    path + rest
}

fn method(operation: &Operation) -> Method {
    operation.method.parse().expect("a method")
}

#[tokio::test]
async fn no_operation_of_the_catalogue_answers_without_its_permission() {
    let world = World::start().await;
    let all: BTreeSet<&String> =
        OPERATIONS.iter().flat_map(|operation| &operation.app_permissions).collect();
    assert!(all.len() > 20, "the catalogue names permissions");
    let every: BTreeSet<String> = {
        let admin = world.administration_token().await;
        let tenant = world.first.tenant;
        let path = format!(
            "/admin/v1/tenants/{tenant}/applications/{}",
            world.first.administration_app_id
        );
        let shown = world.get(&path, &admin).await;
        let list = shown.body["permissions"].as_array().expect("permissions").clone();
        list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    for operation in OPERATIONS.iter() {
        let (id, path) = (&operation.id, path(operation));
        assert!(!operation.app_permissions.is_empty(), "{id} would be open to everybody");
        let bare = answer(world.request(method(operation), &path)).await;
        assert_eq!(bare.status, 401, "{id} {path}: {}", bare.body);
        assert_eq!(bare.body["error"]["code"], "Unauthorized", "{id}");
        assert!(bare.headers["www-authenticate"].to_str().expect("text").starts_with("Bearer"));
    }
    // Every permission but those of the operation is not enough; any one of them is.
    let mut sets: BTreeSet<Vec<String>> = BTreeSet::new();
    for operation in OPERATIONS.iter() {
        sets.insert(operation.app_permissions.clone());
    }
    for permissions in sets {
        let others: Vec<&str> =
            every.iter().filter(|name| !permissions.contains(name)).map(String::as_str).collect();
        let without = world.token_for(&others).await;
        let granted: Vec<&str> =
            permissions.iter().filter(|name| every.contains(*name)).map(String::as_str).collect();
        assert!(!granted.is_empty(), "{permissions:?} can be granted to nobody");
        let mut with = Vec::new();
        for name in &granted {
            with.push(world.token_for(&[name]).await);
        }
        for operation in
            OPERATIONS.iter().filter(|operation| operation.app_permissions == permissions)
        {
            let (id, path) = (&operation.id, path(operation));
            let refused = world.call(method(operation), &path, &without, None).await;
            assert_eq!(refused.status, 403, "{id} {path}: {}", refused.body);
            assert_eq!(refused.body["error"]["code"], "Forbidden", "{id}");
            let message = refused.body["error"]["message"].as_str().expect("a message");
            assert!(message.contains(&permissions.join(",")), "{id}: {message}");
            for token in &with {
                let allowed = world.call(method(operation), &path, token, None).await;
                assert!(
                    !matches!(allowed.status, 401 | 403),
                    "{id}: {} {}",
                    allowed.status,
                    allowed.body
                );
                assert!(allowed.status != 500, "{id}: {}", allowed.body);
            }
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn forged_expired_and_foreign_tokens_are_refused() {
    let world = World::start().await;
    let other = World::start().await;
    let good = world.first_token().await;
    assert_eq!(world.get("/api/machines", &good).await.status, 200);
    let parts: Vec<&str> = good.split('.').collect();
    let claims: Json =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).expect("base64url"))
            .expect("JSON");
    let mut more = claims.clone();
    more["roles"] = json!(["Machine.Offboard"]);
    let encode = |value: &Json| URL_SAFE_NO_PAD.encode(value.to_string());
    let with_header = |header: Json| format!("{}.{}.{}", encode(&header), parts[1], parts[2]);
    let cases = [
        ("nothing", String::new()),
        ("no token", "abc".to_owned()),
        ("changed claims", format!("{}.{}.{}", parts[0], encode(&more), parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", format!("{}.{}.", encode(&json!({"alg": "none", "typ": "JWT"})), parts[1])),
        ("alg HS256", with_header(json!({"alg": "HS256", "typ": "JWT"}))),
        ("unknown key", with_header(json!({"alg": "RS256", "typ": "JWT", "kid": "other"}))),
        ("another server's", other.first_token().await),
        ("another resource's", world.administration_token().await),
    ];
    for (name, token) in cases {
        let refused = world.get("/api/machines", &token).await;
        assert_eq!(refused.status, 401, "{name}: {}", refused.body);
        let refused = world.get("/admin/v1/tenants", &token).await;
        assert!(refused.status == 401 || name == "another resource's", "{name}: {}", refused.body);
    }
    // The API's token does not administer.
    assert_eq!(world.get("/admin/v1/tenants", &good).await.status, 401);
    world.clock.advance(TimeDelta::minutes(61));
    let expired = world.get("/api/machines", &good).await;
    assert_eq!(expired.status, 401, "{}", expired.body);
    other.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn permissions_taken_away_are_gone_with_the_next_token() {
    let world = World::start().await;
    let (app, secret) = world.application(&["Machine.Read.All"]).await;
    let tenant = world.first.tenant.to_string();
    let token = world.token(&tenant, &app, &secret, DEFENDER).await;
    assert_eq!(world.get("/api/machines", &token).await.status, 200);
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{tenant}/applications/{app}/permissions");
    let body = json!({"permissions": ["Alert.Read.All"]});
    assert_eq!(world.call(Method::PUT, &path, &admin, Some(body)).await.status, 200);
    let token = world.token(&tenant, &app, &secret, DEFENDER).await;
    assert_eq!(world.get("/api/machines", &token).await.status, 403);
    assert_eq!(world.get("/api/alerts", &token).await.status, 200);
    let body = json!({"permissions": ["Everything.Please"]});
    let unknown = world.call(Method::PUT, &path, &admin, Some(body)).await;
    assert_eq!(unknown.status, 400, "{}", unknown.body);
    world.stop().await;
}

#[tokio::test]
async fn paths_ignore_case_and_version_and_requests_keep_their_id() {
    let world = World::start().await;
    let token = world.first_token().await;
    for path in ["/api/machines", "/api/v1.0/machines", "/API/Machines", "/Api/V1.0/MACHINES/"] {
        let found = world.get(path, &token).await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
    }
    let id = "0b6f5a4e-7f0a-4c39-8f5e-0d3a1c5e9a77";
    let request = world.request(Method::GET, "/api/machines/none").bearer_auth(&token);
    let missing = answer(request.header("client-request-id", id)).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.headers["client-request-id"], id);
    assert_eq!(missing.body["error"]["target"], id);
    assert_eq!(missing.body["error"]["code"], "ResourceNotFound");
    let unknown = world.get("/api/nothing", &token).await;
    assert_eq!((unknown.status, unknown.body["error"]["code"].as_str()), (404, Some("NotFound")));
    let wrong = world.call(Method::DELETE, "/api/machines", &token, None).await;
    assert_eq!(wrong.status, 405, "{}", wrong.body);
    world.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_named() {
    let world = World::start().await;
    let token = world.first_token().await;
    let path = "/api/advancedqueries/run";
    let post = || world.request(Method::POST, path).bearer_auth(&token);
    let json_type = "application/json";
    let cases = [
        (
            "no JSON",
            post().header("content-type", json_type).body("{\"Query\": "),
            400,
            "InvalidRequestBody",
        ),
        (
            "no query",
            post().header("content-type", json_type).body("{}"),
            400,
            "MissingRequiredParameter",
        ),
        (
            "a number",
            post().header("content-type", json_type).body("{\"Query\": 1}"),
            400,
            "InvalidRequestBody",
        ),
        (
            "another type",
            post().header("content-type", "text/plain").body("print 1"),
            415,
            "UnsupportedMediaType",
        ),
        (
            "too large",
            post().header("content-type", json_type).body(" ".repeat(5 << 20)),
            413,
            "RequestEntityTooLarge",
        ),
    ];
    for (name, request, status, code) in cases {
        let refused = answer(request).await;
        assert_eq!(refused.status, status, "{name}: {}", refused.body);
        assert_eq!(refused.body["error"]["code"], code, "{name}");
        assert!(
            !refused.body["error"]["message"].as_str().expect("a message").is_empty(),
            "{name}"
        );
    }
    let fine = answer(
        post()
            .header("content-type", "application/json; charset=utf-8")
            .body("{\"Query\": \"print a=1\"}"),
    )
    .await;
    assert_eq!(fine.body["Results"], json!([{"a": 1}]), "{}", fine.body);
    world.stop().await;
}

/// What the HTTP library refuses by itself is refused in the API's words all the same.
#[tokio::test]
async fn requests_that_are_too_long_or_none_are_told_so() {
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::start().await;
    let token = world.first_token().await;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(world.ca.as_bytes()).expect("PEM");
    roots.add(ca).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let send = async |text: String| -> (String, Json) {
        let stream =
            tokio::net::TcpStream::connect(world.server.address()).await.expect("connected");
        let name = "127.0.0.1".try_into().expect("a name");
        let mut stream = connector.connect(name, stream).await.expect("a TLS connection");
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // The server ends the connection without TLS's farewell, perhaps.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}"));
        (head.lines().next().unwrap_or_default().to_owned(), body)
    };
    let get = |path: &str| {
        let head = format!("host: x\r\nauthorization: Bearer {token}\r\nconnection: close");
        format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n")
    };
    let (status, _) = send(get("/api/machines")).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let long = format!("/api/alerts?$filter=title%20eq%20'{}'", "x".repeat(100_000));
    for (request, status, code) in [
        (get(&long), 414, "RequestUriTooLong"),
        (
            format!("GET /api/machines HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)),
            431,
            "RequestHeaderFieldsTooLarge",
        ),
        ("GET /api/machines with spaces HTTP/1.1\r\n\r\n".to_owned(), 400, "BadRequest"),
    ] {
        let (line, body) = send(request).await;
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{line}");
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(body["error"]["target"].is_string() && body["error"]["message"].is_string());
    }
    world.stop().await;
}
