//! `restrictCodeExecution` on a memory file system of the test's own: only its programs are judged.

use crate::world::World;
use md5::Digest;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use vigie_contract::sensor::{Command, OrderStatus};
use vigie_sensor::identity::hex;

/// A memory file system for one test.
pub struct Disk(pub PathBuf);

impl Disk {
    /// `None`, with a printed line, where it cannot be had.
    pub fn mount() -> Option<Disk> {
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

    pub fn program(&self, name: &str, text: &str) -> PathBuf {
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
pub fn starts(program: &Path) -> bool {
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
    let packaged = disk.program("packaged", "#!/bin/sh\nexit 0\n");
    let database = tempfile::tempdir().unwrap();
    let sum = hex(&md5::Md5::digest(std::fs::read(&packaged).unwrap()));
    let sums = format!("{sum}  {}\n", packaged.strip_prefix("/").unwrap().display());
    std::fs::create_dir(database.path().join("info")).unwrap();
    std::fs::write(database.path().join("info/tools.md5sums"), sums).unwrap();
    let policy = json!({
        "restrictedFileSystems": [disk.0], "allowedPrograms": [allowed],
        "packageDatabase": database.path(),
    });
    let mut world = World::start_with(policy).await;
    assert!(starts(&stranger) && starts(&friend));

    let (_, result) = world.order(Command::RestrictCodeExecution {}).await;
    assert_eq!((result.status, result.error), (OrderStatus::Succeeded, None));
    assert!(!starts(&stranger), "a program of no package starts");
    assert!(starts(&friend), "a program that the policy allows does not start");
    assert!(starts(&packaged), "a package's program does not start");
    disk.program("packaged", "#!/bin/sh\nexit 0 # changed\n");
    assert!(!starts(&packaged), "a changed program of a package starts");
    assert!(Program::new("true").status().unwrap().success(), "another file system is restricted");
    let row = world.event("AppControlExecutableBlocked", |row| row["FileName"] == "stranger").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_cannot_ask_programs_are_ended_after_their_start() {
    let Some(disk) = Disk::mount() else { return };
    // A script would be judged as its interpreter, so it has to be a program of its own.
    let stranger = disk.0.join("stranger");
    std::fs::copy("/bin/sleep", &stranger).unwrap();
    let policy = json!({"restrictedFileSystems": [disk.0], "killAfterStart": true});
    let mut world = World::start_with(policy).await;
    let (_, result) = world.order(Command::RestrictCodeExecution {}).await;
    if let Some(reason) = result.error {
        assert_eq!(result.status, OrderStatus::Failed);
        println!("skipped: {reason}");
        return;
    }
    let script = format!("({} 600); exit $?", stranger.display());
    let ended = Program::new("sh").args(["-c", &script]).status().unwrap();
    // 128 and the number of SIGKILL.
    assert_eq!(ended.code(), Some(137));
    world.event("AppControlExecutableBlocked", |row| row["FileName"] == "stranger").await;
    world.stop().await;
}
