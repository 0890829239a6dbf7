//! `vigie up` and `vigie serve`

use crate::folder::{FolderOptions, Local};
use crate::{admin, document};
use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vigie_client::{Client, Credentials, Endpoints};
use vigie_contract::administration::Tenant;
use vigie_contract::clock::Clock;
use vigie_lab::{Lab, LabConfig, LabHandle};
use vigie_sensor::{Sensor, SensorConfig, SensorHandle, StartError};
use vigie_server::{FirstStart, Server, ServerConfig};

#[derive(Args)]
pub struct ServeOptions {
    #[command(flatten)]
    folder: FolderOptions,
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:8443", env = "VIGIE_LISTEN")]
    listen: SocketAddr,
    /// A further address and port to listen on; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    also_listen: Vec<SocketAddr>,
    /// A name or address of the server for its certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Address by which clients reach the server, such as https://vigie.example [default: that of
    /// --listen]
    #[arg(long, value_name = "URL", env = "VIGIE_PUBLIC_URL")]
    public_url: Option<String>,
    /// PostgreSQL URL [default: SQLite in the data folder]
    #[arg(long, env = "VIGIE_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// 64 hexadecimal digits [default: a file in the data folder]
    #[arg(long, env = "VIGIE_MASTER_KEY", hide_env_values = true)]
    master_key: Option<String>,
    /// Let tenants hunt without measure: as many calls and as long as they like
    #[arg(long, env = "VIGIE_NO_QUOTAS")]
    no_quotas: bool,
    /// Folder, or beginning of an http(s) address, that queries may read with externaldata
    #[arg(long, value_name = "SOURCE", env = "VIGIE_ALLOW_EXTERNAL", value_delimiter = ',')]
    allow_external: Vec<String>,
    /// Bring tenants to the state that a file describes, once started
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
}

#[derive(Args)]
pub struct UpOptions {
    #[command(flatten)]
    serve: ServeOptions,
    /// Simulated machines to add
    #[arg(long, value_name = "MACHINES", default_value_t = 0)]
    lab: usize,
    /// Let the sensor carry out response actions such as isolation on this machine
    #[arg(long)]
    allow_response: bool,
    /// JSON file that bounds response actions on this machine (docs/actions/README.md)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A folder whose files this machine's sensor watches; may be given several times [default:
    /// configuration, programs installed by hand, what starts by itself]
    #[arg(long, value_name = "DIR")]
    watch: Vec<PathBuf>,
    /// Start no sensor for this machine
    #[arg(long)]
    no_sensor: bool,
}

/// `vigie serve`
pub async fn serve(options: ServeOptions) -> Result<()> {
    let running = start(&options).await?;
    let interrupts = Interrupts::listen()?;
    running.welcome(None);
    interrupts.wait().await;
    println!("stopping");
    running.server.handle().shutdown().await;
    Ok(())
}

/// `vigie up`
pub async fn up(options: UpOptions) -> Result<()> {
    let running = start(&options.serve).await?;
    let sensor = match options.no_sensor {
        true => None,
        false => start_sensor(&running, &options).await?,
    };
    let labs = start_labs(&running, options.lab).await?;
    let interrupts = Interrupts::listen()?;
    running.welcome(sensor.as_ref());
    interrupts.wait().await;
    println!("stopping");
    for lab in labs {
        lab.shutdown().await;
    }
    // The server ends after the sensor, so that the last events arrive.
    if let Some(sensor) = sensor {
        sensor.shutdown().await;
    }
    running.server.handle().shutdown().await;
    Ok(())
}

/// Ctrl-C and SIGTERM, noticed from the moment this is made.
///
/// Made before anything says that Ctrl-C stops: whoever read that may press it at once.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub fn listen() -> std::io::Result<Interrupts> {
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns at the first of them.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A server that has started, and how to reach it.
struct Running {
    server: Server,
    folder: PathBuf,
    url: String,
    local: Local,
    ca_pem: String,
}

async fn start(options: &ServeOptions) -> Result<Running> {
    let folder = options.folder.path()?;
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message(format!("opening {}", folder.display()));
    let document = options.apply.as_deref().map(document::read).transpose()?;
    let server = Server::start(ServerConfig {
        data: folder.clone(),
        listen: options.listen,
        also_listen: options.also_listen.clone(),
        names: options.name.clone(),
        public_url: options.public_url.clone(),
        database: options.database.clone(),
        master_key: options.master_key.clone(),
        quotas: !options.no_quotas,
        external: options.allow_external.clone(),
        clock: Clock::default(),
    })
    .await;
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            spinner.finish_and_clear();
            return Err(error.into());
        }
    };
    // What listens on every address is reached on this machine by its own.
    let mut address = server.address();
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = format!("https://{address}");
    let ca_file = server.ca_path().to_owned();
    let local = match server.first_start() {
        Some(first) => Local {
            url: url.clone(),
            ca_file: ca_file.clone(),
            tenant: first.tenant.to_string(),
            client_id: first.administration_app_id.to_string(),
            client_secret: first.administration_secret.clone(),
        },
        None if Local::exists(&folder) => {
            let earlier = Local::read(&folder)?;
            Local { url: url.clone(), ca_file: ca_file.clone(), ..earlier }
        }
        // The first start was cut off before it wrote the file, or the database is another's.
        None => {
            let renewed = server.renew_administration().await?;
            Local {
                url: url.clone(),
                ca_file: ca_file.clone(),
                tenant: renewed.tenant.to_string(),
                client_id: renewed.app_id.to_string(),
                client_secret: renewed.secret,
            }
        }
    };
    local.write(&folder)?;
    let ca_pem = read(&ca_file)?;
    let running = Running { server, folder, url, local, ca_pem };
    spinner.finish_and_clear();
    if let Some(document) = document {
        document::apply_document(&running.administration()?, &document).await?;
    }
    Ok(running)
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

impl Running {
    fn administration(&self) -> Result<Client> {
        let endpoints = Endpoints {
            api: self.url.parse()?,
            authority: self.url.parse()?,
            ca_pem: Some(self.ca_pem.clone()),
        };
        let credentials = Credentials {
            tenant: self.local.tenant.clone(),
            client_id: self.local.client_id.clone(),
            client_secret: self.local.client_secret.clone(),
            scope: format!("{}/.default", vigie_contract::administration::RESOURCE),
        };
        Ok(Client::new(&endpoints, credentials)?)
    }

    async fn enrolment_key(&self, tenant: &str) -> Result<String> {
        if let Some(first) = self.server.first_start()
            && tenant == self.local.tenant
        {
            return Ok(first.enrolment_key.clone());
        }
        let path = format!("/admin/v1/tenants/{tenant}/enrolmentkeys");
        let new = vigie_contract::administration::NewEnrolmentKey::default();
        let client = self.administration()?;
        let key: vigie_contract::administration::EnrolmentKey =
            admin::send(&client, reqwest::Method::POST, &path, &new).await?;
        Ok(key.enrolment_key)
    }

    /// What a person needs next.
    fn welcome(&self, sensor: Option<&SensorHandle>) {
        let url = &self.url;
        println!("Vigie runs on {url}");
        println!("  data folder  {}", self.folder.display());
        println!("  certificate  {}", self.local.ca_file.display());
        println!("  tenant       {}", self.local.tenant);
        if let Some(first) = self.server.first_start() {
            println!("  domain       {}", first.domain);
        }
        if let Some(sensor) = sensor {
            let status = sensor.status();
            println!("\nSensor of this machine:");
            for provider in &status.providers {
                let reason = match provider.reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                println!("  {:<12} {}{reason}", provider.source, provider.provider);
            }
            if !status.response_allowed {
                println!("  {:<12} refused on this machine (see --allow-response)", "responses");
            }
        }
        if let Some(first) = self.server.first_start() {
            self.welcome_first(first);
        }
        println!("\nCtrl-C stops.");
    }

    fn welcome_first(&self, first: &FirstStart) {
        let (url, tenant) = (&self.url, &first.tenant);
        let ca = self.local.ca_file.display();
        println!(
            "\nAn application that may read, hunt, raise alerts and order responses. Its secret is shown"
        );
        println!("now and never again:");
        println!("  application  {}", first.app_id);
        println!("  secret       {}", first.app_secret);
        println!("\nA user:");
        println!("  name         {}", first.user);
        println!("  password     {}", first.password);
        println!("\nClients have to trust the certificate, for example by");
        println!("  export CURL_CA_BUNDLE={ca} REQUESTS_CA_BUNDLE={ca}");
        println!("\nThree commands to begin with:");
        println!(
            "  TOKEN=$(curl -s --cacert {ca} {url}/{tenant}/oauth2/v2.0/token -d \
             grant_type=client_credentials -d client_id={} -d client_secret={} -d \
             scope=https://api.securitycenter.microsoft.com/.default | sed \
             's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')",
            first.app_id, first.app_secret
        );
        println!("  curl -s --cacert {ca} -H \"Authorization: Bearer $TOKEN\" {url}/api/machines");
        println!(
            "  curl -s --cacert {ca} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: \
             application/json' {url}/api/advancedqueries/run -d '{{\"Query\": \"DeviceProcessEvents \
             | project Timestamp, FileName, ProcessCommandLine | top 10 by Timestamp\"}}'"
        );
    }
}

/// `None` where this machine was offboarded.
async fn start_sensor(running: &Running, options: &UpOptions) -> Result<Option<SensorHandle>> {
    let state = running.folder.join("sensor");
    let mut config = SensorConfig::new(&running.url, &running.ca_pem, &state);
    // A start that was cut short may have left a folder without an enrolment.
    let enrolled = vigie_sensor::stored_status(&state)
        .is_ok_and(|status| status.machine_id.is_some() && running.server.first_start().is_none());
    if !enrolled {
        config.enrolment_key = Some(running.enrolment_key(&running.local.tenant).await?);
    }
    config.allow_response = options.allow_response;
    config.policy_file.clone_from(&options.policy);
    config.watched_folders = match options.watch.is_empty() {
        true => SensorConfig::usual_folders(),
        false => options.watch.clone(),
    };
    match Sensor::start(config).await {
        Ok(sensor) => Ok(Some(sensor)),
        Err(error @ StartError::Offboarded) => {
            eprintln!("no sensor: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The labs that tenants have, and the one asked for on the command line.
async fn start_labs(running: &Running, machines: usize) -> Result<Vec<LabHandle>> {
    let tenants: Vec<Tenant> = admin::list(&running.administration()?, "/admin/v1/tenants")
        .await?
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    let mut labs = Vec::new();
    for tenant in tenants {
        let id = tenant.id.to_string();
        let kept = tenant.lab.map_or(0, |lab| lab.machines as usize);
        let machines = if id == running.local.tenant && machines > 0 { machines } else { kept };
        if machines > 0 {
            let key = running.enrolment_key(&id).await?;
            let config = LabConfig::new(&running.url, &running.ca_pem, key, machines);
            labs.push(Lab::start(config).await?);
        }
    }
    Ok(labs)
}
