//! The sensor is killed before every step of every action. The next one goes on: each order has one
//! end, its effect is there once, and at no moment is anything lost or shut without the state saying so.

use crate::hosts::{Hosts, OTHER};
use crate::isolation::with_server;
use crate::restriction::{Disk, starts};
use crate::steps::Steps;
use crate::support::{ENROLMENT_KEY, ProtocolServer};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program};
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;
use vigie_contract::sensor::*;
use vigie_sensor::SensorConfig;
use vigie_sensor::identity::hex;

/// No action has so many steps.
const MOST_STEPS: usize = 60;

/// A sensor's program on a state folder, killed again and again.
struct Machine<'a> {
    server: &'a ProtocolServer,
    hosts: Option<&'a Hosts>,
    folder: TempDir,
    running: Option<(Child, Steps)>,
    id: String,
}

impl<'a> Machine<'a> {
    async fn start(
        server: &'a ProtocolServer,
        hosts: Option<&'a Hosts>,
        policy: Value,
    ) -> Machine<'a> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("disk")).unwrap();
        let mut machine = Machine { server, hosts, folder, running: None, id: String::new() };
        let disk = machine.disk("");
        let mut all = json!({
            "searchFolders": [disk], "quickScanFolders": [disk], "fullScanFolders": [disk],
            "rulesFolder": null,
        });
        for (name, value) in policy.as_object().unwrap() {
            all[name] = value.clone();
        }
        std::fs::DirBuilder::new().create(machine.state("")).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).mode(0o600).open(machine.state("policy.json"));
        serde_json::to_writer(file.unwrap(), &all).unwrap();
        std::fs::write(machine.folder.path().join("ca.pem"), &server.ca_pem).unwrap();
        machine.run();
        machine.id = server.machine_id().await;
        machine.settle().await;
        machine
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.folder.path().join("disk").join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    fn run(&mut self) {
        let program = env!("CARGO_BIN_EXE_vigie-sensor");
        let mut command = match self.hosts {
            Some(hosts) => hosts.command("sensor", program),
            None => Program::new(program),
        };
        command
            .args(["run", "--server", &self.server.url(), "--enrolment-key", ENROLMENT_KEY])
            .args(["--installation-id", &"4".repeat(40), "--allow-response"])
            .arg("--ca")
            .arg(self.folder.path().join("ca.pem"))
            .arg("--state-dir")
            .arg(self.state(""))
            .env("RUST_LOG", "error");
        self.running = Some(Steps::spawn(&mut command).unwrap());
    }

    /// Waits until what a new sensor writes at its enrolment is on disk.
    async fn settle(&self) {
        while !self.state("enrolment.json").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn steps(&self) -> &Steps {
        &self.running.as_ref().unwrap().1
    }

    fn wait(&mut self) {
        self.running.take().unwrap().0.wait().unwrap();
    }

    /// What the journal says of an order: whether the server has its result.
    fn is_answered(&self, id: Uuid) -> bool {
        let text = std::fs::read(self.state("orders.json")).unwrap_or_default();
        let journal: Value = serde_json::from_slice(&text).unwrap_or_default();
        journal[id.to_string()]["answered"] == true
    }

    /// Gives an order and ends the sensor before a step of it. The step, or `None` if the order was
    /// over before that one; then the sensor goes on.
    async fn order(&mut self, number: usize, command: Command) -> (Uuid, Option<String>) {
        self.steps().end_before(number);
        let id = self.server.order(&self.id, command);
        for _ in 0..6000 {
            if let Some(step) = self.steps().ended_before() {
                self.wait();
                return (id, Some(step));
            }
            if self.is_answered(id) {
                self.steps().end_before(0);
                return (id, None);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the order neither ends nor comes to its step {number}");
    }

    /// The one end of an order, however often it was told.
    async fn end(&self, id: Uuid) -> OrderResult {
        let result = self.server.result(id).await;
        for _ in 0..3000 {
            if self.is_answered(id) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(self.is_answered(id), "the journal does not know that the server has the result");
        let mut ends = self.server.states(id);
        ends.retain(|status| *status != OrderStatus::InProgress);
        assert!(ends.iter().all(|status| *status == result.status), "several ends: {ends:?}");
        result
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One action, as it is tried at every step.
trait Action {
    /// Orders that lead back to where they began: an action and its undo are two.
    const TURNS: usize = 1;
    /// Sets the scene and says what to order.
    fn command(&mut self, machine: &Machine) -> Command;
    /// What holds while no sensor runs.
    fn cut_off(&self, _machine: &Machine) {}
    /// What holds at the end of the order.
    fn ended(&mut self, machine: &Machine, id: Uuid, result: &OrderResult);
}

async fn at_every_step<A: Action>(machine: &mut Machine<'_>, mut action: A) {
    for number in 1..MOST_STEPS {
        let mut unharmed = 0;
        for _ in 0..A::TURNS {
            let command = action.command(machine);
            let (id, step) = machine.order(number, command).await;
            if step.is_some() {
                action.cut_off(machine);
                machine.run();
            }
            let result = machine.end(id).await;
            println!("{number}: killed before {step:?}: {:?} {:?}", result.status, result.error);
            action.ended(machine, id, &result);
            unharmed += usize::from(step.is_none());
        }
        if unharmed == A::TURNS {
            assert!(number > 3, "every order has steps of the journal");
            return;
        }
    }
    panic!("more than {MOST_STEPS} steps");
}

fn succeeded(result: &OrderResult) {
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
}

/// Isolation: rules never stand without the state on disk that puts them back and ends them.
struct Isolate<'a> {
    hosts: &'a Hosts,
    wanted: bool,
    other: String,
}

impl Isolate<'_> {
    fn has_rules(&self) -> bool {
        let mut list = self.hosts.command("sensor", "nft");
        let output = list.args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("vigie_isolation")
    }
}

impl Action for Isolate<'_> {
    const TURNS: usize = 2;

    fn command(&mut self, _: &Machine) -> Command {
        match self.wanted {
            true => Command::Isolate { isolation_type: IsolationType::Full },
            false => Command::Unisolate {},
        }
    }

    fn cut_off(&self, machine: &Machine) {
        let said = machine.state("isolation.json").exists();
        assert!(said || !self.has_rules(), "isolated, and the state does not say so");
    }

    fn ended(&mut self, machine: &Machine, _: Uuid, result: &OrderResult) {
        succeeded(result);
        assert_eq!(self.has_rules(), self.wanted);
        assert_eq!(machine.state("isolation.json").exists(), self.wanted);
        assert_eq!(self.hosts.reaches("sensor", &self.other), !self.wanted);
        self.wanted = !self.wanted;
    }
}

#[test]
fn isolation_and_release() {
    let Some(hosts) = Hosts::new("killed") else { return };
    let other = format!("{OTHER}:7000");
    let _listener = hosts.listen("other", &other);
    with_server(&hosts, async |server| {
        let mut machine = Machine::start(&server, Some(&hosts), json!({})).await;
        let action = Isolate { hosts: &hosts, wanted: true, other };
        at_every_step(&mut machine, action).await;
    });
}

/// Restriction: nobody is asked while no sensor runs, and everybody while one runs that says so.
struct Restrict {
    stranger: PathBuf,
    wanted: bool,
}

impl Action for Restrict {
    const TURNS: usize = 2;

    fn command(&mut self, _: &Machine) -> Command {
        match self.wanted {
            true => Command::RestrictCodeExecution {},
            false => Command::UnrestrictCodeExecution {},
        }
    }

    fn cut_off(&self, _: &Machine) {
        assert!(starts(&self.stranger), "restricted by nobody");
    }

    fn ended(&mut self, machine: &Machine, _: Uuid, result: &OrderResult) {
        succeeded(result);
        assert_eq!(starts(&self.stranger), !self.wanted);
        assert_eq!(machine.state("restriction.json").exists(), self.wanted);
        self.wanted = !self.wanted;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restriction_and_its_end() {
    let Some(disk) = Disk::mount() else { return };
    let stranger = disk.program("stranger", "#!/bin/sh\nexit 0\n");
    let server = ProtocolServer::start().await;
    let policy = json!({"restrictedFileSystems": [disk.0], "allowedPrograms": ["/none"]});
    let mut machine = Machine::start(&server, None, policy).await;
    at_every_step(&mut machine, Restrict { stranger, wanted: true }).await;
}

/// Quarantine: the file is in its place or in the vault at every moment, in the end once.
struct Quarantine {
    path: PathBuf,
    process: Option<Child>,
    sha1: String,
}

impl Action for Quarantine {
    fn command(&mut self, _: &Machine) -> Command {
        let mut bytes = std::fs::read("/bin/sleep").unwrap();
        bytes.extend(Uuid::new_v4().as_bytes());
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o755).open(&self.path).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        drop(file);
        self.sha1 = hex(&Sha1::digest(&bytes));
        self.process = Some(spawned(&self.path));
        Command::StopAndQuarantineFile { sha1: self.sha1.clone(), known_paths: Vec::new() }
    }

    fn cut_off(&self, machine: &Machine) {
        let sealed = vigie_sensor::quarantined(&machine.state("")).unwrap();
        assert!(self.path.exists() || sealed.len() == 1, "the file is lost");
    }

    fn ended(&mut self, machine: &Machine, id: Uuid, result: &OrderResult) {
        succeeded(result);
        let text = result.error.as_deref().unwrap();
        assert!(text.starts_with("1 files were quarantined"), "{text}");
        assert!(!self.path.exists());
        assert!(self.process.take().unwrap().try_wait().unwrap().is_some(), "the process runs");
        put_back(machine, id, &self.path, &self.sha1);
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// Starts a program that was just written: another thread that starts something at this instant may
/// hold it open for writing until its own exec.
fn spawned(path: &Path) -> Child {
    loop {
        match Program::new(path).arg("600").spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// The vault holds one file of the order, whole, and nothing else.
fn put_back(machine: &Machine, id: Uuid, path: &Path, sha1: &str) {
    let sealed = vigie_sensor::quarantined(&machine.state("")).unwrap();
    assert_eq!(sealed.len(), 1);
    assert_eq!((sealed[0].order, sealed[0].path.as_path()), (Some(id), path));
    let entry = sealed[0].id.to_string();
    vigie_sensor::restore_quarantined(&machine.state(""), &entry, None).unwrap();
    assert_eq!(hex(&Sha1::digest(std::fs::read(path).unwrap())), sha1);
    let left = std::fs::read_dir(machine.state("vault")).unwrap().count();
    assert_eq!(left, 1, "more than the vault's key is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine() {
    let server = ProtocolServer::start().await;
    let mut machine = Machine::start(&server, None, json!({})).await;
    let path = machine.disk("bad");
    let action = Quarantine { path, process: None, sha1: String::new() };
    at_every_step(&mut machine, action).await;
}

/// A scan that quarantines: what an earlier sensor did belongs to the result.
struct Scan(PathBuf);

impl Action for Scan {
    fn command(&mut self, _: &Machine) -> Command {
        // In two parts, so that this source is no test file itself.
        let parts = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];
        std::fs::write(&self.0, parts.concat()).unwrap();
        Command::RunAntiVirusScan { scan_type: ScanType::Quick, rules: Vec::new() }
    }

    fn ended(&mut self, machine: &Machine, id: Uuid, result: &OrderResult) {
        succeeded(result);
        let text = result.error.as_deref().unwrap();
        assert!(text.contains("1 detections, 1 files quarantined"), "{text}");
        put_back(machine, id, &self.0, "3395856ce81f2b7382dee72602f798b642f14140");
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scans() {
    let server = ProtocolServer::start().await;
    // The machine's running programs are scanned, too, and need not be waited for.
    let policy = json!({"quarantineDetections": true, "largestScannedBytes": 65536});
    let mut machine = Machine::start(&server, None, policy).await;
    let path = machine.disk("test");
    at_every_step(&mut machine, Scan(path)).await;
}

/// The package arrives whole.
struct Package;

impl Action for Package {
    fn command(&mut self, _: &Machine) -> Command {
        Command::CollectInvestigationPackage {}
    }

    fn ended(&mut self, machine: &Machine, id: Uuid, result: &OrderResult) {
        succeeded(result);
        let (_, bytes) = machine.server.upload(id, 0).expect("a package");
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        assert!(zip.by_name("index.json").is_ok() && zip.by_name("processes.json").is_ok());
        assert_eq!(std::fs::read_dir(machine.state("work")).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packages() {
    let server = ProtocolServer::start().await;
    let mut machine = Machine::start(&server, None, json!({})).await;
    at_every_step(&mut machine, Package).await;
}

/// A session: its script runs at most once, and the end says whether it did.
struct Session {
    runs: PathBuf,
    given: PathBuf,
}

impl Action for Session {
    fn command(&mut self, machine: &Machine) -> Command {
        let _ = std::fs::remove_file(&self.runs);
        std::fs::write(&self.given, "given").unwrap();
        let text = format!("cat tool >> {}", self.runs.display());
        let file = machine.server.library("tool", b"run\n");
        let script = machine.server.library("script.sh", text.as_bytes());
        let path = self.given.to_str().unwrap().to_owned();
        let commands = vec![
            LiveCommand::PutFile { file },
            LiveCommand::RunScript { script, args: String::new() },
            LiveCommand::GetFile { path },
        ];
        Command::LiveResponse { commands }
    }

    fn ended(&mut self, machine: &Machine, id: Uuid, result: &OrderResult) {
        let runs = std::fs::read_to_string(&self.runs).unwrap_or_default();
        match result.status {
            OrderStatus::Succeeded => {
                assert_eq!(runs, "run\n");
                let file = machine.server.upload(id, 2).expect("the file");
                assert_eq!(file, ("given".to_owned(), b"given".to_vec()));
            }
            _ => {
                let error = result.error.as_deref().unwrap();
                assert!(error.contains("restarted while the script ran"), "{error}");
                assert!(runs.is_empty() || runs == "run\n", "{runs}");
            }
        }
        assert_eq!(std::fs::read_dir(machine.state("work")).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_response() {
    let server = ProtocolServer::start().await;
    let mut machine = Machine::start(&server, None, json!({})).await;
    let session = Session { runs: machine.disk("runs"), given: machine.disk("given") };
    at_every_step(&mut machine, session).await;
}

/// An investigation finds the same, whoever ends it.
struct Investigation(PathBuf);

impl Action for Investigation {
    fn command(&mut self, _: &Machine) -> Command {
        std::fs::write(&self.0, "suspicious").unwrap();
        let entities = InvestigatedEntities {
            sha1: vec![hex(&Sha1::digest("suspicious"))],
            paths: vec![self.0.to_str().unwrap().to_owned()],
            ..InvestigatedEntities::default()
        };
        Command::Investigate { entities }
    }

    fn ended(&mut self, _: &Machine, _: Uuid, result: &OrderResult) {
        succeeded(result);
        let paths: Vec<_> = result.findings.iter().map(|finding| finding.path.clone()).collect();
        assert_eq!(paths, [Some(self.0.to_str().unwrap().to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn investigations() {
    let server = ProtocolServer::start().await;
    let mut machine = Machine::start(&server, None, json!({})).await;
    let path = machine.disk("suspicious");
    at_every_step(&mut machine, Investigation(path)).await;
}

/// A machine that was told to leave leaves, wherever its sensor was killed on the way, and does not
/// make itself known again although it has a key for that.
#[tokio::test(flavor = "multi_thread")]
async fn offboarding() {
    let server = ProtocolServer::start().await;
    let mut machine = Machine::start(&server, None, json!({})).await;
    for number in 1..MOST_STEPS {
        machine.steps().end_before(number);
        let id = server.order(&machine.id, Command::Offboard {});
        let key = machine.state("key.pkcs8");
        let mut waited = 0;
        let step = loop {
            let (child, steps) = machine.running.as_mut().unwrap();
            let ended = child.try_wait().unwrap();
            if let Some(step) = steps.ended_before() {
                break Some(step);
            }
            if ended.is_some() {
                break None;
            }
            waited += 1;
            assert!(waited < 3000, "the sensor does not leave");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        machine.wait();
        if step.is_some() {
            machine.run();
            // It ends by itself.
            tokio::task::block_in_place(|| machine.wait());
        }
        println!("{number}: killed before {step:?}");
        assert_eq!(server.result(id).await.status, OrderStatus::Succeeded);
        assert!(machine.state("offboarded").exists() && !key.exists());
        assert!(!machine.state("enrolment.json").exists());
        let mut config = SensorConfig::new(server.url(), server.ca_pem.clone(), machine.state(""));
        config.enrolment_key = Some(ENROLMENT_KEY.to_owned());
        config.installation_id = Some("4".repeat(40));
        let again = vigie_sensor::Sensor::start(config.clone()).await;
        assert!(matches!(again, Err(vigie_sensor::StartError::Offboarded)));
        if step.is_none() {
            return;
        }
        vigie_sensor::enrol(config).await.unwrap();
        machine.run();
    }
    panic!("more than {MOST_STEPS} steps");
}
