//! Live response sessions: scripts run, files fetched and put, step by step.
//!
//! Files are put into the state folder's `downloads`, where scripts run, too. A step that fails ends
//! the session. After a restart a script that had begun is not run again: its step has failed.

use super::executor::{Executor, Run};
use super::quarantine::open_regular;
use super::{FAILED_HRESULT, failed, succeeded};
use crate::disk;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vigie_contract::sensor::{
    CommandOutcome, CommandStatus, FileReference, LiveCommand, OrderResult, OrderStatus,
    ScriptTranscript, is_file_name,
};

mod script;

const STEPS_FILE: &str = "steps.json";

/// Runs a session's steps and sends what they brought.
pub fn run(executor: &Executor, run: &Run, commands: &[LiveCommand]) -> OrderResult {
    let session = executor
        .work_folder(run)
        .and_then(|work| Ok((disk::read_json(&work.join(STEPS_FILE))?.unwrap_or_default(), work)));
    let (steps, work) = match session {
        Ok(session) => session,
        Err(error) => return failed(format!("{error:#}"), FAILED_HRESULT),
    };
    let mut session = Session { executor, run, work, steps };
    session.run(commands)
}

struct Session<'a> {
    executor: &'a Executor,
    run: &'a Run,
    work: PathBuf,
    steps: Vec<CommandOutcome>,
}

impl Session<'_> {
    fn run(&mut self, commands: &[LiveCommand]) -> OrderResult {
        for (index, command) in commands.iter().enumerate() {
            match self.steps.get(index).map(|step| step.status) {
                Some(CommandStatus::Completed) => continue,
                Some(CommandStatus::InProgress)
                    if matches!(command, LiveCommand::RunScript { .. }) =>
                {
                    return self.fail(index, "the sensor was restarted while the script ran");
                }
                _ => {}
            }
            self.steps.truncate(index);
            self.steps.push(CommandOutcome {
                index,
                status: CommandStatus::InProgress,
                started: self.executor.clock.now(),
                ended: None,
                errors: Vec::new(),
            });
            if let Err(error) = self.keep() {
                return self.fail(index, &format!("{error:#}"));
            }
            if !self.run.transfer.progress(&self.result(OrderStatus::InProgress)) {
                self.run.transfer.stop.cancel();
            }
            if self.run.is_stopped() {
                return self.fail(index, "the session was cancelled");
            }
            if let Err(error) = self.step(index, command) {
                return self.fail(index, &format!("{error:#}"));
            }
            self.end(index, CommandStatus::Completed, None);
        }
        OrderResult { commands: self.steps.clone(), ..succeeded() }
    }

    fn result(&self, status: OrderStatus) -> OrderResult {
        OrderResult { commands: self.steps.clone(), ..OrderResult::of(status) }
    }

    fn end(&mut self, index: usize, status: CommandStatus, error: Option<&str>) {
        let now = self.executor.clock.now();
        if let Some(step) = self.steps.get_mut(index) {
            step.status = status;
            step.ended = Some(now);
            step.errors.extend(error.map(str::to_owned));
        }
        if let Err(error) = self.keep() {
            tracing::error!(error = format!("{error:#}"), "a session's steps are not kept");
        }
    }

    fn fail(&mut self, index: usize, error: &str) -> OrderResult {
        let stopped = self.run.is_stopped();
        let status = if stopped { CommandStatus::Cancelled } else { CommandStatus::Failed };
        // What the sensor's own end cut off is judged after the next start.
        if !self.executor.stop.is_cancelled() {
            self.end(index, status, Some(error));
        }
        let message = format!("command {index} failed: {error}");
        OrderResult { commands: self.steps.clone(), ..failed(message, FAILED_HRESULT) }
    }

    fn keep(&self) -> Result<()> {
        disk::write_json(&self.work.join(STEPS_FILE), &self.steps)
    }

    fn step(&self, index: usize, command: &LiveCommand) -> Result<()> {
        match command {
            LiveCommand::PutFile { file } => self.put(file),
            LiveCommand::RunScript { script, args } => self.script(index, script, args),
            LiveCommand::GetFile { path } => self.get(index, Path::new(path)),
        }
    }

    fn downloads(&self) -> Result<PathBuf> {
        let folder = self.executor.state_dir.join("downloads");
        disk::make_private_folder(&folder)?;
        Ok(folder)
    }

    /// Writes a library file under its own name. The name comes from the server, so it is looked at
    /// once more: none leads out of the folder.
    fn put(&self, file: &FileReference) -> Result<()> {
        ensure!(is_file_name(&file.name), "'{}' is not the name of a file", file.name);
        let bytes = self.run.transfer.download(file)?;
        write_private(&self.downloads()?.join(&file.name), &bytes, 0o600)
    }

    fn script(&self, index: usize, file: &FileReference, args: &str) -> Result<()> {
        ensure!(is_file_name(&file.name), "'{}' is not the name of a file", file.name);
        let words = shlex::split(args).context("Args: a quote is not closed")?;
        let bytes = self.run.transfer.download(file)?;
        let path = self.work.join(format!("script-{index}"));
        write_private(&path, &bytes, 0o700)?;
        let limits = script::Limits {
            seconds: self.executor.policy.script_seconds,
            output_bytes: self.executor.policy.script_output_bytes,
        };
        let folder = self.downloads()?;
        let ended =
            script::run(&path, &file.name, &words, &folder, &limits, &self.run.transfer.stop)?;
        if self.executor.stop.is_cancelled() {
            bail!("the sensor ended while the script ran");
        }
        let transcript = ScriptTranscript {
            script_name: file.name.clone(),
            exit_code: ended.exit_code,
            script_output: ended.output,
            script_errors: ended.errors,
        };
        let sent = self.work.join(format!("transcript-{index}.json"));
        write_private(&sent, &serde_json::to_vec(&transcript)?, 0o600)?;
        self.run.transfer.upload(index, &sent, &format!("{}.json", file.name))?;
        match ended.reason {
            Some(reason) => bail!("{reason}"),
            None => Ok(()),
        }
    }

    /// Sends a regular file. It is copied first, because it may change while it is sent.
    fn get(&self, index: usize, path: &Path) -> Result<()> {
        ensure!(path.is_absolute(), "Path: an absolute path is expected");
        let path = std::fs::canonicalize(path).with_context(|| path.display().to_string())?;
        let own = std::fs::canonicalize(&self.executor.state_dir)?;
        let public = own.join("downloads");
        ensure!(
            !path.starts_with(&own) || path.starts_with(&public),
            "the sensor's own files are not handed out"
        );
        let source = open_regular(&path).with_context(|| path.display().to_string())?;
        let (size, limit) = (source.metadata()?.len(), self.executor.policy.largest_file_bytes);
        ensure!(size <= limit, "the file has {size} bytes; this machine's policy allows {limit}");
        let copy = self.work.join(format!("file-{index}"));
        let mut target = private(&copy, 0o600)?;
        // Files of the kernel say that they are empty.
        let copied = std::io::copy(&mut source.take(limit + 1), &mut target)?;
        ensure!(copied <= limit, "the file has more than {limit} bytes");
        // A name on Linux may hold what no other system bears.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let harmless = |letter: char| !letter.is_control() && !"\\:".contains(letter);
        let letters = name.chars().map(|letter| if harmless(letter) { letter } else { '_' });
        let name: String = letters.take(80).collect();
        self.run.transfer.upload(index, &copy, &name)?;
        std::fs::remove_file(&copy)?;
        Ok(())
    }
}

/// A new file in place of what stood there; a link there is replaced, not followed.
fn private(path: &Path, mode: u32) -> Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let opened = File::options().write(true).create_new(true).mode(mode).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = private(path, mode)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}
