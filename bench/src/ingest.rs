//! Durable events a second.

use crate::server::{Feeder, Server, batch, leave_server_core};
use anyhow::Result;
use std::time::{Duration, Instant};

const SENSORS: u8 = 4;
const SECONDS: u64 = 15;

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), true, &["--no-sensor"])?;
    let (url, ca) = (server.url()?, server.ca_pem()?);
    let key = server.enrolment_key(folder.path())?;
    leave_server_core()?;
    // Made beforehand: what is measured is the server.
    let batches: Vec<_> = (0..64).map(batch).collect::<Result<_>>()?;
    let mut tasks = Vec::new();
    let began = Instant::now();
    let end = began + Duration::from_secs(SECONDS);
    for number in 1..=SENSORS {
        let mut feeder = Feeder::enrol(&url, &ca, &key, number).await?;
        let batches = batches.clone();
        tasks.push(tokio::spawn(async move {
            let mut sent = 0;
            while Instant::now() < end {
                feeder.send(batches[sent % batches.len()].clone()).await?;
                sent += 1;
            }
            anyhow::Ok(sent * 1000)
        }));
    }
    let mut events = 0;
    for task in tasks {
        events += task.await??;
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    println!("ingest: {rate:.0} durable events/s on one core (target >= 30000)");
    Ok(())
}
