//! Structure that the compiler does not see, checked against what the documents promise.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Names of modules that collect whatever has no place.
const DRAWERS: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager"];
/// Crates whose names only `vigie-hunting` may write.
const ENGINE: &[&str] = &["datafusion", "deltalake-core"];

/// Fails with every finding at once.
pub fn run() -> Result<()> {
    let mut findings = Vec::new();
    dependencies(&mut findings)?;
    files(&mut findings)?;
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} finding(s):\n  {}", findings.len(), findings.join("\n  "))
}

/// The table in ARCHITECTURE.md against `cargo metadata`.
fn dependencies(findings: &mut Vec<String>) -> Result<()> {
    let documented = documented_edges()?;
    for (krate, (ours, others)) in actual_edges()? {
        let Some(allowed) = documented.get(&krate) else {
            findings.push(format!("crate `{krate}` is missing in ARCHITECTURE.md's table"));
            continue;
        };
        for used in &ours {
            if !allowed.contains("all of them") && !allowed.contains(used) {
                findings.push(format!("ARCHITECTURE.md does not let `{krate}` use `{used}`"));
            }
        }
        if krate != "hunting" {
            for engine in ENGINE.iter().filter(|engine| others.contains(**engine)) {
                findings.push(format!("only `hunting` may name `{engine}`, `{krate}` does"));
            }
        }
    }
    Ok(())
}

fn documented_edges() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string(crate::root().join("ARCHITECTURE.md"))?;
    let mut edges = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", krate, _, uses, ""] = cells[..] {
            let uses = uses.split(',').map(|name| name.trim().to_owned()).collect();
            edges.insert(krate.to_owned(), uses);
        }
    }
    Ok(edges)
}

type Edges = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// Folder name → our crates it names, foreign crates it names; development dependencies left out.
fn actual_edges() -> Result<Edges> {
    let output = Command::new(env!("CARGO"))
        .current_dir(crate::root())
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().context("no packages in cargo metadata")? {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let Some((folder, _)) = manifest.rsplit_once('/') else { continue };
        let Some((_, folder)) = folder.rsplit_once("crates/") else { continue };
        let entry = edges.entry(folder.to_owned()).or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let name = dependency["name"].as_str().unwrap_or_default();
            match name.strip_prefix("vigie-") {
                Some(ours) => entry.0.insert(ours.to_owned()),
                None => entry.1.insert(name.to_owned()),
            };
        }
    }
    Ok(edges)
}

/// Drawers, unfinished code, and text that names the place where the work was done.
fn files(findings: &mut Vec<String>) -> Result<()> {
    let output =
        Command::new("git").current_dir(crate::root()).args(["ls-files", "-z"]).output()?;
    for path in String::from_utf8_lossy(&output.stdout).split('\0').filter(|p| !p.is_empty()) {
        let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
        let folder = path.rsplit('/').nth(1).unwrap_or("");
        if path.ends_with(".rs") && (DRAWERS.contains(&stem) || DRAWERS.contains(&folder)) {
            findings.push(format!("{path}: name the file after what it holds"));
        }
        if path.ends_with(".rs") && !path.starts_with("xtask/") {
            let text = std::fs::read_to_string(crate::root().join(path)).unwrap_or_default();
            for (number, line) in text.lines().enumerate() {
                if ["todo!(", "unimplemented!(", "#[ignore"].iter().any(|mark| line.contains(mark))
                {
                    findings.push(format!("{path}:{}: unfinished: {}", number + 1, line.trim()));
                }
            }
        }
    }
    Ok(())
}
