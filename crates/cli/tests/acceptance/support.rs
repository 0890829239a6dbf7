//! `vigie up` as a child process.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub const VIGIE: &str = env!("CARGO_BIN_EXE_vigie");

/// `vigie` with arguments, apart from the environment of whoever runs the tests.
pub fn vigie(arguments: &[&str]) -> Command {
    let mut command = Command::new(VIGIE);
    command.args(arguments).env_remove("RUST_LOG");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VIGIE_")) {
        command.env_remove(name);
    }
    command
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server; killed with the test.
pub struct Up {
    child: Child,
    /// What it printed until it was ready.
    pub said: String,
    rest: Receiver<String>,
    log: PathBuf,
}

impl Up {
    /// Starts `command`, which is `vigie up …`, and waits until it is ready; its log goes to a file
    /// beside the data folder.
    pub fn start(command: &mut Command, log: &Path) -> Up {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut said = String::new();
        let end = Instant::now() + Duration::from_secs(60);
        while !said.contains("Ctrl-C stops.") {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => said.push_str(&format!("{line}\n")),
                Err(error) => {
                    let log = std::fs::read_to_string(log).unwrap_or_default();
                    panic!("not started ({error}): {said}\n{log}");
                }
            }
        }
        Up { child, said, rest: lines, log: log.to_owned() }
    }

    /// `vigie up` on a folder, without a sensor of this machine.
    pub fn on(folder: &Path, more: &[&str]) -> Up {
        let data = folder.join("data");
        let mut command = vigie(&["up", "--no-sensor"]);
        command.arg("--data").arg(data).args(more);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Up::start(&mut command, &folder.join("log"))
    }

    /// A printed value, for example of `tenant`.
    pub fn value(&self, name: &str) -> String {
        let found = self.said.lines().find_map(|line| {
            let (key, value) = line.trim_start().split_once("  ")?;
            (line.starts_with("  ") && key == name).then(|| value.trim().to_owned())
        });
        found.unwrap_or_else(|| panic!("no {name} in {}", self.said))
    }

    pub fn url(&self) -> String {
        let line = self.said.lines().find_map(|line| line.strip_prefix("Vigie runs on "));
        line.unwrap_or_else(|| panic!("no address in {}", self.said)).to_owned()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C; what it printed afterwards.
    pub fn interrupt(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        (status, self.rest.iter().collect())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Output of a program that ended well.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// What a program says as it refuses; it must end within ten seconds.
pub fn refusal(command: &mut Command) -> String {
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{command:?} goes on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{command:?} was not refused: {text}");
    text
}
