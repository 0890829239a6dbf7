//! State in SQLite or PostgreSQL behind one type. Knows no entity: features bring their own tables
//! and statements, in SQL that both read, with `$1`, `$2` … for values.
//!
//! Times are stored as BIGINT microseconds since the Unix epoch, ids as TEXT, JSON as TEXT.

mod value;

pub use value::{Row, Value};

use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Postgres, Sqlite};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A unique value is taken or a reference points nowhere.
    #[error("{0}")]
    Constraint(String),
    #[error(
        "the database was written by a newer version of Vigie: {feature} is at step {found}, this program knows {known}"
    )]
    Newer { feature: &'static str, found: i64, known: i64 },
    #[error("{0}")]
    Failed(#[from] sqlx::Error),
    /// A value is not of the type that the statement's reader expects.
    #[error("column {column}: {found} is not {expected}")]
    Type { column: usize, found: String, expected: &'static str },
}

/// Tables of a feature: each step is a script of statements that runs once, in order.
pub struct Migrations {
    pub feature: &'static str,
    pub steps: &'static [&'static str],
}

/// A database. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

#[derive(Clone)]
enum Pool {
    /// SQLite has one writer; waiting for it here is fair and never times out.
    Sqlite {
        pool: SqlitePool,
        writer: Arc<Mutex<()>>,
    },
    Postgres(PgPool),
}

impl Database {
    /// A SQLite file, created if missing; every commit is on disk when it returns.
    pub async fn open_file(path: &Path) -> Result<Database, DatabaseError> {
        // SQLite gives its further files the mode of this one.
        let private = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        private.map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(30));
        // A file does not hang up as a server does: connections need no try before their use.
        let pool = SqlitePoolOptions::new().max_connections(8).test_before_acquire(false);
        let pool = pool.connect_with(options).await?;
        Ok(Database { pool: Pool::Sqlite { pool, writer: Arc::default() } })
    }

    /// A PostgreSQL database by its URL, `postgres://user:password@host/name`.
    pub async fn open_url(url: &str) -> Result<Database, DatabaseError> {
        let pool = PgPoolOptions::new().max_connections(16).connect(url).await?;
        Ok(Database { pool: Pool::Postgres(pool) })
    }

    /// Brings a feature's tables up to date.
    pub async fn migrate(&self, migrations: &Migrations) -> Result<(), DatabaseError> {
        let table = "CREATE TABLE IF NOT EXISTS migrations (feature TEXT PRIMARY KEY, step BIGINT NOT NULL)";
        let mut transaction = self.begin().await?;
        transaction.execute(table, &[]).await?;
        let rows = transaction
            .read("SELECT step FROM migrations WHERE feature = $1", &[migrations.feature.into()])
            .await?;
        let found = rows.first().map_or(Ok(0), |row| row.integer(0))?;
        let known = migrations.steps.len() as i64;
        if found > known {
            let feature = migrations.feature;
            return Err(DatabaseError::Newer { feature, found, known });
        }
        for step in &migrations.steps[found as usize..] {
            for statement in step.split(";\n").filter(|statement| !statement.trim().is_empty()) {
                transaction.execute(statement, &[]).await?;
            }
        }
        let set = "INSERT INTO migrations (feature, step) VALUES ($1, $2) \
                   ON CONFLICT (feature) DO UPDATE SET step = excluded.step";
        transaction.execute(set, &[migrations.feature.into(), known.into()]).await?;
        transaction.commit().await
    }

    /// Rows of a query outside any transaction.
    pub async fn read(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        match &self.pool {
            Pool::Sqlite { pool, .. } => {
                let rows = sqlite(sql, values).fetch_all(pool).await?;
                rows.iter().map(Row::from_sqlite).collect()
            }
            Pool::Postgres(pool) => {
                let rows = postgres(sql, values).fetch_all(pool).await?;
                rows.iter().map(Row::from_postgres).collect()
            }
        }
    }

    /// One statement as a transaction of its own; the number of rows it changed.
    pub async fn execute(&self, sql: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let mut transaction = self.begin().await?;
        let changed = transaction.execute(sql, values).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Begins a transaction; dropped without a commit, it changes nothing.
    pub async fn begin(&self) -> Result<Transaction, DatabaseError> {
        Ok(match &self.pool {
            Pool::Sqlite { pool, writer } => {
                let turn = writer.clone().lock_owned().await;
                let inner = pool.begin_with("BEGIN IMMEDIATE").await?;
                Transaction { inner: Inner::Sqlite { inner, _turn: turn } }
            }
            Pool::Postgres(pool) => Transaction { inner: Inner::Postgres(pool.begin().await?) },
        })
    }

    /// Begins a transaction behind which others of the same name wait. Who writes the same rows in
    /// different orders would otherwise wait for each other for ever; SQLite has one writer anyway.
    pub async fn begin_in_turn(&self, name: &str) -> Result<Transaction, DatabaseError> {
        let mut transaction = self.begin().await?;
        if let Inner::Postgres(_) = transaction.inner {
            let lock = "SELECT pg_advisory_xact_lock(hashtext($1))";
            transaction.execute(lock, &[name.into()]).await?;
        }
        Ok(transaction)
    }

    /// The elements of a column that holds a JSON array of texts, for a `FROM` that follows the
    /// column's table: `alias.value` is the text.
    pub fn json_texts(&self, column: &str, alias: &str) -> String {
        match &self.pool {
            Pool::Sqlite { .. } => format!("json_each({column}) AS {alias}"),
            Pool::Postgres(_) => {
                format!("jsonb_array_elements_text({column}::jsonb) AS {alias}(value)")
            }
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite { pool, .. } => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction under way.
pub struct Transaction {
    inner: Inner,
}

enum Inner {
    Sqlite { inner: sqlx::Transaction<'static, Sqlite>, _turn: OwnedMutexGuard<()> },
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    pub async fn read(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DatabaseError> {
        match &mut self.inner {
            Inner::Sqlite { inner, .. } => {
                let rows = sqlite(sql, values).fetch_all(&mut **inner).await?;
                rows.iter().map(Row::from_sqlite).collect()
            }
            Inner::Postgres(inner) => {
                let rows = postgres(sql, values).fetch_all(&mut **inner).await?;
                rows.iter().map(Row::from_postgres).collect()
            }
        }
    }

    /// The number of rows changed.
    pub async fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, DatabaseError> {
        let changed = match &mut self.inner {
            Inner::Sqlite { inner, .. } => {
                sqlite(sql, values).execute(&mut **inner).await.map(|done| done.rows_affected())
            }
            Inner::Postgres(inner) => {
                postgres(sql, values).execute(&mut **inner).await.map(|done| done.rows_affected())
            }
        };
        changed.map_err(|error| match &error {
            sqlx::Error::Database(database)
                if database.is_unique_violation() || database.is_foreign_key_violation() =>
            {
                DatabaseError::Constraint(database.message().to_owned())
            }
            _ => DatabaseError::Failed(error),
        })
    }

    pub async fn commit(self) -> Result<(), DatabaseError> {
        match self.inner {
            Inner::Sqlite { inner, .. } => inner.commit().await?,
            Inner::Postgres(inner) => inner.commit().await?,
        }
        Ok(())
    }
}

type SqliteQuery<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;
type PostgresQuery<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// Statements are written by features; values never become part of their text.
fn sqlite<'q>(sql: &str, values: &[Value]) -> SqliteQuery<'q> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value.clone() {
            Value::Text(value) => query.bind(value),
            Value::Integer(value) => query.bind(value),
            Value::Real(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        };
    }
    query
}

fn postgres<'q>(sql: &str, values: &[Value]) -> PostgresQuery<'q> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value.clone() {
            Value::Text(value) => query.bind(value),
            Value::Integer(value) => query.bind(value),
            Value::Real(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
        };
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    const PETS: Migrations = Migrations {
        feature: "pets",
        steps: &["CREATE TABLE pets (name TEXT PRIMARY KEY, age BIGINT, weight DOUBLE PRECISION)"],
    };

    /// SQLite, and a PostgreSQL database of the test's own where one is given.
    async fn databases(folder: &Path) -> Vec<Database> {
        let mut databases =
            vec![Database::open_file(&folder.join("state.db")).await.expect("opened")];
        if let Ok(url) = std::env::var("VIGIE_TEST_POSTGRES") {
            let admin = Database::open_url(&url).await.expect("reached");
            admin
                .execute("DROP SCHEMA IF EXISTS database_tests CASCADE", &[])
                .await
                .expect("dropped");
            admin.execute("CREATE SCHEMA database_tests", &[]).await.expect("created");
            let own = format!("{url}?options=-csearch_path%3Ddatabase_tests");
            databases.push(Database::open_url(&own).await.expect("opened"));
        }
        databases
    }

    #[tokio::test]
    async fn values_come_back_as_they_went_in_and_transactions_hold() {
        let folder = tempfile::tempdir().expect("a folder");
        for database in databases(folder.path()).await {
            database.migrate(&PETS).await.expect("migrated");
            database.migrate(&PETS).await.expect("migrated again");
            let insert = "INSERT INTO pets (name, age, weight) VALUES ($1, $2, $3)";
            let rex = ["Rex".into(), 7.into(), Value::Real(Some(1.5))];
            assert_eq!(database.execute(insert, &rex).await.expect("inserted"), 1);
            let again = database.execute(insert, &rex).await.expect_err("taken");
            assert!(matches!(again, DatabaseError::Constraint(_)), "{again}");

            let mut dropped = database.begin().await.expect("begun");
            let tom = ["Tom".into(), Value::Integer(None), Value::Real(None)];
            dropped.execute(insert, &tom).await.expect("inserted");
            drop(dropped);
            let mut kept = database.begin().await.expect("begun");
            kept.execute(insert, &["Zoe".into(), Value::Integer(None), Value::Real(None)])
                .await
                .expect("inserted");
            kept.commit().await.expect("committed");

            let rows = database
                .read("SELECT name, age, weight FROM pets ORDER BY name", &[])
                .await
                .expect("read");
            assert_eq!(rows.len(), 2);
            assert_eq!(rows[0].text(0).expect("a text"), "Rex");
            assert_eq!(rows[0].integer(1).expect("an integer"), 7);
            assert_eq!(rows[0].value(2), &Value::Real(Some(1.5)));
            assert_eq!(rows[1].optional_integer(1).expect("null"), None);
        }
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for database in databases(folder.path()).await {
            let newer = Migrations {
                feature: "pets",
                steps: &["CREATE TABLE a (x TEXT)", "CREATE TABLE b (x TEXT)"],
            };
            database.migrate(&newer).await.expect("migrated");
            let error = database.migrate(&PETS).await.expect_err("newer");
            assert!(matches!(error, DatabaseError::Newer { found: 2, known: 1, .. }), "{error}");
        }
    }
}
