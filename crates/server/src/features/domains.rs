//! Domains: who of the tenant's machines spoke to them.

use super::{machines, sightings};
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde_json::json;
use vigie_hunting::lake::Thing;

/// Machines in an answer (documentation of the operation).
const MOST_MACHINES: usize = 500;

/// A host name in lower case (RFC 1035, section 2.3.1, and underscores, which are seen).
pub fn host(text: &str) -> Result<String, ApiError> {
    let name = text.trim().trim_end_matches('.').to_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let fits = name.len() <= 253 && name.contains('.') && name.split('.').all(label);
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if fits && !is_address { Ok(name) } else { Err(ApiError::domain(text)) }
}

/// `GET /api/domains/{domain}/machines`
pub async fn machines(state: &State, call: Call) -> Result<Response, ApiError> {
    let thing = Thing::Host(host(&call.parameters[0])?);
    let seen = sightings::of(state, call.caller.tenant, thing, sightings::LONGEST).await?;
    let ids = &seen.devices[..seen.devices.len().min(MOST_MACHINES)];
    machines::list_of(state, &call, ids).await
}

/// `GET /api/domains/{domain}/stats`: zeros for one that nobody spoke to.
pub async fn stats(state: &State, call: Call) -> Result<Response, ApiError> {
    let (host, hours) = (host(&call.parameters[0])?, sightings::look_back(&call)?);
    let mut answer = json!({
        "@odata.context":
            format!("{}/$metadata#microsoft.windowsDefenderATP.api.InOrgDomainStats", call.base),
        "host": host,
    });
    let seen = sightings::of(state, call.caller.tenant, Thing::Host(host), hours).await?;
    sightings::prevalence(&seen, &mut answer);
    Ok(json(200, &answer))
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for good in ["example.com", "Example.COM.", "a-b.c_d.example", "xn--bcher-kva.example"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", "a..b", "-a.example", "10.0.0.1", "a b.example", "a'.example"]
        {
            assert_eq!(host(bad).expect_err(bad).code, "InvalidDomainName");
        }
    }
}
