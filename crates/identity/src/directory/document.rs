//! Tenants as a document: applied until nothing is left to change, and written.

use super::applications::{check_permissions, check_secret};
use super::tenants::{check_tenant, initial_domain};
use super::users::{check_roles, check_user};
use super::{Directory, DirectoryError};
use uuid::Uuid;
use vigie_contract::administration::*;

fn new_tenant(wanted: &TenantDocument) -> NewTenant {
    NewTenant {
        id: wanted.id,
        display_name: wanted.display_name.clone(),
        domains: wanted.domains.clone(),
        plan: wanted.plan.clone(),
    }
}

/// Errors: the document gives no password, which a new user needs.
fn new_user(wanted: &UserDocument) -> Result<NewUser, DirectoryError> {
    let Some(password) = wanted.password.clone() else {
        let reason = format!("{} is new and needs one", wanted.user_principal_name);
        return Err(DirectoryError::Invalid { property: "password", reason });
    };
    Ok(NewUser {
        id: None,
        user_principal_name: wanted.user_principal_name.clone(),
        display_name: wanted.display_name.clone(),
        password,
        roles: wanted.roles.clone(),
    })
}

impl Directory {
    /// Brings tenants to the state that the document describes. A document that is wrong somewhere
    /// changes nothing.
    pub async fn apply(&self, actor: &str, document: &Document) -> Result<Applied, DirectoryError> {
        for wanted in &document.tenants {
            self.check(wanted).await?;
        }
        let mut applied = Applied::default();
        for wanted in &document.tenants {
            let tenant = self.apply_tenant(actor, wanted, &mut applied).await?;
            for application in &wanted.applications {
                self.apply_application(actor, tenant, application, &mut applied).await?;
            }
            let users = self.users(tenant).await?;
            for wanted in &wanted.users {
                let name = wanted.user_principal_name.to_lowercase();
                if let Some(found) = users.iter().find(|user| user.user_principal_name == name) {
                    if self.change_user(actor, tenant, found, wanted).await? {
                        applied.changes.push(format!("user {name}: changed"));
                    }
                    continue;
                }
                self.create_user(actor, tenant, &new_user(wanted)?).await?;
                applied.changes.push(format!("user {name}: created"));
            }
        }
        Ok(applied)
    }

    async fn find(&self, wanted: &TenantDocument) -> Result<Option<Tenant>, DirectoryError> {
        let tenants = self.tenants().await?;
        Ok(tenants.into_iter().find(|tenant| match (&wanted.id, wanted.domains.first()) {
            (Some(id), _) => tenant.id == *id,
            (None, Some(domain)) => tenant.domains.contains(&domain.to_lowercase()),
            (None, None) => tenant.display_name == wanted.display_name,
        }))
    }

    /// Refuses before the first change what a later step would refuse.
    async fn check(&self, wanted: &TenantDocument) -> Result<(), DirectoryError> {
        check_tenant(&new_tenant(wanted))?;
        let found = self.find(wanted).await?;
        let mut domains = wanted.domains.clone();
        for domain in &domains {
            let owner = self.tenant_id(domain).await?;
            if owner.is_some() && owner != found.as_ref().map(|tenant| tenant.id) {
                return Err(DirectoryError::Conflict { what: "domain", name: domain.clone() });
            }
        }
        if domains.is_empty() && found.is_none() {
            domains.push(initial_domain(&wanted.display_name));
        }
        domains.extend(found.iter().flat_map(|tenant| tenant.domains.iter().cloned()));
        for application in &wanted.applications {
            check_permissions(&application.permissions)?;
            for secret in &application.secrets {
                check_secret(&secret.secret)?;
            }
        }
        let users = match &found {
            Some(tenant) => self.users(tenant.id).await?,
            None => Vec::new(),
        };
        for wanted in &wanted.users {
            let name = wanted.user_principal_name.to_lowercase();
            match users.iter().any(|user| user.user_principal_name == name) {
                true => check_roles(&wanted.roles)?,
                false => check_user(&new_user(wanted)?, &domains)?,
            }
        }
        Ok(())
    }

    async fn apply_tenant(
        &self,
        actor: &str,
        wanted: &TenantDocument,
        applied: &mut Applied,
    ) -> Result<Uuid, DirectoryError> {
        let tenant = match self.find(wanted).await? {
            Some(found) => found,
            None => {
                let made = self.create_tenant(actor, &new_tenant(wanted)).await?;
                applied.changes.push(format!("tenant {}: created", made.display_name));
                made
            }
        };
        applied.changes.extend(self.change_tenant(actor, &tenant, wanted).await?);
        Ok(tenant.id)
    }

    async fn apply_application(
        &self,
        actor: &str,
        tenant: Uuid,
        wanted: &ApplicationDocument,
        applied: &mut Applied,
    ) -> Result<(), DirectoryError> {
        let name = &wanted.display_name;
        let existing = self.applications(tenant).await?;
        let found = existing.iter().find(|application| match &wanted.app_id {
            Some(id) => application.app_id == *id,
            None => application.display_name == *name,
        });
        let app_id = match found {
            Some(found) => {
                let mut permissions = wanted.permissions.clone();
                permissions.sort();
                permissions.dedup();
                if found.permissions != permissions {
                    self.set_permissions(actor, tenant, found.app_id, &permissions).await?;
                    applied.changes.push(format!("application {name}: permissions changed"));
                }
                found.app_id
            }
            None => {
                let new = NewApplication {
                    app_id: wanted.app_id,
                    display_name: name.clone(),
                    permissions: wanted.permissions.clone(),
                };
                let created = self.create_application(actor, tenant, &new).await?;
                applied.changes.push(format!("application {name}: created"));
                created.app_id
            }
        };
        for secret in &wanted.secrets {
            if self.has_secret(app_id, &secret.secret).await? {
                continue;
            }
            let new = NewSecret {
                display_name: Some("applied".to_owned()),
                expires: secret.expires,
                secret: Some(secret.secret.clone()),
            };
            self.add_secret(actor, tenant, app_id, &new).await?;
            applied.changes.push(format!("application {name}: secret added"));
        }
        Ok(())
    }

    /// All tenants, without secrets and passwords and without the administration application.
    pub async fn export(&self) -> Result<Document, DirectoryError> {
        let mut document = Document::default();
        for tenant in self.tenants().await? {
            let applications = self.applications(tenant.id).await?;
            let users = self.users(tenant.id).await?;
            document.tenants.push(TenantDocument {
                id: Some(tenant.id),
                display_name: tenant.display_name,
                domains: tenant.domains,
                plan: Some(tenant.plan),
                applications: (applications.into_iter())
                    .filter(|application| application.display_name != "Vigie administration")
                    .map(|application| ApplicationDocument {
                        app_id: Some(application.app_id),
                        display_name: application.display_name,
                        permissions: application.permissions,
                        secrets: Vec::new(),
                    })
                    .collect(),
                users: (users.into_iter())
                    .map(|user| UserDocument {
                        user_principal_name: user.user_principal_name,
                        display_name: Some(user.display_name),
                        password: None,
                        roles: user.roles,
                    })
                    .collect(),
                lab: tenant.lab,
            });
        }
        Ok(document)
    }
}
