//! Programs of the machine whose output goes into the package.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LONGEST_RUN: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(20);
/// Of a longer output the beginning is kept, in bytes.
const LARGEST_OUTPUT: u64 = 12 << 20;

pub struct Tool {
    /// Its file in the package.
    pub name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

pub const TOOLS: &[Tool] = &[
    Tool {
        name: "journal.txt",
        program: "journalctl",
        arguments: &["--no-pager", "--output=short-iso-precise", "--lines=20000"],
    },
    Tool {
        name: "systemd_units.txt",
        program: "systemctl",
        arguments: &["list-unit-files", "--no-pager", "--no-legend"],
    },
    Tool {
        name: "systemd_timers.txt",
        program: "systemctl",
        arguments: &["list-timers", "--all", "--no-pager"],
    },
    Tool { name: "packages.txt", program: "dpkg-query", arguments: &["--show"] },
    Tool { name: "packages_rpm.txt", program: "rpm", arguments: &["-qa"] },
    Tool { name: "logons.txt", program: "last", arguments: &["-F", "-w", "-n", "2000"] },
    Tool { name: "addresses.txt", program: "ip", arguments: &["address"] },
    Tool { name: "routes.txt", program: "ip", arguments: &["route", "show", "table", "all"] },
    Tool { name: "neighbours.txt", program: "ip", arguments: &["neighbour"] },
    Tool { name: "firewall.txt", program: "nft", arguments: &["list", "ruleset"] },
    Tool { name: "mounts.txt", program: "findmnt", arguments: &["--noheadings", "--list"] },
];

impl Tool {
    /// The command line.
    pub fn line(&self) -> String {
        [&[self.program], self.arguments].concat().join(" ")
    }

    pub fn run(&self, stop: &CancellationToken) -> Result<Vec<u8>> {
        let mut child = Command::new(self.program)
            .args(self.arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be run", self.program))?;
        let output = child.stdout.take().context("no output")?;
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = output.take(LARGEST_OUTPUT).read_to_end(&mut bytes);
            bytes
        });
        let until = Instant::now() + LONGEST_RUN;
        // A reader that has enough closes the pipe, which ends the program.
        while child.try_wait()?.is_none() {
            if stop.is_cancelled() || Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                bail!("{} took too long", self.program);
            }
            std::thread::sleep(TICK);
        }
        Ok(reader.join().unwrap_or_default())
    }
}
