//! The write-ahead log's files: format, reading, salvage.
//!
//! A log is a folder of segments `{number:016x}.wal`. A segment is the 16-byte head `VIGIEWAL` +
//! number, then records, then zeros (the file is allocated ahead, so that a sync writes no metadata):
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `VREC` |
//! | 4 | payload length |
//! | 4 | CRC-32 over segment number, offset of this record, group offset, payload |
//! | 8 | group offset: where the write that one sync covered begins in this file |
//! | n | payload |
//!
//! Integers are little-endian. The first record is a [`Payload::Snapshot`], every other a
//! [`Payload::Batch`]. The group offset tells a torn last write (cut without regret: nobody was
//! told that it is stored) from damage to acknowledged records: a group is written only after the
//! sync of the one before, so a whole record of a later group proves that the bad one was durable.

use super::LakeError;
use bytes::Bytes;
use hashbrown::HashMap;
use rustix::fs::SeekFrom;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const FILE_MAGIC: &[u8; 8] = b"VIGIEWAL";
const RECORD_MAGIC: &[u8; 4] = b"VREC";
/// Length of the head of a segment file.
pub const HEAD: u64 = 16;
const RECORD_HEAD: usize = 20;

/// Highest batch number stored, by tenant and source.
pub type Sequences = HashMap<(Uuid, String), u64>;

/// One acknowledged batch as logged.
#[derive(Debug, PartialEq)]
pub struct BatchRecord {
    pub tenant: Uuid,
    pub source: String,
    pub sequence: u64,
    /// When the lake took it, microseconds since the Unix epoch.
    pub ingested_micros: i64,
    pub constants: Vec<(String, String)>,
    /// The JSON text, decompressed.
    pub body: Bytes,
}

#[derive(Debug)]
pub enum Payload {
    Snapshot(Sequences),
    Batch(BatchRecord),
}

/// What reading a segment gave.
#[derive(Debug, Default)]
pub struct Segment {
    pub payloads: Vec<Payload>,
    /// Damage to records that had been acknowledged, each with file and offset.
    pub damage: Vec<String>,
}

pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.wal"))
}

/// Numbers of the segments in the folder, ascending.
pub fn segments(folder: &Path) -> Result<Vec<u64>, LakeError> {
    let mut numbers = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| LakeError::io(folder, error))?;
    for entry in entries {
        let name = entry.map_err(|error| LakeError::io(folder, error))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".wal"));
        numbers.extend(number.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The first bytes of a segment file.
pub fn head(number: u64) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(FILE_MAGIC);
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

/// Appends a record to `group`, which will be written at `group_offset` of segment `number`.
pub fn frame(group: &mut Vec<u8>, number: u64, group_offset: u64, payload: &[u8]) {
    let offset = group_offset + group.len() as u64;
    group.extend_from_slice(RECORD_MAGIC);
    group.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    group.extend_from_slice(&checksum(number, offset, group_offset, payload).to_le_bytes());
    group.extend_from_slice(&group_offset.to_le_bytes());
    group.extend_from_slice(payload);
}

/// Size of a payload once framed.
pub fn framed_len(payload: &[u8]) -> usize {
    RECORD_HEAD + payload.len()
}

fn checksum(number: u64, offset: u64, group_offset: u64, payload: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    for value in [number, offset, group_offset] {
        crc.update(&value.to_le_bytes());
    }
    crc.update(payload);
    crc.sum()
}

/// A batch as a record's payload, its body compressed.
pub fn encode_batch(batch: &BatchRecord) -> Result<Vec<u8>, LakeError> {
    let compressed = zstd::bulk::compress(&batch.body, 1)
        .map_err(|error| LakeError::Malformed { reason: format!("compression: {error}") })?;
    let mut out = Vec::with_capacity(compressed.len() + 256);
    out.push(1);
    out.extend_from_slice(batch.tenant.as_bytes());
    out.extend_from_slice(&batch.sequence.to_le_bytes());
    out.extend_from_slice(&batch.ingested_micros.to_le_bytes());
    put_text(&mut out, &batch.source);
    out.extend_from_slice(&(batch.constants.len() as u32).to_le_bytes());
    for (name, value) in &batch.constants {
        put_text(&mut out, name);
        put_text(&mut out, value);
    }
    out.extend_from_slice(&(batch.body.len() as u32).to_le_bytes());
    out.extend_from_slice(&compressed);
    Ok(out)
}

/// The batch numbers as a record's payload.
pub fn encode_snapshot(sequences: &Sequences) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(sequences.len() as u32).to_le_bytes());
    for ((tenant, source), sequence) in sequences {
        out.extend_from_slice(tenant.as_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        put_text(&mut out, source);
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads what is left of a segment. A torn tail is cut with a warning in the log; damage to
/// acknowledged records is reported, and the records around it are still returned.
pub fn read(path: &Path, number: u64) -> Result<Segment, LakeError> {
    let bytes = written(path).map_err(|error| LakeError::io(path, error))?;
    let mut segment = Segment::default();
    if bytes.len() < HEAD as usize || bytes[..HEAD as usize] != head(number) {
        segment.damage.push(format!("{}: offset 0: not the head of a log segment", path.display()));
    }
    let mut offset = HEAD as usize;
    while offset < bytes.len() {
        match record(&bytes, number, offset).and_then(|(_, payload)| decode(payload)) {
            Some(payload) => {
                offset += RECORD_HEAD + record_len(&bytes, offset);
                segment.payloads.push(payload);
            }
            None if bytes[offset..].iter().all(|byte| *byte == 0) => break,
            None => {
                let next = next_record(&bytes, number, offset + 1);
                match next {
                    Some((at, group_offset)) if group_offset > offset as u64 => {
                        segment.damage.push(format!(
                            "{}: offset {offset}: {} bytes of acknowledged records are damaged",
                            path.display(),
                            at - offset
                        ));
                        offset = at;
                    }
                    _ => {
                        tracing::warn!(
                            file = %path.display(),
                            offset,
                            "log ends in an incomplete record, which was never acknowledged; cut there"
                        );
                        break;
                    }
                }
            }
        }
    }
    Ok(segment)
}

/// A file's bytes up to the last that was ever written: behind them it is allocated, zero, and not
/// worth the reading.
fn written(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let mut end = 0;
    // Without support by the file system the whole file counts as data.
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(end)) {
        end = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
    }
    file.rewind()?;
    let mut bytes = Vec::with_capacity(end as usize);
    file.take(end).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn record_len(bytes: &[u8], offset: usize) -> usize {
    u32::from_le_bytes(bytes[offset + 4..offset + 8].try_into().expect("4 bytes")) as usize
}

/// Group offset and payload of the whole record at `offset`.
fn record(bytes: &[u8], number: u64, offset: usize) -> Option<(u64, &[u8])> {
    let head = bytes.get(offset..offset + RECORD_HEAD)?;
    if &head[..4] != RECORD_MAGIC {
        return None;
    }
    let expected = u32::from_le_bytes(head[8..12].try_into().ok()?);
    let group_offset = u64::from_le_bytes(head[12..20].try_into().ok()?);
    let start = offset + RECORD_HEAD;
    let payload = bytes.get(start..start.checked_add(record_len(bytes, offset))?)?;
    (checksum(number, offset as u64, group_offset, payload) == expected)
        .then_some((group_offset, payload))
}

/// The first whole record at or after `from` that belongs to a group beginning at or after `from`,
/// else the first whole record at all.
fn next_record(bytes: &[u8], number: u64, from: usize) -> Option<(usize, u64)> {
    let mut first = None;
    for at in memchr_iter(bytes, from) {
        if let Some((group_offset, _)) = record(bytes, number, at) {
            if group_offset >= from as u64 {
                // Whole records of the damaged group that follow the damage are worth keeping too.
                return Some((first.map_or(at, |(at, _)| at), group_offset));
            }
            first = first.or(Some((at, group_offset)));
        }
    }
    first
}

fn memchr_iter(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> + '_ {
    let tail = bytes.get(from..).unwrap_or_default();
    (tail.windows(4).enumerate())
        .filter_map(move |(at, four)| (four == RECORD_MAGIC).then_some(from + at))
}

fn decode(payload: &[u8]) -> Option<Payload> {
    let mut input = Input { bytes: payload };
    match input.take(1)? {
        [0] => {
            let count = input.u32()?;
            let mut sequences = Sequences::new();
            for _ in 0..count {
                let tenant = input.uuid()?;
                let sequence = input.u64()?;
                sequences.insert((tenant, input.text()?), sequence);
            }
            Some(Payload::Snapshot(sequences))
        }
        [1] => {
            let tenant = input.uuid()?;
            let sequence = input.u64()?;
            let ingested_micros = input.u64()?.cast_signed();
            let source = input.text()?;
            let constants = (0..input.u32()?)
                .map(|_| Some((input.text()?, input.text()?)))
                .collect::<Option<_>>()?;
            let length = input.u32()? as usize;
            let body = zstd::bulk::decompress(input.bytes, length).ok()?.into();
            Some(Payload::Batch(BatchRecord {
                tenant,
                source,
                sequence,
                ingested_micros,
                constants,
                body,
            }))
        }
        _ => None,
    }
}

struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn uuid(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(16)?).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}
