//! The program `vigie-sensor`: the agent alone.

use clap::{Parser, ValueEnum};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use vigie_sensor::command_line::{SensorOptions, execute};

/// Linux sensor of Vigie: observes this machine and carries out the server's orders.
#[derive(Parser)]
#[command(name = "vigie-sensor", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    sensor: SensorOptions,
    /// Form of the log; RUST_LOG chooses what is logged
    #[arg(long, global = true, env = "VIGIE_LOG", value_enum, default_value = "text")]
    log: LogForm,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log);
    // Two threads: the work is waiting, and memory counts on other people's machines.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // An order of each kind may run, and more than one thread reads for a report.
        .max_blocking_threads(16)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(arguments.sensor)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigie-sensor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match form {
        LogForm::Text => builder.init(),
        LogForm::Json => builder.json().init(),
    }
}
