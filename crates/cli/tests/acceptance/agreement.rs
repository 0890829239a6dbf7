//! What the API tells and what hunting finds are the same, whatever the lab's machines did.

use crate::support::{Up, output, vigie};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

const MACHINES: &str = "4";
/// How long the lab plays; at its speed, hours of a working day.
const PLAYING: Duration = Duration::from_secs(25);

fn on(data: &Path, arguments: &[&str]) -> Command {
    let mut command = vigie(arguments);
    command.arg("--data").arg(data);
    command
}

fn interrupt(mut child: Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.wait().unwrap();
}

#[test]
fn the_api_and_hunting_agree_on_what_machines_did() {
    let Ok(python) = std::env::var("VIGIE_TEST_PYTHON") else {
        println!("left out: VIGIE_TEST_PYTHON names no interpreter");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Up::on(folder.path(), &["--no-quotas"]);
    let lab = on(&data, &["lab", "--machines", MACHINES, "--speed", "300"]).spawn().unwrap();
    std::thread::sleep(PLAYING / 2);
    let list = output(&mut on(&data, &["machines", "list", "--output", "json"]));
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let machines: Vec<serde_json::Value> = list.lines().map(read).collect();
    assert_eq!(machines.len().to_string(), MACHINES);
    for machine in &machines[..2] {
        let id = machine["id"].as_str().unwrap();
        output(&mut on(&data, &["machines", "isolate", id, "--comment", "a test"]));
    }
    std::thread::sleep(PLAYING / 2);
    interrupt(lab);
    // What the server still writes by itself: rows of alerts, runs of detections.
    std::thread::sleep(Duration::from_secs(3));
    let names = ["tenant", "application", "secret", "certificate"].map(|name| server.value(name));
    let [tenant, application, secret, certificate] = names;
    let agree = |url: String| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance/agree.py");
        let mut run = Command::new(&python);
        run.args([script, &url, &tenant, &application, &secret, &certificate]);
        let said = output(&mut run);
        println!("{said}");
        assert!(said.contains(&format!("{MACHINES} machines, 2 machine actions")), "{said}");
    };
    agree(server.url());
    // And after it was killed.
    server.kill();
    agree(Up::on(folder.path(), &["--no-quotas"]).url());
}
