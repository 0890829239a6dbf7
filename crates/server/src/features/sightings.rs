//! What the lake saw of a thing: sightings, and queries in KQL with their rows.

use super::optional_time;
use crate::edge::{ApiError, Call};
use crate::odata;
use crate::state::State;
use chrono::{DateTime, TimeDelta};
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_hunting::lake::{Seen, Thing};
use vigie_hunting::{Database, Limits};

/// The longest that statistics look back, in hours (documentation of `lookBackHours`).
pub const LONGEST: u32 = 720;

/// The rows of each statement of a query, as objects.
pub async fn rows(state: &State, tenant: Uuid, query: &str) -> Result<Vec<Vec<Json>>, ApiError> {
    let database = Database::Lake { lake: state.lake.clone(), tenant };
    let result = state.engine.run(&database, query, &Limits::default()).await;
    let result = result.map_err(|error| ApiError::internal(format!("{error}: {query}")))?;
    let mut tables = Vec::new();
    for table in &result.tables {
        let mut text = Vec::new();
        table.write_json_lines(&mut text).map_err(ApiError::internal)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows = lines.map(serde_json::from_slice::<Json>).collect::<Result<Vec<_>, _>>();
        tables.push(rows.map_err(ApiError::internal)?);
    }
    Ok(tables)
}

/// What machines saw of a thing within so many hours, the first of which counts from its beginning.
pub async fn of(state: &State, tenant: Uuid, thing: Thing, hours: u32) -> Result<Seen, ApiError> {
    let now = DateTime::from_timestamp_micros(state.now()).unwrap_or_default();
    let since = now - TimeDelta::hours(hours.into());
    state.lake.seen(tenant, thing, since).await.map_err(ApiError::internal)
}

/// How far statistics look back: `lookBackHours`, 30 days if it is missing.
pub fn look_back(call: &Call) -> Result<u32, ApiError> {
    let Some(text) = call.parameter("lookBackHours").or(call.parameter("$lookBackHours")) else {
        return Ok(LONGEST);
    };
    let hours = text.parse::<u32>().ok().filter(|hours| (1..=LONGEST).contains(hours));
    hours.ok_or_else(|| {
        let message = format!("lookBackHours: a number of hours from 1 to {LONGEST} is expected");
        ApiError::bad_request(message)
    })
}

/// A text as a literal of the language.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
    let escaped: String = escaped.chars().filter(|character| !character.is_control()).collect();
    format!("'{escaped}'")
}

/// A time of a row as the API writes it.
pub fn time(value: &Json) -> Json {
    optional_time(value.as_str().and_then(odata::time).map(|time| time.timestamp_micros()))
}

/// Text of a row; null where it is empty.
pub fn text(value: &Json) -> Json {
    value.as_str().filter(|text| !text.is_empty()).map_or(Json::Null, Json::from)
}

/// Adds how many devices saw a thing, and when first and last; zero and null if none did. The number
/// stands under its present name and, as a text, under the one it had before.
pub fn prevalence(seen: &Seen, answer: &mut Json) {
    answer["organizationPrevalence"] = seen.devices.len().into();
    answer["orgPrevalence"] = seen.devices.len().to_string().into();
    answer["orgFirstSeen"] = optional_time(seen.first);
    answer["orgLastSeen"] = optional_time(seen.last);
}
