//! Applications and what their owners decide about them.

use super::lookup::registration;
use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::resource::{PERMISSIONS, delegated_permission};
use crate::{Resource, micros, time};
use uuid::Uuid;
use vigie_contract::administration::{
    Application, NewApplication, NewSecret, ROLE, RedirectUris, Registration,
};

pub(super) const APPLICATION: &str = "application";
/// Display name of the application that administers the installation.
pub(super) const ADMINISTRATION: &str = "Vigie administration";

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
        check_registration(&new.registration)?;
        let app_id = new.app_id.unwrap_or_else(Uuid::new_v4);
        let object_id = Uuid::new_v4();
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO applications (app_id, tenant, object_id, display_name, created, \
                      settings) VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            app_id.to_string().into(),
            tenant.to_string().into(),
            object_id.to_string().into(),
            new.display_name.as_str().into(),
            micros(self.clock().now()).into(),
            serde_json::json!(new.registration).to_string().into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict(APPLICATION, &app_id.to_string()))?;
        self.insert_principal(&mut transaction, tenant, app_id, object_id).await?;
        let resource = Resource::Defender;
        self.replace_roles(&mut transaction, tenant, app_id, resource, &new.permissions).await?;
        let entry = Entry::change(tenant, actor, "application.create", &new.display_name);
        self.commit(transaction, entry).await?;
        self.application(tenant, app_id).await
    }

    /// The application whose tokens may administer this installation.
    pub async fn create_administration(&self, tenant: Uuid) -> Result<Application, DirectoryError> {
        let new =
            NewApplication { display_name: ADMINISTRATION.to_owned(), ..NewApplication::default() };
        let application = self.create_application("first start", tenant, &new).await?;
        let app_id = application.app_id;
        let mut transaction = self.database().begin().await?;
        let roles = [ROLE.to_owned()];
        let resource = Resource::Administration;
        self.replace_roles(&mut transaction, tenant, app_id, resource, &roles).await?;
        // The command line shows machines and hunts with the same application.
        let all: Vec<String> =
            PERMISSIONS.iter().filter(|p| p.application).map(|p| p.name.clone()).collect();
        self.replace_roles(&mut transaction, tenant, app_id, Resource::Defender, &all).await?;
        self.changed(&mut transaction).await?;
        transaction.commit().await?;
        self.forget();
        self.application(tenant, app_id).await
    }

    /// A new secret of the administration application: its tenant, its id, the secret. The
    /// application is made where there is none.
    pub async fn renew_administration(
        &self,
        actor: &str,
    ) -> Result<(Uuid, Uuid, String), DirectoryError> {
        let select = "SELECT a.tenant, a.app_id FROM applications a JOIN role_grants g ON \
                      g.app_id = a.app_id AND g.tenant = a.tenant \
                      WHERE g.resource = $1 AND g.role = $2 ORDER BY a.created";
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

    /// Replaces an application's permissions in its own tenant, with admin consent.
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
        let resource = Resource::Defender;
        self.replace_roles(&mut transaction, tenant, app_id, resource, permissions).await?;
        let target = app_id.to_string();
        let entry = Entry::change(tenant, actor, "application.consent", &target);
        self.commit(transaction, entry).await?;
        self.application(tenant, app_id).await
    }

    /// Replaces what the application's owner decides.
    pub async fn set_registration(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        wanted: &Registration,
    ) -> Result<Application, DirectoryError> {
        check_registration(wanted)?;
        self.application(tenant, app_id).await?;
        let target = app_id.to_string();
        let mut transaction = self.database().begin().await?;
        let set = "UPDATE applications SET settings = $1 WHERE app_id = $2";
        let values = [serde_json::json!(wanted).to_string().into(), target.as_str().into()];
        transaction.execute(set, &values).await?;
        let entry = Entry::change(tenant, actor, "application.change", &target);
        self.commit(transaction, entry).await?;
        self.application(tenant, app_id).await
    }

    pub async fn applications(&self, tenant: Uuid) -> Result<Vec<Application>, DirectoryError> {
        let select = "SELECT app_id, object_id, display_name, created, settings FROM applications \
                      WHERE tenant = $1 ORDER BY created, app_id";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        let mut applications = Vec::new();
        for row in rows {
            let app_id = row.text(0)?;
            let permissions = self.role_grants(tenant, app_id).await?;
            applications.push(Application {
                app_id: parse_uuid(app_id)?,
                object_id: parse_uuid(row.text(1)?)?,
                display_name: row.text(2)?.to_owned(),
                permissions: (permissions.into_iter())
                    .filter(|(resource, _)| *resource == Resource::Defender.name())
                    .map(|(_, role)| role)
                    .collect(),
                registration: registration(row.text(4)?),
                secrets: self.secrets(app_id).await?,
                certificates: self.certificates(app_id).await?,
                federated_credentials: self.federated_credentials(app_id).await?,
                created: time(row.integer(3)?),
            });
        }
        Ok(applications)
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
        let delete = "DELETE FROM applications WHERE app_id = $1";
        let values = [target.as_str().into()];
        self.delete_named(actor, tenant, APPLICATION, &target, delete, &values).await
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

/// Refuses what no registration can say.
pub(super) fn check_registration(wanted: &Registration) -> Result<(), DirectoryError> {
    check_permissions(&wanted.application_permissions)?;
    for scope in &wanted.delegated_permissions {
        if delegated_permission(scope).is_none_or(|known| known.name != *scope) {
            let reason = format!("'{scope}' is no delegated permission of the resource");
            return Err(DirectoryError::Invalid { property: "delegatedPermissions", reason });
        }
    }
    for scope in &wanted.offered_scopes {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if scope.is_empty() || scope.starts_with('.') || !scope.chars().all(allowed) {
            let reason = format!("'{scope}' is no name of a scope");
            return Err(DirectoryError::Invalid { property: "offeredScopes", reason });
        }
    }
    if !matches!(wanted.accepted_token_version, 1 | 2) {
        let reason = "1 or 2 is expected".to_owned();
        return Err(DirectoryError::Invalid { property: "acceptedTokenVersion", reason });
    }
    let RedirectUris { web, spa, public_client } = &wanted.redirect_uris;
    for uri in web.iter().chain(spa).chain(&wanted.logout_uris) {
        check_uri(uri, false)?;
    }
    public_client.iter().try_for_each(|uri| check_uri(uri, true))
}

/// Native applications may have a scheme of their own (RFC 8252, section 7.1); others need HTTPS, or
/// a loopback address.
fn check_uri(uri: &str, native: bool) -> Result<(), DirectoryError> {
    let invalid = |reason: &str| DirectoryError::Invalid {
        property: "redirectUris",
        reason: format!("'{uri}' {reason}"),
    };
    let parsed = url::Url::parse(uri).map_err(|_| invalid("is no URI"))?;
    if parsed.fragment().is_some() || uri.contains('*') {
        return Err(invalid("has a fragment or a wildcard"));
    }
    let loopback = matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" | "javascript" | "data" | "file" | "vbscript" | "about" | "blob" => {
            Err(invalid("needs https, or http to a loopback address"))
        }
        _ if native => Ok(()),
        _ => Err(invalid("has a scheme that only native applications may use")),
    }
}
