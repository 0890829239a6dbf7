//! IP addresses: who of the tenant's machines spoke to them.

use super::sightings;
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde_json::json;
use std::net::IpAddr;

/// An address in its one form (RFC 5952).
pub fn address(text: &str) -> Result<String, ApiError> {
    let address = text.trim().parse::<IpAddr>().map_err(|_| ApiError::ip(text))?;
    Ok(address.to_canonical().to_string())
}

/// Every sighting of an address within so many hours.
fn hits(address: &str, hours: u32) -> String {
    let table = |table: &str| {
        format!(
            "({table} | where Timestamp > ago({hours}h) and RemoteIP in ('{address}', \
             '::ffff:{address}') | project Timestamp, DeviceId)"
        )
    };
    let tables = ["DeviceNetworkEvents", "DeviceLogonEvents", "DeviceEvents"].map(table);
    format!("union {}", tables.join(", "))
}

/// `GET /api/ips/{ip}/stats`: zeros for one that nobody spoke to.
pub async fn stats(state: &State, call: Call) -> Result<Response, ApiError> {
    let (address, hours) = (address(&call.parameters[0])?, sightings::look_back(&call)?);
    let mut answer = json!({
        "@odata.context":
            format!("{}/$metadata#microsoft.windowsDefenderATP.api.InOrgIPStats", call.base),
        "ipAddress": address,
    });
    sightings::prevalence(state, call.caller.tenant, &hits(&address, hours), &mut answer).await?;
    Ok(json(200, &answer))
}
