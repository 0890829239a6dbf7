//! Service principals: applications in the tenants that use them, and what was consented to there.

use super::applications::check_permissions;
use super::{Directory, DirectoryError, parse_uuid};
use crate::audit::Entry;
use crate::resource::delegated_permission;
use crate::{Resource, micros};
use std::collections::BTreeMap;
use uuid::Uuid;
use vigie_contract::administration::{DelegatedGrant, ServicePrincipal, ServicePrincipalChange};
use vigie_database::Transaction;

const PRINCIPAL: &str = "service principal";
/// Stands for every user in stored grants.
const EVERYBODY: &str = "";

impl Directory {
    pub(super) async fn insert_principal(
        &self,
        transaction: &mut Transaction,
        tenant: Uuid,
        app_id: Uuid,
        object_id: Uuid,
    ) -> Result<(), DirectoryError> {
        let insert = "INSERT INTO service_principals (object_id, tenant, app_id, enabled, \
                      assignment_required, created) VALUES ($1, $2, $3, $4, $5, $6) \
                      ON CONFLICT (tenant, app_id) DO NOTHING";
        let values = [
            object_id.to_string().into(),
            tenant.to_string().into(),
            app_id.to_string().into(),
            true.into(),
            false.into(),
            micros(self.clock().now()).into(),
        ];
        transaction.execute(insert, &values).await?;
        Ok(())
    }

    pub(super) async fn replace_roles(
        &self,
        transaction: &mut Transaction,
        tenant: Uuid,
        app_id: Uuid,
        resource: Resource,
        roles: &[String],
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM role_grants WHERE tenant = $1 AND app_id = $2 AND resource = $3";
        let (tenant, app_id) = (tenant.to_string(), app_id.to_string());
        let (tenant, app_id) = (tenant.as_str(), app_id.as_str());
        let values = [tenant.into(), app_id.into(), resource.name().into()];
        transaction.execute(delete, &values).await?;
        for role in roles {
            let insert = "INSERT INTO role_grants (tenant, app_id, resource, role) \
                          VALUES ($1, $2, $3, $4) \
                          ON CONFLICT (tenant, app_id, resource, role) DO NOTHING";
            let values =
                [tenant.into(), app_id.into(), resource.name().into(), role.as_str().into()];
            transaction.execute(insert, &values).await?;
        }
        Ok(())
    }

    /// Resource name and application permission, of one application in one tenant.
    pub(super) async fn role_grants(
        &self,
        tenant: Uuid,
        app_id: &str,
    ) -> Result<Vec<(String, String)>, DirectoryError> {
        let select = "SELECT resource, role FROM role_grants WHERE tenant = $1 AND app_id = $2 \
                      ORDER BY resource, role";
        let rows =
            self.database().read(select, &[tenant.to_string().into(), app_id.into()]).await?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    /// Delegated scopes of a resource that the user or an administrator consented to.
    pub(crate) async fn granted_scopes(
        &self,
        tenant: Uuid,
        app_id: Uuid,
        user: Uuid,
        resource: Resource,
    ) -> Result<Vec<String>, DirectoryError> {
        let select = "SELECT DISTINCT scope FROM scope_grants WHERE tenant = $1 AND app_id = $2 \
                      AND resource = $3 AND (user_id = $4 OR user_id = '') ORDER BY scope";
        let values = [
            tenant.to_string().into(),
            app_id.to_string().into(),
            resource.name().into(),
            user.to_string().into(),
        ];
        let rows = self.database().read(select, &values).await?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// Stores consent. `user` is who consents for themselves; `None`: an administrator, for all.
    pub(crate) async fn consent(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        user: Option<Uuid>,
        scopes: &[(Resource, String)],
        roles: &[String],
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        self.insert_principal(&mut transaction, tenant, app_id, Uuid::new_v4()).await?;
        let (tenant_id, target) = (tenant.to_string(), app_id.to_string());
        let user = user.map_or(EVERYBODY.to_owned(), |user| user.to_string());
        for (resource, scope) in scopes {
            let insert = "INSERT INTO scope_grants (tenant, app_id, resource, user_id, scope) \
                          VALUES ($1, $2, $3, $4, $5) \
                          ON CONFLICT (tenant, app_id, resource, user_id, scope) DO NOTHING";
            let values = [
                tenant_id.as_str().into(),
                target.as_str().into(),
                resource.name().into(),
                user.as_str().into(),
                scope.as_str().into(),
            ];
            transaction.execute(insert, &values).await?;
        }
        for role in roles {
            let insert = "INSERT INTO role_grants (tenant, app_id, resource, role) \
                          VALUES ($1, $2, $3, $4) \
                          ON CONFLICT (tenant, app_id, resource, role) DO NOTHING";
            let values = [
                tenant_id.as_str().into(),
                target.as_str().into(),
                Resource::Defender.name().into(),
                role.as_str().into(),
            ];
            transaction.execute(insert, &values).await?;
        }
        let action = if user.is_empty() { "consent.admin" } else { "consent.user" };
        self.commit(transaction, Entry::change(tenant, actor, action, &target)).await?;
        Ok(())
    }

    /// Whether the user is assigned to the application.
    pub(crate) async fn is_assigned(
        &self,
        tenant: Uuid,
        app_id: Uuid,
        user: Uuid,
    ) -> Result<bool, DirectoryError> {
        let select = "SELECT 1 FROM assignments WHERE tenant = $1 AND app_id = $2 AND user_id = $3";
        let values =
            [tenant.to_string().into(), app_id.to_string().into(), user.to_string().into()];
        Ok(!self.database().read(select, &values).await?.is_empty())
    }

    /// All applications in use in a tenant.
    pub async fn service_principals(
        &self,
        tenant: Uuid,
    ) -> Result<Vec<ServicePrincipal>, DirectoryError> {
        let select = "SELECT s.object_id, s.app_id, a.display_name, a.tenant, s.enabled, \
                      s.assignment_required FROM service_principals s JOIN applications a \
                      ON a.app_id = s.app_id WHERE s.tenant = $1 ORDER BY s.created, s.app_id";
        let mut principals = Vec::new();
        for row in self.database().read(select, &[tenant.to_string().into()]).await? {
            let app_id = row.text(1)?;
            let roles = self.role_grants(tenant, app_id).await?;
            principals.push(ServicePrincipal {
                object_id: parse_uuid(row.text(0)?)?,
                app_id: parse_uuid(app_id)?,
                display_name: row.text(2)?.to_owned(),
                owner_tenant: parse_uuid(row.text(3)?)?,
                enabled: row.flag(4)?,
                assignment_required: row.flag(5)?,
                assigned_users: self.assigned(tenant, app_id).await?,
                permissions: (roles.into_iter())
                    .filter(|(resource, _)| *resource == Resource::Defender.name())
                    .map(|(_, role)| role)
                    .collect(),
                delegated: self.delegated(tenant, app_id).await?,
            });
        }
        Ok(principals)
    }

    async fn assigned(&self, tenant: Uuid, app_id: &str) -> Result<Vec<Uuid>, DirectoryError> {
        let select = "SELECT user_id FROM assignments WHERE tenant = $1 AND app_id = $2 \
                      ORDER BY user_id";
        let rows =
            self.database().read(select, &[tenant.to_string().into(), app_id.into()]).await?;
        rows.iter().map(|row| parse_uuid(row.text(0)?)).collect()
    }

    async fn delegated(
        &self,
        tenant: Uuid,
        app_id: &str,
    ) -> Result<Vec<DelegatedGrant>, DirectoryError> {
        let select = "SELECT user_id, resource, scope FROM scope_grants WHERE tenant = $1 \
                      AND app_id = $2 ORDER BY user_id, resource, scope";
        let rows =
            self.database().read(select, &[tenant.to_string().into(), app_id.into()]).await?;
        let mut grants: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for row in &rows {
            let key = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
            grants.entry(key).or_default().push(row.text(2)?.to_owned());
        }
        let grants = grants.into_iter().map(|((user, resource), scopes)| DelegatedGrant {
            user: Uuid::try_parse(&user).ok(),
            resource,
            scopes,
        });
        Ok(grants.collect())
    }

    pub async fn service_principal(
        &self,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<ServicePrincipal, DirectoryError> {
        let found = self.service_principals(tenant).await?.into_iter().find(|p| p.app_id == app_id);
        found.ok_or_else(|| DirectoryError::NotFound { what: PRINCIPAL, name: app_id.to_string() })
    }

    /// Changes what an application may do in a tenant; makes its service principal if missing, which
    /// is an administrator's consent.
    pub async fn change_service_principal(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        change: &ServicePrincipalChange,
    ) -> Result<ServicePrincipal, DirectoryError> {
        if let Some(permissions) = &change.permissions {
            check_permissions(permissions)?;
        }
        change.delegated.iter().flatten().try_for_each(check_delegated)?;
        let missing = || DirectoryError::NotFound { what: "application", name: app_id.to_string() };
        self.client(tenant, app_id).await?.ok_or_else(missing)?;
        let mut transaction = self.database().begin().await?;
        self.insert_principal(&mut transaction, tenant, app_id, Uuid::new_v4()).await?;
        let (tenant_id, target) = (tenant.to_string(), app_id.to_string());
        let (t, a) = (tenant_id.as_str(), target.as_str());
        for (column, value) in
            [("enabled", change.enabled), ("assignment_required", change.assignment_required)]
        {
            if let Some(value) = value {
                let set = format!(
                    "UPDATE service_principals SET {column} = $1 WHERE tenant = $2 AND app_id = $3"
                );
                transaction.execute(&set, &[value.into(), t.into(), a.into()]).await?;
            }
        }
        if let Some(users) = &change.assigned_users {
            let delete = "DELETE FROM assignments WHERE tenant = $1 AND app_id = $2";
            transaction.execute(delete, &[t.into(), a.into()]).await?;
            for user in users {
                let insert = "INSERT INTO assignments (tenant, app_id, user_id) VALUES ($1, $2, $3) \
                              ON CONFLICT (tenant, app_id, user_id) DO NOTHING";
                let values = [t.into(), a.into(), user.to_string().into()];
                transaction.execute(insert, &values).await?;
            }
        }
        if let Some(permissions) = &change.permissions {
            let resource = Resource::Defender;
            self.replace_roles(&mut transaction, tenant, app_id, resource, permissions).await?;
        }
        if let Some(grants) = &change.delegated {
            let delete = "DELETE FROM scope_grants WHERE tenant = $1 AND app_id = $2";
            transaction.execute(delete, &[t.into(), a.into()]).await?;
            for grant in grants {
                let user = grant.user.map_or(EVERYBODY.to_owned(), |user| user.to_string());
                for scope in &grant.scopes {
                    let insert = "INSERT INTO scope_grants (tenant, app_id, resource, user_id, \
                                  scope) VALUES ($1, $2, $3, $4, $5) \
                                  ON CONFLICT (tenant, app_id, resource, user_id, scope) DO NOTHING";
                    let values = [
                        t.into(),
                        a.into(),
                        grant.resource.as_str().into(),
                        user.as_str().into(),
                        scope.as_str().into(),
                    ];
                    transaction.execute(insert, &values).await?;
                }
            }
        }
        let entry = Entry::change(tenant, actor, "servicePrincipal.change", &target);
        self.commit(transaction, entry).await?;
        self.service_principal(tenant, app_id).await
    }

    /// Withdraws an application from a tenant, with all consent; in its own tenant it stays
    /// registered.
    pub async fn delete_service_principal(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
    ) -> Result<(), DirectoryError> {
        let target = app_id.to_string();
        let delete = "DELETE FROM service_principals WHERE tenant = $1 AND app_id = $2";
        let values = [tenant.to_string().into(), target.as_str().into()];
        self.delete_named(actor, tenant, "servicePrincipal", &target, delete, &values).await
    }
}

/// Refuses scopes that the resource does not have.
pub(super) fn check_delegated(grant: &DelegatedGrant) -> Result<(), DirectoryError> {
    if grant.resource != Resource::Defender.name() {
        let known = grant.resource == Resource::Directory.name()
            || Uuid::try_parse(&grant.resource).is_ok();
        if known {
            return Ok(());
        }
        let reason =
            format!("'{}' is neither WindowsDefenderATP nor an application", grant.resource);
        return Err(DirectoryError::Invalid { property: "resource", reason });
    }
    for scope in &grant.scopes {
        if delegated_permission(scope).is_none_or(|known| known.name != *scope) {
            let reason = format!("'{scope}' is no delegated permission of the resource");
            return Err(DirectoryError::Invalid { property: "scopes", reason });
        }
    }
    Ok(())
}
