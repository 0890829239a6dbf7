//! Gathers rows into batches and puts them into the spool.

use crate::lost::Lost;
use crate::rows::Event;
use crate::spool::Spool;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use vigie_contract::sensor::TelemetryBatch;

/// A batch is closed at this many rows …
const MOST_ROWS: usize = 1000;
/// … or bytes of JSON …
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// … or this long after its first row.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Open {
    tables: BTreeMap<String, Vec<Box<RawValue>>>,
    rows: usize,
    bytes: usize,
}

/// Runs until every sender is gone; then the last rows are in the spool. Blocks: give it a thread.
pub fn run(
    queue: Receiver<Event>,
    spool: Arc<Mutex<Spool>>,
    appended: Arc<Notify>,
    lost: Arc<Lost>,
) {
    let mut open = Open::default();
    let mut close_at = None;
    loop {
        let received = match close_at {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => queue.recv_timeout(Instant::saturating_duration_since(&at, Instant::now())),
        };
        let mut ended = false;
        match received {
            Ok(event) => {
                add(&mut open, event);
                close_at.get_or_insert_with(|| Instant::now() + LONGEST_WAIT);
                if open.rows < MOST_ROWS
                    && open.bytes < MOST_BYTES
                    && close_at.is_some_and(|at| Instant::now() < at)
                {
                    continue;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => ended = true,
        }
        close_at = None;
        store(std::mem::take(&mut open), &spool, &lost);
        appended.notify_one();
        if ended {
            return;
        }
    }
}

fn add(open: &mut Open, event: Event) {
    let row = serde_json::value::to_raw_value(&event.row.0).expect("a map of values is JSON");
    open.bytes += row.get().len() + 1;
    open.rows += 1;
    open.tables.entry(event.table.to_owned()).or_default().push(row);
}

fn store(open: Open, spool: &Mutex<Spool>, lost: &Lost) {
    if open.rows == 0 {
        return;
    }
    let stored = encode(&TelemetryBatch { tables: open.tables })
        .and_then(|body| spool.lock().append(open.rows as u32, &body));
    if let Err(error) = stored {
        tracing::error!(error = format!("{error:#}"), events = open.rows, "events lost");
        lost.add("spool", open.rows as u64);
    }
}

/// A batch as it travels: JSON under zstd.
pub fn encode(batch: &TelemetryBatch) -> anyhow::Result<Vec<u8>> {
    Ok(zstd::encode_all(serde_json::to_vec(batch)?.as_slice(), 1)?)
}
