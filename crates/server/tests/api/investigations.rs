//! Investigations that start by themselves: from a new alert over the machines that saw its file to
//! the file's removal, as far as the tenant allows.

use crate::support::{TestSensor, World, config};
use chrono::TimeDelta;
use serde_json::{Value as Json, json};
use std::time::Duration;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::*;

const ALL: &[&str] = &[
    "Machine.Read.All",
    "Machine.StopAndQuarantine",
    "AdvancedQuery.Read.All",
    "Alert.ReadWrite.All",
    "Ti.ReadWrite.All",
];
const BAD: &str = "00112233445566778899aabbccddeeff00112233";
const STRANGE: &str = "ffeeddccbbaa99887766554433221100ffeeddcc";

async fn set(world: &World, settings: Json) {
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{}/service", world.first.tenant);
    let set = world.call(reqwest::Method::PUT, &path, &admin, Some(settings)).await;
    assert_eq!(set.status, 200, "{}", set.body);
}

async fn automate(world: &World, level: &str) {
    set(world, json!({"automation": {"level": level}, "throttling": {"enabled": false}})).await;
}

/// A machine whose events name a file.
async fn machine(world: &World, name: &str, sha1: &str, path: &str) -> TestSensor {
    let mut sensor = world.sensor(name).await;
    let row = json!({
        "Timestamp": world.clock.now().to_rfc3339(), "ReportId": 1, "ActionType": "FileCreated",
        "FileName": path.rsplit('/').next(), "FolderPath": path, "SHA1": sha1,
    });
    sensor.send(json!({"DeviceFileEvents": [row]})).await;
    sensor
}

/// An indicator by which the tenant knows a file.
async fn known(world: &World, token: &str, sha1: &str, action: &str) {
    let indicator = json!({
        "indicatorValue": sha1, "indicatorType": "FileSha1", "action": action, "title": "known",
        "description": "known", "severity": "High", "generateAlert": false,
    });
    let made = world.post("/api/indicators", token, indicator).await;
    assert_eq!(made.status, 200, "{}", made.body);
}

/// An alert about the machine's one event; its id.
async fn alert(world: &World, token: &str, sensor: &TestSensor, title: &str) -> String {
    let query = format!(
        "DeviceFileEvents | where DeviceId == '{}' | project Timestamp | take 1",
        sensor.id()
    );
    let event = world.hunt(token, &query).await.remove(0);
    let alert = json!({
        "machineId": sensor.id(), "severity": "High", "title": title, "description": "bad",
        "recommendedAction": "look", "eventTime": event["Timestamp"], "reportId": "1",
        "category": "Malware",
    });
    let raised = world.post("/api/alerts/createAlertByReference", token, alert).await;
    assert_eq!(raised.status, 200, "{}", raised.body);
    raised.body["id"].as_str().expect("an id").to_owned()
}

fn finding(kind: &str, sha1: &str, path: &str) -> Finding {
    Finding {
        kind: kind.to_owned(),
        entity: sha1.to_owned(),
        place: path.to_owned(),
        sha1: Some(sha1.to_owned()),
        path: Some(path.to_owned()),
        package: None,
    }
}

/// Waits for the order to look, and answers it.
async fn look(sensor: &TestSensor, findings: Vec<Finding>) -> InvestigatedEntities {
    let order = sensor.orders().await.remove(0);
    let Command::Investigate { entities } = order.command else { panic!("{order:?}") };
    assert_eq!(order.requestor, "Automated investigation");
    sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    let result = OrderResult { findings, ..OrderResult::of(OrderStatus::Succeeded) };
    let told = sensor.client.order_result(&sensor.token, order.id, &result).await;
    told.expect("taken");
    entities
}

/// Waits for the order to remove a file, and answers it.
async fn remove(sensor: &TestSensor, sha1: &str, result: OrderResult) -> Order {
    let order = sensor.orders().await.remove(0);
    match &order.command {
        Command::StopAndQuarantineFile { sha1: ordered, .. } => assert_eq!(ordered, sha1),
        other => panic!("{other:?}"),
    }
    sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    let told = sensor.client.order_result(&sensor.token, order.id, &result).await;
    told.expect("taken");
    order
}

/// An alert, once its investigation has a state.
async fn alert_with(world: &World, token: &str, id: &str, state: &str) -> Json {
    let mut last = Json::Null;
    for _ in 0..100 {
        last = world.get(&format!("/api/alerts/{id}"), token).await.body;
        if last["investigationState"] == state {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("not {state}: {last}");
}

async fn investigation(world: &World, token: &str, id: &str) -> Json {
    world.get(&format!("/api/investigations/{id}"), token).await.body
}

#[tokio::test]
async fn what_is_known_to_be_bad_is_removed_wherever_it_was_seen() {
    removed_everywhere(World::start().await).await;
}

/// The same on the other database, where the test command has started one.
#[tokio::test]
async fn postgresql_brings_investigations_to_the_same_end() {
    let Ok(url) = std::env::var("VIGIE_TEST_POSTGRES") else {
        eprintln!("left out: VIGIE_TEST_POSTGRES names no database");
        return;
    };
    let admin = vigie_database::Database::open_url(&url).await.expect("reached");
    admin.execute("DROP SCHEMA IF EXISTS investigations CASCADE", &[]).await.expect("dropped");
    admin.execute("CREATE SCHEMA investigations", &[]).await.expect("created");
    let (data, clock) = (tempfile::tempdir().expect("a folder"), Clock::default());
    let mut own = config(&data, &clock);
    own.database = Some(format!("{url}?options=-csearch_path%3Dinvestigations"));
    removed_everywhere(World::start_with(data, clock, own).await.expect("started")).await;
    admin.execute("DROP SCHEMA investigations CASCADE", &[]).await.expect("dropped");
}

async fn removed_everywhere(world: World) {
    automate(&world, "Full").await;
    let token = world.token_for(ALL).await;
    known(&world, &token, BAD, "Block").await;
    let first = machine(&world, "a.example", BAD, "/tmp/bad").await;
    let second = machine(&world, "b.example", BAD, "/opt/other").await;
    let third = machine(&world, "c.example", STRANGE, "/tmp/x").await;
    let id = alert(&world, &token, &first, "bad file").await;

    let entities = look(&first, vec![finding("File", BAD, "/tmp/bad")]).await;
    assert_eq!(
        (&*entities.sha1, &*entities.paths),
        (&[BAD.to_owned()][..], &["/tmp/bad".to_owned()][..])
    );
    // Each machine is asked for the places where it saw the file itself.
    let entities = look(&second, Vec::new()).await;
    assert!(entities.paths.contains(&"/opt/other".to_owned()), "{entities:?}");
    let running = alert_with(&world, &token, &id, "Running").await;
    let order = remove(&first, BAD, OrderResult::of(OrderStatus::Succeeded)).await;
    assert_eq!(order.requestor, "Automated investigation");
    let ended = alert_with(&world, &token, &id, "SuccessfullyRemediated").await;
    assert_eq!(ended["status"], "Resolved");
    assert_eq!(ended["investigationId"], running["investigationId"]);
    assert!(third.client.orders(&third.token, 0).await.expect("orders").orders.is_empty());

    let shown = investigation(&world, &token, &id).await;
    assert_eq!(shown["state"], "SuccessfullyRemediated");
    assert_eq!(shown["triggeringAlertId"], json!(id));
    assert_eq!(shown["id"], json!(ended["investigationId"].to_string()));
    let details = shown["statusDetails"].as_str().expect("a text");
    assert!(details.contains("2 of 2 machines"), "{details}");
    assert!(details.contains("/tmp/bad") && details.contains("Malicious, removed"), "{details}");
    // The removal is an action like any other.
    let action = world.get(&format!("/api/machineactions/{}", order.id), &token).await.body;
    assert_eq!(action["requestor"], "Automated investigation");
    assert_eq!(action["relatedFileInfo"]["fileIdentifier"], BAD);
    world.stop().await;
}

#[tokio::test]
async fn what_is_only_suspicious_waits_for_a_person() {
    let world = World::start().await;
    automate(&world, "Full").await;
    let token = world.token_for(ALL).await;
    let sensor = machine(&world, "a.example", STRANGE, "/tmp/strange").await;
    let id = alert(&world, &token, &sensor, "strange file").await;
    let findings = vec![
        finding("File", STRANGE, "/tmp/strange"),
        Finding { package: Some("tools".to_owned()), ..finding("Process", STRANGE, "/usr/bin/s") },
    ];
    look(&sensor, findings).await;
    alert_with(&world, &token, &id, "PendingApproval").await;
    let details = investigation(&world, &token, &id).await["statusDetails"].to_string();
    assert!(details.contains("Suspicious, waits for approval"), "{details}");
    assert!(details.contains("NoThreatsFound, part of the package tools"), "{details}");
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());

    // Approval is the action itself.
    let path = format!("/api/machines/{}/StopAndQuarantineFile", sensor.id());
    let given = world.post(&path, &token, json!({"Comment": "yes", "Sha1": STRANGE})).await;
    assert_eq!(given.status, 201, "{}", given.body);
    remove(&sensor, STRANGE, OrderResult::of(OrderStatus::Succeeded)).await;
    let ended = alert_with(&world, &token, &id, "SuccessfullyRemediated").await;
    assert_eq!(ended["status"], "Resolved");
    world.stop().await;
}

#[tokio::test]
async fn a_level_that_asks_for_core_folders_asks_for_all_copies_together() {
    let world = World::start().await;
    automate(&world, "SemiRequireApprovalForCoreFolders").await;
    let token = world.token_for(ALL).await;
    known(&world, &token, BAD, "Block").await;
    let sensor = machine(&world, "a.example", BAD, "/tmp/bad").await;
    let id = alert(&world, &token, &sensor, "bad file").await;
    let findings =
        vec![finding("File", BAD, "/tmp/bad"), finding("Autostart", BAD, "/etc/cron.d/b")];
    look(&sensor, findings).await;
    alert_with(&world, &token, &id, "PendingApproval").await;
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    // Whoever resolves the alert has decided, too.
    let resolved = json!({"status": "Resolved", "classification": "FalsePositive"});
    let path = format!("/api/alerts/{id}");
    world.call(reqwest::Method::PATCH, &path, &token, Some(resolved)).await;
    alert_with(&world, &token, &id, "TerminatedByUser").await;
    world.stop().await;
}

#[tokio::test]
async fn a_removal_that_fails_is_told() {
    let world = World::start().await;
    automate(&world, "Full").await;
    let token = world.token_for(ALL).await;
    known(&world, &token, BAD, "Block").await;
    let sensor = machine(&world, "a.example", BAD, "/tmp/bad").await;
    let id = alert(&world, &token, &sensor, "bad file").await;
    look(&sensor, vec![finding("File", BAD, "/tmp/bad")]).await;
    remove(&sensor, BAD, OrderResult::failed("the policy protects it", -1)).await;
    let ended = alert_with(&world, &token, &id, "Failed").await;
    assert_eq!(ended["status"], "New");
    let details = investigation(&world, &token, &id).await["statusDetails"].to_string();
    assert!(details.contains("could not be removed"), "{details}");
    world.stop().await;
}

#[tokio::test]
async fn an_alert_that_comes_meanwhile_belongs_to_the_same_investigation() {
    let world = World::start().await;
    automate(&world, "SemiRequireApprovalForAllFolders").await;
    let token = world.token_for(ALL).await;
    let mut sensor = machine(&world, "a.example", STRANGE, "/tmp/strange").await;
    let first = alert(&world, &token, &sensor, "first").await;
    let order = sensor.orders().await.remove(0);
    sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    // A second alert about another file, while the machine still looks for the first one.
    let time = world.clock.now().to_rfc3339();
    let row = json!({
        "Timestamp": time, "ReportId": 2, "ActionType": "FileCreated", "FileName": "late",
        "FolderPath": "/tmp/late", "SHA1": BAD,
    });
    sensor.send(json!({"DeviceFileEvents": [row]})).await;
    let reference = json!({
        "machineId": sensor.id(), "severity": "Low", "title": "second", "description": "d",
        "recommendedAction": "r", "eventTime": time, "reportId": "2", "category": "Malware",
    });
    let raised = world.post("/api/alerts/createAlertByReference", &token, reference).await;
    let second = raised.body["id"].as_str().expect("an id").to_owned();
    let joined = alert_with(&world, &token, &second, "Running").await;
    let one = world.get(&format!("/api/alerts/{first}"), &token).await.body;
    assert_eq!(joined["investigationId"], one["investigationId"]);
    sensor.tell(order.id, OrderStatus::Succeeded).await.expect("taken");
    let entities = look(&sensor, Vec::new()).await;
    assert_eq!(entities.sha1, [BAD], "what was looked for is looked for again");
    let ended = alert_with(&world, &token, &second, "Benign").await;
    assert_eq!(ended["status"], "Resolved");
    assert_eq!(alert_with(&world, &token, &first, "Benign").await["status"], "Resolved");
    let all = world.get("/api/investigations", &token).await.body;
    assert_eq!(all["value"].as_array().expect("a list").len(), 1, "{all}");
    world.stop().await;
}

#[tokio::test]
async fn machines_that_are_away_make_it_wait_and_then_partial() {
    let world = World::start().await;
    automate(&world, "Full").await;
    let token = world.token_for(ALL).await;
    let first = machine(&world, "a.example", STRANGE, "/tmp/strange").await;
    let _away = machine(&world, "b.example", STRANGE, "/tmp/strange").await;
    let id = alert(&world, &token, &first, "strange").await;
    look(&first, Vec::new()).await;
    world.clock.advance(TimeDelta::minutes(20));
    let token = world.token_for(ALL).await;
    alert_with(&world, &token, &id, "PendingResource").await;
    world.clock.advance(TimeDelta::hours(73));
    let token = world.token_for(ALL).await;
    let shown = investigation(&world, &token, &id).await;
    assert_eq!(shown["state"], "PartiallyInvestigated", "{shown}");
    let details = shown["statusDetails"].as_str().expect("a text");
    assert!(details.contains("1 of 2 machines") && details.contains("b.example: TimeOut"));
    world.stop().await;
}

#[tokio::test]
async fn nothing_starts_where_the_tenant_or_its_plan_wants_none() {
    let world = World::start().await;
    let token = world.token_for(ALL).await;
    let sensor = machine(&world, "a.example", STRANGE, "/tmp/strange").await;
    let id = alert(&world, &token, &sensor, "off by default").await;
    let shown = world.get(&format!("/api/alerts/{id}"), &token).await.body;
    assert_eq!(shown["investigationState"], "UnsupportedAlertType");
    assert_eq!(shown["investigationId"], Json::Null);
    let level = json!({"level": "Full"});
    set(&world, json!({"automation": level, "plan": "DefenderForEndpointPlan1"})).await;
    // That plan has no hunting either, so the alert is raised by an indicator.
    let indicator = json!({
        "indicatorValue": BAD, "indicatorType": "FileSha1", "action": "Audit", "title": "seen",
        "description": "d", "severity": "High", "generateAlert": true,
    });
    let made = world.post("/api/indicators", &token, indicator).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let other = machine(&world, "b.example", BAD, "/tmp/bad").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for sensor in [&sensor, &other] {
        assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    }
    let alerts = world.get("/api/alerts", &token).await.body;
    let alerts = alerts["value"].as_array().expect("a list");
    assert_eq!(alerts.len(), 2);
    assert!(alerts.iter().all(|alert| alert["investigationState"] == "UnsupportedAlertType"));
    world.stop().await;
}

/// The file is known since the first alert, its second place is not; and the first copy is not removed
/// before that place is known, since removing takes all copies.
#[tokio::test]
async fn a_copy_that_a_later_alert_names_is_looked_for_and_makes_the_first_one_wait() {
    let world = World::start().await;
    automate(&world, "SemiRequireApprovalForCoreFolders").await;
    let token = world.token_for(ALL).await;
    known(&world, &token, BAD, "Block").await;
    let mut sensor = machine(&world, "a.example", BAD, "/tmp/bad").await;
    // While a person has another file removed, the machine takes no second such order.
    let path = format!("/api/machines/{}/StopAndQuarantineFile", sensor.id());
    let given = world.post(&path, &token, json!({"Comment": "first", "Sha1": STRANGE})).await;
    assert_eq!(given.status, 201, "{}", given.body);
    let other = sensor.orders().await.remove(0);
    sensor.tell(other.id, OrderStatus::InProgress).await.expect("taken");

    let first = alert(&world, &token, &sensor, "first").await;
    look(&sensor, vec![finding("File", BAD, "/tmp/bad")]).await;
    let time = world.clock.now().to_rfc3339();
    let row = json!({
        "Timestamp": time, "ReportId": 2, "ActionType": "FileCreated", "FileName": "copy",
        "FolderPath": "/etc/copy", "SHA1": BAD,
    });
    sensor.send(json!({"DeviceFileEvents": [row]})).await;
    let reference = json!({
        "machineId": sensor.id(), "severity": "Low", "title": "second", "description": "d",
        "recommendedAction": "r", "eventTime": time, "reportId": "2", "category": "Malware",
    });
    let raised = world.post("/api/alerts/createAlertByReference", &token, reference).await;
    assert_eq!(raised.status, 200, "{}", raised.body);
    let entities = look(&sensor, vec![finding("File", BAD, "/etc/copy")]).await;
    assert_eq!(entities.sha1, [BAD], "without its hash the copy is not found");
    assert!(entities.paths.contains(&"/etc/copy".to_owned()), "{entities:?}");
    alert_with(&world, &token, &first, "PendingApproval").await;

    sensor.tell(other.id, OrderStatus::Succeeded).await.expect("taken");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn what_a_machine_leaves_out_is_not_taken_for_clean() {
    let world = World::start().await;
    automate(&world, "Full").await;
    let token = world.token_for(ALL).await;
    let sensor = machine(&world, "a.example", STRANGE, "/tmp/strange").await;
    let id = alert(&world, &token, &sensor, "strange").await;
    let order = sensor.orders().await.remove(0);
    sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    let result = OrderResult {
        error: Some("5 more findings were left out".to_owned()),
        ..OrderResult::of(OrderStatus::Succeeded)
    };
    let told = sensor.client.order_result(&sensor.token, order.id, &result).await;
    told.expect("taken");
    let ended = alert_with(&world, &token, &id, "PartiallyInvestigated").await;
    assert_eq!(ended["status"], "New");
    let details = investigation(&world, &token, &id).await["statusDetails"].to_string();
    assert!(details.contains("left out"), "{details}");
    world.stop().await;
}
