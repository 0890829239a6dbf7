//! Who did what: every change of the directory and every sign-in.

use crate::{Directory, DirectoryError, micros, time};
use chrono::{DateTime, Utc};
use std::sync::LazyLock;
use std::time::Duration;
use uuid::Uuid;
use vigie_contract::administration::AuditEntry;
use vigie_database::{Transaction, Value};

/// Entries of one answer at most.
const MOST: i64 = 1000;
/// How long entries of applications' sign-ins wait for others.
const SOON: Duration = Duration::from_millis(200);
/// How long entries that could not be written wait for their second try.
const AGAIN: Duration = Duration::from_secs(1);
const INSERT: &str = "INSERT INTO audit (id, at, tenant, actor, action, target, outcome, address) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
/// The same where a former try may have committed unnoticed.
const INSERT_MISSING: &str = "INSERT INTO audit \
                              (id, at, tenant, actor, action, target, outcome, address) \
                              VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                              ON CONFLICT (id) DO NOTHING";

/// Entries of one statement: its way to the database costs more than a row.
const AT_ONCE: usize = 50;
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| {
    let row = |row: usize| {
        let values: Vec<String> = (1..=8).map(|value| format!("${}", row * 8 + value)).collect();
        format!("({})", values.join(", "))
    };
    let (insert, first) = INSERT.split_at(INSERT.find('(').unwrap_or_default());
    let columns = &first[..=first.find(')').unwrap_or_default()];
    let rows: Vec<String> = (0..AT_ONCE).map(row).collect();
    format!("{insert}{columns} VALUES {} ON CONFLICT (id) DO NOTHING", rows.join(", "))
});

/// Values of one entry.
pub type Row = [Value; 8];

/// An entry of the log.
pub struct Entry<'a> {
    pub tenant: Option<Uuid>,
    /// An application id, a user principal name, or `first start`.
    pub actor: &'a str,
    /// For example `application.create`.
    pub action: &'a str,
    pub target: &'a str,
    /// `success`, or the number of the error.
    pub outcome: &'a str,
    /// Where the request came from.
    pub address: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// A change that succeeded.
    pub fn change(tenant: Uuid, actor: &'a str, action: &'a str, target: &'a str) -> Entry<'a> {
        Entry { tenant: Some(tenant), actor, action, target, outcome: "success", address: None }
    }
}

/// Which entries to read; `None` is any.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
    pub actor: Option<String>,
    pub action: Option<String>,
    pub outcome: Option<String>,
    /// At most 1,000.
    pub top: Option<i64>,
}

impl Directory {
    /// Writes an entry in the transaction of the change that it tells of.
    pub(crate) async fn audit(
        &self,
        transaction: &mut Transaction,
        entry: Entry<'_>,
    ) -> Result<(), DirectoryError> {
        transaction.execute(INSERT, &self.row(entry)).await?;
        self.changed(transaction).await
    }

    /// Writes what a transaction has changed to the log, commits it, and forgets what was remembered.
    pub(crate) async fn commit(
        &self,
        mut transaction: Transaction,
        entry: Entry<'_>,
    ) -> Result<(), DirectoryError> {
        self.audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.forget();
        Ok(())
    }

    fn row(&self, entry: Entry<'_>) -> Row {
        [
            Uuid::new_v4().to_string().into(),
            micros(self.clock().now()).into(),
            entry.tenant.map(|tenant| tenant.to_string()).into(),
            entry.actor.into(),
            entry.action.into(),
            entry.target.into(),
            entry.outcome.into(),
            entry.address.map(str::to_owned).into(),
        ]
    }

    /// Writes an entry soon, together with others: applications sign in thousands of times a second,
    /// and each commit waits for the disk. A process that is killed loses those of the last moment.
    pub(crate) fn note_soon(&self, entry: Entry<'_>) {
        let row = self.row(entry);
        let mut pending = self.shared().pending.lock();
        pending.push(row);
        if pending.len() > 1 {
            // Whoever came first writes for all.
            return;
        }
        let directory = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            directory.write_in_turn().await;
        });
    }

    /// Writes what is to be written soon, and waits for what is being written already.
    pub async fn write_pending(&self) {
        // A task of its own: whoever waits here may be cut off, and the entries must not be.
        let directory = self.clone();
        let written = tokio::spawn(async move { directory.write_in_turn().await });
        if let Err(error) = written.await {
            tracing::error!(%error, "sign-ins may be missing in the audit log");
        }
    }

    async fn write_in_turn(&self) {
        let _turn = self.shared().writing.lock().await;
        let rows = std::mem::take(&mut *self.shared().pending.lock());
        if rows.is_empty() {
            return;
        }
        // Not put back: who finds entries there relies on somebody coming to write them.
        let Err(error) = self.write_rows(&rows).await else { return };
        tracing::warn!(%error, entries = rows.len(), "sign-ins wait for the audit log");
        tokio::time::sleep(AGAIN).await;
        if let Err(error) = self.write_rows(&rows).await {
            tracing::error!(%error, entries = rows.len(), "sign-ins are lost to the audit log");
        }
    }

    async fn write_rows(&self, rows: &[Row]) -> Result<(), DirectoryError> {
        let mut transaction = self.database().begin().await?;
        let (many, rest) = rows.as_chunks::<AT_ONCE>();
        for rows in many {
            transaction.execute(&INSERT_MANY, rows.as_flattened()).await?;
        }
        for row in rest {
            transaction.execute(INSERT_MISSING, row).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Writes an entry that belongs to no other change. That it cannot be written must not help
    /// anybody in, nor keep anybody out.
    pub(crate) async fn note(&self, entry: Entry<'_>) {
        let written = async {
            self.database().execute(INSERT, &self.row(entry)).await?;
            Ok::<_, DirectoryError>(())
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "a sign-in was not written to the audit log");
        }
    }

    /// Entries of a tenant, newest first.
    pub async fn audit_log(
        &self,
        tenant: Uuid,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEntry>, DirectoryError> {
        self.write_pending().await;
        let mut select = "SELECT id, at, tenant, actor, action, target, outcome, address \
                          FROM audit WHERE tenant = $1"
            .to_owned();
        let mut values: Vec<Value> = vec![tenant.to_string().into()];
        let mut and = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                select.push_str(&format!(" AND {condition} ${}", values.len()));
            }
        };
        and("at >=", filter.since.map(|time| micros(time).into()));
        and("at <=", filter.until.map(|time| micros(time).into()));
        and("actor =", filter.actor.as_deref().map(Value::from));
        and("action =", filter.action.as_deref().map(Value::from));
        and("outcome =", filter.outcome.as_deref().map(Value::from));
        let top = filter.top.unwrap_or(100).clamp(1, MOST);
        select.push_str(&format!(" ORDER BY at DESC, id LIMIT {top}"));
        let rows = self.database().read(&select, &values).await?;
        rows.iter()
            .map(|row| {
                Ok(AuditEntry {
                    id: super::directory::parse_uuid(row.text(0)?)?,
                    at: time(row.integer(1)?),
                    tenant: row.optional_text(2)?.and_then(|id| Uuid::try_parse(id).ok()),
                    actor: row.text(3)?.to_owned(),
                    action: row.text(4)?.to_owned(),
                    target: row.text(5)?.to_owned(),
                    outcome: row.text(6)?.to_owned(),
                    address: row.optional_text(7)?.map(str::to_owned),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MasterKey;
    use std::collections::BTreeSet;
    use tokio::time::timeout;
    use vigie_contract::clock::Clock;
    use vigie_database::Database;

    const BRIEFLY: Duration = Duration::from_millis(50);

    async fn opened(folder: &tempfile::TempDir) -> Directory {
        let database = Database::open_file(&folder.path().join("state.db")).await.expect("opened");
        let master = MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
        Directory::open(database, master, Clock::default()).await.expect("opened")
    }

    fn note(directory: &Directory, tenant: Uuid, target: &str) {
        directory.note_soon(Entry {
            tenant: Some(tenant),
            actor: "an application",
            action: "signIn",
            target,
            outcome: "success",
            address: Some("192.0.2.10"),
        });
    }

    async fn log(directory: &Directory, tenant: Uuid) -> Vec<AuditEntry> {
        let filter = AuditFilter { top: Some(MOST), ..AuditFilter::default() };
        directory.audit_log(tenant, &filter).await.expect("read")
    }

    /// Nothing is awaited between the entries: two full statements and single ones write them.
    #[tokio::test]
    async fn many_entries_at_once_are_written_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, tenant) = (opened(&folder).await, Uuid::new_v4());
        let targets: BTreeSet<String> = (0..123).map(|n| format!("target {n}")).collect();
        for target in &targets {
            note(&directory, tenant, target);
        }
        let entries = log(&directory, tenant).await;
        assert_eq!(entries.len(), 123);
        let found: BTreeSet<String> = entries.iter().map(|entry| entry.target.clone()).collect();
        assert_eq!(found, targets);
        let ids: BTreeSet<Uuid> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), 123);
        for entry in entries {
            let told = (entry.actor.as_str(), entry.action.as_str(), entry.outcome.as_str());
            assert_eq!(told, ("an application", "signIn", "success"));
            assert_eq!(entry.address.as_deref(), Some("192.0.2.10"));
            assert_eq!(entry.tenant, Some(tenant));
            assert!((directory.clock().now() - entry.at).num_minutes() < 1, "{}", entry.at);
        }
    }

    #[tokio::test]
    async fn a_reader_that_leaves_takes_no_entry_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, tenant) = (opened(&folder).await, Uuid::new_v4());
        let other = directory.database().begin().await.expect("begun");
        note(&directory, tenant, "target");
        let filter = AuditFilter::default();
        let left = timeout(BRIEFLY, directory.audit_log(tenant, &filter)).await;
        assert!(left.is_err(), "it waits for the other transaction");
        let waited = timeout(BRIEFLY, directory.write_pending()).await;
        assert!(waited.is_err(), "a write under way is waited for");
        other.commit().await.expect("committed");
        assert_eq!(log(&directory, tenant).await.len(), 1);
    }

    #[tokio::test]
    async fn what_fails_once_is_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, tenant) = (opened(&folder).await, Uuid::new_v4());
        let database = directory.database();
        database.execute("ALTER TABLE audit RENAME TO away", &[]).await.expect("renamed");
        for target in ["one", "two"] {
            note(&directory, tenant, target);
        }
        let waited = timeout(BRIEFLY, directory.write_pending()).await;
        assert!(waited.is_err(), "it is tried again");
        database.execute("ALTER TABLE away RENAME TO audit", &[]).await.expect("renamed");
        assert_eq!(log(&directory, tenant).await.len(), 2);
    }
}
