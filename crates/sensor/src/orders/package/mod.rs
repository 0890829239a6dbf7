//! `collectInvestigationPackage`: what an investigator wants to see of a machine, as a zip with an
//! index of hashes.
//!
//! Every part is bounded in size and time, and one that cannot be had is named in the index with the
//! reason. The zip stays in the state folder until the server has it, so that a restart goes on with
//! sending.

mod archive;
mod facts;
mod tools;

pub use facts::autostart_files;

use super::executor::{Executor, Run};
use super::{FAILED_HRESULT, failed, succeeded};
use anyhow::Result;
use archive::Archive;
use std::path::Path;
use std::time::Instant;
use vigie_contract::sensor::OrderResult;

/// Collects and sends the package.
pub fn collect(executor: &Executor, run: &Run) -> OrderResult {
    let begun = Instant::now();
    let outcome = executor.work_folder(run).and_then(|work| {
        let package = work.join("package.zip");
        if !package.exists() {
            let unfinished = work.join("package.part");
            build(executor, run, &unfinished)?;
            std::fs::rename(&unfinished, &package)?;
        }
        let bytes = std::fs::metadata(&package)?.len();
        run.transfer.upload(0, &package, "investigation-package.zip")?;
        Ok(bytes)
    });
    match outcome {
        Ok(bytes) => {
            let seconds = begun.elapsed().as_secs_f64();
            let text = format!("a package of {bytes} bytes was sent within {seconds:.1} seconds");
            OrderResult { error: Some(text), ..succeeded() }
        }
        Err(error) => failed(format!("{error:#}"), FAILED_HRESULT),
    }
}

/// Gathers what one file of a package tells.
type Gather = fn(&Executor) -> Result<serde_json::Value>;

fn build(executor: &Executor, run: &Run, path: &Path) -> Result<()> {
    let mut archive = Archive::create(path)?;
    let parts: [(&str, Gather); 6] = [
        ("machine.json", facts::machine),
        ("processes.json", facts::processes),
        ("network.json", facts::network),
        ("kernel_modules.json", facts::kernel_modules),
        ("users.json", facts::users),
        ("recent_files.json", facts::recent_files),
    ];
    for (name, part) in parts {
        anyhow::ensure!(!run.is_stopped(), "the collection was cancelled");
        archive.json(name, "collected by the sensor", part(executor));
    }
    for file in facts::autostart_files().iter().chain(&facts::system_files()) {
        anyhow::ensure!(!run.is_stopped(), "the collection was cancelled");
        archive.copy(file);
    }
    for tool in tools::TOOLS {
        anyhow::ensure!(!run.is_stopped(), "the collection was cancelled");
        archive.bytes(tool.name, &tool.line(), tool.run(&run.transfer.stop));
    }
    for name in ["orders.json", "isolation.json", "restriction.json"] {
        let file = executor.state_dir.join(name);
        if file.exists() {
            archive.bytes(
                &format!("sensor/{name}"),
                "state folder",
                std::fs::read(file).map_err(Into::into),
            );
        }
    }
    let sensor = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "policy": format!("{:?}", executor.policy),
        "quarantine": executor.quarantine.vault.list().unwrap_or_default(),
    });
    archive.json("sensor/sensor.json", "the sensor itself", Ok(sensor));
    archive.finish(&run.order, executor.clock.now())
}
