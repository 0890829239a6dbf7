//! Rows that come as Parquet go into a table without the log between.

use super::hot::HotBatch;
use super::parquet_file::{SortedFile, write_rows};
use super::shape::{INGESTION_TIME, Kind, Shape, shape};
use super::table::{LakeFile, Table};
use super::{Lake, LakeError};
use arrow::array::TimestampMicrosecondArray;
use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

/// Rows sorted at once. Where the parts follow one another in time they become one file.
const PART_ROWS: usize = 64 << 10;
/// Rows of one file at most.
const FILE_ROWS: usize = 2_000_000;

/// The answer to [`Lake::load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub rows: usize,
    /// The same source had been loaded before.
    pub duplicate: bool,
}

impl Lake {
    /// Stores the rows of a Parquet file whose columns are a hunting table's, as a whole or not at
    /// all; columns that the table lacks are left out. Returns once they are durable and visible to
    /// queries. `source` names the content: the same is not stored twice.
    ///
    /// Errors: [`LakeError::Malformed`] for what is no such file, and those of the disk.
    pub async fn load(
        &self,
        tenant: Uuid,
        table: &str,
        source: &str,
        parquet: Bytes,
    ) -> Result<Loaded, LakeError> {
        let malformed = |reason: String| LakeError::Malformed { reason };
        let shape =
            shape(table).ok_or_else(|| malformed(format!("{table} is no hunting table")))?;
        let table = self.shared.table(tenant, shape);
        let now = self.shared.config.clock.now();
        let mut delta = table.delta.lock().await;
        if delta.transaction(source).await?.is_some() {
            return Ok(Loaded { rows: 0, duplicate: true });
        }
        let writing = table.clone();
        let files = tokio::task::spawn_blocking(move || {
            write_files(&writing, parquet, now.timestamp_micros())
        });
        let files = files.await.map_err(|_| LakeError::Closed)??;
        if files.is_empty() {
            return Ok(Loaded { rows: 0, duplicate: false });
        }
        delta.commit(shape, &files, &[], Some((source, 1)), now).await?;
        let rows = files.iter().map(|file| file.rows).sum();
        table.replace_files(&[], files);
        Ok(Loaded { rows, duplicate: false })
    }
}

fn write_files(table: &Table, parquet: Bytes, ingested: i64) -> Result<Vec<LakeFile>, LakeError> {
    let wrong = |error: &dyn std::fmt::Display| LakeError::Malformed { reason: error.to_string() };
    let metadata = ArrowReaderMetadata::load(&parquet, Default::default());
    let metadata = metadata.map_err(|error| wrong(&error))?;
    let source = metadata.schema().clone();
    let shape = table.shape;
    // Positions in the table, and in the Parquet file.
    let mut found: Vec<(usize, Option<usize>)> = (0..shape.kinds.len())
        .filter_map(|index| {
            let stored = source.index_of(shape.stored_name(index)).ok();
            let place = stored.or_else(|| source.index_of(shape.column_name(index)).ok());
            place.map(|place| (index, Some(place)))
        })
        .filter(|(index, _)| *index != shape.ingestion_time)
        .collect();
    let has_time = |time| found.iter().any(|(index, _)| *index == time);
    if shape.timestamp.is_some_and(|time| !has_time(time)) {
        return Err(wrong(&"it has no column Timestamp"));
    }
    found.push((shape.ingestion_time, None));
    let used: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
    let schema = Arc::new(shape.stored.project(&used).expect("columns of the same schema"));
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(parquet, metadata)
        .with_batch_size(PART_ROWS / 8)
        .build()
        .map_err(|error| wrong(&error))?;
    let mut writing = Writing { table, schema: schema.clone(), used, open: None, done: Vec::new() };
    let mut part: Vec<RecordBatch> = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| wrong(&error))?;
        let columns = found.iter().map(|(index, place)| match place {
            Some(place) => stored(shape, *index, batch.column(*place)),
            None => {
                let times = TimestampMicrosecondArray::from(vec![ingested; batch.num_rows()]);
                Ok(Arc::new(times.with_timezone("UTC")) as ArrayRef)
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|reason| wrong(&reason))?;
        part.push(RecordBatch::try_new(schema.clone(), columns).map_err(|error| wrong(&error))?);
        if part.iter().map(RecordBatch::num_rows).sum::<usize>() >= PART_ROWS {
            writing.part(&std::mem::take(&mut part))?;
        }
    }
    if !part.is_empty() {
        writing.part(&part)?;
    }
    writing.close()?;
    Ok(writing.done)
}

/// A column as the table stores it.
fn stored(shape: &Shape, index: usize, column: &ArrayRef) -> Result<ArrayRef, String> {
    let name = shape.column_name(index);
    let kind = shape.kinds[index];
    let column = cast(column, &kind.stored()).map_err(|error| format!("{name}: {error}"))?;
    if shape.timestamp == Some(index) && column.null_count() > 0 {
        return Err(format!("{name}: a row has none"));
    }
    debug_assert_ne!(name, INGESTION_TIME);
    Ok(match kind {
        Kind::Guid => {
            let texts = column.as_string::<i32>().iter();
            let lower = texts.map(|text| text.unwrap_or_default().to_ascii_lowercase());
            Arc::new(StringArray::from_iter_values(lower))
        }
        Kind::Dynamic => {
            let texts = column.as_string::<i32>().iter();
            Arc::new(texts.map(|text| text.and_then(dynamic)).collect::<StringArray>())
        }
        Kind::String if column.null_count() > 0 => {
            let texts = column.as_string::<i32>().iter();
            Arc::new(StringArray::from_iter_values(texts.map(Option::unwrap_or_default)))
        }
        _ => column,
    })
}

/// JSON stays as it is, any other text becomes a JSON string.
fn dynamic(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() {
        return None;
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Some(Cow::Borrowed(text)),
        Err(_) => Some(Cow::Owned(serde_json::Value::from(text).to_string())),
    }
}

struct Writing<'t> {
    table: &'t Table,
    schema: SchemaRef,
    used: Vec<usize>,
    open: Option<SortedFile>,
    done: Vec<LakeFile>,
}

impl Writing<'_> {
    /// Adds a part to the open file if its rows come after that file's, else to a new one.
    fn part(&mut self, batches: &[RecordBatch]) -> Result<(), LakeError> {
        let shape = self.table.shape;
        let about = |error| LakeError::about(&self.table.folder, &error);
        let batch = concat_batches(&self.schema, batches).map_err(about)?;
        let mut columns = vec![None; shape.kinds.len()];
        for (index, column) in self.used.iter().zip(batch.columns()) {
            columns[*index] = Some(column.clone());
        }
        let part = Arc::new(HotBatch::new(shape, batch.num_rows(), columns));
        let follows = |file: &SortedFile| {
            let after = file.latest().zip(part.time).is_none_or(|(latest, time)| time.0 >= latest);
            after && file.rows() + part.rows <= FILE_ROWS
        };
        if !self.open.as_ref().is_some_and(follows) {
            self.close()?;
        }
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let folder = &self.table.folder;
                none.insert(SortedFile::create(shape, folder, self.schema.clone())?)
            }
        };
        write_rows(file, &self.used, &[part])
    }

    fn close(&mut self) -> Result<(), LakeError> {
        if let Some(file) = self.open.take() {
            self.done.push(file.finish()?);
        }
        Ok(())
    }
}
