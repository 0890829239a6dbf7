//! User names and passwords: the password grant (RFC 6749, section 4.3) where a tenant allows it, and
//! what the sign-in page needs too.

use super::refresh::Stored;
use super::request::{Ask, Form};
use crate::directory::Account;
use crate::{SignInError, micros, passwords};
use serde_json::Value as Json;
use uuid::Uuid;

impl Ask {
    /// The account of a name and its password, of the tenant where one is given. A missing user
    /// costs the same time and gives the same answer as a wrong password.
    pub async fn authenticate(
        &self,
        tenant: Option<Uuid>,
        name: &str,
        password: &str,
    ) -> Result<Account, SignInError> {
        let name = name.trim();
        let key = self.directory.lock_key(name, &self.address).await?;
        let account = self.directory.account_named(name).await?;
        let account =
            account.filter(|account| tenant.is_none_or(|tenant| tenant == account.tenant));
        if self.directory.is_locked(&key).await? {
            if let Some(account) = &account {
                self.note_sign_in(account, "password", Some(50053)).await;
            }
            return Err(SignInError::account_locked());
        }
        let hash = account.as_ref().map(|account| account.password.as_str());
        let matches = passwords::verify(password, hash).await?;
        let Some(account) = account.filter(|_| matches) else {
            self.directory.count_failure(&key).await?;
            return Err(self.wrong_password(tenant, name).await?);
        };
        // Told only to who knows the password.
        let refused = if !account.enabled {
            Some(SignInError::user_disabled())
        } else if account.password_expired {
            Some(SignInError::password_expired())
        } else if account.blocked {
            Some(SignInError::blocked_by_policy())
        } else {
            None
        };
        if let Some(error) = refused {
            self.note_sign_in(&account, "password", Some(error.number)).await;
            return Err(error);
        }
        self.directory.forget_failures(&key, name, &self.address).await?;
        if passwords::is_outdated(&account.password) {
            self.directory.rehash(account.id, password).await?;
        }
        Ok(account)
    }

    async fn wrong_password(
        &self,
        tenant: Option<Uuid>,
        name: &str,
    ) -> Result<SignInError, SignInError> {
        let domain = name.split_once('@').map_or("", |(_, domain)| domain);
        let tenant = match tenant {
            Some(tenant) => Some(tenant),
            None => self.directory.tenant_id(domain).await?,
        };
        let entry = crate::audit::Entry {
            tenant,
            actor: name,
            action: "signIn",
            target: "password",
            outcome: "50126",
            address: Some(&self.address),
        };
        // What no tenant answers for would only fill the log.
        let Some(tenant) = tenant else { return Ok(SignInError::wrong_password()) };
        self.directory.note(entry).await;
        let disclose = self.directory.settings(tenant).await?.disclose_missing_users;
        if disclose && self.directory.account_named(name).await?.is_none() {
            return Ok(SignInError::user_missing(&tenant.to_string()));
        }
        Ok(SignInError::wrong_password())
    }

    /// The password grant.
    pub async fn password_grant(
        &self,
        form: &Form,
        tenant: Option<Uuid>,
    ) -> Result<Json, SignInError> {
        let (name, password) = (form.required("username")?, form.required("password")?);
        let tenant = match tenant {
            Some(tenant) => tenant,
            None if !self.tenant_name.eq_ignore_ascii_case("organizations") => {
                return Err(SignInError::tenant_independent_password());
            }
            None => {
                let domain = name.rsplit_once('@').map_or("", |(_, domain)| domain.trim());
                let found = self.directory.tenant_id(domain).await?;
                found.ok_or_else(SignInError::wrong_password)?
            }
        };
        let caller = self.caller(form, Some(tenant)).await?;
        caller.may_be_public()?;
        if !self.directory.settings(tenant).await?.allow_password_grant {
            return Err(SignInError::grant_unsupported("password"));
        }
        let asked = self.asked_or_refused(form)?;
        self.known_scopes(&asked).await?;
        let account = self.authenticate(Some(tenant), name, password).await?;
        let app_id = caller.client.app_id.to_string();
        let outcome = self.password_tokens(form, &caller, tenant, account.clone(), asked).await;
        let number = outcome.as_ref().err().map(|error| error.number);
        self.note_sign_in(&account, &app_id, number).await;
        outcome
    }

    async fn password_tokens(
        &self,
        form: &Form,
        caller: &super::client::Caller,
        tenant: Uuid,
        account: Account,
        asked: super::scopes::Asked,
    ) -> Result<Json, SignInError> {
        if account.has_second_factor {
            return Err(SignInError::second_factor_needed());
        }
        self.check_user(&caller.client, tenant, &account).await?;
        let mut stored = Stored::new(&asked, vec!["pwd".to_owned()], micros(self.now()));
        stored.proven = caller.proof != super::client::Proof::None;
        let proven = (caller.client.clone(), caller.proof);
        let grant = self.grant(form, proven, account, asked, stored.signed_in()).await?;
        self.user_answer(&grant, Some(stored)).await
    }
}
