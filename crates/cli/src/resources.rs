//! Client commands over the resource API: machines, alerts, machine actions.

use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vigie_client::Client;

#[derive(Args)]
struct ListOptions {
    /// OData filter, for example "riskScore eq 'High'"
    #[arg(long)]
    filter: Option<String>,
    /// Most rows to print
    #[arg(long, default_value_t = 100)]
    top: usize,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    api: ApiOptions,
    /// Form of the answer
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Args)]
pub struct MachinesOptions {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: MachinesCommand,
}

#[derive(Subcommand)]
enum MachinesCommand {
    List(ListOptions),
    Show {
        id: String,
    },
    /// Users that were logged on to a machine
    Users {
        id: String,
    },
    /// Add a tag, or remove it with --remove
    Tag {
        id: String,
        tag: String,
        #[arg(long)]
        remove: bool,
    },
    /// Cut a machine off the network, all but its server
    Isolate {
        id: String,
        #[arg(long)]
        comment: String,
        /// Keep what the sensor's configuration allows
        #[arg(long)]
        selective: bool,
    },
    /// Release a machine from isolation
    Release {
        id: String,
        #[arg(long)]
        comment: String,
    },
}

const MACHINE: &[&str] = &[
    "id",
    "computerDnsName",
    "osPlatform",
    "healthStatus",
    "riskScore",
    "lastIpAddress",
    "lastSeen",
];
const ALERT: &[&str] =
    &["id", "severity", "status", "title", "category", "computerDnsName", "alertCreationTime"];
const ACTION: &[&str] =
    &["id", "type", "status", "machineId", "requestor", "requestorComment", "creationDateTimeUtc"];
const USER: &[&str] =
    &["id", "accountName", "accountDomain", "logonTypes", "firstSeen", "lastSeen"];

/// `vigie machines`
pub async fn machines(options: MachinesOptions) -> Result<()> {
    let client = options.common.api.client()?;
    let format = options.common.output;
    match options.command {
        MachinesCommand::List(list) => {
            output::print(&rows(&client, "/api/machines", &list).await?, MACHINE, format)
        }
        MachinesCommand::Show { id } => show(&client, "machines", &id, MACHINE, format).await,
        MachinesCommand::Users { id } => {
            let path = format!("/api/machines/{id}/logonusers");
            output::print(&client.list(&path, &[])?.all(usize::MAX).await?, USER, format)
        }
        MachinesCommand::Tag { id, tag, remove } => {
            let action = if remove { "Remove" } else { "Add" };
            let body = json!({"Value": tag, "Action": action});
            let machine = client.post(&format!("/api/machines/{id}/tags"), &body).await?;
            output::print(&[machine], &["id", "computerDnsName", "machineTags"], format)
        }
        MachinesCommand::Isolate { id, comment, selective } => {
            let kind = if selective { "Selective" } else { "Full" };
            let body = json!({"Comment": comment, "IsolationType": kind});
            let action = client.post(&format!("/api/machines/{id}/isolate"), &body).await?;
            output::print(&[action], ACTION, format)
        }
        MachinesCommand::Release { id, comment } => {
            let body = json!({"Comment": comment});
            let action = client.post(&format!("/api/machines/{id}/unisolate"), &body).await?;
            output::print(&[action], ACTION, format)
        }
    }
}

#[derive(Args)]
pub struct AlertsOptions {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Subcommand)]
enum AlertsCommand {
    List(ListOptions),
    Show {
        id: String,
    },
    /// Change status, owner, classification or determination, add a comment
    Update {
        id: String,
        /// New, InProgress or Resolved
        #[arg(long)]
        status: Option<String>,
        #[arg(long)]
        assigned_to: Option<String>,
        /// TruePositive, InformationalExpectedActivity or FalsePositive
        #[arg(long)]
        classification: Option<String>,
        #[arg(long)]
        determination: Option<String>,
        #[arg(long)]
        comment: Option<String>,
    },
}

/// `vigie alerts`
pub async fn alerts(options: AlertsOptions) -> Result<()> {
    let client = options.common.api.client()?;
    let format = options.common.output;
    match options.command {
        AlertsCommand::List(list) => {
            output::print(&rows(&client, "/api/alerts", &list).await?, ALERT, format)
        }
        AlertsCommand::Show { id } => show(&client, "alerts", &id, ALERT, format).await,
        AlertsCommand::Update {
            id,
            status,
            assigned_to,
            classification,
            determination,
            comment,
        } => {
            let properties = [
                ("status", status),
                ("assignedTo", assigned_to),
                ("classification", classification),
                ("determination", determination),
                ("comment", comment),
            ];
            // What is not named must not be sent: the API keeps what it does not receive.
            let body: serde_json::Map<String, Value> = properties
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
                .collect();
            let path = format!("/api/alerts/{id}");
            let alert =
                client.send(reqwest::Method::PATCH, &path, Some(&Value::Object(body))).await?;
            output::print(&[alert], ALERT, format)
        }
    }
}

#[derive(Args)]
pub struct ActionsOptions {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: ActionsCommand,
}

#[derive(Subcommand)]
enum ActionsCommand {
    List(ListOptions),
    Show { id: String },
}

/// `vigie actions`
pub async fn actions(options: ActionsOptions) -> Result<()> {
    let client = options.common.api.client()?;
    let format = options.common.output;
    match options.command {
        ActionsCommand::List(list) => {
            output::print(&rows(&client, "/api/machineactions", &list).await?, ACTION, format)
        }
        ActionsCommand::Show { id } => show(&client, "machineactions", &id, ACTION, format).await,
    }
}

async fn rows(client: &Client, path: &str, list: &ListOptions) -> Result<Vec<Value>> {
    let top = list.top.to_string();
    let mut query = vec![("$top", top.as_str())];
    if let Some(filter) = &list.filter {
        query.push(("$filter", filter));
    }
    Ok(client.list(path, &query)?.all(list.top).await?)
}

async fn show(
    client: &Client,
    collection: &str,
    id: &str,
    columns: &[&str],
    format: Format,
) -> Result<()> {
    let row = client.get(&format!("/api/{collection}/{id}"), &[]).await?;
    output::print(&[row], columns, format)
}
