//! Orders as such: once, only true ones, bounded by the machine's policy, through restarts.

use crate::support::ENROLMENT_KEY;
use crate::world::{World, config};
use chrono::{TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;
use vigie_contract::sensor::{Command, LiveCommand, Order, OrderStatus};
use vigie_sensor::{Sensor, StartError};

fn script(world: &World, text: &str) -> Command {
    let script = world.server.library("script.sh", text.as_bytes());
    Command::LiveResponse { commands: vec![LiveCommand::RunScript { script, args: String::new() }] }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_delivered_again_runs_once() {
    let mut world = World::start().await;
    let mark = world.path("runs");
    let command = script(&world, &format!("echo run >> {}", mark.display()));
    let now = Utc::now();
    let order = Order {
        id: Uuid::new_v4(),
        machine_id: world.machine.clone(),
        issued_at: now,
        expires_at: now + TimeDelta::hours(1),
        requestor: "tester".to_owned(),
        command,
    };
    let signed = world.server.sign(&serde_json::to_string(&order).unwrap());
    world.server.queue(&world.machine, signed.clone());
    assert_eq!(world.server.result(order.id).await.status, OrderStatus::Succeeded);
    for restart in [false, true] {
        if restart {
            world.restart().await;
        }
        let answers = world.server.states(order.id).len();
        world.server.queue(&world.machine, signed.clone());
        // The result is told again, since the server seems not to have heard it.
        world
            .server
            .until("the result again", |memory| {
                let results = &memory.machines[&world.machine].results;
                let of = results.iter().filter(|(id, _)| *id == order.id).count();
                (of > answers).then_some(())
            })
            .await;
    }
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "run\n");
    let states = world.server.states(order.id);
    assert_eq!(states[0], OrderStatus::InProgress);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn false_orders_are_recorded_and_never_carried_out() {
    let mut world = World::start().await;
    let mark = world.path("runs");
    let command = script(&world, &format!("echo run >> {}", mark.display()));
    let now = Utc::now();
    let order = |machine: &str, expires: TimeDelta| Order {
        id: Uuid::new_v4(),
        machine_id: machine.to_owned(),
        issued_at: now,
        expires_at: now + expires,
        requestor: "tester".to_owned(),
        command: command.clone(),
    };
    let hour = TimeDelta::hours(1);
    let text = |order: &Order| serde_json::to_string(order).unwrap();
    let other = world.server.sign(&text(&order(&"b".repeat(40), hour)));
    let late = world.server.sign(&text(&order(&world.machine, -hour)));
    let mut forged = world.server.sign(&text(&order(&world.machine, hour)));
    forged.order = forged.order.replace("tester", "nobody");
    for (signed, reason) in [(other, "for machine"), (late, "ended at"), (forged, "signature")] {
        world.server.queue(&world.machine, signed);
        let says = |row: &serde_json::Value| {
            row["AdditionalFields"].as_str().is_some_and(|fields| fields.contains(reason))
        };
        world.event("TamperingAttempt", says).await;
    }
    // The true server's signature under the id of an order that was carried out.
    let (id, _) = world.order(script(&world, "true")).await;
    let stolen = Order { id, ..order(&world.machine, hour) };
    world.server.queue(&world.machine, world.server.sign(&text(&stolen)));
    let says = |row: &serde_json::Value| {
        row["AdditionalFields"].as_str().is_some_and(|fields| fields.contains("had the id"))
    };
    world.event("TamperingAttempt", says).await;
    // The server is told of each, once, for its log.
    let refusals = world
        .server
        .until("four refusals", |memory| {
            (memory.refusals.len() >= 4).then(|| memory.refusals.clone())
        })
        .await;
    for (refusal, reason) in refusals.iter().zip(["for machine", "ended at", "signature", "the id"])
    {
        assert!(refusal.reason.contains(reason), "{refusal:?}");
        assert!(refusal.claimed_id.is_some());
    }
    // Of the true server, but of a kind that this sensor does not know.
    let newer = order(&world.machine, hour);
    let text = text(&newer).replace("LiveResponse", "Teleport");
    world.server.queue(&world.machine, world.server.sign(&text));
    let result = world.server.result(newer.id).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.error.unwrap().contains("does not know"));
    assert!(!mark.exists());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_over_on_the_server_is_not_begun() {
    let mut world = World::start().await;
    let mark = world.path("runs");
    let command = script(&world, &format!("echo run >> {}", mark.display()));
    let now = Utc::now();
    let order = Order {
        id: Uuid::new_v4(),
        machine_id: world.machine.clone(),
        issued_at: now,
        expires_at: now + TimeDelta::hours(1),
        requestor: "tester".to_owned(),
        command,
    };
    world.server.memory.lock().unwrap().over.insert(order.id);
    world.server.queue(&world.machine, world.server.sign(&serde_json::to_string(&order).unwrap()));
    // An order behind it is carried out, so the first one was looked at.
    let (_, result) = world.order(script(&world, "true")).await;
    assert_eq!(result.status, OrderStatus::Succeeded);
    assert!(!mark.exists());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_policy_bounds_what_the_server_may() {
    let mut world = World::start_with(json!({"orders": ["CollectInvestigationPackage"]})).await;
    let (_, result) = world.order(script(&world, "true")).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.error.unwrap().contains("policy allows no LiveResponse"));
    assert_eq!(result.error_code, 0x8007_0005_u32 as i32);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offboarded_machine_stays_away_until_it_is_enrolled_by_hand() {
    let mut world = World::start().await;
    let (_, result) = world.order(Command::Offboard {}).await;
    assert_eq!(result.status, OrderStatus::Succeeded);
    let sensor = world.sensor.take().unwrap();
    sensor.ended().await;
    sensor.shutdown().await;
    let again = Sensor::start(config(&world.server, world.state.path())).await;
    assert!(matches!(again, Err(StartError::Offboarded)));
    let mut by_hand = config(&world.server, world.state.path());
    by_hand.enrolment_key = Some(ENROLMENT_KEY.to_owned());
    vigie_sensor::enrol(by_hand).await.unwrap();
    let again = Sensor::start(config(&world.server, world.state.path())).await.unwrap();
    again.shutdown().await;
}
