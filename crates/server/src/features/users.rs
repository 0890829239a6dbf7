//! Users: accounts that logged on to the tenant's machines, as sensors report them and as logon
//! events tell.

use super::{machines, optional_time, sightings};
use crate::edge::{ApiError, Call, json};
use crate::odata;
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The id of an account, `domain\name` in lower case.
pub fn id(domain: &str, name: &str) -> String {
    match domain {
        "" => name.to_lowercase(),
        domain => format!("{domain}\\{name}").to_lowercase(),
    }
}

/// Account and domain of an id in a path, in lower case: `name`, `domain\name` or `name@domain`.
pub fn named(text: &str) -> (String, Option<String>) {
    let text = text.trim().to_lowercase();
    if let Some((domain, name)) = text.split_once('\\') {
        return (name.to_owned(), Some(domain.to_owned()));
    }
    // The domain of a principal's name is another than that of its accounts.
    let name = text.split('@').next().unwrap_or_default();
    (name.to_owned(), None)
}

/// What is known of an account on one machine. Times are microseconds since the Unix epoch.
#[derive(Default)]
struct Presence {
    logons: i64,
    first: Option<i64>,
    last: Option<i64>,
}

/// An account over all machines.
#[derive(Default)]
struct Account {
    name: String,
    domain: String,
    sid: Option<String>,
    machines: BTreeMap<String, Presence>,
    logon_types: BTreeSet<String>,
    domain_admin: bool,
}

impl Account {
    fn see(&mut self, machine: &str, logons: i64, first: Option<i64>, last: Option<i64>) {
        let presence = self.machines.entry(machine.to_owned()).or_default();
        presence.logons += logons;
        presence.first = [presence.first, first].into_iter().flatten().min();
        presence.last = [presence.last, last].into_iter().flatten().max();
    }

    fn entity(&self) -> Json {
        let first = self.machines.values().filter_map(|presence| presence.first).min();
        let last = self.machines.values().filter_map(|presence| presence.last).max();
        let by_logons = |(_, presence): &(&String, &Presence)| presence.logons;
        let only_network = self.logon_types.iter().all(|ty| ty == "Network");
        json!({
            "id": id(&self.domain, &self.name),
            "accountName": self.name,
            "accountDomain": self.domain,
            "accountSid": self.sid,
            "firstSeen": optional_time(first),
            "lastSeen": optional_time(last),
            "mostPrevalentMachineId": self.machines.iter().max_by_key(by_logons).map(|(id, _)| id),
            "leastPrevalentMachineId": self.machines.iter().min_by_key(by_logons).map(|(id, _)| id),
            "logonTypes": self.logon_types.iter().cloned().collect::<Vec<_>>().join(","),
            "logOnMachinesCount": self.machines.len(),
            "isDomainAdmin": self.domain_admin,
            "isOnlyNetworkUser": !self.logon_types.is_empty() && only_network,
        })
    }
}

/// The account's entity, `None` if it logged on nowhere.
pub async fn facts(
    state: &State,
    tenant: Uuid,
    name: &str,
    domain: Option<&str>,
) -> Result<Option<Json>, ApiError> {
    let account = account(state, tenant, name, domain).await?;
    Ok((!account.machines.is_empty()).then(|| account.entity()))
}

async fn account(
    state: &State,
    tenant: Uuid,
    name: &str,
    domain: Option<&str>,
) -> Result<Account, ApiError> {
    let mut account = Account { name: name.to_owned(), ..Account::default() };
    let fits = |found: &str| domain.is_none_or(|domain| domain.eq_ignore_ascii_case(found));
    let select = "SELECT u.machine, u.account_name, u.account_domain, u.account_sid, u.logon_types, \
        u.first_seen, u.last_seen, u.domain_admin FROM machine_users u \
        JOIN machines m ON m.id = u.machine WHERE m.tenant = $1 AND LOWER(u.account_name) = $2";
    let values = [tenant.to_string().into(), name.to_lowercase().into()];
    for row in state.database.read(select, &values).await? {
        if !fits(row.text(2)?) {
            continue;
        }
        account.name = row.text(1)?.to_owned();
        account.domain = row.text(2)?.to_owned();
        account.sid = account.sid.or(row.optional_text(3)?.map(str::to_owned));
        account.logon_types.extend(row.text(4)?.split(',').map(|ty| ty.trim().to_owned()));
        account.domain_admin |= row.flag(7)?;
        account.see(row.text(0)?, 0, row.optional_integer(5)?, row.optional_integer(6)?);
    }
    let query = format!(
        "DeviceLogonEvents | where ActionType == 'LogonSuccess' and AccountName =~ {} | summarize \
         Logons = count(), First = min(Timestamp), Last = max(Timestamp), Sid = max(AccountSid), \
         Name = max(AccountName) by DeviceId, AccountDomain, LogonType",
        sightings::literal(name)
    );
    for row in sightings::rows(state, tenant, &query).await?.iter().flatten() {
        let text = |column: &str| row[column].as_str().unwrap_or_default();
        if !fits(text("AccountDomain")) {
            continue;
        }
        let micros = |column: &str| Some(odata::time(text(column))?.timestamp_micros());
        if account.domain.is_empty() {
            account.name = text("Name").to_owned();
            account.domain = text("AccountDomain").to_owned();
        }
        account.sid = account.sid.or(Some(text("Sid").to_owned()).filter(|sid| !sid.is_empty()));
        account.logon_types.extend(Some(text("LogonType").to_owned()).filter(|ty| !ty.is_empty()));
        let logons = row["Logons"].as_i64().unwrap_or(0);
        account.see(text("DeviceId"), logons, micros("First"), micros("Last"));
    }
    Ok(account)
}

/// The account as an alert names it, where nothing else is known of it.
pub fn seen_in(alert: &Json, name: &str, domain: Option<&str>) -> Json {
    let mut account = Account {
        name: name.to_owned(),
        domain: domain.unwrap_or_default().to_owned(),
        ..Account::default()
    };
    let time = |property: &str| {
        alert[property].as_str().and_then(odata::time).map(|time| time.timestamp_micros())
    };
    let machine = alert["machineId"].as_str().unwrap_or_default();
    account.see(machine, 0, time("firstEventTime"), time("lastEventTime"));
    account.entity()
}

/// One user with its context.
pub fn entity(call: &Call, mut user: Json) -> Json {
    let mut answer = json!({"@odata.context": format!("{}/$metadata#Users/$entity", call.base)});
    if let (Some(answer), Some(user)) = (answer.as_object_mut(), user.as_object_mut()) {
        answer.append(user);
    }
    answer
}

/// `GET /api/users/{name}`
pub async fn get(state: &State, call: Call) -> Result<Response, ApiError> {
    let (name, domain) = named(&call.parameters[0]);
    let user = facts(state, call.caller.tenant, &name, domain.as_deref()).await?;
    let user = user.ok_or_else(|| ApiError::not_found("User", &name))?;
    Ok(json(200, &entity(&call, user)))
}

/// `GET /api/users/{name}/machines`
pub async fn machines(state: &State, call: Call) -> Result<Response, ApiError> {
    let (name, domain) = named(&call.parameters[0]);
    let account = account(state, call.caller.tenant, &name, domain.as_deref()).await?;
    let ids: Vec<String> = account.machines.into_keys().collect();
    machines::list_of(state, &call, &ids).await
}
