//! Who ordered what and how it went: a log that administrators read, and rows of `CloudAppEvents` for
//! hunting, written in the transaction of the change that they tell of.

use crate::edge::ApiError;
use crate::features::alerts::queue_rows;
use crate::features::time_text;
use crate::state::State;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_database::Transaction;

pub struct Entry<'a> {
    pub action: &'a str,
    pub tenant: Uuid,
    /// Type of the action.
    pub kind: &'a str,
    pub machine: &'a str,
    pub machine_name: &'a str,
    /// The requester, `sensor` or `server`.
    pub actor: &'a str,
    pub app_id: Option<Uuid>,
    /// `Requested`, `CancelRequested`, or the state that the action took.
    pub event: &'a str,
    pub detail: Json,
}

/// Longest answer of [`list`].
const LONGEST_LIST: u64 = 10_000;

pub async fn write(
    transaction: &mut Transaction,
    now: i64,
    entry: &Entry<'_>,
) -> Result<(), ApiError> {
    let id = Uuid::new_v4().to_string();
    let insert = "INSERT INTO machine_action_log (id, action, tenant, at, actor, event, detail) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let mut detail = entry.detail.clone();
    detail["type"] = entry.kind.into();
    detail["machineId"] = entry.machine.into();
    let values = [
        id.as_str().into(),
        entry.action.into(),
        entry.tenant.to_string().into(),
        now.into(),
        entry.actor.into(),
        entry.event.into(),
        detail.to_string().into(),
    ];
    transaction.execute(insert, &values).await?;
    detail["actionId"] = entry.action.into();
    detail["event"] = entry.event.into();
    let row = json!({
        "Timestamp": time_text(now), "ActionType": entry.kind, "ReportId": id,
        "Application": "Microsoft Defender for Endpoint", "ActivityType": entry.event,
        "AccountDisplayName": entry.actor, "IsAdminOperation": true,
        "OAuthAppId": entry.app_id.map(|id| id.to_string()).unwrap_or_default(),
        "ObjectType": "Machine", "ObjectId": entry.machine, "ObjectName": entry.machine_name,
        "RawEventData": detail.to_string(),
    });
    queue_rows(transaction, entry.tenant, json!({"CloudAppEvents": [row]})).await
}

/// The log of a tenant, newest first: `actionId`, `time`, `actor`, `event`, `detail`.
pub async fn list(state: &State, tenant: Uuid) -> Result<Vec<Json>, ApiError> {
    let select = format!(
        "SELECT action, at, actor, event, detail FROM machine_action_log WHERE tenant = $1 \
         ORDER BY at DESC, id LIMIT {LONGEST_LIST}"
    );
    let rows = state.database.read(&select, &[tenant.to_string().into()]).await?;
    let entries = rows.iter().map(|row| {
        let detail: Json = serde_json::from_str(row.text(4)?).map_err(ApiError::internal)?;
        Ok(json!({
            "actionId": row.text(0)?, "time": time_text(row.integer(1)?), "actor": row.text(2)?,
            "event": row.text(3)?, "detail": detail,
        }))
    });
    entries.collect()
}
