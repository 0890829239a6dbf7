//! The sensor protocol, used well and badly.

use crate::support::{TestSensor, World, report};
use chrono::TimeDelta;
use serde_json::{Value as Json, json};
use vigie_contract::sensor::*;
use vigie_sensor::client::CallError;

fn status(error: &CallError) -> u16 {
    match error {
        CallError::Refused { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn only_the_tenants_key_enrols_and_only_while_it_lasts() {
    let world = World::start().await;
    for key in ["", "wrong", &"0".repeat(64)] {
        let refused = TestSensor::enrol(&world, key, "a.example").await.err().expect("refused");
        assert_eq!(status(&refused), 401, "{key}");
    }
    let admin = world.administration_token().await;
    let path = format!("/admin/v1/tenants/{}/enrolmentkeys", world.first.tenant);
    let soon = (world.clock.now() + TimeDelta::minutes(1)).to_rfc3339();
    let key = world.post(&path, &admin, json!({"expires": soon})).await.body;
    let key = key["enrolmentKey"].as_str().expect("a key");
    let first = TestSensor::enrol(&world, key, "a.example").await.expect("enrolled");
    let again = TestSensor::enrol(&world, key, "a.example").await.expect("enrolled");
    assert_eq!(first.id(), again.id(), "the same installation is the same machine");
    world.clock.advance(TimeDelta::minutes(2));
    let late = TestSensor::enrol(&world, key, "b.example").await.err().expect("refused");
    assert_eq!(status(&late), 401);
    world.stop().await;
}

#[tokio::test]
async fn sessions_cannot_be_forged() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let session = |machine: &str, seconds: i64| SessionRequest {
        machine_id: machine.to_owned(),
        unix_seconds: seconds,
        signature: "AAAA".to_owned(),
    };
    let now = world.clock.now().timestamp();
    for request in
        [session(sensor.id(), now), session(sensor.id(), now - 3600), session("none", now)]
    {
        let refused = sensor.client.session(&request).await.expect_err("refused");
        assert!(matches!(status(&refused), 400 | 401), "{refused}");
    }
    let mut changed = sensor.token.clone();
    changed.replace_range(2..3, if &changed[2..3] == "A" { "B" } else { "A" });
    for token in ["", "a.b.c", changed.as_str(), &world.first_token().await] {
        let refused = sensor.client.orders(token, 0).await.expect_err("refused");
        assert_eq!(status(&refused), 401, "{token}");
    }
    assert!(sensor.client.orders(&sensor.token, 0).await.is_ok());
    world.clock.advance(TimeDelta::minutes(61));
    let late = sensor.client.orders(&sensor.token, 0).await.expect_err("refused");
    assert_eq!(status(&late), 401);
    world.stop().await;
}

#[tokio::test]
async fn a_batch_is_stored_once_and_bad_ones_change_nothing() {
    let world = World::start().await;
    let mut sensor = world.sensor("a.example").await;
    let token = world.first_token().await;
    let time = world.clock.now().to_rfc3339();
    let row = json!({"Timestamp": time, "ReportId": 1, "ActionType": "ProcessCreated", "FileName": "one"});
    let tables = json!({"DeviceProcessEvents": [row]});
    assert_eq!(sensor.send(tables.clone()).await.sequence, 1);
    for _ in 0..3 {
        assert_eq!(sensor.send_as(1, &tables).await.expect("acknowledged").sequence, 1);
    }
    let bad = [
        json!({"DeviceProcessEvents": [{"Timestamp": time, "NoSuchColumn": 1}]}),
        json!({"NoSuchTable": [{"Timestamp": time}]}),
        json!({"DeviceProcessEvents": [{"Timestamp": "noon"}]}),
        json!({"DeviceProcessEvents": [{"Timestamp": time, "ProcessId": "many"}]}),
        json!({"DeviceProcessEvents": 7}),
        json!([]),
    ];
    for tables in bad {
        let refused = sensor.send_as(2, &tables).await.expect_err("refused");
        assert_eq!(status(&refused), 400, "{tables}: {refused}");
        assert!(refused.is_bad_content());
    }
    let refused = sensor.client.telemetry(&sensor.token, 2, vec![1, 2, 3].into()).await;
    assert_eq!(status(&refused.expect_err("not zstd")), 400);
    // 64 MiB of blanks in a few kilobytes.
    let bomb = zstd::encode_all(vec![b' '; 64 << 20].as_slice(), 1).expect("compressed");
    let refused = sensor.client.telemetry(&sensor.token, 2, bomb.into()).await;
    assert_eq!(status(&refused.expect_err("too large")), 413);
    let rows = world.hunt(&token, "DeviceProcessEvents | summarize count() by FileName").await;
    assert_eq!(rows, [json!({"FileName": "one", "count_": 1})]);
    // A sensor cannot write another machine's rows.
    let other = json!({"DeviceProcessEvents": [{"Timestamp": time, "ReportId": 2, "FileName": "two", "DeviceId": "f".repeat(40)}]});
    match sensor.send_as(2, &other).await {
        Ok(_) => {
            let rows = world
                .hunt(&token, "DeviceProcessEvents | where FileName == 'two' | project DeviceId")
                .await;
            assert_eq!(rows, [json!({"DeviceId": sensor.id()})]);
        }
        Err(refused) => assert_eq!(status(&refused), 400),
    }
    world.stop().await;
}

async fn isolate(world: &World, token: &str, sensor: &TestSensor) -> (u16, Json) {
    let path = format!("/api/machines/{}/isolate", sensor.id());
    let answer =
        world.post(&path, token, json!({"Comment": "test", "IsolationType": "Full"})).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn an_order_goes_out_once_and_its_result_comes_back() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.first_token().await;
    // The sensor waits already when the order is given.
    let waiting = sensor.orders();
    let giving = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        isolate(&world, &token, &sensor).await
    };
    let (orders, (given, action)) = tokio::join!(waiting, giving);
    assert_eq!(given, 201, "{action}");
    assert_eq!(action["status"], "Pending");
    assert_eq!(action["type"], "Isolate");
    assert_eq!(action["requestorComment"], "test");
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].id.to_string(), action["id"].as_str().expect("an id"));
    assert_eq!(orders[0].machine_id, sensor.id());
    assert_eq!(orders[0].command, Command::Isolate { isolation_type: IsolationType::Full });
    let (again, refused) = isolate(&world, &token, &sensor).await;
    assert_eq!((again, &refused["error"]["code"]), (400, &json!("ActiveRequestAlreadyExists")));

    let path = format!("/api/machineactions/{}", action["id"].as_str().expect("an id"));
    let tell = async |status: OrderStatus, error: Option<&str>, code: i32| {
        let mut result = OrderResult::of(status);
        (result.error, result.error_code) = (error.map(str::to_owned), code);
        sensor.client.order_result(&sensor.token, orders[0].id, &result).await.expect("taken");
        world.get(&path, &token).await.body
    };
    assert_eq!(tell(OrderStatus::InProgress, None, 0).await["status"], "InProgress");
    let failed = tell(OrderStatus::Failed, Some("no firewall here"), -2147467259).await;
    assert_eq!(failed["status"], "Failed");
    assert_eq!(failed["errorHResult"], -2147467259);
    assert_eq!(failed["troubleshootInfo"], "no firewall here");
    // What has ended stays ended.
    assert_eq!(tell(OrderStatus::Succeeded, None, 0).await["status"], "Failed");

    world.select_each("/api/machines", &token).await;
    world.select_each("/api/machineactions", &token).await;

    // Another machine cannot answer for this one.
    let (_, action) = isolate(&world, &token, &sensor).await;
    let other = world.sensor("b.example").await;
    let result = OrderResult::of(OrderStatus::Succeeded);
    let id = action["id"].as_str().expect("an id").parse().expect("an id");
    let refused = other.client.order_result(&other.token, id, &result).await.expect_err("refused");
    assert_eq!(status(&refused), 404);
    assert!(other.client.orders(&other.token, 0).await.expect("orders").orders.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn bad_orders_are_refused_and_unfetched_ones_time_out() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.first_token().await;
    let path = format!("/api/machines/{}/isolate", sensor.id());
    for body in [
        json!({}),
        json!({"Comment": ""}),
        json!({"Comment": "c", "IsolationType": "Half"}),
        json!({"Comment": 7}),
    ] {
        let refused = world.post(&path, &token, body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
    }
    assert_eq!(world.get("/api/machineactions", &token).await.body["value"], json!([]));
    isolate(&world, &token, &sensor).await;
    world.clock.advance(TimeDelta::days(3) + TimeDelta::minutes(1));
    let token = world.first_token().await;
    let listed = world.get("/api/machineactions?$filter=status eq 'TimeOut'", &token).await.body;
    assert_eq!(listed["value"].as_array().expect("a list").len(), 1, "{listed}");
    world.stop().await;
}

#[tokio::test]
async fn a_new_report_replaces_the_old_one() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.first_token().await;
    let mut changed = report("renamed.example", world.clock.now());
    changed.version = Some("13".to_owned());
    sensor.client.report(&sensor.token, &changed).await.expect("taken");
    let machine = world.get(&format!("/api/machines/{}", sensor.id()), &token).await.body;
    assert_eq!(
        (&machine["computerDnsName"], &machine["version"]),
        (&json!("renamed.example"), &json!("13"))
    );
    world.stop().await;
}
