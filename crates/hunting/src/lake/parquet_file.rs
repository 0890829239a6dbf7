//! Writing a table's rows as one sorted Parquet file.

use super::LakeError;
use super::hot::HotBatch;
use super::seen::{self, Gathering};
use super::shape::{Kind, Shape};
use super::table::LakeFile;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::interleave;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Rows of a row group: small enough to prune by, large enough to decode fast.
pub const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Rows handed to the Parquet writer at once.
const CHUNK_ROWS: usize = 8192;

/// A file being written. It has a fresh name that no reader knows until Delta commits it, so
/// a crash leaves debris that the next start removes.
pub struct SortedFile {
    shape: &'static Shape,
    writer: ArrowWriter<File>,
    path: PathBuf,
    name: String,
    rows: usize,
    time: Option<(i64, i64)>,
    /// For tables whose rows tell what machines saw.
    seen: Option<Gathering>,
    finished: bool,
}

impl SortedFile {
    /// `schema` is a subset of the table's stored columns.
    pub fn create(
        shape: &'static Shape,
        folder: &Path,
        schema: SchemaRef,
    ) -> Result<SortedFile, LakeError> {
        std::fs::create_dir_all(folder).map_err(|error| LakeError::io(folder, error))?;
        let name = format!("{}.parquet", Uuid::new_v4());
        let path = folder.join(&name);
        let file = File::create_new(&path).map_err(|error| LakeError::io(&path, error))?;
        let properties = properties(shape, &schema);
        let writer = ArrowWriter::try_new(file, schema, Some(properties))
            .map_err(|error| LakeError::about(&path, &error))?;
        let seen = seen::tells(shape).then(|| Gathering::new(shape));
        Ok(SortedFile { shape, writer, path, name, rows: 0, time: None, seen, finished: false })
    }

    /// Adds rows, sorted among themselves and after all earlier ones.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        if let Some(column) = self.shape.timestamp.and_then(|_| batch.column_by_name("Timestamp")) {
            let values = column.as_primitive::<TimestampMicrosecondType>().values();
            if let (Some(first), Some(last)) = (values.first(), values.last()) {
                self.time = Some((self.time.map_or(*first, |(min, _)| min), *last));
            }
        }
        self.rows += batch.num_rows();
        if let Some(seen) = &mut self.seen {
            seen.add(batch);
        }
        self.writer.write(batch).map_err(|error| LakeError::about(&self.path, &error))
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The last row's `Timestamp` in microseconds.
    pub fn latest(&self) -> Option<i64> {
        self.time.map(|(_, latest)| latest)
    }

    /// Completes the file and makes it durable, its name included, and its summary.
    pub fn finish(mut self) -> Result<LakeFile, LakeError> {
        self.writer.finish().map_err(|error| LakeError::about(&self.path, &error))?;
        let file = self.writer.inner();
        let io = |error| LakeError::io(&self.path, error);
        file.sync_all().map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let folder = self.path.parent().unwrap_or(&self.path);
        if let Some(seen) = self.seen.take() {
            seen.write(&seen::path(folder, &self.name))?;
        }
        sync_folder(folder)?;
        self.finished = true;
        Ok(LakeFile { path: self.name.clone(), size, rows: self.rows, time: self.time })
    }
}

impl Drop for SortedFile {
    fn drop(&mut self) {
        if !self.finished {
            remove(&self.path);
        }
    }
}

/// Removes a file that is no part of its table, with its summary.
pub fn remove(path: &Path) {
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
        let _ = std::fs::remove_file(seen::path(folder, &name.to_string_lossy()));
    }
    let _ = std::fs::remove_file(path);
}

/// Makes names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), LakeError> {
    (File::open(folder).and_then(|folder| folder.sync_all()))
        .map_err(|error| LakeError::io(folder, error))
}

/// Writes batches as one file sorted by `Timestamp`, then `DeviceId`. Columns without a value in
/// any row are left out: Delta readers and the scan fill them in.
pub fn write_sorted(
    shape: &'static Shape,
    folder: &Path,
    batches: &[Arc<HotBatch>],
) -> Result<LakeFile, LakeError> {
    let used: Vec<usize> = (0..shape.kinds.len())
        .filter(|&index| batches.iter().any(|batch| batch.columns[index].is_some()))
        .collect();
    let schema = Arc::new(shape.stored.project(&used).expect("columns of the same schema"));
    let mut file = SortedFile::create(shape, folder, schema)?;
    write_rows(&mut file, &used, batches)?;
    file.finish()
}

/// Adds the batches' rows, sorted, to a file of the columns `used`.
pub fn write_rows(
    file: &mut SortedFile,
    used: &[usize],
    batches: &[Arc<HotBatch>],
) -> Result<(), LakeError> {
    let shape = file.shape;
    let schema = Arc::new(shape.stored.project(used).expect("columns of the same schema"));
    let columns: Vec<Vec<ArrayRef>> = (used.iter())
        .map(|&index| {
            let part = |batch: &Arc<HotBatch>| match &batch.columns[index] {
                Some(array) => array.clone(),
                None => shape.missing_stored(index, batch.rows),
            };
            batches.iter().map(part).collect()
        })
        .collect();
    let path = file.path.clone();
    for rows in sorted_rows(shape, batches).chunks(CHUNK_ROWS) {
        let sorted = (columns.iter())
            .map(|parts| {
                let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                interleave(&parts, rows)
            })
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
            .map_err(|error| LakeError::about(&path, &error))?;
        file.write(&sorted)?;
    }
    Ok(())
}

/// Every row as (batch, row), in the file's order.
fn sorted_rows(shape: &Shape, batches: &[Arc<HotBatch>]) -> Vec<(usize, usize)> {
    let rows = |batch: &HotBatch| 0..batch.rows;
    let Some(timestamp) = shape.timestamp else {
        return (batches.iter().enumerate())
            .flat_map(|(at, batch)| rows(batch).map(move |row| (at, row)))
            .collect();
    };
    let devices: Vec<Option<&StringArray>> = (batches.iter())
        .map(|batch| Some(batch.columns[shape.device_id?].as_ref()?.as_string()))
        .collect();
    let mut keyed: Vec<(i64, u32, u32)> = Vec::with_capacity(batches.iter().map(|b| b.rows).sum());
    for (at, batch) in batches.iter().enumerate() {
        let array = batch.columns[timestamp].as_ref().expect("Timestamp is required");
        let times = array.as_primitive::<TimestampMicrosecondType>().values();
        keyed.extend(times.iter().zip(0_u32..).map(|(time, row)| (*time, at as u32, row)));
    }
    let device = |at: u32, row: u32| devices[at as usize].map(|array| array.value(row as usize));
    keyed.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| device(a.1, a.2).cmp(&device(b.1, b.2))));
    keyed.into_iter().map(|(_, at, row)| (at as usize, row as usize)).collect()
}

/// Columns that hunters look up single values of.
fn wants_bloom_filter(name: &str) -> bool {
    const EXACT: &[&str] =
        &["DeviceId", "DeviceName", "RemoteIP", "LocalIP", "IPAddress", "RemoteUrl", "AlertId"];
    const ENDINGS: &[&str] =
        &["SHA1", "SHA256", "MD5", "AccountSid", "AccountObjectId", "NetworkMessageId"];
    EXACT.contains(&name) || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn properties(shape: &Shape, schema: &Schema) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(CHUNK_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(64))
        .set_column_index_truncate_length(Some(64))
        .set_bloom_filter_fpp(0.01);
    if let Ok(index) = schema.index_of("Timestamp")
        && shape.timestamp.is_some()
    {
        let sorted =
            SortingColumn { column_idx: index as i32, descending: false, nulls_first: false };
        properties = properties.set_sorting_columns(Some(vec![sorted]));
    }
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        let Some(index) = shape.column(field.name()) else { continue };
        match shape.kinds[index] {
            Kind::Datetime if shape.timestamp == Some(index) => {
                properties = (properties.set_column_dictionary_enabled(path.clone(), false))
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            // JSON texts and running numbers hardly repeat; a dictionary would be built for nothing.
            Kind::Dynamic => properties = properties.set_column_dictionary_enabled(path, false),
            Kind::Long if field.name() == "ReportId" => {
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            Kind::String if wants_bloom_filter(field.name()) => {
                properties = (properties.set_column_bloom_filter_enabled(path.clone(), true))
                    .set_column_bloom_filter_max_ndv(path, ROW_GROUP_ROWS as u64 / 4);
            }
            _ => {}
        }
    }
    properties.build()
}
