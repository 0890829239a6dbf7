//! What shipped connectors do from start to end, call by call.

use crate::odata::alert;
use crate::support::{World, answer};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

const ALERTS: &[&str] =
    &["Alert.ReadWrite.All", "Machine.ReadWrite.All", "Machine.Isolate", "User.Read.All"];

/// A list over all its pages, as clients follow them: by absolute links.
async fn all(world: &World, path: &str, token: &str) -> Vec<Json> {
    let (mut rows, mut path) = (Vec::new(), path.to_owned());
    loop {
        let page = world.get(&path, token).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        rows.extend(page.body["value"].as_array().expect("a list").clone());
        match page.body["@odata.nextLink"].as_str() {
            Some(next) => path = next[world.url.len()..].to_owned(),
            None => return rows,
        }
    }
}

/// Cortex XSOAR: asks every minute for alerts that were made since the last one, oldest first, with
/// blanks as plus signs that are percent-encoded once more.
#[tokio::test]
async fn a_playbook_server_polls_alerts_and_acts() {
    let world = World::start().await;
    let (id, secret) = world.application(ALERTS).await;
    let tenant = world.first.tenant.to_string();
    let scope = "https://securitycenter.onmicrosoft.com/windowsatpservice";
    let token = world.token(&tenant, &id, &secret, scope).await;
    assert_eq!(world.get("/api/alerts?$top=1", &token).await.body["value"], json!([]));
    let mut sensor = world.sensor("elm.tests.example").await;
    let mut since =
        (world.clock.now() - TimeDelta::days(3)).format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let mut fetched: Vec<String> = Vec::new();
    for round in 0..4 {
        if round < 3 {
            alert(&world, &token, &mut sensor, &format!("round {round}")).await;
        }
        let filter = format!(
            "alertCreationTime%2Bgt%2B{since} and ((status%2Beq%2B'New') or (status%2Beq%2B'InProgress')) and \
             ((severity%2Beq%2B'Medium') or (severity%2Beq%2B'High'))"
        );
        let path = format!(
            "/api/alerts?$filter={filter}&$orderby=alertCreationTime asc&$top=50&$expand=evidence"
        );
        let page = world.get(&path, &token).await;
        assert_eq!(page.status, 200, "{}", page.body);
        for found in page.body["value"].as_array().expect("a list") {
            fetched.push(found["id"].as_str().expect("an id").to_owned());
            since = found["alertCreationTime"].as_str().expect("a time").to_owned();
            assert!(found["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty()));
            for name in ["incidentId", "investigationState", "detectionSource", "aadTenantId"] {
                assert!(!found[name].is_null(), "{name}");
            }
        }
        world.clock.advance(TimeDelta::minutes(1));
    }
    assert_eq!(fetched.len(), 3, "each once: {fetched:?}");
    let path = format!("/api/alerts/{}", fetched[0]);
    let body =
        json!({"status": "Resolved", "assignedTo": "a@b.c", "comment": "closed by a playbook"});
    assert_eq!(world.call(Method::PATCH, &path, &token, Some(body)).await.status, 200);
    let machine = sensor.id();
    let body = json!({"Comment": "playbook", "IsolationType": "Full"});
    let action = world.post(&format!("/api/machines/{machine}/isolate"), &token, body).await;
    assert_eq!(action.status, 201, "{}", action.body);
    let filter = format!("machineId eq '{machine}' and type eq 'Isolate' and status eq 'Pending'");
    let actions = world.get(&format!("/api/machineactions?$top=50&$filter={filter}"), &token).await;
    assert_eq!(actions.body["value"][0]["id"], action.body["id"]);
    world.stop().await;
}

/// Filebeat: the cursor is the time of change of the last row read, with all its digits.
#[tokio::test]
async fn a_collector_follows_changes_by_its_cursor() {
    let world = World::start().await;
    let token = world.token_for(ALERTS).await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let mut cursor =
        (world.clock.now() - TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%S.0000000Z").to_string();
    let mut read: Vec<(String, String)> = Vec::new();
    let mut poll = async |read: &mut Vec<(String, String)>| {
        let path = format!("/api/alerts?$expand=evidence&$filter=lastUpdateTime gt {cursor}");
        for row in all(&world, &path, &token).await {
            let time = row["lastUpdateTime"].as_str().expect("a time").to_owned();
            cursor.clone_from(&time);
            read.push((row["id"].as_str().expect("an id").to_owned(), time));
        }
    };
    for title in ["one", "two", "three"] {
        alert(&world, &token, &mut sensor, title).await;
        world.clock.advance(TimeDelta::milliseconds(1500));
    }
    poll(&mut read).await;
    assert_eq!(read.len(), 3);
    poll(&mut read).await;
    assert_eq!(read.len(), 3, "what was read does not come again");
    let path = format!("/api/alerts/{}", read[0].0);
    let body = json!({"comment": "changed"});
    assert_eq!(world.call(Method::PATCH, &path, &token, Some(body)).await.status, 200);
    poll(&mut read).await;
    assert_eq!((read.len(), &read[3].0), (4, &read[0].0), "what changed comes again");
    // Machines by $top and $skip until a page is short.
    for name in ["a", "b", "c", "d"] {
        world.sensor(&format!("{name}.tests.example")).await;
    }
    let (mut skip, mut machines) = (0, 0);
    loop {
        let page = world.get(&format!("/api/machines?$top=2&$skip={skip}"), &token).await.body;
        let number = page["value"].as_array().expect("a list").len();
        machines += number;
        skip += 2;
        if number < 2 {
            break;
        }
    }
    assert_eq!(machines, 5);
    let since = "lastUpdateDateTimeUtc gt 2024-05-01T10:00:00.123456789Z";
    let path = format!(
        "/api/machineactions?$filter={since}&$orderby=lastUpdateDateTimeUtc asc&$top=1000&$skip=0"
    );
    assert_eq!(world.get(&path, &token).await.body["value"], json!([]));
    world.stop().await;
}

/// OpenCTI: probes its rights, reads all, brings its own indicators, removes what is gone.
#[tokio::test]
async fn an_intelligence_platform_keeps_its_indicators_in_step() {
    let world = World::start().await;
    let (id, secret) = world.application(&["Ti.ReadWrite.All"]).await;
    // The scope is the base address that the connector was given.
    let token = world
        .token(
            &world.first.tenant.to_string(),
            &id,
            &secret,
            "https://api.securitycenter.microsoft.com",
        )
        .await;
    assert_eq!(world.get("/api/indicators?$top=1", &token).await.status, 200);
    let probe = world.post("/api/indicators/import", &token, json!({"Indicators": []})).await;
    assert_eq!(probe.status, 400, "400 counts as allowed");
    let wanted: Vec<Json> = (0..40)
        .map(|at| {
            json!({
                "indicatorType": "DomainName", "indicatorValue": format!("bad{at}.example"),
                "application": "OpenCTI", "action": "Audit", "title": "o'clock", "description": "d",
                "externalId": format!("indicator--{at}"), "lastUpdateTime": "2024-01-01T00:00:00Z",
                "expirationTime": (world.clock.now() + TimeDelta::days(30)).to_rfc3339(),
                "severity": "High", "generateAlert": true, "educateUrl": "https://help.example",
                "rbacGroupNames": [], "rbacGroupIds": [], "recommendedActions": "r",
            })
        })
        .collect();
    let import = world.post("/api/indicators/import", &token, json!({"Indicators": wanted})).await;
    let rows = import.body["value"].as_array().expect("rows");
    assert!(rows.iter().all(|row| row["isFailed"] == false), "{}", import.body);
    let mine = all(&world, "/api/indicators?pageSize=15", &token).await;
    assert_eq!(mine.len(), 40);
    assert!(mine.iter().all(|row| row["application"] == "OpenCTI" && row["id"].is_string()));
    let one = "/api/indicators?$filter=indicatorValue eq 'bad7.example' and title eq 'o''clock'";
    let found = world.get(one, &token).await.body["value"][0].clone();
    let mut again = wanted[7].clone();
    again["severity"] = "Low".into();
    again["id"] = found["id"].clone();
    let updated = world.post("/api/indicators", &token, again).await;
    assert_eq!((updated.status, &updated.body["id"]), (200, &found["id"]));
    assert_eq!(updated.body["severity"], "Low");
    let ids: Vec<&Json> = mine.iter().take(20).map(|row| &row["id"]).collect();
    let gone =
        world.post("/api/indicators/BatchDelete", &token, json!({"IndicatorIds": ids})).await;
    assert_eq!(gone.status, 204);
    let six = "'bad30.example','bad31.example','bad1.example','x.example'";
    let path = format!("/api/indicators?$filter=indicatorValue%20in%20[{six}]");
    assert_eq!(all(&world, &path, &token).await.len(), 2);
    world.stop().await;
}

/// TheHive's responder: finds a machine, prefers its Entra device id, isolates it, and reads the
/// refusal of the second try.
#[tokio::test]
async fn a_responder_isolates_by_name_and_address() {
    let world = World::start().await;
    let token = world.token_for(&["Machine.Read.All", "Machine.Isolate", "Ti.ReadWrite"]).await;
    let sensor = world.sensor("elm.tests.example").await;
    let by_name = "/api/v1.0/machines?$filter=computerDnsName+eq+'elm.tests.example'";
    let found = world.get(by_name, &token).await.body["value"][0].clone();
    assert_eq!(found["aadDeviceId"], Json::Null);
    let now = world.clock.now().format("%Y-%m-%dT%H:%M:%SZ");
    let by_ip = format!("/api/v1.0/machines/findbyip(ip='192.0.2.17',timestamp={now})");
    assert_eq!(world.get(&by_ip, &token).await.body["value"][0]["id"], sensor.id());
    let device = uuid::Uuid::from_u128(9);
    let mut report = crate::support::report("elm.tests.example", world.clock.now());
    report.aad_device_id = Some(device);
    sensor.client.report(&sensor.token, &report).await.expect("reported");
    let isolate = json!({"Comment": "Isolated by a responder", "IsolationType": "Full"});
    let path = format!("/api/v1.0/machines/{device}/isolate");
    let first = world.post(&path, &token, isolate.clone()).await;
    assert_eq!((first.status, &first.body["machineId"]), (201, &json!(sensor.id())));
    let second = world
        .request(Method::POST, &path)
        .bearer_auth(&token)
        .json(&isolate)
        .send()
        .await
        .expect("answered");
    assert_eq!(second.status().as_u16(), 400);
    let text = second.text().await.expect("a body");
    assert!(text.contains("ActiveRequestAlreadyExists"), "{text}");
    assert!(text.contains(r#""message":"Action is already in progress""#), "compact JSON: {text}");
    let block = json!({
        "indicatorValue": "bad.example", "indicatorType": "DomainName", "action": "Block",
        "title": "t", "severity": "High", "description": "d", "recommendedActions": "r",
        "generateAlert": false,
    });
    assert_eq!(world.post("/api/v1.0/indicators", &token, block).await.status, 200);
    world.stop().await;
}

/// Nagios' check, PowerShell modules and a Go exporter: names, chosen properties, other spellings.
#[tokio::test]
async fn scripts_look_machines_up_in_their_own_spelling() {
    let world = World::start().await;
    let token = world.token_for(ALERTS).await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let raised = alert(&world, &token, &mut sensor, "first").await;
    let host = "/api/machines?$filter=ComputerDNSName eq 'elm.tests.example'&$select=id";
    assert_eq!(world.get(host, &token).await.body["value"], json!([{"id": sensor.id()}]));
    let some = "/api/machines?$select=id,computerDnsName,onboardingStatus,osPlatform";
    assert_eq!(world.get(some, &token).await.body["value"][0]["onboardingStatus"], "Onboarded");
    let incident =
        format!("/api/alerts?$filter=incidentId eq {}&$expand=evidence", raised["incidentId"]);
    assert_eq!(world.get(&incident, &token).await.body["value"][0]["id"], raised["id"]);
    let wide = "/api/alerts?$expand=evidence&$orderby=alertCreationTime desc&$select=status,title,machineId,\
                computerDnsName,incidentId,alertCreationTime,firstEventTime,lastEventTime,lastUpdateTime,severity";
    assert_eq!(world.get(wide, &token).await.body["value"][0]["title"], "first");
    for path in [
        "/api/alerts?sinceTimeUtc=2024-05-01T00:00:00.0000000Z".to_owned(),
        "/api/machines/elm.tests.example".to_owned(),
        "/api/machineactions/?$filter=type eq 'Isolate'".to_owned(),
        "/api/machines/findByTag/?tag=office".to_owned(),
        format!("/api/Alerts/{}", raised["id"].as_str().expect("an id")),
        format!("//api//machines/{}/logonUsers/", sensor.id()),
        "/api/machines?$filter=healthStatus eq 'Active'&pageSize=500".to_owned(),
        "/api/alerts?$filter=alertCreationTime ge 2024-05-01T00:00:00%2B00:00".to_owned(),
    ] {
        let found = world.get(&path, &token).await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
    }
    // A JSON body on a GET is no offence.
    let request = world.request(Method::GET, "/api/machines").bearer_auth(&token).json(&json!({}));
    assert_eq!(answer(request).await.status, 200);
    let body = json!({"Comment": "c", "Status": "InProgress", "Classification": "TruePositive",
        "assignedTo": "x", "Determination": "Malware"});
    let path = format!("/api/alerts/{}/", raised["id"].as_str().expect("an id"));
    let patched = world.call(Method::PATCH, &path, &token, Some(body)).await;
    assert_eq!((patched.status, &patched.body["determination"]), (200, &json!("Malware")));
    world.stop().await;
}
