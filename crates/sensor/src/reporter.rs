//! Enrolment and the reports about the machine.

use crate::client::CallError;
use crate::link::{Backoff, Link};
use crate::lost::Lost;
use crate::machine::{self, Facts, Interface};
use crate::orders::isolation::Isolation;
use crate::orders::restriction::Restriction;
use crate::process::Processes;
use crate::rows::Sink;
use crate::spool::Spool;
use crate::state::State;
use crate::{SensorConfig, identity};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vigie_contract::sensor::{EnrolRequest, IsolationType, MachineReport, Provider};

/// How often the machine is looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A report goes out at least this often: it is also the sign of life.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// `DeviceInfo` and `DeviceNetworkInfo` are written at least this often.
const INFO_EVERY: Duration = Duration::from_secs(900);

pub struct Reporter {
    pub config: SensorConfig,
    pub facts: Facts,
    pub link: Arc<Link>,
    pub sink: Sink,
    pub processes: Arc<Processes>,
    pub isolation: Arc<Isolation>,
    pub restriction: Arc<Restriction>,
    pub providers: Arc<Vec<Provider>>,
    pub lost: Arc<Lost>,
    pub spool: Arc<Mutex<Spool>>,
    pub state: Arc<State>,
    pub stop: CancellationToken,
    /// An order changed the machine.
    pub changed: Arc<Notify>,
}

impl Reporter {
    /// Enrols if need be, trying until it succeeds; false when the sensor is to stop before.
    pub async fn enrol(&self) -> bool {
        let mut backoff = Backoff::new(&self.link.public_key());
        while self.link.enrolled().is_none() {
            let wait = match self.try_enrol().await {
                Ok(()) => return true,
                Err(error) => {
                    self.state.failed(&error);
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return false,
            }
        }
        true
    }

    async fn try_enrol(&self) -> Result<(), CallError> {
        let unreadable = |error: anyhow::Error| CallError::Unreadable(format!("{error:#}"));
        let Some(enrolment_key) = self.config.enrolment_key.clone() else {
            return Err(CallError::Unreadable(
                "the server does not know this machine, and no enrolment key is given".to_owned(),
            ));
        };
        let installation_id = self.config.installation_id().map_err(unreadable)?;
        let (report, _) = self.look().await;
        let request = EnrolRequest {
            enrolment_key,
            public_key: self.link.public_key(),
            installation_id,
            report,
        };
        let enrolled = self.link.client.enrol(&request).await?;
        identity::save_enrolment(&self.config.state_dir, &enrolled).map_err(unreadable)?;
        tracing::info!(machine_id = enrolled.machine_id, "enrolled");
        self.link.set_enrolled(enrolled);
        self.state.reached();
        Ok(())
    }

    /// Reports at start, on change and regularly, until the sensor stops.
    pub async fn run(self) {
        let mut backoff = Backoff::new(&self.link.public_key());
        let mut sent: Option<(MachineReport, Instant)> = None;
        let mut informed: Option<(MachineReport, Instant)> = None;
        loop {
            let (report, interfaces) = self.look().await;
            let stale = |last: &Option<(MachineReport, Instant)>, every: Duration| {
                last.as_ref().is_none_or(|(last, at)| {
                    at.elapsed() >= every || essence(last) != essence(&report)
                })
            };
            if stale(&informed, INFO_EVERY) {
                self.write_info(&report, &interfaces);
                informed = Some((report.clone(), Instant::now()));
            }
            let mut wait = LOOK_EVERY;
            if stale(&sent, REPORT_EVERY) {
                match self.send(&report).await {
                    Ok(()) => {
                        backoff.reset();
                        self.state.reached();
                        sent = Some((report, Instant::now()));
                    }
                    Err(error) => {
                        self.state.failed(&error);
                        wait = backoff.next_wait();
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => sent = None,
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn send(&self, report: &MachineReport) -> Result<(), CallError> {
        let token = match self.link.token().await {
            Ok(token) => token,
            // The server lost or never had this machine: with a key it can be made known again.
            Err(CallError::Refused { status: 401 | 403 | 404, .. })
                if self.config.enrolment_key.is_some() =>
            {
                tracing::warn!("the server does not know this machine, enrolling again");
                self.try_enrol().await?;
                self.link.token().await?
            }
            Err(error) => return Err(error),
        };
        let sent = self.link.client.report(&token, report).await;
        if sent.as_ref().is_err_and(CallError::is_session) {
            self.link.forget(&token).await;
        }
        sent
    }

    /// The machine as it is now.
    async fn look(&self) -> (MachineReport, Vec<Interface>) {
        let (processes, facts) = (self.processes.clone(), self.facts.clone());
        let now = self.config.clock.now();
        let looked = tokio::task::spawn_blocking(move || {
            let interfaces = machine::interfaces().unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot list the network interfaces");
                Vec::new()
            });
            let users = machine::logged_on_users(&processes, now);
            (machine::report(&facts, &interfaces, users), interfaces)
        });
        let (mut report, interfaces) = looked.await.unwrap_or_default();
        report.providers = self.providers.to_vec();
        report.response_allowed = self.config.allow_response;
        report.tags = self.config.tags.clone();
        report.isolation = Some(match self.isolation.current() {
            None => "None".to_owned(),
            Some(IsolationType::Full) => "Full".to_owned(),
            Some(IsolationType::Selective) => "Selective".to_owned(),
        });
        report.execution_restricted = self.restriction.is_in_force();
        report.lost_events = self.lost.counts();
        let dropped = self.spool.lock().dropped_events();
        if dropped > 0 {
            *report.lost_events.entry("spool".to_owned()).or_default() += dropped;
        }
        (report, interfaces)
    }

    fn write_info(&self, report: &MachineReport, interfaces: &[Interface]) {
        let now = self.config.clock.now();
        self.sink.put("machine", "DeviceInfo", machine::info_row(&self.facts, report, now));
        for row in machine::network_rows(interfaces, now) {
            self.sink.put("machine", "DeviceNetworkInfo", row);
        }
    }
}

/// A report without what changes at every look.
fn essence(report: &MachineReport) -> MachineReport {
    let mut essence = report.clone();
    for user in &mut essence.logged_on_users {
        user.last_seen = user.first_seen;
    }
    essence.lost_events.clear();
    essence
}
