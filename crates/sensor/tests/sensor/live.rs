//! Live response: scripts, files, and all that is not allowed.

use crate::world::World;
use serde_json::json;
use std::time::Duration;
use vigie_contract::sensor::{
    Command, CommandStatus, FileReference, LiveCommand, OrderResult, OrderStatus, ScriptTranscript,
};

fn session(commands: Vec<LiveCommand>) -> Command {
    Command::LiveResponse { commands }
}

fn get(path: impl AsRef<std::path::Path>) -> LiveCommand {
    LiveCommand::GetFile { path: path.as_ref().to_str().unwrap().to_owned() }
}

fn steps(result: &OrderResult) -> Vec<CommandStatus> {
    result.commands.iter().map(|step| step.status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_puts_runs_and_gets() {
    let mut world = World::start().await;
    let tool = world.server.library("tool.txt", b"from the library");
    let text = b"#!/bin/sh\ncat tool.txt; echo \"$1|$2\"; echo oops >&2\n";
    let script = world.server.library("look.sh", text);
    let wanted = world.path("wanted");
    std::fs::write(&wanted, "a".repeat(3 << 20)).unwrap();
    let args = "'one word' two".to_owned();
    let commands = vec![
        LiveCommand::PutFile { file: tool },
        LiveCommand::RunScript { script, args },
        get(&wanted),
    ];
    let (id, result) = world.order(session(commands)).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    assert_eq!(steps(&result), [CommandStatus::Completed; 3]);
    assert!(result.commands.iter().all(|step| step.ended.is_some_and(|at| at >= step.started)));
    let (name, bytes) = world.server.upload(id, 1).expect("a transcript");
    assert_eq!(name, "look.sh.json");
    let transcript: ScriptTranscript = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(transcript.script_output, "from the libraryone word|two\n");
    assert_eq!((transcript.exit_code, transcript.script_errors.as_str()), (0, "oops\n"));
    let (name, bytes) = world.server.upload(id, 2).expect("a file");
    assert_eq!((name.as_str(), bytes.len()), ("wanted", 3 << 20));
    assert!(std::fs::read_dir(world.state.path().join("work")).unwrap().next().is_none());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_ends_the_session_and_its_output_is_kept() {
    let mut world = World::start().await;
    let script = world.server.library("bad.sh", b"echo before; exit 7\n");
    let commands =
        vec![LiveCommand::RunScript { script, args: String::new() }, get(world.path("x"))];
    let (id, result) = world.order(session(commands)).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert_eq!(steps(&result), [CommandStatus::Failed], "the second step was begun");
    assert!(result.commands[0].errors[0].contains("code 7"));
    let (_, bytes) = world.server.upload(id, 0).expect("a transcript");
    let transcript: ScriptTranscript = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((transcript.exit_code, transcript.script_output.as_str()), (7, "before\n"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_paths_and_sizes_out_of_bounds_are_refused() {
    let mut world = World::start_with(json!({"largestFileBytes": 1000})).await;
    let refused = async |command: LiveCommand, reason: &str| {
        let (id, result) = world.order(session(vec![command])).await;
        assert_eq!(result.status, OrderStatus::Failed);
        let error = result.error.unwrap();
        assert!(error.contains(reason), "{error} does not say {reason}");
        assert!(world.server.upload(id, 0).is_none());
    };
    let bytes = b"x";
    for name in ["../../outside", "/etc/outside", "..", "a\\..\\b"] {
        let file = FileReference { name: name.to_owned(), ..world.server.library("x", bytes) };
        refused(LiveCommand::PutFile { file }, "is not the name of a file").await;
    }
    assert!(!world.state.path().join("outside").exists());
    let other = world.server.library("other", b"other content");
    let mut swapped = world.server.library("tool", b"first content");
    world.server.memory.lock().unwrap().files.insert(swapped.sha256.clone(), b"evil".to_vec());
    refused(LiveCommand::PutFile { file: swapped.clone() }, "is not the one that was ordered")
        .await;
    swapped.sha256 = "0".repeat(64);
    refused(LiveCommand::PutFile { file: swapped }, "404").await;
    let unclosed = LiveCommand::RunScript { script: other, args: "'open".to_owned() };
    refused(unclosed, "a quote is not closed").await;

    // Ten gigabytes that take no place.
    let huge = world.path("huge");
    std::fs::File::create(&huge).unwrap().set_len(10 << 30).unwrap();
    refused(get(&huge), "10737418240 bytes").await;
    refused(get("/dev/zero"), "no regular file").await;
    refused(get(world.disk.path()), "no regular file").await;
    refused(get("relative"), "absolute").await;
    refused(get(world.path("none")), "none").await;
    let link = world.path("link");
    std::os::unix::fs::symlink(world.state.path().join("key.pkcs8"), &link).unwrap();
    refused(get(&link), "the sensor's own files").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_cancelled_while_a_script_runs() {
    let mut world = World::start().await;
    let mark = world.path("begun");
    let text = format!("echo $$ > {}; sleep 600", mark.display());
    let script = world.server.library("long.sh", text.as_bytes());
    let command = LiveCommand::RunScript { script, args: String::new() };
    let id = world.server.order(&world.machine, session(vec![command]));
    let pid = wait_for_number(&mark).await;
    world.server.order(&world.machine, Command::Cancel { action_id: id });
    let result = world.server.result(id).await;
    assert_eq!(result.status, OrderStatus::Cancelled);
    assert_eq!(steps(&result), [CommandStatus::Cancelled]);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the script lives on");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_a_restart_cut_off_is_not_run_again() {
    let mut world = World::start().await;
    let mark = world.path("runs");
    let text = format!("echo $$ >> {}; sleep 600", mark.display());
    let script = world.server.library("long.sh", text.as_bytes());
    let command = LiveCommand::RunScript { script, args: String::new() };
    let id = world.server.order(&world.machine, session(vec![command]));
    wait_for_number(&mark).await;
    world.restart().await;
    let result = world.server.result(id).await;
    assert_eq!(result.status, OrderStatus::Failed);
    assert!(result.error.unwrap().contains("restarted while the script ran"));
    assert_eq!(std::fs::read_to_string(&mark).unwrap().lines().count(), 1);
    world.stop().await;
}

async fn wait_for_number(path: &std::path::Path) -> u32 {
    for _ in 0..200 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if let Ok(number) = text.trim().parse() {
            return number;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} was not written", path.display());
}
