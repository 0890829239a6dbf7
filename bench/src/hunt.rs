//! Hunting shapes beside other engines; the script makes the telemetry and runs all of them.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::server::program;

/// Rows of each of the two tables, unless `VIGIE_BENCH_ROWS` says otherwise.
const ROWS: &str = "2000000";

pub fn run() -> Result<()> {
    let Ok(python) = std::env::var("VIGIE_BENCH_PYTHON") else {
        println!("hunt left out: VIGIE_BENCH_PYTHON is not set");
        return Ok(());
    };
    let rows = std::env::var("VIGIE_BENCH_ROWS").unwrap_or_else(|_| ROWS.to_owned());
    let folder = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hunt/run.py");
    let mut command = Command::new(python);
    command.arg(script).arg(program("vigie")?).arg(rows).arg(folder.path());
    anyhow::ensure!(command.status()?.success(), "the script failed");
    Ok(())
}
