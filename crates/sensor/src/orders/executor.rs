//! Which order is carried out by what.

use super::isolation::Isolation;
use super::policy::{Policy, kind};
use super::quarantine::Quarantine;
use super::restriction::Restriction;
use super::transfer::Transfer;
use super::{DENIED_HRESULT, FAILED_HRESULT, failed, investigate, live, package, scan, succeeded};
use crate::link::Link;
use crate::process::Processes;
use crate::rows::{Row, Sink};
use crate::{disk, identity};
use anyhow::Result;
use parking_lot::Mutex;
use serde_json::json;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::{Command, Order, OrderResult, OrderStatus};

/// Carries orders out on this machine.
pub struct Executor {
    pub allow_response: bool,
    pub policy: Arc<Policy>,
    pub state_dir: PathBuf,
    pub isolation: Arc<Isolation>,
    pub restriction: Arc<Restriction>,
    pub quarantine: Arc<Quarantine>,
    pub processes: Arc<Processes>,
    pub sink: Sink,
    pub clock: Clock,
    /// The sensor itself; stopped after its offboarding was answered.
    pub stop: CancellationToken,
    pub offboarding: Mutex<Option<Uuid>>,
}

/// One order while it is carried out.
pub struct Run {
    pub order: Order,
    pub transfer: Transfer,
}

impl Run {
    pub fn new(link: &Arc<Link>, order: Order, stop: CancellationToken) -> Run {
        let runtime = tokio::runtime::Handle::current();
        let transfer = Transfer { link: link.clone(), runtime, order: order.id, stop };
        Run { order, transfer }
    }

    /// Whether the order is to stop.
    pub fn is_stopped(&self) -> bool {
        self.transfer.stop.is_cancelled()
    }
}

/// Orders of one lane run one after the other.
pub fn lane(command: &Command) -> &'static str {
    match command {
        Command::Isolate { .. } | Command::Unisolate {} => "network",
        Command::RestrictCodeExecution {} | Command::UnrestrictCodeExecution {} => "execution",
        other => kind(other),
    }
}

impl Executor {
    /// Does what is ordered, or says why not. Blocks.
    pub fn execute(&self, run: &Run) -> OrderResult {
        let command = &run.order.command;
        if !self.allow_response {
            return failed(
                "this sensor was started without --allow-response and carries out no response \
                 actions",
                DENIED_HRESULT,
            );
        }
        if !self.policy.allows(command) {
            let message = format!("this machine's policy allows no {} orders", kind(command));
            return failed(message, DENIED_HRESULT);
        }
        let result = match command {
            Command::Isolate { isolation_type } => done(self.isolation.isolate(*isolation_type)),
            Command::Unisolate {} => done(self.isolation.release()),
            Command::RestrictCodeExecution {} => done(self.restriction.begin()),
            Command::UnrestrictCodeExecution {} => done(self.restriction.end()),
            Command::StopAndQuarantineFile { sha1, known_paths } => {
                self.quarantine.stop_and_quarantine(self, run, sha1, known_paths)
            }
            Command::RunAntiVirusScan { scan_type, rules } => {
                scan::run(self, run, *scan_type, rules)
            }
            Command::CollectInvestigationPackage {} => package::collect(self, run),
            Command::LiveResponse { commands } => live::run(self, run, commands),
            Command::Offboard {} => done(self.offboard(run)),
            Command::Investigate { entities } => investigate::run(self, run, entities),
            // Not put into a lane.
            Command::Cancel { .. } => failed("nothing to cancel", FAILED_HRESULT),
        };
        let ended_early = run.is_stopped() && result.status == OrderStatus::Failed;
        if ended_early { OrderResult { status: OrderStatus::Cancelled, ..result } } else { result }
    }

    /// A row about a response, in `DeviceEvents`.
    pub fn event(&self, action_type: &str) -> Row {
        Row::new(self.clock.now(), action_type)
    }

    pub fn put(&self, row: Row) {
        self.sink.put("response", "DeviceEvents", row);
    }

    /// An order that did not come from this tenant's server.
    pub fn report_refusal(&self, reason: &str) {
        let mut row = self.event("TamperingAttempt");
        row.json("AdditionalFields", &json!({"TamperingAction": "Order", "Status": reason}));
        self.put(row);
    }

    /// Frees the machine; the sensor ends when the server has heard of it.
    fn offboard(&self, run: &Run) -> Result<()> {
        self.isolation.release_if_in_force()?;
        self.restriction.end()?;
        *self.offboarding.lock() = Some(run.order.id);
        Ok(())
    }

    /// The server has the result of this order.
    pub fn answered(&self, id: Uuid) {
        if *self.offboarding.lock() != Some(id) {
            return;
        }
        tracing::warn!("this machine is offboarded; the sensor ends");
        let forgotten = identity::forget(&self.state_dir);
        if let Err(error) = forgotten {
            tracing::error!(error = format!("{error:#}"), "the enrolment stays on disk");
        }
        self.stop.cancel();
    }

    /// The folder of one order's files. It tells how far the order has come, so it stays until the
    /// journal knows the end.
    pub fn work_folder(&self, run: &Run) -> Result<PathBuf> {
        let folder = self.work().join(run.order.id.to_string());
        disk::make_private_folder(&folder)?;
        Ok(folder)
    }

    /// Removes the folder of an order that has ended.
    pub fn remove_work(&self, id: Uuid) {
        let removed = std::fs::remove_dir_all(self.work().join(id.to_string()));
        if let Err(error) = removed
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%id, %error, "an ended order's files stay");
        }
    }

    /// Removes the folders of all orders but those that are not at their end; before any begins.
    pub fn clear_work(&self, unfinished: &[Order]) {
        let entries = std::fs::read_dir(self.work()).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let goes_on = unfinished.iter().any(|order| *name == *order.id.to_string());
            if !goes_on && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, "an ended order's files stay");
            }
        }
    }

    fn work(&self) -> PathBuf {
        self.state_dir.join("work")
    }
}

fn done(outcome: Result<()>) -> OrderResult {
    match outcome {
        Ok(()) => succeeded(),
        Err(error) => failed(format!("{error:#}"), FAILED_HRESULT),
    }
}
