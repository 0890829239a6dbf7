//! Custom detections: administered, run, and what they raise.

use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

fn rule(name: &str, query: &str) -> Json {
    json!({
        "displayName": name, "frequency": "1H", "query": query, "title": format!("{name} happened"),
        "severity": "low", "category": "Execution", "techniques": ["T1059.004"],
        "impactedEntities": [{"type": "device", "column": "DeviceId"}],
    })
}

const QUERY: &str = "DeviceProcessEvents | where FileName == 'strange' | project Timestamp, DeviceId, \
                     ReportId, FileName, ProcessId, AccountName";

#[tokio::test]
async fn rules_are_kept_run_and_raise_alerts() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let token = world.first_token().await;
    let base = format!("/admin/v1/tenants/{}/detections", world.first.tenant);
    let mut sensor = world.sensor("elm.tests.example").await;
    let old = world.clock.now() - TimeDelta::days(20);
    sensor.process(old, "strange", "strange --old").await;
    let made = world.post(&base, &admin, rule("Strange", QUERY)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!((&made.body["severity"], &made.body["builtIn"]), (&json!("Low"), &json!(false)));
    let path = format!("{base}/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(world.post(&base, &admin, rule("Strange", QUERY)).await.status, 409);
    let alerts = async || {
        let list = world.get("/api/alerts?$expand=evidence", &token).await.body;
        list["value"].as_array().expect("a list").clone()
    };
    let ran = world.post(&format!("{path}/run"), &admin, json!({})).await;
    assert_eq!(ran.body["lastRunStatus"], "Completed", "{}", ran.body);
    let first = alerts().await;
    assert_eq!(first.len(), 1, "the first run looks back 30 days");
    assert_eq!(first[0]["title"], "Strange happened");
    assert_eq!(first[0]["computerDnsName"], "elm.tests.example");
    assert_eq!(first[0]["mitreTechniques"], json!(["T1059.004"]));
    assert_eq!(first[0]["relatedUser"]["userName"], "mira");
    // Later runs look back four hours; an event is found once.
    sensor.process(world.clock.now() - TimeDelta::hours(5), "strange", "strange --late").await;
    let ran = world.post(&format!("{path}/run"), &admin, json!({})).await;
    assert_eq!(ran.status, 200);
    let before = alerts().await[0]["evidence"].as_array().map(Vec::len);
    sensor.process(world.clock.now(), "strange", "strange --now").await;
    world.post(&format!("{path}/run"), &admin, json!({})).await;
    let after = alerts().await;
    assert_eq!(after.len(), 1, "the open alert takes further events in");
    assert!(after[0]["evidence"].as_array().map(Vec::len) > before, "{after:?}");

    let mut changed = rule("Stranger", QUERY);
    changed["enabled"] = false.into();
    let replaced = world.call(Method::PUT, &path, &admin, Some(changed)).await;
    assert_eq!(
        (&replaced.body["displayName"], &replaced.body["nextRun"]),
        (&json!("Stranger"), &Json::Null)
    );
    let listed = world.get(&base, &admin).await.body;
    let listed = listed["value"].as_array().expect("a list");
    assert_eq!(listed.iter().filter(|rule| rule["builtIn"] == true).count(), 13);
    assert_eq!(listed.len(), 14);
    let built_in = format!("{base}/{}", listed[0]["id"].as_str().expect("an id"));
    assert_eq!(world.get(&built_in, &admin).await.status, 200);
    assert_eq!(world.call(Method::DELETE, &built_in, &admin, None).await.status, 403);
    assert_eq!(world.call(Method::DELETE, &path, &admin, None).await.status, 204);
    assert_eq!(world.get(&path, &admin).await.status, 404);
    assert_eq!(alerts().await.len(), 1, "its alerts stay");
    world.stop().await;
}

/// A rule that is due runs by itself, soon after it was made.
#[tokio::test]
async fn a_new_rule_runs_by_itself() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let token = world.first_token().await;
    let base = format!("/admin/v1/tenants/{}/detections", world.first.tenant);
    let mut sensor: TestSensor = world.sensor("elm.tests.example").await;
    sensor.process(world.clock.now(), "strange", "strange").await;
    let mut continuous = rule("Strange", QUERY);
    continuous["frequency"] = "0".into();
    assert_eq!(world.post(&base, &admin, continuous).await.status, 201);
    for _ in 0..60 {
        let count = world.get("/api/alerts/$count", &token).await.body;
        if count == json!(1) {
            world.stop().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("no alert in half a minute");
}

#[tokio::test]
async fn rules_that_could_never_raise_are_refused() {
    let world = World::start().await;
    let admin = world.administration_token().await;
    let base = format!("/admin/v1/tenants/{}/detections", world.first.tenant);
    for (query, named) in [
        ("DeviceProcesEvents | take 1", "DeviceProcesEvents"),
        ("DeviceProcessEvents | project Timestamp, DeviceId", "ReportId"),
        ("DeviceProcessEvents | summarize count() by DeviceId", "Timestamp"),
        ("", "query"),
    ] {
        let refused = world.post(&base, &admin, rule("x", query)).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.body);
        let message = refused.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(named), "{query}: {message}");
    }
    for (member, value) in [
        ("severity", json!("Terrible")),
        ("category", json!("Gardening")),
        ("techniques", json!(["Phishing"])),
        ("frequency", json!("2H")),
        ("title", json!("")),
        ("impactedEntities", json!([{"type": "user", "column": "AccountSid"}])),
        ("impactedEntities", json!([{"type": "device", "column": "FileName"}])),
    ] {
        let mut body = rule("x", QUERY);
        body[member] = value;
        let refused = world.post(&base, &admin, body).await;
        assert_eq!(refused.status, 400, "{member}: {}", refused.body);
    }
    let mut continuous =
        rule("x", "DeviceProcessEvents | join kind=inner DeviceInfo on DeviceId | take 1");
    continuous["frequency"] = "0".into();
    let refused = world.post(&base, &admin, continuous).await;
    assert!(refused.body["error"]["message"].as_str().expect("text").contains("join"));
    world.stop().await;
}
