//! Indicators meet arriving rows: the sets are prepared once for each version of a tenant's
//! indicators, and what is seen becomes alerts.

use crate::edge::ApiError;
use crate::features::alerts::Source;
use crate::features::detections::{Finding, found};
use crate::state::State;
use parking_lot::Mutex;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;
use vigie_hunting::lake::Sighting;
use vigie_indicators::{Sought, Watchlist};

/// The prepared sets of tenants and the version that they were made of. Each node keeps its own: the
/// version in the database says whether it is still right.
#[derive(Default)]
pub struct Prepared(Mutex<HashMap<Uuid, (i64, Arc<Watchlist>)>>);

/// The name of a tenant's version among the numbers.
pub fn version_of(tenant: Uuid) -> String {
    format!("version {tenant}")
}

/// What a tenant's rows are to be looked at for, `None` for nothing.
pub async fn watch(state: &State, tenant: Uuid) -> Result<Option<Arc<Watchlist>>, ApiError> {
    let select = "SELECT last FROM indicator_numbers WHERE name = $1";
    let rows = state.database.read(select, &[version_of(tenant).into()]).await?;
    // No indicator was ever made.
    let Some(row) = rows.first() else { return Ok(None) };
    let version = row.integer(0)?;
    let known = state.watchlists.0.lock().get(&tenant).cloned();
    let list = match known {
        Some((found, list)) if found == version => list,
        _ => {
            let list = Arc::new(Watchlist::new(alerting(state, tenant).await?));
            state.watchlists.0.lock().insert(tenant, (version, list.clone()));
            list
        }
    };
    Ok((!list.is_empty()).then_some(list))
}

/// The indicators that raise alerts.
async fn alerting(state: &State, tenant: Uuid) -> Result<Vec<Sought>, ApiError> {
    let select = "SELECT id, type, sought, title, description, severity, recommended_actions, \
                  expires, group_names FROM indicators WHERE tenant = $1 AND generate_alert = 1 \
                  ORDER BY id";
    let mut all = Vec::new();
    for row in state.database.read(select, &[tenant.to_string().into()]).await? {
        all.push(Sought {
            id: row.integer(0)?,
            ty: row.text(1)?.to_owned(),
            sought: row.text(2)?.to_owned(),
            title: row.text(3)?.to_owned(),
            description: row.text(4)?.to_owned(),
            severity: row.text(5)?.to_owned(),
            recommended_actions: row.optional_text(6)?.unwrap_or_default().to_owned(),
            expires: row.optional_integer(7)?,
            groups: serde_json::from_str(row.text(8)?).map_err(ApiError::internal)?,
        });
    }
    Ok(all)
}

/// Raises the alerts of what was seen. Repeating it with the same rows changes nothing.
pub async fn raise(
    state: &State,
    tenant: Uuid,
    list: &Watchlist,
    sightings: &[Sighting],
) -> Result<(), ApiError> {
    let mut findings: BTreeMap<(i64, String), (&Sought, Vec<Json>)> = BTreeMap::new();
    for sighting in sightings {
        let Some(sought) = list.find(sighting.column, &sighting.value) else { continue };
        if sought.expires.is_some_and(|expires| expires <= state.now()) {
            continue;
        }
        let event: Json = serde_json::from_slice(&sighting.row).map_err(ApiError::internal)?;
        let machine = event["DeviceId"].as_str().unwrap_or_default().to_owned();
        if !machine.is_empty() {
            let finding = findings.entry((sought.id, machine)).or_insert((sought, Vec::new()));
            finding.1.push(event);
        }
    }
    for ((id, machine), (sought, events)) in findings {
        if !sought.groups.is_empty() && !is_in_group(state, &machine, &sought.groups).await? {
            continue;
        }
        let finding = Finding {
            tenant,
            rule: Uuid::new_v5(&tenant, format!("indicator {id}").as_bytes()),
            title: &sought.title,
            description: &sought.description,
            recommended_action: &sought.recommended_actions,
            severity: &sought.severity,
            category: "SuspiciousActivity",
            techniques: &[],
            source: Source::CustomTi,
        };
        found(state, &finding, &machine, &events).await?;
    }
    Ok(())
}

async fn is_in_group(state: &State, machine: &str, groups: &[String]) -> Result<bool, ApiError> {
    let select = "SELECT group_name FROM machines WHERE id = $1";
    let rows = state.database.read(select, &[machine.into()]).await?;
    let group = rows.first().map_or(Ok(None), |row| row.optional_text(0))?;
    Ok(group.is_some_and(|group| groups.iter().any(|name| name.eq_ignore_ascii_case(group))))
}
