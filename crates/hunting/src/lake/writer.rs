//! The log's writer: one thread that gives many waiting batches one sync (group commit).

use super::LakeError;
use super::hot::HotBatch;
use super::shape::Shape;
use super::wal::{self, Sequences};
use super::{Appended, Shared};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Weak};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Bytes allocated ahead for a segment.
const PREALLOCATED: u64 = 64 << 20;
/// A group is closed at this size, so that a sync stays short.
const GROUP_BYTES: usize = 8 << 20;

/// A parsed batch on its way to the log.
pub struct Append {
    pub tenant: Uuid,
    pub source: String,
    /// 0 for batches that are not numbered and so never recognised as repeated.
    pub sequence: u64,
    /// The payload as [`wal::encode_batch`] made it.
    pub payload: Vec<u8>,
    pub tables: Vec<(&'static Shape, HotBatch)>,
    pub reply: oneshot::Sender<Result<Appended, LakeError>>,
}

pub enum Message {
    Append(Append),
    /// Begin a new segment unless the current one holds no batch. Answers with the number of the
    /// segment that is now written to; all before it are complete.
    Rotate(oneshot::Sender<Result<u64, LakeError>>),
}

/// The open segment. Owned by the writer's thread, which ends when all senders are gone.
pub struct Writer {
    shared: Weak<Shared>,
    file: File,
    number: u64,
    offset: u64,
    batches: u64,
    /// Set after a failed write or sync; the next group begins a new segment.
    broken: bool,
}

impl Writer {
    /// Creates the segment `number` and starts the thread.
    pub fn start(
        shared: &Arc<Shared>,
        number: u64,
    ) -> Result<(mpsc::Sender<Message>, std::thread::JoinHandle<()>), LakeError> {
        let (file, offset) = create(&shared.wal_folder, number, &shared.sequences.lock().clone())?;
        let mut writer = Writer {
            shared: Arc::downgrade(shared),
            file,
            number,
            offset,
            batches: 0,
            broken: false,
        };
        let (sender, receiver) = mpsc::channel(1024);
        let thread = std::thread::Builder::new()
            .name("vigie-lake-log".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| LakeError::io(&shared.wal_folder, error))?;
        Ok((sender, thread))
    }

    fn run(&mut self, mut receiver: mpsc::Receiver<Message>) {
        while let Some(message) = receiver.blocking_recv() {
            let mut message = Some(message);
            let mut group = Vec::new();
            let mut size = 0;
            let rotate = loop {
                match message.take() {
                    Some(Message::Append(append)) => {
                        size += wal::framed_len(&append.payload);
                        group.push(append);
                    }
                    Some(Message::Rotate(reply)) => break Some(reply),
                    None => break None,
                }
                if size >= GROUP_BYTES {
                    break None;
                }
                message = receiver.try_recv().ok();
            };
            let Some(shared) = self.shared.upgrade() else { return };
            if !group.is_empty() {
                self.commit(&shared, group);
            }
            if let Some(reply) = rotate {
                let _ = reply.send(self.rotate(&shared));
            }
        }
    }

    /// Writes and syncs a group, makes it visible, answers.
    fn commit(&mut self, shared: &Shared, group: Vec<Append>) {
        if self.broken
            && let Err(error) = self.rotate(shared)
        {
            for append in group {
                let _ = append.reply.send(Err(error.clone()));
            }
            return;
        }
        let (fresh, repeated) = self.split_repeated(shared, group);
        let mut bytes = Vec::with_capacity(fresh.iter().map(|a| wal::framed_len(&a.payload)).sum());
        for append in &fresh {
            wal::frame(&mut bytes, self.number, self.offset, &append.payload);
        }
        if !bytes.is_empty()
            && let Err(error) = self.write(&shared.wal_folder, &bytes)
        {
            for append in fresh.into_iter().chain(repeated) {
                let _ = append.reply.send(Err(error.clone()));
            }
            return;
        }
        for append in fresh {
            let rows = append.tables.iter().map(|(_, batch)| batch.rows).sum();
            for (shape, batch) in append.tables {
                shared.install(append.tenant, shape, self.number, batch);
            }
            let sequence = append.sequence;
            if sequence > 0 {
                shared.sequences.lock().insert((append.tenant, append.source), sequence);
            }
            let _ = append.reply.send(Ok(Appended { sequence, rows, duplicate: false }));
        }
        for append in repeated {
            let sequence = shared.last_sequence(append.tenant, &append.source);
            let _ = append.reply.send(Ok(Appended { sequence, rows: 0, duplicate: true }));
        }
    }

    /// Batches whose number is stored already, or earlier in this very group, are not stored again.
    fn split_repeated(&self, shared: &Shared, group: Vec<Append>) -> (Vec<Append>, Vec<Append>) {
        let stored = shared.sequences.lock();
        let mut in_group = Sequences::new();
        group.into_iter().partition(|append| {
            if append.sequence == 0 {
                return true;
            }
            let key = (append.tenant, append.source.clone());
            let last = in_group.get(&key).or_else(|| stored.get(&key)).copied().unwrap_or(0);
            let fresh = append.sequence > last;
            if fresh {
                in_group.insert(key, append.sequence);
            }
            fresh
        })
    }

    fn write(&mut self, folder: &Path, bytes: &[u8]) -> Result<(), LakeError> {
        let path = wal::segment_path(folder, self.number);
        let written =
            (self.file.write_all_at(bytes, self.offset)).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What the kernel has of this file is unknown now, and records of the refused group may
            // stand behind its beginning: no later group goes here. A restart must not find them.
            self.broken = true;
            let _ = self.file.write_all_at(&[0; 4], self.offset);
            let _ = self.file.sync_data();
            return Err(LakeError::io(&path, error));
        }
        self.offset += bytes.len() as u64;
        self.batches += 1;
        Ok(())
    }

    fn rotate(&mut self, shared: &Shared) -> Result<u64, LakeError> {
        if self.batches == 0 && !self.broken {
            return Ok(self.number);
        }
        let number = self.number + 1;
        let (file, offset) = create(&shared.wal_folder, number, &shared.sequences.lock().clone())?;
        *self =
            Writer { shared: self.shared.clone(), file, number, offset, batches: 0, broken: false };
        Ok(number)
    }
}

/// Creates a segment with head and snapshot, durable before it has its name.
fn create(folder: &Path, number: u64, sequences: &Sequences) -> Result<(File, u64), LakeError> {
    let path = wal::segment_path(folder, number);
    let unnamed = path.with_extension("new");
    let written = || -> std::io::Result<(File, u64)> {
        let file = File::create(&unnamed)?;
        // Where the file system cannot allocate ahead, or is too full for it, the file grows as
        // it is written; a full disk then shows at the write.
        let flags = rustix::fs::FallocateFlags::empty();
        let _ = rustix::fs::fallocate(&file, flags, 0, PREALLOCATED);
        let mut bytes = wal::head(number).to_vec();
        let mut record = Vec::new();
        wal::frame(&mut record, number, wal::HEAD, &wal::encode_snapshot(sequences));
        bytes.append(&mut record);
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&unnamed, &path)?;
        File::open(folder)?.sync_all()?;
        Ok((file, bytes.len() as u64))
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&unnamed);
        LakeError::io(&path, error)
    })
}
