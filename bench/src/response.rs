//! Response actions of a real sensor on this machine: how long a scan and a package take.

use crate::idle::{CLOCK_TICKS, cpu};
use crate::server::{Server, program};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const RULES: usize = 5000;
const SCANNED_BYTES: u64 = 1 << 30;
/// The core of a sensor that scans.
const SENSOR_CORE: &str = "1";

/// A server and this machine's sensor.
struct Machine {
    _server: Server,
    sensor: Child,
    http: reqwest::Client,
    url: String,
    token: String,
    id: String,
}

impl Machine {
    async fn start(folder: &Path, policy: Json, pinned: bool) -> Result<Machine> {
        let data = folder.join("data");
        let server = Server::start(&data, false, &["--no-sensor"])?;
        let state = folder.join("sensor");
        std::fs::create_dir(&state)?;
        let mut options = std::fs::OpenOptions::new();
        let policy_file =
            options.write(true).create(true).mode(0o600).open(state.join("policy.json"))?;
        serde_json::to_writer(policy_file, &policy)?;
        let sensor = program("vigie-sensor")?;
        let mut command = match pinned {
            true => {
                let mut command = Command::new("taskset");
                command.args(["-c", SENSOR_CORE]).arg(sensor);
                command
            }
            false => Command::new(sensor),
        };
        let sensor = command
            .args(["run", "--allow-response", "--server", &server.url()?])
            .args(["--ca", &server.value("certificate")?, "--state-dir"])
            .arg(state)
            .env("VIGIE_ENROLMENT_KEY", server.enrolment_key(&data)?)
            .env("RUST_LOG", "error")
            .spawn()?;
        let http = server.http()?;
        let (url, token) = (server.url()?, server.login()?.token(&http).await?);
        let mut machine = Machine { _server: server, sensor, http, url, token, id: String::new() };
        for _ in 0..300 {
            let machines = machine.get("machines").await?;
            if let Some(id) = machines["value"][0]["id"].as_str() {
                machine.id = id.to_owned();
                // What a start costs is no part of the action.
                tokio::time::sleep(Duration::from_secs(5)).await;
                return Ok(machine);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("the sensor does not enrol")
    }

    async fn get(&self, path: &str) -> Result<Json> {
        let request = self.http.get(format!("{}/api/{path}", self.url)).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Orders an action and waits for its end: the action, seconds, and the sensor's processor time.
    async fn act(&self, operation: &str, body: Json) -> Result<(Json, f64, f64)> {
        let (begun, used) = (Instant::now(), cpu(self.sensor.id())?);
        let url = format!("{}/api/machines/{}/{operation}", self.url, self.id);
        let request = self.http.post(url).bearer_auth(&self.token).json(&body);
        let given: Json = request.send().await?.error_for_status()?.json().await?;
        let path = format!("machineactions/{}", given["id"].as_str().context("an id")?);
        loop {
            // As often as the limits of the API allow.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let action = self.get(&path).await?;
            if !matches!(action["status"].as_str(), Some("Pending" | "InProgress")) {
                let used = (cpu(self.sensor.id())? - used) as f64 / CLOCK_TICKS;
                return Ok((action, begun.elapsed().as_secs_f64(), used));
            }
            ensure!(begun.elapsed() < Duration::from_secs(1200), "{operation} does not end");
        }
    }

    /// The most memory that the sensor ever had, in megabytes.
    fn peak(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.sensor.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1000)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.sensor.kill();
        let _ = self.sensor.wait();
    }
}

/// A scan of a gigabyte of mixed files with 5,000 rules, the sensor on one core.
pub async fn scan() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (rules, files) = (folder.path().join("rules"), folder.path().join("files"));
    std::fs::create_dir(&rules)?;
    std::fs::write(rules.join("bench.yar"), rule_texts(RULES))?;
    let count = write_files(&files, SCANNED_BYTES)?;
    let policy = json!({"quickScanFolders": [files], "rulesFolder": rules});
    let machine = Machine::start(folder.path(), policy, true).await?;
    let body = json!({"Comment": "bench", "ScanType": "Quick"});
    let (action, seconds, used) = machine.act("runAntiVirusScan", body).await?;
    println!(
        "scan: {count} files of {} MB in all, {RULES} rules, one core: {seconds:.1} s (target < 30), \
         {used:.1} s of processor time, at most {} MB of memory; {} {}",
        SCANNED_BYTES >> 20,
        machine.peak()?,
        action["status"],
        action["troubleshootInfo"]
    );
    Ok(())
}

/// An investigation package of this machine.
pub async fn package() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machine = Machine::start(folder.path(), json!({}), false).await?;
    let body = json!({"Comment": "bench"});
    let (action, seconds, used) = machine.act("collectInvestigationPackage", body).await?;
    println!(
        "package: {seconds:.1} s (target < 20), {used:.1} s of the sensor's processor time, at most {} \
         MB of memory; {} {}",
        machine.peak()?,
        action["status"],
        action["troubleshootInfo"]
    );
    Ok(())
}

/// Numbers that look random and are the same in every run: Knuth's generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }

    fn word(&mut self, length: u64) -> String {
        (0..length).map(|_| (b'a' + self.below(26) as u8) as char).collect()
    }
}

/// Rules in the proportions of published sets: texts, hexadecimal patterns with gaps, now and then a
/// regular expression; conditions on the file's head, its size and several strings at once.
fn rule_texts(count: usize) -> String {
    let mut random = Random(1);
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(text, "rule bench_{number} {{\n  strings:");
        for at in 0..2 + random.below(4) {
            let length = 6 + random.below(18);
            let _ = match (number + at as usize) % 10 {
                0..6 => writeln!(text, "    $s{at} = \"{}\"", random.word(length)),
                6 => writeln!(text, "    $s{at} = \"{}\" wide ascii", random.word(length)),
                7 => writeln!(text, "    $s{at} = \"{}\" nocase", random.word(length)),
                8 => {
                    let byte = |random: &mut Random| format!("{:02X}", random.below(256));
                    let head: Vec<_> = (0..6).map(|_| byte(&mut random)).collect();
                    let tail: Vec<_> = (0..4).map(|_| byte(&mut random)).collect();
                    let (head, tail) = (head.join(" "), tail.join(" "));
                    writeln!(text, "    $s{at} = {{ {head} ?? ?? [0-8] {tail} }}")
                }
                _ => writeln!(text, "    $s{at} = /{}[0-9]{{2,8}}\\.(exe|sh|so)/", random.word(8)),
            };
        }
        let condition = match number % 4 {
            0 => "uint32(0) == 0x464c457f and 2 of them",
            1 => "filesize < 5MB and all of them",
            2 => "2 of ($s*)",
            _ => "uint16(0) == 0x5a4d and any of them",
        };
        let _ = writeln!(text, "  condition:\n    {condition}\n}}");
    }
    text
}

/// Files of this many bytes in all: a third each of text, of noise and of this machine's programs and
/// libraries; how many.
fn write_files(folder: &Path, bytes: u64) -> Result<usize> {
    let mut random = Random(2);
    let programs = programs()?;
    let (mut written, mut count) = (0, 0);
    while written < bytes {
        let below = folder.join((count / 500).to_string());
        std::fs::create_dir_all(&below)?;
        let path = below.join(count.to_string());
        let size = (4096 << random.below(11)) + random.below(4096);
        let size = size.min(bytes - written) as usize;
        let content = match count % 3 {
            0 => lines(&mut random, size),
            1 => (0..size / 8 + 1).flat_map(|_| random.noise()).take(size).collect(),
            _ => {
                let program = &programs[random.below(programs.len() as u64) as usize];
                let mut content = std::fs::read(program)?;
                content.truncate((bytes - written) as usize);
                content
            }
        };
        std::fs::File::create(&path)?.write_all(&content)?;
        written += content.len() as u64;
        count += 1;
    }
    Ok(count)
}

impl Random {
    fn noise(&mut self) -> [u8; 8] {
        let (high, low) = (self.below(1 << 31), self.below(1 << 31));
        (high << 33 ^ low << 1).to_le_bytes()
    }
}

fn lines(random: &mut Random, size: usize) -> Vec<u8> {
    let words: Vec<String> = (0..200).map(|at| random.word(2 + at % 9)).collect();
    let mut text = String::with_capacity(size + 200);
    while text.len() < size {
        let _ =
            write!(text, "2026-11-27T08:{:02}:00Z host daemon[{}]:", text.len() % 60, text.len());
        for _ in 0..10 {
            let word = &words[random.below(200) as usize];
            let _ = write!(text, " {word}");
        }
        text.push('\n');
    }
    text.truncate(size);
    text.into_bytes()
}

fn programs() -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/bin")?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let data = std::fs::metadata(path);
            data.is_ok_and(|data| data.is_file() && (20_000..20_000_000).contains(&data.len()))
        })
        .collect();
    found.sort();
    ensure!(!found.is_empty(), "no programs in /usr/bin");
    Ok(found)
}
