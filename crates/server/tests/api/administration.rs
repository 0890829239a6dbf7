//! The administration API, and what a data folder keeps.

use crate::support::{DEFENDER, World, answer, config};
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::sync::{Arc, Mutex};
use vigie_server::{Server, StartError};

fn document() -> Json {
    json!({"tenants": [{
        "id": "5a8e7c52-0c7e-4b57-9a35-1f7b3c3c2a01", "displayName": "Constant",
        "domains": ["constant.example"], "plan": "Trial",
        "applications": [{
            "appId": "5a8e7c52-0c7e-4b57-9a35-1f7b3c3c2a02", "displayName": "ci",
            "permissions": ["Alert.Read.All", "Machine.Read.All"],
            "secrets": [{"secret": "a-constant-for-tests-0001"}],
        }],
        "users": [{"userPrincipalName": "mira@constant.example", "password": "correct horse battery", "roles": ["Security Reader"]}],
        "lab": {"machines": 3},
    }]})
}

#[tokio::test]
async fn a_document_is_applied_once_and_survives_export() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let apply = async |document: Json| {
        world.call(Method::PUT, "/admin/v1/document", &admin, Some(document)).await
    };
    let first = apply(document()).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert!(!first.body["changes"].as_array().expect("changes").is_empty());
    let again = apply(document()).await;
    assert_eq!(again.body["changes"], json!([]), "the same document changes nothing");
    let tenant = "5a8e7c52-0c7e-4b57-9a35-1f7b3c3c2a01";
    let app = "5a8e7c52-0c7e-4b57-9a35-1f7b3c3c2a02";
    let token = world.token(tenant, app, "a-constant-for-tests-0001", DEFENDER).await;
    assert_eq!(world.get("/api/machines", &token).await.status, 200);
    assert_eq!(
        world
            .call(
                Method::POST,
                "/api/advancedqueries/run",
                &token,
                Some(json!({"Query": "print 1"}))
            )
            .await
            .status,
        403
    );

    let exported = world.get("/admin/v1/document", &admin).await.body;
    let text = exported.to_string();
    assert!(!text.contains("a-constant") && !text.contains("horse"), "{text}");
    let ours = exported["tenants"]
        .as_array()
        .expect("tenants")
        .iter()
        .find(|t| t["id"] == tenant)
        .expect("exported")
        .clone();
    assert_eq!(ours["lab"]["machines"], 3, "{ours}");
    // On another server the export makes the same; only what is secret has to be told again.
    let other = World::start().await;
    let other_admin = other.administration_token().await;
    let mut moved = ours.clone();
    moved["users"][0]["password"] = json!("correct horse battery");
    let body = json!({"tenants": [moved]});
    let applied = other.call(Method::PUT, "/admin/v1/document", &other_admin, Some(body)).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    let exported = other.get("/admin/v1/document", &other_admin).await.body;
    let theirs = exported["tenants"]
        .as_array()
        .expect("tenants")
        .iter()
        .find(|t| t["id"] == tenant)
        .expect("exported")
        .clone();
    assert_eq!(theirs, ours);
    for (name, broken) in [
        ("unknown property", json!({"tenants": [{"displayName": "x", "colour": "red"}]})),
        (
            "short secret",
            json!({"tenants": [{"displayName": "x", "applications": [{"displayName": "a", "secrets": [{"secret": "short"}]}]}]}),
        ),
        (
            "unknown permission",
            json!({"tenants": [{"displayName": "x", "applications": [{"displayName": "a", "permissions": ["All.Of.It"]}]}]}),
        ),
        (
            "unknown role",
            json!({"tenants": [{"displayName": "x", "users": [{"userPrincipalName": "a@x.example", "password": "correct horse battery", "roles": ["King"]}]}]}),
        ),
    ] {
        let before = world.get("/admin/v1/document", &admin).await.body;
        let refused = apply(broken).await;
        assert_eq!(refused.status, 400, "{name}: {}", refused.body);
        assert_eq!(
            world.get("/admin/v1/document", &admin).await.body,
            before,
            "{name} changed something"
        );
    }
    other.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn administration_refuses_what_is_wrong() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    assert_eq!(answer(world.request(Method::GET, "/admin/v1/tenants")).await.status, 401);
    let tenant = world.first.tenant.to_string();
    let cases = [
        (Method::GET, "/admin/v1/tenants/nowhere.example".to_owned(), None, 404),
        (Method::POST, "/admin/v1/tenants".to_owned(), Some(json!({})), 400),
        (
            Method::POST,
            "/admin/v1/tenants".to_owned(),
            Some(json!({"displayName": "x", "domains": [world.first.domain]})),
            409,
        ),
        (Method::GET, format!("/admin/v1/tenants/{tenant}/applications/none"), None, 404),
        (
            Method::POST,
            format!("/admin/v1/tenants/{tenant}/applications"),
            Some(json!({"displayName": ""})),
            400,
        ),
        (
            Method::POST,
            format!("/admin/v1/tenants/{tenant}/users"),
            Some(json!({"userPrincipalName": "no-at-sign", "password": "correct horse battery"})),
            400,
        ),
        (
            Method::POST,
            format!("/admin/v1/tenants/{tenant}/users"),
            Some(
                json!({"userPrincipalName": "a@elsewhere.example", "password": "correct horse battery"}),
            ),
            400,
        ),
        (Method::GET, "/admin/v1/nothing".to_owned(), None, 404),
    ];
    for (method, path, body, status) in cases {
        let refused = world.call(method, &path, &admin, body).await;
        assert_eq!(refused.status, status, "{path}: {}", refused.body);
        assert!(refused.body["error"]["code"].is_string(), "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn one_server_at_a_time_uses_a_folder_and_a_port() {
    let world = World::start().await;
    let second = Server::start(config(&world.data, &world.clock)).await.err().expect("refused");
    assert!(matches!(second, StartError::FolderInUse(_)), "{second}");
    assert!(second.to_string().contains("--data"), "{second}");
    let empty = tempfile::tempdir().expect("a folder");
    let mut taken = config(&empty, &world.clock);
    taken.listen = world.server.address();
    let second = Server::start(taken).await.err().expect("refused");
    assert!(second.to_string().contains("--listen"), "{second}");
    assert_eq!(
        std::fs::read_dir(empty.path()).expect("a folder").count(),
        0,
        "nothing was written"
    );

    // What the folder keeps is for its owner; the restarted server knows it all.
    use std::os::unix::fs::PermissionsExt as _;
    for private in ["state.db", "master.key", "ca/ca.key", "lake"] {
        let mode =
            std::fs::metadata(world.data.path().join(private)).expect(private).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{private} is open to others: {mode:o}");
    }
    let token = world.first_token().await;
    let (data, clock, first) = (world.data, world.clock, world.first);
    world.server.handle().shutdown().await;
    drop(world.server);
    let again = Server::start(config(&data, &clock)).await.expect("started again");
    assert!(again.first_start().is_none());
    let url = format!("https://127.0.0.1:{}/api/machines", again.address().port());
    let still = answer(world.http.get(url).bearer_auth(&token)).await;
    assert_eq!(still.status, 200, "tokens of {} hold over a restart: {}", first.tenant, still.body);
    again.handle().shutdown().await;
}

/// Log lines of this process, gathered.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Gathers what is logged from now on, as far as the filter lets it.
    pub fn gather(filter: &str) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(move || writer.clone())
            .finish();
        let _ = tracing::subscriber::set_global_default(subscriber);
        lines
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("lines")).into_owned()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lines").write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_are_neither_stored_nor_logged_in_clear() {
    let lines = Lines::gather("trace");
    let world = World::start().await;
    let (app, secret) = world.application(&["Machine.Read.All"]).await;
    let token = world.token(&world.first.tenant.to_string(), &app, &secret, DEFENDER).await;
    world.get("/api/machines", &token).await;
    let wrong = "this-secret-is-wrong-0001";
    world
        .form(
            &format!("/{}/oauth2/v2.0/token", world.first.tenant),
            &[
                ("grant_type", "client_credentials"),
                ("client_id", &app),
                ("client_secret", wrong),
                ("scope", "https://api.securitycenter.microsoft.com/.default"),
            ],
        )
        .await;
    let admin = world.administration_token().await;
    let user = json!({"userPrincipalName": format!("u@{}", world.first.domain), "password": "correct horse battery"});
    let made =
        world.post(&format!("/admin/v1/tenants/{}/users", world.first.tenant), &admin, user).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let sensor = world.sensor("a.example").await;
    let told: Vec<(&str, String)> = vec![
        ("a secret", secret),
        ("the first secret", world.first.app_secret.clone()),
        ("the administration's secret", world.first.administration_secret.clone()),
        ("the first password", world.first.password.clone()),
        ("a password", "correct horse battery".to_owned()),
        ("the enrolment key", world.first.enrolment_key.clone()),
        ("a wrong secret", wrong.to_owned()),
        ("a token", token),
        ("a session", sensor.token.clone()),
    ];
    let folder = world.data.path().to_owned();
    world.server.handle().shutdown().await;
    let log = lines.text();
    assert!(log.lines().count() > 10, "the log was gathered");
    let mut files = vec![folder];
    let mut contents = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
        } else {
            contents.push((path.display().to_string(), std::fs::read(&path).expect("a file")));
        }
    }
    for (what, text) in told {
        if let Some(line) = log.lines().find(|line| line.contains(&text)) {
            panic!("the log tells {what}: {}", line.replace(&text, "***"));
        }
        for (file, bytes) in &contents {
            assert!(memchr::memmem::find(bytes, text.as_bytes()).is_none(), "{file} holds {what}");
        }
    }
}
