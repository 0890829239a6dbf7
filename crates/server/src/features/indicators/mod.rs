//! Indicators: values that a tenant's administrators and applications look for, what is to happen
//! where one is seen, and the alerts of those that arrive.

mod delete;
mod matches;
mod submit;

pub use delete::{delete, delete_many};
pub use matches::{Prepared, raise, watch};
pub use submit::{import, submit};

use super::{optional_time, time_text};
use crate::edge::{ApiError, Call};
use crate::odata::{Collection, Property, Query, TEXTS, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use vigie_database::{Migrations, Row, Transaction};

pub const INDICATORS: Migrations = Migrations {
    feature: "indicators",
    steps: &["
CREATE TABLE indicators (
    id BIGINT PRIMARY KEY, tenant TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL,
    sought TEXT NOT NULL, action TEXT NOT NULL, application TEXT, title TEXT NOT NULL,
    description TEXT NOT NULL, severity TEXT NOT NULL, recommended_actions TEXT, educate_url TEXT,
    external_id TEXT, expires BIGINT, generate_alert BIGINT NOT NULL, group_names TEXT NOT NULL,
    group_ids TEXT NOT NULL, created BIGINT NOT NULL, created_by TEXT NOT NULL,
    created_by_name TEXT, updated BIGINT NOT NULL, updated_by TEXT, app TEXT NOT NULL,
    UNIQUE (tenant, type, sought));
CREATE INDEX indicators_page ON indicators (tenant, id);
CREATE TABLE indicator_numbers (name TEXT PRIMARY KEY, last BIGINT NOT NULL);
"],
};

/// Active indicators of a tenant (limit of the service).
pub const MOST: i64 = 15_000;

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

pub const COLLECTION: Collection = Collection {
    name: "Indicators",
    from: "indicators t",
    columns: "t.id, t.type, t.value, t.action, t.application, t.title, t.description, t.severity, \
              t.recommended_actions, t.educate_url, t.external_id, t.expires, t.generate_alert, \
              t.group_names, t.group_ids, t.created, t.created_by, t.created_by_name, t.updated, \
              t.updated_by",
    properties: &[
        property("id", "t.id", Type::Integer),
        property("indicatorValue", "t.value", Type::Text),
        property("indicatorType", "t.type", Type::Text),
        property("action", "t.action", Type::Text),
        property("application", "t.application", Type::Text),
        property("title", "t.title", Type::Text),
        property("description", "t.description", Type::Text),
        property("severity", "t.severity", Type::Text),
        property("recommendedActions", "t.recommended_actions", Type::Text),
        property("educateUrl", "t.educate_url", Type::Text),
        property("externalId", "t.external_id", Type::Text),
        property("expirationTime", "t.expires", Type::Time),
        property("generateAlert", "t.generate_alert", Type::Flag),
        property("rbacGroupNames", "t.group_names", TEXTS),
        property("rbacGroupIds", "t.group_ids", TEXTS),
        property("creationTimeDateTimeUtc", "t.created", Type::Time),
        property("createdBy", "t.created_by", Type::Text),
        property("createdByDisplayName", "t.created_by_name", Type::Text),
        property("createdBySource", "'PublicApi'", Type::Text),
        property("lastUpdateTime", "t.updated", Type::Time),
        property("lastUpdatedBy", "t.updated_by", Type::Text),
    ],
    shown: &[
        "category",
        "bypassDurationHours",
        "notificationId",
        "notificationBody",
        "version",
        "mitreTechniques",
        "historicalDetection",
        "lookBackPeriod",
        "additionalInfo",
        "certificateInfo",
    ],
    expandable: &[],
    key: "t.id",
    never_null: &[],
    counted: None,
    max_page: 10_000,
};

/// Whether the caller sees the indicators that it made itself and no others: an application with
/// `Ti.ReadWrite` alone.
fn sees_own_only(call: &Call) -> bool {
    let has = |role: &str| call.caller.roles.iter().any(|found| found == role);
    has("Ti.ReadWrite") && !has("Ti.ReadWrite.All")
}

/// The indicators of the caller that have not expired.
fn active(state: &State, call: &Call) -> Result<Query, ApiError> {
    let mut query = COLLECTION.query(call, Some(&call.caller.tenant.to_string()))?;
    query.require(format!("(t.expires IS NULL OR t.expires > {})", state.now()));
    if sees_own_only(call) {
        query.restrict("t.app = $", call.caller.app_id.to_string().into());
    }
    Ok(query)
}

/// `GET /api/indicators`
pub async fn list(state: &State, call: Call) -> Result<Response, ApiError> {
    let query = active(state, &call)?;
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

fn entity(row: &Row) -> Result<Json, ApiError> {
    let texts = |text: &str| serde_json::from_str::<Json>(text).map_err(ApiError::internal);
    Ok(json!({
        "id": row.integer(0)?.to_string(),
        "indicatorValue": row.text(2)?,
        "indicatorType": row.text(1)?,
        "action": row.text(3)?,
        "createdBy": row.text(16)?,
        "severity": row.text(7)?,
        "category": 1,
        "application": row.optional_text(4)?,
        "educateUrl": row.optional_text(9)?,
        "bypassDurationHours": null,
        "title": row.text(5)?,
        "description": row.text(6)?,
        "recommendedActions": row.optional_text(8)?,
        "creationTimeDateTimeUtc": time_text(row.integer(15)?),
        "expirationTime": optional_time(row.optional_integer(11)?),
        "lastUpdateTime": time_text(row.integer(18)?),
        "lastUpdatedBy": row.optional_text(19)?,
        "rbacGroupNames": texts(row.text(13)?)?,
        "rbacGroupIds": texts(row.text(14)?)?,
        "notificationId": null,
        "notificationBody": null,
        "version": null,
        "mitreTechniques": [],
        "historicalDetection": false,
        "lookBackPeriod": null,
        "generateAlert": row.flag(12)?,
        "additionalInfo": null,
        "createdByDisplayName": row.optional_text(17)?,
        "externalId": row.optional_text(10)?,
        "createdBySource": "PublicApi",
        "certificateInfo": null,
    }))
}

/// Counts up a number of that name: ids, and the version of a tenant's indicators, by which every
/// node sees that it has to read them again.
async fn count_up(transaction: &mut Transaction, name: &str) -> Result<i64, ApiError> {
    let add = "INSERT INTO indicator_numbers (name, last) VALUES ($1, 1) \
               ON CONFLICT (name) DO UPDATE SET last = indicator_numbers.last + 1";
    transaction.execute(add, &[name.into()]).await?;
    let select = "SELECT last FROM indicator_numbers WHERE name = $1";
    let rows = transaction.read(select, &[name.into()]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.integer(0))?)
}
