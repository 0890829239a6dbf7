//! What looking for indicators costs the taking in of events: processor time of the server for each
//! event of two tenants, one without indicators and one with as many as a tenant may have, in turns.

use crate::idle::{CLOCK_TICKS, cpu};
use crate::server::{Feeder, Login, Server, batch, leave_server_core, program};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

/// The most that a tenant may have.
const INDICATORS: usize = 15_000;
/// Rows of one import.
const ROWS: usize = 500;
/// Of each tenant.
const SENSORS: u8 = 4;
/// Batches that each sensor sends at a time, of 1,000 events.
const BATCHES: usize = 16;
const ROUNDS: usize = 20;
/// A round: what the server does late, such as flushes, falls on both tenants alike.
const ORDER: [usize; 4] = [0, 1, 1, 0];

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), true, &["--no-sensor", "--no-quotas"])?;
    let (url, ca) = (server.url()?, server.ca_pem()?);
    let keys = [other_tenant(folder.path())?, server.enrolment_key(folder.path())?];
    let (http, login) = (server.http()?, server.login()?);
    leave_server_core()?;
    let batches = (0..32).map(batch).chain((0..32).map(connections));
    let batches: Vec<Bytes> = batches.map(|batch| settled(&batch?)).collect::<Result<_>>()?;
    let mut feeders = [Vec::new(), Vec::new()];
    for ((feeders, key), first) in feeders.iter_mut().zip(&keys).zip([0, SENSORS]) {
        for number in 1..=SENSORS {
            feeders.push(Feeder::enrol(&url, &ca, key, first + number).await?);
        }
    }
    import(&http, &login).await?;
    // The first events pay for what is made once.
    for feeders in &mut feeders {
        feed(feeders, &batches, server.pid()).await?;
    }
    let (mut sums, mut ratios) = ([0.0; 2], Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let mut round = [0.0; 2];
        for tenant in ORDER {
            round[tenant] += feed(&mut feeders[tenant], &batches, server.pid()).await?;
        }
        sums[0] += round[0];
        sums[1] += round[1];
        ratios.push(round[1] / round[0]);
    }
    ratios.sort_by(f64::total_cmp);
    let events = ROUNDS * ORDER.len() / 2 * usize::from(SENSORS) * BATCHES * 1000;
    let cost = |seconds: f64| seconds * 1e6 / events as f64;
    let more = |ratio: f64| (ratio - 1.0) * 100.0;
    println!(
        "indicators: {:.1} µs of processor time an event without, {:.1} µs with {INDICATORS}: \
         {:+.1} % (target <= 5 %); rounds from {:+.1} % to {:+.1} %, half of them from {:+.1} % to \
         {:+.1} %",
        cost(sums[0]),
        cost(sums[1]),
        more(sums[1] / sums[0]),
        more(ratios[0]),
        more(ratios[ROUNDS - 1]),
        more(ratios[ROUNDS / 4]),
        more(ratios[ROUNDS - 1 - ROUNDS / 4])
    );
    Ok(())
}

/// Creates a tenant beside the first; its enrolment key.
fn other_tenant(data: &Path) -> Result<String> {
    let vigie = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(program("vigie")?);
        let output = command.arg("tenant").args(arguments).arg("--data").arg(data).output()?;
        anyhow::ensure!(output.status.success(), "vigie tenant {arguments:?} failed");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let made = vigie(&["create", "Other", "--domain", "other.example", "--output", "json"])?;
    let made: Json = serde_json::from_str(&made)?;
    vigie(&["enrolment-key", "--tenant", made["id"].as_str().context("no tenant")?])
}

/// The batch with events of two hours ago, which detections do not look back to, and with hashes
/// whose first digits differ as those of files do.
fn settled(batch: &[u8]) -> Result<Bytes> {
    let mut body: Json = serde_json::from_slice(&zstd::decode_all(batch)?)?;
    let tables = body["tables"].as_object_mut().context("tables")?;
    for row in tables.values_mut().filter_map(Json::as_array_mut).flatten() {
        let time = row["Timestamp"].as_str().context("a time")?;
        let time = chrono::DateTime::parse_from_rfc3339(time)? - chrono::TimeDelta::hours(2);
        row["Timestamp"] = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true).into();
        for column in ["SHA1", "MD5"] {
            let Some(hash) = row.get(column).and_then(Json::as_str) else { continue };
            let (zeros, digits) = hash.split_at(hash.len() - 16);
            row[column] = format!("{digits}{zeros}").into();
        }
    }
    Ok(zstd::encode_all(body.to_string().as_bytes(), 1)?.into())
}

/// A hash of so many digits; those of numbers that follow each other begin with different ones.
fn hash(number: u64, digits: usize) -> String {
    let first = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{first:016x}{number:0rest$x}", rest = digits - 16)
}

/// Sends each sensor's batches; the server's processor time in seconds.
async fn feed(feeders: &mut Vec<Feeder>, batches: &[Bytes], server: u32) -> Result<f64> {
    let before = cpu(server)?;
    let tasks: Vec<_> = (feeders.drain(..).enumerate())
        .map(|(first, mut feeder)| {
            let batches = batches.to_vec();
            tokio::spawn(async move {
                for sent in 0..BATCHES {
                    feeder.send(batches[(first * BATCHES + sent) % batches.len()].clone()).await?;
                }
                anyhow::Ok(feeder)
            })
        })
        .collect();
    for task in tasks {
        feeders.push(task.await??);
    }
    Ok((cpu(server)? - before) as f64 / CLOCK_TICKS)
}

/// As many indicators of all kinds as there may be, none of which an event meets.
async fn import(http: &reqwest::Client, login: &Login) -> Result<()> {
    let token = login.token(http).await?;
    for first in (0..INDICATORS).step_by(ROWS) {
        let rows: Vec<Json> = (first..first + ROWS)
            .map(|number| {
                let (kind, value) = match number % 6 {
                    0 => ("FileSha1", hash(number as u64 + (1 << 40), 40)),
                    1 => ("FileSha256", hash(number as u64 + (1 << 40), 64)),
                    2 => ("FileMd5", hash(number as u64 + (1 << 40), 32)),
                    3 => ("IpAddress", format!("203.{}.{}.7", number / 250, number % 250)),
                    4 => ("DomainName", format!("sought{number}.example")),
                    _ => ("Url", format!("https://www.sought{number}.example/a/b")),
                };
                json!({
                    "indicatorType": kind, "indicatorValue": value, "action": "Audit",
                    "title": "sought", "description": "sought", "severity": "Low",
                })
            })
            .collect();
        let request = http.post(format!("{}/api/indicators/import", login.url));
        let request = request.bearer_auth(&token).json(&json!({"Indicators": rows}));
        let answer: Json = request.send().await?.error_for_status()?.json().await?;
        for row in answer["value"].as_array().context("rows")? {
            row["id"].as_str().with_context(|| format!("not imported: {row}"))?;
        }
    }
    Ok(())
}

/// A batch of 1,000 connections to many hosts, distinct by `seed`.
fn connections(seed: u64) -> Result<Bytes> {
    let now = chrono::Utc::now();
    let rows: Vec<Json> = (0..1000_u64)
        .map(|index| {
            let number = (seed * 1000 + index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let time = now - chrono::TimeDelta::milliseconds((number % 100_000) as i64);
            json!({
                "Timestamp": time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
                "ReportId": index, "ActionType": "ConnectionSuccess", "Protocol": "Tcp",
                "RemoteIP": format!("198.{}.{}.{}", number % 200, number / 200 % 250, number % 250),
                "RemotePort": 443, "LocalIP": "192.0.2.4", "LocalPort": 30_000 + index,
                "RemoteUrl": format!("https://host{}.example/path/{number}", number % 5000),
                "InitiatingProcessFileName": "curl", "InitiatingProcessId": 900 + index % 90,
                "InitiatingProcessSHA1": hash(number % 500, 40),
                "InitiatingProcessCommandLine": "curl -s", "InitiatingProcessAccountName": "mira",
            })
        })
        .collect();
    let text = json!({"tables": {"DeviceNetworkEvents": rows}}).to_string();
    Ok(zstd::encode_all(text.as_bytes(), 1)?.into())
}
