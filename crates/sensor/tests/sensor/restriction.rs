//! `restrictCodeExecution` on a memory file system of the test's own: only its programs are judged.

use crate::world::World;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use vigie_contract::sensor::{Command, OrderStatus};

/// A memory file system for one test.
struct Disk(PathBuf);

impl Disk {
    /// `None`, with a printed line, where it cannot be had.
    fn mount() -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root for fanotify and a file system of its own");
            return None;
        }
        let path = tempfile::tempdir().unwrap().keep();
        let mounted = Program::new("mount").args(["-t", "tmpfs", "vigie-test"]).arg(&path).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: no memory file system: {mounted:?}");
            return None;
        }
        Some(Disk(path))
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Program::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whether a program can be started. Another process starts it: the sensor's own children may.
fn starts(program: &Path) -> bool {
    let script = format!("exec sh -c 'exec {}'", program.display());
    let mut shell = Program::new("setsid");
    shell.args(["--wait", "sh", "-c", &format!("({script}); exit $?")]);
    shell.stderr(std::process::Stdio::null()).status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_programs_start_until_the_restriction_ends() {
    let Some(disk) = Disk::mount() else { return };
    let allowed = disk.0.join("allowed");
    std::fs::create_dir(&allowed).unwrap();
    let stranger = disk.program("stranger", "#!/bin/sh\nexit 0\n");
    let friend = disk.program("allowed/friend", "#!/bin/sh\nexit 0\n");
    let policy = json!({"restrictedFileSystems": [disk.0], "allowedPrograms": [allowed]});
    let mut world = World::start_with(policy).await;
    assert!(starts(&stranger) && starts(&friend));

    let (_, result) = world.order(Command::RestrictCodeExecution {}).await;
    assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
    assert!(!starts(&stranger), "a program of no package starts");
    assert!(starts(&friend), "a program that the policy allows does not start");
    assert!(Program::new("true").status().unwrap().success(), "another file system is restricted");
    let row = world
        .event("AppControlExecutableBlocked", |row| row["FileName"] == "stranger")
        .await;
    assert_eq!(row["FolderPath"], stranger.to_str().unwrap());
    assert!(row["InitiatingProcessFileName"].is_string());
    let restricted = |world: &World, wanted: bool| {
        let memory = world.server.memory.lock().unwrap();
        memory.machines[&world.machine].report.execution_restricted == wanted
    };
    let machine = world.machine.clone();
    world
        .server
        .until("a report of the restriction", |memory| {
            memory.machines[&machine].report.execution_restricted.then_some(())
        })
        .await;

    // It comes back with the sensor.
    world.stop().await;
    assert!(starts(&stranger), "nobody is there to ask");
    world.restart().await;
    assert!(!starts(&stranger), "the restriction did not survive a restart");

    let (_, result) = world.order(Command::UnrestrictCodeExecution {}).await;
    assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
    assert!(starts(&stranger));
    world
        .server
        .until("a report of the release", |memory| {
            (!memory.machines[&machine].report.execution_restricted).then_some(())
        })
        .await;
    assert!(restricted(&world, false));
    world.stop().await;
}
