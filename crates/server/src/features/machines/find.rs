//! Machines by address, by tag and by id.

use super::{COLLECTION, entity};
use crate::edge::{ApiError, Call};
use crate::features::scope;
use crate::odata::{self, Query};
use crate::state::State;
use axum::response::Response;
use std::net::IpAddr;

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 86_400_000_000;

/// `GET /api/machines/findbyip(ip='…',timestamp=…)`: who had the address within 15 minutes either
/// side of the time, which must lie within the past 30 days.
pub async fn by_ip(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = had_address(state, &call, &call.parameters[0], &call.parameters[1], 15)?;
    answer(state, &call, query, false).await
}

/// `GET /api/machines/find(timestamp=…,key='…')`, the older form: 16 minutes, and 404 where there is
/// none.
pub async fn by_ip_legacy(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = had_address(state, &call, &call.parameters[1], &call.parameters[0], 16)?;
    answer(state, &call, query, true).await
}

fn had_address(
    state: &State,
    call: &Call,
    address: &str,
    time: &str,
    minutes: i64,
) -> Result<Query, ApiError> {
    let shown: String = address.chars().take(80).collect();
    let address = address.parse::<IpAddr>().map_err(|_| ApiError::ip(&shown))?;
    let at = odata::time(time).map(|time| time.timestamp_micros());
    let at = at.ok_or_else(|| ApiError::bad_request("timestamp: a time in UTC is expected"))?;
    let now = state.now();
    if at > now + DAY || at < now - 30 * DAY {
        let message = "timestamp: a time within the past 30 days is expected";
        return Err(ApiError::bad_request(message));
    }
    let mut query = COLLECTION.query(call, Some(&call.caller.tenant.to_string()))?;
    let address = query.value(address.to_string().into());
    let (from, to) = (at - minutes * MINUTE, at + minutes * MINUTE);
    query.require(format!(
        "EXISTS (SELECT 1 FROM machine_addresses d WHERE d.machine = t.id AND \
         d.address = ${address} AND d.began <= {to} AND d.ended >= {from})"
    ));
    Ok(query)
}

/// `GET /api/machines/findbytag?tag=…&useStartsWithFilter=…`
pub async fn by_tag(state: &State, call: Call) -> Result<Response, ApiError> {
    let tag = call.parameter("tag").filter(|tag| !tag.is_empty());
    let tag = tag.ok_or_else(|| ApiError::missing("tag"))?.to_owned();
    let beginning = match call.parameter("useStartsWithFilter").map(str::to_ascii_lowercase) {
        None => false,
        Some(text) if text == "true" => true,
        Some(text) if text.is_empty() || text == "false" => false,
        Some(_) => {
            return Err(ApiError::bad_request("useStartsWithFilter: true or false is expected"));
        }
    };
    let mut query = COLLECTION.query(&call, Some(&call.caller.tenant.to_string()))?;
    let condition = match beginning {
        false => format!("x.value = ${}", query.value(tag.into())),
        true => {
            let length = tag.chars().count();
            format!("SUBSTR(x.value, 1, {length}) = ${}", query.value(tag.into()))
        }
    };
    query.require(format!("EXISTS (SELECT 1 FROM {{texts t.tags x}} WHERE {condition})"));
    answer(state, &call, query, false).await
}

/// The list of the machines of these ids, in the order of the list.
pub async fn list_of(state: &State, call: &Call, ids: &[String]) -> Result<Response, ApiError> {
    let mut query = COLLECTION.query(call, Some(&call.caller.tenant.to_string()))?;
    let names: Vec<String> =
        ids.iter().map(|id| format!("${}", query.value(id.as_str().into()))).collect();
    query.require(match names.is_empty() {
        true => "1 = 0".to_owned(),
        false => format!("t.id IN ({})", names.join(", ")),
    });
    answer(state, call, query, false).await
}

async fn answer(
    state: &State,
    call: &Call,
    mut query: Query,
    must_be: bool,
) -> Result<Response, ApiError> {
    scope::restrict(&mut query, call, "t.id");
    let page = COLLECTION.page(state, &query, call).await?;
    if must_be && page.rows.is_empty() && !call.count {
        return Err(ApiError::not_found("Machine", &call.parameters.join(", ")));
    }
    let entities = page.rows.iter().map(|row| entity(row, state.now()));
    let entities = entities.collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(call, &query, &page, entities))
}
