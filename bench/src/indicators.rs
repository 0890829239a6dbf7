//! What looking for indicators costs the taking in of events: processor time of the server for each
//! event, without indicators and with as many as a tenant may have, in turns.

use crate::idle::{CLOCK_TICKS, cpu};
use crate::server::{Feeder, Login, Server, batch, leave_server_core};
use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// The most that a tenant may have.
const INDICATORS: usize = 15_000;
/// Rows of one import.
const ROWS: usize = 500;
const SENSORS: u8 = 4;
const SECONDS: u64 = 10;
/// Times that each of both is measured.
const TURNS: usize = 3;

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), true, &["--no-sensor", "--no-quotas"])?;
    let (url, ca) = (server.url()?, server.ca_pem()?);
    let key = server.enrolment_key(folder.path())?;
    let (http, login) = (server.http()?, server.login()?);
    leave_server_core()?;
    let mut batches: Vec<_> = (0..32).map(batch).collect::<Result<_>>()?;
    batches.extend((0..32).map(connections).collect::<Result<Vec<_>>>()?);
    let mut feeders = Vec::new();
    for number in 1..=SENSORS {
        feeders.push(Feeder::enrol(&url, &ca, &key, number).await?);
    }
    // The first events pay for what is made once.
    (feeders, _) = feed(feeders, &batches, server.pid()).await?;
    let (mut without, mut with) = (0.0, 0.0);
    for _ in 0..TURNS {
        let cost;
        (feeders, cost) = feed(feeders, &batches, server.pid()).await?;
        without += cost / TURNS as f64;
        let ids = import(&http, &login).await?;
        let cost;
        (feeders, cost) = feed(feeders, &batches, server.pid()).await?;
        with += cost / TURNS as f64;
        delete(&http, &login, &ids).await?;
    }
    println!(
        "indicators: {without:.1} µs of processor time an event without, {with:.1} µs with {INDICATORS}: \
         {:+.1} % (target <= 5 %)",
        (with / without - 1.0) * 100.0
    );
    Ok(())
}

/// Sends events for a while; the server's processor time for each in microseconds.
async fn feed(
    feeders: Vec<Feeder>,
    batches: &[bytes::Bytes],
    server: u32,
) -> Result<(Vec<Feeder>, f64)> {
    let before = cpu(server)?;
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (feeders.into_iter().enumerate())
        .map(|(first, mut feeder)| {
            let batches = batches.to_vec();
            tokio::spawn(async move {
                let mut sent = 0;
                while Instant::now() < end {
                    feeder.send(batches[(first * 16 + sent) % batches.len()].clone()).await?;
                    sent += 1;
                }
                anyhow::Ok((feeder, sent * 1000))
            })
        })
        .collect();
    let (mut feeders, mut events) = (Vec::new(), 0);
    for task in tasks {
        let (feeder, sent) = task.await??;
        feeders.push(feeder);
        events += sent;
    }
    let seconds = (cpu(server)? - before) as f64 / CLOCK_TICKS;
    Ok((feeders, seconds * 1e6 / events as f64))
}

/// As many indicators of all kinds as there may be, none of which an event meets; their ids.
async fn import(http: &reqwest::Client, login: &Login) -> Result<Vec<String>> {
    let token = login.token(http).await?;
    let mut ids = Vec::with_capacity(INDICATORS);
    for first in (0..INDICATORS).step_by(ROWS) {
        let rows: Vec<Json> = (first..first + ROWS)
            .map(|number| {
                let (kind, value) = match number % 6 {
                    0 => ("FileSha1", format!("{:040x}", number + (1 << 40))),
                    1 => ("FileSha256", format!("{:064x}", number + (1 << 40))),
                    2 => ("FileMd5", format!("{:032x}", number + (1 << 40))),
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
            let id = row["id"].as_str().with_context(|| format!("not imported: {row}"))?;
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}

async fn delete(http: &reqwest::Client, login: &Login, ids: &[String]) -> Result<()> {
    let token = login.token(http).await?;
    for ids in ids.chunks(ROWS) {
        let request = http.post(format!("{}/api/indicators/BatchDelete", login.url));
        let request = request.bearer_auth(&token).json(&json!({"IndicatorIds": ids}));
        request.send().await?.error_for_status()?;
    }
    Ok(())
}

/// A batch of 1,000 connections to many hosts, distinct by `seed`.
fn connections(seed: u64) -> Result<bytes::Bytes> {
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
                "InitiatingProcessSHA1": format!("{:040x}", number % 500),
                "InitiatingProcessCommandLine": "curl -s", "InitiatingProcessAccountName": "mira",
            })
        })
        .collect();
    let text = json!({"tables": {"DeviceNetworkEvents": rows}}).to_string();
    Ok(zstd::encode_all(text.as_bytes(), 1)?.into())
}
