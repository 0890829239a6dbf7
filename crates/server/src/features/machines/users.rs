//! Users who logged on to a machine, as its sensor reported them.

use super::visible;
use crate::edge::{ApiError, Call};
use crate::features::{optional_time, users};
use crate::odata::{Collection, Property, Type};
use crate::state::State;
use axum::response::Response;
use serde_json::{Value as Json, json};
use vigie_database::Row;

const fn property(name: &'static str, sql: &'static str, ty: Type) -> Property {
    Property { name, sql, ty }
}

const COLLECTION: Collection = Collection {
    name: "Users",
    from: "machine_users t",
    columns: "t.account_name, t.account_domain, t.account_sid, t.logon_types, t.first_seen, \
              t.last_seen, t.domain_admin, t.only_network",
    properties: &[
        property("accountName", "t.account_name", Type::Text),
        property("accountDomain", "t.account_domain", Type::Text),
        property("accountSid", "t.account_sid", Type::Text),
        property("logonTypes", "t.logon_types", Type::Text),
        property("firstSeen", "t.first_seen", Type::Time),
        property("lastSeen", "t.last_seen", Type::Time),
        property("isDomainAdmin", "t.domain_admin", Type::Flag),
        property("isOnlyNetworkUser", "t.only_network", Type::Flag),
    ],
    shown: &["id", "mostPrevalentMachineId", "leastPrevalentMachineId", "logOnMachinesCount"],
    expandable: &[],
    key: "t.account_domain, t.account_name",
    never_null: &[],
    counted: None,
    max_page: 10_000,
};

/// `GET /api/machines/{id}/logonusers`
pub async fn logon_users(state: &State, call: Call) -> Result<Response, ApiError> {
    let machine = visible(state, &call, &call.parameters[0]).await?;
    let mut query = COLLECTION.query(&call, None)?;
    query.restrict("t.machine = $", machine["id"].as_str().unwrap_or_default().into());
    let page = COLLECTION.page(state, &query, &call).await?;
    let entities = page.rows.iter().map(entity).collect::<Result<Vec<_>, _>>()?;
    Ok(COLLECTION.respond(&call, &query, &page, entities))
}

fn entity(row: &Row) -> Result<Json, ApiError> {
    let (name, domain) = (row.text(0)?, row.text(1)?);
    Ok(json!({
        "id": users::id(domain, name),
        "accountName": name,
        "accountDomain": domain,
        "accountSid": row.optional_text(2)?,
        "firstSeen": optional_time(row.optional_integer(4)?),
        "lastSeen": optional_time(row.optional_integer(5)?),
        "mostPrevalentMachineId": null,
        "leastPrevalentMachineId": null,
        "logonTypes": row.text(3)?,
        "logOnMachinesCount": null,
        "isDomainAdmin": row.flag(6)?,
        "isOnlyNetworkUser": row.flag(7)?,
    }))
}
