//! How client commands reach an API: a local server by default, any server by options.

use crate::folder::{FolderOptions, Local};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use uuid::Uuid;
use vigie_client::{Client, Credentials, Endpoints};

#[derive(Args)]
pub struct ApiOptions {
    #[command(flatten)]
    pub folder: FolderOptions,
    /// The API, for example https://api.securitycenter.microsoft.com [default: the local server]
    #[arg(long, global = true, env = "VIGIE_URL")]
    url: Option<String>,
    /// The sign-in service [default: the same server; the cloud's own for its API]
    #[arg(long, global = true, env = "VIGIE_AUTHORITY")]
    authority: Option<String>,
    /// Tenant id or domain
    #[arg(long, global = true, env = "VIGIE_TENANT")]
    tenant: Option<String>,
    #[arg(long, global = true, env = "VIGIE_CLIENT_ID")]
    client_id: Option<String>,
    /// The application's secret; better given in the environment than on the command line
    #[arg(long, global = true, env = "VIGIE_CLIENT_SECRET", hide_env_values = true)]
    client_secret: Option<String>,
    /// File with a certificate authority to trust besides the system's
    #[arg(long, global = true, value_name = "PEM", env = "VIGIE_CA")]
    ca: Option<PathBuf>,
}

#[derive(Args)]
pub struct TokenOptions {
    #[command(flatten)]
    api: ApiOptions,
}

impl ApiOptions {
    /// A client for the API that the options name.
    pub fn client(&self) -> Result<Client> {
        self.client_for(Credentials::DEFENDER)
    }

    /// A client for the administration API of the server that the options name.
    pub fn administration(&self) -> Result<Client> {
        self.client_for(&format!("{}/.default", vigie_contract::administration::RESOURCE))
    }

    fn client_for(&self, scope: &str) -> Result<Client> {
        let (endpoints, credentials) = self.resolve(scope)?;
        Ok(Client::new(&endpoints, credentials)?)
    }

    /// The server's address and the PEM text of its certificate authority.
    pub fn server(&self) -> Result<(String, Option<String>)> {
        let (endpoints, _) = self.resolve(Credentials::DEFENDER)?;
        Ok((endpoints.api.to_string(), endpoints.ca_pem))
    }

    /// The tenant that commands work on: the one named, else the local one.
    pub fn tenant(&self) -> Result<String> {
        match &self.tenant {
            Some(tenant) => Ok(tenant.clone()),
            None => Ok(Local::read(&self.folder.path()?)?.tenant),
        }
    }

    /// The tenant named by its id, for what works without a server that knows domains.
    pub fn tenant_id(&self) -> Result<Option<Uuid>> {
        let parse = |name: &String| {
            Uuid::try_parse(name).with_context(|| format!("--tenant {name}: an id is needed here"))
        };
        self.tenant.as_ref().map(parse).transpose()
    }

    fn resolve(&self, scope: &str) -> Result<(Endpoints, Credentials)> {
        let local = match &self.url {
            Some(_) => None,
            None => Some(Local::read(&self.folder.path()?)?),
        };
        let url = match (&self.url, &local) {
            (Some(url), _) => url,
            (None, Some(local)) => &local.url,
            (None, None) => unreachable!("without --url the local server is read"),
        };
        let ca = self.ca.clone().or_else(|| local.as_ref().map(|local| local.ca_file.clone()));
        let ca_pem = ca
            .map(|file| {
                std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))
            })
            .transpose()?;
        let authority = match &self.authority {
            Some(authority) => authority.as_str(),
            None => cloud_authority(url).unwrap_or(url),
        };
        let endpoints = Endpoints {
            api: url.parse().with_context(|| format!("--url {url}"))?,
            authority: authority.parse().with_context(|| format!("--authority {authority}"))?,
            ca_pem,
        };
        Ok((endpoints, self.credentials(local.as_ref(), scope)?))
    }

    /// An application that is named wins over the local administration application.
    fn credentials(&self, local: Option<&Local>, scope: &str) -> Result<Credentials> {
        let scope = scope.to_owned();
        if let Some(client_id) = &self.client_id {
            let tenant = self.tenant.clone().or_else(|| local.map(|local| local.tenant.clone()));
            return Ok(Credentials {
                tenant: tenant.context("--client-id needs --tenant")?,
                client_id: client_id.clone(),
                client_secret: self
                    .client_secret
                    .clone()
                    .context("--client-id needs its secret in VIGIE_CLIENT_SECRET")?,
                scope,
            });
        }
        let local = local.context("--url needs --client-id and --tenant")?;
        Ok(Credentials {
            // The administration application lives in the first tenant, whichever is worked on.
            tenant: local.tenant.clone(),
            client_id: local.client_id.clone(),
            client_secret: local.client_secret.clone(),
            scope,
        })
    }
}

/// The sign-in service that belongs to an API host of Microsoft's clouds.
fn cloud_authority(url: &str) -> Option<&'static str> {
    let host = url.split("://").nth(1)?.split(['/', ':']).next()?;
    let is = |suffix: &str| host == suffix || host.ends_with(&format!(".{suffix}"));
    if is("securitycenter.microsoft.us") {
        return Some("https://login.microsoftonline.us");
    }
    let commercial =
        ["security.microsoft.com", "securitycenter.microsoft.com", "securitycenter.windows.com"];
    commercial.into_iter().any(is).then_some("https://login.microsoftonline.com")
}

/// `vigie token`
pub async fn token(options: TokenOptions) -> Result<()> {
    println!("{}", options.api.client()?.token().await?);
    Ok(())
}
