//! Batches on disk between their making and the server's acknowledgement.
//!
//! A segment file `<first number>.segment` holds records one after the other:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the body, little endian |
//! | 4 | events in the batch, for counting what is lost |
//! | 8 | number of the batch |
//! | 8 | first bytes of SHA-256 over the fields above and the body |
//! | … | body: the batch's JSON under zstd, as it is sent |
//!
//! A batch is in the spool once `append` returned: the file is synced. A record cut short by a crash
//! ends its segment. Acknowledged numbers are kept in `acknowledged` without sync, because sending a
//! batch twice is harmless. When the spool is full the oldest segment goes, and its events are counted.

use crate::disk;
use anyhow::{Context, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 24;
/// A segment is closed when it has grown beyond this.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// A longer body than the protocol allows means that the header is damaged.
const LONGEST_BODY: usize = vigie_contract::sensor::MAX_TELEMETRY_BYTES;
const ACKNOWLEDGED_FILE: &str = "acknowledged";
const SHIFT_FILE: &str = "shift";

/// A batch as it will be sent.
pub struct Batch {
    /// Number in the spool; [`Spool::wire_sequence`] makes the number on the wire of it.
    pub number: u64,
    pub events: u32,
    pub body: Bytes,
}

/// Where a batch lies.
struct Entry {
    number: u64,
    events: u32,
    offset: u64,
    length: usize,
}

struct Segment {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Those not yet acknowledged, oldest first.
    entries: VecDeque<Entry>,
}

/// The spool of one sensor; the caller sees to it that only one process opens a folder.
pub struct Spool {
    folder: PathBuf,
    limit: u64,
    segments: VecDeque<Segment>,
    /// Number of the last batch ever appended.
    last: u64,
    acknowledged: u64,
    /// What to add to a number for the wire; see [`Spool::shift_beyond`].
    shift: u64,
    /// Events dropped since opening: the spool was full, or a record was damaged.
    dropped_events: u64,
}

impl Spool {
    /// Opens or makes the spool; `limit` bounds its bytes on disk.
    pub fn open(folder: &Path, limit: u64) -> Result<Spool> {
        disk::make_private_folder(folder)?;
        let acknowledged = read_number(&folder.join(ACKNOWLEDGED_FILE))?;
        let shift = read_number(&folder.join(SHIFT_FILE))?;
        let mut spool = Spool {
            folder: folder.to_owned(),
            limit,
            segments: VecDeque::new(),
            last: acknowledged,
            acknowledged,
            shift,
            dropped_events: 0,
        };
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .collect();
        paths.sort();
        for path in paths {
            let (segment, last) = open_segment(&path, acknowledged)?;
            spool.last = spool.last.max(last);
            spool.segments.push_back(segment);
        }
        spool.remove_finished_segments()?;
        Ok(spool)
    }

    /// Stores a batch durably and gives its number.
    pub fn append(&mut self, events: u32, body: &[u8]) -> Result<u64> {
        let number = self.last + 1;
        if self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES) {
            let path = self.folder.join(format!("{number:020}.segment"));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            disk::sync_folder_of(&path)?;
            self.segments.push_back(Segment { path, file, bytes: 0, entries: VecDeque::new() });
        }
        let segment = self.segments.back_mut().expect("a segment was just seen to");
        let header = header_of(number, events, body);
        let write = |segment: &Segment| -> std::io::Result<()> {
            segment.file.write_all_at(&header, segment.bytes)?;
            segment.file.write_all_at(body, segment.bytes + HEADER_BYTES as u64)?;
            segment.file.sync_data()
        };
        if let Err(error) = write(segment) {
            // Whatever was written of it must not be taken for a batch later.
            let _ = segment.file.set_len(segment.bytes);
            return Err(error).with_context(|| format!("cannot write {}", segment.path.display()));
        }
        let offset = segment.bytes + HEADER_BYTES as u64;
        segment.entries.push_back(Entry { number, events, offset, length: body.len() });
        segment.bytes = offset + body.len() as u64;
        self.last = number;
        self.drop_oldest_beyond_limit();
        Ok(number)
    }

    /// The oldest batch that is not acknowledged. A record that cannot be read is dropped, counted.
    pub fn front(&mut self) -> Option<Batch> {
        loop {
            let segment = self.segments.iter_mut().find(|segment| !segment.entries.is_empty())?;
            let entry = segment.entries.front()?;
            let mut body = vec![0; entry.length];
            match segment.file.read_exact_at(&mut body, entry.offset) {
                Ok(()) => {
                    let (number, events) = (entry.number, entry.events);
                    return Some(Batch { number, events, body: body.into() });
                }
                Err(error) => {
                    tracing::error!(file = %segment.path.display(), %error, "spooled batch lost");
                    self.dropped_events += u64::from(entry.events);
                    segment.entries.pop_front();
                }
            }
        }
    }

    /// Forgets all batches up to this number.
    pub fn acknowledge(&mut self, number: u64) -> Result<()> {
        if number <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = number;
        for segment in &mut self.segments {
            while segment.entries.front().is_some_and(|entry| entry.number <= number) {
                segment.entries.pop_front();
            }
        }
        write_number(&self.folder.join(ACKNOWLEDGED_FILE), number, false)?;
        self.remove_finished_segments()
    }

    /// The number that a batch carries on the wire.
    pub fn wire_sequence(&self, number: u64) -> u64 {
        number + self.shift
    }

    /// Continues after a number that the server already knows although this spool never gave it out:
    /// the spool was lost or restored from a copy, and the server would take new batches for old.
    pub fn shift_beyond(&mut self, wire_sequence: u64) -> Result<()> {
        let next = self.front().map_or(self.last + 1, |batch| batch.number);
        self.shift = (wire_sequence + 1).saturating_sub(next).max(self.shift);
        write_number(&self.folder.join(SHIFT_FILE), self.shift, true)
    }

    /// Highest wire number given out so far.
    pub fn last_wire_sequence(&self) -> u64 {
        self.last + self.shift
    }

    /// Batches waiting for the server.
    pub fn waiting(&self) -> usize {
        self.segments.iter().map(|segment| segment.entries.len()).sum()
    }

    /// Events dropped since opening.
    pub fn dropped_events(&self) -> u64 {
        self.dropped_events
    }

    fn drop_oldest_beyond_limit(&mut self) {
        while self.segments.len() > 1
            && self.segments.iter().map(|segment| segment.bytes).sum::<u64>() > self.limit
        {
            let segment = self.segments.pop_front().expect("there are at least two");
            let events: u64 = segment.entries.iter().map(|entry| u64::from(entry.events)).sum();
            self.dropped_events += events;
            tracing::warn!(events, "spool is full, oldest events dropped");
            remove(&segment.path);
        }
    }

    /// Removes segments in which everything is acknowledged; the newest stays while it is small.
    fn remove_finished_segments(&mut self) -> Result<()> {
        while let Some(segment) = self.segments.front() {
            let newest = self.segments.len() == 1;
            if !segment.entries.is_empty() || (newest && segment.bytes < SEGMENT_BYTES) {
                return Ok(());
            }
            // From here on only this file knows which numbers were given out.
            write_number(&self.folder.join(ACKNOWLEDGED_FILE), self.acknowledged, true)?;
            remove(&segment.path);
            self.segments.pop_front();
        }
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "cannot remove a finished spool segment");
    }
}

fn header_of(number: u64, events: u32, body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let length = u32::try_from(body.len()).expect("batches are bounded far below 4 GiB");
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&events.to_le_bytes());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    let digest = Sha256::new().chain_update(&header[0..16]).chain_update(body).finalize();
    header[16..24].copy_from_slice(&digest[0..8]);
    header
}

/// Reads a segment's records up to the first that is cut short or damaged, cuts the rest off, and
/// gives the number of the last record.
fn open_segment(path: &Path, acknowledged: u64) -> Result<(Segment, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata()?.len();
    let mut segment = Segment { path: path.to_owned(), file, bytes: 0, entries: VecDeque::new() };
    let mut last = 0;
    let mut header = [0; HEADER_BYTES];
    while segment.bytes + HEADER_BYTES as u64 <= size {
        segment.file.read_exact_at(&mut header, segment.bytes)?;
        let length = u32::from_le_bytes(header[0..4].try_into()?) as usize;
        let offset = segment.bytes + HEADER_BYTES as u64;
        if length > LONGEST_BODY || offset + length as u64 > size {
            break;
        }
        let mut body = vec![0; length];
        segment.file.read_exact_at(&mut body, offset)?;
        let events = u32::from_le_bytes(header[4..8].try_into()?);
        let number = u64::from_le_bytes(header[8..16].try_into()?);
        if header_of(number, events, &body) != header {
            break;
        }
        if number > acknowledged {
            segment.entries.push_back(Entry { number, events, offset, length });
        }
        segment.bytes = offset + length as u64;
        last = number;
    }
    if segment.bytes < size {
        tracing::warn!(
            file = %path.display(),
            bytes = size - segment.bytes,
            "spool segment ends in an unfinished record, cut off"
        );
        segment.file.set_len(segment.bytes)?;
    }
    Ok((segment, last))
}

fn read_number(path: &Path) -> Result<u64> {
    match std::fs::read_to_string(path) {
        // A torn write of this file costs a repeated batch, not the spool.
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn write_number(path: &Path, number: u64, durably: bool) -> Result<()> {
    if durably {
        return disk::write_durably(path, number.to_string().as_bytes());
    }
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(number.to_string().as_bytes())?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
