//! Indicators come in: one, or up to 500 with a result for each.

use super::{COLLECTION, MOST, count_up, entity, sees_own_only};
use crate::edge::body::{choice, documented};
use crate::edge::{ApiError, Call, json};
use crate::features::{alerts, domains};
use crate::odata;
use crate::state::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::net::IpAddr;
use vigie_contract::operations::operation;
use vigie_database::Transaction;

/// Indicators in one import.
const MOST_AT_ONCE: usize = 500;
/// Characters of a text.
const LONGEST: usize = 10_000;

const TYPES: &[&str] = &[
    "FileSha1",
    "FileSha256",
    "FileMd5",
    "CertificateThumbprint",
    "IpAddress",
    "DomainName",
    "Url",
];
const ACTIONS: &[&str] =
    &["Alert", "Warn", "Block", "Audit", "BlockAndRemediate", "AlertAndBlock", "Allowed"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    indicator_value: String,
    indicator_type: String,
    action: String,
    application: Option<String>,
    title: String,
    description: String,
    expiration_time: Option<String>,
    severity: Option<String>,
    recommended_actions: Option<String>,
    rbac_group_names: Option<Groups>,
    rbac_group_ids: Option<Groups>,
    educate_url: Option<String>,
    generate_alert: Option<bool>,
    #[serde(alias = "externalID")]
    external_id: Option<String>,
}

/// Names in a list, or in one text with commas between.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Groups {
    List(Vec<String>),
    Text(String),
}

impl Groups {
    fn list(groups: Option<Groups>) -> Vec<String> {
        let names = match groups {
            None => Vec::new(),
            Some(Groups::List(names)) => names,
            Some(Groups::Text(text)) => text.split(',').map(str::to_owned).collect(),
        };
        names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    }
}

/// An indicator that is known to be right.
struct Indicator {
    ty: &'static str,
    value: String,
    /// The value in the form in which it is compared.
    sought: String,
    action: &'static str,
    severity: &'static str,
    generate_alert: bool,
    expires: Option<i64>,
    body: Body,
}

impl Indicator {
    fn of(now: i64, body: Body) -> Result<Indicator, ApiError> {
        let ty = choice("indicatorType", &body.indicator_type, TYPES)?;
        let action = choice("action", &body.action, ACTIONS)?;
        let severity = body.severity.as_deref().unwrap_or("Informational");
        let severity = choice("severity", severity, alerts::SEVERITIES)?;
        let texts = [Some(&body.title), Some(&body.description), body.recommended_actions.as_ref()];
        if texts.into_iter().flatten().any(|text| text.chars().count() > LONGEST) {
            let message = format!("Texts of at most {LONGEST} characters are expected");
            return Err(ApiError::body(message));
        }
        if body.title.trim().is_empty() {
            return Err(ApiError::missing("title"));
        }
        let sought = sought(ty, &body.indicator_value)?;
        let fits = match action {
            "BlockAndRemediate" => ty.starts_with("File") || ty == "CertificateThumbprint",
            "Allowed" | "AlertAndBlock" => true,
            _ => ty != "CertificateThumbprint",
        };
        if !fits {
            let message = format!("action: {action} is not possible for indicators of type {ty}");
            return Err(ApiError::body(message));
        }
        // Alert and AlertAndBlock are older names of actions with an alert.
        let alerting = matches!(action, "Alert" | "AlertAndBlock" | "Audit");
        let generate_alert = body.generate_alert.unwrap_or(alerting);
        if !generate_alert && matches!(action, "Alert" | "Audit") {
            let message = format!("generateAlert: true is expected where the action is {action}");
            return Err(ApiError::body(message));
        }
        if generate_alert && action == "Allowed" {
            let message = "generateAlert: false is expected where the action is Allowed";
            return Err(ApiError::body(message));
        }
        let expires = body.expiration_time.as_deref().and_then(odata::time);
        let expires = expires.map(|time| time.timestamp_micros());
        if expires.is_some_and(|expires| expires <= now) {
            return Err(ApiError::body("expirationTime: a time to come is expected"));
        }
        let value = body.indicator_value.trim().to_owned();
        Ok(Indicator { ty, value, sought, action, severity, generate_alert, expires, body })
    }
}

/// The value in the form in which it is compared.
fn sought(ty: &str, value: &str) -> Result<String, ApiError> {
    let value = value.trim();
    let digits = |number: usize| {
        let fits = value.len() == number && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fits { Ok(value.to_lowercase()) } else { Err(ApiError::hash(value)) }
    };
    match ty {
        "FileSha1" | "CertificateThumbprint" => digits(40),
        "FileSha256" => digits(64),
        "FileMd5" => digits(32),
        "IpAddress" => match value.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_canonical().to_string()),
            Err(_) => match value.parse::<ipnet::IpNet>() {
                Ok(network) => Ok(network.trunc().to_string()),
                Err(_) => Err(ApiError::ip(value)),
            },
        },
        "DomainName" => domains::host(value),
        _ => vigie_indicators::url(value).ok_or_else(|| ApiError::url(value)),
    }
}

/// `POST /api/indicators`: a value that is there already is changed.
pub async fn submit(state: &State, call: Call) -> Result<Response, ApiError> {
    let indicator = Indicator::of(state.now(), call.json()?)?;
    let mut transaction = state.database.begin().await?;
    let mut room = room(state.now(), &mut transaction, &call).await?;
    let id = store(state.now(), &mut transaction, &call, &indicator, &mut room).await?;
    changed(&mut transaction, &call).await?;
    let sql = format!("SELECT {} FROM indicators t WHERE t.id = $1", COLLECTION.columns);
    let rows = transaction.read(&sql, &[id.into()]).await?;
    transaction.commit().await?;
    let row = rows.first().ok_or_else(|| ApiError::internal("an indicator is gone at once"))?;
    Ok(json(200, &COLLECTION.entity(&call, entity(row)?)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImportBody {
    indicators: Vec<Json>,
}

/// `POST /api/indicators/import`: a row that is wrong does not keep the others out.
pub async fn import(state: &State, call: Call) -> Result<Response, ApiError> {
    let body: ImportBody = call.json()?;
    if body.indicators.is_empty() {
        return Err(ApiError::missing("Indicators"));
    }
    if body.indicators.len() > MOST_AT_ONCE {
        return Err(ApiError::batch_size(body.indicators.len(), MOST_AT_ONCE));
    }
    let mut transaction = state.database.begin().await?;
    let mut room = room(state.now(), &mut transaction, &call).await?;
    let mut results = Vec::new();
    for row in body.indicators {
        let value = row.as_object().and_then(|members| {
            let found =
                members.iter().find(|(name, _)| name.eq_ignore_ascii_case("indicatorValue"));
            found.map(|(_, value)| value.clone())
        });
        let stored = match read_row(state.now(), row) {
            Ok(indicator) => {
                store(state.now(), &mut transaction, &call, &indicator, &mut room).await
            }
            Err(error) => Err(error),
        };
        let (id, reason) = match stored {
            Ok(id) => (Some(id.to_string()), None),
            Err(error) if error.status >= 500 => return Err(error),
            Err(error) => (None, Some(error.message)),
        };
        results.push(json!({
            "id": id, "indicator": value, "isFailed": reason.is_some(), "failureReason": reason,
        }));
    }
    changed(&mut transaction, &call).await?;
    transaction.commit().await?;
    let context = format!(
        "{}/$metadata#Collection(microsoft.windowsDefenderATP.api.ImportIndicatorResult)",
        call.base
    );
    Ok(json(200, &json!({"@odata.context": context, "value": results})))
}

/// A row of an import; its shape is that of a single indicator's body.
fn read_row(now: i64, row: Json) -> Result<Indicator, ApiError> {
    let Json::Object(members) = row else {
        return Err(ApiError::body("Indicators: objects are expected"));
    };
    let shape = operation("indicators.submit").and_then(|submit| submit.request_body.as_ref());
    let shape = shape.ok_or_else(|| ApiError::internal("indicators.submit has no body"))?;
    let body = serde_json::from_value(Json::Object(documented(members, shape)?));
    let body = body.map_err(|error| ApiError::body(format!("The row is incorrect: {error}")))?;
    Indicator::of(now, body)
}

/// How many more indicators the tenant may have. What has expired makes room, and a value that comes
/// again is a new one.
async fn room(now: i64, transaction: &mut Transaction, call: &Call) -> Result<i64, ApiError> {
    let tenant = call.caller.tenant.to_string();
    let forget = "DELETE FROM indicators WHERE tenant = $1 AND expires <= $2";
    transaction.execute(forget, &[tenant.as_str().into(), now.into()]).await?;
    let count = "SELECT COUNT(*) FROM indicators WHERE tenant = $1";
    let counted = transaction.read(count, &[tenant.into()]).await?;
    Ok(MOST - counted.first().map_or(Ok(0), |row| row.integer(0))?)
}

/// Writes an indicator; its id.
async fn store(
    now: i64,
    transaction: &mut Transaction,
    call: &Call,
    indicator: &Indicator,
    room: &mut i64,
) -> Result<i64, ApiError> {
    let (tenant, app) = (call.caller.tenant.to_string(), call.caller.app_id.to_string());
    let find = "SELECT id, app FROM indicators WHERE tenant = $1 AND type = $2 AND sought = $3";
    let key = [tenant.as_str().into(), indicator.ty.into(), indicator.sought.as_str().into()];
    let found = transaction.read(find, &key).await?;
    let groups = json!(Groups::list(indicator.body.rbac_group_names.clone())).to_string();
    let group_ids = json!(Groups::list(indicator.body.rbac_group_ids.clone())).to_string();
    let body = &indicator.body;
    let id = match found.first() {
        Some(row) => {
            if sees_own_only(call) && row.text(1)? != app {
                let message = "The indicator belongs to another application; Ti.ReadWrite.All is \
                               needed to change it.";
                return Err(ApiError::new(403, "Forbidden", message));
            }
            row.integer(0)?
        }
        None => {
            if *room <= 0 {
                let message = format!("The limit of {MOST} active indicators is reached.");
                return Err(ApiError::bad_request(message));
            }
            *room -= 1;
            let id = count_up(transaction, "id").await?;
            let insert = "INSERT INTO indicators (id, tenant, type, value, sought, action, \
                application, title, description, severity, generate_alert, group_names, group_ids, \
                created, created_by, created_by_name, updated, app) VALUES ($1, $2, $3, $4, $5, '', \
                $6, '', '', '', 0, '[]', '[]', $7, $8, $9, $7, $10)";
            let values = [
                id.into(),
                tenant.as_str().into(),
                indicator.ty.into(),
                indicator.value.as_str().into(),
                indicator.sought.as_str().into(),
                // Only the one that makes an indicator names its application.
                body.application.clone().into(),
                now.into(),
                call.creator().into(),
                call.actor().into(),
                app.into(),
            ];
            transaction.execute(insert, &values).await?;
            id
        }
    };
    let update = "UPDATE indicators SET action = $1, title = $2, description = $3, severity = $4, \
        recommended_actions = $5, educate_url = $6, external_id = $7, expires = $8, \
        generate_alert = $9, group_names = $10, group_ids = $11, updated = $12, updated_by = $13 \
        WHERE id = $14";
    let values = [
        indicator.action.into(),
        body.title.as_str().into(),
        body.description.as_str().into(),
        indicator.severity.into(),
        body.recommended_actions.clone().into(),
        body.educate_url.clone().into(),
        body.external_id.clone().into(),
        indicator.expires.into(),
        indicator.generate_alert.into(),
        groups.into(),
        group_ids.into(),
        now.into(),
        call.creator().into(),
        id.into(),
    ];
    transaction.execute(update, &values).await?;
    Ok(id)
}

/// Tells all nodes that the tenant's indicators are others.
pub(super) async fn changed(transaction: &mut Transaction, call: &Call) -> Result<(), ApiError> {
    count_up(transaction, &super::matches::version_of(call.caller.tenant)).await?;
    Ok(())
}
