//! A table's Delta log: which files make up the table.

use super::LakeError;
use super::parquet_file::sync_folder;
use super::shape::{Kind, Shape};
use super::table::LakeFile;
use chrono::{DateTime, SecondsFormat, Utc};
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{
    Action, Add, DataType, PrimitiveType, Remove, StructField, Transaction,
};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableBuilder};
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use url::Url;

/// Application id of the `txn` actions whose version is a log segment's number.
pub const WAL: &str = "vigie-wal";

/// The Delta table in one folder. The exclusive lock on the lake makes this process the only
/// writer, so the state kept here is the latest.
pub struct DeltaLog {
    folder: PathBuf,
    table: Option<DeltaTable>,
    /// Rows of log segments up to this one are in the table's files.
    committed_segment: Option<u64>,
}

impl DeltaLog {
    pub fn new(folder: PathBuf) -> DeltaLog {
        DeltaLog { folder, table: None, committed_segment: None }
    }

    pub fn committed_segment(&self) -> Option<u64> {
        self.committed_segment
    }

    fn error(&self, error: &deltalake_core::DeltaTableError) -> LakeError {
        LakeError::about(&self.folder.join("_delta_log"), error)
    }

    fn url(&self) -> Result<Url, LakeError> {
        Url::from_directory_path(&self.folder).map_err(|()| LakeError::Io {
            path: self.folder.clone(),
            reason: "not an absolute path".to_owned(),
        })
    }

    /// Reads an existing table and returns its files.
    pub async fn load(&mut self) -> Result<Vec<LakeFile>, LakeError> {
        let damaged = |error: deltalake_core::DeltaTableError| LakeError::Damaged {
            path: self.folder.join("_delta_log"),
            reason: error.to_string(),
        };
        let builder = DeltaTableBuilder::from_url(self.url()?).map_err(damaged)?;
        let table = builder.load().await.map_err(damaged)?;
        let state = table.snapshot().map_err(damaged)?;
        let segment = state.transaction_version(table.log_store().as_ref(), WAL).await;
        let segment = segment.map_err(damaged)?;
        let files = (state.log_data().iter())
            .map(|file| LakeFile {
                path: file.path().into_owned(),
                size: file.size().cast_unsigned(),
                rows: file.num_records().unwrap_or(0),
                time: file.stats().as_deref().and_then(time_range),
            })
            .collect();
        self.committed_segment = segment.map(i64::cast_unsigned);
        self.table = Some(table);
        Ok(files)
    }

    async fn create(&mut self, shape: &Shape) -> Result<DeltaTable, LakeError> {
        std::fs::create_dir_all(&self.folder)
            .map_err(|error| LakeError::io(&self.folder, error))?;
        let builder =
            DeltaTableBuilder::from_url(self.url()?).map_err(|error| self.error(&error))?;
        let table = builder.build().map_err(|error| self.error(&error))?;
        let columns = (shape.stored.fields().iter().zip(&shape.kinds))
            .map(|(field, kind)| StructField::new(field.name(), delta_type(*kind), true));
        // Only the time range is kept for each file; the rest is in the files' own footers.
        let statistics = shape.timestamp.map_or("", |_| "Timestamp");
        let table = table
            .create()
            .with_table_name(shape.name)
            .with_columns(columns)
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_configuration([
                ("delta.dataSkippingStatsColumns", Some(statistics)),
                ("delta.checkpointInterval", Some("20")),
                ("delta.enableExpiredLogCleanup", Some("true")),
                ("delta.logRetentionDuration", Some("interval 1 days")),
            ])
            .await
            .map_err(|error| self.error(&error))?;
        self.sync(0)?;
        for folder in self.folder.ancestors().take(3) {
            sync_folder(folder)?;
        }
        Ok(table)
    }

    /// The version that the latest commit of an application gave itself.
    pub async fn transaction(&self, application: &str) -> Result<Option<i64>, LakeError> {
        let Some(table) = &self.table else { return Ok(None) };
        let state = table.snapshot().map_err(|error| self.error(&error))?;
        let version = state.transaction_version(table.log_store().as_ref(), application).await;
        version.map_err(|error| self.error(&error))
    }

    /// Adds and removes files in one atomic, durable step. `transaction` names an application and
    /// the version it gives itself. For a flush that is [`WAL`] and a log segment: its rows and those
    /// of all before it are in the table from now on. `now` stamps the actions.
    pub async fn commit(
        &mut self,
        shape: &Shape,
        add: &[LakeFile],
        remove: &[Arc<LakeFile>],
        transaction: Option<(&str, u64)>,
        now: DateTime<Utc>,
    ) -> Result<(), LakeError> {
        if self.table.is_none() {
            self.table = Some(self.create(shape).await?);
        }
        let table = self.table.as_mut().expect("created above");
        // Compaction rewrites rows without changing them; only flush and retention change data.
        let data_change = add.is_empty() || remove.is_empty();
        let actions = (remove.iter().map(|file| Action::Remove(removal(file, data_change, now))))
            .chain(add.iter().map(|file| Action::Add(addition(file, data_change, now))))
            .collect();
        let operation = match (add.is_empty(), remove.is_empty()) {
            (false, false) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            (true, false) => DeltaOperation::Delete { predicate: None },
            _ => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            },
        };
        let segment = transaction.filter(|(application, _)| *application == WAL);
        let transaction = transaction.map(|(application, version)| {
            let updated = Some(now.timestamp_millis());
            Transaction::new_with_last_update(application, version.cast_signed(), updated)
        });
        let properties = CommitProperties::default()
            .with_application_transactions(transaction.into_iter().collect());
        let state =
            table.snapshot().map_err(|error| LakeError::about(&self.folder, &error))?.clone();
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&state as &dyn TableReference), table.log_store(), operation)
            .await;
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                // Whether the commit went through is unknown: read the table anew next time.
                let error = self.error(&error);
                self.reload().await;
                return Err(error);
            }
        };
        table.state = Some(committed.snapshot());
        let version = committed.version();
        self.committed_segment = segment.map(|(_, segment)| segment).or(self.committed_segment);
        self.sync(version)
    }

    async fn reload(&mut self) {
        let latest = DeltaLog::new(self.folder.clone());
        let mut latest = std::mem::replace(self, latest);
        if latest.load().await.is_ok() {
            *self = latest;
        }
    }

    /// Makes a commit durable: the object store writes without a sync.
    fn sync(&self, version: deltalake_core::kernel::Version) -> Result<(), LakeError> {
        let folder = self.folder.join("_delta_log");
        let path = folder.join(format!("{version:020}.json"));
        (File::open(&path).and_then(|file| file.sync_all()))
            .map_err(|error| LakeError::io(&path, error))?;
        sync_folder(&folder)
    }
}

fn delta_type(kind: Kind) -> DataType {
    DataType::Primitive(match kind {
        Kind::String | Kind::Guid | Kind::Dynamic => PrimitiveType::String,
        Kind::Datetime => PrimitiveType::Timestamp,
        Kind::Bool => PrimitiveType::Boolean,
        Kind::Int => PrimitiveType::Integer,
        Kind::Long => PrimitiveType::Long,
        Kind::Real => PrimitiveType::Double,
    })
}

fn addition(file: &LakeFile, data_change: bool, now: DateTime<Utc>) -> Add {
    let time = |micros: i64| {
        DateTime::from_timestamp_micros(micros)
            .map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
    };
    let bound = |micros: Option<i64>| match micros.and_then(time) {
        Some(text) => serde_json::json!({ "Timestamp": text }),
        None => serde_json::json!({}),
    };
    let statistics = serde_json::json!({
        "numRecords": file.rows,
        "minValues": bound(file.time.map(|(min, _)| min)),
        "maxValues": bound(file.time.map(|(_, max)| max)),
        "nullCount": if file.time.is_some() { serde_json::json!({"Timestamp": 0}) } else { serde_json::json!({}) },
    });
    Add {
        path: file.path.clone(),
        partition_values: HashMap::new(),
        size: file.size.cast_signed(),
        modification_time: now.timestamp_millis(),
        data_change,
        stats: Some(statistics.to_string()),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn removal(file: &LakeFile, data_change: bool, now: DateTime<Utc>) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change,
        deletion_timestamp: Some(now.timestamp_millis()),
        extended_file_metadata: Some(true),
        partition_values: Some(HashMap::new()),
        size: Some(file.size.cast_signed()),
        ..Remove::default()
    }
}

/// Reads the time range back from Delta's statistics.
fn time_range(statistics: &str) -> Option<(i64, i64)> {
    let statistics: serde_json::Value = serde_json::from_str(statistics).ok()?;
    let bound = |name: &str| {
        let text = statistics.get(name)?.get("Timestamp")?.as_str()?;
        super::rows::micros(text)
    };
    Some((bound("minValues")?, bound("maxValues")?))
}
