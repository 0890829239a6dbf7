//! What users may do at the API: directory roles, RBAC roles, device groups.

use super::groups::texts;
use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;
use vigie_contract::administration::{
    DeviceGroup, NewDeviceGroup, NewRbacRole, RbacRole, UNASSIGNED,
};
use vigie_contract::operations::Operation;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Catalogue {
    permissions: Vec<Named>,
    by_role_permission: std::collections::HashMap<String, Vec<String>>,
    by_group: std::collections::HashMap<String, ReadWrite>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ReadWrite {
    read: Vec<String>,
    write: Vec<String>,
}

static RBAC: LazyLock<Catalogue> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../catalogue/rbac.json"))
        .expect("catalogue/rbac.json is part of the program")
});

/// Permissions of custom roles, any one of which lets a user call the operation.
pub fn role_permissions(operation: &Operation) -> &'static [String] {
    if let Some(named) = &operation.role_permission
        && let Some(permissions) = RBAC.by_role_permission.get(named)
    {
        return permissions;
    }
    match RBAC.by_group.get(&operation.group) {
        Some(group) if is_read(operation) => &group.read,
        Some(group) => &group.write,
        None => &[],
    }
}

/// Whether the operation changes nothing: what a reader may call.
fn is_read(operation: &Operation) -> bool {
    let views = operation.role_permission.as_ref().is_some_and(|named| named.starts_with("View"));
    views || operation.method.eq_ignore_ascii_case("GET")
}

/// On which machines a user may call an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// On none: no role allows it.
    Refused,
    All,
    /// On those of these device groups.
    Groups(Vec<String>),
}

/// What a user may do.
pub struct UserAccess {
    pub enabled: bool,
    /// Everything: Global Administrator, Security Administrator.
    administers: bool,
    /// All that changes nothing.
    reads: bool,
    /// Permissions of the user's directory roles, on all machines.
    everywhere: Vec<String>,
    /// Permissions of the user's custom roles.
    permissions: BTreeSet<String>,
    /// Machines on which custom roles count; `None`: the tenant has no device groups.
    device_groups: Option<Vec<String>>,
}

impl UserAccess {
    pub fn scope(&self, operation: &Operation) -> Scope {
        let wanted = role_permissions(operation);
        let everywhere = wanted.iter().any(|name| self.everywhere.contains(name));
        if self.administers || everywhere || (self.reads && is_read(operation)) {
            return Scope::All;
        }
        if !wanted.iter().any(|name| self.permissions.contains(name)) {
            return Scope::Refused;
        }
        self.device_groups.clone().map_or(Scope::All, Scope::Groups)
    }
}

impl Directory {
    /// What a user may do now; `None` if there is no such user.
    pub async fn user_access(
        &self,
        tenant: Uuid,
        user: Uuid,
    ) -> Result<Option<Arc<UserAccess>>, DirectoryError> {
        let generation = self.generation().await?;
        if let Some(access) = self.shared().access.read().get(&user) {
            return Ok(Some(access.clone()));
        }
        let select = "SELECT enabled, roles FROM users WHERE id = $1 AND tenant = $2";
        let values = [user.to_string().into(), tenant.to_string().into()];
        let rows = self.database().read(select, &values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let roles = texts(row.text(1)?);
        let has = |names: &[&str]| roles.iter().any(|role| names.contains(&role.as_str()));
        let operates =
            ["ViewData", "TvmViewData", "AlertsInvestigation", "ActiveRemediationActions"];
        let groups = self.groups_of(user).await?;
        let ours = |named: &[String]| named.iter().any(|group| groups.contains(group));
        let custom = self.rbac_roles(tenant).await?.into_iter().map(|role| role.content);
        let custom = custom.filter(|role| ours(&role.groups)).flat_map(|role| role.permissions);
        let device_groups = self.device_groups(tenant).await?;
        let access = Arc::new(UserAccess {
            enabled: row.flag(0)?,
            administers: has(&["Global Administrator", "Security Administrator"]),
            reads: has(&["Security Reader", "Global Reader", "Security Operator"]),
            everywhere: match has(&["Security Operator"]) {
                true => operates.map(str::to_owned).to_vec(),
                false => Vec::new(),
            },
            permissions: custom.collect(),
            device_groups: (!device_groups.is_empty()).then(|| {
                let mut named: Vec<String> = (device_groups.iter())
                    .map(|group| &group.content)
                    .filter(|group| group.groups.is_empty() || ours(&group.groups))
                    .map(|group| group.name.clone())
                    .collect();
                named.push(UNASSIGNED.to_owned());
                named
            }),
        });
        self.remember(&self.shared().access, generation, user, access.clone());
        Ok(Some(access))
    }

    pub async fn rbac_roles(&self, tenant: Uuid) -> Result<Vec<RbacRole>, DirectoryError> {
        let select = "SELECT id, display_name, permissions, groups FROM rbac_roles \
                      WHERE tenant = $1 ORDER BY display_name";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        rows.iter()
            .map(|row| {
                let content = NewRbacRole {
                    display_name: row.text(1)?.to_owned(),
                    permissions: texts(row.text(2)?),
                    groups: texts(row.text(3)?),
                };
                Ok(RbacRole { id: parse_uuid(row.text(0)?)?, content })
            })
            .collect()
    }

    /// Makes a role, or replaces the one of that name.
    pub async fn put_rbac_role(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewRbacRole,
    ) -> Result<RbacRole, DirectoryError> {
        check_role(new)?;
        self.check_groups(tenant, &new.groups).await?;
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO rbac_roles (id, tenant, display_name, permissions, groups) \
                      VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, display_name) DO UPDATE \
                      SET permissions = excluded.permissions, groups = excluded.groups";
        let values = [
            Uuid::new_v4().to_string().into(),
            tenant.to_string().into(),
            new.display_name.as_str().into(),
            serde_json::json!(new.permissions).to_string().into(),
            serde_json::json!(new.groups).to_string().into(),
        ];
        transaction.execute(insert, &values).await?;
        let entry = Entry::change(tenant, actor, "role.set", &new.display_name);
        self.commit(transaction, entry).await?;
        let roles = self.rbac_roles(tenant).await?;
        let made = roles.into_iter().find(|role| role.content.display_name == new.display_name);
        made.ok_or_else(|| DirectoryError::Damaged("a role that was made is gone".to_owned()))
    }

    /// By id or display name.
    pub async fn delete_rbac_role(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM rbac_roles WHERE tenant = $1 AND (id = $2 OR display_name = $2)";
        let values = [tenant.to_string().into(), name.into()];
        self.delete_named(actor, tenant, "role", name, delete, &values).await
    }

    /// All device groups of a tenant by rank.
    pub async fn device_groups(
        &self,
        tenant: Uuid,
    ) -> Result<Arc<Vec<DeviceGroup>>, DirectoryError> {
        let generation = self.generation().await?;
        if let Some(groups) = self.shared().device_groups.read().get(&tenant) {
            return Ok(groups.clone());
        }
        let select = "SELECT id, name, place, rules, groups FROM device_groups WHERE tenant = $1 \
                      ORDER BY place, id";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        let groups = rows.iter().map(|row| {
            let content = NewDeviceGroup {
                name: row.text(1)?.to_owned(),
                rank: row.integer(2)?,
                rules: serde_json::from_str(row.text(3)?).unwrap_or_default(),
                groups: texts(row.text(4)?),
            };
            Ok::<_, DirectoryError>(DeviceGroup { id: row.integer(0)?, content })
        });
        let groups = Arc::new(groups.collect::<Result<Vec<_>, _>>()?);
        self.remember(&self.shared().device_groups, generation, tenant, groups.clone());
        Ok(groups)
    }

    /// Makes a device group, or replaces the one of that name.
    pub async fn put_device_group(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewDeviceGroup,
    ) -> Result<DeviceGroup, DirectoryError> {
        check_device_group(new)?;
        self.check_groups(tenant, &new.groups).await?;
        let mut transaction = self.database().begin().await?;
        let tenant_id = tenant.to_string();
        let select = "SELECT COALESCE(MAX(id), 0) + 1 FROM device_groups WHERE tenant = $1";
        let rows = transaction.read(select, &[tenant_id.as_str().into()]).await?;
        let next = rows.first().map_or(Ok(1), |row| row.integer(0))?;
        let insert = "INSERT INTO device_groups (tenant, id, name, place, rules, groups) \
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, name) DO UPDATE SET \
                      place = excluded.place, rules = excluded.rules, groups = excluded.groups";
        let values = [
            tenant_id.as_str().into(),
            next.into(),
            new.name.as_str().into(),
            new.rank.into(),
            serde_json::json!(new.rules).to_string().into(),
            serde_json::json!(new.groups).to_string().into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict("device group", &new.name))?;
        let entry = Entry::change(tenant, actor, "deviceGroup.set", &new.name);
        self.commit(transaction, entry).await?;
        let groups = self.device_groups(tenant).await?;
        let made = groups.iter().find(|group| group.content.name == new.name).cloned();
        made.ok_or_else(|| DirectoryError::Damaged("a device group that was made is gone".into()))
    }

    /// By id or name.
    pub async fn delete_device_group(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM device_groups WHERE tenant = $1 AND \
                      (CAST(id AS TEXT) = $2 OR name = $2)";
        let values = [tenant.to_string().into(), name.into()];
        self.delete_named(actor, tenant, "deviceGroup", name, delete, &values).await
    }
}

pub(super) fn check_role(new: &NewRbacRole) -> Result<(), DirectoryError> {
    if new.display_name.trim().is_empty() {
        let reason = "a name is expected".to_owned();
        return Err(DirectoryError::Invalid { property: "displayName", reason });
    }
    let known = |name: &String| RBAC.permissions.iter().any(|known| known.name == *name);
    match new.permissions.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let names: Vec<_> = RBAC.permissions.iter().map(|named| named.name.as_str()).collect();
            let reason = format!("'{name}' is none of {}", names.join(", "));
            Err(DirectoryError::Invalid { property: "permissions", reason })
        }
    }
}

pub(super) fn check_device_group(new: &NewDeviceGroup) -> Result<(), DirectoryError> {
    if new.name.trim().is_empty() || new.name == UNASSIGNED {
        let reason = format!("a name other than {UNASSIGNED} is expected");
        return Err(DirectoryError::Invalid { property: "name", reason });
    }
    if new.rules.iter().any(|rule| rule.value.is_empty()) {
        let reason = "a rule needs a value".to_owned();
        return Err(DirectoryError::Invalid { property: "rules", reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_contract::operations::OPERATIONS;

    #[test]
    fn every_operation_for_users_can_be_allowed_by_a_custom_role() {
        for operation in OPERATIONS.iter().filter(|o| !o.delegated_permissions.is_empty()) {
            let permissions = role_permissions(operation);
            assert!(!permissions.is_empty(), "{} needs no known permission", operation.id);
            for name in permissions {
                assert!(RBAC.permissions.iter().any(|known| known.name == *name), "{name}");
            }
        }
    }
}
