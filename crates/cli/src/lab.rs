//! `vigie lab`

use crate::admin;
use crate::api::ApiOptions;
use crate::up::Interrupts;
use anyhow::{Context as _, Result};
use clap::Args;
use vigie_contract::administration::{EnrolmentKey, NewEnrolmentKey};
use vigie_lab::{Lab, LabConfig};

#[derive(Args)]
pub struct LabOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Simulated machines
    #[arg(long, default_value_t = 10)]
    machines: usize,
    /// The same seed makes the same machines and events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of a scenario that pass in one real second
    #[arg(long, default_value_t = 60.0)]
    speed: f64,
}

pub async fn run(options: LabOptions) -> Result<()> {
    let client = options.api.administration()?;
    let path = format!("/admin/v1/tenants/{}/enrolmentkeys", options.api.tenant()?);
    let new = NewEnrolmentKey { display_name: Some("lab".to_owned()), expires: None };
    let key: EnrolmentKey = admin::send(&client, reqwest::Method::POST, &path, &new).await?;
    let (url, ca_pem) = options.api.server()?;
    let ca_pem = ca_pem.context("the lab needs the server's certificate authority: --ca")?;
    let mut config = LabConfig::new(url, ca_pem, key.enrolment_key, options.machines);
    config.seed = options.seed;
    config.speed = options.speed;
    let lab = Lab::start(config).await?;
    let interrupts = Interrupts::listen()?;
    println!("{} machines; Ctrl-C ends the lab", options.machines);
    interrupts.wait().await;
    lab.shutdown().await;
    Ok(())
}
