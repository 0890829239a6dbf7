//! Whether a rule can run, and what it has to return.

use crate::edge::ApiError;
use crate::edge::body::choice;
use crate::features::alerts::SEVERITIES;
use crate::features::hunting::functions;
use crate::state::State;
use uuid::Uuid;
use vigie_contract::detection::{EntityType, Frequency, NewDetection};
use vigie_contract::operations::operation;
use vigie_hunting::{Database, Limits, QueryError};
use vigie_kql::lexer::{TokenKind, tokens};

/// Columns that name an event of a device: all of the same event.
const NEEDED: &[&str] = &["Timestamp", "DeviceId", "ReportId"];

/// Columns that may tell who is hit, by the kind of entity.
const DEVICES: &[&str] = &["DeviceId", "DeviceName", "RemoteDeviceName"];
const USERS: &[&str] = &[
    "AccountObjectId",
    "AccountSid",
    "AccountUpn",
    "InitiatingProcessAccountSid",
    "InitiatingProcessAccountUpn",
    "InitiatingProcessAccountObjectId",
];
const MAILBOXES: &[&str] =
    &["RecipientEmailAddress", "SenderFromAddress", "SenderMailFromAddress", "RecipientObjectId"];

/// Operators that a rule on arriving events may not use: it looks at one table.
const NOT_CONTINUOUS: &[&str] = &["join", "union", "lookup", "externaldata"];

/// Names of [`NEEDED`].
pub fn columns_needed() -> impl Iterator<Item = &'static str> {
    NEEDED.iter().copied()
}

/// Refuses a rule that could never raise an alert, and says why; brings names into their documented
/// spelling.
pub async fn validate(
    state: &State,
    tenant: Uuid,
    rule: &mut NewDetection,
) -> Result<(), ApiError> {
    for (name, text) in [("displayName", &rule.display_name), ("title", &rule.title)] {
        if text.trim().is_empty() || text.chars().count() > 500 {
            let message = format!("{name}: a text of 1 to 500 characters is expected");
            return Err(ApiError::body(message));
        }
    }
    rule.severity = choice("severity", &rule.severity, SEVERITIES)?.to_owned();
    let by_reference = operation("alerts.createByReference");
    let mut categories: Vec<&str> =
        by_reference.map(|operation| operation.choices("category")).unwrap_or_default();
    categories.push("UnwantedSoftware");
    rule.category = choice("category", &rule.category, &categories)?.to_owned();
    for technique in &rule.techniques {
        let digits = technique.strip_prefix('T').unwrap_or_default();
        let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !fits {
            let message = format!("techniques: '{technique}' is no technique such as T1059.001");
            return Err(ApiError::body(message));
        }
    }
    if rule.frequency == Frequency::Continuous {
        one_table(&rule.query)?;
    }
    let columns = columns(state, tenant, &rule.query).await?;
    let missing: Vec<&str> =
        columns_needed().filter(|name| !columns.iter().any(|column| column == name)).collect();
    if !missing.is_empty() {
        let message = format!("query: the columns {} are not returned", missing.join(", "));
        return Err(ApiError::body(message));
    }
    for (at, entity) in rule.impacted_entities.iter().enumerate() {
        let (kind, allowed) = match entity.r#type {
            EntityType::Device => ("device", DEVICES),
            EntityType::User => ("user", USERS),
            EntityType::Mailbox => ("mailbox", MAILBOXES),
        };
        let column = choice("impactedEntities", &entity.column, allowed)?;
        if !columns.iter().any(|known| known == column) {
            let message = format!("impactedEntities: the column {column} is not returned");
            return Err(ApiError::body(message));
        }
        if rule.impacted_entities[..at].iter().any(|earlier| earlier.r#type == entity.r#type) {
            let message = format!("impactedEntities: one column for each {kind} is expected");
            return Err(ApiError::body(message));
        }
    }
    Ok(())
}

fn one_table(query: &str) -> Result<(), ApiError> {
    for token in tokens(query).0 {
        if let TokenKind::Name(name) = &token.kind
            && let Some(found) = NOT_CONTINUOUS.iter().find(|word| **word == name.as_str())
        {
            let message = format!(
                "query: {found} is not possible in a rule that runs continuously; it looks at one table"
            );
            return Err(ApiError::body(message));
        }
    }
    Ok(())
}

/// The columns that a query returns; it runs over tables without a row.
async fn columns(state: &State, tenant: Uuid, query: &str) -> Result<Vec<String>, ApiError> {
    let database = match functions::saved(state, tenant).await? {
        Some(saved) => Database::Empty.with(saved),
        None => Database::Empty,
    };
    let result = state.engine.run(&database, query, &Limits::default()).await;
    let result = result.map_err(|error| match error {
        QueryError::Rejected(diagnostics) => {
            let texts: Vec<String> = diagnostics.iter().take(5).map(|d| d.display(query)).collect();
            ApiError::body(format!("query: {}", texts.join("\n")))
        }
        QueryError::Internal(cause) => ApiError::internal(cause),
        other => ApiError::body(format!("query: {other}")),
    })?;
    let table = result.tables.last();
    let table = table.ok_or_else(|| ApiError::body("query: it has no tabular result"))?;
    Ok(table.columns.iter().map(|column| column.name.clone()).collect())
}
