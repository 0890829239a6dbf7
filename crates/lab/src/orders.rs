//! How a simulated machine carries out orders: on its virtual system, taking the time that a real
//! machine takes, with the same states, rows and uploads.

use crate::machine::Machine;
use crate::names::Random;
use crate::system::System;
use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{Cursor, Write};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vigie_contract::sensor::*;
use vigie_sensor::identity::hex;
use vigie_sensor::orders::{FAILED_HRESULT, NOT_FOUND_HRESULT, failed, succeeded};
use vigie_sensor::rows::Row;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// What an order needs of its machine.
pub trait Way {
    fn machine(&self) -> &Machine;
    fn now(&self) -> DateTime<Utc>;
    /// Changes or reads the virtual system.
    fn system<T>(&self, act: impl FnOnce(&mut System) -> T) -> T;
    /// Sends a row of `DeviceEvents`.
    fn event(&self, row: Row);
    async fn download(&self, order: &Order, file: &FileReference) -> Result<Vec<u8>>;
    async fn upload(
        &self,
        order: &Order,
        position: usize,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<()>;
    async fn progress(&self, order: &Order, result: OrderResult);
}

/// Does what is ordered. `stop` is cancelled when the order is.
pub async fn carry_out(
    way: &impl Way,
    order: &Order,
    random: &mut Random,
    stop: &CancellationToken,
) -> OrderResult {
    let work = async {
        match &order.command {
            Command::LiveResponse { commands } => live(way, order, commands, random).await,
            command => {
                // Some seconds, more for what looks at a whole machine.
                let most = match command {
                    Command::RunAntiVirusScan { scan_type: ScanType::Full, .. } => 20_000,
                    Command::RunAntiVirusScan { .. } | Command::CollectInvestigationPackage {} => {
                        8000
                    }
                    _ => 4500,
                };
                tokio::time::sleep(Duration::from_millis(1500 + random.below(most))).await;
                effect(way, order).await
            }
        }
    };
    tokio::select! {
        result = work => result,
        () = stop.cancelled() => OrderResult::of(OrderStatus::Cancelled),
    }
}

async fn effect(way: &impl Way, order: &Order) -> OrderResult {
    match &order.command {
        Command::Isolate { isolation_type } => {
            let kind = match isolation_type {
                IsolationType::Full => "Full",
                IsolationType::Selective => "Selective",
            };
            way.system(|system| system.isolation = Some(kind));
            succeeded()
        }
        Command::Unisolate {} => {
            way.system(|system| system.isolation = None);
            succeeded()
        }
        Command::RestrictCodeExecution {} => {
            way.system(|system| system.restricted = true);
            succeeded()
        }
        Command::UnrestrictCodeExecution {} => {
            way.system(|system| system.restricted = false);
            succeeded()
        }
        Command::StopAndQuarantineFile { sha1, .. } => quarantine(way, order, sha1),
        Command::RunAntiVirusScan { scan_type, .. } => scan(way, order, *scan_type),
        Command::CollectInvestigationPackage {} => match package(way, order).await {
            Ok(()) => succeeded(),
            Err(error) => failed(format!("{error:#}"), FAILED_HRESULT),
        },
        Command::Investigate { entities } => investigate(way, entities),
        Command::Offboard {} => succeeded(),
        Command::LiveResponse { .. } | Command::Cancel { .. } => {
            failed("this order has another way", FAILED_HRESULT)
        }
    }
}

fn quarantine(way: &impl Way, order: &Order, sha1: &str) -> OrderResult {
    let (paths, ended) = way.system(|system| system.quarantine(sha1));
    if paths.is_empty() && ended == 0 {
        let message = format!("no file with the SHA-1 {sha1} was found on this machine");
        return failed(message, NOT_FOUND_HRESULT);
    }
    for path in &paths {
        let mut row = file_row(way, "FileQuarantined", path, sha1);
        let fields = json!({"ActionId": order.id, "Requestor": order.requestor});
        row.json("AdditionalFields", &fields);
        way.event(row);
    }
    let text = format!(
        "{} files were quarantined and {ended} processes were ended; {}",
        paths.len(),
        paths.join("; ")
    );
    OrderResult { error: Some(text), ..succeeded() }
}

fn file_row(way: &impl Way, action: &str, path: &str, sha1: &str) -> Row {
    let mut row = Row::new(way.now(), action);
    row.text("FileName", path.rsplit(['/', '\\']).next().unwrap_or_default());
    row.text("FolderPath", path);
    row.text("SHA1", sha1);
    row
}

fn scan(way: &impl Way, order: &Order, scan_type: ScanType) -> OrderResult {
    let (threats, files) = way.system(|system| (system.threats(), system.files.len()));
    for (path, sha1, threat) in &threats {
        let mut row = file_row(way, "AntivirusDetection", path, sha1);
        let fields = json!({
            "ThreatName": threat, "Engine": "Simulated", "WasRemediated": false,
            "ActionId": order.id,
        });
        row.json("AdditionalFields", &fields);
        way.event(row);
    }
    let mut row = Row::new(way.now(), "AntivirusScanCompleted");
    let fields = json!({
        "ScanTypeIndex": format!("{scan_type:?}"), "ActionId": order.id, "ScannedFiles": files,
        "Detections": threats.len(),
    });
    row.json("AdditionalFields", &fields);
    way.event(row);
    let text = format!("{files} files were scanned; {} detections", threats.len());
    OrderResult { error: Some(text), ..succeeded() }
}

async fn package(way: &impl Way, order: &Order) -> Result<()> {
    let parts = way.system(|system| {
        let processes: Vec<_> = (system.processes.iter())
            .map(|(pid, process)| {
                json!({"pid": pid, "path": process.path, "sha1": process.sha1,
                       "commandLine": process.command_line})
            })
            .collect();
        let files: Vec<_> = (system.files.iter())
            .map(|(path, file)| json!({"path": path, "sha1": file.sha1}))
            .collect();
        [("processes.json", json!(processes)), ("files.json", json!(files))]
    });
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut index = Vec::new();
    let machine = json!({"host": way.machine().host, "ip": way.machine().ip, "simulated": true});
    for (name, value) in parts.into_iter().chain([("machine.json", machine)]) {
        let bytes = serde_json::to_vec_pretty(&value)?;
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(&bytes)?;
        index.push(json!({"name": name, "source": "simulated", "size": bytes.len(),
                          "sha256": hex(&Sha256::digest(&bytes))}));
    }
    zip.start_file("index.json", SimpleFileOptions::default())?;
    let index = json!({
        "actionId": order.id, "machineId": order.machine_id, "requestor": order.requestor,
        "collected": way.now(), "files": index,
    });
    zip.write_all(&serde_json::to_vec_pretty(&index)?)?;
    let bytes = zip.finish()?.into_inner();
    way.upload(order, 0, "investigation-package.zip", bytes).await
}

fn investigate(way: &impl Way, entities: &InvestigatedEntities) -> OrderResult {
    let findings = way.system(|system| {
        let mut findings = Vec::new();
        let mut add = |kind: &str, sha1: &str, place: String, path: &str| {
            findings.push(Finding {
                kind: kind.to_owned(),
                entity: sha1.to_owned(),
                place,
                sha1: Some(sha1.to_owned()),
                path: Some(path.to_owned()),
                package: None,
            });
        };
        for (path, file) in &system.files {
            if entities.sha1.contains(&file.sha1) {
                add("File", &file.sha1, path.clone(), path);
            }
        }
        for (pid, process) in &system.processes {
            if entities.sha1.contains(&process.sha1) {
                let place = format!("process {pid} ({})", process.command_line);
                add("Process", &process.sha1, place, &process.path);
            }
        }
        findings
    });
    OrderResult { findings, ..succeeded() }
}

async fn live(
    way: &impl Way,
    order: &Order,
    commands: &[LiveCommand],
    random: &mut Random,
) -> OrderResult {
    let mut steps: Vec<CommandOutcome> = Vec::new();
    for (index, command) in commands.iter().enumerate() {
        steps.push(CommandOutcome {
            index,
            status: CommandStatus::InProgress,
            started: way.now(),
            ended: None,
            errors: Vec::new(),
        });
        let going =
            OrderResult { commands: steps.clone(), ..OrderResult::of(OrderStatus::InProgress) };
        way.progress(order, going).await;
        tokio::time::sleep(Duration::from_millis(300 + random.below(1500))).await;
        let outcome = step(way, order, index, command).await;
        let Some(step) = steps.last_mut() else { continue };
        step.ended = Some(way.now());
        match outcome {
            Ok(()) => step.status = CommandStatus::Completed,
            Err(error) => {
                step.status = CommandStatus::Failed;
                step.errors.push(format!("{error:#}"));
                let message = format!("command {index} failed: {error:#}");
                return OrderResult { commands: steps, ..failed(message, FAILED_HRESULT) };
            }
        }
    }
    OrderResult { commands: steps, ..succeeded() }
}

async fn step(way: &impl Way, order: &Order, index: usize, command: &LiveCommand) -> Result<()> {
    match command {
        LiveCommand::PutFile { file } => {
            ensure!(is_file_name(&file.name), "'{}' is not the name of a file", file.name);
            let bytes = way.download(order, file).await?;
            way.system(|system| {
                system.put(format!("/var/lib/vigie-sensor/downloads/{}", file.name), bytes)
            });
            Ok(())
        }
        LiveCommand::RunScript { script, args } => {
            let bytes = way.download(order, script).await?;
            // A simulated machine runs nothing; what it says is plain about it.
            let output = format!(
                "simulated run of {} ({} bytes) with the arguments [{args}] on {}\n",
                script.name,
                bytes.len(),
                way.machine().host
            );
            let transcript = ScriptTranscript {
                script_name: script.name.clone(),
                exit_code: 0,
                script_output: output,
                script_errors: String::new(),
            };
            let bytes = serde_json::to_vec(&transcript)?;
            way.upload(order, index, &format!("{}.json", script.name), bytes).await
        }
        LiveCommand::GetFile { path } => {
            let file = way.system(|system| system.files.get(path).cloned());
            let file = file.with_context(|| format!("{path}: no such file"))?;
            let content =
                file.content.unwrap_or_else(|| format!("simulated file {}\n", file.sha1).into());
            let name = path.rsplit(['/', '\\']).next().unwrap_or("file").replace(':', "_");
            way.upload(order, index, &name, content).await
        }
    }
}
