//! Attempts on the sensor itself: changes of its own files by others, and ends that nobody asked for.

use crate::disk;
use crate::rows::{Row, Sink};
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use vigie_contract::clock::Clock;

/// Stands in the state folder while a sensor runs; holds the id of the machine's boot.
const RUNNING_FILE: &str = "running";

/// Marks that the sensor runs.
pub struct Running(PathBuf);

impl Running {
    /// Sets the mark. One that was left within the same boot means that the last sensor was killed, or
    /// crashed, while the machine went on; that becomes a row.
    pub fn begin(state_dir: &Path, clock: &Clock, sink: &Sink) -> Result<Running> {
        let path = state_dir.join(RUNNING_FILE);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if std::fs::read_to_string(&path).is_ok_and(|left| left == boot) {
            tracing::warn!("the last sensor did not end by itself");
            let mut row = Row::new(clock.now(), "TamperingAttempt");
            let status = "the sensor was killed or crashed";
            row.json("AdditionalFields", &json!({"TamperingAction": "Process", "Status": status}));
            sink.put("response", "DeviceEvents", row);
        }
        disk::write_durably(&path, boot.as_bytes())?;
        Ok(Running(path))
    }

    /// Takes the mark away: the sensor ends because it was asked to.
    pub fn end(&self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the mark of the running sensor stays");
        }
    }
}
