//! Where files were seen, out of the events of the last 30 days.

use crate::edge::ApiError;
use crate::state::State;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_hunting::{Database, Limits};

/// Machines and paths of one answer; what was seen in more places is everywhere.
const MOST: usize = 100;
const EVENTS: &str = "union DeviceProcessEvents, DeviceFileEvents, DeviceEvents \
                      | where Timestamp > ago(30d)";

/// A machine that saw a file.
pub struct Seen {
    pub machine: String,
    pub machine_name: String,
    /// Where its events named the file.
    pub paths: Vec<String>,
}

/// Machines whose events name one of the files. Hashes are hexadecimal digits, which need no quoting.
pub async fn machines(state: &State, tenant: Uuid, sha1: &[String]) -> Result<Vec<Seen>, ApiError> {
    if sha1.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<String> = sha1.iter().map(|sha1| format!("\"{sha1}\"")).collect();
    let query = format!(
        "{EVENTS} | where SHA1 in ({}) | summarize DeviceName = take_any(DeviceName), \
         Paths = tostring(make_set(FolderPath, {MOST})) by DeviceId | take {MOST}",
        hashes.join(", ")
    );
    let rows = rows(state, tenant, &query).await?;
    let machines = rows.iter().map(|row| Seen {
        machine: text(row, "DeviceId"),
        machine_name: text(row, "DeviceName"),
        paths: serde_json::from_str(&text(row, "Paths")).unwrap_or_default(),
    });
    Ok(machines.filter(|seen| !seen.machine.is_empty()).collect())
}

/// Paths at which a machine's events name a file.
pub async fn paths(
    state: &State,
    tenant: Uuid,
    machine: &str,
    sha1: &str,
) -> Result<Vec<String>, ApiError> {
    let query = format!(
        "{EVENTS} | where DeviceId == \"{machine}\" and SHA1 == \"{sha1}\" | distinct FolderPath \
         | take {MOST}"
    );
    let rows = rows(state, tenant, &query).await?;
    Ok(rows.iter().map(|row| text(row, "FolderPath")).filter(|path| !path.is_empty()).collect())
}

fn text(row: &Json, column: &str) -> String {
    row[column].as_str().unwrap_or_default().to_owned()
}

async fn rows(state: &State, tenant: Uuid, query: &str) -> Result<Vec<Json>, ApiError> {
    let database = Database::Lake { lake: state.lake.clone(), tenant };
    let result = state.engine.run(&database, query, &Limits::default()).await;
    let result = result.map_err(ApiError::internal)?;
    let mut text = Vec::new();
    if let Some(table) = result.tables.first() {
        table.write_json_lines(&mut text).map_err(ApiError::internal)?;
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(ApiError::internal)).collect()
}
