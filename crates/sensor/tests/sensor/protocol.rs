//! A whole sensor against a server of the protocol: enrolment, telemetry, outages, orders.

use crate::support::{Certificates, ENROLMENT_KEY, ProtocolServer};
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use vigie_contract::sensor::{Command, IsolationType, OrderStatus, SignedOrder};
use vigie_sensor::{Sensor, SensorConfig, StartError};

fn config(server: &ProtocolServer, state_dir: &Path) -> SensorConfig {
    let mut config = SensorConfig::new(server.url(), server.ca_pem.clone(), state_dir);
    config.enrolment_key = Some(ENROLMENT_KEY.to_owned());
    config.installation_id = Some("1".repeat(40));
    config
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_run_here_is_found_with_its_facts() {
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    let report = server
        .until("a report", |memory| {
            memory.machines.values().find(|machine| machine.reports > 0).cloned()
        })
        .await
        .report;
    assert_eq!(report.os_platform, "Linux");
    assert!(!report.computer_dns_name.is_empty());
    assert_eq!(report.isolation.as_deref(), Some("None"));
    let sources: Vec<&str> = report.providers.iter().map(|p| p.source.as_str()).collect();
    assert_eq!(sources, ["process", "network", "file", "logon"]);

    // Long enough for polling to see it, too.
    let marker = format!("0.{}", std::process::id());
    let mut child = Program::new("sleep").arg(&marker).spawn().unwrap();
    let row = server
        .row("DeviceProcessEvents", |row| {
            row["ProcessCommandLine"] == format!("sleep {marker}").as_str()
        })
        .await;
    assert_eq!(row["ActionType"], "ProcessCreated");
    assert_eq!(row["FileName"], "sleep");
    assert!(row["FolderPath"].as_str().unwrap().ends_with("/sleep"));
    assert_eq!(row["ProcessId"], child.id());
    assert_eq!(row["InitiatingProcessId"], std::process::id());
    assert_eq!(row["SHA256"].as_str().unwrap().len(), 64);
    assert_eq!(row["AccountSid"], rustix::process::getuid().as_raw().to_string().as_str());
    child.wait().unwrap();
    server.row("DeviceInfo", |row| row["OSPlatform"] == "Linux").await;
    server.row("DeviceNetworkInfo", |row| row["NetworkAdapterName"] == "lo").await;
    let status = sensor.status();
    assert!(status.connected && status.machine_id.is_some());
    sensor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_at_once_is_seen_with_root() {
    if !is_root() {
        println!("skipped: needs root for the proc connector");
        return;
    }
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    let process = &sensor.status().providers[0];
    if process.provider != "proc-connector" {
        println!("skipped: no proc connector here: {}", process.reason);
        return;
    }
    let child = Program::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait_with_output().unwrap();
    let row = server.row("DeviceProcessEvents", |row| row["ProcessId"] == pid).await;
    assert_eq!(row["FileName"], "true");
    sensor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_open_ports_are_reported_with_their_process() {
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    server.row("DeviceInfo", |_| true).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    for (action, column) in [
        ("ListeningConnectionCreated", "LocalPort"),
        ("ConnectionSuccess", "RemotePort"),
        ("InboundConnectionAccepted", "LocalPort"),
    ] {
        let row = server
            .row("DeviceNetworkEvents", |row| row["ActionType"] == action && row[column] == port)
            .await;
        assert_eq!(row["LocalIP"], "127.0.0.1", "{action}");
        // The accepted side belongs to nobody before the program takes it.
        if action != "InboundConnectionAccepted" {
            assert_eq!(row["InitiatingProcessId"], std::process::id(), "{action}");
        }
    }
    sensor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_outage_and_a_restart_arrive_once_and_in_order() {
    let certificates = Certificates::new(&["127.0.0.1"]);
    let any = "127.0.0.1:0".parse().unwrap();
    let server = ProtocolServer::start_at(any, &certificates, Arc::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    server.row("DeviceInfo", |_| true).await;
    let (address, memory) = (server.address, server.memory.clone());
    memory.lock().unwrap().broken = true;

    let run = |text: &str| {
        Program::new("sleep").arg(text).spawn().unwrap().wait().unwrap();
    };
    let mark = std::process::id();
    run(&format!("0.1{mark}"));
    // The spool has it once the sensor stopped; the next sensor begins with it.
    sensor.shutdown().await;
    drop(server);
    let sensor = {
        let mut config = SensorConfig::new(
            format!("https://{address}"),
            certificates.ca_pem.clone(),
            folder.path(),
        );
        config.installation_id = Some("1".repeat(40));
        Sensor::start(config).await.unwrap()
    };
    run(&format!("0.2{mark}"));
    memory.lock().unwrap().broken = false;
    let server = ProtocolServer::start_at(address, &certificates, memory).await;
    let of = |time: char| format!("sleep 0.{time}{mark}");
    server.row("DeviceProcessEvents", |row| row["ProcessCommandLine"] == of('2').as_str()).await;
    sensor.shutdown().await;
    let memory = server.memory.lock().unwrap();
    let machine = memory.machines.values().next().unwrap();
    let lines: Vec<&str> = machine
        .rows
        .iter()
        .filter_map(|(_, row)| row["ProcessCommandLine"].as_str())
        .filter(|line| line.starts_with("sleep 0.") && line.ends_with(&mark.to_string()))
        .collect();
    assert_eq!(lines, [of('1'), of('2')]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_gets_nothing() {
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&server, folder.path());
    config.ca_pem = Certificates::new(&["127.0.0.1"]).ca_pem;
    let error = vigie_sensor::enrol(config).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer") || error.contains("certificate"), "{error}");
    assert!(server.memory.lock().unwrap().machines.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_start_is_named() {
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut without_key = config(&server, folder.path());
    without_key.enrolment_key = None;
    assert!(matches!(Sensor::start(without_key).await, Err(StartError::NotEnrolled)));

    let mut wrong_key = config(&server, folder.path());
    wrong_key.enrolment_key = Some("wrong".to_owned());
    let error = vigie_sensor::enrol(wrong_key).await.unwrap_err().to_string();
    assert!(error.contains("EnrolmentKey"), "{error}");

    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    let second = Sensor::start(config(&server, folder.path())).await;
    assert!(matches!(second, Err(StartError::StateFolderInUse(_))));
    sensor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_answered_and_false_ones_are_not() {
    let server = ProtocolServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Without --allow-response: nothing of this machine is touched.
    let sensor = Sensor::start(config(&server, folder.path())).await.unwrap();
    let machine = server.machine_id().await;
    let forged = SignedOrder { order: "{}".to_owned(), signature: "AAAA".to_owned() };
    server.queue(&machine, forged);
    let isolate = Command::Isolate { isolation_type: IsolationType::Full };
    let id = server.order(&machine, isolate);
    let result = server.result(id).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.error.unwrap().contains("--allow-response"));
    let row = server.row("DeviceEvents", |row| row["ActionType"] == "TamperingAttempt").await;
    assert!(row["AdditionalFields"].as_str().unwrap().contains("signature"));
    assert_eq!(sensor.status().isolation, None);
    sensor.shutdown().await;
    let memory = server.memory.lock().unwrap();
    let ids: Vec<_> = memory.machines[&machine].results.iter().map(|(id, _)| *id).collect();
    assert!(ids.iter().all(|answered| *answered == id), "the forged order was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_files_in_watched_folders_are_reported() {
    let server = ProtocolServer::start().await;
    let (folder, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(&server, folder.path());
    config.watched_folders = vec![watched.path().to_owned()];
    let sensor = Sensor::start(config).await.unwrap();
    let provider = sensor.status().providers.iter().find(|p| p.source == "file").cloned().unwrap();
    assert_eq!(provider.provider, if is_root() { "fanotify" } else { "inotify" });
    server.row("DeviceInfo", |_| true).await;

    // Another process makes the changes: those of the sensor's own process are its own business.
    let sub = watched.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    let at = |name: &str| sub.join(name).to_str().unwrap().to_owned();
    let script = "printf abc > \"$1/a\"; sleep 0.3; printf d >> \"$1/a\"; sleep 0.3; \
                  mv \"$1/a\" \"$1/b\"; sleep 0.3; rm \"$1/b\"";
    let mut shell = Program::new("sh").args(["-c", script, "sh"]).arg(&sub).spawn().unwrap();
    let expected = [
        ("FileCreated", at("a")),
        ("FileModified", at("a")),
        ("FileRenamed", at("b")),
        ("FileDeleted", at("b")),
    ];
    for (action, path) in &expected {
        let row = server
            .row("DeviceFileEvents", |row| {
                row["ActionType"] == *action && row["FolderPath"] == path.as_str()
            })
            .await;
        match *action {
            "FileCreated" => assert!(row["SHA1"].is_string()),
            "FileRenamed" => assert_eq!(row["PreviousFolderPath"], at("a").as_str()),
            _ => {}
        }
        if is_root() && *action == "FileCreated" {
            assert_eq!(row["InitiatingProcessId"], shell.id());
        }
    }
    shell.wait().unwrap();
    // Elsewhere nothing is watched, although fanotify sees the whole file system.
    {
        let memory = server.memory.lock().unwrap();
        let rows = memory.machines.values().flat_map(|machine| &machine.rows);
        let paths = rows.filter(|(table, _)| table == "DeviceFileEvents");
        for (_, row) in paths {
            let path = row["FolderPath"].as_str().unwrap();
            assert!(Path::new(path).starts_with(watched.path()), "{path}");
        }
    }
    sensor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_on_the_sensor_itself_are_reported() {
    let server = ProtocolServer::start().await;
    let (folder, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = async || {
        let mut config = config(&server, folder.path());
        config.watched_folders = vec![watched.path().to_owned()];
        Sensor::start(config).await.unwrap()
    };
    let sensor = start().await;
    let provider = sensor.status().providers.iter().find(|p| p.source == "file").cloned().unwrap();
    server.row("DeviceInfo", |_| true).await;
    if provider.provider == "fanotify" {
        let own = folder.path().join("orders.json");
        let mut shell = Program::new("sh");
        // It stays for a moment, so that its name can still be read.
        shell.args(["-c", "echo '{}' > \"$1\"; sleep 1; :", "sh"]).arg(&own);
        assert!(shell.status().unwrap().success());
        let row = server
            .row("DeviceEvents", |row| {
                row["ActionType"] == "TamperingAttempt" && row["FileName"] == "orders.json"
            })
            .await;
        assert!(row["InitiatingProcessFileName"].is_string());
    } else {
        println!("skipped: needs fanotify to know who changed a file");
    }
    sensor.shutdown().await;
    let killed = |memory: &crate::support::Memory| {
        let rows = memory.machines.values().flat_map(|machine| &machine.rows);
        rows.filter(|(_, row)| {
            row["AdditionalFields"].as_str().is_some_and(|fields| fields.contains("killed"))
        })
        .count()
    };
    // An end that was asked for leaves no mark; one that was not does.
    start().await.shutdown().await;
    assert_eq!(killed(&server.memory.lock().unwrap()), 0);
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(folder.path().join("running"), boot).unwrap();
    let sensor = start().await;
    server.until("a row of the kill", |memory| (killed(memory) == 1).then_some(())).await;
    sensor.shutdown().await;
}
