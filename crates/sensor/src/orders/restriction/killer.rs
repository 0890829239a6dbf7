//! Ends a program right after its start, where the kernel cannot ask before it: the proc connector
//! tells of each exec. A program that lives for less than a millisecond may have done its work.

use super::guard::Guard;
use super::judge::Judge;
use crate::sources::proc_connector::{Connector, raise_priority};
use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(200);

/// Begins; the file systems are named by any path on them, all are meant where none is.
pub fn start(judge: Judge, file_systems: &[PathBuf]) -> Result<Guard> {
    let connector = Connector::open().map_err(|reason| anyhow!(reason));
    let mut connector = connector.context("nothing tells of programs that start")?;
    let mut devices = HashSet::new();
    for path in file_systems {
        let data = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        devices.insert(data.dev());
    }
    let mut judge = judge;
    Guard::start(move |stop| {
        raise_priority();
        while !stop.is_cancelled() {
            for pid in connector.execs(TICK) {
                end_if_forbidden(&mut judge, pid, &devices);
            }
        }
    })
}

fn end_if_forbidden(judge: &mut Judge, pid: u32, devices: &HashSet<u64>) -> Option<()> {
    // Opened first: what is read afterwards belongs to this process or to none.
    let handle = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
    let mut file = File::open(format!("/proc/{pid}/exe")).ok()?;
    let device = file.metadata().ok()?.dev();
    let is_meant = devices.is_empty() || devices.contains(&device);
    if is_meant && !judge.may_start(&mut file, pid) {
        pidfd_send_signal(&handle, Signal::KILL).ok()?;
    }
    Some(())
}
