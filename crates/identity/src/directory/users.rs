//! Users with passwords and states.

use super::groups::texts;
use super::{Directory, DirectoryError, conflict, parse_uuid};
use crate::audit::Entry;
use crate::{micros, passwords, time, totp};
use uuid::Uuid;
use vigie_contract::administration::{IssuedTotp, NewUser, User, UserChange, UserDocument};

/// Directory roles that mean something to this product, and the template ids that `wids` carries.
pub(crate) const ROLES: &[(&str, &str)] = &[
    ("Global Administrator", "62e90394-69f5-4237-9190-012177145e10"),
    ("Global Reader", "f2ef992c-3afb-46b9-b7cf-a126ee74c451"),
    ("Security Administrator", "194ae4cb-b126-40b2-bd5b-6091b380977d"),
    ("Security Operator", "5f2222b1-57c3-48ba-8ad5-d4759f1fde6f"),
    ("Security Reader", "5d6b6bb7-de71-4623-b4af-96380a352509"),
    ("Privileged Role Administrator", "e8611ab8-c189-46e8-94e1-60213ab1f814"),
    ("Application Administrator", "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"),
    ("Cloud Application Administrator", "158c047a-c907-4556-b7ef-446551a6b5f7"),
    ("User Administrator", "fe930be7-5e62-47db-91af-98c3a49a38b1"),
];

/// What is sealed as a second factor.
const TOTP: &str = "second factor";

/// A user as sign-in sees them.
#[derive(Clone)]
pub(crate) struct Account {
    pub id: Uuid,
    pub tenant: Uuid,
    pub principal_name: String,
    pub display_name: String,
    pub given_name: Option<String>,
    pub surname: Option<String>,
    pub password: String,
    pub enabled: bool,
    pub blocked: bool,
    pub password_expired: bool,
    /// Microseconds since the Unix epoch.
    pub password_changed: i64,
    pub roles: Vec<String>,
    pub has_second_factor: bool,
}

impl Account {
    pub fn has_role(&self, names: &[&str]) -> bool {
        self.roles.iter().any(|role| names.contains(&role.as_str()))
    }

    /// Whether the user may consent for everybody, application permissions included.
    pub fn may_consent_for_all(&self) -> bool {
        self.has_role(&["Global Administrator", "Privileged Role Administrator"])
    }
}

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
    check_password(&new.password)?;
    check_roles(&new.roles)
}

fn check_password(password: &str) -> Result<(), DirectoryError> {
    let reason = match password.chars().count() {
        8..=256 => return Ok(()),
        _ => "8 to 256 characters are expected".to_owned(),
    };
    Err(DirectoryError::Invalid { property: "password", reason })
}

pub(super) fn check_roles(roles: &[String]) -> Result<(), DirectoryError> {
    match roles.iter().find(|role| !ROLES.iter().any(|(known, _)| known == role)) {
        None => Ok(()),
        Some(role) => {
            let known: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
            let reason = format!("'{role}' is none of {}", known.join(", "));
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
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let hashed = passwords::hash(&new.password).await?;
        let now = micros(self.clock().now());
        let mut transaction = self.database().begin().await?;
        let insert = "INSERT INTO users (id, tenant, user_principal_name, display_name, password, \
                      enabled, roles, created, given_name, surname, password_changed) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $8)";
        let values = [
            id.to_string().into(),
            tenant.to_string().into(),
            name.as_str().into(),
            new.display_name.clone().unwrap_or_else(|| name.clone()).into(),
            hashed.into(),
            true.into(),
            serde_json::json!(new.roles).to_string().into(),
            now.into(),
            new.given_name.clone().into(),
            new.surname.clone().into(),
        ];
        let inserted = transaction.execute(insert, &values).await;
        inserted.map_err(conflict("user", &name))?;
        self.commit(transaction, Entry::change(tenant, actor, "user.create", &name)).await?;
        self.user(tenant, &name).await
    }

    /// Brings an existing user to what a document says; returns whether anything changed.
    pub(super) async fn apply_user(
        &self,
        actor: &str,
        tenant: Uuid,
        found: &User,
        wanted: &UserDocument,
    ) -> Result<bool, DirectoryError> {
        let changed = |wanted: &Option<String>, found: Option<&String>| {
            wanted.clone().filter(|wanted| Some(wanted) != found)
        };
        let change = UserChange {
            display_name: changed(&wanted.display_name, Some(&found.display_name)),
            given_name: changed(&wanted.given_name, found.given_name.as_ref()),
            surname: changed(&wanted.surname, found.surname.as_ref()),
            roles: (wanted.roles != found.roles).then(|| wanted.roles.clone()),
            enabled: (wanted.enabled != found.enabled).then_some(wanted.enabled),
            ..UserChange::default()
        };
        let nothing = change.display_name.is_none()
            && change.given_name.is_none()
            && change.surname.is_none()
            && change.roles.is_none()
            && change.enabled.is_none();
        if nothing {
            return Ok(false);
        }
        self.change_user(actor, tenant, &found.user_principal_name, &change).await?;
        Ok(true)
    }

    /// Changes a user, by id or user principal name.
    pub async fn change_user(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
        change: &UserChange,
    ) -> Result<User, DirectoryError> {
        let user = self.user(tenant, name).await?;
        change.roles.as_deref().map_or(Ok(()), check_roles)?;
        let hashed = match &change.password {
            Some(password) => {
                check_password(password)?;
                Some(passwords::hash(password).await?)
            }
            None => None,
        };
        let now = micros(self.clock().now());
        let roles = change.roles.as_ref().map(|roles| serde_json::json!(roles).to_string());
        let mut columns: Vec<(&str, vigie_database::Value)> = Vec::new();
        let mut set = |column: &'static str, value: Option<vigie_database::Value>| {
            columns.extend(value.map(|value| (column, value)));
        };
        set("display_name", change.display_name.clone().map(Into::into));
        set("given_name", change.given_name.clone().map(Into::into));
        set("surname", change.surname.clone().map(Into::into));
        set("enabled", change.enabled.map(Into::into));
        set("blocked", change.blocked.map(Into::into));
        set("roles", roles.map(Into::into));
        set("password_changed", hashed.as_ref().map(|_| now.into()));
        let expired = change.password_expired.or(hashed.as_ref().map(|_| false));
        set("password_expired", expired.map(Into::into));
        set("password", hashed.clone().map(Into::into));
        let id = user.id.to_string();
        let mut transaction = self.database().begin().await?;
        for (column, value) in columns {
            let update = format!("UPDATE users SET {column} = $1 WHERE id = $2");
            transaction.execute(&update, &[value, id.as_str().into()]).await?;
        }
        if hashed.is_some() || change.enabled == Some(false) {
            let delete = "DELETE FROM sessions WHERE user_id = $1";
            transaction.execute(delete, &[id.as_str().into()]).await?;
        }
        let (target, action) = (
            &user.user_principal_name,
            match hashed {
                Some(_) => "user.password",
                None => "user.change",
            },
        );
        self.commit(transaction, Entry::change(tenant, actor, action, target)).await?;
        self.user(tenant, &id).await
    }

    pub async fn users(&self, tenant: Uuid) -> Result<Vec<User>, DirectoryError> {
        let select = "SELECT id, user_principal_name, display_name, enabled, roles, created, \
                      given_name, surname, blocked, password_expired, totp IS NOT NULL \
                      FROM users WHERE tenant = $1 ORDER BY user_principal_name";
        let rows = self.database().read(select, &[tenant.to_string().into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(User {
                    id: parse_uuid(row.text(0)?)?,
                    user_principal_name: row.text(1)?.to_owned(),
                    display_name: row.text(2)?.to_owned(),
                    enabled: row.flag(3)?,
                    roles: texts(row.text(4)?),
                    created: time(row.integer(5)?),
                    given_name: row.optional_text(6)?.map(str::to_owned),
                    surname: row.optional_text(7)?.map(str::to_owned),
                    blocked: row.flag(8)?,
                    password_expired: row.flag(9)?,
                    second_factor: row.flag(10)?,
                })
            })
            .collect()
    }

    /// By id or user principal name.
    pub async fn user(&self, tenant: Uuid, name: &str) -> Result<User, DirectoryError> {
        let lower = name.to_lowercase();
        let users = self.users(tenant).await?;
        let found = users
            .into_iter()
            .find(|user| user.user_principal_name == lower || user.id.to_string() == lower);
        found.ok_or_else(|| DirectoryError::NotFound { what: "user", name: name.to_owned() })
    }

    /// By id or user principal name.
    pub async fn delete_user(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let delete =
            "DELETE FROM users WHERE tenant = $1 AND (id = $2 OR user_principal_name = $2)";
        let values = [tenant.to_string().into(), name.to_lowercase().into()];
        self.delete_named(actor, tenant, "user", name, delete, &values).await
    }

    /// Gives a user a second factor, or a new one.
    pub async fn set_totp(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<IssuedTotp, DirectoryError> {
        let user = self.user(tenant, name).await?;
        let secret = totp::new_secret();
        let sealed = self.master().seal(TOTP, &secret);
        let set = "UPDATE users SET totp = $1, totp_step = 0 WHERE id = $2";
        let values = [sealed.into(), user.id.to_string().into()];
        let mut transaction = self.database().begin().await?;
        transaction.execute(set, &values).await?;
        let entry = Entry::change(tenant, actor, "user.totp.set", &user.user_principal_name);
        self.commit(transaction, entry).await?;
        let secret = totp::base32(&secret);
        let uri = format!(
            "otpauth://totp/Vigie:{}?secret={secret}&issuer=Vigie",
            percent_encoding::utf8_percent_encode(
                &user.user_principal_name,
                percent_encoding::NON_ALPHANUMERIC
            )
        );
        Ok(IssuedTotp { secret, uri })
    }

    pub async fn remove_totp(
        &self,
        actor: &str,
        tenant: Uuid,
        name: &str,
    ) -> Result<(), DirectoryError> {
        let set = "UPDATE users SET totp = NULL WHERE tenant = $1 AND totp IS NOT NULL AND \
                   (id = $2 OR user_principal_name = $2)";
        let values = [tenant.to_string().into(), name.to_lowercase().into()];
        self.delete_named(actor, tenant, "user.totp", name, set, &values).await
    }

    /// Whether the code is one of the user's second factor now; it works once.
    pub(crate) async fn spend_totp(
        &self,
        user: Uuid,
        entered: &str,
    ) -> Result<bool, DirectoryError> {
        let select = "SELECT totp, totp_step FROM users WHERE id = $1 AND totp IS NOT NULL";
        let rows = self.database().read(select, &[user.to_string().into()]).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let damaged = || DirectoryError::Damaged("a second factor cannot be opened".to_owned());
        let secret = self.master().open(TOTP, row.bytes(0)?).ok_or_else(damaged)?;
        let now = self.clock().now().timestamp();
        let Some(step) = totp::step_of(&secret, entered, now, row.integer(1)?) else {
            return Ok(false);
        };
        let set = "UPDATE users SET totp_step = $1 WHERE id = $2 AND totp_step < $1";
        Ok(self.database().execute(set, &[step.into(), user.to_string().into()]).await? == 1)
    }

    /// The account of a user principal name in any tenant.
    pub(crate) async fn account_named(
        &self,
        name: &str,
    ) -> Result<Option<Account>, DirectoryError> {
        self.account_where("user_principal_name", name.trim().to_lowercase()).await
    }

    pub(crate) async fn account(&self, id: Uuid) -> Result<Option<Account>, DirectoryError> {
        self.account_where("id", id.to_string()).await
    }

    async fn account_where(
        &self,
        column: &str,
        value: String,
    ) -> Result<Option<Account>, DirectoryError> {
        let select = format!(
            "SELECT id, tenant, user_principal_name, display_name, given_name, surname, password, \
             enabled, blocked, password_expired, password_changed, roles, totp IS NOT NULL \
             FROM users WHERE {column} = $1"
        );
        let rows = self.database().read(&select, &[value.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Account {
            id: parse_uuid(row.text(0)?)?,
            tenant: parse_uuid(row.text(1)?)?,
            principal_name: row.text(2)?.to_owned(),
            display_name: row.text(3)?.to_owned(),
            given_name: row.optional_text(4)?.map(str::to_owned),
            surname: row.optional_text(5)?.map(str::to_owned),
            password: row.text(6)?.to_owned(),
            enabled: row.flag(7)?,
            blocked: row.flag(8)?,
            password_expired: row.flag(9)?,
            password_changed: row.integer(10)?,
            roles: texts(row.text(11)?),
            has_second_factor: row.flag(12)?,
        }))
    }

    /// Stores a hash with today's parameters of a password that was right.
    pub(crate) async fn rehash(&self, user: Uuid, password: &str) -> Result<(), DirectoryError> {
        let hashed = passwords::hash(password).await?;
        let set = "UPDATE users SET password = $1 WHERE id = $2";
        self.database().execute(set, &[hashed.into(), user.to_string().into()]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MasterKey;
    use vigie_contract::administration::NewTenant;
    use vigie_contract::clock::Clock;
    use vigie_database::Database;

    /// As after every change, what was remembered before is not trusted any more.
    #[tokio::test]
    async fn a_new_user_and_a_new_second_factor_are_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
        let master = MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
        let opened = Directory::open(database, master, Clock::default()).await;
        let directory = opened.expect("opened");
        let new = NewTenant {
            display_name: "Tests".to_owned(),
            domains: vec!["tests.example".to_owned()],
            ..NewTenant::default()
        };
        let tenant = directory.create_tenant("tests", &new).await.expect("made").id;
        let new = NewUser {
            user_principal_name: "mira@tests.example".to_owned(),
            password: "correct horse battery staple".to_owned(),
            ..NewUser::default()
        };
        let before = directory.generation().await.expect("read");
        let user = directory.create_user("tests", tenant, &new).await.expect("made");
        let between = directory.generation().await.expect("read");
        assert!(before < between);
        let name = &user.user_principal_name;
        directory.set_totp("tests", tenant, name).await.expect("set");
        assert!(between < directory.generation().await.expect("read"));
    }
}
