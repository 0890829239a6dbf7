//! Statistics of a file, an address and a domain over millions of events of a month.

use crate::median;
use crate::server::{Feeder, Server};
use anyhow::Result;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::time::Instant;

/// Events, unless `VIGIE_BENCH_ROWS` says otherwise.
const EVENTS: u64 = 10_000_000;
const SENSORS: u8 = 200;
/// Sensors that send at once.
const LANES: usize = 4;
const BATCH: u64 = 2000;
const DAYS: i64 = 29;

pub async fn run() -> Result<()> {
    let events = std::env::var("VIGIE_BENCH_ROWS").ok().and_then(|text| text.parse().ok());
    let events: u64 = events.unwrap_or(EVENTS);
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), false, &["--no-sensor", "--no-quotas"])?;
    let mut login = server.login()?;
    let began = Instant::now();
    fill(&server, &server.enrolment_key(folder.path())?, events).await?;
    println!("statistics: {events} events taken in {:.0} s", began.elapsed().as_secs_f64());
    // Killed: what was in memory only is read back from the log.
    drop(server);
    let server = Server::start(folder.path(), false, &["--no-sensor", "--no-quotas"])?;
    login.url = server.url()?;
    let http = server.http()?;
    let token = login.token(&http).await?;
    for (name, path) in [
        ("a file that is everywhere", format!("files/{:040x}/stats", 1)),
        ("a file that is rare", format!("files/{:040x}/stats", 1_000_003)),
        ("a file that nobody saw", format!("files/{:040x}/stats", u64::MAX)),
        ("an address that is everywhere", "ips/198.51.100.1/stats".to_owned()),
        ("a domain that is everywhere", "domains/host1.example/stats".to_owned()),
        ("a domain, two days", "domains/host1.example/stats?lookBackHours=48".to_owned()),
    ] {
        let get = async || -> Result<(f64, Json)> {
            let began = Instant::now();
            let url = format!("{}/api/{path}", login.url);
            let answer: Json = http.get(url).bearer_auth(&token).send().await?.json().await?;
            Ok((began.elapsed().as_secs_f64() * 1e3, answer))
        };
        let (first, answer) = get().await?;
        let mut times = Vec::new();
        for _ in 0..21 {
            times.push(get().await?.0);
        }
        println!(
            "statistics: {name}: first {first:.1} ms, then {:.1} ms (target < 300 ms); machines: {}",
            median(times),
            answer["organizationPrevalence"]
        );
    }
    Ok(())
}

async fn fill(server: &Server, key: &str, events: u64) -> Result<()> {
    let (url, ca) = (server.url()?, server.ca_pem()?);
    let mut lanes: Vec<Vec<Feeder>> = (0..LANES).map(|_| Vec::new()).collect();
    for number in 0..SENSORS {
        let feeder = Feeder::enrol(&url, &ca, key, number).await?;
        lanes[usize::from(number) % LANES].push(feeder);
    }
    let (now, batches) = (Utc::now(), events / BATCH);
    let tasks: Vec<_> = (lanes.into_iter().enumerate())
        .map(|(lane, mut feeders)| {
            tokio::spawn(async move {
                for number in (lane as u64..batches).step_by(LANES) {
                    let part = (number as f64 + 1.0) / batches as f64;
                    let age = TimeDelta::seconds((DAYS as f64 * 86_400.0 * (1.0 - part)) as i64);
                    let body = batch(number, now - age)?;
                    let feeder = number as usize / LANES % feeders.len();
                    feeders[feeder].send(body).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Half processes, half connections. Text, since making it takes longer than taking it in.
fn batch(number: u64, time: DateTime<Utc>) -> Result<bytes::Bytes> {
    let (mut processes, mut connections) = (String::new(), String::new());
    for index in 0..BATCH {
        let row = number * BATCH + index;
        let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let stamp = (time - TimeDelta::milliseconds(index as i64 * 50))
            .to_rfc3339_opts(SecondsFormat::Micros, true);
        // One file and one host in ten are the same, the others out of a few thousand; few are rare.
        let file = match mixed % 1000 {
            0..100 => 1,
            999 => 1_000_000 + mixed % 100_000,
            _ => mixed % 3000,
        };
        let host = if mixed.is_multiple_of(10) { 1 } else { mixed % 2000 };
        let rows = if index % 2 == 0 { &mut processes } else { &mut connections };
        if !rows.is_empty() {
            rows.push(',');
        }
        match index % 2 {
            0 => write!(
                rows,
                r#"{{"Timestamp":"{stamp}","ReportId":{row},"ActionType":"ProcessCreated","FileName":"program{}","FolderPath":"/usr/bin/program{}","SHA1":"{file:040x}","SHA256":"{file:064x}","ProcessId":{},"ProcessCommandLine":"program{} --job {mixed} /srv/data","AccountName":"mira","InitiatingProcessFileName":"bash","InitiatingProcessSHA1":"{:040x}","InitiatingProcessCommandLine":"-bash"}}"#,
                file % 3000,
                file % 3000,
                1000 + mixed % 60_000,
                file % 3000,
                2,
            )?,
            _ => write!(
                rows,
                r#"{{"Timestamp":"{stamp}","ReportId":{row},"ActionType":"ConnectionSuccess","RemoteIP":"198.51.{}.{}","RemotePort":443,"RemoteUrl":"https://host{host}.example/{}","Protocol":"Tcp","InitiatingProcessFileName":"program{}","InitiatingProcessSHA1":"{file:040x}","InitiatingProcessCommandLine":"program --job {mixed}"}}"#,
                100 + host / 250,
                host % 250,
                mixed % 1000,
                file % 3000,
            )?,
        }
    }
    let text = format!(
        r#"{{"tables":{{"DeviceProcessEvents":[{processes}],"DeviceNetworkEvents":[{connections}]}}}}"#
    );
    Ok(zstd::encode_all(text.as_bytes(), 1)?.into())
}
