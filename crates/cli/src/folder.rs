//! The data folder: what `up` keeps, and how the other commands find the running server.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Args, Clone)]
pub struct FolderOptions {
    /// Data folder [default: VIGIE_DATA, $XDG_DATA_HOME/vigie or ~/.local/share/vigie]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl FolderOptions {
    pub fn path(&self) -> Result<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        if let Some(data) = std::env::var_os("VIGIE_DATA").filter(|data| !data.is_empty()) {
            return Ok(PathBuf::from(data));
        }
        if let Some(base) = std::env::var_os("XDG_DATA_HOME").filter(|base| !base.is_empty()) {
            return Ok(PathBuf::from(base).join("vigie"));
        }
        let home = std::env::var_os("HOME")
            .context("neither HOME nor XDG_DATA_HOME is set; name a folder with --data")?;
        Ok(PathBuf::from(home).join(".local/share/vigie"))
    }
}

/// What a running or earlier server left for the command line, in `local.json` (mode 0600).
#[derive(Serialize, Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// For example `https://127.0.0.1:8443`.
    pub url: String,
    pub ca_file: PathBuf,
    /// The tenant of the administration application.
    pub tenant: String,
    pub client_id: String,
    pub client_secret: String,
}

impl Local {
    fn file(folder: &Path) -> PathBuf {
        folder.join("local.json")
    }

    pub fn exists(folder: &Path) -> bool {
        Local::file(folder).exists()
    }

    pub fn read(folder: &Path) -> Result<Local> {
        let file = Local::file(folder);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "no server has run on {} yet: start one with `vigie up`, or name its folder with \
                 --data, or give --url, --tenant, --client-id and VIGIE_CLIENT_SECRET",
                folder.display()
            ),
            Err(error) => return Err(error).context(format!("cannot read {}", file.display())),
        };
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    /// Replaces the file as a whole, so that a reader never sees half of it.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = Local::file(folder);
        let fresh = folder.join("local.json.new");
        let mut options = std::fs::OpenOptions::new();
        let writer = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        serde_json::to_writer_pretty(&writer, self)?;
        writer.sync_all()?;
        std::fs::rename(&fresh, &file)?;
        Ok(())
    }
}
