//! Live response sessions: commands that are checked, bound to library files and put into one order.

use super::request::{Wanted, give};
use super::store;
use crate::edge::{ApiError, Call};
use crate::features::library;
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use vigie_contract::sensor::{Command, FileReference, LiveCommand};

/// Sessions of a tenant at the same time, and calls a minute (documentation of the operation).
const MOST_SESSIONS: i64 = 25;
const CALLS_PER_MINUTE: i64 = 10;
const MINUTE: i64 = 60_000_000;
/// Steps of one session; no limit is documented, but an order must have an end.
const MOST_COMMANDS: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    commands: Vec<Given>,
    comment: Option<String>,
    external_id: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    r#type: String,
    #[serde(default)]
    params: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    key: String,
    value: String,
}

/// `POST /api/machines/{id}/runliveresponse`
pub async fn run_live_response(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: Body = call.json()?;
    if body.commands.is_empty() || body.commands.len() > MOST_COMMANDS {
        let message = format!("Commands: 1 to {MOST_COMMANDS} commands are expected");
        return Err(ApiError::body(message));
    }
    let tenant = call.caller.tenant.to_string();
    let mut commands = Vec::new();
    let mut shown = Vec::new();
    let mut last = 0;
    for (index, given) in body.commands.iter().enumerate() {
        let (rank, command) = command(state, &tenant, index, given).await?;
        if rank < last {
            let message = "Commands: PutFile, RunScript and GetFile must stand in this order";
            return Err(ApiError::body(message));
        }
        last = rank;
        commands.push(command);
        shown.push(entity(index, given));
    }
    store::expire(state).await?;
    limit(state, &tenant).await?;
    let wanted = Wanted {
        kind: "LiveResponse",
        scope: None,
        comment: body.comment.unwrap_or_default(),
        command: Command::LiveResponse { commands },
        related_sha1: None,
        external_id: body.external_id,
        commands: Some(shown.into()),
    };
    give(state, call, wanted).await
}

/// Refuses a session that would be one too many.
async fn limit(state: &State, tenant: &str) -> Result<(), ApiError> {
    let now = state.now();
    let (open, calls, first) = store::sessions(state, tenant, now - MINUTE).await?;
    if open >= MOST_SESSIONS {
        let message =
            format!("Maximum of {MOST_SESSIONS} concurrent live response sessions was reached");
        return Err(ApiError::too_many_requests(message, 60));
    }
    if calls >= CALLS_PER_MINUTE {
        let seconds = ((first + MINUTE - now) / 1_000_000 + 1).unsigned_abs();
        let message = format!(
            "API calls quota exceeded! Maximum allowed {CALLS_PER_MINUTE} per 00:01:00. You can \
             send requests again in {seconds} seconds."
        );
        return Err(ApiError::too_many_requests(message, seconds));
    }
    Ok(())
}

/// A command and its place in the order that the documentation demands.
async fn command(
    state: &State,
    tenant: &str,
    index: usize,
    given: &Given,
) -> Result<(u8, LiveCommand), ApiError> {
    let wrong = |what: &str| ApiError::body(format!("Commands[{index}]: {what}"));
    let allowed: &[&str] = match given.r#type.as_str() {
        "PutFile" => &["FileName"],
        "RunScript" => &["ScriptName", "Args"],
        "GetFile" => &["Path"],
        other => return Err(wrong(&format!("'{other}' is no type of command"))),
    };
    for parameter in &given.params {
        let key = parameter.key.as_str();
        if !allowed.contains(&key) {
            return Err(wrong(&format!("'{key}' is no parameter of {}", given.r#type)));
        }
        if given.params.iter().filter(|other| other.key == key).count() > 1 {
            return Err(wrong(&format!("'{key}' is given twice")));
        }
    }
    let value = |key: &str| {
        let found = given.params.iter().find(|parameter| parameter.key == key);
        found.map(|parameter| parameter.value.clone()).filter(|value| !value.is_empty())
    };
    let needed = |key: &str| value(key).ok_or_else(|| wrong(&format!("{key} is missing")));
    Ok(match given.r#type.as_str() {
        "PutFile" => {
            (0, LiveCommand::PutFile { file: file(state, tenant, &needed("FileName")?).await? })
        }
        "RunScript" => {
            let script = file(state, tenant, &needed("ScriptName")?).await?;
            (1, LiveCommand::RunScript { script, args: value("Args").unwrap_or_default() })
        }
        _ => (2, LiveCommand::GetFile { path: needed("Path")? }),
    })
}

async fn file(state: &State, tenant: &str, name: &str) -> Result<FileReference, ApiError> {
    let found = library::find(state, tenant, name).await?;
    found.ok_or_else(|| ApiError::not_found("Library file", name))
}

fn entity(index: usize, given: &Given) -> Json {
    let parameters: Vec<Json> = (given.params.iter())
        .map(|parameter| json!({"key": parameter.key, "value": parameter.value}))
        .collect();
    json!({
        "index": index, "startTime": null, "endTime": null, "commandStatus": "Created",
        "errors": [], "command": {"type": given.r#type, "params": parameters},
    })
}
