//! On-behalf-of: an application that was called with a user's token asks for one of its own, for
//! another resource (RFC 7523, section 2.1, as the original uses it).

use super::refresh::Stored;
use super::request::{Ask, Form};
use crate::{Resource, SignInError};
use serde_json::Value as Json;
use uuid::Uuid;

impl Ask {
    pub async fn on_behalf_of(
        &self,
        form: &Form,
        tenant: Option<Uuid>,
    ) -> Result<Json, SignInError> {
        let caller = self.caller(form, tenant).await?;
        caller.must_prove()?;
        if form.required("requested_token_use")? != "on_behalf_of" {
            return Err(SignInError::malformed("'requested_token_use' must be 'on_behalf_of'."));
        }
        let assertion = form.required("assertion")?;
        let own = Resource::Application(caller.client.app_id);
        let verified = self.directory.verified(assertion, own);
        let verified = verified.map_err(|_| SignInError::assertion_of_user_invalid())?;
        let user =
            verified.caller.user.as_ref().ok_or_else(SignInError::assertion_of_user_invalid)?;
        let user_tenant = verified.caller.tenant;
        if tenant.is_some_and(|tenant| tenant != user_tenant) {
            return Err(SignInError::assertion_of_user_invalid());
        }
        let account = self.directory.account(verified.caller.object_id).await?;
        let account = account.ok_or_else(SignInError::assertion_of_user_invalid)?;
        if account.password_changed > verified.authenticated * 1_000_000 + 999_999 {
            return Err(SignInError::password_changed());
        }
        let app_id = caller.client.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(user_tenant)).await?;
        self.check_user(&client, user_tenant, &account).await?;
        let asked = self.asked_or_refused(form)?;
        let authenticated = verified.authenticated * 1_000_000;
        let mut stored = Stored::new(&asked, user.methods.clone(), authenticated);
        stored.proven = true;
        let proven = (client, caller.proof);
        let grant = self.grant(form, proven, account, asked, stored.signed_in()).await?;
        let answer = self.user_answer(&grant, Some(stored)).await?;
        self.note_sign_in(&grant.account, &app_id, None).await;
        Ok(answer)
    }
}
