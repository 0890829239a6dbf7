//! `vigie tenant`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use vigie_contract::administration::{EnrolmentKey, NewEnrolmentKey, NewTenant};

#[derive(Args)]
pub struct TenantOptions {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Subcommand)]
enum TenantCommand {
    List,
    /// By id or domain; without one, the tenant that the other commands work on
    Show {
        #[arg(value_name = "TENANT")]
        named: Option<String>,
    },
    Create {
        display_name: String,
        /// Verified domain; may be given several times
        #[arg(long)]
        domain: Vec<String>,
        /// A fixed tenant id, for test environments
        #[arg(long)]
        id: Option<uuid::Uuid>,
    },
    /// Remove a tenant with its applications and users
    Delete {
        #[arg(value_name = "TENANT")]
        named: String,
    },
    /// Issue a key with which sensors enrol; it is shown once
    EnrolmentKey,
    /// What the lake holds of each hunting table
    Tables,
}

const COLUMNS: &[&str] = &["id", "displayName", "domains", "plan", "created"];

pub async fn run(options: TenantOptions) -> Result<()> {
    let client = options.api.administration()?;
    let format = options.output;
    match options.command {
        TenantCommand::List => {
            output::print(&admin::list(&client, "/admin/v1/tenants").await?, COLUMNS, format)
        }
        TenantCommand::Show { named } => {
            let name = named.map_or_else(|| options.api.tenant(), Ok)?;
            let tenant = client.get(&format!("/admin/v1/tenants/{name}"), &[]).await?;
            output::print(&[tenant], COLUMNS, format)
        }
        TenantCommand::Create { display_name, domain, id } => {
            let new = NewTenant { id, display_name, domains: domain, plan: None };
            let post = reqwest::Method::POST;
            let tenant: Value = admin::send(&client, post, "/admin/v1/tenants", &new).await?;
            output::print(&[tenant], COLUMNS, format)
        }
        TenantCommand::Delete { named } => {
            let path = format!("/admin/v1/tenants/{named}");
            client.send(reqwest::Method::DELETE, &path, None).await?;
            Ok(())
        }
        TenantCommand::EnrolmentKey => {
            let path = format!("/admin/v1/tenants/{}/enrolmentkeys", options.api.tenant()?);
            let new = NewEnrolmentKey::default();
            let key: EnrolmentKey =
                admin::send(&client, reqwest::Method::POST, &path, &new).await?;
            println!("{}", key.enrolment_key);
            Ok(())
        }
        TenantCommand::Tables => {
            let path = format!("/admin/v1/tenants/{}/tables", options.api.tenant()?);
            let columns = &["table", "rows", "bytes", "earliest", "latest"];
            output::print(&admin::list(&client, &path).await?, columns, format)
        }
    }
}
