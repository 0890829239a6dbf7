//! `vigie tenant`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use vigie_contract::administration::{
    EnrolmentKey, List, NewEnrolmentKey, NewTenant, TenantSettings,
};

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
    /// How the tenant signs in; options change it
    Settings(SettingsOptions),
    /// Who did what: changes of the directory and sign-ins, newest first
    Audit {
        /// For example signIn or consent.admin
        #[arg(long)]
        action: Option<String>,
        /// An application id or a user principal name
        #[arg(long)]
        actor: Option<String>,
        /// `success`, or the number of an error
        #[arg(long)]
        outcome: Option<String>,
        /// Not before this time, RFC 3339
        #[arg(long)]
        since: Option<chrono::DateTime<chrono::Utc>>,
        #[arg(long, default_value_t = 100)]
        top: u32,
    },
}

#[derive(Args)]
struct SettingsOptions {
    /// Serve the password grant
    #[arg(long, value_name = "BOOL")]
    password_grant: Option<bool>,
    /// Let users consent for themselves to scopes that need no administrator
    #[arg(long, value_name = "BOOL")]
    user_consent: Option<bool>,
    /// Refuse a client assertion the second time
    #[arg(long, value_name = "BOOL")]
    refuse_repeated_assertions: Option<bool>,
    /// Life of access tokens
    #[arg(long, value_name = "SECONDS")]
    access_token: Option<i64>,
    /// Life of unused refresh tokens
    #[arg(long, value_name = "DAYS")]
    refresh_token: Option<i64>,
    /// Life of browser sessions
    #[arg(long, value_name = "HOURS")]
    session: Option<i64>,
}

impl SettingsOptions {
    /// Whether any option was given.
    fn apply(self, to: &mut TenantSettings) -> bool {
        let before = to.clone();
        to.allow_password_grant = self.password_grant.unwrap_or(to.allow_password_grant);
        to.allow_user_consent = self.user_consent.unwrap_or(to.allow_user_consent);
        to.refuse_repeated_assertions =
            self.refuse_repeated_assertions.unwrap_or(to.refuse_repeated_assertions);
        to.access_token_seconds = self.access_token.unwrap_or(to.access_token_seconds);
        to.refresh_token_days = self.refresh_token.unwrap_or(to.refresh_token_days);
        to.session_hours = self.session.unwrap_or(to.session_hours);
        *to != before
    }
}

const SETTINGS: &[&str] = &[
    "allowPasswordGrant",
    "allowUserConsent",
    "refuseRepeatedAssertions",
    "accessTokenSeconds",
    "refreshTokenDays",
    "sessionHours",
];

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
        TenantCommand::Settings(changes) => {
            let path = format!("/admin/v1/tenants/{}/settings", options.api.tenant()?);
            let found = client.get(&path, &[]).await?;
            let mut settings: TenantSettings = serde_json::from_value(found.clone())?;
            let shown = match changes.apply(&mut settings) {
                true => admin::send(&client, reqwest::Method::PUT, &path, &settings).await?,
                false => found,
            };
            output::print(&[shown], SETTINGS, format)
        }
        TenantCommand::Audit { action, actor, outcome, since, top } => {
            let path = format!("/admin/v1/tenants/{}/audit", options.api.tenant()?);
            let mut query = vec![("top", top.to_string())];
            let since = since.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
            for (name, value) in
                [("action", action), ("actor", actor), ("outcome", outcome), ("since", since)]
            {
                query.extend(value.map(|value| (name, value)));
            }
            let query: Vec<(&str, &str)> =
                query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = client.get(&path, &query).await?;
            let entries: List<Value> = serde_json::from_value(answer)?;
            let columns = &["at", "actor", "action", "target", "outcome", "address"];
            output::print(&entries.value, columns, format)
        }
    }
}
