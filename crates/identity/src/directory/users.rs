//! Users with passwords.

use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::{micros, time};
use argon2::{Argon2, PasswordHasher as _};
use uuid::Uuid;
use vigie_contract::administration::{NewUser, User};

impl Directory {
    pub async fn create_user(
        &self,
        actor: &str,
        tenant: Uuid,
        new: &NewUser,
    ) -> Result<User, DirectoryError> {
        let name = new.user_principal_name.to_lowercase();
        if name.split_once('@').is_none_or(|(user, domain)| user.is_empty() || domain.is_empty()) {
            let reason = "name@domain is expected".to_owned();
            return Err(DirectoryError::Invalid { property: "userPrincipalName", reason });
        }
        if new.password.chars().count() < 8 {
            let reason = "at least 8 characters are expected".to_owned();
            return Err(DirectoryError::Invalid { property: "password", reason });
        }
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
