//! Groups of users.

use super::{Directory, DirectoryError, parse_uuid};
use crate::audit::Entry;
use crate::micros;
use uuid::Uuid;
use vigie_contract::administration::{Group, NewGroup};
use vigie_database::Value;

impl Directory {
    pub async fn groups(&self, tenant: Uuid) -> Result<Vec<Group>, DirectoryError> {
        let select = "SELECT id, display_name FROM groups WHERE tenant = $1 ORDER BY display_name";
        let members = "SELECT u.user_principal_name FROM group_members m JOIN users u \
                       ON u.id = m.user_id WHERE m.group_id = $1 ORDER BY u.user_principal_name";
        let mut groups = Vec::new();
        for row in self.database().read(select, &[tenant.to_string().into()]).await? {
            let rows = self.database().read(members, &[row.text(0)?.into()]).await?;
            let members = rows.iter().map(|row| Ok(row.text(0)?.to_owned()));
            let content = NewGroup {
                display_name: row.text(1)?.to_owned(),
                members: members.collect::<Result<_, DirectoryError>>()?,
            };
            groups.push(Group { id: parse_uuid(row.text(0)?)?, content });
        }
        Ok(groups)
    }

    /// Display names of the groups that a user belongs to.
    pub(crate) async fn groups_of(&self, user: Uuid) -> Result<Vec<String>, DirectoryError> {
        let select = "SELECT g.display_name FROM group_members m JOIN groups g \
                      ON g.id = m.group_id WHERE m.user_id = $1";
        let rows = self.database().read(select, &[user.to_string().into()]).await?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// Makes a group, or replaces the members of the one of that name.
    pub async fn put_group(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewGroup,
    ) -> Result<Group, DirectoryError> {
        if new.display_name.trim().is_empty() {
            let reason = "a name is expected".to_owned();
            return Err(DirectoryError::Invalid { property: "displayName", reason });
        }
        let mut transaction = self.database().begin().await?;
        let tenant_id = tenant.to_string();
        let insert = "INSERT INTO groups (id, tenant, display_name, created) \
                      VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, display_name) DO NOTHING";
        let values = [
            Uuid::new_v4().to_string().into(),
            tenant_id.as_str().into(),
            new.display_name.as_str().into(),
            micros(self.clock().now()).into(),
        ];
        transaction.execute(insert, &values).await?;
        let select = "SELECT id FROM groups WHERE tenant = $1 AND display_name = $2";
        let values = [tenant_id.as_str().into(), new.display_name.as_str().into()];
        let rows = transaction.read(select, &values).await?;
        let gone = || DirectoryError::Damaged("a group that was made is gone".to_owned());
        let id = rows.first().ok_or_else(gone)?.text(0)?.to_owned();
        let delete = "DELETE FROM group_members WHERE group_id = $1";
        transaction.execute(delete, &[id.as_str().into()]).await?;
        let members: std::collections::BTreeSet<String> =
            new.members.iter().map(|member| member.to_lowercase()).collect();
        for member in &members {
            let insert = "INSERT INTO group_members (group_id, user_id) SELECT $1, id FROM users \
                          WHERE tenant = $2 AND user_principal_name = $3 \
                          ON CONFLICT (group_id, user_id) DO NOTHING";
            let values = [id.as_str().into(), tenant_id.as_str().into(), member.as_str().into()];
            if transaction.execute(insert, &values).await? == 0 {
                return Err(DirectoryError::NotFound { what: "user", name: member.clone() });
            }
        }
        let entry = Entry::change(tenant, actor, "group.set", &new.display_name);
        self.commit(transaction, entry).await?;
        let groups = self.groups(tenant).await?;
        groups.into_iter().find(|group| group.id.to_string() == id).ok_or_else(gone)
    }

    /// By id or display name.
    pub async fn delete_group(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let delete = "DELETE FROM groups WHERE tenant = $1 AND (id = $2 OR display_name = $2)";
        let values = [tenant.to_string().into(), name.into()];
        self.delete_named(actor, tenant, "group", name, delete, &values).await
    }

    /// Errors: one of the groups is none of the tenant's.
    pub(super) async fn check_groups(
        &self,
        tenant: Uuid,
        named: &[String],
    ) -> Result<(), DirectoryError> {
        let groups = self.groups(tenant).await?;
        let known = |name: &String| groups.iter().any(|group| group.content.display_name == *name);
        match named.iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(DirectoryError::NotFound { what: "group", name: name.clone() }),
        }
    }

    /// Deletes one thing of a tenant by name, with its audit entry.
    pub(super) async fn delete_named(
        &self,
        actor: &str,
        tenant: Uuid,
        what: &'static str,
        name: &str,
        delete: &str,
        values: &[Value],
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        if transaction.execute(delete, values).await? == 0 {
            return Err(DirectoryError::NotFound { what, name: name.to_owned() });
        }
        let action = format!("{what}.delete");
        self.commit(transaction, Entry::change(tenant, actor, &action, name)).await?;
        Ok(())
    }
}

/// A list of texts as it is stored.
pub(super) fn texts(stored: &str) -> Vec<String> {
    serde_json::from_str(stored).unwrap_or_default()
}
