//! `vigie user`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use vigie_contract::administration::{IssuedTotp, NewUser, UserChange};

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
    Show {
        user_principal_name: String,
    },
    /// Create a user; the password is read from VIGIE_USER_PASSWORD
    Create {
        user_principal_name: String,
        #[arg(long)]
        display_name: Option<String>,
        #[arg(long)]
        given_name: Option<String>,
        #[arg(long)]
        surname: Option<String>,
        /// Directory role such as "Security Reader"; may be given several times
        #[arg(long)]
        role: Vec<String>,
    },
    Delete {
        user_principal_name: String,
    },
    /// Set a new password, read from VIGIE_USER_PASSWORD; all sign-ins of the user end
    SetPassword {
        user_principal_name: String,
    },
    /// Let a user sign in again
    Enable {
        user_principal_name: String,
    },
    /// Refuse a user's sign-in and end the sign-ins that there are
    Disable {
        user_principal_name: String,
    },
    /// Replace a user's directory roles
    SetRoles {
        user_principal_name: String,
        roles: Vec<String>,
    },
    /// Give a user a second factor; its secret is shown once
    AddTotp {
        user_principal_name: String,
    },
    RemoveTotp {
        user_principal_name: String,
    },
}

const COLUMNS: &[&str] =
    &["id", "userPrincipalName", "displayName", "roles", "enabled", "secondFactor"];

fn password() -> Result<String> {
    std::env::var("VIGIE_USER_PASSWORD")
        .context("the user's password is expected in VIGIE_USER_PASSWORD")
}

pub async fn run(options: UserOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/users", options.api.tenant()?);
    let format = options.output;
    let change = async |name: &str, change: UserChange| -> Result<()> {
        let path = format!("{base}/{name}");
        let user: Value = admin::send(&client, Method::PATCH, &path, &change).await?;
        output::print(&[user], COLUMNS, format)
    };
    let enabled = |enabled: bool| UserChange { enabled: Some(enabled), ..UserChange::default() };
    match options.command {
        UserCommand::List => output::print(&admin::list(&client, &base).await?, COLUMNS, format),
        UserCommand::Show { user_principal_name: name } => {
            let user = client.get(&format!("{base}/{name}"), &[]).await?;
            output::print(&[user], COLUMNS, format)
        }
        UserCommand::Create { user_principal_name, display_name, given_name, surname, role } => {
            let new = NewUser {
                id: None,
                user_principal_name,
                display_name,
                given_name,
                surname,
                password: password()?,
                roles: role,
            };
            let user: Value = admin::send(&client, Method::POST, &base, &new).await?;
            output::print(&[user], COLUMNS, format)
        }
        UserCommand::Delete { user_principal_name: name } => {
            client.send(Method::DELETE, &format!("{base}/{name}"), None).await?;
            Ok(())
        }
        UserCommand::SetPassword { user_principal_name: name } => {
            let password = Some(password()?);
            change(&name, UserChange { password, ..UserChange::default() }).await
        }
        UserCommand::Enable { user_principal_name: name } => change(&name, enabled(true)).await,
        UserCommand::Disable { user_principal_name: name } => change(&name, enabled(false)).await,
        UserCommand::SetRoles { user_principal_name: name, roles } => {
            change(&name, UserChange { roles: Some(roles), ..UserChange::default() }).await
        }
        UserCommand::AddTotp { user_principal_name: name } => {
            let path = format!("{base}/{name}/totp");
            let empty = serde_json::json!({});
            let issued: IssuedTotp = admin::send(&client, Method::POST, &path, &empty).await?;
            println!("{}\n{}", issued.secret, issued.uri);
            Ok(())
        }
        UserCommand::RemoveTotp { user_principal_name: name } => {
            client.send(Method::DELETE, &format!("{base}/{name}/totp"), None).await?;
            Ok(())
        }
    }
}
