//! Live response sessions at the API, with a sensor at the level of the protocol.

use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use vigie_contract::sensor::*;
use vigie_sensor::client::CallError;

const PERMISSIONS: &[&str] = &["Machine.LiveResponse", "Machine.Read.All", "Library.Manage"];

fn get(path: &str) -> Json {
    json!({"type": "GetFile", "params": [{"key": "Path", "value": path}]})
}

async fn session(world: &World, token: &str, machine: &str, commands: Json) -> (u16, Json) {
    // The documentation writes this path in a way of its own.
    let path = format!("/API/machines/{machine}/runliveresponse");
    let answer = world.post(&path, token, json!({"Commands": commands, "Comment": "look"})).await;
    (answer.status, answer.body)
}

async fn download(world: &World, link: &str) -> (u16, Vec<u8>) {
    let response = world.http.get(link).send().await.expect("answered");
    (response.status().as_u16(), response.bytes().await.expect("a body").to_vec())
}

#[tokio::test]
async fn a_session_goes_to_the_sensor_and_its_results_come_back() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(PERMISSIONS).await;
    world.upload(&token, "tool", b"a tool", &[]).await;
    world.upload(&token, "look.sh", b"echo hi", &[]).await;
    let run = json!({"type": "RunScript", "params": [
        {"key": "ScriptName", "value": "look.sh"}, {"key": "Args", "value": "-a b"}]});
    let put = json!({"type": "PutFile", "params": [{"key": "FileName", "value": "tool"}]});
    let (status, action) =
        session(&world, &token, sensor.id(), json!([put, run, get("/tmp/x")])).await;
    assert_eq!(status, 201, "{action}");
    assert_eq!((&action["type"], &action["status"]), (&json!("LiveResponse"), &json!("Pending")));
    let first = &action["commands"][1];
    assert_eq!((&first["index"], &first["commandStatus"]), (&json!(1), &json!("Created")));
    assert_eq!(
        (&first["command"], &first["startTime"], &first["errors"]),
        (&run, &Json::Null, &json!([]))
    );
    let (again, refused) = session(&world, &token, sensor.id(), json!([get("/tmp/x")])).await;
    assert_eq!((again, &refused["error"]["code"]), (400, &json!("ActiveRequestAlreadyExists")));

    let order = sensor.orders().await.remove(0);
    let Command::LiveResponse { commands } = &order.command else { panic!("{order:?}") };
    let LiveCommand::RunScript { script, args } = &commands[1] else { panic!("{commands:?}") };
    assert_eq!(args, "-a b");
    sensor.tell(order.id, OrderStatus::InProgress).await.expect("taken");
    let file = sensor.client.order_file(&sensor.token, order.id, &script.sha256).await;
    assert_eq!(file.expect("the script").as_ref(), b"echo hi");
    let foreign = sensor.client.order_file(&sensor.token, order.id, &"0".repeat(64)).await;
    assert!(foreign.is_err_and(|error| error.is_order_over()));

    let transcript = vec![7u8; UPLOAD_PIECE_BYTES + 5];
    upload(&sensor, order.id, 1, &transcript).await;
    let now = world.clock.now();
    let step = |index, status, errors: &[&str]| CommandOutcome {
        index,
        status,
        started: now,
        ended: Some(now),
        errors: errors.iter().map(|error| (*error).to_owned()).collect(),
    };
    let mut result = OrderResult::failed("command 2 failed: no such file", -1);
    result.commands = vec![
        step(0, CommandStatus::Completed, &[]),
        step(1, CommandStatus::Completed, &[]),
        step(2, CommandStatus::Failed, &["no such file"]),
    ];
    sensor.client.order_result(&sensor.token, order.id, &result).await.expect("taken");
    let path = format!("/api/machineactions/{}", order.id);
    let action = world.get(&path, &token).await.body;
    assert_eq!(action["status"], "Failed");
    let states: Vec<&Json> =
        (0..3).map(|index| &action["commands"][index]["commandStatus"]).collect();
    assert_eq!(states, ["Completed", "Completed", "Failed"]);
    assert_eq!(action["commands"][2]["errors"], json!(["no such file"]));
    assert!(action["commands"][0]["startTime"].is_string());

    let link = |index: i64| format!("{path}/GetLiveResponseResultDownloadLink(index={index})");
    assert_eq!(world.get(&link(0), &token).await.status, 404, "PutFile has no result");
    let answer = world.get(&link(1), &token).await;
    let url = answer.body["value"].as_str().expect("a link").to_owned();
    assert_eq!(download(&world, &url).await, (200, transcript));
    let forged = url.replace("/1?", "/2?");
    assert_eq!(download(&world, &forged).await.0, 403);
    let longer = url.replace("expires=1", "expires=2");
    assert_eq!(download(&world, &longer).await.0, 403);
    let (_, stranger, _) = world.second_tenant(PERMISSIONS).await;
    assert_eq!(world.get(&link(1), &stranger).await.status, 404);
    world.clock.advance(TimeDelta::minutes(31));
    assert_eq!(download(&world, &url).await.0, 403, "the link has no end");
    world.stop().await;
}

/// Sends as a sensor does that is interrupted: asks, sends pieces, one of them twice.
async fn upload(sensor: &TestSensor, id: uuid::Uuid, position: usize, bytes: &[u8]) {
    let (client, token) = (&sensor.client, sensor.token.as_str());
    let piece = async |offset: usize, bytes: &[u8]| {
        let bytes = bytes.to_vec().into();
        let stored = client.upload_piece(token, (id, position), offset as u64, bytes).await;
        stored.map(|stored| stored.received as usize)
    };
    assert_eq!(piece(0, &[]).await.expect("asked"), 0);
    let (first, second) = bytes.split_at(UPLOAD_PIECE_BYTES);
    assert_eq!(piece(0, first).await.expect("stored"), first.len());
    assert_eq!(piece(0, first).await.expect("not stored again"), first.len());
    assert_eq!(piece(9999, second).await.expect("not stored"), first.len());
    assert_eq!(piece(first.len(), second).await.expect("stored"), bytes.len());
    let too_large = vec![0; UPLOAD_PIECE_BYTES + 1];
    assert!(piece(bytes.len(), &too_large).await.is_err());
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let end = UploadEnd { name: "result.json".to_owned(), size: bytes.len() as u64, sha256 };
    client.upload_end(token, (id, position), &end).await.expect("whole");
    let named = UploadEnd { name: "../result".to_owned(), ..end };
    assert!(client.upload_end(token, (id, position), &named).await.is_err());
}

#[tokio::test]
async fn an_upload_with_another_hash_is_dropped() {
    let world = World::start().await;
    let (sensor, other) = (world.sensor("a.example").await, world.sensor("b.example").await);
    let token = world.token_for(PERMISSIONS).await;
    session(&world, &token, sensor.id(), json!([get("/tmp/x")])).await;
    let id = sensor.orders().await[0].id;
    let piece = async |sensor: &TestSensor| {
        sensor.client.upload_piece(&sensor.token, (id, 0), 0, vec![1, 2, 3].into()).await
    };
    assert!(piece(&sensor).await.is_err_and(|error| error.is_order_over()), "before it began");
    sensor.tell(id, OrderStatus::InProgress).await.expect("taken");
    assert!(piece(&other).await.is_err_and(|error| error.is_order_over()), "another machine's");
    piece(&sensor).await.expect("stored");
    let end = UploadEnd { name: "x".to_owned(), size: 3, sha256: "0".repeat(64) };
    let refused = sensor.client.upload_end(&sensor.token, (id, 0), &end).await.expect_err("wrong");
    assert!(matches!(refused, CallError::Refused { status: 422, .. }), "{refused}");
    assert_eq!(piece(&sensor).await.expect("stored anew").received, 3);
    let link = format!("/api/machineactions/{id}/GetLiveResponseResultDownloadLink(index=0)");
    assert_eq!(world.get(&link, &token).await.status, 404, "it never ended");
    world.stop().await;
}

#[tokio::test]
async fn commands_out_of_order_or_unknown_are_refused() {
    let world = World::start().await;
    let sensor = world.sensor("a.example").await;
    let token = world.token_for(PERMISSIONS).await;
    world.upload(&token, "tool", b"a tool", &[]).await;
    let put =
        |name: &str| json!({"type": "PutFile", "params": [{"key": "FileName", "value": name}]});
    let twice = json!({"type": "GetFile", "params": [
        {"key": "Path", "value": "/a"}, {"key": "Path", "value": "/b"}]});
    let cases = [
        (json!([]), 400),
        (json!([get("/x"), put("tool")]), 400),
        (json!([{"type": "Format", "params": []}]), 400),
        (json!([{"type": "GetFile", "params": []}]), 400),
        (json!([{"type": "GetFile", "params": [{"key": "path", "value": "/x"}]}]), 400),
        (json!([twice]), 400),
        (json!([put("none")]), 404),
        (json!((0..51).map(|_| get("/x")).collect::<Vec<_>>()), 400),
    ];
    for (commands, expected) in cases {
        let (status, body) = session(&world, &token, sensor.id(), commands.clone()).await;
        assert_eq!(status, expected, "{commands}: {body}");
    }
    assert_eq!(session(&world, &token, "none", json!([get("/x")])).await.0, 404);
    assert_eq!(world.get("/api/machineactions", &token).await.body["value"], json!([]));
    world.stop().await;
}

#[tokio::test]
async fn ten_sessions_a_minute_and_twenty_five_at_once() {
    let world = World::start().await;
    let token = world.token_for(PERMISSIONS).await;
    let mut sensors = Vec::new();
    for number in 0..26 {
        sensors.push(world.sensor(&format!("m{number}.example")).await);
    }
    for (number, sensor) in sensors.iter().enumerate() {
        if number > 0 && number % 10 == 0 {
            let path = format!("/api/machines/{}/runliveresponse", sensor.id());
            let body = json!({"Commands": [get("/x")]});
            let refused = world.call(Method::POST, &path, &token, Some(body)).await;
            assert_eq!(refused.status, 429, "{}", refused.body);
            let wait = refused.headers["retry-after"].to_str().expect("a number");
            assert!((1..=61).contains(&wait.parse::<i64>().expect("a number")), "{wait}");
            world.clock.advance(TimeDelta::seconds(61));
        }
        let (status, body) = session(&world, &token, sensor.id(), json!([get("/x")])).await;
        match number {
            25 => {
                assert_eq!(status, 429, "{body}");
                assert!(body["error"]["message"].as_str().expect("a text").contains("25"));
            }
            _ => assert_eq!(status, 201, "{number}: {body}"),
        }
    }
    world.stop().await;
}
