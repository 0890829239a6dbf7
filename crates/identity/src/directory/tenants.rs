//! Tenants and their domains.

use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::{micros, time};
use uuid::Uuid;
use vigie_contract::administration::{NewTenant, Tenant};

const TENANT: &str = "tenant";

impl Directory {
    pub async fn create_tenant(
        &self,
        actor: &str,
        new: &NewTenant,
    ) -> Result<Tenant, DirectoryError> {
        if new.display_name.trim().is_empty() {
            let reason = "a name is expected".to_owned();
            return Err(DirectoryError::Invalid { property: "displayName", reason });
        }
        let mut domains: Vec<String> = new.domains.iter().map(|d| d.to_lowercase()).collect();
        if domains.is_empty() {
            domains.push(initial_domain(&new.display_name));
        }
        for domain in &domains {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            if !domain.contains('.') || !domain.chars().all(allowed) {
                let reason = format!("'{domain}' is no domain name");
                return Err(DirectoryError::Invalid { property: "domains", reason });
            }
        }
        let plan = new.plan.clone().unwrap_or_else(|| "Trial".to_owned());
        if !matches!(plan.as_str(), "Trial" | "Paid") {
            let reason = format!("'{plan}' is neither Trial nor Paid");
            return Err(DirectoryError::Invalid { property: "plan", reason });
        }
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
        let entry =
            Entry { tenant: Some(id), actor, action: "tenant.create", target, outcome: "success" };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(Tenant { id, display_name: new.display_name.clone(), domains, plan, created: now })
    }

    pub async fn tenants(&self) -> Result<Vec<Tenant>, DirectoryError> {
        let select = "SELECT id, display_name, plan, created FROM tenants ORDER BY created, id";
        let mut tenants = Vec::new();
        for row in self.database().read(select, &[]).await? {
            tenants.push(Tenant {
                id: parse_uuid(row.text(0)?)?,
                display_name: row.text(1)?.to_owned(),
                domains: self.domains(row.text(0)?).await?,
                plan: row.text(2)?.to_owned(),
                created: time(row.integer(3)?),
            });
        }
        Ok(tenants)
    }

    async fn domains(&self, tenant: &str) -> Result<Vec<String>, DirectoryError> {
        let select = "SELECT name FROM domains WHERE tenant = $1 ORDER BY place";
        let rows = self.database().read(select, &[tenant.into()]).await?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// The tenant of an id or a verified domain.
    pub async fn tenant_id(&self, name: &str) -> Result<Option<Uuid>, DirectoryError> {
        let name = name.to_lowercase();
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
        self.shared().tenants.write().insert(name, id);
        Ok(Some(id))
    }

    /// The tenant of an id or a verified domain.
    pub async fn tenant(&self, name: &str) -> Result<Tenant, DirectoryError> {
        let missing = || DirectoryError::NotFound { what: TENANT, name: name.to_owned() };
        let id = self.tenant_id(name).await?.ok_or_else(missing)?;
        let tenants = self.tenants().await?;
        tenants.into_iter().find(|tenant| tenant.id == id).ok_or_else(missing)
    }

    /// Removes a tenant with all that it holds in the directory.
    pub async fn delete_tenant(&self, actor: &str, id: Uuid) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        let delete = "DELETE FROM tenants WHERE id = $1";
        if transaction.execute(delete, &[id.to_string().into()]).await? == 0 {
            return Err(DirectoryError::NotFound { what: TENANT, name: id.to_string() });
        }
        let target = id.to_string();
        let entry = Entry {
            tenant: Some(id),
            actor,
            action: "tenant.delete",
            target: &target,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(())
    }
}

/// `Contoso Ltd.` → `contosoltd.onmicrosoft.com`.
fn initial_domain(display_name: &str) -> String {
    let name: String = display_name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let name = if name.is_empty() { "tenant".to_owned() } else { name };
    format!("{name}.onmicrosoft.com")
}
