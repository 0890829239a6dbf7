//! Where log lines go and how they look.

use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub struct Options {
    /// Form of log lines on standard error; RUST_LOG chooses what is logged
    #[arg(long, value_enum, default_value_t = Form::Text, global = true, env = "VIGIE_LOG")]
    log: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Options {
    /// Starts logging for the process.
    pub fn start(&self) -> anyhow::Result<()> {
        let filter = match std::env::var("RUST_LOG") {
            Ok(text) => EnvFilter::try_new(&text)
                .map_err(|error| anyhow::anyhow!("RUST_LOG={text}: {error}"))?,
            Err(_) => EnvFilter::new("warn,vigie=info"),
        };
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log {
            Form::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
            Form::Json => log.json().flatten_event(true).init(),
        }
        Ok(())
    }
}
