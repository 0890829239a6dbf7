//! New alerts, more events of alerts, and their way to the hunting tables.

use super::{COUNTED, evidence};
use crate::edge::ApiError;
use crate::features::{investigations, service, time_text};
use crate::state::State;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;
use vigie_contract::service::AutomationLevel;
use vigie_database::Transaction;
use vigie_hunting::lake::Batch;

/// Entities of an alert at most: what goes on for hours is told by its first ones.
const MOST_EVIDENCE: usize = 500;
const SERVICE: &str = "Microsoft Defender for Endpoint";

/// What raised an alert.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Source {
    /// A caller of `createAlertByReference`.
    CustomTi,
    /// A detection rule.
    #[default]
    CustomDetection,
    /// A rule over what sensors' scans found.
    Antivirus,
    /// An investigation that was started by hand; it is none to be investigated.
    AutomatedInvestigation,
}

impl Source {
    /// As the API writes it.
    const fn api(self) -> &'static str {
        match self {
            Source::CustomTi => "CustomerTI",
            Source::CustomDetection => "CustomDetection",
            Source::Antivirus => "WindowsDefenderAv",
            Source::AutomatedInvestigation => "AutomatedInvestigation",
        }
    }

    /// As the hunting tables write it.
    const fn hunting(self) -> &'static str {
        match self {
            Source::CustomTi => "Custom TI",
            Source::CustomDetection => "Custom detection",
            Source::Antivirus => "Antivirus",
            Source::AutomatedInvestigation => "Automated investigation",
        }
    }
}

/// An alert to be raised. Times are microseconds since the Unix epoch.
pub struct NewAlert<'a> {
    pub tenant: Uuid,
    pub machine: &'a str,
    pub machine_name: &'a str,
    pub title: &'a str,
    pub description: &'a str,
    pub recommended_action: &'a str,
    pub severity: &'a str,
    pub category: &'a str,
    /// MITRE ATT&CK technique ids.
    pub techniques: &'a [String],
    pub source: Source,
    /// The rule.
    pub detector: Option<Uuid>,
    /// Rows of hunting tables; the alert's evidence.
    pub events: &'a [Json],
    pub first_event: i64,
    pub last_event: i64,
}

/// Writes a new alert and its rows for hunting; returns its id. The caller commits, then wakes
/// [`publish`].
pub async fn raise(
    transaction: &mut Transaction,
    now: i64,
    alert: &NewAlert<'_>,
) -> Result<String, ApiError> {
    let incident = next_number(transaction, "incident").await?;
    let id = format!("da{}_{incident}", Uuid::new_v4().simple());
    let mut entities = evidence::of_events(alert.events, now);
    entities.truncate(MOST_EVIDENCE);
    let user = entities.iter().find(|entity| entity["entityType"] == "User");
    let of_user = |name: &str| user.and_then(|user| user[name].as_str()).map(str::to_owned);
    let insert = "INSERT INTO alerts (id, tenant, machine, name, title, description, \
        recommended_action, severity, category, status, detection_source, incident, techniques, \
        comments, detector, created, updated, first_event, last_event, related_user, \
        related_domain, logged_on_users, investigation_state) VALUES ($1, $2, $3, $4, $5, $6, $7, \
        $8, $9, 'New', $10, $11, $12, '[]', $13, $14, $14, $15, $16, $17, $18, $19, $20)";
    let investigation = investigation_state(transaction, alert, &entities).await?;
    let detector = alert.detector.map(|detector| detector.to_string());
    let values = [
        id.as_str().into(),
        alert.tenant.to_string().into(),
        alert.machine.into(),
        alert.machine_name.into(),
        alert.title.into(),
        alert.description.into(),
        alert.recommended_action.into(),
        alert.severity.into(),
        alert.category.into(),
        alert.source.api().into(),
        incident.into(),
        json!(alert.techniques).to_string().into(),
        detector.into(),
        now.into(),
        alert.first_event.into(),
        alert.last_event.into(),
        of_user("accountName").into(),
        of_user("domainName").into(),
        logged_on(transaction, alert.machine).await?.to_string().into(),
        investigation.into(),
    ];
    transaction.execute(insert, &values).await?;
    let kinds = [alert.severity, "New"];
    COUNTED.change(transaction, &alert.tenant.to_string(), now, &kinds, 1).await?;
    evidence::store(transaction, &alert.tenant.to_string(), &id, 0, &entities).await?;
    let info = json!({
        "Timestamp": time_text(now), "AlertId": id, "Title": alert.title,
        "Category": alert.category, "Severity": alert.severity, "ServiceSource": SERVICE,
        "DetectionSource": alert.source.hunting(), "AttackTechniques": techniques(alert),
    });
    let mut rows = vec![json!({"EntityType": "Machine", "EvidenceRole": "Impacted"})];
    rows.extend(entities.iter().map(evidence::hunting_row));
    let tables = json!({"AlertInfo": [info], "AlertEvidence": complete(rows, now, &id, alert)});
    queue_rows(transaction, alert.tenant, tables).await?;
    Ok(id)
}

/// Adds later events of the same kind to an alert that is open. The caller commits, then wakes
/// [`publish`].
pub async fn add_events(
    transaction: &mut Transaction,
    now: i64,
    id: &str,
    alert: &NewAlert<'_>,
) -> Result<(), ApiError> {
    let entities = evidence::load_one(transaction, id).await?;
    let mut new = evidence::not_yet_in(&entities, evidence::of_events(alert.events, now));
    new.truncate(MOST_EVIDENCE.saturating_sub(entities.len()));
    let rows: Vec<Json> = new.iter().map(evidence::hunting_row).collect();
    evidence::store(transaction, &alert.tenant.to_string(), id, entities.len(), &new).await?;
    // MIN and MAX of two values are spelt differently by the two databases.
    let set = "UPDATE alerts SET updated = $1, \
        first_event = CASE WHEN first_event < $2 THEN first_event ELSE $2 END, \
        last_event = CASE WHEN last_event > $3 THEN last_event ELSE $3 END WHERE id = $4";
    let values = [now.into(), alert.first_event.into(), alert.last_event.into(), id.into()];
    transaction.execute(set, &values).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let tables = json!({"AlertEvidence": complete(rows, now, id, alert)});
    queue_rows(transaction, alert.tenant, tables).await
}

/// Whether a new alert is investigated by itself: where its tenant wants that and there is something
/// to look for.
async fn investigation_state(
    transaction: &mut Transaction,
    alert: &NewAlert<'_>,
    entities: &[Json],
) -> Result<&'static str, ApiError> {
    let automation = service::automation(transaction, alert.tenant).await?;
    let wanted = automation.level != AutomationLevel::NoAutomatedResponse
        && alert.source != Source::AutomatedInvestigation
        && investigations::can_look_for(entities);
    Ok(if wanted { "Queued" } else { "UnsupportedAlertType" })
}

/// Who was logged on to the machine, as its sensor reported last.
async fn logged_on(transaction: &mut Transaction, machine: &str) -> Result<Json, ApiError> {
    let select = "SELECT account_name, account_domain FROM machine_users WHERE machine = $1 \
                  ORDER BY last_seen DESC, account_name LIMIT 20";
    let mut users = Vec::new();
    for row in transaction.read(select, &[machine.into()]).await? {
        users.push(json!({"accountName": row.text(0)?, "domainName": row.text(1)?}));
    }
    Ok(users.into())
}

/// What every row of `AlertEvidence` tells besides its entity.
fn complete(rows: Vec<Json>, now: i64, id: &str, alert: &NewAlert<'_>) -> Vec<Json> {
    let fill = |mut row: Json| {
        row["Timestamp"] = time_text(now).into();
        row["AlertId"] = id.into();
        row["Title"] = alert.title.into();
        row["Categories"] = json!([alert.category]).to_string().into();
        row["AttackTechniques"] = techniques(alert).into();
        row["ServiceSource"] = SERVICE.into();
        row["DetectionSource"] = alert.source.hunting().into();
        row["DeviceId"] = alert.machine.into();
        row["DeviceName"] = alert.machine_name.into();
        row["Severity"] = alert.severity.into();
        row
    };
    rows.into_iter().map(fill).collect()
}

/// Techniques as the hunting tables hold them: JSON text, empty where there is none.
fn techniques(alert: &NewAlert<'_>) -> String {
    if alert.techniques.is_empty() { String::new() } else { json!(alert.techniques).to_string() }
}

/// Writes rows for hunting, by table, which [`publish`] brings to the lake after the commit.
pub async fn queue_rows(
    transaction: &mut Transaction,
    tenant: Uuid,
    tables: Json,
) -> Result<(), ApiError> {
    let number = next_number(transaction, "row").await?;
    let insert = "INSERT INTO alert_rows (number, tenant, body) VALUES ($1, $2, $3)";
    let body = json!({ "tables": tables }).to_string();
    transaction.execute(insert, &[number.into(), tenant.to_string().into(), body.into()]).await?;
    Ok(())
}

async fn next_number(transaction: &mut Transaction, name: &str) -> Result<i64, ApiError> {
    let add = "UPDATE alert_numbers SET last = last + 1 WHERE name = $1";
    transaction.execute(add, &[name.into()]).await?;
    let select = "SELECT last FROM alert_numbers WHERE name = $1";
    let rows = transaction.read(select, &[name.into()]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.integer(0))?)
}

/// Brings rows of alerts to the lake until the server stops: written with the alert in one
/// transaction, numbered, so that none is lost and none stored twice.
pub async fn publish(state: State) {
    loop {
        if let Err(error) = publish_once(&state).await {
            tracing::error!(error = error.message, "rows of alerts are published later");
        }
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = state.publish.notified() => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(10)) => {}
        }
    }
}

async fn publish_once(state: &State) -> Result<(), ApiError> {
    let select = "SELECT number, tenant, body FROM alert_rows ORDER BY number LIMIT 100";
    for row in state.database.read(select, &[]).await? {
        let number = row.integer(0)?;
        let batch = Batch {
            tenant: Uuid::try_parse(row.text(1)?).map_err(ApiError::internal)?,
            source: "alerts".to_owned(),
            sequence: number.unsigned_abs(),
            constants: Vec::new(),
            body: row.text(2)?.to_owned().into(),
        };
        state.lake.append(batch).await.map_err(ApiError::internal)?;
        let delete = "DELETE FROM alert_rows WHERE number = $1";
        state.database.execute(delete, &[number.into()]).await?;
    }
    Ok(())
}
