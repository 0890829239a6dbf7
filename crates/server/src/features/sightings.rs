//! What the lake saw of a thing: queries in KQL and their rows.

use crate::edge::{ApiError, Call};
use crate::state::State;
use serde_json::Value as Json;
use uuid::Uuid;
use vigie_hunting::{Database, Limits};

/// The longest that statistics look back, in hours (documentation of `lookBackHours`).
const LONGEST: u32 = 720;

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

/// The ids of the devices that a query names, at most so many.
pub async fn devices(
    state: &State,
    tenant: Uuid,
    hits: &str,
    most: usize,
) -> Result<Vec<String>, ApiError> {
    let query = format!("{hits} | where isnotempty(DeviceId) | distinct DeviceId | take {most}");
    let rows = rows(state, tenant, &query).await?;
    let ids = rows.iter().flatten().filter_map(|row| row["DeviceId"].as_str());
    Ok(ids.map(str::to_owned).collect())
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
    let time = value.as_str().and_then(crate::odata::time);
    time.map_or(Json::Null, |time| super::time_text(time.timestamp_micros()).into())
}

/// Text of a row; null where it is empty.
pub fn text(value: &Json) -> Json {
    value.as_str().filter(|text| !text.is_empty()).map_or(Json::Null, Json::from)
}

/// Adds how many devices saw a thing, and when first and last; zero and null if none did. The number
/// stands under its present name and, as a text, under the one it had before.
pub async fn prevalence(
    state: &State,
    tenant: Uuid,
    hits: &str,
    answer: &mut Json,
) -> Result<(), ApiError> {
    let query = format!(
        "{hits} | summarize Seen = count(), Devices = dcount(DeviceId), First = min(Timestamp), \
         Last = max(Timestamp)"
    );
    let tables = rows(state, tenant, &query).await?;
    let row = tables.first().and_then(|rows| rows.first()).filter(|row| row["Seen"] != 0);
    let of = |name: &str| row.map_or(Json::Null, |row| row[name].clone());
    let devices = of("Devices").as_i64().unwrap_or(0);
    answer["organizationPrevalence"] = devices.into();
    answer["orgPrevalence"] = devices.to_string().into();
    answer["orgFirstSeen"] = time(&of("First"));
    answer["orgLastSeen"] = time(&of("Last"));
    Ok(())
}
