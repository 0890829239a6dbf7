//! A fleet against a server of the protocol.

#[path = "../../sensor/tests/support/mod.rs"]
mod support;

use support::{ENROLMENT_KEY, ProtocolServer};
use vigie_contract::sensor::{
    Command, IsolationType, LiveCommand, OrderStatus, ScanType, ScriptTranscript,
};
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

#[tokio::test(flavor = "multi_thread")]
async fn orders_change_a_virtual_machine_as_they_change_a_real_one() {
    let server = ProtocolServer::start().await;
    let lab = Lab::start(config(&server, 2)).await.unwrap();
    // The program that the simulated ransomware drops.
    let row = server
        .row("DeviceProcessEvents", |row| {
            row["FileName"] == "svc-update.exe" && row["ActionType"] == "ProcessCreated"
        })
        .await;
    let sha1 = row["SHA1"].as_str().unwrap().to_owned();
    let machine = server
        .until("its machine", |memory| {
            let of = memory.machines.iter().find(|(_, machine)| {
                machine.rows.iter().any(|(_, other)| other["SHA1"] == sha1.as_str())
            });
            of.map(|(id, _)| id.clone())
        })
        .await;

    let scan = Command::RunAntiVirusScan { scan_type: ScanType::Quick, rules: Vec::new() };
    let result = server.result(server.order(&machine, scan)).await;
    assert_eq!(result.status, OrderStatus::Succeeded);
    let found = server
        .row("DeviceEvents", |row| {
            row["ActionType"] == "AntivirusDetection" && row["SHA1"] == sha1.as_str()
        })
        .await;
    assert_eq!(found["FolderPath"], "C:\\Users\\Public\\svc-update.exe");

    let known_paths = Vec::new();
    let take = Command::StopAndQuarantineFile { sha1: sha1.clone(), known_paths };
    let result = server.result(server.order(&machine, take.clone())).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    server.row("DeviceEvents", |row| row["ActionType"] == "FileQuarantined").await;
    let again = server.result(server.order(&machine, take)).await;
    assert_eq!(again.status, OrderStatus::Failed, "it is there twice");

    let tool = server.library("tool", b"content");
    let script = server.library("look.sh", b"echo");
    let path = "/var/lib/vigie-sensor/downloads/tool".to_owned();
    let commands = vec![
        LiveCommand::PutFile { file: tool },
        LiveCommand::RunScript { script, args: "-a".to_owned() },
        LiveCommand::GetFile { path },
        LiveCommand::GetFile { path: "/none".to_owned() },
    ];
    let id = server.order(&machine, Command::LiveResponse { commands });
    let result = server.result(id).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.commands[3].errors[0].contains("no such file"));
    let transcript = server.upload(id, 1).expect("a transcript").1;
    let transcript: ScriptTranscript = serde_json::from_slice(&transcript).unwrap();
    assert!(transcript.script_output.contains("simulated run of look.sh"));
    assert_eq!(server.upload(id, 2).expect("a file").1, b"content");

    let id = server.order(&machine, Command::CollectInvestigationPackage {});
    assert_eq!(server.result(id).await.status, OrderStatus::Succeeded);
    assert!(server.upload(id, 0).expect("a package").1.starts_with(b"PK"));

    let scan = Command::RunAntiVirusScan { scan_type: ScanType::Full, rules: Vec::new() };
    let id = server.order(&machine, scan);
    server
        .until("the scan's begin", |memory| {
            let results = &memory.machines[&machine].results;
            results.iter().any(|(of, _)| *of == id).then_some(())
        })
        .await;
    server.order(&machine, Command::Cancel { action_id: id });
    assert_eq!(server.result(id).await.status, OrderStatus::Cancelled);
    lab.shutdown().await;
}
