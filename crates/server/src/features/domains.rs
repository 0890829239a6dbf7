//! Domains: who of the tenant's machines spoke to them.

use super::{machines, sightings};
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde_json::json;

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

/// Every connection to a host within so many hours.
fn hits(host: &str, hours: u32) -> String {
    let pattern = host.replace('.', "[.]");
    let table = |table: &str| {
        format!(
            "({table} | where Timestamp > ago({hours}h) and RemoteUrl contains '{host}' and RemoteUrl \
             matches regex @'^(?i)([a-z][a-z0-9+.-]*://)?([^/?#@]*@)?{pattern}(:[0-9]+)?([/?#].*)?$' \
             | project Timestamp, DeviceId)"
        )
    };
    format!("union {}, {}", table("DeviceNetworkEvents"), table("DeviceEvents"))
}

/// `GET /api/domains/{domain}/machines`
pub async fn machines(state: &State, call: Call) -> Result<Response, ApiError> {
    let hits = hits(&host(&call.parameters[0])?, 720);
    let ids = sightings::devices(state, call.caller.tenant, &hits, MOST_MACHINES).await?;
    machines::list_of(state, &call, &ids).await
}

/// `GET /api/domains/{domain}/stats`: zeros for one that nobody spoke to.
pub async fn stats(state: &State, call: Call) -> Result<Response, ApiError> {
    let (host, hours) = (host(&call.parameters[0])?, sightings::look_back(&call)?);
    let mut answer = json!({
        "@odata.context":
            format!("{}/$metadata#microsoft.windowsDefenderATP.api.InOrgDomainStats", call.base),
        "host": host,
    });
    sightings::prevalence(state, call.caller.tenant, &hits(&host, hours), &mut answer).await?;
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
