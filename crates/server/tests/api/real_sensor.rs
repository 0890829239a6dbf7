//! Server and Linux sensor together: an action's effect on the disk, its states, its rows, its alert.

use crate::support::{World, config};
use serde_json::{Value as Json, json};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use vigie_sensor::{Sensor, SensorConfig, SensorHandle};

const ALL: &[&str] = &[
    "Machine.CollectForensics",
    "Machine.LiveResponse",
    "Machine.Read.All",
    "Machine.Scan",
    "Machine.StopAndQuarantine",
    "AdvancedQuery.Read.All",
    "Alert.Read.All",
    "Library.Manage",
];

/// A sensor that looks at one folder alone.
struct Machine {
    sensor: SensorHandle,
    state: TempDir,
    disk: TempDir,
    id: String,
}

impl Machine {
    async fn start(world: &World) -> Machine {
        let (state, disk) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let policy = json!({
            "searchFolders": [disk.path()], "quickScanFolders": [disk.path()], "rulesFolder": null,
            "largestScannedBytes": 1 << 20,
        });
        let mut options = std::fs::OpenOptions::new();
        let path = state.path().join("policy.json");
        let file = options.write(true).create(true).mode(0o600).open(path).expect("a file");
        serde_json::to_writer(file, &policy).expect("written");
        let mut config = SensorConfig::new(&world.url, world.ca.clone(), state.path());
        config.enrolment_key = Some(world.first.enrolment_key.clone());
        config.allow_response = true;
        config.watched_folders = vec![disk.path().to_owned()];
        let sensor = Sensor::start(config).await.expect("started");
        let id = until("an enrolment", async || sensor.status().machine_id).await;
        Machine { sensor, state, disk, id }
    }

    fn write(&self, name: &str, content: &str) -> std::path::PathBuf {
        // By another process: the sensor passes over what its own does.
        let path = self.disk.path().join(name);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "printf %s \"$2\" > \"$1\"", "sh"]).arg(&path).arg(content);
        assert!(shell.status().expect("a shell").success());
        path
    }
}

/// Asks until there is an answer, for at most forty seconds; not so often that the API's limits are
/// reached.
async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..40 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("waited in vain for {what}");
}

/// Orders an action and waits for its end.
async fn act(world: &World, token: &str, machine: &str, operation: &str, body: Json) -> Json {
    let path = format!("/api/machines/{machine}/{operation}");
    let given = world.post(&path, token, body).await;
    assert!(matches!(given.status, 200 | 201), "{operation}: {}", given.body);
    ended(world, token, given.body["id"].as_str().expect("an id")).await
}

async fn ended(world: &World, token: &str, id: &str) -> Json {
    until("the action's end", async || {
        let action = world.get(&format!("/api/machineactions/{id}"), token).await.body;
        let open = matches!(action["status"].as_str(), Some("Pending" | "InProgress"));
        (!open).then_some(action)
    })
    .await
}

async fn row(world: &World, token: &str, query: &str) -> Json {
    until(query, async || world.hunt(token, query).await.into_iter().next()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_events_named_is_quarantined() {
    let world = World::start().await;
    let machine = Machine::start(&world).await;
    let token = world.token_for(ALL).await;
    let path = machine.write("dropper", &format!("unique {}", uuid::Uuid::new_v4()));
    let query = "DeviceFileEvents | where FileName == 'dropper' and isnotempty(SHA1) | take 1";
    let seen = row(&world, &token, query).await;
    let body = json!({"Comment": "c", "Sha1": seen["SHA1"]});
    let action = act(&world, &token, &machine.id, "StopAndQuarantineFile", body).await;
    assert_eq!(action["status"], "Succeeded", "{action}");
    assert_eq!(action["relatedFileInfo"]["fileIdentifier"], seen["SHA1"]);
    assert!(!path.exists());
    let query = "DeviceEvents | where ActionType == 'FileQuarantined' | take 1";
    assert_eq!(row(&world, &token, query).await["SHA1"], seen["SHA1"]);
    let sealed = vigie_sensor::quarantined(machine.state.path()).expect("a vault");
    let id = sealed[0].id.to_string();
    vigie_sensor::restore_quarantined(machine.state.path(), &id, None).expect("restored");
    assert!(path.exists());
    machine.sensor.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scans_find_becomes_an_alert_with_the_file() {
    let world = World::start().await;
    let machine = Machine::start(&world).await;
    let token = world.token_for(ALL).await;
    // In two parts, so that this source is no test file itself.
    let test_file =
        ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat();
    let path = machine.write("carrier", &test_file);
    let body = json!({"Comment": "c", "ScanType": "Quick"});
    let action = act(&world, &token, &machine.id, "runAntiVirusScan", body).await;
    assert_eq!(action["status"], "Succeeded", "{action}");
    let alert = until("an alert", async || {
        let filter = "/api/alerts?$filter=detectionSource eq 'WindowsDefenderAv'&$expand=evidence";
        let alerts = world.get(filter, &token).await.body;
        alerts["value"].as_array().and_then(|alerts| alerts.first().cloned())
    })
    .await;
    assert_eq!((&alert["machineId"], &alert["category"]), (&json!(machine.id), &json!("Malware")));
    let evidence = alert["evidence"].as_array().expect("evidence");
    let file = evidence.iter().find(|entity| entity["entityType"] == "File").expect("a file");
    assert_eq!(file["fileName"], "carrier");
    assert_eq!(file["sha1"].as_str().map(str::len), Some(40));
    assert!(path.exists());
    machine.sensor.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_collected_and_downloaded() {
    let world = World::start().await;
    let machine = Machine::start(&world).await;
    let token = world.token_for(ALL).await;
    let body = json!({"Comment": "c"});
    let action = act(&world, &token, &machine.id, "collectInvestigationPackage", body).await;
    assert_eq!(action["status"], "Succeeded", "{action}");
    let id = action["id"].as_str().expect("an id");
    let link = world.get(&format!("/api/machineactions/{id}/getPackageUri"), &token).await.body;
    let link = link["value"].as_str().expect("a link");
    let response = world.http.get(link).send().await.expect("answered");
    assert_eq!(response.status().as_u16(), 200);
    let bytes = response.bytes().await.expect("a body");
    assert!(bytes.starts_with(b"PK") && memchr::memmem::find(&bytes, b"processes.json").is_some());
    machine.sensor.shutdown().await;
    world.stop().await;
}

async fn run_script(world: &World, token: &str, machine: &str, text: &str) -> String {
    let uploaded =
        world.upload(token, "s.sh", text.as_bytes(), &[("OverrideIfExists", "true")]).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.body);
    let command = json!({"type": "RunScript", "params": [{"key": "ScriptName", "value": "s.sh"}]});
    let path = format!("/api/machines/{machine}/runliveresponse");
    let given = world.post(&path, token, json!({"Commands": [command], "Comment": "c"})).await;
    assert_eq!(given.status, 201, "{}", given.body);
    given.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripts_output_arrives_although_the_server_was_away() {
    let world = World::start().await;
    let machine = Machine::start(&world).await;
    let token = world.token_for(ALL).await;
    let mark = machine.disk.path().join("go");
    let text = format!("while [ ! -e {} ]; do sleep 0.05; done; echo done", mark.display());
    let id = run_script(&world, &token, &machine.id, &text).await;
    let path = format!("/api/machineactions/{id}");
    until("the script's begin", async || {
        (world.get(&path, &token).await.body["status"] == "InProgress").then_some(())
    })
    .await;
    // The server ends, the script ends, the server comes back at the same place.
    let (port, data) = (world.server.address().port(), world.data.path().to_owned());
    world.server.handle().shutdown().await;
    std::fs::write(&mark, "").expect("written");
    let mut same = config(&world.data, &world.clock);
    same.listen.set_port(port);
    let server = restarted(same, &data).await;
    let action = ended(&world, &token, &id).await;
    assert_eq!(action["status"], "Succeeded", "{action}");
    let link = format!("{path}/GetLiveResponseResultDownloadLink(index=0)");
    let link = world.get(&link, &token).await.body;
    let response = world.http.get(link["value"].as_str().expect("a link")).send().await;
    let transcript: Json = response.expect("answered").json().await.expect("JSON");
    assert_eq!(transcript["script_output"], "done\n");
    machine.sensor.shutdown().await;
    server.handle().shutdown().await;
}

/// The lake's lock may take a moment to be free.
async fn restarted(config: vigie_server::ServerConfig, data: &Path) -> vigie_server::Server {
    for _ in 0..100 {
        match vigie_server::Server::start(config.clone()).await {
            Ok(server) => return server,
            Err(error) => eprintln!("{}: {error}", data.display()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server does not start again");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_what_runs() {
    let world = World::start().await;
    let machine = Machine::start(&world).await;
    let token = world.token_for(ALL).await;
    let id = run_script(&world, &token, &machine.id, "sleep 600").await;
    let path = format!("/api/machineactions/{id}");
    until("the script's begin", async || {
        let action = world.get(&path, &token).await.body;
        action["commands"][0]["startTime"].is_string().then_some(())
    })
    .await;
    let asked = world.post(&format!("{path}/cancel"), &token, json!({"Comment": "stop"})).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    let action = ended(&world, &token, &id).await;
    assert_eq!(action["status"], "Cancelled", "{action}");
    assert_eq!(action["cancellationComment"], "stop");
    machine.sensor.shutdown().await;
    world.stop().await;
}
