//! `vigie app`

use crate::admin;
use crate::api::ApiOptions;
use crate::output::{self, Format};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;
use std::path::PathBuf;
use uuid::Uuid;
use vigie_contract::administration::{
    Application, DelegatedGrant, IssuedSecret, NewApplication, NewCertificate,
    NewFederatedCredential, NewSecret, Permissions, RedirectUris, Registration, ServicePrincipal,
    ServicePrincipalChange,
};

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
        #[command(flatten)]
        registration: RegistrationOptions,
    },
    /// Change what is given of an application's registration, and leave the rest
    Set {
        app_id: Uuid,
        #[command(flatten)]
        registration: RegistrationOptions,
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
    /// Register a certificate whose key signs client assertions
    AddCertificate {
        app_id: Uuid,
        /// An X.509 certificate with an RSA key
        #[arg(value_name = "PEM")]
        file: PathBuf,
    },
    RemoveCertificate {
        app_id: Uuid,
        key_id: Uuid,
    },
    /// Accept tokens of another issuer in place of a client assertion
    AddFederated {
        app_id: Uuid,
        #[arg(long)]
        name: String,
        #[arg(long)]
        issuer: String,
        #[arg(long)]
        subject: String,
        #[arg(long, default_value = "api://AzureADTokenExchange")]
        audience: String,
        /// File with the issuer's key set (JWKS) [default: the issuer is a tenant of this server]
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
    RemoveFederated {
        app_id: Uuid,
        id: Uuid,
    },
    /// What applications may do in the tenant, those of partners among them
    Grants,
    /// Consent for everybody in the tenant
    Grant {
        app_id: Uuid,
        /// Application permission of an application of another tenant; may be given several times
        #[arg(long)]
        permission: Vec<String>,
        /// Delegated permission such as Machine.Read; may be given several times
        #[arg(long)]
        delegated: Vec<String>,
    },
    /// Withdraw an application from the tenant, with all consent
    Withdraw {
        app_id: Uuid,
    },
}

/// Parts of a registration; what is not given stays.
#[derive(Args)]
struct RegistrationOptions {
    /// Redirect URI of a web application; may be given several times
    #[arg(long, value_name = "URI")]
    web_redirect: Vec<String>,
    /// Redirect URI of a single-page application; may be given several times
    #[arg(long, value_name = "URI")]
    spa_redirect: Vec<String>,
    /// Redirect URI of a native application, such as http://localhost; may be given several times
    #[arg(long, value_name = "URI")]
    native_redirect: Vec<String>,
    /// Delegated permission that it asks for, such as Machine.Read; may be given several times
    #[arg(long, value_name = "PERMISSION")]
    delegated: Vec<String>,
    /// Application permission that it asks for in other tenants; may be given several times
    #[arg(long, value_name = "PERMISSION")]
    asks: Vec<String>,
    /// Allow device code, password and codes without a credential
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    public_client: Option<bool>,
    /// Let accounts of other tenants use it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    multi_tenant: Option<bool>,
    /// Whether it may sign in at all
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
}

impl RegistrationOptions {
    fn apply(self, to: &mut Registration) {
        let set = |list: &mut Vec<String>, given: Vec<String>| {
            if !given.is_empty() {
                *list = given;
            }
        };
        let RedirectUris { web, spa, public_client } = &mut to.redirect_uris;
        set(web, self.web_redirect);
        set(spa, self.spa_redirect);
        set(public_client, self.native_redirect);
        set(&mut to.delegated_permissions, self.delegated);
        set(&mut to.application_permissions, self.asks);
        to.allow_public_client = self.public_client.unwrap_or(to.allow_public_client);
        to.multi_tenant = self.multi_tenant.unwrap_or(to.multi_tenant);
        to.enabled = self.enabled.unwrap_or(to.enabled);
    }
}

const COLUMNS: &[&str] = &["appId", "displayName", "permissions", "created"];

pub async fn run(options: AppOptions) -> Result<()> {
    let client = options.api.administration()?;
    let base = format!("/admin/v1/tenants/{}/applications", options.api.tenant()?);
    let principals = format!("/admin/v1/tenants/{}/serviceprincipals", options.api.tenant()?);
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
        AppCommand::Create { display_name, permission, id, registration: options } => {
            let mut registration = Registration::default();
            options.apply(&mut registration);
            let new =
                NewApplication { app_id: id, display_name, permissions: permission, registration };
            let application: Value = admin::send(&client, Method::POST, &base, &new).await?;
            output::print(&[application], COLUMNS, format)
        }
        AppCommand::Set { app_id, registration } => {
            let path = format!("{base}/{app_id}");
            let found: Application = serde_json::from_value(client.get(&path, &[]).await?)?;
            let mut wanted = found.registration;
            registration.apply(&mut wanted);
            let path = format!("{path}/registration");
            let application: Value = admin::send(&client, Method::PUT, &path, &wanted).await?;
            output::print(&[application], &["appId", "displayName", "registration"], format)
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
            remove(&client, &format!("{base}/{app_id}/secrets/{key_id}")).await
        }
        AppCommand::AddCertificate { app_id, file } => {
            let new = NewCertificate { display_name: None, certificate: read(&file)? };
            let path = format!("{base}/{app_id}/certificates");
            let added: Value = admin::send(&client, Method::POST, &path, &new).await?;
            output::print(&[added], &["keyId", "thumbprint", "expires"], format)
        }
        AppCommand::RemoveCertificate { app_id, key_id } => {
            remove(&client, &format!("{base}/{app_id}/certificates/{key_id}")).await
        }
        AppCommand::AddFederated { app_id, name, issuer, subject, audience, keys } => {
            let keys = keys.as_deref().map(read).transpose()?;
            let keys = keys.as_deref().map(serde_json::from_str).transpose()?;
            let new = NewFederatedCredential { name, issuer, subject, audience, keys };
            let path = format!("{base}/{app_id}/federatedcredentials");
            let added: Value = admin::send(&client, Method::POST, &path, &new).await?;
            output::print(&[added], &["id", "name", "issuer", "subject"], format)
        }
        AppCommand::RemoveFederated { app_id, id } => {
            remove(&client, &format!("{base}/{app_id}/federatedcredentials/{id}")).await
        }
        AppCommand::Grants => {
            output::print(&admin::list(&client, &principals).await?, GRANTS, format)
        }
        AppCommand::Grant { app_id, permission, delegated } => {
            let path = format!("{principals}/{app_id}");
            let change = grant(&client, &principals, app_id, permission, delegated).await?;
            let principal: Value = admin::send(&client, Method::PATCH, &path, &change).await?;
            output::print(&[principal], GRANTS, format)
        }
        AppCommand::Withdraw { app_id } => remove(&client, &format!("{principals}/{app_id}")).await,
    }
}

const GRANTS: &[&str] = &["appId", "displayName", "ownerTenant", "permissions", "delegated"];

async fn remove(client: &vigie_client::Client, path: &str) -> Result<()> {
    client.send(Method::DELETE, path, None).await?;
    Ok(())
}

fn read(file: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Adds delegated permissions for everybody to what is granted already, and replaces application
/// permissions where some are named.
async fn grant(
    client: &vigie_client::Client,
    principals: &str,
    app_id: Uuid,
    permission: Vec<String>,
    delegated: Vec<String>,
) -> Result<ServicePrincipalChange> {
    let found = admin::list(client, principals).await?.into_iter();
    let found: Vec<ServicePrincipal> =
        found.map(serde_json::from_value).collect::<Result<_, _>>()?;
    let found = found.into_iter().find(|principal| principal.app_id == app_id);
    let mut grants = found.map(|principal| principal.delegated).unwrap_or_default();
    if !delegated.is_empty() {
        let resource = "WindowsDefenderATP".to_owned();
        grants.push(DelegatedGrant { user: None, resource, scopes: delegated });
    }
    Ok(ServicePrincipalChange {
        permissions: (!permission.is_empty()).then_some(permission),
        delegated: Some(grants),
        ..ServicePrincipalChange::default()
    })
}
