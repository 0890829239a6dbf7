//! The tables of investigations.
//!
//! An investigation has *tasks*, one for each machine and round: what to look for there, and the order
//! that was given for it. What the orders found are its *findings*, each with a verdict and with what
//! becomes of it.

use super::verdicts::Verdict;
use crate::edge::ApiError;
use crate::state::State;
use serde_json::json;
use uuid::Uuid;
use vigie_contract::sensor::{Finding, InvestigatedEntities};
use vigie_database::{Migrations, Row, Transaction, Value};

pub const INVESTIGATIONS: Migrations = Migrations {
    feature: "investigations",
    steps: &[
        "
CREATE TABLE investigations (
    number BIGINT PRIMARY KEY, tenant TEXT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, details TEXT, alert TEXT NOT NULL, started BIGINT NOT NULL, ended BIGINT);
CREATE TABLE investigation_numbers (last BIGINT NOT NULL);
INSERT INTO investigation_numbers (last) VALUES (0);
",
        "
ALTER TABLE investigations ADD COLUMN requestor TEXT NOT NULL DEFAULT '';
ALTER TABLE investigations ADD COLUMN requestor_comment TEXT NOT NULL DEFAULT '';
ALTER TABLE investigations ADD COLUMN app TEXT;
ALTER TABLE investigations ADD COLUMN looked TEXT NOT NULL DEFAULT '{}';
ALTER TABLE investigations ADD COLUMN rounds BIGINT NOT NULL DEFAULT 0;
CREATE INDEX investigations_open ON investigations (state, ended);
CREATE TABLE investigation_tasks (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL, machine TEXT NOT NULL, name TEXT NOT NULL,
    entities TEXT NOT NULL, action TEXT, noted BIGINT NOT NULL DEFAULT 0);
CREATE INDEX investigation_tasks_number ON investigation_tasks (number);
CREATE TABLE investigation_findings (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL, found BIGINT NOT NULL, machine TEXT NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL, entity TEXT NOT NULL, place TEXT NOT NULL, path TEXT,
    sha1 TEXT, package TEXT, verdict TEXT NOT NULL, remediation TEXT NOT NULL, action TEXT);
CREATE INDEX investigation_findings_number ON investigation_findings (number);
CREATE INDEX investigation_findings_waiting ON investigation_findings (machine, sha1)
    WHERE remediation = 'Waiting';
",
    ],
};

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remediation {
    /// Nothing is to be done.
    None,
    /// A person is to decide.
    Waiting,
    /// It is to be removed; the order was not given yet.
    Allowed,
    Ordered,
    Done,
    Failed,
}

impl Remediation {
    const ALL: [Remediation; 6] = [
        Remediation::None,
        Remediation::Waiting,
        Remediation::Allowed,
        Remediation::Ordered,
        Remediation::Done,
        Remediation::Failed,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn of(text: &str) -> Remediation {
        let found = Remediation::ALL.into_iter().find(|one| one.name() == text);
        found.unwrap_or(Remediation::None)
    }
}

/// An investigation as its progress needs it.
pub struct Investigation {
    pub number: i64,
    pub tenant: Uuid,
    pub machine: String,
    pub machine_name: String,
    pub state: String,
    pub requestor: String,
    pub comment: String,
    pub app: Option<Uuid>,
    /// What was looked for so far.
    pub looked: InvestigatedEntities,
    pub rounds: i64,
}

const COLUMNS: &str = "number, tenant, machine, name, state, requestor, requestor_comment, app, \
                       looked, rounds";

fn investigation(row: &Row) -> Result<Investigation, ApiError> {
    let app = row.optional_text(7)?.map(Uuid::try_parse).transpose();
    Ok(Investigation {
        number: row.integer(0)?,
        tenant: Uuid::try_parse(row.text(1)?).map_err(ApiError::internal)?,
        machine: row.text(2)?.to_owned(),
        machine_name: row.text(3)?.to_owned(),
        state: row.text(4)?.to_owned(),
        requestor: row.text(5)?.to_owned(),
        comment: row.text(6)?.to_owned(),
        app: app.map_err(ApiError::internal)?,
        looked: serde_json::from_str(row.text(8)?).map_err(ApiError::internal)?,
        rounds: row.integer(9)?,
    })
}

/// Alerts that come while an investigation runs make further rounds of it, up to this many.
pub const MOST_ROUNDS: i64 = 20;

/// A page of the investigations that go on by themselves, of one tenant or all, with or without those
/// that wait for machines: those with numbers after one.
pub async fn running(
    state: &State,
    tenant: Option<Uuid>,
    waiting: bool,
    after: i64,
) -> Result<Vec<Investigation>, ApiError> {
    let states = if waiting { "'Running', 'PendingResource'" } else { "'Running'" };
    let mut values: Vec<Value> = vec![after.into()];
    let mut of_tenant = "";
    if let Some(tenant) = tenant {
        values.push(tenant.to_string().into());
        of_tenant = "AND tenant = $2";
    }
    let select = format!(
        "SELECT {COLUMNS} FROM investigations WHERE state IN ({states}) AND number > $1 \
         {of_tenant} ORDER BY number LIMIT 1000"
    );
    state.database.read(&select, &values).await?.iter().map(investigation).collect()
}

/// Investigations whose waiting findings a person has dealt with, or that nobody dealt with until
/// `before`.
pub async fn decided(state: &State, before: i64) -> Result<Vec<Investigation>, ApiError> {
    let select = format!(
        "SELECT {COLUMNS} FROM investigations i WHERE state = 'PendingApproval' AND (ended < $1 OR \
         NOT EXISTS (SELECT 1 FROM alerts t WHERE t.investigation = i.number \
                     AND t.status <> 'Resolved') OR \
         EXISTS (SELECT 1 FROM investigation_findings f JOIN machine_actions a \
                 ON a.machine = f.machine AND a.related_sha1 = f.sha1 \
                 WHERE f.number = i.number AND f.remediation = 'Waiting' \
                 AND a.type = 'StopAndQuarantineFile' AND a.status = 'Succeeded' \
                 AND a.updated >= f.found)) LIMIT 1000"
    );
    state.database.read(&select, &[before.into()]).await?.iter().map(investigation).collect()
}

/// The investigation of a machine that new alerts belong to: one that still looks for something new.
pub async fn running_on(
    transaction: &mut Transaction,
    tenant: Uuid,
    machine: &str,
) -> Result<Option<i64>, ApiError> {
    let select = "SELECT number FROM investigations WHERE tenant = $1 AND machine = $2 \
                  AND state IN ('Running', 'PendingResource') AND rounds < $3 \
                  ORDER BY number DESC LIMIT 1";
    let values = [tenant.to_string().into(), machine.into(), MOST_ROUNDS.into()];
    let rows = transaction.read(select, &values).await?;
    rows.first().map(|row| Ok(row.integer(0)?)).transpose()
}

/// Keeps an investigation from ending before this transaction does; false if it has ended, or had its
/// last round.
pub async fn hold(transaction: &mut Transaction, number: i64) -> Result<bool, ApiError> {
    let update = "UPDATE investigations SET state = state WHERE number = $1 \
                  AND state IN ('Running', 'PendingResource') AND rounds < $2";
    Ok(transaction.execute(update, &[number.into(), MOST_ROUNDS.into()]).await? > 0)
}

/// A new investigation, and who wants it.
pub struct NewInvestigation<'a> {
    pub tenant: Uuid,
    pub machine: &'a str,
    pub machine_name: &'a str,
    pub alert: &'a str,
    pub requestor: &'a str,
    pub comment: &'a str,
    pub app: Option<Uuid>,
}

/// Writes an investigation that runs; its number.
pub async fn insert(
    transaction: &mut Transaction,
    now: i64,
    new: &NewInvestigation<'_>,
) -> Result<i64, ApiError> {
    transaction.execute("UPDATE investigation_numbers SET last = last + 1", &[]).await?;
    let rows = transaction.read("SELECT last FROM investigation_numbers", &[]).await?;
    let number = rows.first().map_or(Ok(0), |row| row.integer(0))?;
    let insert = "INSERT INTO investigations (number, tenant, machine, name, state, alert, started, \
                  requestor, requestor_comment, app) \
                  VALUES ($1, $2, $3, $4, 'Running', $5, $6, $7, $8, $9)";
    let values = [
        number.into(),
        new.tenant.to_string().into(),
        new.machine.into(),
        new.machine_name.into(),
        new.alert.into(),
        now.into(),
        new.requestor.into(),
        new.comment.into(),
        new.app.map(|app| app.to_string()).into(),
    ];
    transaction.execute(insert, &values).await?;
    Ok(number)
}

/// What to look for on one machine.
pub struct Task {
    pub id: String,
    pub machine: String,
    pub machine_name: String,
    pub entities: InvestigatedEntities,
    pub action: Option<String>,
    /// Whether what its order found is among the findings.
    pub noted: bool,
}

/// Adds a round: tasks, and what all of them look for. Nothing happens if another node did so first.
pub async fn add_round(
    transaction: &mut Transaction,
    number: i64,
    round: i64,
    looked: &InvestigatedEntities,
    tasks: &[Task],
) -> Result<(), ApiError> {
    let update =
        "UPDATE investigations SET looked = $1, rounds = $2 WHERE number = $3 AND rounds = $4";
    let values =
        [json!(looked).to_string().into(), (round + 1).into(), number.into(), round.into()];
    if transaction.execute(update, &values).await? == 0 {
        return Ok(());
    }
    for task in tasks {
        let insert = "INSERT INTO investigation_tasks (id, number, machine, name, entities) \
                      VALUES ($1, $2, $3, $4, $5)";
        let values = [
            task.id.as_str().into(),
            number.into(),
            task.machine.as_str().into(),
            task.machine_name.as_str().into(),
            json!(task.entities).to_string().into(),
        ];
        transaction.execute(insert, &values).await?;
    }
    Ok(())
}

pub async fn tasks(state: &State, number: i64) -> Result<Vec<Task>, ApiError> {
    let select = "SELECT id, machine, name, entities, action, noted FROM investigation_tasks \
                  WHERE number = $1 ORDER BY id";
    let rows = state.database.read(select, &[number.into()]).await?;
    let tasks = rows.iter().map(|row| {
        Ok(Task {
            id: row.text(0)?.to_owned(),
            machine: row.text(1)?.to_owned(),
            machine_name: row.text(2)?.to_owned(),
            entities: serde_json::from_str(row.text(3)?).map_err(ApiError::internal)?,
            action: row.optional_text(4)?.map(str::to_owned),
            noted: row.integer(5)? != 0,
        })
    });
    tasks.collect()
}

/// Notes the order of a task; false if it has one.
pub async fn assign(
    transaction: &mut Transaction,
    task: &str,
    action: Uuid,
) -> Result<bool, ApiError> {
    let update = "UPDATE investigation_tasks SET action = $1 WHERE id = $2 AND action IS NULL";
    let values = [action.to_string().into(), task.into()];
    Ok(transaction.execute(update, &values).await? > 0)
}

/// Something that an investigation found.
pub struct Found {
    pub id: String,
    pub machine: String,
    pub machine_name: String,
    pub finding: Finding,
    pub verdict: String,
    pub remediation: Remediation,
    pub action: Option<String>,
    pub found: i64,
}

/// A new finding with what is thought of it.
pub struct NewFound<'a> {
    pub machine: &'a str,
    pub machine_name: &'a str,
    pub finding: &'a Finding,
    pub verdict: Verdict,
    pub remediation: Remediation,
}

/// Writes what a task's order found. Repeating it changes nothing.
pub async fn note(
    transaction: &mut Transaction,
    now: i64,
    number: i64,
    task: &str,
    found: &[NewFound<'_>],
) -> Result<(), ApiError> {
    for new in found {
        let finding = new.finding;
        let text = json!([number, new.machine, finding.kind, finding.entity, finding.place]);
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.to_string().as_bytes());
        let insert = "INSERT INTO investigation_findings (id, number, found, machine, name, kind, \
                      entity, place, path, sha1, package, verdict, remediation) VALUES \
                      ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                      ON CONFLICT (id) DO NOTHING";
        let values = [
            id.to_string().into(),
            number.into(),
            now.into(),
            new.machine.into(),
            new.machine_name.into(),
            finding.kind.as_str().into(),
            finding.entity.as_str().into(),
            finding.place.as_str().into(),
            finding.path.clone().into(),
            finding.sha1.clone().into(),
            finding.package.clone().into(),
            new.verdict.name().into(),
            new.remediation.name().into(),
        ];
        transaction.execute(insert, &values).await?;
    }
    let update = "UPDATE investigation_tasks SET noted = 1 WHERE id = $1";
    transaction.execute(update, &[task.into()]).await?;
    Ok(())
}

pub async fn findings(state: &State, number: i64) -> Result<Vec<Found>, ApiError> {
    let select = "SELECT id, machine, name, kind, entity, place, path, sha1, package, verdict, \
                  remediation, action, found FROM investigation_findings WHERE number = $1 \
                  ORDER BY found, name, kind, place, id";
    let rows = state.database.read(select, &[number.into()]).await?;
    let findings = rows.iter().map(|row| {
        let optional = |at| Ok::<_, ApiError>(row.optional_text(at)?.map(str::to_owned));
        Ok(Found {
            id: row.text(0)?.to_owned(),
            machine: row.text(1)?.to_owned(),
            machine_name: row.text(2)?.to_owned(),
            finding: Finding {
                kind: row.text(3)?.to_owned(),
                entity: row.text(4)?.to_owned(),
                place: row.text(5)?.to_owned(),
                sha1: optional(7)?,
                path: optional(6)?,
                package: optional(8)?,
            },
            verdict: row.text(9)?.to_owned(),
            remediation: Remediation::of(row.text(10)?),
            action: optional(11)?,
            found: row.integer(12)?,
        })
    });
    findings.collect()
}

/// Moves a finding on, from what it was known to be; false if another node did so.
pub async fn remediate(
    transaction: &mut Transaction,
    id: &str,
    (from, to): (Remediation, Remediation),
    action: Option<&str>,
) -> Result<bool, ApiError> {
    let update = "UPDATE investigation_findings SET remediation = $1, \
                  action = COALESCE($2, action) WHERE id = $3 AND remediation = $4";
    let values =
        [to.name().into(), action.map(str::to_owned).into(), id.into(), from.name().into()];
    Ok(transaction.execute(update, &values).await? > 0)
}

/// The action by which a person removed a file from a machine since a time.
pub async fn removal(
    state: &State,
    machine: &str,
    sha1: &str,
    since: i64,
) -> Result<Option<String>, ApiError> {
    let select = "SELECT id FROM machine_actions WHERE machine = $1 AND related_sha1 = $2 \
                  AND type = 'StopAndQuarantineFile' AND status = 'Succeeded' AND updated >= $3 \
                  ORDER BY updated LIMIT 1";
    let rows = state.database.read(select, &[machine.into(), sha1.into(), since.into()]).await?;
    rows.first().map(|row| Ok(row.text(0)?.to_owned())).transpose()
}

/// Whether a file is being removed from a machine: there is one such order at a time.
pub async fn is_removing(state: &State, machine: &str) -> Result<bool, ApiError> {
    let select = "SELECT id FROM machine_actions WHERE machine = $1 \
                  AND type = 'StopAndQuarantineFile' AND status IN ('Pending', 'InProgress') LIMIT 1";
    Ok(!state.database.read(select, &[machine.into()]).await?.is_empty())
}

/// State and beginning of the orders to remove something that an investigation gave and that have not
/// ended.
pub async fn open_removals(state: &State, number: i64) -> Result<Vec<(String, i64)>, ApiError> {
    let select = "SELECT status, created FROM machine_actions WHERE investigation = $1 \
                  AND type = 'StopAndQuarantineFile' AND status IN ('Pending', 'InProgress')";
    let rows = state.database.read(select, &[number.to_string().into()]).await?;
    rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.integer(1)?))).collect()
}

/// Sets an investigation's state, if it is still what it was; whether it was.
pub async fn set_state(
    transaction: &mut Transaction,
    number: i64,
    (from, to): (&str, &str),
    details: Option<&str>,
    ended: Option<i64>,
) -> Result<bool, ApiError> {
    let update = "UPDATE investigations SET state = $1, details = $2, ended = $3 \
                  WHERE number = $4 AND state = $5";
    let details = details.map(str::to_owned);
    let values = [to.into(), details.into(), ended.into(), number.into(), from.into()];
    Ok(transaction.execute(update, &values).await? > 0)
}

/// What the tenant knows of a file: whether an indicator for its SHA-1 allows it, and whether one blocks
/// it or a scan found it. Where one allows it, scans are not asked.
pub async fn reputation(
    state: &State,
    tenant: &str,
    sha1: &str,
    now: i64,
) -> Result<(bool, bool), ApiError> {
    let select = "SELECT action FROM indicators WHERE tenant = $1 AND type = 'FileSha1' \
                  AND sought = $2 AND (expires IS NULL OR expires > $3)";
    let rows = state.database.read(select, &[tenant.into(), sha1.into(), now.into()]).await?;
    let (mut allowed, mut bad) = (false, false);
    for row in &rows {
        match row.text(0)? {
            "Allowed" => allowed = true,
            "Block" | "BlockAndRemediate" | "AlertAndBlock" => bad = true,
            _ => {}
        }
    }
    if allowed {
        return Ok((allowed, bad));
    }
    let select = "SELECT t.id FROM alert_evidence e JOIN alerts t ON t.id = e.alert \
                  WHERE e.tenant = $1 AND e.sha1 = $2 AND e.entity_type = 'File' \
                  AND t.detection_source = 'WindowsDefenderAv' LIMIT 1";
    let rows = state.database.read(select, &[tenant.into(), sha1.into()]).await?;
    Ok((allowed, bad || !rows.is_empty()))
}
