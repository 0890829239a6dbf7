//! Sources of telemetry. For each kind of event the best one that works here is taken, and why no
//! better one does is reported. A source runs on its own thread, because what it waits for (netlink,
//! fanotify, `/proc`) blocks, and ends within [`TICK`] of [`Context::stop`].
//!
//! | kind | best first |
//! |---|---|
//! | process | proc connector (root), polling of `/proc` (misses programs that live for milliseconds) |
//! | network | sock_diag; sockets of other users have their process only with root |
//! | file | fanotify (root), inotify (without the process) |
//! | logon | audit multicast (root), `wtmp` |

mod audit;
mod fanotify;
mod files;
mod inotify;
mod logons;
pub mod netlink;
mod network;
pub mod proc_connector;
mod proc_polling;
pub mod sock_diag;
pub mod utmp;

pub use network::ip_type;

use crate::process::Processes;
use crate::rows::Sink;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vigie_contract::clock::Clock;
use vigie_contract::sensor::Provider;

/// Blocking waits are at most this long, so that a source notices its end.
pub const TICK: Duration = Duration::from_millis(500);

/// What every source needs.
#[derive(Clone)]
pub struct Context {
    pub clock: Clock,
    pub sink: Sink,
    pub processes: Arc<Processes>,
    pub stop: CancellationToken,
    /// Folders whose files are watched, with everything below.
    pub watched_folders: Vec<PathBuf>,
    /// The sensor's own files, watched where other folders are.
    pub own_folder: PathBuf,
    /// The server's port, to tell the sensor's own connections.
    pub server_port: u16,
}

/// The sources that run.
pub struct Running {
    pub providers: Vec<Provider>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits for all sources; call after cancelling [`Context::stop`].
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a source of telemetry ended by a panic");
            }
        }
    }

    fn provider(&mut self, source: &str, provider: &str, reason: impl Into<String>) {
        let (source, provider, reason) = (source.to_owned(), provider.to_owned(), reason.into());
        tracing::info!(source, provider, reason, "telemetry source");
        self.providers.push(Provider { source, provider, reason });
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) {
        match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => tracing::error!(name, %error, "cannot start a source's thread"),
        }
    }
}

/// Starts the best working source of each kind.
pub fn start(context: &Context) -> Running {
    let mut running = Running { providers: Vec::new(), threads: Vec::new() };
    start_process(context, &mut running);
    start_network(context, &mut running);
    start_file(context, &mut running);
    start_logon(context, &mut running);
    running
}

fn start_process(context: &Context, running: &mut Running) {
    // Opened before the processes are read, so that none falls in between.
    let connector = proc_connector::Connector::open();
    context.processes.read_all();
    let context = context.clone();
    match connector {
        Ok(connector) => {
            running.provider("process", "proc-connector", "");
            let (images, resolver) = proc_connector::pipeline(context, connector);
            running.spawn("vigie-exec", images);
            running.spawn("vigie-process", resolver);
        }
        Err(reason) => {
            running.provider("process", "proc-polling", format!("proc-connector: {reason}"));
            running.spawn("vigie-process", move || proc_polling::run(&context));
        }
    }
}

fn start_network(context: &Context, running: &mut Running) {
    match sock_diag::Sockets::open() {
        Ok(sockets) => {
            let reason = if rustix::process::geteuid().is_root() {
                ""
            } else {
                "not root: the processes of other users' sockets are not known"
            };
            running.provider("network", "sock-diag", reason);
            let context = context.clone();
            running.spawn("vigie-network", move || network::run(&context, sockets));
        }
        Err(error) => running.provider("network", "none", format!("sock-diag: {error}")),
    }
}

fn start_file(context: &Context, running: &mut Running) {
    if context.watched_folders.is_empty() {
        running.provider("file", "none", "no folder is configured to be watched");
        return;
    }
    let context = context.clone();
    let own = std::slice::from_ref(&context.own_folder);
    match fanotify::Watch::open(&[&context.watched_folders, own].concat()) {
        Ok(watch) => {
            running.provider("file", "fanotify", "");
            running.spawn("vigie-file", move || watch.run(&context));
        }
        Err(reason) => match inotify::Watch::open(&context.watched_folders) {
            Ok(watch) => {
                running.provider("file", "inotify", format!("fanotify: {reason}"));
                running.spawn("vigie-file", move || watch.run(&context));
            }
            Err(second) => {
                running.provider("file", "none", format!("fanotify: {reason}; inotify: {second}"));
            }
        },
    }
}

fn start_logon(context: &Context, running: &mut Running) {
    let context = context.clone();
    match audit::Listener::open() {
        Ok(listener) => {
            running.provider("logon", "audit", "");
            running.spawn("vigie-logon", move || listener.run(&context));
        }
        Err(reason) => {
            running.provider("logon", "wtmp", format!("audit: {reason}"));
            running.spawn("vigie-logon", move || logons::run(&context));
        }
    }
}

/// What has no column of its own.
fn additional_fields(image: &crate::process::Image, complete: bool) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    if !image.current_directory.is_empty() {
        fields.insert("CurrentDirectory".to_owned(), image.current_directory.clone().into());
    }
    if let Some(uid) = image.login_uid {
        fields.insert("LoginUid".to_owned(), uid.into());
    }
    if image.effective_uid != image.uid {
        fields.insert("EffectiveUid".to_owned(), image.effective_uid.into());
    }
    if !complete {
        fields.insert("Incomplete".to_owned(), true.into());
    }
    fields.into()
}
