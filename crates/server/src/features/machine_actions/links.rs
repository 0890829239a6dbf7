//! Links to what sensors sent: signed, for a short time, for whoever holds them.

use super::{load, uploads};
use crate::edge::{ApiError, Call, json, request_id};
use crate::state::State;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use serde_json::json;

/// Seconds that a link lives (documentation of live response results: 30 minutes).
const LIFETIME: i64 = 1800;

/// `GET /api/machineactions/{id}/getPackageUri`
pub async fn package_uri(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = call.parameters[0].to_lowercase();
    let action = load(state, &call, &id).await?;
    let is_package = action["type"] == "CollectInvestigationPackage";
    if !is_package || action["status"] != "Succeeded" {
        return Err(ApiError::not_found("Investigation package of action", &id));
    }
    link(state, &call, &id, 0, "Investigation package of action").await
}

/// `GET /api/machineactions/{id}/GetLiveResponseResultDownloadLink(index={n})`
pub async fn result_link(state: &State, call: Call) -> Result<Response, ApiError> {
    let id = call.parameters[0].to_lowercase();
    let index = call.parameters.get(1).and_then(|index| index.parse::<i64>().ok());
    let index = index.ok_or_else(|| ApiError::bad_request("index: a number is expected"))?;
    load(state, &call, &id).await?;
    link(state, &call, &id, index, "Result of the command of action").await
}

async fn link(
    state: &State,
    call: &Call,
    id: &str,
    position: i64,
    what: &str,
) -> Result<Response, ApiError> {
    if uploads::complete(state, id, position).await?.is_none() {
        return Err(ApiError::not_found(what, id));
    }
    let expires = state.clock.now().timestamp() + LIFETIME;
    let signature = URL_SAFE_NO_PAD.encode(state.master.hash(&signed_text(id, position, expires)));
    let origin = call.base.trim_end_matches("/api");
    let link =
        format!("{origin}/downloads/v1/{id}/{position}?expires={expires}&signature={signature}");
    let context = format!("{}/$metadata#Edm.String", call.base);
    Ok(json(200, &json!({"@odata.context": context, "value": link})))
}

fn signed_text(id: &str, position: i64, expires: i64) -> String {
    format!("download {id} {position} {expires}")
}

/// Serves `/downloads/v1/{action}/{n}`: no token, the link is the permission.
pub async fn download(state: State, request: Request) -> Response {
    let id = request_id(request.headers());
    match answer(&state, request.uri()).await {
        Ok(response) => response,
        Err(error) => error.response(id),
    }
}

async fn answer(state: &State, uri: &http::Uri) -> Result<Response, ApiError> {
    let refused = || ApiError::new(403, "Forbidden", "the link is not valid");
    let path = uri.path().trim_start_matches("/downloads/v1/");
    let (id, position) = path.split_once('/').ok_or_else(refused)?;
    let position: i64 = position.parse().map_err(|_| refused())?;
    let (mut expires, mut signature) = (0, Vec::new());
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    for (name, value) in query {
        match name.as_ref() {
            "expires" => expires = value.parse().map_err(|_| refused())?,
            "signature" => {
                signature = URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(|_| refused())?;
            }
            _ => {}
        }
    }
    if !state.master.is_hash_of(&signature, &signed_text(id, position, expires)) {
        return Err(refused());
    }
    if expires <= state.clock.now().timestamp() {
        return Err(ApiError::new(403, "Forbidden", "the link has expired"));
    }
    let complete = uploads::complete(state, id, position).await?;
    let complete = complete.ok_or_else(|| ApiError::not_found("Upload of action", id))?;
    // Names of files on machines may hold anything; a header may not.
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let name: String =
        complete.name.chars().map(|letter| if safe(letter) { letter } else { '_' }).collect();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, complete.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let body = uploads::body(state.clone(), id.to_owned(), position);
    Ok((headers, body).into_response())
}
