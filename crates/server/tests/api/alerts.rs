//! Alerts: changed in their many spellings and many at once; what they are about.

use crate::odata::{SHA1, alert};
use crate::support::{DEFENDER, World, answer};
use reqwest::Method;
use serde_json::{Value as Json, json};

const READERS: &[&str] = &[
    "Alert.ReadWrite.All",
    "URL.Read.All",
    "Ip.Read.All",
    "File.Read.All",
    "Machine.Read.All",
    "User.Read.All",
    "AdvancedQuery.Read.All",
];

#[tokio::test]
async fn alerts_are_changed_in_every_spelling_and_many_at_once() {
    let world = World::start().await;
    let token = world.first_token().await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let first = alert(&world, &token, &mut sensor, "first").await;
    let second = alert(&world, &token, &mut sensor, "second").await;
    let id = first["id"].as_str().expect("an id");
    let patch = async |body: Json| {
        world.call(Method::PATCH, &format!("/api/alerts/{id}/"), &token, Some(body)).await
    };
    for (classification, determination, stored) in [
        ("TruePositive", "Multi staged attack", ("TruePositive", "MultiStagedAttack")),
        ("truePositive", "CompromisedUser", ("TruePositive", "CompromisedUser")),
        (
            "Informational, expected activity",
            "ConfirmedUserActivity",
            ("InformationalExpectedActivity", "ConfirmedActivity"),
        ),
        (
            "InformationalExpectedActivity",
            "SecurityTest",
            ("InformationalExpectedActivity", "SecurityTesting"),
        ),
        ("FalsePositive", "Clean", ("FalsePositive", "NotMalicious")),
        ("FalsePositive", "NotMalicious", ("FalsePositive", "NotMalicious")),
        ("False positive", "InsufficientData", ("FalsePositive", "InsufficientData")),
    ] {
        let body = json!({"Classification": classification, "determination": determination});
        let changed = patch(body).await;
        assert_eq!(changed.status, 200, "{classification}: {}", changed.body);
        let found = (&changed.body["classification"], &changed.body["determination"]);
        assert_eq!(found, (&json!(stored.0), &json!(stored.1)), "{classification}");
    }
    for withdrawn in ["Apt", "SecurityPersonnel"] {
        let refused = patch(json!({"determination": withdrawn})).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        let message = refused.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains("MultiStagedAttack"), "{message}");
    }
    let ids = json!([first["id"], second["id"]]);
    let batch = async |body: Json| world.post("/api/alerts/batchUpdate", &token, body).await;
    let body = json!({
        "alertIds": ids, "status": "Resolved", "assignedTo": "sec@tests.example",
        "classification": "FalsePositive", "determination": "Malware", "comment": "both",
    });
    let changed = batch(body).await;
    assert_eq!((changed.status, changed.body), (200, json!("")));
    for alert in [&first, &second] {
        let path = format!("/api/alerts/{}", alert["id"].as_str().expect("an id"));
        let now = world.get(&path, &token).await.body;
        assert_eq!(now["status"], "Resolved");
        assert_eq!(now["assignedTo"], "sec@tests.example");
        assert_eq!(now["comments"][0]["comment"], "both");
        assert_eq!(now["comments"][0]["createdBy"], "First application");
        assert!(now["resolvedTime"].is_string());
    }
    let reopened = patch(json!({"status": "InProgress"})).await.body;
    assert_eq!(reopened["resolvedTime"], Json::Null);
    for (bad, status) in [
        (json!({"alertIds": [], "status": "New"}), 400),
        (json!({"status": "New"}), 400),
        (json!({"alertIds": [id, "none"], "status": "New"}), 404),
        (json!({"alertIds": id, "status": "New"}), 400),
        (json!({"alertIds": [id], "status": "Sleeping"}), 400),
    ] {
        assert_eq!(batch(bad.clone()).await.status, status, "{bad}");
    }
    let still = world.get(&format!("/api/alerts/{id}"), &token).await.body;
    assert_eq!(still["status"], "InProgress", "none is changed where one is wrong");
    world.stop().await;
}

#[tokio::test]
async fn alerts_lead_to_what_they_are_about() {
    let world = World::start().await;
    let token = world.token_for(READERS).await;
    let mut sensor = world.sensor("elm.tests.example").await;
    let raised = alert(&world, &token, &mut sensor, "first").await;
    assert_eq!(raised["loggedOnUsers"], json!([{"accountName": "mira", "domainName": "tests"}]));
    // The same title on the same machine is the same alert, while it is open.
    let again = alert(&world, &token, &mut sensor, "first").await;
    assert_eq!(again["id"], raised["id"]);
    let id = raised["id"].as_str().expect("an id");
    let about = async |what: &str| {
        let found = world.get(&format!("/api/alerts/{id}/{what}"), &token).await;
        assert_eq!(found.status, 200, "{what}: {}", found.body);
        found.body
    };
    assert_eq!(about("domains").await["value"], json!([{"host": "www.bad.example"}]));
    assert_eq!(about("ips").await["value"], json!([{"id": "198.51.100.9"}]));
    let files = about("files?$select=sha1").await;
    assert_eq!(files["value"], json!([{"sha1": SHA1}]));
    assert_eq!(about("files?$filter=sha1 eq 'x'").await["value"], json!([]));
    assert_eq!(about("machine").await["id"], sensor.id());
    let user = about("user").await;
    assert_eq!(user["id"], "tests\\mira");
    assert_eq!(user["accountSid"], "1000");
    assert_eq!(user["logOnMachinesCount"], 1);
    assert_eq!(user["mostPrevalentMachineId"], sensor.id());
    for (path, expected) in [
        (format!("/api/files/{SHA1}/alerts"), 1),
        ("/api/domains/www.bad.example/alerts".to_owned(), 1),
        ("/api/domains/other.example/alerts".to_owned(), 0),
        ("/api/ips/198.51.100.9/alerts?$filter=severity eq 'High'".to_owned(), 1),
        ("/api/ips/203.0.113.9/alerts".to_owned(), 0),
        ("/api/users/MIRA/alerts".to_owned(), 1),
        ("/api/users/nobody/alerts".to_owned(), 0),
        (format!("/api/machines/{}/alerts", sensor.id()), 1),
        (format!("/api/files/{}/alerts", "0".repeat(40)), 0),
    ] {
        let found = world.get(&path, &token).await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
        assert_eq!(found.body["value"].as_array().map(Vec::len), Some(expected), "{path}");
    }
    for what in ["domains", "ips", "files", "machine", "user"] {
        let missing = world.get(&format!("/api/alerts/none/{what}"), &token).await;
        assert_eq!(missing.status, 404, "{what}");
        assert_eq!(missing.body["error"]["code"], "ResourceNotFound");
    }
    for (path, code) in [
        ("/api/files/xyz/alerts", "InvalidHashValue"),
        ("/api/domains/nothing/alerts", "InvalidDomainName"),
        ("/api/ips/1.2.3/alerts", "InvalidIpAddress"),
    ] {
        let refused = world.get(path, &token).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (400, &json!(code)), "{path}");
    }
    world.stop().await;
}

/// Several tries of a client end in one answer each, and permission is asked before the body.
#[tokio::test]
async fn a_body_is_looked_at_after_the_permission() {
    let world = World::start().await;
    let token = world.token_for(&["Alert.Read.All"]).await;
    let broken = |token: &str| {
        world
            .request(Method::POST, "/api/alerts/batchUpdate")
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body("{")
    };
    assert_eq!(answer(broken(&token)).await.status, 403);
    let (id, secret) = world.application(&["Alert.ReadWrite.All"]).await;
    let token = world.token(&world.first.tenant.to_string(), &id, &secret, DEFENDER).await;
    assert_eq!(answer(broken(&token)).await.status, 400);
    world.stop().await;
}
