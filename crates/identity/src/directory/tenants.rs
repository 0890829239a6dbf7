//! Tenants and their domains.

use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::{micros, time};
use std::collections::HashMap;
use uuid::Uuid;
use vigie_contract::administration::{
    LabDocument, NewTenant, Tenant, TenantDocument, TenantSettings,
};
use vigie_database::Value;

const TENANT: &str = "tenant";

impl Directory {
    pub async fn create_tenant(
        &self,
        actor: &str,
        new: &NewTenant,
    ) -> Result<Tenant, DirectoryError> {
        check_tenant(new)?;
        let mut domains: Vec<String> = new.domains.iter().map(|d| d.to_lowercase()).collect();
        if domains.is_empty() {
            domains.push(initial_domain(&new.display_name));
        }
        let plan = new.plan.clone().unwrap_or_else(|| "Trial".to_owned());
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let now = self.clock().now();
        let mut transaction = self.database().begin().await?;
        let insert =
            "INSERT INTO tenants (id, display_name, plan, created) VALUES ($1, $2, $3, $4)";
        let values = [
            id.to_string().into(),
            new.display_name.as_str().into(),
            plan.as_str().into(),
            micros(now).into(),
        ];
        transaction.execute(insert, &values).await.map_err(conflict(TENANT, &id.to_string()))?;
        for (place, domain) in domains.iter().enumerate() {
            let insert = "INSERT INTO domains (name, tenant, place) VALUES ($1, $2, $3)";
            let values = [domain.as_str().into(), id.to_string().into(), (place as i64).into()];
            transaction.execute(insert, &values).await.map_err(conflict("domain", domain))?;
        }
        let target = new.display_name.as_str();
        let entry = Entry::change(id, actor, "tenant.create", target);
        self.commit(transaction, entry).await?;
        Ok(Tenant {
            id,
            display_name: new.display_name.clone(),
            domains,
            plan,
            created: now,
            settings: TenantSettings::default(),
            lab: None,
        })
    }

    pub async fn tenants(&self) -> Result<Vec<Tenant>, DirectoryError> {
        self.read_tenants(None).await
    }

    /// One tenant, or all.
    async fn read_tenants(&self, only: Option<Uuid>) -> Result<Vec<Tenant>, DirectoryError> {
        let values: Vec<Value> = only.iter().map(|id| id.to_string().into()).collect();
        let (of_tenant, with_id) = match only {
            Some(_) => (" WHERE tenant = $1", " WHERE id = $1"),
            None => ("", ""),
        };
        let select = format!("SELECT tenant, name FROM domains{of_tenant} ORDER BY place");
        let mut domains: HashMap<String, Vec<String>> = HashMap::new();
        for row in self.database().read(&select, &values).await? {
            domains.entry(row.text(0)?.to_owned()).or_default().push(row.text(1)?.to_owned());
        }
        let select = format!(
            "SELECT id, display_name, plan, created, lab_machines, settings FROM tenants{with_id} \
             ORDER BY created, id"
        );
        let mut tenants = Vec::new();
        for row in self.database().read(&select, &values).await? {
            tenants.push(Tenant {
                id: parse_uuid(row.text(0)?)?,
                display_name: row.text(1)?.to_owned(),
                domains: domains.remove(row.text(0)?).unwrap_or_default(),
                plan: row.text(2)?.to_owned(),
                created: time(row.integer(3)?),
                settings: serde_json::from_str(row.text(5)?).unwrap_or_default(),
                lab: (row.optional_integer(4)?)
                    .and_then(|machines| Some(LabDocument { machines: machines.try_into().ok()? })),
            });
        }
        Ok(tenants)
    }

    /// The tenant of an id or a verified domain.
    pub async fn tenant_id(&self, name: &str) -> Result<Option<Uuid>, DirectoryError> {
        let name = name.to_lowercase();
        let generation = self.generation().await?;
        if let Some(id) = self.shared().tenants.read().get(&name) {
            return Ok(Some(*id));
        }
        let select = match Uuid::try_parse(&name) {
            Ok(_) => "SELECT id FROM tenants WHERE id = $1",
            Err(_) => "SELECT tenant FROM domains WHERE name = $1",
        };
        let rows = self.database().read(select, &[name.as_str().into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id = parse_uuid(row.text(0)?)?;
        self.remember(&self.shared().tenants, generation, name, id);
        Ok(Some(id))
    }

    /// The tenant of an id or a verified domain.
    pub async fn tenant(&self, name: &str) -> Result<Tenant, DirectoryError> {
        let missing = || DirectoryError::NotFound { what: TENANT, name: name.to_owned() };
        let id = self.tenant_id(name).await?.ok_or_else(missing)?;
        self.read_tenants(Some(id)).await?.pop().ok_or_else(missing)
    }

    /// Brings an existing tenant to what a document says of it; returns what changed.
    pub(super) async fn change_tenant(
        &self,
        actor: &str,
        found: &Tenant,
        wanted: &TenantDocument,
    ) -> Result<Vec<String>, DirectoryError> {
        let id = found.id.to_string();
        let mut changes = Vec::new();
        let mut transaction = self.database().begin().await?;
        if found.display_name != wanted.display_name {
            let set = "UPDATE tenants SET display_name = $1 WHERE id = $2";
            let values = [wanted.display_name.as_str().into(), id.as_str().into()];
            transaction.execute(set, &values).await?;
            changes.push(format!("tenant {}: renamed", wanted.display_name));
        }
        if let Some(plan) = wanted.plan.as_ref().filter(|plan| **plan != found.plan) {
            let set = "UPDATE tenants SET plan = $1 WHERE id = $2";
            transaction.execute(set, &[plan.as_str().into(), id.as_str().into()]).await?;
            changes.push(format!("tenant {}: plan {plan}", wanted.display_name));
        }
        let mut place = found.domains.len() as i64;
        for domain in wanted.domains.iter().map(|domain| domain.to_lowercase()) {
            if found.domains.contains(&domain) {
                continue;
            }
            let insert = "INSERT INTO domains (name, tenant, place) VALUES ($1, $2, $3)";
            let values = [domain.as_str().into(), id.as_str().into(), place.into()];
            transaction.execute(insert, &values).await.map_err(conflict("domain", &domain))?;
            place += 1;
            changes.push(format!("tenant {}: domain {domain} added", wanted.display_name));
        }
        if let Some(lab) = wanted.lab.filter(|lab| found.lab != Some(*lab)) {
            let set = "UPDATE tenants SET lab_machines = $1 WHERE id = $2";
            let values = [i64::from(lab.machines).into(), id.as_str().into()];
            transaction.execute(set, &values).await?;
            let text = format!("tenant {}: lab of {} machines", wanted.display_name, lab.machines);
            changes.push(text);
        }
        if let Some(settings) = wanted.settings.as_ref().filter(|s| **s != found.settings) {
            let set = "UPDATE tenants SET settings = $1 WHERE id = $2";
            let values = [serde_json::json!(settings).to_string().into(), id.as_str().into()];
            transaction.execute(set, &values).await?;
            changes.push(format!("tenant {}: settings changed", wanted.display_name));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let entry = Entry::change(found.id, actor, "tenant.change", &wanted.display_name);
        self.commit(transaction, entry).await?;
        Ok(changes)
    }

    /// Replaces how a tenant signs in.
    pub async fn set_tenant_settings(
        &self,
        actor: &str,
        tenant: Uuid,
        settings: &TenantSettings,
    ) -> Result<TenantSettings, DirectoryError> {
        check_settings(settings)?;
        let mut transaction = self.database().begin().await?;
        let set = "UPDATE tenants SET settings = $1 WHERE id = $2";
        let values = [serde_json::json!(settings).to_string().into(), tenant.to_string().into()];
        transaction.execute(set, &values).await?;
        let target = tenant.to_string();
        let entry = Entry::change(tenant, actor, "tenant.settings", &target);
        self.commit(transaction, entry).await?;
        Ok(settings.clone())
    }

    /// Removes a tenant with all that it holds in the directory.
    pub async fn delete_tenant(&self, actor: &str, id: Uuid) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM tenants WHERE id = $1";
        if transaction.execute(delete, &[id.to_string().into()]).await? == 0 {
            return Err(DirectoryError::NotFound { what: TENANT, name: id.to_string() });
        }
        let target = id.to_string();
        let entry = Entry::change(id, actor, "tenant.delete", &target);
        self.commit(transaction, entry).await?;
        Ok(())
    }
}

/// Refuses lifetimes that make no sense.
pub(super) fn check_settings(settings: &TenantSettings) -> Result<(), DirectoryError> {
    let ranges = [
        ("accessTokenSeconds", settings.access_token_seconds, 600..=86_400),
        ("idTokenSeconds", settings.id_token_seconds, 600..=86_400),
        ("refreshTokenDays", settings.refresh_token_days, 1..=365),
        ("sessionHours", settings.session_hours, 1..=720),
    ];
    for (property, value, range) in ranges {
        if !range.contains(&value) {
            let reason = format!("{value} is not within {} and {}", range.start(), range.end());
            return Err(DirectoryError::Invalid { property, reason });
        }
    }
    Ok(())
}

/// Refuses what no tenant can be.
pub(super) fn check_tenant(new: &NewTenant) -> Result<(), DirectoryError> {
    if new.display_name.trim().is_empty() {
        let reason = "a name is expected".to_owned();
        return Err(DirectoryError::Invalid { property: "displayName", reason });
    }
    for domain in &new.domains {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if !domain.contains('.') || !domain.chars().all(allowed) {
            let reason = format!("'{domain}' is no domain name");
            return Err(DirectoryError::Invalid { property: "domains", reason });
        }
    }
    match new.plan.as_deref() {
        None | Some("Trial" | "Paid") => Ok(()),
        Some(plan) => {
            let reason = format!("'{plan}' is neither Trial nor Paid");
            Err(DirectoryError::Invalid { property: "plan", reason })
        }
    }
}

/// `Contoso Ltd.` → `contosoltd.onmicrosoft.com`.
pub(super) fn initial_domain(display_name: &str) -> String {
    let name: String = display_name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let name = if name.is_empty() { "tenant".to_owned() } else { name };
    format!("{name}.onmicrosoft.com")
}
