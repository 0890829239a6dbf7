//! Isolation seen from outside: three hosts in network namespaces, the sensor's program on one.

use crate::hosts::{Hosts, OTHER, SENSOR, SERVER};
use crate::support::{Certificates, ENROLMENT_KEY, Memory, ProtocolServer};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command as Program};
use std::sync::Arc;
use std::time::Duration;
use vigie_contract::sensor::{Command, IsolationType, OrderStatus};

/// The sensor's program, ended with the test.
struct SensorProgram(Child);

impl SensorProgram {
    fn start(
        hosts: &Hosts,
        server: &ProtocolServer,
        folder: &Path,
        more: &[&str],
    ) -> SensorProgram {
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, &server.ca_pem).unwrap();
        let mut command = hosts.command("sensor", env!("CARGO_BIN_EXE_vigie-sensor"));
        command
            .args(["run", "--server", &server.url(), "--enrolment-key", ENROLMENT_KEY])
            .args(["--installation-id", &"2".repeat(40), "--allow-response"])
            .arg("--ca")
            .arg(&ca)
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(more);
        SensorProgram(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for SensorProgram {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in the server's namespace, on a runtime whose thread lives there.
pub fn with_server(hosts: &Hosts, test: impl AsyncFnOnce(ProtocolServer) + Send) {
    hosts.on("server", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let certificates = Certificates::new(&[SERVER]);
            let address = format!("{SERVER}:8443").parse().unwrap();
            let memory: Arc<std::sync::Mutex<Memory>> = Arc::default();
            test(ProtocolServer::start_at(address, &certificates, memory).await).await;
        });
    });
}

/// The rules of the real host, to see that they are left alone.
fn own_rules() -> String {
    let output = Program::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether what one side writes arrives at the other within a second.
fn is_alive(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    to.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    from.write_all(b"?").is_ok() && to.read(&mut [0; 1]).is_ok_and(|length| length == 1)
}

#[test]
fn a_machine_is_cut_off_from_all_but_the_server_and_released() {
    let Some(hosts) = Hosts::new("isolate") else { return };
    let before = own_rules();
    let folder = tempfile::tempdir().unwrap();
    let on_other = hosts.listen("other", &format!("{OTHER}:7000"));
    let on_sensor = hosts.listen("sensor", &format!("{SENSOR}:7001"));
    let (to_other, to_sensor) = (format!("{OTHER}:7000"), format!("{SENSOR}:7001"));
    with_server(&hosts, async |server| {
        let sensor = SensorProgram::start(&hosts, &server, folder.path(), &[]);
        let machine = server.machine_id().await;
        assert!(hosts.reaches("sensor", &to_other) && hosts.reaches("other", &to_sensor));
        // The probe above stands first in the queue.
        on_other.accept().unwrap();
        let mut outgoing = hosts.connect("sensor", &to_other);
        let (mut arrived, _) = on_other.accept().unwrap();
        assert!(is_alive(&mut outgoing, &mut arrived));

        let isolate = Command::Isolate { isolation_type: IsolationType::Full };
        let result = server.result(server.order(&machine, isolate)).await;
        assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
        assert!(!is_alive(&mut outgoing, &mut arrived), "a standing connection goes on");
        // The program behind it learns of it at once and not at a time-out of TCP.
        outgoing.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        match outgoing.read(&mut [0; 1]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                println!("not seen here: this kernel cannot end other programs' sockets");
            }
            // The error itself may have been told to the write before.
            ended => assert!(matches!(ended, Ok(0) | Err(_)), "the socket is open: {ended:?}"),
        }
        assert!(!hosts.reaches("sensor", &to_other), "the third host can be reached");
        assert!(!hosts.reaches("other", &to_sensor), "the third host gets in");
        let isolated = |memory: &Memory, kind: &str| {
            (memory.machines[&machine].report.isolation.as_deref() == Some(kind)).then_some(())
        };
        server.until("a report of the isolation", |memory| isolated(memory, "Full")).await;

        // The sensor dies and its machine restarts, losing all rules: they come back before all else.
        sensor.kill();
        let flushed = hosts.command("sensor", "nft").args(["flush", "ruleset"]).status().unwrap();
        assert!(flushed.success() && hosts.reaches("other", &to_sensor));
        let reports = server.memory.lock().unwrap().machines[&machine].reports;
        let sensor = SensorProgram::start(&hosts, &server, folder.path(), &[]);
        server
            .until("the second sensor", |memory| {
                (memory.machines[&machine].reports > reports).then_some(())
            })
            .await;
        assert!(!hosts.reaches("sensor", &to_other), "the isolation did not survive a restart");

        let result = server.result(server.order(&machine, Command::Unisolate {})).await;
        assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
        assert!(hosts.reaches("sensor", &to_other) && hosts.reaches("other", &to_sensor));
        server.until("a report of the release", |memory| isolated(memory, "None")).await;
        sensor.kill();
    });
    drop(on_sensor);
    assert_eq!(own_rules(), before, "the real host's rules were touched");
}

#[test]
fn selective_isolation_leaves_the_configured_networks() {
    let Some(hosts) = Hosts::new("select") else { return };
    let folder = tempfile::tempdir().unwrap();
    let _on_other = hosts.listen("other", &format!("{OTHER}:7000"));
    let _on_server = hosts.listen("server", &format!("{SERVER}:7002"));
    let (to_other, to_server) = (format!("{OTHER}:7000"), format!("{SERVER}:7002"));
    with_server(&hosts, async |server| {
        let allow = format!("{OTHER}/32");
        let more = ["--isolation-allow", allow.as_str()];
        let _sensor = SensorProgram::start(&hosts, &server, folder.path(), &more);
        let machine = server.machine_id().await;
        assert!(hosts.reaches("sensor", &to_server));
        let selective = Command::Isolate { isolation_type: IsolationType::Selective };
        let result = server.result(server.order(&machine, selective)).await;
        assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
        assert!(hosts.reaches("sensor", &to_other), "an allowed network is cut off");
        // Of the server only the port that the sensor speaks to.
        assert!(!hosts.reaches("sensor", &to_server));
    });
}
