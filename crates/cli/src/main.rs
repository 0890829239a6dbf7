//! The program `vigie`: server, administration, client and offline hunting.

mod admin;
mod api;
mod application;
mod detection;
mod document;
mod folder;
mod function;
mod hunt;
mod import;
mod lab;
mod logging;
mod output;
mod resources;
mod tenant;
mod up;
mod user;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Queries take and give back memory all the time; the system's allocator gives its pages back each
/// time and faults them in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An open endpoint-security platform, compatible with Microsoft Defender for Endpoint.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    logging: logging::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on embedded defaults: identity, API, event lake and this machine's sensor
    Up(up::UpOptions),
    /// Start the server alone
    Serve(up::ServeOptions),
    /// Create, list and show tenants
    Tenant(tenant::TenantOptions),
    /// Register applications, grant permissions, manage secrets
    App(application::AppOptions),
    /// Create and list users
    User(user::UserOptions),
    /// Bring tenants to the state that a file describes; running it again changes nothing
    Apply(document::ApplyOptions),
    /// Write tenants as a file that `apply` reads
    Export(document::ExportOptions),
    /// Read recordings into the hunting tables
    Import(import::ImportOptions),
    /// Run a KQL query on the server or, with --data, on a data folder without any server
    Hunt(hunt::HuntOptions),
    /// Add simulated machines that report, play scenarios and carry out orders
    Lab(lab::LabOptions),
    /// Run this machine's sensor against a server, here or elsewhere
    Sensor(vigie_sensor::command_line::SensorOptions),
    /// List, show, tag, isolate and release machines
    Machines(resources::MachinesOptions),
    /// List, show and update alerts
    Alerts(resources::AlertsOptions),
    /// List and show machine actions
    Actions(resources::ActionsOptions),
    /// Custom detections: rules in KQL that raise alerts
    Detection(detection::DetectionOptions),
    /// Saved functions: queries that other queries call by name
    Function(function::FunctionOptions),
    /// Print an access token for the API
    Token(api::TokenOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = cli.logging.start() {
        eprintln!("vigie: {error:#}");
        return ExitCode::from(2);
    }
    // One provider for the process: more than one TLS library feature may be compiled in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vigie: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigie: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::up(options).await,
        Command::Serve(options) => up::serve(options).await,
        Command::Tenant(options) => tenant::run(options).await,
        Command::App(options) => application::run(options).await,
        Command::User(options) => user::run(options).await,
        Command::Apply(options) => document::apply(options).await,
        Command::Export(options) => document::export(options).await,
        Command::Import(options) => import::run(options).await,
        Command::Hunt(options) => hunt::run(options).await,
        Command::Lab(options) => lab::run(options).await,
        Command::Sensor(options) => vigie_sensor::command_line::execute(options).await,
        Command::Machines(options) => resources::machines(options).await,
        Command::Alerts(options) => resources::alerts(options).await,
        Command::Actions(options) => resources::actions(options).await,
        Command::Detection(options) => detection::run(options).await,
        Command::Function(options) => function::run(options).await,
        Command::Token(options) => api::token(options).await,
    }
}
