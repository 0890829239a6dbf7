//! ClamAV, where it is installed: its own program is asked, since its library is not ours to link.

use super::Detection;
use super::inspector::lower_priority;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The daemon's client first: it need not load the signatures.
const PROGRAMS: [&str; 2] = ["/usr/bin/clamdscan", "/usr/bin/clamscan"];
const TICK: Duration = Duration::from_millis(100);

pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    let usual = PROGRAMS.iter().map(PathBuf::from);
    named.map(Path::to_owned).into_iter().chain(usual).find(|program| program.is_file())
}

/// Scans folders; the lines `PATH: NAME FOUND` are its answer.
pub fn scan(
    program: &Path,
    folders: &[PathBuf],
    stop: &CancellationToken,
) -> Result<Vec<Detection>> {
    let daemon = program.file_name().is_some_and(|name| name == "clamdscan");
    let own: &[&str] = if daemon { &["--fdpass"] } else { &["--recursive"] };
    let mut command = Command::new(program);
    // SAFETY: between fork and exec only calls of the kernel are made.
    unsafe {
        command.pre_exec(|| {
            lower_priority();
            Ok(())
        });
    }
    let mut child = command
        .args(["--infected", "--no-summary"])
        .args(own)
        .arg("--")
        .args(folders.iter().filter(|folder| folder.exists()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let output = child.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).filter_map(parse).collect()
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop.is_cancelled() {
            child.kill()?;
            child.wait()?;
            bail!("it was stopped");
        }
        std::thread::sleep(TICK);
    };
    let found: Vec<Detection> = reader.join().unwrap_or_default();
    // clamscan(1): 0 nothing found, 1 something found, 2 errors.
    match status.code() {
        Some(0 | 1) => Ok(found),
        _ if !found.is_empty() => Ok(found),
        code => bail!("{} ended with {code:?}", program.display()),
    }
}

fn parse(line: String) -> Option<Detection> {
    let (path, threat) = line.strip_suffix(" FOUND")?.rsplit_once(": ")?;
    Some(Detection { path: path.into(), threat: threat.to_owned(), engine: "ClamAV" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_it_prints_becomes_detections() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("clamscan");
        let text = "#!/bin/sh\necho \"$5/a: b: Unix.Test-1 FOUND\"\necho noise\nexit 1\n";
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let stop = CancellationToken::new();
        let found = scan(&program, &[folder.path().to_owned()], &stop).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, folder.path().join("a: b"));
        assert_eq!(found[0].threat, "Unix.Test-1");

        std::fs::write(&program, "#!/bin/sh\nexit 2\n").unwrap();
        assert!(scan(&program, &[], &stop).is_err());
    }
}
