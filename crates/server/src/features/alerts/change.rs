//! What callers change of alerts, one by one or many at once.

use super::{COLLECTION, load, set_status, visible, write};
use crate::edge::body::choice;
use crate::edge::{ApiError, Call, json};
use crate::features::time_text;
use crate::state::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use vigie_database::Transaction;

/// Longest comment and owner, in characters.
const LONGEST: usize = 10_000;
const STATUSES: &[&str] = &["New", "InProgress", "Resolved"];

/// What classifications are called, in letters and digits alone, and what they are.
const CLASSIFICATIONS: &[(&str, Option<&str>)] = &[
    ("truepositive", Some("TruePositive")),
    ("informationalexpectedactivity", Some("InformationalExpectedActivity")),
    ("falsepositive", Some("FalsePositive")),
    ("unknown", None),
    ("notset", None),
];

/// The same of determinations: pages of the documentation differ in the spelling of some.
const DETERMINATIONS: &[(&str, Option<&str>)] = &[
    ("multistagedattack", Some("MultiStagedAttack")),
    ("malicioususeractivity", Some("MaliciousUserActivity")),
    ("compromiseduser", Some("CompromisedUser")),
    ("compromisedaccount", Some("CompromisedUser")),
    ("malware", Some("Malware")),
    ("phishing", Some("Phishing")),
    ("unwantedsoftware", Some("UnwantedSoftware")),
    ("other", Some("Other")),
    ("securitytesting", Some("SecurityTesting")),
    ("securitytest", Some("SecurityTesting")),
    ("lineofbusinessapplication", Some("LineOfBusinessApplication")),
    ("confirmedactivity", Some("ConfirmedActivity")),
    ("confirmeduseractivity", Some("ConfirmedActivity")),
    ("notmalicious", Some("NotMalicious")),
    ("clean", Some("NotMalicious")),
    ("insufficientdata", Some("InsufficientData")),
    ("notenoughdatatovalidate", Some("InsufficientData")),
    ("notavailable", None),
    ("notset", None),
];

/// Members that are not sent leave what is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeBody {
    status: Option<String>,
    assigned_to: Option<String>,
    classification: Option<String>,
    determination: Option<String>,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManyBody {
    alert_ids: Vec<String>,
    #[serde(flatten)]
    change: ChangeBody,
}

/// A change that is known to be right.
struct Change {
    status: Option<&'static str>,
    assigned_to: Option<String>,
    classification: Option<Option<&'static str>>,
    determination: Option<Option<&'static str>>,
    comment: Option<String>,
}

impl Change {
    fn of(body: ChangeBody) -> Result<Change, ApiError> {
        let status = body.status.as_deref();
        let classification = body.classification.as_deref();
        let determination = body.determination.as_deref();
        for (name, text) in [("assignedTo", &body.assigned_to), ("comment", &body.comment)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > LONGEST) {
                let message = format!("{name}: at most {LONGEST} characters are expected");
                return Err(ApiError::body(message));
            }
        }
        Ok(Change {
            status: status.map(|status| choice("status", status, STATUSES)).transpose()?,
            classification: classification
                .map(|value| named("classification", value, CLASSIFICATIONS))
                .transpose()?,
            determination: determination
                .map(|value| named("determination", value, DETERMINATIONS))
                .transpose()?,
            assigned_to: body.assigned_to,
            comment: body.comment.filter(|comment| !comment.trim().is_empty()),
        })
    }
}

/// A value by its name or one of its other names.
fn named(
    name: &str,
    value: &str,
    known: &[(&str, Option<&'static str>)],
) -> Result<Option<&'static str>, ApiError> {
    let letters: String =
        value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    if let Some((_, found)) = known.iter().find(|(known, _)| *known == letters) {
        return Ok(*found);
    }
    let mut allowed: Vec<&str> = known.iter().filter_map(|(_, value)| *value).collect();
    allowed.dedup();
    let value: String = value.chars().take(80).collect();
    let message = format!("{name}: '{value}' is not one of {}", allowed.join(", "));
    Err(ApiError::body(message))
}

/// `PATCH /api/alerts/{id}`
pub async fn update(state: &State, call: Call) -> Result<Response, ApiError> {
    let change = Change::of(call.json()?)?;
    let id = call.parameters[0].clone();
    visible(state, &call, &id).await?;
    let mut transaction = write(state).await?;
    apply(state.now(), &mut transaction, &call, &id, &change).await?;
    transaction.commit().await?;
    let entity = load(state, &call.caller.tenant.to_string(), &id).await?;
    Ok(json(200, &COLLECTION.entity(&call, entity)))
}

/// `POST /api/alerts/batchUpdate`: all of the alerts or none; the answer has no body.
pub async fn update_many(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ManyBody = call.json()?;
    if body.alert_ids.is_empty() {
        return Err(ApiError::missing("alertIds"));
    }
    let change = Change::of(body.change)?;
    for id in &body.alert_ids {
        visible(state, &call, id).await?;
    }
    let mut transaction = write(state).await?;
    for id in &body.alert_ids {
        apply(state.now(), &mut transaction, &call, id, &change).await?;
    }
    transaction.commit().await?;
    Ok(StatusCode::OK.into_response())
}

async fn apply(
    now: i64,
    transaction: &mut Transaction,
    call: &Call,
    id: &str,
    change: &Change,
) -> Result<(), ApiError> {
    let text = |value: Option<&str>| Some(value.map(str::to_owned));
    let columns: [(&str, Option<Option<String>>); 3] = [
        (
            "assigned_to",
            change.assigned_to.clone().map(|owner| Some(owner).filter(|o| !o.is_empty())),
        ),
        ("classification", change.classification.and_then(text)),
        ("determination", change.determination.and_then(text)),
    ];
    for (column, value) in columns {
        if let Some(value) = value {
            let set = format!("UPDATE alerts SET {column} = $1, updated = $2 WHERE id = $3");
            transaction.execute(&set, &[value.into(), now.into(), id.into()]).await?;
        }
    }
    if let Some(status) = change.status {
        set_status(transaction, now, id, status).await?;
    }
    if let Some(comment) = &change.comment {
        let select = "SELECT comments FROM alerts WHERE id = $1";
        let rows = transaction.read(select, &[id.into()]).await?;
        let text = rows.first().map_or(Ok("[]"), |row| row.text(0))?;
        let mut comments: Vec<Json> = serde_json::from_str(text).map_err(ApiError::internal)?;
        comments.push(json!({
            "comment": comment, "createdBy": call.actor(), "createdTime": time_text(now),
        }));
        let set = "UPDATE alerts SET comments = $1, updated = $2 WHERE id = $3";
        let values = [json!(comments).to_string().into(), now.into(), id.into()];
        transaction.execute(set, &values).await?;
    }
    Ok(())
}
