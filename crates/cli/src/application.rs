//! `vigie app`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::Result;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;
use vigie_contract::administration::{IssuedSecret, NewApplication, NewSecret, Permissions};

#[derive(Args)]
pub struct AppOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: AppCommand,
}

#[derive(Subcommand)]
enum AppCommand {
    List,
    Show {
        app_id: Uuid,
    },
    /// Register an application, with admin consent for its permissions
    Create {
        display_name: String,
        /// Application permission such as Machine.Read.All; may be given several times
        #[arg(long)]
        permission: Vec<String>,
        /// A fixed application id, for test environments
        #[arg(long)]
        id: Option<Uuid>,
    },
    Delete {
        app_id: Uuid,
    },
    /// Replace an application's permissions, with admin consent
    Consent {
        app_id: Uuid,
        permissions: Vec<String>,
    },
    /// Issue a secret; it is shown once
    AddSecret {
        app_id: Uuid,
        #[arg(long)]
        display_name: Option<String>,
        /// End of validity, RFC 3339 [default: in a year]
        #[arg(long)]
        expires: Option<chrono::DateTime<chrono::Utc>>,
    },
    RemoveSecret {
        app_id: Uuid,
        key_id: Uuid,
    },
}

const COLUMNS: &[&str] = &["appId", "displayName", "permissions", "created"];

pub async fn run(options: AppOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/applications", options.api.tenant()?);
    let format = options.output;
    match options.command {
        AppCommand::List => output::print(&admin::list(&client, &base).await?, COLUMNS, format),
        AppCommand::Show { app_id } => {
            let application = client.get(&format!("{base}/{app_id}"), &[]).await?;
            output::print(
                &[application],
                &["appId", "displayName", "permissions", "secrets"],
                format,
            )
        }
        AppCommand::Create { display_name, permission, id } => {
            let new = NewApplication { app_id: id, display_name, permissions: permission };
            let application: Value = admin::send(&client, Method::POST, &base, &new).await?;
            output::print(&[application], COLUMNS, format)
        }
        AppCommand::Delete { app_id } => {
            client.send(Method::DELETE, &format!("{base}/{app_id}"), None).await?;
            Ok(())
        }
        AppCommand::Consent { app_id, permissions } => {
            let path = format!("{base}/{app_id}/permissions");
            let wanted = Permissions { permissions };
            let application: Value = admin::send(&client, Method::PUT, &path, &wanted).await?;
            output::print(&[application], COLUMNS, format)
        }
        AppCommand::AddSecret { app_id, display_name, expires } => {
            let path = format!("{base}/{app_id}/secrets");
            let new = NewSecret { display_name, expires, secret: None };
            let issued: IssuedSecret = admin::send(&client, Method::POST, &path, &new).await?;
            println!("{}", issued.secret);
            Ok(())
        }
        AppCommand::RemoveSecret { app_id, key_id } => {
            let path = format!("{base}/{app_id}/secrets/{key_id}");
            client.send(Method::DELETE, &path, None).await?;
            Ok(())
        }
    }
}
