//! `restrictCodeExecution`: only unchanged programs of installed packages may start, and what the
//! policy allows.
//!
//! The kernel asks before a program starts (fanotify's exec permission, [`guard`]); where it cannot,
//! a program is ended right after its start ([`killer`]). While the sensor does not run, nobody is asked and everything may start; the restriction is put back at its next
//! start, before it speaks to anyone.

mod guard;
mod judge;
mod killer;

use super::policy::Policy;
use crate::disk;
use crate::process::Processes;
use crate::rows::Sink;
use anyhow::{Context, Result};
use guard::Guard;
use judge::Judge;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vigie_contract::clock::Clock;

const STATE_FILE: &str = "restriction.json";

#[derive(Serialize, Deserialize)]
struct InForce {
    since: chrono::DateTime<chrono::Utc>,
}

/// What the restriction needs of the sensor.
#[derive(Clone)]
pub struct Surroundings {
    pub policy: Arc<Policy>,
    pub processes: Arc<Processes>,
    pub sink: Sink,
    pub clock: Clock,
}

pub struct Restriction {
    state_file: PathBuf,
    surroundings: Surroundings,
    guard: Mutex<Option<Guard>>,
}

impl Restriction {
    pub fn new(state_dir: &Path, surroundings: Surroundings) -> Restriction {
        let state_file = state_dir.join(STATE_FILE);
        Restriction { state_file, surroundings, guard: Mutex::default() }
    }

    pub fn is_in_force(&self) -> bool {
        self.guard.lock().is_some()
    }

    /// Puts back what was in force before a restart.
    pub fn reapply(&self) -> Result<()> {
        let in_force: Option<InForce> = disk::read_json(&self.state_file)?;
        if in_force.is_some() {
            tracing::warn!("code execution is restricted on this machine");
            *self.guard.lock() = Some(self.start()?);
        }
        Ok(())
    }

    pub fn begin(&self) -> Result<()> {
        let mut guard = self.guard.lock();
        if guard.is_none() {
            let started = self.start()?;
            let since = self.surroundings.clock.now();
            disk::write_json(&self.state_file, &InForce { since })?;
            *guard = Some(started);
        }
        Ok(())
    }

    /// Lets everything start again; fine when nothing is in force.
    pub fn end(&self) -> Result<()> {
        let guard = self.guard.lock().take();
        match std::fs::remove_file(&self.state_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if let Some(guard) = guard {
            guard.stop();
        }
        Ok(())
    }

    /// Ends the guard with the sensor; the restriction is put back at the next start.
    pub fn pause(&self) {
        if let Some(guard) = self.guard.lock().take() {
            guard.stop();
        }
    }

    fn start(&self) -> Result<Guard> {
        let judge = Judge::new(self.surroundings.clone())?;
        let policy = &self.surroundings.policy;
        let file_systems = &policy.restricted_file_systems;
        if policy.kill_after_start {
            return killer::start(judge, file_systems);
        }
        let asked = match guard::ask(file_systems) {
            Ok(asked) => asked,
            Err(reason) => {
                let reason = format!("{reason:#}");
                tracing::warn!(reason, "programs are ended right after their start");
                return killer::start(judge, file_systems).context(reason);
            }
        };
        Guard::start(move |stop| guard::run(&asked, judge, stop))
    }
}
