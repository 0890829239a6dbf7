//! What alerts are about, and the alerts that are about a thing.

use super::{COLLECTION, answer, evidence, visible};
use crate::edge::{ApiError, Call, json};
use crate::features::{domains, files as file_facts, ips as addresses, machines, users};
use crate::odata::{List, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use vigie_database::Value;

const DOMAINS: List = List { name: "Domains", properties: &[text("host")] };
const IPS: List = List { name: "Ips", properties: &[text("id")] };

/// `GET /api/alerts/{id}/domains`
pub async fn domains(state: &State, call: Call) -> Result<Response, ApiError> {
    let alert = visible(state, &call, &call.parameters[0]).await?;
    let hosts: BTreeSet<String> =
        values(&alert, "url").iter().filter_map(|url| evidence::host_of(url)).collect();
    let entities = hosts.into_iter().map(|host| json!({"host": host})).collect();
    DOMAINS.respond(&call, entities)
}

/// `GET /api/alerts/{id}/ips`
pub async fn ips(state: &State, call: Call) -> Result<Response, ApiError> {
    let alert = visible(state, &call, &call.parameters[0]).await?;
    let addresses: BTreeSet<String> = values(&alert, "ipAddress").into_iter().collect();
    let entities = addresses.into_iter().map(|address| json!({"id": address})).collect();
    IPS.respond(&call, entities)
}

/// `GET /api/alerts/{id}/files`
pub async fn files(state: &State, call: Call) -> Result<Response, ApiError> {
    let alert = visible(state, &call, &call.parameters[0]).await?;
    let mut hashes: Vec<String> = Vec::new();
    for entity in alert["evidence"].as_array().into_iter().flatten() {
        let hash = entity["sha1"].as_str().or(entity["sha256"].as_str());
        if let Some(hash) = hash.filter(|hash| !hashes.iter().any(|known| known == hash)) {
            hashes.push(hash.to_owned());
        }
    }
    let mut entities = Vec::new();
    for hash in &hashes {
        // Events may have left the lake since; the hash is known all the same.
        let found = file_facts::facts(state, call.caller.tenant, hash).await?;
        entities.push(found.unwrap_or_else(|| file_facts::unknown(hash)));
    }
    file_facts::FILES.respond(&call, entities)
}

/// `GET /api/alerts/{id}/machine`
pub async fn machine(state: &State, call: Call) -> Result<Response, ApiError> {
    let alert = visible(state, &call, &call.parameters[0]).await?;
    let id = alert["machineId"].as_str().unwrap_or_default();
    let machine = machines::visible(state, &call, id).await?;
    Ok(json(200, &machines::COLLECTION.entity(&call, machine)))
}

/// `GET /api/alerts/{id}/user`
pub async fn user(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = &call.parameters[0];
    let alert = visible(state, &call, id).await?;
    let related = &alert["relatedUser"];
    let Some(account) = related["userName"].as_str() else {
        return Err(ApiError::not_found("User of alert", id));
    };
    let domain = related["domainName"].as_str();
    let found = users::facts(state, call.caller.tenant, account, domain).await?;
    let entity = found.unwrap_or_else(|| users::seen_in(&alert, account, domain));
    Ok(json(200, &users::entity(&call, entity)))
}

/// `GET /api/machines/{id}/alerts` and its `/$count`
pub async fn of_machine(state: &State, mut call: Call) -> Result<Response, ApiError> {
    call.count |= call.operation.id == "machines.alerts.count";
    let machine = machines::visible(state, &call, &call.parameters[0]).await?;
    let mut query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    query.restrict("t.machine = $", machine["id"].as_str().unwrap_or_default().into());
    answer(state, &call, query).await
}

/// `GET /api/files/{hash}/alerts`
pub async fn of_file(state: &State, call: Call) -> Result<Response, ApiError> {
    let hash = file_facts::hash(&call.parameters[0])?;
    let column = if hash.len() == 64 { "e.sha256" } else { "e.sha1" };
    with_evidence(state, &call, column, hash.into()).await
}

/// `GET /api/domains/{domain}/alerts`
pub async fn of_domain(state: &State, call: Call) -> Result<Response, ApiError> {
    let host = domains::host(&call.parameters[0])?;
    with_evidence(state, &call, "e.host", host.into()).await
}

/// `GET /api/ips/{ip}/alerts`
pub async fn of_ip(state: &State, call: Call) -> Result<Response, ApiError> {
    let address = addresses::address(&call.parameters[0])?;
    with_evidence(state, &call, "e.ip_address", address.to_string().into()).await
}

/// `GET /api/users/{name}/alerts`
pub async fn of_user(state: &State, call: Call) -> Result<Response, ApiError> {
    let (account, _) = users::named(&call.parameters[0]);
    with_evidence(state, &call, "LOWER(e.account_name)", account.into()).await
}

/// Alerts that have a thing among their evidence.
async fn with_evidence(
    state: &State,
    call: &Call,
    column: &str,
    value: Value,
) -> Result<Response, ApiError> {
    let mut query = COLLECTION.query(call, Some(&call.caller.tenant.to_string()))?;
    let tenant = query.value(call.caller.tenant.to_string().into());
    let value = query.value(value);
    query.require(format!(
        "t.id IN (SELECT e.alert FROM alert_evidence e WHERE e.tenant = ${tenant} AND \
         {column} = ${value})"
    ));
    answer(state, call, query).await
}

const fn text(name: &'static str) -> Property {
    Property { name, sql: "", ty: Type::Text }
}

/// A property of all evidence, where it is there.
fn values(alert: &Json, property: &str) -> Vec<String> {
    let evidence = alert["evidence"].as_array().into_iter().flatten();
    evidence.filter_map(|entity| entity[property].as_str().map(str::to_owned)).collect()
}
