//! Tenants as a document: applied until nothing is left to change, and written.

use super::access::{check_device_group, check_role};
use super::applications::{ADMINISTRATION, check_permissions, check_registration};
use super::credentials::{check_federated, check_secret, thumbprint};
use super::principals::check_delegated;
use super::tenants::{check_settings, check_tenant, initial_domain};
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
        given_name: wanted.given_name.clone(),
        surname: wanted.surname.clone(),
        password,
        roles: wanted.roles.clone(),
    })
}

/// What a document says of a service principal. `foreign`: its permissions are told too, since no
/// application of the same document tells them.
fn consent_document(principal: &ServicePrincipal, foreign: bool) -> ConsentDocument {
    let grants = principal.delegated.iter().filter(|grant| grant.user.is_none());
    let scopes = grants.filter(|grant| grant.resource == DEFENDER);
    ConsentDocument {
        app_id: principal.app_id,
        permissions: foreign.then(|| principal.permissions.clone()),
        delegated: scopes.flat_map(|grant| grant.scopes.clone()).collect(),
    }
}

const DEFENDER: &str = "WindowsDefenderATP";

fn everybody(consent: &ConsentDocument) -> DelegatedGrant {
    let (resource, scopes) = (DEFENDER.to_owned(), consent.delegated.clone());
    DelegatedGrant { user: None, resource, scopes }
}

impl Directory {
    /// Brings tenants to the state that the document describes. A document that is wrong somewhere
    /// changes nothing.
    pub async fn apply(&self, actor: &str, document: &Document) -> Result<Applied, DirectoryError> {
        let registered: Vec<Uuid> = (document.tenants.iter())
            .flat_map(|tenant| tenant.applications.iter().filter_map(|app| app.app_id))
            .collect();
        for wanted in &document.tenants {
            self.check(wanted).await?;
            self.check_names(wanted, &registered).await?;
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
                    if self.apply_user(actor, tenant, found, wanted).await? {
                        applied.changes.push(format!("user {name}: changed"));
                    }
                    continue;
                }
                self.create_user(actor, tenant, &new_user(wanted)?).await?;
                applied.changes.push(format!("user {name}: created"));
            }
            self.apply_groups(actor, tenant, wanted, &mut applied).await?;
        }
        // Consent names applications of any tenant, so all of them are there first.
        for wanted in &document.tenants {
            if let Some(tenant) = self.find(wanted).await? {
                self.apply_consents(actor, tenant.id, wanted, &mut applied).await?;
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
        wanted.settings.as_ref().map_or(Ok(()), check_settings)?;
        wanted.roles.iter().try_for_each(check_role)?;
        wanted.device_groups.iter().try_for_each(check_device_group)?;
        for consent in &wanted.consents {
            check_permissions(consent.permissions.as_deref().unwrap_or_default())?;
            check_delegated(&everybody(consent))?;
        }
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
            application.registration.as_ref().map_or(Ok(()), check_registration)?;
            application.certificates.iter().try_for_each(|pem| thumbprint(pem).map(|_| ()))?;
            application.federated_credentials.iter().try_for_each(check_federated)?;
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

    /// Refuses names of groups, users and applications that are neither there nor in the document.
    async fn check_names(
        &self,
        wanted: &TenantDocument,
        registered: &[Uuid],
    ) -> Result<(), DirectoryError> {
        let (mut groups, mut users) = (Vec::new(), Vec::new());
        if let Some(tenant) = self.find(wanted).await? {
            let found = self.groups(tenant.id).await?.into_iter();
            groups.extend(found.map(|group| group.content.display_name));
            let found = self.users(tenant.id).await?.into_iter();
            users.extend(found.map(|user| user.user_principal_name));
        }
        groups.extend(wanted.groups.iter().map(|group| group.display_name.clone()));
        users.extend(wanted.users.iter().map(|user| user.user_principal_name.to_lowercase()));
        let of_roles = wanted.roles.iter().flat_map(|role| &role.groups);
        let of_devices = wanted.device_groups.iter().flat_map(|group| &group.groups);
        if let Some(name) = of_roles.chain(of_devices).find(|name| !groups.contains(name)) {
            return Err(DirectoryError::NotFound { what: "group", name: name.clone() });
        }
        let mut members = wanted.groups.iter().flat_map(|group| &group.members);
        if let Some(name) = members.find(|name| !users.contains(&name.to_lowercase())) {
            return Err(DirectoryError::NotFound { what: "user", name: name.clone() });
        }
        for consent in &wanted.consents {
            let id = consent.app_id;
            if !registered.contains(&id) && self.owner(id).await?.is_none() {
                let name = id.to_string();
                return Err(DirectoryError::NotFound { what: "application", name });
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
                if let Some(registration) = &wanted.registration
                    && *registration != found.registration
                {
                    self.set_registration(actor, tenant, found.app_id, registration).await?;
                    applied.changes.push(format!("application {name}: registration changed"));
                }
                found.app_id
            }
            None => {
                let new = NewApplication {
                    app_id: wanted.app_id,
                    display_name: name.clone(),
                    permissions: wanted.permissions.clone(),
                    registration: wanted.registration.clone().unwrap_or_default(),
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
        self.apply_keys(actor, tenant, app_id, wanted, applied).await
    }

    async fn apply_keys(
        &self,
        actor: &str,
        tenant: Uuid,
        app_id: Uuid,
        wanted: &ApplicationDocument,
        applied: &mut Applied,
    ) -> Result<(), DirectoryError> {
        let name = &wanted.display_name;
        let found = self.application(tenant, app_id).await?;
        for certificate in &wanted.certificates {
            let thumbprint = thumbprint(certificate)?;
            if found.certificates.iter().any(|known| known.thumbprint == thumbprint) {
                continue;
            }
            let new = NewCertificate {
                display_name: Some("applied".to_owned()),
                certificate: certificate.clone(),
            };
            self.add_certificate(actor, tenant, app_id, &new).await?;
            applied.changes.push(format!("application {name}: certificate added"));
        }
        for new in &wanted.federated_credentials {
            let known = found.federated_credentials.iter().find(|c| c.content.name == new.name);
            if known.is_some_and(|known| known.content == *new) {
                continue;
            }
            if let Some(known) = known {
                self.remove_federated_credential(actor, tenant, app_id, known.id).await?;
            }
            self.add_federated_credential(actor, tenant, app_id, new).await?;
            let text = format!("application {name}: federated credential {} set", new.name);
            applied.changes.push(text);
        }
        Ok(())
    }

    /// Groups first: roles and device groups name them.
    async fn apply_groups(
        &self,
        actor: &str,
        tenant: Uuid,
        wanted: &TenantDocument,
        applied: &mut Applied,
    ) -> Result<(), DirectoryError> {
        let found = self.groups(tenant).await?;
        for new in &wanted.groups {
            let mut new = new.clone();
            new.members.iter_mut().for_each(|name| *name = name.to_lowercase());
            new.members.sort();
            if !found.iter().any(|group| group.content == new) {
                self.put_group(actor, tenant, &new).await?;
                applied.changes.push(format!("group {}: set", new.display_name));
            }
        }
        let found = self.rbac_roles(tenant).await?;
        for new in &wanted.roles {
            if !found.iter().any(|role| role.content == *new) {
                self.put_rbac_role(actor, tenant, new).await?;
                applied.changes.push(format!("role {}: set", new.display_name));
            }
        }
        let found = self.device_groups(tenant).await?;
        for new in &wanted.device_groups {
            if !found.iter().any(|group| group.content == *new) {
                self.put_device_group(actor, tenant, new).await?;
                applied.changes.push(format!("device group {}: set", new.name));
            }
        }
        Ok(())
    }

    async fn apply_consents(
        &self,
        actor: &str,
        tenant: Uuid,
        wanted: &TenantDocument,
        applied: &mut Applied,
    ) -> Result<(), DirectoryError> {
        let found = self.service_principals(tenant).await?;
        for consent in &wanted.consents {
            let principal = found.iter().find(|principal| principal.app_id == consent.app_id);
            let now = principal.map(|principal| consent_document(principal, true));
            let same = now.is_some_and(|now| {
                now.delegated == consent.delegated
                    && (consent.permissions.is_none() || now.permissions == consent.permissions)
            });
            if same {
                continue;
            }
            // What users consented to for themselves stays.
            let own = principal.into_iter().flat_map(|principal| principal.delegated.clone());
            let mut delegated: Vec<DelegatedGrant> =
                own.filter(|grant| grant.user.is_some()).collect();
            delegated.push(everybody(consent));
            let change = ServicePrincipalChange {
                permissions: consent.permissions.clone(),
                delegated: Some(delegated),
                ..ServicePrincipalChange::default()
            };
            self.change_service_principal(actor, tenant, consent.app_id, &change).await?;
            applied.changes.push(format!("consent for {}: set", consent.app_id));
        }
        Ok(())
    }

    /// All tenants, without secrets and passwords and without the administration application.
    pub async fn export(&self) -> Result<Document, DirectoryError> {
        let mut document = Document::default();
        for tenant in self.tenants().await? {
            let applications = self.applications(tenant.id).await?;
            let users = self.users(tenant.id).await?;
            let groups = self.groups(tenant.id).await?;
            let roles = self.rbac_roles(tenant.id).await?;
            let device_groups = self.device_groups(tenant.id).await?;
            let principals = self.service_principals(tenant.id).await?;
            document.tenants.push(TenantDocument {
                id: Some(tenant.id),
                display_name: tenant.display_name,
                domains: tenant.domains,
                plan: Some(tenant.plan),
                settings: Some(tenant.settings)
                    .filter(|settings| *settings != TenantSettings::default()),
                applications: (applications.into_iter())
                    .filter(|application| application.display_name != ADMINISTRATION)
                    .map(|application| ApplicationDocument {
                        app_id: Some(application.app_id),
                        display_name: application.display_name,
                        permissions: application.permissions,
                        registration: Some(application.registration)
                            .filter(|registration| *registration != Registration::default()),
                        secrets: Vec::new(),
                        certificates: Vec::new(),
                        federated_credentials: (application.federated_credentials.into_iter())
                            .map(|credential| credential.content)
                            .collect(),
                    })
                    .collect(),
                users: (users.into_iter())
                    .map(|user| UserDocument {
                        user_principal_name: user.user_principal_name,
                        display_name: Some(user.display_name),
                        password: None,
                        given_name: user.given_name,
                        surname: user.surname,
                        roles: user.roles,
                        enabled: user.enabled,
                    })
                    .collect(),
                groups: groups.into_iter().map(|group| group.content).collect(),
                roles: roles.into_iter().map(|role| role.content).collect(),
                device_groups: device_groups.iter().map(|group| group.content.clone()).collect(),
                consents: (principals.iter())
                    .map(|principal| {
                        consent_document(principal, principal.owner_tenant != tenant.id)
                    })
                    .filter(|consent| {
                        consent.permissions.is_some() || !consent.delegated.is_empty()
                    })
                    .collect(),
                lab: tenant.lab,
            });
        }
        Ok(document)
    }
}
