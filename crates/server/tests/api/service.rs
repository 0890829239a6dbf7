//! Plans, trials, limits, injected faults, the clock and what is remembered of writes.

use crate::support::{Answer, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};

const EVERYTHING: &[&str] =
    &["Machine.ReadWrite.All", "AdvancedQuery.Read.All", "Alert.ReadWrite.All", "Library.Manage"];

async fn set(world: &World, settings: Json) -> Answer {
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{}/service", world.first.tenant);
    world.call(Method::PUT, &path, &admin, Some(settings)).await
}

#[tokio::test]
async fn plans_and_trials_decide_what_answers() {
    let world = World::start().await;
    let token = world.token_for(EVERYTHING).await;
    let hunt =
        async || world.post("/api/advancedqueries/run", &token, json!({"Query": "print 1"})).await;
    let machines = async || world.get("/api/machines", &token).await;
    assert_eq!((hunt().await.status, machines().await.status), (200, 200));
    for plan in ["DefenderForBusiness", "DefenderForEndpointPlan1"] {
        assert_eq!(set(&world, json!({"plan": plan})).await.status, 200);
        let refused = hunt().await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (403, &json!("DisabledFeature"))
        );
        assert_eq!(machines().await.status, 200, "{plan}");
    }
    assert_eq!(set(&world, json!({"plan": "DefenderXdr"})).await.status, 200);
    assert_eq!(hunt().await.status, 200);
    let end = world.clock.now() + TimeDelta::minutes(10);
    assert_eq!(set(&world, json!({"trialEnds": end.to_rfc3339()})).await.status, 200);
    assert_eq!(machines().await.status, 200);
    world.clock.advance(TimeDelta::minutes(11));
    let ended = machines().await;
    assert_eq!(ended.status, 401);
    let message = ended.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains("Account mode is inactive"), "{message}");
    world.stop().await;
}

#[tokio::test]
async fn an_application_that_calls_too_often_waits() {
    let world = World::start().await;
    let (token, other) = (world.token_for(EVERYTHING).await, world.token_for(EVERYTHING).await);
    for _ in 0..100 {
        assert_eq!(world.get("/api/machines/none", &token).await.status, 404);
    }
    let refused = world.get("/api/machines/none", &token).await;
    assert_eq!((refused.status, &refused.body["error"]["code"]), (429, &json!("TooManyRequests")));
    let wait: i64 =
        refused.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let message = refused.body["error"]["message"].as_str().expect("a message");
    let text = "API calls quota exceeded! Maximum allowed 100 per 00:01:00 for the key \
                Destination+TenantID+AppID.";
    assert!(message.starts_with(text), "{message}");
    assert_eq!(world.get("/api/machines", &token).await.status, 200, "another operation");
    assert_eq!(world.get("/api/machines/none", &other).await.status, 404, "another application");
    world.clock.advance(TimeDelta::seconds(wait));
    assert_eq!(world.get("/api/machines/none", &token).await.status, 404);
    // Testers set other limits, or none.
    assert_eq!(set(&world, json!({"throttling": {"perMinute": 1}})).await.status, 200);
    assert_eq!(world.get("/api/alerts", &token).await.status, 200);
    assert_eq!(world.get("/api/alerts", &token).await.status, 429);
    assert_eq!(set(&world, json!({"throttling": {"enabled": false}})).await.status, 200);
    for _ in 0..120 {
        assert_eq!(world.get("/api/machines/none", &token).await.status, 404);
    }
    world.stop().await;
}

#[tokio::test]
async fn testers_inject_faults_and_move_the_clock() {
    let world = World::start().await;
    let token = world.token_for(EVERYTHING).await;
    let faults = json!({"faults": [
        {"status": 503, "every": 2, "operation": "machines.list", "retryAfter": 7},
        {"status": 429, "every": 1, "operation": "alerts.list"},
    ]});
    assert_eq!(set(&world, faults).await.status, 200);
    let machines = async || world.get("/api/machines", &token).await;
    let statuses = [machines().await.status, machines().await.status, machines().await.status];
    assert_eq!(statuses, [200, 503, 200]);
    let third = machines().await;
    assert_eq!((third.status, third.headers["retry-after"].as_bytes()), (503, b"7".as_slice()));
    assert_eq!(world.get("/api/alerts", &token).await.status, 429);
    assert_eq!(world.get("/api/machineactions", &token).await.status, 200);
    for bad in [
        json!({"faults": [{"status": 200, "every": 1}]}),
        json!({"faults": [{"status": 503, "every": 0}]}),
        json!({"faults": [{"status": 503, "every": 1, "operation": "machines.fly"}]}),
        json!({"latencyMilliseconds": 100_000_000}),
        json!({"plan": "Everything"}),
        json!({"colour": "red"}),
    ] {
        assert_eq!(set(&world, bad.clone()).await.status, 400, "{bad}");
    }
    let admin = world.administration_token().await;
    let clock = world.post("/admin/v1/clock", &admin, json!({"advanceSeconds": 7200})).await;
    assert_eq!(clock.status, 200, "{}", clock.body);
    assert_eq!(world.get("/api/machines", &token).await.status, 401, "the token has expired");
    // Nobody but the administration.
    for path in
        ["/admin/v1/clock".to_owned(), format!("/admin/v1/tenants/{}/service", world.first.tenant)]
    {
        assert_eq!(world.get(&path, &token).await.status, 401, "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn writes_are_remembered_with_who_and_what_became_of_them() {
    let world = World::start().await;
    let token = world.first_token().await;
    let sensor = world.sensor("elm.tests.example").await;
    let path = format!("/api/machines/{}/tags", sensor.id());
    let body = json!({"Value": "secret tag", "Action": "Add"});
    assert_eq!(world.post(&path, &token, body).await.status, 200);
    assert_eq!(
        world
            .post("/api/machines/none/tags", &token, json!({"Value": "x", "Action": "Add"}))
            .await
            .status,
        404
    );
    world.get("/api/machines", &token).await;
    let admin = world.administration_token().await;
    let list = format!("/admin/v1/tenants/{}/writes", world.first.tenant);
    let writes = world.get(&list, &admin).await.body;
    let writes = writes["value"].as_array().expect("a list");
    assert_eq!(writes.len(), 2, "{writes:?}");
    let statuses: Vec<&Json> = writes.iter().map(|write| &write["status"]).collect();
    assert_eq!(statuses, [&json!(404), &json!(200)], "newest first");
    assert_eq!(writes[1]["operation"], "machines.tags.set");
    assert_eq!(writes[1]["path"], path.as_str());
    assert_eq!(writes[1]["actor"], "First application");
    assert!(!writes[1].to_string().contains("secret tag"), "bodies are not kept");
    assert_eq!(
        world.get(&format!("{list}?top=1"), &admin).await.body["value"].as_array().map(Vec::len),
        Some(1)
    );
    world.stop().await;
}
