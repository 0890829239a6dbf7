//! Machine actions from the request to the end, investigations, and the trail that they leave.

use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};
use vigie_contract::sensor::*;

const ALL: &[&str] = &[
    "Machine.CollectForensics",
    "Machine.Isolate",
    "Machine.LiveResponse",
    "Machine.Offboard",
    "Machine.Read.All",
    "Machine.RestrictExecution",
    "Machine.Scan",
    "Machine.StopAndQuarantine",
    "AdvancedQuery.Read.All",
    "Alert.ReadWrite.All",
    "Library.Manage",
];
const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";

async fn act(
    world: &World,
    token: &str,
    machine: &str,
    operation: &str,
    body: Json,
) -> (u16, Json) {
    let path = format!("/api/machines/{machine}/{operation}");
    let answer = world.post(&path, token, body).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn every_operation_gives_its_order() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    world.upload(&token, "own.yar", b"rule a { condition: false }", &[]).await;
    let isolate = |isolation_type| Command::Isolate { isolation_type };
    let cases = [
        (
            "isolate",
            json!({"IsolationType": "Selective"}),
            "Isolate",
            json!("Selective"),
            isolate(IsolationType::Selective),
        ),
        ("unisolate", json!({}), "Unisolate", Json::Null, Command::Unisolate {}),
        (
            "restrictCodeExecution",
            json!({}),
            "RestrictCodeExecution",
            Json::Null,
            Command::RestrictCodeExecution {},
        ),
        (
            "unrestrictCodeExecution",
            json!({}),
            "UnrestrictCodeExecution",
            Json::Null,
            Command::UnrestrictCodeExecution {},
        ),
        (
            "collectInvestigationPackage",
            json!({}),
            "CollectInvestigationPackage",
            Json::Null,
            Command::CollectInvestigationPackage {},
        ),
        (
            "StopAndQuarantineFile",
            json!({"Sha1": SHA1.to_uppercase()}),
            "StopAndQuarantineFile",
            Json::Null,
            Command::StopAndQuarantineFile { sha1: SHA1.to_owned(), known_paths: Vec::new() },
        ),
        ("offboard", json!({}), "Offboard", Json::Null, Command::Offboard {}),
    ];
    for (operation, mut body, kind, scope, expected) in cases {
        body["Comment"] = "because".into();
        body["ExternalId"] = "ticket 7".into();
        let (status, action) = act(&world, &token, sensor.id(), operation, body).await;
        assert_eq!(status, if kind == "Offboard" { 200 } else { 201 }, "{operation}: {action}");
        assert_eq!((&action["type"], &action["scope"]), (&json!(kind), &scope));
        assert_eq!(action["requestor"], "tests");
        assert_eq!(action["externalId"], "ticket 7");
        assert_eq!(action["requestorComment"], "because");
        let file = &action["relatedFileInfo"];
        match kind {
            "StopAndQuarantineFile" => {
                assert_eq!(*file, json!({"fileIdentifier": SHA1, "fileIdentifierType": "Sha1"}));
            }
            _ => assert!(file.is_null()),
        }
        let order = sensor.orders().await.remove(0);
        assert_eq!(order.command, expected);
        assert_eq!(order.requestor, "tests");
        sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    }
    let scan = json!({"Comment": "c", "ScanType": "Full"});
    let (_, action) = act(&world, &token, sensor.id(), "runAntiVirusScan", scan).await;
    assert_eq!(action["scope"], "Full");
    let order = sensor.orders().await.remove(0);
    let Command::RunAntiVirusScan { scan_type, rules } = &order.command else {
        panic!("{order:?}")
    };
    assert_eq!((*scan_type, rules[0].name.as_str()), (ScanType::Full, "own.yar"));
    let file = sensor.client.order_file(&sensor.token, order.id, &rules[0].sha256).await;
    assert!(file.expect("the rules").starts_with(b"rule a"));
    let stranger = world.token_for(&["Machine.Read.All"]).await;
    let (status, _) =
        act(&world, &stranger, sensor.id(), "offboard", json!({"Comment": "c"})).await;
    assert_eq!(status, 403);
    world.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_is_ordered() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let cases = [
        ("isolate", json!({"Comment": "c", "IsolationType": "UnManagedDevice"}), "InvalidInput"),
        ("runAntiVirusScan", json!({"Comment": "c"}), "MissingRequiredParameter"),
        ("runAntiVirusScan", json!({"Comment": "c", "ScanType": "Slow"}), "InvalidRequestBody"),
        ("StopAndQuarantineFile", json!({"Comment": "c"}), "MissingRequiredParameter"),
        ("StopAndQuarantineFile", json!({"Comment": "c", "Sha1": "xyz"}), "InvalidHashValue"),
        ("offboard", json!({"Comment": " "}), "InvalidRequestBody"),
        ("collectInvestigationPackage", json!({}), "MissingRequiredParameter"),
        ("startInvestigation", json!({"Comment": ""}), "InvalidRequestBody"),
    ];
    for (operation, body, code) in cases {
        let (status, answer) = act(&world, &token, sensor.id(), operation, body.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{operation} {body}");
    }
    let (status, _) = act(&world, &token, "none", "offboard", json!({"Comment": "c"})).await;
    assert_eq!(status, 404);
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn what_no_sensor_began_is_cancelled_at_once() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let (_, action) = act(&world, &token, sensor.id(), "isolate", json!({"Comment": "c"})).await;
    let path = format!("/api/machineactions/{}/cancel", action["id"].as_str().expect("an id"));
    // The sensor has it already but has not begun.
    let id = sensor.orders().await[0].id;
    let other = world.token_for(&["Machine.Scan", "Machine.Read.All"]).await;
    let refused = world.post(&path, &other, json!({"Comment": "no"})).await;
    assert_eq!(refused.status, 403, "the permission of another type suffices");
    let cancelled = world.post(&path, &token, json!({"Comment": "wrong machine"})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    assert_eq!(cancelled.body["status"], "Cancelled");
    assert_eq!(cancelled.body["cancellationComment"], "wrong machine");
    assert_eq!(cancelled.body["cancellationRequestor"], "tests");
    assert!(cancelled.body["cancellationDateTimeUtc"].is_string());
    let begun = sensor.tell(id, OrderStatus::InProgress).await;
    assert!(begun.is_err_and(|error| error.is_order_over()), "a cancelled order began");
    assert_eq!(world.post(&path, &token, json!({})).await.status, 400, "cancelled twice");
    let unknown = format!("/api/machineactions/{}/cancel", uuid::Uuid::new_v4());
    assert_eq!(world.post(&unknown, &token, json!({})).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn what_runs_is_stopped_by_the_sensor() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let scan = json!({"Comment": "c", "ScanType": "Quick"});
    act(&world, &token, sensor.id(), "runAntiVirusScan", scan).await;
    let id = sensor.orders().await[0].id;
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    let cancel = format!("/api/machineactions/{id}/cancel");
    let asked = world.call(Method::POST, &cancel, &token, None).await.body;
    assert_eq!(asked["status"], "InProgress", "{asked}");
    let order = sensor.orders().await.remove(0);
    assert_eq!(order.command, Command::Cancel { action_id: id });
    assert_eq!(order.requestor, "tests");
    assert_eq!(sensor.orders().await[0].id, order.id, "one wish is two orders");
    sensor.tell(id, OrderStatus::Cancelled).await.expect("taken");
    let action = world.get(&format!("/api/machineactions/{id}"), &token).await.body;
    assert_eq!(action["status"], "Cancelled");
    assert!(sensor.client.orders(&sensor.token, 0).await.expect("orders").orders.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn an_order_that_never_ends_times_out_and_says_so() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    act(&world, &token, sensor.id(), "isolate", json!({"Comment": "c"})).await;
    let id = sensor.orders().await[0].id;
    // Two days offline do not count against the time that the order itself may take.
    world.clock.advance(TimeDelta::days(2));
    let sensor = world.sensor("a.example").await;
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    world.clock.advance(TimeDelta::minutes(50));
    let path = format!("/api/machineactions/{id}");
    let token = world.token_for(ALL).await;
    assert_eq!(world.get(&path, &token).await.body["status"], "InProgress");
    world.clock.advance(TimeDelta::minutes(20));
    let token = world.token_for(ALL).await;
    let action = world.get(&path, &token).await.body;
    assert_eq!(action["status"], "TimeOut");
    assert!(action["troubleshootInfo"].as_str().expect("a text").contains("did not end"));
    // The kind is free again.
    let (status, _) = act(&world, &token, sensor.id(), "isolate", json!({"Comment": "c"})).await;
    assert_eq!(status, 201);
    world.stop().await;
}

#[tokio::test]
async fn every_order_and_its_requester_are_in_the_log_and_in_hunting() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    act(&world, &token, sensor.id(), "isolate", json!({"Comment": "due to 7"})).await;
    let id = sensor.orders().await[0].id;
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    sensor.tell(id, OrderStatus::Succeeded).await.expect("taken");
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{}/responselog", world.first.tenant);
    let log = world.get(&path, &admin).await.body;
    let mut entries: Vec<(&str, &str)> = (log["value"].as_array().expect("a log").iter())
        .map(|entry| (entry["event"].as_str().unwrap(), entry["actor"].as_str().unwrap()))
        .collect();
    entries.reverse();
    let expected = [("Requested", "tests"), ("InProgress", "sensor"), ("Succeeded", "sensor")];
    assert_eq!(entries, expected, "{log}");
    let query = "CloudAppEvents | where ActionType == 'Isolate' | extend d = parse_json(RawEventData) \
                 | project ActivityType, AccountDisplayName, ObjectName, Comment = tostring(d.comment)";
    let mut rows = Vec::new();
    // Not so often that the quota of hunting is reached.
    for _ in 0..20 {
        rows = world.hunt(&token, query).await;
        if rows.len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let requested = rows.iter().find(|row| row["ActivityType"] == "Requested").expect("a row");
    assert_eq!(requested["AccountDisplayName"], "tests");
    assert_eq!(requested["ObjectName"], "a.example");
    assert_eq!(requested["Comment"], "due to 7");
    assert_eq!(rows.len(), 3, "{rows:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_a_sensor_refused_is_in_the_log_and_in_hunting() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let claimed = uuid::Uuid::new_v4();
    let refusal = Refusal {
        claimed_id: Some(claimed),
        reason: "the signature is not of this tenant's order key".to_owned(),
    };
    sensor.client.order_refused(&sensor.token, &refusal).await.expect("taken");
    let nameless = Refusal { claimed_id: None, reason: "x".repeat(5000) };
    sensor.client.order_refused(&sensor.token, &nameless).await.expect("taken");
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{}/responselog", world.first.tenant);
    let log = world.get(&path, &admin).await.body;
    let entries = log["value"].as_array().expect("a log");
    assert_eq!(entries.len(), 2, "{log}");
    let entry = entries.iter().find(|entry| entry["actionId"] == claimed.to_string());
    let entry = entry.expect("the claimed id");
    assert_eq!((&entry["event"], &entry["actor"]), (&json!("Refused"), &json!("sensor")));
    assert_eq!(entry["detail"]["machineId"], sensor.id());
    assert!(entry["detail"]["error"].as_str().expect("a reason").contains("signature"));
    assert!(entries.iter().all(|entry| entry.to_string().len() < 2000), "a reason without bound");
    let query = "CloudAppEvents | where ActivityType == 'Refused' and ObjectName == 'a.example'";
    let mut rows = Vec::new();
    for _ in 0..20 {
        rows = world.hunt(&token, query).await;
        if rows.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_eq!(rows.len(), 2, "{rows:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_out_of_bounds_is_not_stored() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let operation = "collectInvestigationPackage";
    act(&world, &token, sensor.id(), operation, json!({"Comment": "c"})).await;
    let id = sensor.orders().await[0].id;
    let client = &sensor.client;
    let piece = |bytes: Vec<u8>| client.upload_piece(&sensor.token, (id, 0), 0, bytes.into());
    assert!(piece(b"early".to_vec()).await.is_err_and(|error| error.is_order_over()));
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    assert!(piece(vec![0; UPLOAD_PIECE_BYTES + 1]).await.is_err_and(|e| e.is_bad_content()));
    piece(b"PK".to_vec()).await.expect("stored");
    for name in ["../package.zip", "/etc/passwd", "..", "a\\b"] {
        let end = UploadEnd { name: name.to_owned(), size: 2, sha256: sha256_of(b"PK") };
        let ended = client.upload_end(&sensor.token, (id, 0), &end).await;
        assert!(ended.is_err_and(|error| error.is_bad_content()), "{name} was taken");
    }
    // Another machine's sensor has no part in it.
    let other = world.sensor("b.example").await;
    assert!(other.tell(id, OrderStatus::Succeeded).await.is_err_and(|error| error.is_order_over()));
    let end = UploadEnd { name: "p.zip".to_owned(), size: 2, sha256: sha256_of(b"PK") };
    assert!(other.client.upload_end(&other.token, (id, 0), &end).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn the_package_is_downloaded_by_a_link_once_it_is_there() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    let operation = "collectInvestigationPackage";
    act(&world, &token, sensor.id(), operation, json!({"Comment": "c"})).await;
    let id = sensor.orders().await[0].id;
    let path = format!("/api/machineactions/{id}/GetPackageUri");
    assert_eq!(world.get(&path, &token).await.status, 404);
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    let bytes = b"PK not really".to_vec();
    let client = &sensor.client;
    client.upload_piece(&sensor.token, (id, 0), 0, bytes.clone().into()).await.expect("stored");
    let sha256 = sha256_of(&bytes);
    let end = UploadEnd { name: "package.zip".to_owned(), size: bytes.len() as u64, sha256 };
    client.upload_end(&sensor.token, (id, 0), &end).await.expect("whole");
    assert_eq!(world.get(&path, &token).await.status, 404, "before the action has ended");
    sensor.tell(id, OrderStatus::Succeeded).await.expect("taken");
    // Two links a minute are what the documentation allows.
    world.clock.advance(chrono::TimeDelta::seconds(61));
    let answer = world.get(&path, &token).await.body;
    let link = answer["value"].as_str().expect("a link");
    let response = world.http.get(link).send().await.expect("answered");
    let disposition = response.headers()["content-disposition"].to_str().expect("a text");
    assert_eq!(disposition, "attachment; filename=\"package.zip\"");
    assert_eq!(response.bytes().await.expect("a body"), bytes);
    world.stop().await;
}

fn sha256_of(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_offboarded_machine_gets_no_session_any_more() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(ALL).await;
    act(&world, &token, sensor.id(), "offboard", json!({"Comment": "c"})).await;
    let id = sensor.orders().await[0].id;
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    sensor.tell(id, OrderStatus::Succeeded).await.expect("taken");
    assert!(sensor.renew(&world).await.is_err(), "the key is still taken");
    world.stop().await;
}

#[tokio::test]
async fn an_investigation_looks_where_the_file_was_seen_and_tells_what_it_found() {
    let world = World::start().await;
    let mut first = world.sensor("a.example").await;
    let mut second = world.sensor("b.example").await;
    let token = world.token_for(ALL).await;
    let seen = async |sensor: &mut TestSensor| {
        let row = json!({
            "Timestamp": world.clock.now().to_rfc3339(), "ReportId": 1,
            "ActionType": "ProcessCreated", "FileName": "bad", "FolderPath": "/tmp/bad",
            "SHA1": SHA1, "ProcessId": 7, "ProcessCommandLine": "/tmp/bad",
        });
        sensor.send(json!({"DeviceProcessEvents": [row]})).await;
    };
    seen(&mut first).await;
    seen(&mut second).await;
    world.sensor("c.example").await;
    let event = world
        .hunt(&token, "DeviceProcessEvents | where DeviceName == 'a.example' | take 1")
        .await
        .remove(0);
    let alert = json!({
        "machineId": first.id(), "severity": "High", "title": "bad", "description": "bad",
        "recommendedAction": "look", "eventTime": event["Timestamp"], "reportId": "1",
        "category": "Malware",
    });
    let raised = world.post("/api/alerts/createAlertByReference", &token, alert).await;
    assert_eq!(raised.status, 200, "{}", raised.body);

    let start = json!({"Comment": "look into it"});
    let (status, started) = act(&world, &token, first.id(), "startInvestigation", start).await;
    assert_eq!(status, 201, "{started}");
    assert_eq!((&started["state"], &started["machineId"]), (&json!("Running"), &json!(first.id())));
    let answer = async |sensor: &TestSensor, package: Option<&str>| {
        let order = sensor.orders().await.remove(0);
        let Command::Investigate { entities } = &order.command else { panic!("{order:?}") };
        assert_eq!(entities.sha1, [SHA1]);
        sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
        let mut result = OrderResult::of(OrderStatus::Succeeded);
        result.findings = vec![Finding {
            kind: "File".to_owned(),
            entity: SHA1.to_owned(),
            place: "/tmp/bad".to_owned(),
            sha1: Some(SHA1.to_owned()),
            path: Some("/tmp/bad".to_owned()),
            package: package.map(str::to_owned),
        }];
        let told = sensor.client.order_result(&sensor.token, order.id, &result).await;
        told.expect("taken");
    };
    answer(&first, Some("coreutils")).await;
    let path = format!("/api/investigations/{}", started["id"].as_str().expect("an id"));
    assert_eq!(world.get(&path, &token).await.body["state"], "Running", "one machine is open");
    answer(&second, None).await;
    let ended = world.get(&path, &token).await.body;
    assert_eq!(ended["state"], "PendingApproval", "{ended}");
    assert!(ended["endTime"].is_string());
    let details = ended["statusDetails"].as_str().expect("a text");
    assert!(details.contains("2 of 2 machines") && details.contains("coreutils"), "{details}");
    assert!(details.contains("b.example: File /tmp/bad"), "{details}");
    let alert = started["triggeringAlertId"].as_str().expect("an alert");
    let by_alert = world.get(&format!("/api/investigations/{alert}"), &token).await.body;
    assert_eq!(by_alert["id"], started["id"]);
    assert_eq!(world.get(&format!("/api/alerts/{alert}"), &token).await.status, 200);
    let filter = "/api/investigations?$filter=state eq 'PendingApproval'";
    assert_eq!(world.get(filter, &token).await.body["value"].as_array().expect("a list").len(), 1);
    // Its orders are no machine actions.
    assert_eq!(world.get("/api/machineactions", &token).await.body["value"], json!([]));
    world.stop().await;
}
