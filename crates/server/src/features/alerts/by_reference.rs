//! Alerts that a caller raises by pointing at an event.

use super::super::machines;
use super::raise::{NewAlert, Source, raise};
use super::{COLLECTION, SEVERITIES, load, one_of};
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_hunting::{Database, Limits};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferenceBody {
    #[serde(alias = "MachineId")]
    machine_id: String,
    #[serde(alias = "Severity")]
    severity: String,
    #[serde(alias = "Title")]
    title: String,
    #[serde(alias = "Description")]
    description: String,
    #[serde(alias = "RecommendedAction")]
    recommended_action: String,
    #[serde(alias = "EventTime")]
    event_time: chrono::DateTime<chrono::Utc>,
    #[serde(alias = "ReportId")]
    report_id: Json,
    #[serde(alias = "Category")]
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

/// `POST /api/alerts/createAlertByReference`: the event must be in the lake.
pub async fn create_by_reference(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ReferenceBody = call.json()?;
    one_of("severity", Some(&body.severity), SEVERITIES)?;
    let tenant = call.caller.tenant;
    let machine = machines::load(state, &tenant.to_string(), &body.machine_id).await?;
    let machine_id = machine["id"].as_str().unwrap_or_default().to_owned();
    let report_id = match &body.report_id {
        Json::String(text) => text.parse::<i64>().ok(),
        other => other.as_i64(),
    };
    let report_id = report_id.ok_or_else(|| ApiError::body("reportId: a number is expected"))?;
    let event = find_event(state, tenant, &machine_id, report_id, body.event_time).await?;
    let event = event.ok_or_else(|| {
        let id = format!("{report_id} of {machine_id} at {}", body.event_time.to_rfc3339());
        ApiError::not_found("Event", &id)
    })?;
    let mut transaction = state.database.begin().await?;
    let at = body.event_time.timestamp_micros();
    let alert = NewAlert {
        tenant,
        machine: &machine_id,
        machine_name: machine["computerDnsName"].as_str().unwrap_or_default(),
        title: &body.title,
        description: &body.description,
        recommended_action: &body.recommended_action,
        severity: &body.severity,
        category: &body.category,
        techniques: &[],
        source: Source::CustomTi,
        detector: None,
        events: &[event],
        first_event: at,
        last_event: at,
    };
    let id = raise(&mut transaction, state.now(), &alert).await?;
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
