//! What callers change of machines: tags and the device value.

use super::report::assign_group;
use super::{COLLECTION, list_of, visible};
use crate::edge::body::choice;
use crate::edge::{ApiError, Call, json};
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use vigie_database::Transaction;

/// Characters of a tag (documentation of machine tags).
const LONGEST_TAG: usize = 200;
/// Machines whose tags change at once.
const MOST_MACHINES: usize = 500;
const VALUES: &[&str] = &["Normal", "Low", "High"];
const ACTIONS: &[&str] = &["Add", "Remove"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagBody {
    value: String,
    action: String,
}

/// `POST /api/machines/{id}/tags`
pub async fn set_tag(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: TagBody = call.json()?;
    check_tag("Value", &body.value)?;
    let action = choice("Action", &body.action, ACTIONS)?;
    let machine = visible(state, &call, &call.parameters[0]).await?;
    let id = machine["id"].as_str().unwrap_or_default();
    let mut transaction = state.database.begin().await?;
    change_tag(&mut transaction, id, &body.value, action == "Add").await?;
    assign_group(state, &mut transaction, id).await?;
    transaction.commit().await?;
    changed(state, &call, id).await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagOfManyBody {
    value: String,
    action: String,
    machine_ids: Vec<String>,
}

/// `POST /api/machines/AddOrRemoveTagForMultipleMachines`: all of the machines or none.
pub async fn set_tag_of_many(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: TagOfManyBody = call.json()?;
    check_tag("Value", &body.value)?;
    let action = choice("Action", &body.action, ACTIONS)?;
    if body.machine_ids.is_empty() {
        return Err(ApiError::missing("MachineIds"));
    }
    if body.machine_ids.len() > MOST_MACHINES {
        return Err(ApiError::batch_size(body.machine_ids.len(), MOST_MACHINES));
    }
    let mut ids = Vec::new();
    for id in &body.machine_ids {
        let machine = visible(state, &call, id).await?;
        ids.push(machine["id"].as_str().unwrap_or_default().to_owned());
    }
    let mut transaction = state.database.begin().await?;
    for id in &ids {
        change_tag(&mut transaction, id, &body.value, action == "Add").await?;
        assign_group(state, &mut transaction, id).await?;
    }
    transaction.commit().await?;
    list_of(state, &call, &ids).await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ValueBody {
    device_value: String,
}

/// `POST /api/machines/{id}/setDeviceValue`
pub async fn set_value(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ValueBody = call.json()?;
    let value = choice("DeviceValue", &body.device_value, VALUES)?;
    let machine = visible(state, &call, &call.parameters[0]).await?;
    let id = machine["id"].as_str().unwrap_or_default();
    let set = "UPDATE machines SET device_value = $1 WHERE id = $2";
    state.database.execute(set, &[value.into(), id.into()]).await?;
    changed(state, &call, id).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateBody {
    machine_tags: Option<Vec<String>>,
    device_value: Option<String>,
}

/// `PATCH /api/machines/{id}`: the tags given replace those that are there.
pub async fn update(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: UpdateBody = call.json()?;
    let value = body.device_value.as_deref();
    let value = value.map(|value| choice("deviceValue", value, VALUES)).transpose()?;
    let mut tags: Option<Vec<String>> = None;
    for tag in body.machine_tags.iter().flatten() {
        check_tag("machineTags", tag)?;
    }
    if let Some(given) = body.machine_tags {
        let mut all: Vec<String> = Vec::new();
        for tag in given {
            if !all.contains(&tag) {
                all.push(tag);
            }
        }
        tags = Some(all);
    }
    let machine = visible(state, &call, &call.parameters[0]).await?;
    let id = machine["id"].as_str().unwrap_or_default();
    let mut transaction = state.database.begin().await?;
    if let Some(value) = value {
        let set = "UPDATE machines SET device_value = $1 WHERE id = $2";
        transaction.execute(set, &[value.into(), id.into()]).await?;
    }
    if let Some(tags) = tags {
        let set = "UPDATE machines SET tags = $1 WHERE id = $2";
        transaction.execute(set, &[json!(tags).to_string().into(), id.into()]).await?;
        assign_group(state, &mut transaction, id).await?;
    }
    transaction.commit().await?;
    changed(state, &call, id).await
}

/// Ends a machine's membership: its sensor's key is taken no longer. What is known of it stays.
pub async fn offboard(transaction: &mut Transaction, machine: &str) -> Result<(), ApiError> {
    let update = "UPDATE machines SET public_key = '' WHERE id = $1";
    transaction.execute(update, &[machine.into()]).await?;
    Ok(())
}

async fn changed(state: &State, call: &Call, id: &str) -> Result<Response, ApiError> {
    let entity = visible(state, call, id).await?;
    Ok(json(200, &COLLECTION.entity(call, entity)))
}

fn check_tag(name: &str, tag: &str) -> Result<(), ApiError> {
    if tag.trim().is_empty() || tag.chars().count() > LONGEST_TAG {
        let message = format!("{name}: a tag of 1 to {LONGEST_TAG} characters is expected");
        return Err(ApiError::body(message));
    }
    Ok(())
}

async fn change_tag(
    transaction: &mut Transaction,
    id: &str,
    tag: &str,
    add: bool,
) -> Result<(), ApiError> {
    let rows = transaction.read("SELECT tags FROM machines WHERE id = $1", &[id.into()]).await?;
    let row = rows.first().ok_or_else(|| ApiError::not_found("Machine", id))?;
    let mut tags: Vec<String> = serde_json::from_str(row.text(0)?).map_err(ApiError::internal)?;
    match add {
        true if !tags.iter().any(|known| known == tag) => tags.push(tag.to_owned()),
        true => {}
        false => tags.retain(|known| known != tag),
    }
    let set = "UPDATE machines SET tags = $1 WHERE id = $2";
    transaction.execute(set, &[json!(tags).to_string().into(), id.into()]).await?;
    Ok(())
}
