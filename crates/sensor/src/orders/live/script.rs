//! A script in a process group of its own, bounded in time and output.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Programs that a script left behind may hold its outputs open; nobody waits longer for them.
const AFTER_END: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(50);

pub struct Limits {
    pub seconds: u64,
    pub output_bytes: usize,
}

pub struct Ended {
    /// Negative: the signal that ended it.
    pub exit_code: i32,
    pub output: String,
    pub errors: String,
    /// Why the step has failed although the script ran.
    pub reason: Option<String>,
}

/// Runs a script file: by its own first line where it has one, by PowerShell where its name ends in
/// `.ps1`, else by `/bin/sh`.
pub fn run(
    path: &Path,
    name: &str,
    words: &[String],
    folder: &Path,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<Ended> {
    let mut begin = [0; 4];
    let read = std::fs::File::open(path)?.read(&mut begin)?;
    let own = begin[..read].starts_with(b"#!") || begin[..read].starts_with(b"\x7fELF");
    let mut command = if own {
        Command::new(path)
    } else {
        let powershell = name.to_ascii_lowercase().ends_with(".ps1");
        let mut command = Command::new(if powershell { "pwsh" } else { "/bin/sh" });
        if powershell {
            command.args(["-NoProfile", "-NonInteractive", "-File"]);
        }
        command.arg(path);
        command
    };
    command
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = spawn(&mut command).with_context(|| format!("cannot start {name}"))?;
    let output = capture(child.stdout.take(), limits.output_bytes);
    let errors = capture(child.stderr.take(), limits.output_bytes);
    let (status, mut reason) = wait(&mut child, limits, stop)?;
    let exit_code = status.code().unwrap_or(-status.signal().unwrap_or(1));
    if reason.is_none() && exit_code != 0 {
        reason = Some(format!("the script ended with code {exit_code}"));
    }
    Ok(Ended { exit_code, output: text(&output), errors: text(&errors), reason })
}

/// Another thread may start a program at this instant, which holds the script open for writing until
/// its own exec.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    for _ in 0..20 {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(TICK);
            }
            outcome => return outcome,
        }
    }
    command.spawn()
}

fn wait(
    child: &mut Child,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<(ExitStatus, Option<String>)> {
    let until = Instant::now() + Duration::from_secs(limits.seconds);
    let reason = loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, None));
        }
        if stop.is_cancelled() {
            break "the script was cancelled".to_owned();
        }
        if Instant::now() >= until {
            break format!("the script took longer than {} seconds", limits.seconds);
        }
        std::thread::sleep(TICK);
    };
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok((child.wait()?, Some(reason)))
}

/// Reads to the end on a thread, keeps the beginning.
fn capture(pipe: Option<impl Read + Send + 'static>, most: usize) -> Receiver<Vec<u8>> {
    // Without a bound of its own: `most` bounds it, and a full queue would hold the script up.
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut kept = 0;
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            // What is too much is read all the same: a full pipe would hold the script up.
            let wanted = read.min(most - kept);
            let cut = kept < most && kept + read > most;
            kept += wanted;
            let mut bytes = buffer[..wanted].to_vec();
            if cut {
                bytes.extend_from_slice(format!("\n[cut at {most} bytes]").as_bytes());
            }
            if !bytes.is_empty() && sender.send(bytes).is_err() {
                return;
            }
        }
    });
    receiver
}

fn text(pieces: &Receiver<Vec<u8>>) -> String {
    let mut bytes = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(AFTER_END) {
        bytes.extend(piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str, words: &[&str], limits: &Limits) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        std::fs::write(&path, text).unwrap();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let stop = CancellationToken::new();
        run(&path, "script.sh", &words, folder.path(), limits, &stop).unwrap()
    }

    const LIMITS: Limits = Limits { seconds: 60, output_bytes: 1000 };

    #[test]
    fn output_errors_code_and_words_arrive() {
        let ended = script("echo \"$1\" \"$2\"; echo bad >&2; exit 3", &["a b", "c"], &LIMITS);
        assert_eq!((ended.exit_code, ended.output.as_str()), (3, "a b c\n"));
        assert_eq!(ended.errors, "bad\n");
        assert!(ended.reason.unwrap().contains("code 3"));
        assert!(script("exit 0", &[], &LIMITS).reason.is_none());
    }

    #[test]
    fn too_much_output_is_cut_and_holds_nothing_up() {
        let ended = script("head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2", &[], &LIMITS);
        assert_eq!(ended.exit_code, 0);
        assert!(ended.output.starts_with(&"x".repeat(1000)));
        assert!(ended.output.ends_with("[cut at 1000 bytes]") && ended.output.len() < 1100);
        assert_eq!(ended.errors, "end\n");
    }

    #[test]
    fn a_script_that_takes_too_long_is_ended_with_its_children() {
        let limits = Limits { seconds: 1, output_bytes: 1000 };
        let ended = script("sleep 1000 & echo $!; wait", &[], &limits);
        assert_eq!(ended.exit_code, -9);
        assert!(ended.reason.unwrap().contains("longer than 1 seconds"));
        let child: u32 = ended.output.trim().parse().unwrap();
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the child lives on: {state}");
    }
}
