//! What is done with a state folder while no sensor runs in it.

use crate::client::Client;
use crate::orders::isolation::Isolation;
use crate::orders::quarantine::{Sealed, Vault};
use crate::process::Processes;
use crate::{SensorConfig, StartError, disk, identity, lock_state_folder, machine, orders};
use anyhow::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use vigie_contract::sensor::{EnrolRequest, Enrolled, IsolationType};

/// What stands in a state folder.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredStatus {
    /// Whether a sensor runs with this folder now.
    pub running: bool,
    pub tenant_id: Option<Uuid>,
    pub machine_id: Option<String>,
    pub isolation: Option<IsolationType>,
    /// Bytes of spooled telemetry on disk, acknowledged batches of the newest segment included.
    pub spool_bytes: u64,
    /// Orders whose result the server does not have yet.
    pub unanswered_orders: usize,
}

/// Reads a state folder; changes nothing in it.
pub fn stored_status(state_dir: &Path) -> Result<StoredStatus> {
    anyhow::ensure!(state_dir.is_dir(), "{} is not a state folder", state_dir.display());
    let enrolled = identity::load_enrolment(state_dir)?;
    let spool = std::fs::read_dir(state_dir.join("spool"));
    let sizes = spool.into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok());
    Ok(StoredStatus {
        running: matches!(lock_state_folder(state_dir), Err(StartError::StateFolderInUse(_))),
        tenant_id: enrolled.as_ref().map(|enrolled| enrolled.tenant_id),
        machine_id: enrolled.map(|enrolled| enrolled.machine_id),
        isolation: isolation_of(state_dir)?.current(),
        spool_bytes: sizes.map(|data| data.len()).sum(),
        unanswered_orders: orders::Journal::open(state_dir)?.unanswered().len(),
    })
}

/// Enrols without starting the sensor; one attempt.
pub async fn enrol(config: SensorConfig) -> Result<Enrolled> {
    disk::make_private_folder(&config.state_dir)?;
    let _lock = lock_state_folder(&config.state_dir)?;
    let client = Client::new(&config.server_url, &config.ca_pem)?;
    let key = identity::load_or_create_key(&config.state_dir)?;
    let facts = machine::facts();
    let processes = Processes::new(&config.clock, facts.host.clone());
    let users = machine::logged_on_users(&processes, config.clock.now());
    let mut report = machine::report(&facts, &machine::interfaces()?, users);
    report.tags.clone_from(&config.tags);
    let request = EnrolRequest {
        enrolment_key: config.enrolment_key.clone().ok_or(StartError::NotEnrolled)?,
        public_key: key.public_key(),
        installation_id: config.installation_id()?,
        report,
    };
    let enrolled = client.enrol(&request).await?;
    orders::Journal::open(&config.state_dir)?.forget_offboarding()?;
    identity::forget_offboarding(&config.state_dir)?;
    identity::save_enrolment(&config.state_dir, &enrolled)?;
    Ok(enrolled)
}

/// Opens the network of this machine again, for the person in front of it. Not while a sensor runs:
/// it would go on reporting an isolation that is no more.
pub fn release_isolation(state_dir: &Path) -> Result<()> {
    let _lock = lock_state_folder(state_dir)?;
    isolation_of(state_dir)?.release()
}

/// What is in quarantine on this machine, oldest first.
pub fn quarantined(state_dir: &Path) -> Result<Vec<Sealed>> {
    anyhow::ensure!(state_dir.is_dir(), "{} is not a state folder", state_dir.display());
    Vault::open(state_dir)?.list()
}

/// Puts a file back out of quarantine, by its id or the beginning of it; also while a sensor runs.
/// Returns where it is now.
pub fn restore_quarantined(state_dir: &Path, id: &str, to: Option<&Path>) -> Result<PathBuf> {
    anyhow::ensure!(state_dir.is_dir(), "{} is not a state folder", state_dir.display());
    let vault = Vault::open(state_dir)?;
    vault.restore(&vault.find(id)?, to)
}

fn isolation_of(state_dir: &Path) -> Result<Isolation> {
    // The address matters for isolating alone.
    Isolation::new(state_dir, "https://localhost", Vec::new())
}
