//! Where and when machines saw a file, an address or a host: answered from summaries that stand
//! beside the Parquet files, so that it takes no scan of the rows.
//!
//! A summary is gathered while its file's rows are written ([`gather`]) and is durable before the
//! commit that makes the file part of its table ([`summary`]). So it tells of exactly those rows:
//! whatever a crash, a merge or retention does to a file, it does to the summary. One that is
//! missing or damaged is made anew from its file. Rows that are in memory only are looked at one by
//! one.

mod gather;
mod source;
mod summary;

pub use gather::Gathering;
pub use source::host_of;
pub use summary::{Summary, folder, path};

use super::hot::HotBatch;
use super::shape::{Shape, shape};
use super::table::{LakeFile, Table};
use super::{Lake, LakeError, Shared};
use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use hashbrown::{HashMap, HashSet};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use source::Kind;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Microseconds of an hour, in which sightings are counted.
const HOUR: i64 = 3_600_000_000;

/// Tables whose rows tell what a machine saw.
const TABLES: &[&str] = &[
    "DeviceEvents",
    "DeviceFileEvents",
    "DeviceImageLoadEvents",
    "DeviceLogonEvents",
    "DeviceNetworkEvents",
    "DeviceProcessEvents",
    "DeviceRegistryEvents",
];

/// What rows may tell of, in the form in which it is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    /// In lower case.
    Sha1(String),
    /// In lower case.
    Sha256(String),
    /// An IPv4 address in an IPv6 one is that IPv4 address.
    Address(IpAddr),
    /// A name in lower case without a dot at its end.
    Host(String),
}

impl Thing {
    fn kind(&self) -> Kind {
        match self {
            Thing::Sha1(_) => Kind::Sha1,
            Thing::Sha256(_) => Kind::Sha256,
            Thing::Address(_) => Kind::Address,
            Thing::Host(_) => Kind::Host,
        }
    }

    /// The kind's number, and the value as text.
    fn key(&self) -> (u8, String) {
        let value = match self {
            Thing::Sha1(value) | Thing::Sha256(value) | Thing::Host(value) => value.clone(),
            Thing::Address(address) => address.to_canonical().to_string(),
        };
        (self.kind() as u8, value)
    }
}

/// What the rows of a tenant tell of a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often rows name it; a row that names it twice counts twice.
    pub times: u64,
    /// Ids of the devices, ascending.
    pub devices: Vec<String>,
    /// The first and the last `Timestamp`, microseconds since the Unix epoch.
    pub first: Option<i64>,
    pub last: Option<i64>,
    /// File names that it had, with their number of times, the most frequent first.
    pub names: Vec<(String, u64)>,
    /// A file's hash of the other kind, where a row has both.
    pub other_hash: Option<String>,
}

impl Lake {
    /// What is known of a thing since the beginning of the hour of `since`; older rows than the
    /// retention count as gone.
    ///
    /// Errors: [`LakeError::Damaged`] and [`LakeError::Io`], naming the file.
    pub async fn seen(
        &self,
        tenant: Uuid,
        thing: Thing,
        since: DateTime<Utc>,
    ) -> Result<Seen, LakeError> {
        let shared = self.shared.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let window = Window::of(&shared, since);
            let mut found = Found::default();
            for shape in TABLES.iter().filter_map(|name| shape(name)) {
                let table = shared.tables.read().get(&(tenant, shape.name)).cloned();
                if let Some(table) = table {
                    look(&table, &thing, &window, &mut found)?;
                }
            }
            Ok(found.seen())
        });
        looked.await.map_err(|_| LakeError::Closed)?
    }

    /// Makes the summaries that are missing, such as those of files of an earlier version, until a
    /// flush is due. Returns their number; a file that cannot be read is logged.
    pub async fn summarise(&self) -> usize {
        self.shared.summarise(&self.background.cancel).await
    }
}

impl Shared {
    /// Stops between two files when cancelled or when a flush is due, which is more urgent; the next
    /// call goes on.
    pub(super) async fn summarise(&self, cancel: &CancellationToken) -> usize {
        let mut made = 0;
        for table in self.all_tables().into_iter().filter(|table| tells(table.shape)) {
            for file in table.snapshot().files.iter().cloned() {
                if path(&table.folder, &file.path).exists() {
                    continue;
                }
                if cancel.is_cancelled() || self.flush_is_due() {
                    return made;
                }
                let table = table.clone();
                let making = tokio::task::spawn_blocking(move || table.summary(&file));
                match making.await.unwrap_or(Err(LakeError::Closed)) {
                    Ok(_) => made += 1,
                    Err(error) => tracing::error!(%error, "a summary was not made"),
                }
            }
        }
        made
    }
}

/// Whether a table's rows tell of things.
pub fn tells(shape: &Shape) -> bool {
    TABLES.contains(&shape.name)
}

/// The rows that count.
pub struct Window {
    /// Hours since the Unix epoch.
    from_hour: i64,
    /// Microseconds since the Unix epoch.
    horizon: i64,
}

impl Window {
    fn of(shared: &Shared, since: DateTime<Utc>) -> Window {
        Window {
            from_hour: since.timestamp_micros().div_euclid(HOUR),
            horizon: shared.horizon().unwrap_or(i64::MIN),
        }
    }

    fn holds(&self, time: i64) -> bool {
        time.div_euclid(HOUR) >= self.from_hour && time >= self.horizon
    }
}

/// What was found so far, over all tables.
#[derive(Default)]
pub struct Found {
    times: u64,
    devices: HashSet<String>,
    first: Option<i64>,
    last: Option<i64>,
    names: HashMap<String, u64>,
    other: Option<String>,
}

impl Found {
    fn see(&mut self, first: i64, last: i64, times: u64) {
        self.times += times;
        self.first = Some(self.first.map_or(first, |known| known.min(first)));
        self.last = Some(self.last.map_or(last, |known| known.max(last)));
    }

    fn device(&mut self, device: &str) {
        if !device.is_empty() && !self.devices.contains(device) {
            self.devices.insert(device.to_owned());
        }
    }

    fn name(&mut self, name: &str, times: u64) {
        if !name.is_empty() {
            *self.names.entry_ref(name).or_insert(0) += times;
        }
    }

    fn other(&mut self, hash: &str) {
        if !hash.is_empty() && self.other.is_none() {
            self.other = Some(hash.to_lowercase());
        }
    }

    fn seen(self) -> Seen {
        let mut devices: Vec<String> = self.devices.into_iter().collect();
        devices.sort_unstable();
        let mut names: Vec<(String, u64)> = self.names.into_iter().collect();
        names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let Found { times, first, last, other, .. } = self;
        Seen { times, devices, first, last, names, other_hash: other }
    }
}

fn look(table: &Table, thing: &Thing, window: &Window, found: &mut Found) -> Result<(), LakeError> {
    let snapshot = table.snapshot();
    if let Some(reason) = snapshot.damaged {
        return Err(LakeError::Damaged { path: table.folder.clone(), reason });
    }
    for batch in &snapshot.hot {
        look_at_rows(table.shape, batch, thing, window, found);
    }
    for file in snapshot.files.iter() {
        if file.time.is_none_or(|(_, latest)| window.holds(latest)) {
            let looked = table.summary(file)?.look(thing, window, found);
            if let Err(error) = looked {
                // What it says is checked; a block that is wrong is no reason to answer nothing.
                tracing::warn!(%error, "a summary is made anew");
                table.forget_summary(file);
                let _ = std::fs::remove_file(path(&table.folder, &file.path));
                table.summary(file)?.look(thing, window, found)?;
            }
        }
    }
    Ok(())
}

/// Rows in memory.
fn look_at_rows(
    shape: &'static Shape,
    batch: &HotBatch,
    thing: &Thing,
    window: &Window,
    found: &mut Found,
) {
    let texts = |index: Option<usize>| -> Option<&StringArray> {
        Some(batch.columns[index?].as_ref()?.as_string())
    };
    let times = shape.timestamp.and_then(|index| batch.columns[index].as_ref());
    let Some(times) = times.map(|times| times.as_primitive::<TimestampMicrosecondType>()) else {
        return;
    };
    let devices = texts(shape.device_id);
    for source in source::of(shape).iter().filter(|source| source.kind == thing.kind()) {
        let Some(values) = texts(Some(source.column)) else { continue };
        let (names, others) = (texts(source.name), texts(source.other));
        let at = |texts: Option<&'_ StringArray>, row| -> String {
            texts.map(|texts| texts.value(row).to_owned()).unwrap_or_default()
        };
        // Values come in runs: one process does many things.
        let mut before = ("", false);
        for (row, time) in times.values().iter().enumerate().take(values.len()) {
            let text = values.value(row);
            if text != before.0 {
                before = (text, source.names(text, thing));
            }
            if before.1 && window.holds(*time) {
                found.see(*time, *time, 1);
                found.device(&at(devices, row));
                found.name(&at(names, row), 1);
                found.other(&at(others, row));
            }
        }
    }
}

impl Table {
    /// The summary of a file, made from its rows if it is missing or damaged.
    pub(super) fn summary(&self, file: &LakeFile) -> Result<Arc<Summary>, LakeError> {
        let known = self.summaries.lock().get(&file.path).cloned();
        if let Some(summary) = known {
            return Ok(summary);
        }
        let path = path(&self.folder, &file.path);
        let summary = match Summary::open(&path) {
            Ok(summary) => summary,
            Err(_) => self.make_summary(file, &path)?,
        };
        let summary = Arc::new(summary);
        let mut known = self.summaries.lock();
        // Nobody would forget that of a file that was replaced meanwhile.
        if self.holds(file) {
            known.insert(file.path.clone(), summary.clone());
        }
        Ok(summary)
    }

    /// One at a time, while those that are there can be looked into.
    fn make_summary(&self, file: &LakeFile, path: &Path) -> Result<Summary, LakeError> {
        let _one_at_a_time = self.making.lock();
        // Another may have made it meanwhile.
        match Summary::open(path) {
            Ok(summary) => return Ok(summary),
            Err(error) if path.exists() => tracing::warn!(%error, "a summary is made anew"),
            Err(_) => {}
        }
        self.gather(file)?.write(path)?;
        Summary::open(path)
    }

    /// Reads the file's rows for what they tell.
    fn gather(&self, file: &LakeFile) -> Result<Gathering, LakeError> {
        let path = self.folder.join(&file.path);
        let damaged = |error: &dyn std::fmt::Display| LakeError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        let rows = File::open(&path).map_err(|error| LakeError::io(&path, error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(rows).map_err(|e| damaged(&e))?;
        let wanted = source::columns(self.shape);
        let names = wanted.iter().map(|index| self.shape.stored_name(*index));
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let reader = builder.with_projection(mask).build().map_err(|e| damaged(&e))?;
        let mut gathering = Gathering::new(self.shape);
        for batch in reader {
            gathering.add(&batch.map_err(|e| damaged(&e))?);
        }
        Ok(gathering)
    }
}

/// A column of texts of a batch, where the batch has it.
fn column<'b>(shape: &Shape, batch: &'b RecordBatch, index: usize) -> Option<&'b StringArray> {
    batch.column_by_name(shape.stored_name(index))?.as_string_opt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_what_is_looked_for() {
        for name in TABLES {
            let shape = shape(name).expect("a table");
            assert!(!source::of(shape).is_empty() && shape.timestamp.is_some(), "{name}");
        }
    }
}
