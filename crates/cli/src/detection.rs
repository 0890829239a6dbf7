//! `vigie detection`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};
use vigie_contract::detection::NewDetection;

#[derive(Args)]
pub struct DetectionOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: DetectionCommand,
}

#[derive(Subcommand)]
enum DetectionCommand {
    List,
    Show {
        id: String,
    },
    /// Add the rule of a YAML or JSON file; it runs at once
    Add {
        file: PathBuf,
    },
    /// Replace a rule by that of a file
    Replace {
        id: String,
        file: PathBuf,
    },
    /// Remove a rule; its alerts stay
    Remove {
        id: String,
    },
    /// Run a rule now
    Run {
        id: String,
    },
}

const COLUMNS: &[&str] = &[
    "id",
    "displayName",
    "enabled",
    "frequency",
    "severity",
    "builtIn",
    "lastRun",
    "lastRunStatus",
];

pub async fn run(options: DetectionOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/detections", options.api.tenant()?);
    let one = |id: &str| format!("{base}/{id}");
    let rule: Value = match options.command {
        DetectionCommand::List => {
            return output::print(&admin::list(&client, &base).await?, COLUMNS, options.output);
        }
        DetectionCommand::Remove { id } => {
            client.send(Method::DELETE, &one(&id), None).await?;
            return Ok(());
        }
        DetectionCommand::Show { id } => client.get(&one(&id), &[]).await?,
        DetectionCommand::Add { file } => {
            admin::send(&client, Method::POST, &base, &read(&file)?).await?
        }
        DetectionCommand::Replace { id, file } => {
            admin::send(&client, Method::PUT, &one(&id), &read(&file)?).await?
        }
        DetectionCommand::Run { id } => {
            client.send(Method::POST, &format!("{}/run", one(&id)), None).await?
        }
    };
    output::print(&[rule], COLUMNS, options.output)
}

/// A rule; JSON is YAML.
fn read(file: &Path) -> Result<NewDetection> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}
