//! IP addresses: who of the tenant's machines spoke to them.

use super::sightings;
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde_json::json;
use std::net::IpAddr;
use vigie_hunting::lake::Thing;

/// An address in its one form (RFC 5952).
pub fn address(text: &str) -> Result<IpAddr, ApiError> {
    let address = text.trim().parse::<IpAddr>().map_err(|_| ApiError::ip(text))?;
    Ok(address.to_canonical())
}

/// `GET /api/ips/{ip}/stats`: zeros for one that nobody spoke to.
pub async fn stats(state: &State, call: Call) -> Result<Response, ApiError> {
    let (address, hours) = (address(&call.parameters[0])?, sightings::look_back(&call)?);
    let mut answer = json!({
        "@odata.context":
            format!("{}/$metadata#microsoft.windowsDefenderATP.api.InOrgIPStats", call.base),
        "ipAddress": address.to_string(),
    });
    let seen = sightings::of(state, call.caller.tenant, Thing::Address(address), hours).await?;
    sightings::prevalence(&seen, &mut answer);
    Ok(json(200, &answer))
}
