//! Device authorization (RFC 8628): a device shows a code, the user enters it elsewhere, the device
//! polls.

use super::refresh::{Stored, new_token, token_hash};
use super::request::{Ask, Form};
use super::scopes::Asked;
use super::token::read;
use crate::directory::parse_uuid;
use crate::seal::fill;
use crate::{DirectoryError, SignInError, micros};
use axum::body::Body;
use axum::response::Response;
use chrono::TimeDelta;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use vigie_database::Row;

/// How long a code can be entered.
const LIFETIME: TimeDelta = TimeDelta::minutes(15);
/// Seconds between polls at first, and by how much they grow when polls come too fast.
const WAIT: i64 = 5;
/// Consonants and digits that do not look like others: 9 of 23 are 40.7 bits.
const ALPHABET: &[u8; 23] = b"BCDFHJKLMNPQRTVWXZ34679";
const CODE_LENGTH: usize = 9;

/// What a device asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceRequest {
    pub stored: Stored,
    /// The tenant of the request, where it named one.
    pub tenant: Option<Uuid>,
}

/// A device that waits for its user.
pub struct Waiting {
    pub app_id: Uuid,
    pub request: DeviceRequest,
    /// Where the device is.
    pub address: String,
}

/// Serves `…/devicecode`.
pub async fn serve(ask: &Ask, method: &Method, body: Body) -> Response {
    let outcome = async {
        let form = read(ask, method, body).await?;
        ask.start_device(&form).await
    };
    match outcome.await {
        Ok(answer) => ask.json(StatusCode::OK, &answer),
        Err(error) => ask.refuse(&error),
    }
}

/// The hash under which a user code is found: without regard to case, blanks and dashes.
pub fn user_code_hash(entered: &str) -> Option<Vec<u8>> {
    let code: String = entered
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_uppercase())
        .collect();
    let known = code.len() == CODE_LENGTH && code.bytes().all(|byte| ALPHABET.contains(&byte));
    known.then(|| Sha256::digest(code).to_vec())
}

fn new_user_code() -> String {
    let mut code = String::new();
    while code.len() < CODE_LENGTH {
        let mut byte = [0];
        fill(&mut byte);
        // Bytes from 253 on would make some characters more likely.
        if byte[0] < 253 {
            code.push(char::from(ALPHABET[usize::from(byte[0]) % ALPHABET.len()]));
        }
    }
    code
}

impl Ask {
    async fn start_device(&self, form: &Form) -> Result<Json, SignInError> {
        let tenant = self.tenant().await?;
        let caller = self.caller(form, tenant).await?;
        caller.may_be_public()?;
        let asked = self.asked_or_refused(form)?;
        self.known_scopes(&asked).await?;
        let request = DeviceRequest { stored: Stored::new(&asked, Vec::new(), 0), tenant };
        let content = serde_json::to_string(&request).map_err(|error| {
            DirectoryError::Damaged(format!("a device request cannot be written: {error}"))
        })?;
        let ((device_code, hash), user_code) = (new_token(), new_user_code());
        let insert = "INSERT INTO device_codes (hash, user_code, tenant, app_id, content, address, \
                      expires, wait, polled, state) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 'pending')";
        let values = [
            hash.into(),
            user_code_hash(&user_code).unwrap_or_default().into(),
            tenant.map_or(String::new(), |tenant| tenant.to_string()).into(),
            caller.client.app_id.to_string().into(),
            content.into(),
            self.address.as_str().into(),
            micros(self.now() + LIFETIME).into(),
            WAIT.into(),
        ];
        self.directory.database().execute(insert, &values).await?;
        let uri = format!("{}/common/oauth2/deviceauth", self.base);
        let message = format!(
            "To sign in, use a web browser to open the page {uri} and enter the code {user_code} to \
             authenticate."
        );
        let mut answer = json!({
            "device_code": device_code, "user_code": user_code, "verification_uri": uri,
            "verification_url": uri, "message": message,
            "expires_in": LIFETIME.num_seconds(), "interval": WAIT,
        });
        if self.version == super::request::Version::V1 {
            answer["expires_in"] = LIFETIME.num_seconds().to_string().into();
            answer["interval"] = WAIT.to_string().into();
        }
        Ok(answer)
    }

    /// The device code grant.
    pub async fn poll(&self, form: &Form, tenant: Option<Uuid>) -> Result<Json, SignInError> {
        let caller = self.caller(form, tenant).await?;
        caller.may_be_public()?;
        let code = form.get("device_code").map_or_else(|| form.required("code"), Ok);
        let hash = code.map_err(|_| SignInError::parameter_missing("device_code"))?;
        let hash = token_hash(hash).ok_or_else(SignInError::device_code_wrong)?;
        let select = "SELECT app_id, content, expires, wait, polled, state, user_tenant, user_id, \
                      amr, authenticated FROM device_codes WHERE hash = $1";
        let rows = self.directory.database().read(select, &[hash.clone().into()]).await?;
        let row = rows.first().ok_or_else(SignInError::device_code_wrong)?;
        if parse_uuid(row.text(0)?)? != caller.client.app_id {
            return Err(SignInError::device_code_wrong());
        }
        if row.integer(2)? <= micros(self.now()) {
            return Err(SignInError::device_code_expired());
        }
        match row.text(5)? {
            "approved" => {}
            "declined" => return Err(SignInError::device_declined()),
            "pending" => return Err(self.wait_longer(&hash, row).await?),
            _ => return Err(SignInError::device_code_wrong()),
        }
        let spend =
            "UPDATE device_codes SET state = 'spent' WHERE hash = $1 AND state = 'approved'";
        if self.directory.database().execute(spend, &[hash.into()]).await? != 1 {
            return Err(SignInError::device_code_wrong());
        }
        self.approved(form, &caller, row).await
    }

    /// Counts polls that come too fast.
    async fn wait_longer(&self, hash: &[u8], row: &Row) -> Result<SignInError, SignInError> {
        let now = micros(self.now());
        // A poll that is early by the network's moods is not too fast.
        let too_fast = now < row.integer(4)? + row.integer(3)? * 1_000_000 - 500_000;
        let set = "UPDATE device_codes SET polled = $1, wait = wait + $2 WHERE hash = $3";
        let more = if too_fast { WAIT } else { 0 };
        let values = [now.into(), more.into(), hash.to_vec().into()];
        self.directory.database().execute(set, &values).await?;
        Ok(match too_fast {
            true => SignInError::device_slow_down(),
            false => SignInError::device_pending(),
        })
    }

    async fn approved(
        &self,
        form: &Form,
        caller: &super::client::Caller,
        row: &Row,
    ) -> Result<Json, SignInError> {
        let request = device_request(row.text(1)?)?;
        let wrong = SignInError::device_code_wrong;
        let tenant = parse_uuid(row.optional_text(6)?.ok_or_else(wrong)?)?;
        let user = parse_uuid(row.optional_text(7)?.ok_or_else(wrong)?)?;
        let methods = row.optional_text(8)?.unwrap_or_default().split(' ').map(str::to_owned);
        let account = self.directory.account(user).await?.ok_or_else(wrong)?;
        let app_id = caller.client.app_id.to_string();
        let (client, _) = self.find_client(&app_id, Some(tenant)).await?;
        self.check_user(&client, tenant, &account).await?;
        let mut stored = request.stored;
        stored.methods = methods.collect();
        stored.authenticated = row.optional_integer(9)?.unwrap_or_default();
        stored.proven = caller.proof != super::client::Proof::None;
        let asked = self.device_asked(&stored)?;
        let proven = (client, caller.proof);
        let grant = self.grant(form, proven, account, asked, stored.signed_in()).await?;
        let answer = self.user_answer(&grant, Some(stored)).await?;
        self.note_sign_in(&grant.account, &app_id, None).await;
        Ok(answer)
    }

    pub fn device_asked(&self, stored: &Stored) -> Result<Asked, SignInError> {
        let resource = self.find_resource(&stored.audience);
        let missing = || SignInError::resource_not_found(&stored.audience, &self.tenant_name);
        Ok(stored.asked(resource.ok_or_else(missing)?))
    }

    /// The device whose user code this is, while it waits.
    pub async fn waiting_device(&self, user_code: &[u8]) -> Result<Option<Waiting>, SignInError> {
        let select = "SELECT app_id, content, address FROM device_codes \
                      WHERE user_code = $1 AND state = 'pending' AND expires > $2";
        let values = [user_code.to_vec().into(), micros(self.now()).into()];
        let rows = self.directory.database().read(select, &values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Waiting {
            app_id: parse_uuid(row.text(0)?)?,
            request: device_request(row.text(1)?)?,
            address: row.text(2)?.to_owned(),
        }))
    }

    /// The user's decision; false where the device waits no more.
    pub async fn decide_device(
        &self,
        user_code: &[u8],
        user: Option<(&crate::directory::Account, &[String], i64)>,
    ) -> Result<bool, SignInError> {
        let set = "UPDATE device_codes SET state = $1, user_tenant = $2, user_id = $3, amr = $4, \
                   authenticated = $5 WHERE user_code = $6 AND state = 'pending' AND expires > $7";
        let values = [
            if user.is_some() { "approved" } else { "declined" }.into(),
            user.map(|(account, _, _)| account.tenant.to_string()).into(),
            user.map(|(account, _, _)| account.id.to_string()).into(),
            user.map(|(_, methods, _)| methods.join(" ")).into(),
            user.map(|(_, _, authenticated)| authenticated).into(),
            user_code.to_vec().into(),
            micros(self.now()).into(),
        ];
        Ok(self.directory.database().execute(set, &values).await? == 1)
    }
}

fn device_request(stored: &str) -> Result<DeviceRequest, SignInError> {
    let read = serde_json::from_str(stored);
    Ok(read.map_err(|error| DirectoryError::Damaged(format!("a device request: {error}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_codes_are_entered_without_regard_to_case_and_blanks() {
        let code = new_user_code();
        assert_eq!(code.len(), CODE_LENGTH);
        let spaced = format!(" {}-{} ", code[..4].to_lowercase(), &code[4..]);
        assert_eq!(user_code_hash(&spaced), user_code_hash(&code));
        assert!(user_code_hash(&code).is_some());
        assert_eq!(user_code_hash("AEIOU1000"), None);
        assert_eq!(user_code_hash(""), None);
    }
}
