//! Orders on their way to many connected sensors, and what waiting sensors cost.

use crate::idle::{CLOCK_TICKS, cpu, resident};
use crate::server::Server;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use vigie_lab::{Lab, LabConfig};

/// Orders that are timed; documented limits allow a hundred a minute.
const ORDERS: usize = 60;
const QUERY: &str = "CloudAppEvents | where ActionType == 'Isolate' \
    | extend id = tostring(parse_json(RawEventData).actionId) \
    | summarize requested = minif(Timestamp, ActivityType == 'Requested'), \
        begun = minif(Timestamp, ActivityType == 'InProgress') by id \
    | where isnotnull(begun) | extend seconds = (begun - requested) / 1s \
    | summarize count(), percentile(seconds, 50), percentile(seconds, 99)";

pub async fn run() -> Result<()> {
    let sensors = std::env::var("VIGIE_BENCH_SENSORS").ok().and_then(|text| text.parse().ok());
    let sensors: usize = sensors.unwrap_or(1000);
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let server = Server::start(&data, false, &["--no-sensor"])?;
    let key = server.enrolment_key(&data)?;
    let mut config = LabConfig::new(server.url()?, server.ca_pem()?, key, sensors);
    config.speed = 1.0;
    let lab = Lab::start(config).await?;
    let begun = Instant::now();
    while lab.status().enrolled < sensors {
        ensure!(begun.elapsed() < Duration::from_secs(600), "{:?}", lab.status());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("orders: {sensors} sensors enrolled in {:.1} s", begun.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(20)).await;

    let before = cpu(server.pid())?;
    const SECONDS: u64 = 30;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let share = (cpu(server.pid())? - before) as f64 / CLOCK_TICKS / SECONDS as f64 * 100.0;
    let memory = resident(server.pid())?;
    println!("orders: waiting sensors cost {share:.1} % of a core, the server has {memory} MB");

    let http = server.http()?;
    let (url, token) = (server.url()?, server.login()?.token(&http).await?);
    let list = format!("{url}/api/machines?$top={ORDERS}");
    let machines: Json = http.get(list).bearer_auth(&token).send().await?.json().await?;
    for machine in machines["value"].as_array().context("machines")? {
        let id = machine["id"].as_str().context("an id")?;
        let order = http.post(format!("{url}/api/machines/{id}/isolate")).bearer_auth(&token);
        let body = json!({"Comment": "bench", "IsolationType": "Full"});
        order.json(&body).send().await?.error_for_status()?;
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let hunt = http.post(format!("{url}/api/advancedqueries/run")).bearer_auth(&token);
    let answer: Json = hunt.json(&json!({"Query": QUERY})).send().await?.json().await?;
    println!("orders: from request to begin, in seconds: {}", answer["Results"][0]);
    lab.shutdown().await;
    Ok(())
}
