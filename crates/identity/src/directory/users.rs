//! Users with passwords.

use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::{micros, time};
use argon2::{Argon2, PasswordHasher as _};
use uuid::Uuid;
use vigie_contract::administration::{NewUser, User, UserDocument};

/// Directory roles that mean something to this product.
const ROLES: &[&str] = &[
    "Global Administrator",
    "Global Reader",
    "Security Administrator",
    "Security Operator",
    "Security Reader",
    "Privileged Role Administrator",
    "Application Administrator",
    "Cloud Application Administrator",
    "User Administrator",
];

/// Refuses what no user of a tenant with these domains can be.
pub(super) fn check_user(new: &NewUser, domains: &[String]) -> Result<(), DirectoryError> {
    let name = new.user_principal_name.to_lowercase();
    let invalid =
        |reason: String| DirectoryError::Invalid { property: "userPrincipalName", reason };
    match name.split_once('@') {
        None | Some(("", _)) => return Err(invalid("name@domain is expected".to_owned())),
        Some((_, domain)) if !domains.iter().any(|own| own.eq_ignore_ascii_case(domain)) => {
            return Err(invalid(format!("'{domain}' is no domain of the tenant")));
        }
        Some(_) => {}
    }
    if new.password.chars().count() < 8 {
        let reason = "at least 8 characters are expected".to_owned();
        return Err(DirectoryError::Invalid { property: "password", reason });
    }
    check_roles(&new.roles)
}

pub(super) fn check_roles(roles: &[String]) -> Result<(), DirectoryError> {
    match roles.iter().find(|role| !ROLES.contains(&role.as_str())) {
        None => Ok(()),
        Some(role) => {
            let reason = format!("'{role}' is none of {}", ROLES.join(", "));
            Err(DirectoryError::Invalid { property: "roles", reason })
        }
    }
}

impl Directory {
    pub async fn create_user(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewUser,
    ) -> Result<User, DirectoryError> {
        let named = self.tenant(&tenant.to_string()).await?;
        check_user(new, &named.domains)?;
        let name = new.user_principal_name.to_lowercase();
        let user = User {
            id: new.id.unwrap_or_else(Uuid::new_v4),
            display_name: new.display_name.clone().unwrap_or_else(|| name.clone()),
            user_principal_name: name,
            enabled: true,
            roles: new.roles.clone(),
            created: self.clock().now(),
        };
        let password = new.password.clone();
        // Slow on purpose: not on a thread that serves requests.
        let hashed = tokio::task::spawn_blocking(move || {
            Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
        });
        let hashed = hashed
            .await
            .map_err(|error| DirectoryError::Damaged(error.to_string()))?
            .map_err(|error| DirectoryError::Damaged(error.to_string()))?;
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO users (id, tenant, user_principal_name, display_name, password, \
                      enabled, roles, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            user.id.to_string().into(),
            tenant.to_string().into(),
            user.user_principal_name.as_str().into(),
            user.display_name.as_str().into(),
            hashed.into(),
            true.into(),
            serde_json::json!(user.roles).to_string().into(),
            micros(user.created).into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict("user", &user.user_principal_name))?;
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "user.create",
            target: &user.user_principal_name,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(user)
    }

    /// Brings an existing user to what a document says; returns whether anything changed.
    pub(super) async fn change_user(
        &self,
        actor: &str,
        tenant: Uuid,
        found: &User,
        wanted: &UserDocument,
    ) -> Result<bool, DirectoryError> {
        let name = wanted.display_name.as_ref().unwrap_or(&found.display_name);
        if *name == found.display_name && wanted.roles == found.roles {
            return Ok(false);
        }
        let mut transaction = self.database().begin().await?;
        let set = "UPDATE users SET display_name = $1, roles = $2 WHERE id = $3";
        let roles = serde_json::json!(wanted.roles).to_string();
        let values = [name.as_str().into(), roles.into(), found.id.to_string().into()];
        transaction.execute(set, &values).await?;
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "user.change",
            target: &found.user_principal_name,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    pub async fn users(&self, tenant: Uuid) -> Result<Vec<User>, DirectoryError> {
        let select = "SELECT id, user_principal_name, display_name, enabled, roles, created \
                      FROM users WHERE tenant = $1 ORDER BY user_principal_name";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(User {
                    id: parse_uuid(row.text(0)?)?,
                    user_principal_name: row.text(1)?.to_owned(),
                    display_name: row.text(2)?.to_owned(),
                    enabled: row.flag(3)?,
                    roles: serde_json::from_str(row.text(4)?).unwrap_or_default(),
                    created: time(row.integer(5)?),
                })
            })
            .collect()
    }

    /// By id or user principal name.
    pub async fn delete_user(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        let delete =
            "DELETE FROM users WHERE tenant = $1 AND (id = $2 OR user_principal_name = $2)";
        let values = [tenant.to_string().into(), name.to_lowercase().into()];
        if transaction.execute(delete, &values).await? == 0 {
            return Err(DirectoryError::NotFound { what: "user", name: name.to_owned() });
        }
        let entry = Entry {
            tenant: Some(tenant),
            actor,
            action: "user.delete",
            target: name,
            outcome: "success",
        };
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(())
    }
}
