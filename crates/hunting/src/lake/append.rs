//! Taking a batch in.

use super::writer::{Append, Message};
use super::{Lake, LakeError, rows, wal};
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Rows of one source, to be stored as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    pub tenant: Uuid,
    /// Who numbers the batches: a machine id, for example.
    pub source: String,
    /// Counts up per source; a number that is not above the last one stored is answered as a
    /// duplicate and not stored again. 0 for rows that nobody sends twice.
    pub sequence: u64,
    /// Columns set on every row of each table that has them, over the row's own value.
    pub constants: Vec<(String, String)>,
    /// `{"tables":{"DeviceProcessEvents":[{…}]}}`.
    pub body: Bytes,
}

/// The answer to a durable batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The highest number of this source that is durable.
    pub sequence: u64,
    /// Rows stored by this call.
    pub rows: usize,
    /// The batch had been stored before.
    pub duplicate: bool,
}

/// Bodies above this size are parsed on a blocking thread, so that other requests do not wait.
const INLINE_BYTES: usize = 256 << 10;
/// Rows in memory may grow to this multiple of the flush size before appends wait.
const BACKLOG: usize = 6;
/// How long an append waits for the flush to catch up.
const PATIENCE: Duration = Duration::from_secs(20);

impl Lake {
    /// Stores a batch. Returns once it is on disk and visible to queries.
    ///
    /// Errors: [`LakeError::Malformed`] and [`LakeError::Rejected`] for the sender's mistakes,
    /// [`LakeError::DiskFull`], [`LakeError::Overloaded`], [`LakeError::Io`] and
    /// [`LakeError::Closed`]. Nothing is stored then; after `Io` a restart may still find the batch,
    /// as a number that is already stored.
    pub async fn append(&self, batch: Batch) -> Result<Appended, LakeError> {
        let shared = &self.shared;
        let log = shared.log.lock().clone().ok_or(LakeError::Closed)?;
        if batch.sequence > 0 {
            // An early answer; the writer checks again, in order.
            let sequence = shared.last_sequence(batch.tenant, &batch.source);
            if batch.sequence <= sequence {
                return Ok(Appended { sequence, rows: 0, duplicate: true });
            }
        }
        self.wait_for_room().await?;
        let ingested = shared.config.clock.now().timestamp_micros();
        let (append, answer) = if batch.body.len() <= INLINE_BYTES {
            prepare(batch, ingested)?
        } else {
            let prepared = tokio::task::spawn_blocking(move || prepare(batch, ingested)).await;
            prepared.map_err(|_| LakeError::Closed)??
        };
        log.send(Message::Append(append)).await.map_err(|_| LakeError::Closed)?;
        let appended = answer.await.map_err(|_| LakeError::Closed)?;
        if shared.is_full() {
            shared.flush_wanted.notify_one();
        }
        appended
    }

    async fn wait_for_room(&self) -> Result<(), LakeError> {
        let limit = self.shared.config.flush.bytes.saturating_mul(BACKLOG);
        let bytes = || self.shared.hot_bytes.load(Ordering::Relaxed);
        let room = async {
            loop {
                let flushed = self.shared.flushed.notified();
                if bytes() < limit {
                    return;
                }
                self.shared.flush_wanted.notify_one();
                flushed.await;
            }
        };
        (tokio::time::timeout(PATIENCE, room).await)
            .map_err(|_| LakeError::Overloaded { bytes: bytes() })
    }
}

type Answer = oneshot::Receiver<Result<Appended, LakeError>>;

fn prepare(batch: Batch, ingested_micros: i64) -> Result<(Append, Answer), LakeError> {
    let tables = rows::parse(&batch.body, &batch.constants, ingested_micros)?;
    let record = wal::BatchRecord {
        tenant: batch.tenant,
        source: batch.source,
        sequence: batch.sequence,
        ingested_micros,
        constants: batch.constants,
        body: batch.body,
    };
    let payload = wal::encode_batch(&record)?;
    let (reply, answer) = oneshot::channel();
    let wal::BatchRecord { tenant, source, sequence, .. } = record;
    Ok((Append { tenant, source, sequence, payload, tables, reply }, answer))
}
