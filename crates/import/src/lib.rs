//! Recordings of other sensors → rows of hunting tables.
//!
//! Reads what users have: JSON lines and arrays of Windows events (Sysmon, Security and others),
//! the `Event`/`System`/`EventData` form that EVTX parsers give, binary EVTX, Sysmon for Linux as
//! XML inside syslog, raw Linux audit records, and rows exported from a tenant (JSON or Parquet);
//! plain or inside zip, tar, gzip. Which event becomes which row stands in `catalogue/event_mapping.json`.

mod archive;
mod audit;
mod columnar;
mod event;
mod exported;
mod mapping;
mod record;
mod rows;
mod values;

pub use exported::table_of_file;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bad lines that a report keeps word for word; the rest are counted.
const REPORTED_BAD_LINES: usize = 100;

/// How recordings become telemetry.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Moves every time so that the newest event of all files falls here.
    pub newest_at: Option<DateTime<Utc>>,
    /// Device name for records that name none (raw audit records).
    pub device_name: Option<String>,
}

/// One row for a hunting table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub table: &'static str,
    pub columns: Map<String, Value>,
}

/// What an import read and what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub files: Vec<FileReport>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileReport {
    /// Path, with the archive's member behind `!`.
    pub name: String,
    pub events: u64,
    pub rows: BTreeMap<&'static str, u64>,
    /// Events without a counterpart in the hunting tables, by source and event id.
    pub unmapped: BTreeMap<(String, String), u64>,
    pub bad_lines: u64,
    /// The first of them: line or record number, counted from 1, and why.
    pub first_bad: Vec<(u64, String)>,
}

impl FileReport {
    fn bad(&mut self, line: u64, reason: String) {
        self.bad_lines += 1;
        if self.first_bad.len() < REPORTED_BAD_LINES {
            self.first_bad.push((line, reason));
        }
    }
}

impl Report {
    /// Rows by table over all files.
    pub fn rows(&self) -> BTreeMap<&'static str, u64> {
        let mut total = BTreeMap::new();
        for (table, count) in self.files.iter().flat_map(|file| &file.rows) {
            *total.entry(*table).or_default() += count;
        }
        total
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The receiver of rows refused; the import ended there.
    #[error("{0}")]
    Refused(String),
}

/// Called with every row; an error ends the import.
pub type Sink<'a> = dyn FnMut(Row) -> Result<(), String> + 'a;
/// Called now and then with the bytes read so far of all the bytes on disk.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Reads the files in the given order and hands every row to `sink`.
///
/// A bad line or member is reported and the rest goes on; only a file that cannot be opened and a
/// sink that refuses end the import.
pub fn import(
    paths: &[PathBuf],
    options: &Options,
    sink: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<Report, ImportError> {
    let shift = match options.newest_at {
        Some(newest_at) => newest_event(paths, options)?.map(|newest| newest_at - newest),
        None => None,
    };
    read(paths, options, shift.unwrap_or_default(), sink, progress)
}

/// A first pass for the time shift alone.
fn newest_event(
    paths: &[PathBuf],
    options: &Options,
) -> Result<Option<DateTime<Utc>>, ImportError> {
    let mut newest = None;
    let mut keep_newest = |row: Row| {
        let time = row.columns["Timestamp"].as_str().and_then(values::parse_time);
        newest = newest.max(time);
        Ok(())
    };
    read(paths, options, TimeDelta::zero(), &mut keep_newest, &mut |_, _| ())?;
    Ok(newest)
}

fn read(
    paths: &[PathBuf],
    options: &Options,
    shift: TimeDelta,
    sink: &mut Sink<'_>,
    progress: &mut Progress<'_>,
) -> Result<Report, ImportError> {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let total = paths.iter().map(|path| size(path)).sum();
    let mut done = 0;
    let mut report = Report::default();
    let mut maker = rows::Maker::new(shift);
    for path in paths {
        let mut refused = None;
        let opened = archive::members(path, &mut |name, reader| {
            let mut file = FileReport { name: name.to_owned(), ..FileReport::default() };
            let outcome = record::read(reader, options, &mut maker, &mut file, sink);
            report.files.push(file);
            if let Err(reason) = outcome {
                refused = Some(reason);
            }
            refused.is_none()
        });
        if let Some(reason) = refused {
            return Err(ImportError::Refused(reason));
        }
        match opened {
            Ok(problems) => report.files.extend(problems),
            Err(source) => return Err(ImportError::Unreadable { path: path.clone(), source }),
        }
        done += size(path);
        progress(done, total);
    }
    Ok(report)
}
