//! The Linux sensor: observes processes, connections, files and logons, keeps the events on disk
//! until the server has them, and carries out the server's signed orders.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use vigie_sensor::{Sensor, SensorConfig};
//! let ca = std::fs::read_to_string("ca.pem")?;
//! let mut config = SensorConfig::new("https://vigie.example:8443", ca, "/var/lib/vigie-sensor");
//! config.enrolment_key = Some("…".to_owned());
//! let sensor = Sensor::start(config).await?;
//! println!("{:?}", sensor.status());
//! sensor.shutdown().await;
//! # Ok(()) }
//! ```

pub mod client;
mod collector;
pub mod command_line;
mod confinement;
mod disk;
pub mod identity;
pub mod link;
mod lost;
mod machine;
mod offline;
pub mod orders;
pub mod process;
mod reporter;
pub mod rows;
mod sources;
mod spool;
mod state;
mod tamper;
mod uplink;

pub use collector::encode;
pub use offline::{
    StoredStatus, enrol, quarantined, release_isolation, restore_quarantined, stored_status,
};

use anyhow::Context as _;
use client::Client;
use ipnet::IpNet;
use link::Link;
use lost::Lost;
use orders::Journal;
use orders::executor::Executor;
use orders::isolation::Isolation;
use orders::policy::Policy;
use orders::quarantine::Quarantine;
use orders::receiver::Receiver;
use orders::restriction::{Restriction, Surroundings};
use parking_lot::Mutex;
use process::Processes;
use reporter::Reporter;
use serde::Serialize;
use spool::Spool;
use state::State;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use tamper::Running;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uplink::Uplink;
use uuid::Uuid;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::{IsolationType, Provider};

/// How a sensor is to run.
#[derive(Clone, Debug)]
pub struct SensorConfig {
    /// Like `https://vigie.example:8443`.
    pub server_url: String,
    /// The only certificate authorities that are trusted, as PEM text.
    pub ca_pem: String,
    /// Keys, spool and journal of orders; one sensor a folder.
    pub state_dir: PathBuf,
    /// Needed until the sensor has enrolled; afterwards only when the server no longer knows it.
    pub enrolment_key: Option<String>,
    /// Whether orders that change the machine are carried out at all.
    pub allow_response: bool,
    /// Folders whose files are watched, with everything below.
    pub watched_folders: Vec<PathBuf>,
    /// Networks that stay reachable under selective isolation.
    pub isolation_allow: Vec<IpNet>,
    /// Bounds of responses, see [`orders::policy::Policy`]; `policy.json` of the state folder, if it
    /// exists, where no file is named.
    pub policy_file: Option<PathBuf>,
    pub tags: Vec<String>,
    /// In place of the id made from `/etc/machine-id`; 40 hexadecimal digits.
    pub installation_id: Option<String>,
    /// Bound of the spool on disk, in bytes.
    pub spool_bytes: u64,
    pub clock: Clock,
}

impl SensorConfig {
    /// A configuration with defaults: no responses, no watched folders, 256 MiB of spool.
    pub fn new(
        server_url: impl Into<String>,
        ca_pem: impl Into<String>,
        state_dir: impl Into<PathBuf>,
    ) -> SensorConfig {
        SensorConfig {
            server_url: server_url.into(),
            ca_pem: ca_pem.into(),
            state_dir: state_dir.into(),
            enrolment_key: None,
            allow_response: false,
            watched_folders: Vec::new(),
            isolation_allow: Vec::new(),
            policy_file: None,
            tags: Vec::new(),
            installation_id: None,
            spool_bytes: 256 * 1024 * 1024,
            clock: Clock::default(),
        }
    }

    /// Folders of this machine where changes tell something and are few: configuration, programs
    /// that were installed by hand, what starts by itself, keys, memory file systems.
    pub fn usual_folders() -> Vec<PathBuf> {
        let system = [
            "/etc",
            "/usr/local/bin",
            "/usr/local/sbin",
            "/var/spool/cron",
            "/dev/shm",
            "/var/www",
        ];
        let personal = [".ssh", ".config/autostart", ".config/systemd", ".local/bin"];
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let personal = personal.iter().filter_map(|name| Some(home.as_ref()?.join(name)));
        let all = system.iter().map(PathBuf::from).chain(personal);
        all.filter(|folder| folder.is_dir()).collect()
    }

    fn installation_id(&self) -> anyhow::Result<String> {
        match &self.installation_id {
            Some(id) => Ok(id.clone()),
            None => identity::installation_id(),
        }
    }
}

/// Why a sensor did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("another sensor uses the state folder {0}; stop it or give another folder")]
    StateFolderInUse(PathBuf),
    #[error("this sensor has not enrolled yet; give the tenant's enrolment key")]
    NotEnrolled,
    #[error("this machine was offboarded; enrol it again (`sensor enrol`) to make it known anew")]
    Offboarded,
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// What a sensor is doing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SensorStatus {
    pub tenant_id: Option<Uuid>,
    /// Set once enrolled.
    pub machine_id: Option<String>,
    /// Whether the last call reached the server.
    pub connected: bool,
    /// Why the last call failed.
    pub last_error: Option<String>,
    /// Sources of telemetry in use, with the reason where a better one is missing.
    pub providers: Vec<Provider>,
    pub response_allowed: bool,
    pub isolation: Option<IsolationType>,
    /// Whether only programs of installed packages may start.
    pub execution_restricted: bool,
    /// Batches that the server has not acknowledged yet.
    pub spooled_batches: usize,
    /// Events lost since start, by source.
    pub lost_events: BTreeMap<String, u64>,
    pub known_processes: usize,
}

/// Starts sensors.
pub struct Sensor;

impl Sensor {
    /// Starts a sensor on the caller's runtime. An isolation in force is put back first. The server
    /// need not be reachable: enrolment and sending are tried until they succeed.
    pub async fn start(config: SensorConfig) -> Result<SensorHandle, StartError> {
        disk::make_private_folder(&config.state_dir)?;
        let lock = lock_state_folder(&config.state_dir)?;
        if identity::is_offboarded(&config.state_dir) {
            // To the end, should the sensor have been killed on the way.
            identity::forget(&config.state_dir)?;
            return Err(StartError::Offboarded);
        }
        let journal = Journal::open(&config.state_dir)?;
        if matches!(journal.offboarding(), Some((_, true))) {
            // The server knows; the sensor was killed before it forgot.
            identity::forget(&config.state_dir)?;
            return Err(StartError::Offboarded);
        }
        let policy = Policy::load(config.policy_file.as_deref(), &config.state_dir)?;
        let isolation =
            Isolation::new(&config.state_dir, &config.server_url, config.isolation_allow.clone())?;
        let isolation = Arc::new(isolation);
        let reapplied = tokio::task::spawn_blocking({
            let isolation = isolation.clone();
            move || isolation.reapply()
        });
        reapplied.await.context("the isolation task failed")??;

        let enrolled = identity::load_enrolment(&config.state_dir)?;
        if enrolled.is_none() && config.enrolment_key.is_none() {
            return Err(StartError::NotEnrolled);
        }
        let client = Client::new(&config.server_url, &config.ca_pem)?;
        let key = identity::load_or_create_key(&config.state_dir)?;
        let link = Arc::new(Link::new(client, key, config.clock.clone(), enrolled));
        let spool = Spool::open(&config.state_dir.join("spool"), config.spool_bytes)?;
        SensorHandle::start(config, policy, lock, isolation, link, spool, journal)
            .map_err(Into::into)
    }
}

fn lock_state_folder(state_dir: &Path) -> Result<File, StartError> {
    let path = state_dir.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(StartError::StateFolderInUse(state_dir.to_owned()))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(anyhow::Error::from(error).context(path.display().to_string()).into())
        }
    }
}

/// A running sensor. Dropping it stops the sensor without waiting.
pub struct SensorHandle {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    sources: Option<sources::Running>,
    collector: Option<std::thread::JoinHandle<()>>,
    link: Arc<Link>,
    spool: Arc<Mutex<Spool>>,
    lost: Arc<Lost>,
    state: Arc<State>,
    isolation: Arc<Isolation>,
    /// Taken at the end: it writes rows, and the collector ends with the last who does.
    restriction: Option<Arc<Restriction>>,
    processes: Arc<Processes>,
    providers: Arc<Vec<Provider>>,
    allow_response: bool,
    running: Running,
    /// Held while the sensor runs.
    _lock: File,
}

impl SensorHandle {
    fn start(
        mut config: SensorConfig,
        policy: Policy,
        lock: File,
        isolation: Arc<Isolation>,
        link: Arc<Link>,
        spool: Spool,
        journal: Journal,
    ) -> anyhow::Result<SensorHandle> {
        let offboarding = journal.offboarding().map(|(id, _)| id);
        if offboarding.is_some() {
            // It is on its way out: it must not make itself known anew.
            config.enrolment_key = None;
        }
        let stop = CancellationToken::new();
        let lost = Arc::new(Lost::default());
        let state = Arc::new(State::default());
        let spool = Arc::new(Mutex::new(spool));
        let appended = Arc::new(Notify::new());
        let changed = Arc::new(Notify::new());
        let facts = machine::facts();
        let processes = Arc::new(Processes::new(&config.clock, facts.host.clone()));

        let (queue, rows) = sync_channel(rows::QUEUE_ROWS);
        let sink = rows::Sink::new(queue, lost.clone());
        let collector = std::thread::Builder::new().name("vigie-spool".to_owned()).spawn({
            let (spool, appended, lost) = (spool.clone(), appended.clone(), lost.clone());
            move || collector::run(rows, spool, appended, lost)
        })?;
        let (policy, clock) = (Arc::new(policy), config.clock.clone());
        let surroundings = Surroundings {
            policy: policy.clone(),
            processes: processes.clone(),
            sink: sink.clone(),
            clock: clock.clone(),
        };
        let restriction = Arc::new(Restriction::new(&config.state_dir, surroundings));
        restriction.reapply()?;
        let url = reqwest::Url::parse(&config.server_url)?;
        let sources = sources::start(&sources::Context {
            clock: config.clock.clone(),
            sink: sink.clone(),
            processes: processes.clone(),
            stop: stop.clone(),
            watched_folders: config.watched_folders.clone(),
            own_folder: config.state_dir.clone(),
            server_port: url.port_or_known_default().unwrap_or(443),
        });
        let providers = Arc::new(sources.providers.clone());

        let quarantine = Quarantine::new(&config.state_dir)?;
        quarantine.vault.sweep()?;
        let executor = Arc::new(Executor {
            allow_response: config.allow_response,
            policy,
            state_dir: config.state_dir.clone(),
            isolation: isolation.clone(),
            restriction: restriction.clone(),
            quarantine: Arc::new(quarantine),
            processes: processes.clone(),
            sink: sink.clone(),
            clock,
            stop: stop.clone(),
            offboarding: Mutex::new(offboarding),
        });
        executor.clear_work(&journal.unfinished());
        let receiver = Receiver {
            link: link.clone(),
            executor,
            journal: Mutex::new(journal),
            state: state.clone(),
            clock: config.clock.clone(),
            stop: stop.clone(),
            changed: changed.clone(),
            ended: Notify::new(),
            running: Mutex::default(),
            lanes: Mutex::default(),
            tasks: TaskTracker::new(),
            refused: Mutex::default(),
            untold: Mutex::default(),
        };
        let uplink = Uplink {
            link: link.clone(),
            spool: spool.clone(),
            appended,
            lost: lost.clone(),
            state: state.clone(),
            stop: stop.clone(),
        };
        let running = Running::begin(&config.state_dir, &config.clock, &sink)?;
        let allow_response = config.allow_response;
        let reporter = Reporter {
            config,
            facts,
            link: link.clone(),
            sink,
            processes: processes.clone(),
            isolation: isolation.clone(),
            restriction: restriction.clone(),
            providers: providers.clone(),
            lost: lost.clone(),
            spool: spool.clone(),
            state: state.clone(),
            stop: stop.clone(),
            changed,
        };
        let tasks = vec![tokio::spawn(async move {
            // Nothing can be sent before the server knows this machine.
            if reporter.enrol().await {
                tokio::join!(reporter.run(), uplink.run(), receiver.run());
            }
        })];
        Ok(SensorHandle {
            stop,
            tasks,
            sources: Some(sources),
            collector: Some(collector),
            link,
            spool,
            lost,
            state,
            isolation,
            restriction: Some(restriction),
            processes,
            providers,
            allow_response,
            running,
            _lock: lock,
        })
    }

    pub fn status(&self) -> SensorStatus {
        let enrolled = self.link.enrolled();
        let connection = self.state.connection();
        let spool = self.spool.lock();
        let mut lost_events = self.lost.counts();
        if spool.dropped_events() > 0 {
            lost_events.insert("spool".to_owned(), spool.dropped_events());
        }
        SensorStatus {
            tenant_id: enrolled.as_ref().map(|enrolled| enrolled.tenant_id),
            machine_id: enrolled.map(|enrolled| enrolled.machine_id),
            connected: connection.connected,
            last_error: connection.last_error,
            providers: self.providers.to_vec(),
            response_allowed: self.allow_response,
            isolation: self.isolation.current(),
            execution_restricted: (self.restriction.as_ref())
                .is_some_and(|restriction| restriction.is_in_force()),
            spooled_batches: spool.waiting(),
            lost_events,
            known_processes: self.processes.count(),
        }
    }

    /// Returns when the sensor ends by itself: after it was offboarded.
    pub async fn ended(&self) {
        self.stop.cancelled().await;
    }

    /// Stops all sources and loops; events not yet sent stay in the spool for the next start, and
    /// orders under way go on then. An isolation stays in force, a restriction of code execution does
    /// not: nobody would answer the kernel.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        let (sources, collector) = (self.sources.take(), self.collector.take());
        let restriction = self.restriction.take();
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(restriction) = restriction {
                restriction.pause();
            }
            if let Some(sources) = sources {
                sources.join();
            }
            // Ends when the last source has dropped its end of the queue.
            if let Some(collector) = collector {
                let _ = collector.join();
            }
        })
        .await;
        self.running.end();
    }
}

impl Drop for SensorHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
