//! Applications, their permissions and secrets.

use super::{Client, Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::seal::new_secret;
use crate::{Resource, micros, time};
use chrono::TimeDelta;
use serde::Deserialize;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;
use vigie_contract::administration::{
    Application, IssuedSecret, NewApplication, NewSecret, ROLE, Secret,
};
use vigie_database::Transaction;

const APPLICATION: &str = "application";
/// A secret of a test environment must have this many characters.
const SHORTEST_SECRET: usize = 16;

#[derive(Deserialize)]
struct Permission {
    name: String,
    application: bool,
}

static PERMISSIONS: LazyLock<Vec<Permission>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../catalogue/permissions.json"))
        .expect("catalogue/permissions.json is part of the program")
});

impl Directory {
    pub async fn create_application(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewApplication,
    ) -> Result<Application, DirectoryError> {
        if new.display_name.trim().is_empty() {
            let reason = "a name is expected".to_owned();
            return Err(DirectoryError::Invalid { property: "displayName", reason });
        }
        check_permissions(&new.permissions)?;
        let app_id = new.app_id.unwrap_or_else(Uuid::new_v4);
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO applications (app_id, tenant, object_id, display_name, created) \
                      VALUES ($1, $2, $3, $4, $5)";
        let values = [
            app_id.to_string().into(),
            tenant.to_string().into(),
            Uuid::new_v4().to_string().into(),
            new.display_name.as_str().into(),
            micros(self.clock().now()).into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict(APPLICATION, &app_id.to_string()))?;
        self.replace_grants(&mut transaction, app_id, Resource::Defender, &new.permissions).await?;
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "application.create",
            target: &new.display_name,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        self.application(tenant, app_id).await
    }

    /// The application whose tokens may administer this installation.
    pub async fn create_administration(&self, tenant: Uuid) -> Result<Application, DirectoryError> {
        let display_name = "Vigie administration".to_owned();
        let new = NewApplication { display_name, ..NewApplication::default() };
        let application = self.create_application("first start", tenant, &new).await?;
        let mut transaction = self.database().begin().await?;
        let roles = [ROLE.to_owned()];
        self.replace_grants(&mut transaction, application.app_id, Resource::Administration, &roles)
            .await?;
        // The command line shows machines and hunts with the same application.
        let all: Vec<String> =
            PERMISSIONS.iter().filter(|p| p.application).map(|p| p.name.clone()).collect();
        self.replace_grants(&mut transaction, application.app_id, Resource::Defender, &all).await?;
        transaction.commit().await?;
        self.forget();
        self.application(tenant, application.app_id).await
    }

    /// A new secret of the administration application: its tenant, its id, the secret. The
    /// application is made where there is none.
    pub async fn renew_administration(
        &self,
        actor: &str,
    ) -> Result<(Uuid, Uuid, String), DirectoryError> {
        let select = "SELECT a.tenant, a.app_id FROM applications a JOIN grants g ON \
                      g.app_id = a.app_id WHERE g.resource = $1 AND g.role = $2 ORDER BY a.created";
        let values = [Resource::Administration.name().into(), ROLE.into()];
        let rows = self.database().read(select, &values).await?;
        let (tenant, app_id) = match rows.first() {
            Some(row) => (parse_uuid(row.text(0)?)?, parse_uuid(row.text(1)?)?),
            None => {
                let tenants = self.tenants().await?;
                let none = || DirectoryError::Damaged("the directory has no tenant".to_owned());
                let tenant = tenants.first().ok_or_else(none)?.id;
                (tenant, self.create_administration(tenant).await?.app_id)
            }
        };
        let new = NewSecret { display_name: Some(actor.to_owned()), ..NewSecret::default() };
        Ok((tenant, app_id, self.add_secret(actor, tenant, app_id, &new).await?.secret))
    }

    async fn replace_grants(
        &self,
        transaction: &mut Transaction,
        app_id: Uuid,
        resource: Resource,
        roles: &[String],
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM grants WHERE app_id = $1 AND resource = $2";
        transaction.execute(delete, &[app_id.to_string().into(), resource.name().into()]).await?;
        for role in roles {
            let insert = "INSERT INTO grants (app_id, resource, role) VALUES ($1, $2, $3) \
                          ON CONFLICT (app_id, resource, role) DO NOTHING";
            let values = [app_id.to_string().into(), resource.name().into(), role.as_str().into()];
            transaction.execute(insert, &values).await?;
        }
        Ok(())
    }

    /// Replaces an application's permissions, with admin consent.
    pub async fn set_permissions(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        permissions: &[String],
    ) -> Result<Application, DirectoryError> {
        check_permissions(permissions)?;
        self.application(tenant, app_id).await?;
        let mut transaction = self.database().begin().await?;
        self.replace_grants(&mut transaction, app_id, Resource::Defender, permissions).await?;
        let target = app_id.to_string();
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "application.consent",
            target: &target,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        self.application(tenant, app_id).await
    }

    pub async fn applications(&self, tenant: Uuid) -> Result<Vec<Application>, DirectoryError> {
        let select = "SELECT app_id, object_id, display_name, created FROM applications \
                      WHERE tenant = $1 ORDER BY created, app_id";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        let mut applications = Vec::new();
        for row in rows {
            let app_id = row.text(0)?;
            let permissions = self.grants(app_id).await?;
            applications.push(Application {
                app_id: parse_uuid(app_id)?,
                object_id: parse_uuid(row.text(1)?)?,
                display_name: row.text(2)?.to_owned(),
                permissions: (permissions.into_iter())
                    .filter(|(resource, _)| resource == Resource::Defender.name())
                    .map(|(_, role)| role)
                    .collect(),
                secrets: self.secrets(app_id).await?,
                created: time(row.integer(3)?),
            });
        }
        Ok(applications)
    }

    async fn grants(&self, app_id: &str) -> Result<Vec<(String, String)>, DirectoryError> {
        let select = "SELECT resource, role FROM grants WHERE app_id = $1 ORDER BY resource, role";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    async fn secrets(&self, app_id: &str) -> Result<Vec<Secret>, DirectoryError> {
        let select = "SELECT key_id, display_name, hint, created, expires FROM secrets \
                      WHERE app_id = $1 ORDER BY created, key_id";
        let rows = self.database().read(select, &[app_id.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Secret {
                    key_id: parse_uuid(row.text(0)?)?,
                    display_name: row.optional_text(1)?.map(str::to_owned),
                    hint: row.text(2)?.to_owned(),
                    created: time(row.integer(3)?),
                    expires: time(row.integer(4)?),
                })
            })
            .collect()
    }

    pub async fn application(
        &self,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<Application, DirectoryError> {
        let found = self.applications(tenant).await?.into_iter().find(|a| a.app_id == app_id);
        found
            .ok_or_else(|| DirectoryError::NotFound { what: APPLICATION, name: app_id.to_string() })
    }

    pub async fn delete_application(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<(), DirectoryError> {
        self.application(tenant, app_id).await?;
        let target = app_id.to_string();
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM applications WHERE app_id = $1";
        transaction.execute(delete, &[target.as_str().into()]).await?;
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "application.delete",
            target: &target,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(())
    }

    /// Issues a secret; it is nowhere stored in clear and cannot be shown again.
    pub async fn add_secret(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        new: &NewSecret,
    ) -> Result<IssuedSecret, DirectoryError> {
        self.application(tenant, app_id).await?;
        let secret = match &new.secret {
            Some(secret) => {
                check_secret(secret)?;
                secret.clone()
            }
            None => new_secret(),
        };
        let now = self.clock().now();
        let expires = new.expires.unwrap_or(now + TimeDelta::days(365));
        let key_id = Uuid::new_v4();
        let hint: String = secret.chars().take(3).collect();
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO secrets (key_id, app_id, display_name, hint, hash, created, expires) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            key_id.to_string().into(),
            app_id.to_string().into(),
            new.display_name.clone().into(),
            hint.into(),
            self.shared().master.hash(&secret).into(),
            micros(now).into(),
            micros(expires).into(),
        ];
        transaction.execute(insert, &values).await?;
        let target = app_id.to_string();
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "application.secret.add",
            target: &target,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(IssuedSecret { key_id, secret, expires })
    }

    pub async fn remove_secret(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        key_id: Uuid,
    ) -> Result<(), DirectoryError> {
        self.application(tenant, app_id).await?;
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM secrets WHERE key_id = $1 AND app_id = $2";
        let values = [key_id.to_string().into(), app_id.to_string().into()];
        if transaction.execute(delete, &values).await? == 0 {
            return Err(DirectoryError::NotFound { what: "secret", name: key_id.to_string() });
        }
        let target = app_id.to_string();
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "application.secret.remove",
            target: &target,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(())
    }

    /// Whether one of the application's secrets is this one.
    pub(crate) async fn has_secret(
        &self,
        app_id: Uuid,
        secret: &str,
    ) -> Result<bool, DirectoryError> {
        let select = "SELECT hash FROM secrets WHERE app_id = $1";
        let rows = self.database().read(select, &[app_id.to_string().into()]).await?;
        for row in rows {
            if self.shared().master.is_hash_of(row.bytes(0)?, secret) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What sign-in needs of an application, from memory where it has not changed.
    pub(crate) async fn client(
        &self,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<Option<Arc<Client>>, DirectoryError> {
        if let Some(client) = self.shared().clients.read().get(&(tenant, app_id)) {
            return Ok(Some(client.clone()));
        }
        let select =
            "SELECT object_id, display_name FROM applications WHERE app_id = $1 AND tenant = $2";
        let id = app_id.to_string();
        let values = [id.as_str().into(), tenant.to_string().into()];
        let rows = self.database().read(select, &values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let select = "SELECT hash, expires FROM secrets WHERE app_id = $1";
        let secrets = self.database().read(select, &[id.as_str().into()]).await?;
        let client = Arc::new(Client {
            object_id: parse_uuid(row.text(0)?)?,
            display_name: row.text(1)?.to_owned(),
            grants: self.grants(&id).await?,
            secrets: (secrets.iter())
                .map(|row| Ok((row.bytes(0)?.to_vec(), time(row.integer(1)?))))
                .collect::<Result<_, DirectoryError>>()?,
        });
        self.shared().clients.write().insert((tenant, app_id), client.clone());
        Ok(Some(client))
    }
}

/// Application permissions of the Defender resource, by the catalogue.
pub(super) fn check_permissions(permissions: &[String]) -> Result<(), DirectoryError> {
    for permission in permissions {
        if !PERMISSIONS.iter().any(|known| known.application && known.name == *permission) {
            let reason = format!("'{permission}' is no application permission of the resource");
            return Err(DirectoryError::Invalid { property: "permissions", reason });
        }
    }
    Ok(())
}

pub(super) fn check_secret(secret: &str) -> Result<(), DirectoryError> {
    if secret.chars().count() >= SHORTEST_SECRET {
        return Ok(());
    }
    let reason = format!("at least {SHORTEST_SECRET} characters are expected");
    Err(DirectoryError::Invalid { property: "secret", reason })
}
