//! `vigie user`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use vigie_contract::administration::NewUser;

#[derive(Args)]
pub struct UserOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand)]
enum UserCommand {
    List,
    /// Create a user; the password is read from VIGIE_USER_PASSWORD
    Create {
        user_principal_name: String,
        #[arg(long)]
        display_name: Option<String>,
        /// Directory role such as "Security Reader"; may be given several times
        #[arg(long)]
        role: Vec<String>,
    },
    Delete {
        user_principal_name: String,
    },
}

const COLUMNS: &[&str] = &["id", "userPrincipalName", "displayName", "roles", "enabled"];

pub async fn run(options: UserOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/users", options.api.tenant()?);
    let format = options.output;
    match options.command {
        UserCommand::List => output::print(&admin::list(&client, &base).await?, COLUMNS, format),
        UserCommand::Create { user_principal_name, display_name, role } => {
            let password = std::env::var("VIGIE_USER_PASSWORD")
                .context("the new user's password is expected in VIGIE_USER_PASSWORD")?;
            let new =
                NewUser { id: None, user_principal_name, display_name, password, roles: role };
            let user: Value = admin::send(&client, Method::POST, &base, &new).await?;
            output::print(&[user], COLUMNS, format)
        }
        UserCommand::Delete { user_principal_name } => {
            client.send(Method::DELETE, &format!("{base}/{user_principal_name}"), None).await?;
            Ok(())
        }
    }
}
