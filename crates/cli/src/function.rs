//! `vigie function`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};
use vigie_contract::function::SavedFunction;

#[derive(Args)]
pub struct FunctionOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: FunctionCommand,
}

#[derive(Subcommand)]
enum FunctionCommand {
    List,
    Show {
        name: String,
    },
    /// Save the function of a YAML or JSON file: name, description, parameters, query
    Add {
        file: PathBuf,
    },
    /// Replace a function by that of a file
    Replace {
        name: String,
        file: PathBuf,
    },
    Remove {
        name: String,
    },
}

const COLUMNS: &[&str] = &["name", "parameters", "description", "query"];

pub async fn run(options: FunctionOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/functions", options.api.tenant()?);
    let one = |name: &str| format!("{base}/{name}");
    let function: Value = match options.command {
        FunctionCommand::List => {
            return output::print(&admin::list(&client, &base).await?, COLUMNS, options.output);
        }
        FunctionCommand::Remove { name } => {
            client.send(Method::DELETE, &one(&name), None).await?;
            return Ok(());
        }
        FunctionCommand::Show { name } => client.get(&one(&name), &[]).await?,
        FunctionCommand::Add { file } => {
            admin::send(&client, Method::POST, &base, &read(&file)?).await?
        }
        FunctionCommand::Replace { name, file } => {
            admin::send(&client, Method::PUT, &one(&name), &read(&file)?).await?
        }
    };
    output::print(&[function], COLUMNS, options.output)
}

/// A function; JSON is YAML.
pub fn read(file: &Path) -> Result<SavedFunction> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}
