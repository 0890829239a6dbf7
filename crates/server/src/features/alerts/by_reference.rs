//! Alerts that a caller raises by pointing at an event.

use super::super::machines;
use super::raise::{NewAlert, Source, add_events, raise};
use super::{COLLECTION, SEVERITIES, load, write};
use crate::edge::body::choice;
use crate::edge::{ApiError, Call, json};
use crate::odata;
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_hunting::{Database, Limits};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceBody {
    machine_id: String,
    severity: String,
    title: String,
    description: String,
    recommended_action: String,
    event_time: String,
    report_id: String,
    category: String,
}

/// Tables whose events an alert may refer to.
const REFERABLE: &[&str] = &[
    "DeviceProcessEvents",
    "DeviceNetworkEvents",
    "DeviceFileEvents",
    "DeviceLogonEvents",
    "DeviceRegistryEvents",
    "DeviceImageLoadEvents",
    "DeviceEvents",
];

/// `POST /api/alerts/createAlertByReference`: the event must be in the lake. An open alert with the
/// same title on the same machine takes the event in.
pub async fn create_by_reference(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ReferenceBody = call.json()?;
    let severity = choice("severity", &body.severity, SEVERITIES)?;
    let category = choice("category", &body.category, &call.operation.choices("category"))?;
    let report_id = body.report_id.trim().parse::<i64>();
    let report_id = report_id.map_err(|_| ApiError::body("reportId: a number is expected"))?;
    let time = odata::time(&body.event_time);
    let time = time.ok_or_else(|| ApiError::body("eventTime: a time is expected"))?;
    let tenant = call.caller.tenant;
    let machine = machines::visible(state, &call, &body.machine_id).await?;
    let machine_id = machine["id"].as_str().unwrap_or_default().to_owned();
    let event = find_event(state, tenant, &machine_id, report_id, time).await?;
    let event = event.ok_or_else(|| {
        let id = format!("{report_id} of {machine_id} at {}", time.to_rfc3339());
        ApiError::not_found("Event", &id)
    })?;
    let at = time.timestamp_micros();
    let alert = NewAlert {
        tenant,
        machine: &machine_id,
        machine_name: machine["computerDnsName"].as_str().unwrap_or_default(),
        title: &body.title,
        description: &body.description,
        recommended_action: &body.recommended_action,
        severity,
        category,
        techniques: &[],
        source: Source::CustomTi,
        detector: None,
        events: &[event],
        first_event: at,
        last_event: at,
    };
    let mut transaction = write(state).await?;
    let open = "SELECT id FROM alerts WHERE machine = $1 AND tenant = $2 AND title = $3 AND \
                status <> 'Resolved' ORDER BY created DESC LIMIT 1";
    let values =
        [machine_id.as_str().into(), tenant.to_string().into(), body.title.as_str().into()];
    let id = match transaction.read(open, &values).await?.first() {
        Some(row) => {
            let id = row.text(0)?.to_owned();
            add_events(&mut transaction, state.now(), &id, &alert).await?;
            id
        }
        None => raise(&mut transaction, state.now(), &alert).await?,
    };
    transaction.commit().await?;
    state.publish.notify_one();
    let entity = load(state, &tenant.to_string(), &id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// The event of a machine with that report id at that time, to the second.
async fn find_event(
    state: &State,
    tenant: Uuid,
    machine: &str,
    report_id: i64,
    time: chrono::DateTime<chrono::Utc>,
) -> Result<Option<Json>, ApiError> {
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let database = Database::Lake { lake: state.lake.clone(), tenant };
    for table in REFERABLE {
        let query = format!(
            "{table} | where DeviceId == '{machine}' and ReportId == {report_id} and Timestamp \
             between (datetime({time}) - 1s .. datetime({time}) + 1s) | take 1"
        );
        let result = state.engine.run(&database, &query, &Limits::default()).await;
        let result = result.map_err(ApiError::internal)?;
        if let Some(found) = result.tables.first().filter(|table| table.rows() > 0) {
            let mut text = Vec::new();
            found.write_json_lines(&mut text).map_err(ApiError::internal)?;
            return Ok(serde_json::from_slice(&text).ok());
        }
    }
    Ok(None)
}
