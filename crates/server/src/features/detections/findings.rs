//! What a rule or an indicator found, and the alert that it becomes.

use crate::edge::ApiError;
use crate::features::alerts::{self, NewAlert, Source, add_events, raise};
use crate::state::State;
use serde_json::Value as Json;
use uuid::Uuid;

/// Further events of the same rule and machine belong to the alert that is open for this long.
const SAME_ALERT_MICROS: i64 = 24 * 3_600_000_000;

/// What an alert tells of the rule that raised it.
pub struct Finding<'a> {
    pub tenant: Uuid,
    /// Who found it: the alert's detector.
    pub rule: Uuid,
    pub title: &'a str,
    pub description: &'a str,
    pub recommended_action: &'a str,
    pub severity: &'a str,
    pub category: &'a str,
    /// MITRE ATT&CK technique ids.
    pub techniques: &'a [String],
    pub source: Source,
}

/// Raises an alert for the events that are new, or adds them to the one that is open.
pub async fn found(
    state: &State,
    finding: &Finding<'_>,
    machine: &str,
    events: &[Json],
) -> Result<(), ApiError> {
    let (tenant, rule, now) = (finding.tenant.to_string(), finding.rule.to_string(), state.now());
    let mut transaction = alerts::write(state).await?;
    let mut new = Vec::new();
    for event in events {
        let key = format!("{machine} {} {}", event["ReportId"], event["Timestamp"]);
        let insert = "INSERT INTO detection_hits (tenant, rule, event, seen) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT DO NOTHING";
        let values = [tenant.as_str().into(), rule.as_str().into(), key.into(), now.into()];
        if transaction.execute(insert, &values).await? > 0 {
            new.push(event.clone());
        }
    }
    let times: Vec<i64> = new.iter().filter_map(time).collect();
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Ok(());
    };
    // A query need not return the name.
    let name = match new[0]["DeviceName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => {
            let select = "SELECT name FROM machines WHERE id = $1";
            let rows = transaction.read(select, &[machine.into()]).await?;
            rows.first().map_or(Ok(""), |row| row.text(0))?.to_owned()
        }
    };
    let alert = NewAlert {
        tenant: finding.tenant,
        machine,
        machine_name: &name,
        title: finding.title,
        description: finding.description,
        recommended_action: finding.recommended_action,
        severity: finding.severity,
        category: finding.category,
        techniques: finding.techniques,
        source: finding.source,
        detector: Some(finding.rule),
        events: &new,
        first_event: *first,
        last_event: *last,
    };
    let open = "SELECT id FROM alerts WHERE tenant = $1 AND machine = $2 AND detector = $3 AND \
                status <> 'Resolved' AND created > $4 ORDER BY created DESC";
    let since = now - SAME_ALERT_MICROS;
    let values = [tenant.into(), machine.into(), rule.into(), since.into()];
    match transaction.read(open, &values).await?.first() {
        Some(row) => add_events(&mut transaction, now, row.text(0)?, &alert).await?,
        None => {
            let id = raise(&mut transaction, now, &alert).await?;
            tracing::info!(id, rule = %finding.rule, machine, "alert");
        }
    }
    transaction.commit().await?;
    state.publish.notify_one();
    Ok(())
}

/// The event's time in microseconds since the Unix epoch.
pub(super) fn time(event: &Json) -> Option<i64> {
    let text = event["Timestamp"].as_str()?;
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
}
