//! The sensor's commands, for the program `vigie-sensor` and for `vigie sensor`.

use crate::{Sensor, SensorConfig};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use std::path::PathBuf;

/// A command and the folder it works on.
#[derive(Args)]
pub struct SensorOptions {
    #[command(subcommand)]
    command: Command,
    /// Folder of the sensor's key, spool and journal
    #[arg(
        long,
        global = true,
        env = "VIGIE_SENSOR_STATE",
        default_value = "/var/lib/vigie-sensor"
    )]
    state_dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run until stopped; enrols first if need be
    Run(RunOptions),
    /// Enrol this machine and end
    Enrol(ServerOptions),
    /// Print what stands in the state folder, as JSON; the sensor need not run
    Status,
    /// Release a network isolation without the server's order (needs root)
    Release,
    /// List the files in quarantine, as JSON
    Quarantine,
    /// Put a file back out of quarantine, with its owner, mode and times
    Restore {
        /// Its id, or the beginning of it
        id: String,
        /// Another place for it
        #[arg(long)]
        to: Option<PathBuf>,
    },
}

#[derive(Args)]
struct ServerOptions {
    /// The server's address, like https://vigie.example:8443
    #[arg(long, env = "VIGIE_SERVER")]
    server: String,
    /// PEM file of the server's certificate authority, the only one that is trusted
    #[arg(long, env = "VIGIE_CA")]
    ca: PathBuf,
    /// The tenant's enrolment key; needed until the machine has enrolled
    #[arg(long, env = "VIGIE_ENROLMENT_KEY", hide_env_values = true)]
    enrolment_key: Option<String>,
    /// Id of this installation in place of the one made from /etc/machine-id (40 hex digits)
    #[arg(long, env = "VIGIE_INSTALLATION_ID")]
    installation_id: Option<String>,
    /// A tag of this machine; may be given several times
    #[arg(long = "tag", env = "VIGIE_TAGS", value_delimiter = ',')]
    tags: Vec<String>,
}

#[derive(Args)]
struct RunOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// Carry out response actions: isolation, restriction, quarantine, scans, live response …
    #[arg(long, env = "VIGIE_ALLOW_RESPONSE")]
    allow_response: bool,
    /// JSON file that bounds response actions [default: policy.json in the state folder, if any]
    #[arg(long, env = "VIGIE_POLICY")]
    policy: Option<PathBuf>,
    /// A folder whose files are watched with everything below; may be given several times. Without
    /// any, the usual ones: configuration, programs installed by hand, what starts by itself
    #[arg(long = "watch", env = "VIGIE_WATCH", value_delimiter = ':')]
    watched_folders: Vec<PathBuf>,
    /// A network that stays reachable under selective isolation; may be given several times
    #[arg(long = "isolation-allow", env = "VIGIE_ISOLATION_ALLOW", value_delimiter = ',')]
    isolation_allow: Vec<IpNet>,
    /// Bound of the spool on disk, in MiB
    #[arg(long, env = "VIGIE_SPOOL_MIB", default_value_t = 256)]
    spool_mib: u64,
}

impl ServerOptions {
    fn config(self, state_dir: PathBuf) -> Result<SensorConfig> {
        let ca = std::fs::read_to_string(&self.ca)
            .with_context(|| format!("cannot read the server's CA {}", self.ca.display()))?;
        let mut config = SensorConfig::new(self.server, ca, state_dir);
        config.enrolment_key = self.enrolment_key;
        config.installation_id = self.installation_id;
        config.tags = self.tags;
        Ok(config)
    }
}

/// Does what the command says; `run` returns when the process is asked to end.
pub async fn execute(options: SensorOptions) -> Result<()> {
    let state_dir = options.state_dir;
    match options.command {
        Command::Run(run) => {
            let mut config = run.server.config(state_dir)?;
            config.allow_response = run.allow_response;
            config.policy_file = run.policy;
            config.watched_folders = match run.watched_folders.is_empty() {
                true => SensorConfig::usual_folders(),
                false => run.watched_folders,
            };
            config.isolation_allow = run.isolation_allow;
            config.spool_bytes = run.spool_mib * 1024 * 1024;
            run_until_stopped(config).await
        }
        Command::Enrol(server) => {
            let enrolled = crate::enrol(server.config(state_dir)?).await?;
            println!(
                "enrolled as machine {} of tenant {}",
                enrolled.machine_id, enrolled.tenant_id
            );
            Ok(())
        }
        Command::Status => {
            let status = crate::stored_status(&state_dir)?;
            println!("{}", serde_json::to_string_pretty(&status)?);
            Ok(())
        }
        Command::Release => {
            crate::release_isolation(&state_dir)?;
            println!("the network is open");
            Ok(())
        }
        Command::Quarantine => {
            let all = crate::quarantined(&state_dir)?;
            println!("{}", serde_json::to_string_pretty(&all)?);
            Ok(())
        }
        Command::Restore { id, to } => {
            let path = crate::restore_quarantined(&state_dir, &id, to.as_deref())?;
            println!("restored {}", path.display());
            Ok(())
        }
    }
}

async fn run_until_stopped(config: SensorConfig) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let sensor = Sensor::start(config).await?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminated.recv() => {}
        () = sensor.ended() => {}
    }
    tracing::info!("stopping");
    sensor.shutdown().await;
    Ok(())
}
