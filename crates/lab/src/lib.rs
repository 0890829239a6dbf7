//! The lab: simulated machines that speak the real sensor protocol.
//!
//! Every machine has its own key, enrols, reports, sends telemetry out of scenarios and takes orders.
//! All of it follows from the seed, except for the random ids that the server gives. Simulated
//! machines carry the tag `vigie-lab`. Nothing in the server knows the difference.

mod machine;
mod names;
mod orders;
mod scenario;
mod sensor;
mod system;

pub use scenario::{Scenario, ScenarioError, embedded_scenarios};

use anyhow::Result;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vigie_contract::clock::Clock;
use vigie_sensor::client::Client;

/// The tag of every simulated machine.
pub const TAG: &str = "vigie-lab";

/// Machines that share one HTTP/2 connection; servers allow some hundred requests on one, and each
/// machine holds a long poll.
const MACHINES_PER_CONNECTION: usize = 40;
/// Enrolments and sends at the same time, so that a thousand machines do not start at one instant.
const CALLS_AT_ONCE: usize = 64;

/// What the lab is to simulate.
#[derive(Clone, Debug)]
pub struct LabConfig {
    pub server_url: String,
    /// The only certificate authorities that are trusted, as PEM text.
    pub ca_pem: String,
    /// The tenant's enrolment key.
    pub enrolment_key: String,
    pub machines: usize,
    /// The same seed makes the same machines (names, ids, keys) and events.
    pub seed: u64,
    /// How many seconds of a scenario pass in one real second; at least 1.
    pub speed: f64,
    /// What the machines play, by turns; see [`embedded_scenarios`].
    pub scenarios: Vec<Scenario>,
    pub clock: Clock,
}

impl LabConfig {
    /// Every embedded scenario at sixty times the real speed.
    pub fn new(
        server_url: impl Into<String>,
        ca_pem: impl Into<String>,
        enrolment_key: impl Into<String>,
        machines: usize,
    ) -> LabConfig {
        LabConfig {
            server_url: server_url.into(),
            ca_pem: ca_pem.into(),
            enrolment_key: enrolment_key.into(),
            machines,
            seed: 1,
            speed: 60.0,
            scenarios: embedded_scenarios(),
            clock: Clock::default(),
        }
    }
}

/// What the lab has done so far.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    pub machines: usize,
    pub enrolled: usize,
    /// Events that the server acknowledged.
    pub events_sent: u64,
    pub orders_carried_out: u64,
    /// Machines that are isolated now.
    pub isolated: usize,
    pub last_error: Option<String>,
}

/// What all machines of a lab share.
pub(crate) struct Shared {
    pub config: LabConfig,
    pub status: Mutex<LabStatus>,
    pub calls: Semaphore,
    pub stop: CancellationToken,
}

/// Starts labs.
pub struct Lab;

impl Lab {
    /// Starts the machines on the caller's runtime; they enrol in the background.
    pub async fn start(config: LabConfig) -> Result<LabHandle> {
        anyhow::ensure!(config.speed >= 1.0, "the lab's speed must be 1 or more");
        anyhow::ensure!(!config.scenarios.is_empty(), "the lab has no scenario to play");
        let machines = machine::fleet(&config)?;
        let shared = Arc::new(Shared {
            status: Mutex::new(LabStatus { machines: machines.len(), ..LabStatus::default() }),
            calls: Semaphore::new(CALLS_AT_ONCE),
            stop: CancellationToken::new(),
            config,
        });
        let mut tasks = JoinSet::new();
        let mut machines = machines.into_iter().peekable();
        while machines.peek().is_some() {
            let client = Client::new(&shared.config.server_url, &shared.config.ca_pem)?;
            for machine in machines.by_ref().take(MACHINES_PER_CONNECTION) {
                let sensor = sensor::SimulatedSensor::new(machine, client.clone(), shared.clone())?;
                tasks.spawn(sensor.run());
            }
        }
        Ok(LabHandle { shared, tasks })
    }
}

/// A running lab. Dropping it stops the machines without waiting.
pub struct LabHandle {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl LabHandle {
    pub fn status(&self) -> LabStatus {
        self.shared.status.lock().clone()
    }

    /// Stops all machines. They stay known to the server, as machines that were switched off.
    pub async fn shutdown(mut self) {
        self.shared.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for LabHandle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
