//! A server under measurement, and clients of it.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value as Json, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use vigie_contract::sensor::{EnrolRequest, MachineReport};
use vigie_sensor::client::Client;
use vigie_sensor::identity::Key;

/// The core that a pinned server has for itself.
pub const SERVER_CORE: usize = 0;

/// A program built beside this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is missing: build the workspace first", path.display());
    Ok(path)
}

/// `vigie up` as a child; killed when dropped.
pub struct Server {
    child: Child,
    said: String,
}

impl Server {
    /// On one core, or with all of them.
    pub fn start(data: &Path, pinned: bool, more: &[&str]) -> Result<Server> {
        let vigie = program("vigie")?;
        let mut command = match pinned {
            true => {
                let mut command = Command::new("taskset");
                command.args(["-c", &SERVER_CORE.to_string()]).arg(vigie);
                command
            }
            false => Command::new(vigie),
        };
        command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(more);
        command.env("RUST_LOG", "warn").stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start vigie")?;
        let output = child.stdout.take().context("no output")?;
        let mut said = String::new();
        for line in BufReader::new(output).lines() {
            said.push_str(&line?);
            said.push('\n');
            if said.contains("Ctrl-C stops.") {
                return Ok(Server { child, said });
            }
        }
        bail!("the server did not start: {said}")
    }

    pub fn value(&self, name: &str) -> Result<String> {
        let mut lines = self.said.lines().filter_map(|line| line.strip_prefix("  "));
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
        Ok(found.with_context(|| format!("no {name} in {}", self.said))?.trim().to_owned())
    }

    pub fn url(&self) -> Result<String> {
        let mut lines = self.said.lines();
        let found = lines.find_map(|line| line.strip_prefix("Vigie runs on "));
        Ok(found.context("no address")?.to_owned())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ca_pem(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.value("certificate")?)?)
    }

    pub fn http(&self) -> Result<reqwest::Client> {
        Ok(self.http_builder()?.build()?)
    }

    /// A client that trusts the server, to be made as one likes.
    pub fn http_builder(&self) -> Result<reqwest::ClientBuilder> {
        let ca = reqwest::Certificate::from_pem(self.ca_pem()?.as_bytes())?;
        Ok(reqwest::Client::builder().tls_certs_only([ca]))
    }

    pub fn login(&self) -> Result<Login> {
        Ok(Login {
            url: self.url()?,
            tenant: self.value("tenant")?,
            application: self.value("application")?,
            secret: self.value("secret")?,
        })
    }

    pub fn enrolment_key(&self, data: &Path) -> Result<String> {
        let mut command = Command::new(program("vigie")?);
        command.args(["tenant", "enrolment-key", "--data"]).arg(data);
        let output = command.output()?;
        anyhow::ensure!(output.status.success(), "no enrolment key");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What client credentials need.
#[derive(Clone)]
pub struct Login {
    pub url: String,
    pub tenant: String,
    pub application: String,
    pub secret: String,
}

impl Login {
    pub async fn token(&self, http: &reqwest::Client) -> Result<String> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.url, self.tenant);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.application),
            ("client_secret", &self.secret),
            ("scope", "https://api.securitycenter.microsoft.com/.default"),
        ];
        let answer: Json =
            http.post(url).form(&form).send().await?.error_for_status()?.json().await?;
        Ok(answer["access_token"].as_str().context("no token")?.to_owned())
    }
}

/// A sensor at the level of the protocol.
pub struct Feeder {
    client: Client,
    token: String,
    sequence: u64,
}

impl Feeder {
    pub async fn enrol(url: &str, ca_pem: &str, enrolment_key: &str, number: u8) -> Result<Feeder> {
        let client = Client::new(url, ca_pem)?;
        let key = Key::from_seed(&[number; 32])?;
        let request = EnrolRequest {
            enrolment_key: enrolment_key.to_owned(),
            public_key: key.public_key(),
            installation_id: format!("bench {number}"),
            report: MachineReport {
                computer_dns_name: format!("host{number}.bench.example"),
                os_platform: "Linux".to_owned(),
                ..MachineReport::default()
            },
        };
        let machine = client.enrol(&request).await?.machine_id;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        let token = client.session(&key.session_request(&machine, now)).await?.token;
        Ok(Feeder { client, token, sequence: 0 })
    }

    /// Returns when the batch is durable.
    pub async fn send(&mut self, body: bytes::Bytes) -> Result<()> {
        self.sequence += 1;
        self.client.telemetry(&self.token, self.sequence, body).await?;
        Ok(())
    }
}

/// A batch as sensors send it: 1,000 process events of realistic width, distinct by `seed`.
pub fn batch(seed: u64) -> Result<bytes::Bytes> {
    let now = chrono::Utc::now();
    let names = ["bash", "python3", "curl", "sshd", "cron", "apt-get", "systemd", "git"];
    let rows: Vec<Json> = (0..1000_u64)
        .map(|index| {
            let number = seed * 1000 + index;
            let name = names[(number % 8) as usize];
            let time = now - chrono::TimeDelta::milliseconds((number % 100_000) as i64);
            json!({
                "Timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
                "ReportId": number, "ActionType": "ProcessCreated", "FileName": name,
                "FolderPath": format!("/usr/bin/{name}"), "FileSize": 100_000 + number % 7_000,
                "SHA1": format!("{:040x}", (number % 500).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                "MD5": format!("{:032x}", (number % 500).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)),
                "ProcessId": 1000 + number % 60_000,
                "ProcessCommandLine": format!("{name} --job {} --token {:016x} /srv/data/{}.log",
                    number % 977, number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number % 3_001),
                "AccountName": if number.is_multiple_of(3) { "root" } else { "mira" },
                "AccountDomain": "bench", "ProcessIntegrityLevel": "Medium",
                "InitiatingProcessFileName": "bash", "InitiatingProcessId": 900 + number % 90,
                "InitiatingProcessCommandLine": "-bash", "InitiatingProcessFolderPath": "/bin/bash",
                "InitiatingProcessAccountName": "mira",
            })
        })
        .collect();
    let text = json!({"tables": {"DeviceProcessEvents": rows}}).to_string();
    Ok(zstd::encode_all(text.as_bytes(), 1)?.into())
}

/// Keeps this process off the server's core, so that the load costs the server nothing.
pub fn leave_server_core() -> Result<()> {
    let mut cores = rustix::thread::sched_getaffinity(None)?;
    cores.unset(SERVER_CORE);
    anyhow::ensure!(cores.count() > 0, "two cores are needed");
    for thread in std::fs::read_dir("/proc/self/task")?.flatten() {
        let id: i32 = thread.file_name().to_string_lossy().parse()?;
        rustix::thread::sched_setaffinity(rustix::process::Pid::from_raw(id), &cores)?;
    }
    Ok(())
}
