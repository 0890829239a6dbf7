//! Starting and stopping.

use crate::features::{admin, publish};
use crate::state::State;
use crate::{edge, features, http_server, tls};
use axum::Router;
use axum::extract::Request;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use vigie_contract::administration::{
    NewApplication, NewEnrolmentKey, NewSecret, NewTenant, NewUser,
};
use vigie_contract::clock::Clock;
use vigie_database::Database;
use vigie_hunting::lake::{Lake, LakeConfig, LakeError};
use vigie_hunting::{Engine, EngineConfig, ExternalSources};
use vigie_identity::{Authority, Directory, MasterKey};

/// How a server runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Everything that the server keeps.
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Further addresses and ports: some clients drop the port, others know only the usual one.
    pub also_listen: Vec<SocketAddr>,
    /// Names and addresses of the certificate, besides those of this machine.
    pub names: Vec<String>,
    /// The address by which clients reach the server, for example `https://vigie.example`, which
    /// tokens and discovery name; that of `listen` if missing.
    pub public_url: Option<String>,
    /// A PostgreSQL URL; SQLite in the data folder if missing.
    pub database: Option<String>,
    /// 64 hexadecimal digits; a file in the data folder if missing.
    pub master_key: Option<String>,
    /// Whether tenants may call and hunt only as often as the service's documentation says.
    pub quotas: bool,
    /// Folders and beginnings of addresses that `externaldata` may read.
    pub external: Vec<String>,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{address} is in use by another program; choose another with --listen")]
    PortInUse { address: SocketAddr },
    #[error("{0}; one server at a time can use a data folder, choose another with --data")]
    FolderInUse(LakeError),
    #[error("{}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },
    #[error("the master key must be 64 hexadecimal digits")]
    MasterKey,
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: SocketAddr, reason: String },
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{0}")]
    Other(String),
}

/// What a first start made. Secrets are told here and nowhere again.
#[derive(Clone)]
pub struct FirstStart {
    pub tenant: Uuid,
    pub domain: String,
    pub app_id: Uuid,
    pub app_secret: String,
    pub user: String,
    pub password: String,
    pub administration_app_id: Uuid,
    pub administration_secret: String,
    pub enrolment_key: String,
}

/// Credentials of the administration application.
pub struct Administration {
    pub tenant: Uuid,
    pub app_id: Uuid,
    pub secret: String,
}

/// A running server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    ca: PathBuf,
    first_start: Option<FirstStart>,
    directory: Directory,
    handle: ServerHandle,
}

/// Stops a server.
#[derive(Clone)]
pub struct ServerHandle {
    stop: CancellationToken,
    connections: TaskTracker,
    lake: Lake,
    database: Database,
    directory: Directory,
}

impl Server {
    /// Opens everything and begins to serve.
    pub async fn start(config: ServerConfig) -> Result<Server, StartError> {
        let folder = |path: &Path, error: std::io::Error| StartError::Folder {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(&config.data).map_err(|error| folder(&config.data, error))?;
        // Before anything is opened: a port in use must change nothing.
        let mut listeners = vec![listen(config.listen).await?];
        for address in &config.also_listen {
            listeners.push(listen(*address).await?);
        }
        let addresses: std::io::Result<Vec<SocketAddr>> =
            listeners.iter().map(TcpListener::local_addr).collect();
        let addresses = addresses.map_err(|error| folder(&config.data, error))?;
        let address = addresses[0];
        let lake =
            Lake::open(LakeConfig::new(config.data.join("lake"), config.clock.clone())).await;
        let lake = lake.map_err(|error| match error {
            LakeError::Locked { .. } => StartError::FolderInUse(error),
            other => StartError::Other(other.to_string()),
        })?;
        let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
        let master = |config: &ServerConfig| match &config.master_key {
            Some(key) => MasterKey::from_hex(key).ok_or(StartError::MasterKey),
            None => {
                let path = config.data.join("master.key");
                MasterKey::from_file(&path).map_err(|error| folder(&path, error))
            }
        };
        let database = match &config.database {
            Some(url) => Database::open_url(url).await,
            None => Database::open_file(&config.data.join("state.db")).await,
        };
        let database = database.map_err(|error| other(&error))?;
        let directory =
            Directory::open(database.clone(), master(&config)?, config.clock.clone()).await;
        let directory = directory.map_err(|error| other(&error))?;
        directory.set_authority(Authority::new(&public_url(&config, address), &names(&config)));
        features::migrate(&database).await.map_err(|error| other(&error))?;
        let mut engine = EngineConfig::new(config.clock.clone());
        engine.external = ExternalSources::allow(&config.external)
            .map_err(|reason| StartError::Other(format!("externaldata: {reason}")))?;
        let engine = Engine::new(engine);
        let stop = CancellationToken::new();
        let state = State {
            directory: directory.clone(),
            database: database.clone(),
            lake: lake.clone(),
            engine: engine.map_err(|error| other(&error))?,
            quotas: config.quotas.then(Arc::default),
            clock: config.clock.clone(),
            master: Arc::new(master(&config)?),
            waiting: Arc::default(),
            publish: Arc::default(),
            watchlists: Arc::default(),
            counters: Arc::default(),
            stop: stop.clone(),
        };
        let first_start = first_start(&state).await?;
        let tls = tls::server_config(&config.data, &names(&config)).map_err(StartError::Tls)?;
        let connections = TaskTracker::new();
        connections.spawn(publish(state.clone()));
        connections.spawn(features::detections::run(state.clone()));
        connections.spawn(features::machine_actions::run_deliveries(state.clone()));
        connections.spawn(features::investigations::run(state.clone()));
        let router = router(state);
        let tls = Arc::new(tls);
        for listener in listeners {
            connections.spawn(http_server::serve(
                listener,
                tls.clone(),
                router.clone(),
                stop.clone(),
                connections.clone(),
            ));
        }
        let handle =
            ServerHandle { stop, connections, lake, database, directory: directory.clone() };
        Ok(Server { addresses, ca: tls::ca_path(&config.data), first_start, directory, handle })
    }

    /// Where the server listens; the port is the chosen one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, the main one first.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificate that clients have to trust.
    pub fn ca_path(&self) -> &Path {
        &self.ca
    }

    /// Set when the data folder was new.
    pub fn first_start(&self) -> Option<&FirstStart> {
        self.first_start.as_ref()
    }

    /// A new secret of the administration application, for who holds the data folder and has lost
    /// the old one.
    pub async fn renew_administration(&self) -> Result<Administration, StartError> {
        let renewed = self.directory.renew_administration("start").await;
        let (tenant, app_id, secret) =
            renewed.map_err(|error| StartError::Other(error.to_string()))?;
        Ok(Administration { tenant, app_id, secret })
    }

    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }
}

impl ServerHandle {
    /// Finishes requests under way, at most for ten seconds, and writes everything to disk.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.connections.close();
        let patience = std::time::Duration::from_secs(10);
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            tracing::warn!("some requests did not end and are cut off");
        }
        if let Err(error) = self.lake.close().await {
            tracing::error!(%error, "the lake's log keeps what could not be flushed");
        }
        self.directory.write_pending().await;
        self.database.close().await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::PortInUse { address },
        _ => StartError::Listen { address, reason: error.to_string() },
    })
}

/// The address that tokens and discovery name.
fn public_url(config: &ServerConfig, mut address: SocketAddr) -> String {
    if let Some(url) = &config.public_url {
        return url.clone();
    }
    // What listens on every address is reached on this machine by its own.
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    match address.port() {
        443 => format!("https://{}", address.to_string().trim_end_matches(":443")),
        _ => format!("https://{address}"),
    }
}

/// Names of this machine and those asked for.
fn names(config: &ServerConfig) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if !host.is_empty() {
        names.push(host);
    }
    let listened = std::iter::once(&config.listen).chain(&config.also_listen);
    names.extend(listened.filter(|a| !a.ip().is_unspecified()).map(|a| a.ip().to_string()));
    names.extend(config.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn router(state: State) -> Router {
    let sign_in = vigie_identity::router(state.directory.clone());
    // Behind one pointer: sign-in, which is asked most, needs none of it.
    let state = Arc::new(state);
    let serve = move |request: Request| {
        let (state, sign_in) = (state.clone(), sign_in.clone());
        let whole = move || State::clone(&state);
        async move {
            use tower::ServiceExt as _;
            let mut path = request.uri().path().to_ascii_lowercase();
            // Clients that join an address and a path send slashes twice.
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            if path == "/health" {
                return edge::json(200, &serde_json::json!({"status": "ok"}));
            }
            if path == "/openapi.json" {
                return edge::json(200, &features::openapi::DOCUMENT);
            }
            if path == "/api" || path.starts_with("/api/") {
                return edge::serve(whole(), request).await;
            }
            if path.starts_with("/sensor/v1/") {
                return features::sensors::serve(whole(), request).await;
            }
            if path.starts_with("/exports/v1/") {
                return edge::serve_export(whole(), request).await;
            }
            if path.starts_with("/downloads/v1/") {
                return features::machine_actions::download(whole(), request).await;
            }
            if path.starts_with("/admin/v1") {
                return admin::serve(whole(), request).await;
            }
            match sign_in.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    Router::new().fallback(serve)
}

/// Makes a trial tenant, an application with read permissions, a user and the administration
/// application, where there is no tenant yet.
async fn first_start(state: &State) -> Result<Option<FirstStart>, StartError> {
    let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
    let directory = &state.directory;
    if !directory.tenants().await.map_err(|error| other(&error))?.is_empty() {
        return Ok(None);
    }
    let actor = "first start";
    let made = async {
        let new = NewTenant { display_name: "Vigie trial".to_owned(), ..NewTenant::default() };
        let tenant = directory.create_tenant(actor, &new).await?;
        let administration = directory.create_administration(tenant.id).await?;
        let secret = NewSecret { display_name: Some(actor.to_owned()), ..NewSecret::default() };
        let administration_secret =
            directory.add_secret(actor, tenant.id, administration.app_id, &secret).await?;
        let permissions = [
            "AdvancedQuery.Read.All",
            "Alert.Read.All",
            "Alert.ReadWrite.All",
            "File.Read.All",
            "Ip.Read.All",
            "Library.Manage",
            "Machine.CollectForensics",
            "Machine.Isolate",
            "Machine.LiveResponse",
            "Machine.Read.All",
            "Machine.ReadWrite.All",
            "Machine.RestrictExecution",
            "Machine.Scan",
            "Machine.StopAndQuarantine",
            "Ti.ReadWrite.All",
            "URL.Read.All",
            "User.Read.All",
        ];
        let new = NewApplication {
            display_name: "First application".to_owned(),
            permissions: permissions.map(str::to_owned).to_vec(),
            ..NewApplication::default()
        };
        let application = directory.create_application(actor, tenant.id, &new).await?;
        let app_secret =
            directory.add_secret(actor, tenant.id, application.app_id, &secret).await?;
        let domain = tenant.domains.first().cloned().unwrap_or_default();
        let password = Uuid::new_v4().simple().to_string();
        let user = NewUser {
            user_principal_name: format!("admin@{domain}"),
            display_name: Some("Administrator".to_owned()),
            password: password.clone(),
            roles: vec!["Global Administrator".to_owned()],
            ..NewUser::default()
        };
        let user = directory.create_user(actor, tenant.id, &user).await?;
        Ok::<_, vigie_identity::DirectoryError>(FirstStart {
            tenant: tenant.id,
            domain,
            app_id: application.app_id,
            app_secret: app_secret.secret,
            user: user.user_principal_name,
            password,
            administration_app_id: administration.app_id,
            administration_secret: administration_secret.secret,
            enrolment_key: String::new(),
        })
    };
    let mut made = made.await.map_err(|error| other(&error))?;
    let key =
        NewEnrolmentKey { display_name: Some(actor.to_owned()), ..NewEnrolmentKey::default() };
    let key = admin::new_enrolment_key(state, made.tenant, &key).await;
    made.enrolment_key = key.map_err(|error| StartError::Other(error.message))?.enrolment_key;
    Ok(Some(made))
}
