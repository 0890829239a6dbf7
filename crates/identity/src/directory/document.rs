//! Tenants as a document: applied until nothing is left to change, and written.

use super::{Directory, DirectoryError};
use uuid::Uuid;
use vigie_contract::administration::*;

impl Directory {
    /// Brings tenants to the state that the document describes.
    pub async fn apply(&self, actor: &str, document: &Document) -> Result<Applied, DirectoryError> {
        let mut applied = Applied::default();
        for wanted in &document.tenants {
            let tenant = self.apply_tenant(actor, wanted, &mut applied).await?;
            for application in &wanted.applications {
                self.apply_application(actor, tenant, application, &mut applied).await?;
            }
            let users = self.users(tenant).await?;
            for wanted in &wanted.users {
                let name = wanted.user_principal_name.to_lowercase();
                if users.iter().any(|user| user.user_principal_name == name) {
                    continue;
                }
                let Some(password) = wanted.password.clone() else {
                    let reason = format!("{name} is new and needs one");
                    return Err(DirectoryError::Invalid { property: "password", reason });
                };
                let new = NewUser {
                    id: None,
                    user_principal_name: name.clone(),
                    display_name: wanted.display_name.clone(),
                    password,
                    roles: wanted.roles.clone(),
                };
                self.create_user(actor, tenant, &new).await?;
                applied.changes.push(format!("user {name}: created"));
            }
        }
        Ok(applied)
    }

    async fn apply_tenant(
        &self,
        actor: &str,
        wanted: &TenantDocument,
        applied: &mut Applied,
    ) -> Result<Uuid, DirectoryError> {
        let tenants = self.tenants().await?;
        let found = tenants.iter().find(|tenant| match (&wanted.id, wanted.domains.first()) {
            (Some(id), _) => tenant.id == *id,
            (None, Some(domain)) => tenant.domains.contains(&domain.to_lowercase()),
            (None, None) => tenant.display_name == wanted.display_name,
        });
        if let Some(found) = found {
            return Ok(found.id);
        }
        let new = NewTenant {
            id: wanted.id,
            display_name: wanted.display_name.clone(),
            domains: wanted.domains.clone(),
            plan: wanted.plan.clone(),
        };
        let tenant = self.create_tenant(actor, &new).await?;
        applied.changes.push(format!("tenant {}: created", tenant.display_name));
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
                lab: None,
            });
        }
        Ok(document)
    }
}
