//! A fleet against a server of the protocol.

#[path = "../../sensor/tests/support/mod.rs"]
mod support;

use support::{ENROLMENT_KEY, ProtocolServer};
use vigie_contract::sensor::{Command, IsolationType, OrderStatus};
use vigie_lab::{Lab, LabConfig, TAG};

fn config(server: &ProtocolServer, machines: usize) -> LabConfig {
    let mut config = LabConfig::new(server.url(), server.ca_pem.clone(), ENROLMENT_KEY, machines);
    // An hour of a scenario in a second.
    config.speed = 3600.0;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_enrol_tell_and_obey() {
    let server = ProtocolServer::start().await;
    let lab = Lab::start(config(&server, 30)).await.unwrap();
    let machine = server
        .until("30 reports", |memory| {
            let reported = memory.machines.values().filter(|machine| machine.reports > 0).count();
            (reported == 30).then(|| memory.machines.keys().next().cloned().unwrap())
        })
        .await;
    {
        let memory = server.memory.lock().unwrap();
        let reports: Vec<_> = memory.machines.values().map(|machine| &machine.report).collect();
        assert!(reports.iter().all(|report| report.tags == [TAG]));
        assert!(reports.iter().any(|report| report.os_platform == "Linux"));
        assert!(reports.iter().any(|report| report.os_platform.starts_with("Windows")));
        assert!(reports.iter().all(|report| !report.logged_on_users.is_empty()));
    }
    // What the attacks leave behind, for detections to find.
    server
        .row("DeviceProcessEvents", |row| {
            let line = row["ProcessCommandLine"].as_str().unwrap_or_default();
            line.contains("| sh") && row["InitiatingProcessFileName"] == "java"
        })
        .await;
    server.row("DeviceFileEvents", |row| row["ActionType"] == "FileRenamed").await;

    let isolate = Command::Isolate { isolation_type: IsolationType::Full };
    let id = server.order(&machine, isolate);
    assert_eq!(server.result(id).await.status, OrderStatus::Succeeded);
    server
        .until("the isolation in the report", |memory| {
            let machine = &memory.machines[&machine];
            (machine.report.isolation.as_deref() == Some("Full")).then_some(())
        })
        .await;
    {
        let memory = server.memory.lock().unwrap();
        let states: Vec<OrderStatus> =
            memory.machines[&machine].results.iter().map(|(_, result)| result.status).collect();
        assert_eq!(states[0], OrderStatus::InProgress);
    }
    assert_eq!(lab.status().isolated, 1);
    let id = server.order(&machine, Command::Unisolate {});
    assert_eq!(server.result(id).await.status, OrderStatus::Succeeded);
    assert_eq!(lab.status().isolated, 0);
    lab.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_the_same_fleet_and_its_events_are_new() {
    let server = ProtocolServer::start().await;
    let mut ids = Vec::new();
    let mut rows = 0;
    for _ in 0..2 {
        let lab = Lab::start(config(&server, 3)).await.unwrap();
        let before = rows;
        (ids, rows) = server
            .until("events of this run", |memory| {
                let found: Vec<String> = memory.machines.keys().cloned().collect();
                let count = memory.machines.values().map(|machine| machine.rows.len()).sum();
                (count >= before + 60).then_some((found, count))
            })
            .await;
        lab.shutdown().await;
    }
    assert_eq!(ids.len(), 3);
}
