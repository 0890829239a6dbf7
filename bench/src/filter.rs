//! A filter over a million rows, through HTTPS.

use crate::median;
use crate::server::{Feeder, Server, batch};
use anyhow::{Context as _, Result};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const BATCHES: u64 = 1000;
/// Label, the query for Vigie, the condition for SQL over the same files.
const FILTERS: &[(&str, &str, &str)] = &[
    (
        "text",
        "DeviceProcessEvents | where ProcessCommandLine contains '--job 433 ' and FileName =~ \
         'CURL' | count",
        "\"ProcessCommandLine\" ILIKE '%--job 433 %' AND lower(\"FileName\") = 'curl'",
    ),
    (
        "number",
        "DeviceProcessEvents | where ProcessId == 33211 and AccountName == 'root' | count",
        "\"ProcessId\" = 33211 AND \"AccountName\" = 'root'",
    ),
];

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = Server::start(folder.path(), false, &["--no-sensor"])?;
    let mut login = first.login()?;
    let key = first.enrolment_key(folder.path())?;
    let mut feeder = Feeder::enrol(&first.url()?, &first.ca_pem()?, &key, 1).await?;
    for number in 0..BATCHES {
        feeder.send(batch(number)?).await?;
    }
    drop(first);
    // A start after a kill writes what was in the journal to Parquet.
    let server = Server::start(folder.path(), false, &["--no-sensor"])?;
    login.url = server.url()?;
    let http = server.http()?;
    let token = login.token(&http).await?;
    for (label, query, condition) in FILTERS {
        let url = format!("{}/api/advancedqueries/run", login.url);
        let mut times = Vec::new();
        let mut found = Json::Null;
        for _ in 0..21 {
            let began = Instant::now();
            let request = http.post(&url).bearer_auth(&token).json(&json!({"Query": query}));
            let answer: Json = request.send().await?.error_for_status()?.json().await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            found = answer["Results"][0]["Count"].clone();
        }
        let ours = median(times);
        let duckdb = match std::env::var("VIGIE_BENCH_PYTHON") {
            Ok(python) => duckdb(&python, folder.path(), condition)?,
            Err(_) => "DuckDB left out: VIGIE_BENCH_PYTHON is not set".to_owned(),
        };
        println!("filter {label}: {ours:.1} ms, {found} rows (target < 100 ms); {duckdb}");
    }
    Ok(())
}

/// The same condition by DuckDB over the lake's own files, which it reads unchanged.
fn duckdb(python: &str, data: &Path, condition: &str) -> Result<String> {
    let script = "import duckdb, sys, time\n\
         sql = f\"SELECT count(*) FROM read_parquet('{sys.argv[1]}') WHERE {sys.argv[2]}\"\n\
         times = []\n\
         for _ in range(21):\n\
         \x20   began = time.perf_counter()\n\
         \x20   rows = duckdb.execute(sql).fetchone()[0]\n\
         \x20   times.append((time.perf_counter() - began) * 1000)\n\
         print(f'DuckDB {sorted(times)[10]:.1f} ms, {rows} rows')";
    let files = data.join("lake/*/DeviceProcessEvents/**/*.parquet");
    let output = Command::new(python).args(["-c", script]).arg(files).arg(condition).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "DuckDB: {error}");
    Ok(String::from_utf8(output.stdout).context("output")?.trim().to_owned())
}
