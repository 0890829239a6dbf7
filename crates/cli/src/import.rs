//! `vigie import`

use crate::api::ApiOptions;
use crate::hunt::open_folder;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use tokio::sync::mpsc;
use uuid::Uuid;
use vigie_client::Client;
use vigie_contract::clock::Clock;
use vigie_hunting::lake::{Batch, Lake};
use vigie_import::{FileReport, Report, Row};

/// Rows of one batch.
const BATCH_ROWS: usize = 5_000;

#[derive(Args)]
pub struct ImportOptions {
    /// With --data the rows go to that folder: without any server, or by the one that serves it
    #[command(flatten)]
    api: ApiOptions,
    /// Recordings: JSON lines, EVTX, syslog, audit records, exported rows (JSON or Parquet); plain, zip, tar, gzip
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Move all times so that the newest event is now
    #[arg(long)]
    newest_now: bool,
    /// Name of the device, for records that name none
    #[arg(long)]
    device_name: Option<String>,
}

/// Where batches go. Each has a number; a batch that was stored before is not stored again.
enum Target {
    Folder { lake: Lake, tenant: Uuid },
    Server { client: Client, tenant: String },
}

pub async fn run(options: ImportOptions) -> Result<()> {
    let clock = Clock::default();
    let folder = match &options.api.folder.data {
        Some(folder) => {
            std::fs::create_dir_all(folder.join("lake"))?;
            open_folder(folder, clock.clone(), &options.api).await?
        }
        None => None,
    };
    let target = match folder {
        Some((lake, tenant)) => Target::Folder { lake, tenant },
        None => {
            Target::Server { client: options.api.administration()?, tenant: options.api.tenant()? }
        }
    };
    let source = source_of(&options)?;
    let reading = vigie_import::Options {
        newest_at: options.newest_now.then(|| clock.now()),
        device_name: options.device_name.clone(),
    };
    let (mut files, mut loaded) = (options.files.clone(), Vec::new());
    if let Target::Folder { lake, tenant } = &target
        && !options.newest_now
    {
        loaded = load(lake, *tenant, &mut files).await?;
    }
    let (sender, receiver) = mpsc::channel::<Row>(BATCH_ROWS * 2);
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    let progress = bar.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut sink = |row| {
            sender.blocking_send(row).map_err(|_| "the receiver of rows has ended".to_owned())
        };
        let mut tell = |done, total| {
            progress.set_length(total);
            progress.set_position(done);
        };
        vigie_import::import(&files, &reading, &mut sink, &mut tell)
    });
    let stored = store(&target, &source, receiver, &bar).await;
    let report = reader.await?;
    bar.finish_and_clear();
    stored?;
    if let Target::Folder { lake, .. } = &target {
        lake.close().await?;
    }
    let mut report = report?;
    report.files.extend(loaded);
    print(&report)
}

/// Takes out of `files` and stores those that are a hunting table's rows as columns already.
async fn load(lake: &Lake, tenant: Uuid, files: &mut Vec<PathBuf>) -> Result<Vec<FileReport>> {
    let mut reports = Vec::new();
    for path in std::mem::take(files) {
        let name = path.display().to_string();
        let parquet = path.extension().is_some_and(|extension| extension == "parquet");
        let Some(table) = vigie_import::table_of_file(&name).filter(|_| parquet) else {
            files.push(path);
            continue;
        };
        let bytes = std::fs::read(&path).with_context(|| name.clone())?;
        let source = format!("import:{}", hex(&Sha256::digest(&bytes)));
        let loaded = lake.load(tenant, &table.name, &source, bytes.into()).await;
        let rows = loaded.with_context(|| name.clone())?.rows as u64;
        let rows_of = std::iter::once((table.name.as_str(), rows)).collect();
        reports.push(FileReport { name, events: rows, rows: rows_of, ..FileReport::default() });
    }
    Ok(reports)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The same files with the same options make the same batches with the same numbers under this
/// name, so that an import that is repeated stores nothing twice.
fn source_of(options: &ImportOptions) -> Result<String> {
    let mut digest = Sha256::new();
    for file in &options.files {
        let mut reader = match std::fs::File::open(file) {
            Ok(reader) => reader,
            Err(error) => bail!("{}: {error}", file.display()),
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
        }
    }
    digest.update(format!("{:?}", options.device_name));
    if options.newest_now {
        // Times move with the clock: every run makes other rows.
        digest.update(Uuid::new_v4().as_bytes());
    }
    Ok(hex(&digest.finalize()))
}

async fn store(
    target: &Target,
    source: &str,
    mut receiver: mpsc::Receiver<Row>,
    bar: &ProgressBar,
) -> Result<()> {
    let (mut sequence, mut total) = (0u64, 0u64);
    let mut tables: BTreeMap<&str, Vec<Map<String, Value>>> = BTreeMap::new();
    let mut waiting = 0;
    loop {
        let row = receiver.recv().await;
        let ended = row.is_none();
        if let Some(row) = row {
            tables.entry(row.table).or_default().push(row.columns);
            waiting += 1;
        }
        if waiting >= BATCH_ROWS || (ended && waiting > 0) {
            sequence += 1;
            total += waiting as u64;
            let body = json!({ "tables": std::mem::take(&mut tables) });
            send(target, source, sequence, &body).await?;
            bar.set_message(format!("{total} rows"));
            waiting = 0;
        }
        if ended {
            return Ok(());
        }
    }
}

async fn send(target: &Target, source: &str, sequence: u64, body: &Value) -> Result<()> {
    match target {
        Target::Folder { lake, tenant } => {
            let batch = Batch {
                tenant: *tenant,
                source: format!("import:{source}"),
                sequence,
                constants: Vec::new(),
                body: body.to_string().into(),
            };
            lake.append(batch).await?;
        }
        Target::Server { client, tenant } => {
            let path =
                format!("/admin/v1/tenants/{tenant}/telemetry?source={source}&sequence={sequence}");
            client.post(&path, body).await?;
        }
    }
    Ok(())
}

/// Counts per table, what was not mapped, and bad lines.
fn print(report: &Report) -> Result<()> {
    for (table, rows) in report.rows() {
        println!("{rows:>9}  {table}");
    }
    let mut unmapped: BTreeMap<&(String, String), u64> = BTreeMap::new();
    for file in &report.files {
        for (event, count) in &file.unmapped {
            *unmapped.entry(event).or_default() += count;
        }
    }
    if !unmapped.is_empty() {
        println!("events without a counterpart in the hunting tables:");
        for ((source, id), count) in unmapped {
            println!("{count:>9}  {source} {id}");
        }
    }
    let bad: u64 = report.files.iter().map(|file| file.bad_lines).sum();
    if bad > 0 {
        println!("{bad} bad lines:");
        for file in &report.files {
            for (line, reason) in &file.first_bad {
                println!("  {}:{line}: {}", file.name, crate::output::printable(reason));
            }
        }
    }
    Ok(())
}
