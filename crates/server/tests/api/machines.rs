//! Machines: found by address and tag, changed one by one and many at once, merged.

use crate::support::{TestSensor, World, report};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value as Json, json};
use uuid::Uuid;

fn ids(answer: &Json) -> Vec<&str> {
    let value = answer["value"].as_array().unwrap_or_else(|| panic!("no list: {answer}"));
    value.iter().map(|machine| machine["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn machines_are_found_by_the_address_that_they_had() {
    let world = World::start().await;
    let token = world.first_token().await;
    let sensor = world.sensor("elm.tests.example").await;
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let then = world.clock.now();
    let find = async |text: &str| world.get(&format!("/api/machines/{text}"), &token).await;
    for (minutes, found) in [(0, 1), (14, 1), (-14, 1), (20, 0), (-20, 0)] {
        let at = time(then + TimeDelta::minutes(minutes));
        let answer = find(&format!("findbyip(ip='192.0.2.17',timestamp={at})")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(ids(&answer.body).len(), found, "{minutes} minutes");
    }
    let at = time(then);
    let other = find(&format!("findbyip(ip='192.0.2.18',timestamp={at})")).await;
    assert_eq!(other.body["value"], json!([]));
    let older = find(&format!("find(timestamp={at},key='192.0.2.17')")).await;
    assert_eq!(ids(&older.body), [sensor.id()]);
    let older = find(&format!("find(timestamp={at},key='192.0.2.18')")).await;
    assert_eq!(older.status, 404);
    for (bad, code) in [
        (format!("findbyip(ip='192.0.2',timestamp={at})"), "InvalidIpAddress"),
        ("findbyip(ip='192.0.2.17',timestamp=noon)".to_owned(), "BadRequest"),
        (
            format!("findbyip(ip='192.0.2.17',timestamp={})", time(then - TimeDelta::days(31))),
            "BadRequest",
        ),
    ] {
        let refused = find(&bad).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (400, &json!(code)), "{bad}");
    }
    // An address that a machine has no longer is found at its time, and not now.
    world.clock.advance(TimeDelta::hours(5));
    let mut moved = report("elm.tests.example", world.clock.now());
    moved.ip_addresses[0].ip_address = "192.0.2.99".to_owned();
    let session = TestSensor::enrol(&world, &world.first.enrolment_key, "elm.tests.example").await;
    let session = session.expect("enrolled");
    session.client.report(&session.token, &moved).await.expect("reported");
    let token = world.first_token().await;
    for (address, at, found) in
        [("192.0.2.17", then, 1), ("192.0.2.99", world.clock.now(), 1), ("192.0.2.99", then, 0)]
    {
        let path = format!("/api/machines/findbyip(ip='{address}',timestamp={})", time(at));
        assert_eq!(ids(&world.get(&path, &token).await.body).len(), found, "{address} {at}");
    }
    world.stop().await;
}

#[tokio::test]
async fn tags_and_values_of_one_and_of_many() {
    let world = World::start().await;
    let token = world.first_token().await;
    let (one, two) = (world.sensor("a.tests.example").await, world.sensor("b.tests.example").await);
    let many = async |body: Json| {
        world.post("/api/machines/AddOrRemoveTagForMultipleMachines", &token, body).await
    };
    let both = json!({"Value": "Lab room", "Action": "Add", "MachineIds": [one.id(), two.id()]});
    let tagged = many(both).await;
    assert_eq!(tagged.status, 200, "{}", tagged.body);
    assert!(tagged.body["value"][1]["machineTags"].to_string().contains("Lab room"));
    let by_tag =
        async |query: &str| world.get(&format!("/api/machines/findByTag/?{query}"), &token).await;
    for (query, found) in [
        ("tag=Lab room", 2),
        ("tag=Lab", 0),
        ("tag=Lab&useStartsWithFilter=true", 2),
        ("tag=lab&useStartsWithFilter=true", 0),
        ("tag=Lab&useStartsWithFilter=false", 0),
    ] {
        assert_eq!(ids(&by_tag(query).await.body).len(), found, "{query}");
    }
    assert_eq!(by_tag("").await.body["error"]["code"], "MissingRequiredParameter");
    assert_eq!(by_tag("tag=x&useStartsWithFilter=maybe").await.status, 400);
    let unknown = json!({"Value": "x", "Action": "Add", "MachineIds": [one.id(), "none"]});
    assert_eq!(many(unknown).await.status, 404);
    let too_many = json!({"Value": "x", "Action": "Add", "MachineIds": vec!["a"; 501]});
    assert_eq!(many(too_many).await.body["error"]["code"], "MaximumBatchSizeExceeded");
    assert_eq!(many(json!({"Value": "x", "Action": "Add"})).await.status, 400);

    let path = format!("/api/machines/{}", one.id());
    let value =
        world.post(&format!("{path}/setDeviceValue"), &token, json!({"DeviceValue": "high"})).await;
    assert_eq!(value.body["deviceValue"], "High", "{}", value.body);
    let bad = json!({"DeviceValue": "Precious"});
    assert_eq!(world.post(&format!("{path}/setDeviceValue"), &token, bad).await.status, 400);
    let body = json!({"machineTags": ["x", "x", "y"], "deviceValue": "Low"});
    let patched = world.call(Method::PATCH, &path, &token, Some(body)).await.body;
    assert_eq!(patched["machineTags"], json!(["x", "y"]), "the given tags replace all");
    assert_eq!(patched["deviceValue"], "Low");
    let kept = world.call(Method::PATCH, &path, &token, Some(json!({}))).await.body;
    assert_eq!((&kept["machineTags"], &kept["deviceValue"]), (&json!(["x", "y"]), &json!("Low")));
    let bad = world.call(Method::PATCH, &path, &token, Some(json!({"machineTags": [""]}))).await;
    assert_eq!(bad.status, 400);
    world.select_each("/api/machines", &token).await;
    world.stop().await;
}

#[tokio::test]
async fn a_device_that_enrols_again_is_one_machine() {
    let world = World::start().await;
    let token = world.first_token().await;
    let device = Uuid::from_u128(77);
    let report_as = async |name: &str| {
        let sensor = world.sensor(name).await;
        let report = vigie_contract::sensor::MachineReport {
            aad_device_id: Some(device),
            computer_dns_name: "same.tests.example".to_owned(),
            ..report(name, world.clock.now())
        };
        sensor.client.report(&sensor.token, &report).await.expect("reported");
        sensor
    };
    let old = report_as("first installation").await;
    let by_device = async || world.get(&format!("/api/machines/{device}"), &token).await.body;
    assert_eq!(by_device().await["id"], old.id());
    assert_eq!(by_device().await["isAadJoined"], true);
    world.clock.advance(TimeDelta::minutes(30));
    let new = report_as("second installation").await;
    assert_eq!(by_device().await["id"], new.id(), "the Entra device id leads to the living one");
    assert_eq!(world.get("/api/machines/SAME.tests.example", &token).await.body["id"], new.id());
    let merged = world.get(&format!("/api/machines/{}", old.id()), &token).await.body;
    assert_eq!(merged["mergedIntoMachineId"], new.id());
    assert_eq!(by_device().await["mergedIntoMachineId"], Json::Null);
    assert_eq!(by_device().await["isPotentialDuplication"], false);
    let twin = world.sensor("third").await;
    let twin_report = report("same.tests.example", world.clock.now());
    twin.client.report(&twin.token, &twin_report).await.expect("reported");
    assert_eq!(by_device().await["isPotentialDuplication"], true, "another one of that name");
    let filter = "/api/machines?$filter=mergedIntoMachineId ne null";
    assert_eq!(ids(&world.get(filter, &token).await.body), [old.id()]);
    world.stop().await;
}
