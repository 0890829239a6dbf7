//! The zip and its index.

use crate::identity::hex;
use crate::orders::quarantine::open_regular;
use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};
use vigie_contract::sensor::Order;
use zip::CompressionMethod;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Largest single part and largest whole, before compression, in bytes.
const LARGEST_PART: u64 = 16 << 20;
const LARGEST_WHOLE: u64 = 256 << 20;

pub struct Archive {
    zip: ZipWriter<File>,
    index: Vec<Value>,
    whole: u64,
}

impl Archive {
    pub fn create(path: &Path) -> Result<Archive> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Archive { zip: ZipWriter::new(file), index: Vec::new(), whole: 0 })
    }

    pub fn json(&mut self, name: &str, source: &str, value: Result<Value>) {
        let bytes = value.and_then(|value| Ok(serde_json::to_vec_pretty(&value)?));
        self.bytes(name, source, bytes);
    }

    pub fn bytes(&mut self, name: &str, source: &str, bytes: Result<Vec<u8>>) {
        let mut entry = json!({"name": name, "source": source});
        let added = bytes.and_then(|bytes| self.add(name, &bytes, &mut entry));
        if let Err(error) = added {
            entry["error"] = format!("{error:#}").into();
        }
        self.index.push(entry);
    }

    /// A file of the machine under `files/` and its own path, with owner, mode and time.
    pub fn copy(&mut self, path: &Path) {
        let Some(name) = inside(path) else { return };
        let mut entry = json!({"name": name, "source": path});
        let copied = (|| {
            let file = open_regular(path)?;
            let data = file.metadata()?;
            entry["mode"] = format!("{:o}", data.mode() & 0o7777).into();
            entry["uid"] = data.uid().into();
            entry["gid"] = data.gid().into();
            entry["modified"] = data.mtime().into();
            ensure!(data.len() <= LARGEST_PART, "{} bytes are too many", data.len());
            let mut bytes = Vec::new();
            file.take(LARGEST_PART).read_to_end(&mut bytes)?;
            self.add(&name, &bytes, &mut entry)
        })();
        if let Err(error) = copied {
            entry["error"] = format!("{error:#}").into();
        }
        self.index.push(entry);
    }

    fn add(&mut self, name: &str, bytes: &[u8], entry: &mut Value) -> Result<()> {
        let size = bytes.len() as u64;
        ensure!(size <= LARGEST_PART, "{size} bytes are too many");
        ensure!(self.whole + size <= LARGEST_WHOLE, "the package is full");
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        self.zip.start_file(name, options)?;
        self.zip.write_all(bytes)?;
        self.whole += size;
        entry["size"] = size.into();
        entry["sha256"] = hex(&Sha256::digest(bytes)).into();
        Ok(())
    }

    /// Writes the index and ends the zip, durably.
    pub fn finish(mut self, order: &Order, now: DateTime<Utc>) -> Result<()> {
        let index = json!({
            "actionId": order.id, "machineId": order.machine_id, "requestor": order.requestor,
            "collected": now, "files": self.index,
        });
        self.zip.start_file("index.json", SimpleFileOptions::default())?;
        self.zip.write_all(&serde_json::to_vec_pretty(&index)?)?;
        self.zip.finish()?.sync_all()?;
        Ok(())
    }
}

/// The name of a file in the zip: no step of it leads upwards, whatever the path holds.
fn inside(path: &Path) -> Option<String> {
    let mut name = String::from("files");
    for component in path.components() {
        match component {
            Component::Normal(part) => {
                name.push('/');
                name.push_str(&part.to_string_lossy().replace(['\\', '\0'], "_"));
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_zip_never_lead_out_of_it() {
        assert_eq!(inside(Path::new("/etc/passwd")).as_deref(), Some("files/etc/passwd"));
        assert_eq!(inside(Path::new("/a/./b\\..\\c")).as_deref(), Some("files/a/b_.._c"));
        assert_eq!(inside(Path::new("/etc/../../x")), None);
    }
}
