//! Rows of hunting tables on their way to the spool.

use crate::lost::Lost;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

/// Rows that may wait for the collector; beyond that they are dropped and counted.
pub const QUEUE_ROWS: usize = 8192;

/// One row: column name → value; columns without a value are left out.
#[derive(Clone, Debug, Default)]
pub struct Row(pub Map<String, Value>);

impl Row {
    pub fn new(at: DateTime<Utc>, action_type: &str) -> Row {
        let mut row = Row::default();
        row.time("Timestamp", at);
        row.text("ActionType", action_type);
        row
    }

    /// Sets a text column; an empty text is no value.
    pub fn text(&mut self, column: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.0.insert(column.to_owned(), Value::String(value));
        }
    }

    pub fn number(&mut self, column: &str, value: impl Into<i64>) {
        self.0.insert(column.to_owned(), Value::from(value.into()));
    }

    pub fn flag(&mut self, column: &str, value: bool) {
        self.0.insert(column.to_owned(), Value::Bool(value));
    }

    pub fn time(&mut self, column: &str, value: DateTime<Utc>) {
        self.0.insert(column.to_owned(), Value::String(time_text(value)));
    }

    /// Sets a column that holds JSON as text (`AdditionalFields`, `IPAddresses` …).
    pub fn json(&mut self, column: &str, value: &Value) {
        self.text(column, value.to_string());
    }
}

/// RFC 3339 in UTC with microseconds.
pub fn time_text(value: DateTime<Utc>) -> String {
    value.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A row for a table.
pub struct Event {
    pub table: &'static str,
    pub row: Row,
}

/// Where sources put their rows. Never blocks: a full queue costs the row, which is counted.
#[derive(Clone)]
pub struct Sink {
    queue: SyncSender<Event>,
    lost: Arc<Lost>,
    /// Last `ReportId` given; unique only together with device and time.
    report_id: Arc<AtomicI64>,
}

impl Sink {
    pub fn new(queue: SyncSender<Event>, lost: Arc<Lost>) -> Sink {
        Sink { queue, lost, report_id: Arc::new(AtomicI64::new(0)) }
    }

    /// Hands a row over; `source` names who loses it when the queue is full.
    pub fn put(&self, source: &str, table: &'static str, mut row: Row) {
        row.number("ReportId", self.report_id.fetch_add(1, Ordering::Relaxed) + 1);
        match self.queue.try_send(Event { table, row }) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.lost.add(source, 1),
        }
    }

    /// Counts events that a source knows to have missed.
    pub fn lost(&self, source: &str, events: u64) {
        self.lost.add(source, events);
    }
}
