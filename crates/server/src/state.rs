//! What all requests share.

use crate::edge::Counters;
use crate::features::hunting::Quotas;
use crate::features::indicators::Prepared;
use crate::features::machine_actions::Waiting;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use vigie_contract::clock::Clock;
use vigie_database::Database;
use vigie_hunting::Engine;
use vigie_hunting::lake::Lake;
use vigie_identity::{Directory, MasterKey};

#[derive(Clone)]
pub struct State {
    pub directory: Directory,
    pub database: Database,
    pub lake: Lake,
    pub engine: Engine,
    /// `None` where tenants may call and hunt without measure.
    pub quotas: Option<Arc<Quotas>>,
    pub clock: Clock,
    pub master: Arc<MasterKey>,
    /// Sensors that wait for orders.
    pub waiting: Arc<Waiting>,
    /// Wakes what publishes rows of alerts to the lake.
    pub publish: Arc<tokio::sync::Notify>,
    /// Tenants' indicators as prepared sets.
    pub watchlists: Arc<Prepared>,
    /// Calls of late, by application and operation.
    pub counters: Arc<Counters>,
    pub stop: CancellationToken,
}

impl State {
    /// Now, in microseconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.clock.now().timestamp_micros()
    }
}
