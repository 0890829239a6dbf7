//! `vigie apply` and `vigie export`: tenants as a reviewed file.

use crate::admin;
use crate::api::ApiOptions;
use anyhow::{Context as _, Result};
use clap::Args;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use vigie_client::Client;
use vigie_contract::administration::{Applied, Document};

const PATH: &str = "/admin/v1/document";

#[derive(Args)]
pub struct ApplyOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// YAML or JSON file; `-` for standard input
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args)]
pub struct ExportOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Where to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Reads a document; JSON is YAML too.
pub fn read(file: &Path) -> Result<Document> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

/// `vigie apply`
pub async fn apply(options: ApplyOptions) -> Result<()> {
    let document = read(&options.file)?;
    apply_document(&options.api.administration()?, &document).await
}

/// Applies and says what changed.
pub async fn apply_document(client: &Client, document: &Document) -> Result<()> {
    let applied: Applied = admin::send(client, reqwest::Method::PUT, PATH, document).await?;
    match applied.changes.as_slice() {
        [] => println!("nothing to change"),
        changes => changes.iter().for_each(|change| println!("{change}")),
    }
    Ok(())
}

/// `vigie export`
pub async fn export(options: ExportOptions) -> Result<()> {
    let answer = options.api.administration()?.get(PATH, &[]).await?;
    let document: Document = serde_json::from_value(answer)?;
    let text = serde_saphyr::to_string(&document)?;
    match options.file {
        Some(file) => {
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        }
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
