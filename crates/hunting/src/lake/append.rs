//! Taking a batch in.

use super::watch::{self, Sighting, Watch};
use super::writer::{Append, Message};
use super::{Lake, LakeError, rows, wal};
use bytes::Bytes;
use std::sync::Arc;
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

/// A batch that was read and is not stored yet.
pub struct Arriving {
    lake: Lake,
    /// Rows that hold what the watch sought; none of a batch that is stored already.
    pub sightings: Vec<Sighting>,
    stage: Stage,
}

enum Stage {
    Stored(Appended),
    Read(Box<Append>, Answer),
}

impl Arriving {
    /// Stores the batch. Returns once it is on disk and visible to queries.
    ///
    /// Errors: [`LakeError::DiskFull`], [`LakeError::Io`] and [`LakeError::Closed`]. Nothing is
    /// stored then; after `Io` a restart may still find the batch, as a number that is already
    /// stored.
    pub async fn store(self) -> Result<Appended, LakeError> {
        let (append, answer) = match self.stage {
            Stage::Stored(appended) => return Ok(appended),
            Stage::Read(append, answer) => (append, answer),
        };
        let shared = &self.lake.shared;
        let log = shared.log.lock().clone().ok_or(LakeError::Closed)?;
        log.send(Message::Append(*append)).await.map_err(|_| LakeError::Closed)?;
        let appended = answer.await.map_err(|_| LakeError::Closed)?;
        if shared.is_full() {
            shared.flush_wanted.notify_one();
        }
        appended
    }
}

impl Lake {
    /// Stores a batch: [`Lake::take`] without a watch, then [`Arriving::store`].
    pub async fn append(&self, batch: Batch) -> Result<Appended, LakeError> {
        self.take(batch, None).await?.store().await
    }

    /// Reads a batch and looks for what the watch seeks.
    ///
    /// Errors: [`LakeError::Malformed`] and [`LakeError::Rejected`] for the sender's mistakes,
    /// [`LakeError::Overloaded`] and [`LakeError::Closed`].
    pub async fn take(
        &self,
        batch: Batch,
        watch: Option<Arc<dyn Watch>>,
    ) -> Result<Arriving, LakeError> {
        let shared = &self.shared;
        if batch.sequence > 0 {
            // An early answer; the writer checks again, in order.
            let sequence = shared.last_sequence(batch.tenant, &batch.source);
            if batch.sequence <= sequence {
                let appended = Appended { sequence, rows: 0, duplicate: true };
                let (lake, sightings) = (self.clone(), Vec::new());
                return Ok(Arriving { lake, sightings, stage: Stage::Stored(appended) });
            }
        }
        self.wait_for_room().await?;
        let ingested = shared.config.clock.now().timestamp_micros();
        let read = move |batch: Batch| {
            let (append, answer) = prepare(batch, ingested)?;
            let sightings = watch.map(|watch| watch::sightings(&append.tables, watch.as_ref()));
            Ok::<_, LakeError>((append, answer, sightings.unwrap_or_default()))
        };
        let (append, answer, sightings) = if batch.body.len() <= INLINE_BYTES {
            read(batch)?
        } else {
            let read = tokio::task::spawn_blocking(move || read(batch)).await;
            read.map_err(|_| LakeError::Closed)??
        };
        let stage = Stage::Read(Box::new(append), answer);
        Ok(Arriving { lake: self.clone(), sightings, stage })
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
