//! The audit log, restarts, and the other database.

use crate::support::*;
use std::sync::{Arc, Mutex};
use vigie_contract::administration::{Registration, UserChange};
use vigie_database::Database;
use vigie_identity::AuditFilter;

/// Collects what the program logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// CHECKLIST 106, 108
#[tokio::test]
async fn what_happened_is_told_and_no_secret_with_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    let secret = world.secret(&app).await;
    let back = authorize(&world, &app, "mira", &[]).await;
    let answer = world.form(&world.v2(), &redemption(&app, &secret, &back["code"])).await;
    let wrong = "wrong-secret-0123456789";
    world.form(&world.v2(), &redemption(&app, wrong, &back["code"])).await;
    let change = UserChange { password: Some("a new password".to_owned()), ..Default::default() };
    let name = "mira@tests.example";
    world.directory.change_user("root", world.tenant, name, &change).await.expect("changed");
    let entries = world.directory.audit_log(world.tenant, &AuditFilter::default()).await;
    let entries = entries.expect("read");
    let told = |actor: &str, action: &str, outcome: &str| {
        entries
            .iter()
            .any(|entry| entry.actor == actor && entry.action == action && entry.outcome == outcome)
    };
    for (actor, action, outcome) in [
        ("tests", "tenant.create", "success"),
        ("tests", "user.create", "success"),
        ("tests", "application.create", "success"),
        ("tests", "application.secret.add", "success"),
        (name, "signIn", "success"),
        (name, "consent.user", "success"),
        (app.as_str(), "signIn", "7000215"),
        ("root", "user.password", "success"),
    ] {
        assert!(told(actor, action, outcome), "{actor} {action} {outcome}: {entries:#?}");
    }
    assert!(entries.iter().filter(|e| e.action == "signIn").all(|e| e.address.is_some()));
    assert!(entries.windows(2).all(|pair| pair[0].at >= pair[1].at), "newest first");
    let filter = AuditFilter { top: Some(1), ..AuditFilter::default() };
    assert_eq!(world.directory.audit_log(world.tenant, &filter).await.expect("read").len(), 1);
    let log = String::from_utf8_lossy(&log.0.lock().expect("unpoisoned")).into_owned();
    let log = log + &serde_json::to_string(&entries).expect("JSON");
    let tokens = [
        answer.text_of("access_token"),
        answer.text_of("refresh_token"),
        answer.text_of("id_token"),
        secret.as_str(),
        wrong,
        PASSWORD,
        "a new password",
        back["code"].as_str(),
        VERIFIER,
    ];
    for token in tokens {
        assert!(!log.contains(token), "a secret is in the log");
    }
}

// CHECKLIST 107
#[tokio::test]
async fn what_was_answered_survives_the_process() {
    let world = World::start().await;
    let app = world.application(&[], web_registration()).await;
    world.consent(&app, &["Machine.Read"]).await;
    let secret = world.secret(&app).await;
    let spent = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let kept = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let first = world.form(&world.v2(), &redemption(&app, &secret, &spent)).await;
    assert_eq!(first.status, 200);
    let world = reopened(world).await;
    let again = world.form(&world.v2(), &redemption(&app, &secret, &spent)).await;
    refused("no code works twice", &again, 400, 54005, "invalid_grant");
    let other = world.form(&world.v2(), &redemption(&app, &secret, &kept)).await;
    assert_eq!(other.status, 200, "a secret and a code outlive the process: {}", other.text);
    let world = reopened(world).await;
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("refresh_token", first.text_of("refresh_token")),
    ];
    let revoked = world.form(&world.v2(), &fields).await;
    refused("no revoked token comes back", &revoked, 400, 70000, "invalid_grant");
}

/// The same folder in a new process, as far as the code can tell: nothing in memory is kept, and the
/// old one did not say that it stops.
async fn reopened(world: World) -> World {
    let World { clock, tenant, address, folder, .. } = world;
    let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
    let master = vigie_identity::MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
    let directory = vigie_identity::Directory::open(database, master, clock.clone()).await;
    let directory = directory.expect("opened");
    directory.set_authority(vigie_identity::Authority::new(BASE, &[]));
    let router = vigie_identity::router(directory.clone());
    World { directory, router, clock, tenant, address, folder }
}

/// Two nodes share a database: a change at one is soon seen at the other, which remembers what it read.
#[tokio::test]
async fn a_change_at_another_node_is_seen_within_seconds() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let database = Database::open_file(&world.folder.path().join("state.db")).await;
    let master = vigie_identity::MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
    let clock = world.clock.clone();
    let other = vigie_identity::Directory::open(database.expect("opened"), master, clock).await;
    let other = other.expect("opened");
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", SCOPE),
    ];
    assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
    let id = uuid::Uuid::try_parse(&app).expect("an id");
    let off = Registration { enabled: false, ..Registration::default() };
    other.set_registration("tests", world.tenant, id, &off).await.expect("set");
    let began = std::time::Instant::now();
    loop {
        let answer = world.form(&world.v2(), &fields).await;
        if answer.status != 200 {
            refused("disabled", &answer, 400, 7000112, "unauthorized_client");
            break;
        }
        assert!(began.elapsed().as_secs() < 10, "the change is not seen");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// While the directory's version cannot be read, what is remembered may be wrong: it opens no door,
/// however many ask.
#[tokio::test]
async fn a_directory_that_cannot_be_looked_at_lets_nobody_in() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", SCOPE),
    ];
    assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
    let other = Database::open_file(&world.folder.path().join("state.db")).await.expect("opened");
    let away = "ALTER TABLE directory_version RENAME TO away";
    other.execute(away, &[]).await.expect("renamed");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    for name in ["first", "second", "third"] {
        refused(name, &world.form(&world.v2(), &fields).await, 500, 90006, "server_error");
    }
    let back = "ALTER TABLE away RENAME TO directory_version";
    other.execute(back, &[]).await.expect("renamed");
    let answer = world.form(&world.v2(), &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Sign-ins of applications are noted and written together: none is missing, none is there twice.
#[tokio::test]
async fn every_sign_in_of_an_application_is_in_the_log() {
    let world = World::start().await;
    let (app, secret) = world.confidential(Registration::default()).await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", app.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", SCOPE),
    ];
    for _ in 0..123 {
        assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
    }
    let filter =
        AuditFilter { actor: Some(app.clone()), top: Some(1000), ..AuditFilter::default() };
    let entries = world.directory.audit_log(world.tenant, &filter).await.expect("read");
    assert_eq!(entries.len(), 123);
    for entry in entries {
        let told = (entry.action.as_str(), entry.target.as_str(), entry.outcome.as_str());
        assert_eq!(told, ("signIn", DEFENDER, "success"));
        assert_eq!(entry.address.as_deref(), Some("192.0.2.10"));
    }
}

/// The same on the other database, where the test command has started one.
#[tokio::test]
async fn postgresql_keeps_the_same_state() {
    let Ok(url) = std::env::var("VIGIE_TEST_POSTGRES") else {
        eprintln!("left out: VIGIE_TEST_POSTGRES names no database");
        return;
    };
    let admin = Database::open_url(&url).await.expect("reached");
    admin.execute("DROP SCHEMA IF EXISTS identity_tests CASCADE", &[]).await.expect("dropped");
    admin.execute("CREATE SCHEMA identity_tests", &[]).await.expect("created");
    let own = format!("{url}?options=-csearch_path%3Didentity_tests");
    let database = Database::open_url(&own).await.expect("opened");
    let world = World::on(database.clone(), tempfile::tempdir().expect("a folder")).await;
    let app = world.application(&["Machine.Read.All"], web_registration()).await;
    let secret = world.secret(&app).await;
    let code = authorize(&world, &app, "mira", &[]).await["code"].clone();
    let redeem = async || {
        let fields = redemption(&app, &secret, &code);
        world.form(&world.v2(), &fields).await
    };
    let (a, b) = tokio::join!(redeem(), redeem());
    assert_eq!([&a, &b].iter().filter(|x| x.status == 200).count(), 1, "{} {}", a.text, b.text);
    let public = world.public().await;
    let path = format!("/{}/oauth2/v2.0/devicecode", world.tenant);
    let started = world.form(&path, &[("client_id", &public), ("scope", SCOPE)]).await;
    assert_eq!(started.status, 200, "{}", started.text);
    let (client, confidential) = world.confidential(Registration::default()).await;
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client.as_str()),
        ("client_secret", confidential.as_str()),
        ("scope", SCOPE),
    ];
    for _ in 0..60 {
        assert_eq!(world.form(&world.v2(), &fields).await.status, 200);
    }
    let filter = AuditFilter { actor: Some(client.clone()), ..AuditFilter::default() };
    let log = world.directory.audit_log(world.tenant, &filter).await.expect("read");
    assert_eq!(log.len(), 60, "many are written at once there too");
    world.clock.advance(chrono::TimeDelta::days(91));
    assert_eq!(world.form(&world.v2(), &fields).await.status, 200, "keys rotate there too");
    let document = world.directory.export().await.expect("exported");
    let applied = world.directory.apply("tests", &document).await.expect("applied");
    assert!(applied.changes.is_empty(), "{:?}", applied.changes);
    database.close().await;
    admin.execute("DROP SCHEMA identity_tests CASCADE", &[]).await.expect("dropped");
}
