//! `stopAndQuarantineFile` seen from outside: processes gone, files gone, files restored.

use crate::world::World;
use serde_json::json;
use sha1::{Digest, Sha1};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command as Program};
use vigie_contract::sensor::{Command, OrderResult, OrderStatus};
use vigie_sensor::identity::hex;

/// A program of its own hash that sleeps: what follows an ELF file's end is not looked at.
fn sleeper(path: &Path) -> String {
    let mut bytes = std::fs::read("/bin/sleep").unwrap();
    bytes.extend(uuid::Uuid::new_v4().as_bytes());
    std::fs::write(path, &bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o751)).unwrap();
    hex(&Sha1::digest(&bytes))
}

fn quarantine(sha1: &str, known_paths: &[&Path]) -> Command {
    let known_paths = known_paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    Command::StopAndQuarantineFile { sha1: sha1.to_owned(), known_paths }
}

fn md5(path: &Path) -> String {
    hex(&md5::Md5::digest(std::fs::read(path).unwrap()))
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

fn text(result: OrderResult) -> String {
    result.error.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_goes_and_whoever_runs_it_and_all_comes_back() {
    let mut world = World::start().await;
    // One runs from where nobody searches, one is known by its events alone, one is found.
    let (elsewhere, noted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = elsewhere.path().join("program");
    let sha1 = sleeper(&program);
    let (known, below) = (noted.path().join("known"), world.path("a/b"));
    std::fs::create_dir_all(&below).unwrap();
    std::fs::copy(&program, &known).unwrap();
    std::fs::copy(&program, below.join("copy")).unwrap();
    std::fs::hard_link(below.join("copy"), below.join("link")).unwrap();
    let harmless = world.path("harmless");
    std::fs::write(&harmless, "harmless").unwrap();
    let before = std::fs::metadata(&program).unwrap();
    let mut processes = [
        Program::new(&program).arg("600").spawn().unwrap(),
        Program::new(&program).arg("601").spawn().unwrap(),
    ];
    let mut other = Program::new("sleep").arg("602").spawn().unwrap();

    let (id, result) = world.order(quarantine(&sha1, &[&known, Path::new("/no/such/file")])).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    assert!(text(result).starts_with("4 files were quarantined and 2 processes were ended"));
    assert!(processes.iter_mut().all(has_ended));
    assert!(!has_ended(&mut other), "another program was ended");
    other.kill().unwrap();
    other.wait().unwrap();
    for gone in [&program, &known, &below.join("copy"), &below.join("link")] {
        assert!(!gone.exists(), "{} is still there", gone.display());
    }
    assert_eq!(std::fs::read_to_string(&harmless).unwrap(), "harmless");
    let row = world.event("FileQuarantined", |row| row["FileName"] == "program").await;
    assert_eq!(row["SHA1"], sha1.as_str());
    let fields: serde_json::Value =
        serde_json::from_str(row["AdditionalFields"].as_str().unwrap()).unwrap();
    assert_eq!((&fields["ActionId"], &fields["Requestor"]), (&json!(id), &json!("tester")));

    // A second order finds nothing and says so.
    let (_, again) = world.order(quarantine(&sha1, &[])).await;
    assert_eq!(again.status, OrderStatus::Failed);
    assert!(text(again).contains("no file with the SHA-1"));

    // Restored while the sensor runs, as the command does it.
    let sealed = vigie_sensor::quarantined(world.state.path()).unwrap();
    assert_eq!(sealed.len(), 4);
    let of = sealed.iter().find(|sealed| sealed.path.ends_with("program")).unwrap();
    assert_eq!((of.order, of.requestor.as_str()), (Some(id), "tester"));
    let output = Program::new(env!("CARGO_BIN_EXE_vigie-sensor"))
        .args(["restore", &of.id.to_string(), "--state-dir"])
        .arg(world.state.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hex(&Sha1::digest(std::fs::read(&program).unwrap())), sha1);
    let after = std::fs::metadata(&program).unwrap();
    assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()));
    assert_eq!(vigie_sensor::quarantined(world.state.path()).unwrap().len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_runs_the_script_is_ended() {
    let mut world = World::start().await;
    let script = world.path("script.sh");
    let text = format!("# {}\nwhile :; do sleep 0.05; done\n", uuid::Uuid::new_v4());
    std::fs::write(&script, &text).unwrap();
    let mut shell = Program::new("sh").arg(&script).spawn().unwrap();
    let (_, result) = world.order(quarantine(&hex(&Sha1::digest(&text)), &[])).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    assert!(has_ended(&mut shell) && !script.exists());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_packages_brought_and_what_the_policy_protects_stays() {
    let (protected, database) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let policy = json!({"protected": [protected.path()], "packageDatabase": database.path()});
    let mut world = World::start_with(policy).await;
    let program = protected.path().join("program");
    let sha1 = sleeper(&program);
    let mut process = Program::new(&program).arg("600").spawn().unwrap();
    let (_, result) = world.order(quarantine(&sha1, &[])).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(text(result).contains("policy protects"));
    assert!(program.exists() && !has_ended(&mut process));
    process.kill().unwrap();
    process.wait().unwrap();

    // A package's own file, by a database of the test's own.
    let packaged = world.path("packaged");
    let sha1 = sleeper(&packaged);
    let sums = format!("{}  {}\n", md5(&packaged), packaged.strip_prefix("/").unwrap().display());
    std::fs::create_dir(database.path().join("info")).unwrap();
    std::fs::write(database.path().join("info/tools.md5sums"), sums).unwrap();
    let mut process = Program::new(&packaged).arg("600").spawn().unwrap();
    let (_, result) = world.order(quarantine(&sha1, &[])).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(text(result).contains("unchanged part of the installed package tools"));
    assert!(packaged.exists() && !has_ended(&mut process));
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(vigie_sensor::quarantined(world.state.path()).unwrap().is_empty());
    world.stop().await;
}
