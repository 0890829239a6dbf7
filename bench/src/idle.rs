//! What server and sensor take while little happens.

use crate::server::{Server, program};
use anyhow::{Context as _, Result};
use std::process::Command;
use std::time::Duration;

/// A second of processor time in /proc; Linux shows 100 on every architecture.
pub const CLOCK_TICKS: f64 = 100.0;

pub fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(&folder.path().join("data"), false, &["--no-sensor"])?;
    let key = server.enrolment_key(&folder.path().join("data"))?;
    let mut sensor = Command::new(program("vigie-sensor")?)
        .args(["run", "--server", &server.url()?, "--ca", &server.value("certificate")?])
        .arg("--state-dir")
        .arg(folder.path().join("sensor"))
        .env("VIGIE_ENROLMENT_KEY", key)
        .env("RUST_LOG", "warn")
        .spawn()?;
    std::thread::sleep(Duration::from_secs(15));
    let (server_before, sensor_before) = (cpu(server.pid())?, cpu(sensor.id())?);
    const SECONDS: u64 = 30;
    std::thread::sleep(Duration::from_secs(SECONDS));
    let share = |ticks: u64| ticks as f64 / CLOCK_TICKS / SECONDS as f64 * 100.0;
    let (server_after, sensor_after) = (cpu(server.pid())?, cpu(sensor.id())?);
    println!(
        "idle: server {} MB (target < 150), {:.2} % of a core; sensor {} MB (target < 40), {:.2} % \
         (target < 1)",
        resident(server.pid())?,
        share(server_after - server_before),
        resident(sensor.id())?,
        share(sensor_after - sensor_before)
    );
    sensor.kill()?;
    sensor.wait()?;
    Ok(())
}

/// Clock ticks of user and system time: fields 14 and 15 of proc_pid_stat(5).
pub fn cpu(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// Megabytes.
pub fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1000)
}
