//! What sign-in needs of tenants and applications, from memory where nothing has changed.

use super::{Directory, DirectoryError, parse_uuid};
use crate::time;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use uuid::Uuid;
use vigie_contract::administration::{Registration, TenantSettings};

/// An application as sign-in sees it in one tenant.
pub(crate) struct Client {
    pub app_id: Uuid,
    pub display_name: String,
    /// The tenant that registered it, and its name, for consent pages.
    pub owner_tenant: Uuid,
    pub owner_name: String,
    pub registration: Registration,
    /// `None`: nobody in this tenant consented yet.
    pub principal: Option<Principal>,
    /// Hash and end of validity.
    pub secrets: Vec<(Vec<u8>, DateTime<Utc>)>,
    pub certificates: Vec<Certified>,
    pub federated: Vec<Federated>,
}

/// The application's presence in the tenant.
pub(crate) struct Principal {
    pub object_id: Uuid,
    pub enabled: bool,
    pub assignment_required: bool,
    /// Resource name and application permission.
    pub roles: Vec<(String, String)>,
}

/// A certificate of an application.
pub(crate) struct Certified {
    /// In base64url without padding.
    pub thumbprint: String,
    pub thumbprint_sha256: String,
    /// The RSA key in PKCS #1 DER form.
    pub public_key: Vec<u8>,
    pub starts: DateTime<Utc>,
    pub expires: DateTime<Utc>,
}

/// Whose tokens stand for an application's assertion.
pub(crate) struct Federated {
    pub issuer: String,
    pub subject: String,
    pub audience: String,
    pub keys: Option<serde_json::Value>,
}

impl Client {
    /// Whether it has any means to prove itself.
    pub fn has_credentials(&self) -> bool {
        !(self.secrets.is_empty() && self.certificates.is_empty() && self.federated.is_empty())
    }
}

impl Directory {
    /// The application, where it can be used in this tenant: registered there, consented there, or
    /// open to all tenants.
    pub(crate) async fn client(
        &self,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<Option<Arc<Client>>, DirectoryError> {
        let generation = self.generation().await?;
        if let Some(client) = self.shared().clients.read().get(&(tenant, app_id)) {
            return Ok(Some(client.clone()));
        }
        let Some(client) = self.read_client(tenant, app_id).await? else { return Ok(None) };
        let client = Arc::new(client);
        let clients = &self.shared().clients;
        self.remember(clients, generation, (tenant, app_id), client.clone());
        Ok(Some(client))
    }

    async fn read_client(
        &self,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<Option<Client>, DirectoryError> {
        let select = "SELECT a.tenant, a.display_name, a.settings, t.display_name, s.object_id, \
                      s.enabled, s.assignment_required FROM applications a \
                      JOIN tenants t ON t.id = a.tenant LEFT JOIN service_principals s \
                      ON s.app_id = a.app_id AND s.tenant = $2 WHERE a.app_id = $1";
        let id = app_id.to_string();
        let values = [id.as_str().into(), tenant.to_string().into()];
        let rows = self.database().read(select, &values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let owner_tenant = parse_uuid(row.text(0)?)?;
        let registration: Registration = registration(row.text(2)?);
        let principal = match row.optional_text(4)? {
            Some(object_id) => Some(Principal {
                object_id: parse_uuid(object_id)?,
                enabled: row.flag(5)?,
                assignment_required: row.flag(6)?,
                roles: self.role_grants(tenant, &id).await?,
            }),
            None => None,
        };
        if owner_tenant != tenant && !registration.multi_tenant {
            return Ok(None);
        }
        let (display_name, owner_name) = (row.text(1)?.to_owned(), row.text(3)?.to_owned());
        let select = "SELECT hash, expires FROM secrets WHERE app_id = $1";
        let secrets = self.database().read(select, &[id.as_str().into()]).await?;
        let secrets = secrets.iter().map(|row| Ok((row.bytes(0)?.to_vec(), time(row.integer(1)?))));
        Ok(Some(Client {
            app_id,
            display_name,
            owner_tenant,
            owner_name,
            registration,
            principal,
            secrets: secrets.collect::<Result<_, DirectoryError>>()?,
            certificates: self.certified(&id).await?,
            federated: self.federated(&id).await?,
        }))
    }

    async fn certified(&self, app_id: &str) -> Result<Vec<Certified>, DirectoryError> {
        let select = "SELECT thumbprint, thumbprint_sha256, public_key, starts, expires \
                      FROM certificates WHERE app_id = $1";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        let certified = rows.iter().map(|row| {
            Ok(Certified {
                thumbprint: row.text(0)?.to_owned(),
                thumbprint_sha256: row.text(1)?.to_owned(),
                public_key: row.bytes(2)?.to_vec(),
                starts: time(row.integer(3)?),
                expires: time(row.integer(4)?),
            })
        });
        certified.collect()
    }

    async fn federated(&self, app_id: &str) -> Result<Vec<Federated>, DirectoryError> {
        let select =
            "SELECT issuer, subject, audience, keys FROM federated_credentials WHERE app_id = $1";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        let federated = rows.iter().map(|row| {
            Ok(Federated {
                issuer: row.text(0)?.to_owned(),
                subject: row.text(1)?.to_owned(),
                audience: row.text(2)?.to_owned(),
                keys: row.optional_text(3)?.and_then(|keys| serde_json::from_str(keys).ok()),
            })
        });
        federated.collect()
    }

    /// How a tenant signs in.
    pub(crate) async fn settings(
        &self,
        tenant: Uuid,
    ) -> Result<Arc<TenantSettings>, DirectoryError> {
        let generation = self.generation().await?;
        if let Some(settings) = self.shared().settings.read().get(&tenant) {
            return Ok(settings.clone());
        }
        let select = "SELECT settings FROM tenants WHERE id = $1";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        let settings = match rows.first() {
            Some(row) => serde_json::from_str(row.text(0)?).unwrap_or_default(),
            None => TenantSettings::default(),
        };
        let settings = Arc::new(settings);
        self.remember(&self.shared().settings, generation, tenant, settings.clone());
        Ok(settings)
    }
}

/// A registration as it is stored; `{}` is the default.
pub(super) fn registration(stored: &str) -> Registration {
    serde_json::from_str(stored).unwrap_or_default()
}
