//! What looking for indicators costs the taking in of events: batches are read with and without as
//! many indicators as a tenant may have, in turns. What an event costs in all, `ingest` tells.

use crate::server::batch;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_hunting::lake::{Batch, Lake, LakeConfig, Watch};
use vigie_indicators::{Sought, Watchlist};

/// The most that a tenant may have.
const INDICATORS: u64 = 15_000;
/// Batches of 1,000 events, half of them processes and half connections.
const BATCHES: u64 = 64;
/// Every batch counts by its best round: what else the machine does is left out.
const ROUNDS: usize = 30;

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = LakeConfig::new(folder.path().join("lake"), Clock::default());
    let lake = Lake::open(LakeConfig { background: false, ..config }).await?;
    let watch: Arc<dyn Watch> = Arc::new(Watchlist::new((0..INDICATORS).map(sought).collect()));
    let batches = (0..BATCHES / 2).map(|seed| spread(&batch(seed)?));
    let batches = batches.chain((0..BATCHES / 2).map(connections));
    let batches = batches.collect::<Result<Vec<Bytes>>>()?;
    let mut best = vec![[Duration::MAX; 2]; batches.len()];
    for _ in 0..ROUNDS {
        for (body, best) in batches.iter().zip(&mut best) {
            for (watch, best) in [None, Some(watch.clone())].into_iter().zip(best) {
                let batch = Batch {
                    tenant: Uuid::nil(),
                    source: "bench".to_owned(),
                    sequence: 0,
                    constants: Vec::new(),
                    body: body.clone(),
                };
                let began = Instant::now();
                let read = lake.take(batch, watch).await?;
                *best = (*best).min(began.elapsed());
                anyhow::ensure!(read.sightings.is_empty(), "nothing is sought");
            }
        }
    }
    for (name, best) in [
        ("processes", &best[..best.len() / 2]),
        ("connections", &best[best.len() / 2..]),
        ("all", &best[..]),
    ] {
        let sum = |which: usize| best.iter().map(|times| times[which].as_secs_f64()).sum::<f64>();
        let event = 1e6 / (best.len() * 1000) as f64;
        println!(
            "indicators: {name}: read in {:.2} µs an event, with {INDICATORS} indicators in {:.2} µs: \
             {:.2} µs more (target: 5 % of what an event costs in all)",
            sum(0) * event,
            sum(1) * event,
            (sum(1) - sum(0)) * event
        );
    }
    lake.close().await?;
    Ok(())
}

/// An indicator that no event meets.
fn sought(number: u64) -> Sought {
    let (ty, sought) = match number % 6 {
        0 => ("FileSha1", hash(number + (1 << 40), 40)),
        1 => ("FileSha256", hash(number + (1 << 40), 64)),
        2 => ("FileMd5", hash(number + (1 << 40), 32)),
        3 => ("IpAddress", format!("203.{}.{}.7", number / 250, number % 250)),
        4 => ("DomainName", format!("sought{number}.example")),
        _ => ("Url", format!("www.sought{number}.example/a/b")),
    };
    Sought {
        id: number.cast_signed(),
        ty: ty.to_owned(),
        sought,
        title: String::new(),
        description: String::new(),
        severity: String::new(),
        recommended_actions: String::new(),
        expires: None,
        groups: Vec::new(),
    }
}

/// The batch with hashes whose first digits differ as those of files do.
fn spread(batch: &[u8]) -> Result<Bytes> {
    let mut body: Json = serde_json::from_slice(&zstd::decode_all(batch)?)?;
    let tables = body["tables"].as_object_mut().context("tables")?;
    for row in tables.values_mut().filter_map(Json::as_array_mut).flatten() {
        for column in ["SHA1", "MD5"] {
            let Some(hash) = row.get(column).and_then(Json::as_str) else { continue };
            let (zeros, digits) = hash.split_at(hash.len() - 16);
            row[column] = format!("{digits}{zeros}").into();
        }
    }
    Ok(body.to_string().into())
}

/// A hash of so many digits; those of numbers that follow each other begin with different ones.
fn hash(number: u64, digits: usize) -> String {
    let first = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{first:016x}{number:0rest$x}", rest = digits - 16)
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
    Ok(text.into())
}
