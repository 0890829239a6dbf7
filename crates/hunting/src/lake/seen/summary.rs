//! A summary's file: format, writing, looking up.
//!
//! `{table}/_seen/{name of the Parquet file}.seen`; names that begin with an underscore are nobody's
//! business but ours (Delta Lake protocol, "File Types").
//!
//! | part | content |
//! |---|---|
//! | head | `VIGSEEN1` |
//! | blocks | one for each thing: kind (1 byte), value and other hash (texts), sightings |
//! | index | for each block by hash: hash (8), offset (8), length (4), CRC-32 (4) |
//! | texts | devices, then names: their number (4), then texts |
//! | tail | offsets of index and texts (8 each), number of blocks (8), CRC-32 of index and texts (4), `VSEE` |
//!
//! Integers are little-endian, a text is its length (4) and its bytes. A sighting is six numbers of
//! seven bits a byte: hours since the one before it, device, name, first time behind the hour's
//! beginning, last time behind the first (microseconds), how many.

use super::super::LakeError;
use super::super::parquet_file::sync_folder;
use super::{Found, HOUR, Thing, Window};
use hashbrown::{HashMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use twox_hash::XxHash64;

const HEAD: &[u8; 8] = b"VIGSEEN1";
const END: &[u8; 4] = b"VSEE";
const TAIL: usize = 32;
const SLOT: usize = 24;

/// The folder of a table's summaries.
pub fn folder(table: &Path) -> PathBuf {
    table.join("_seen")
}

/// Where the summary of a table's Parquet file is.
pub fn path(table: &Path, parquet: &str) -> PathBuf {
    let name = parquet.strip_suffix(".parquet").unwrap_or(parquet);
    folder(table).join(format!("{name}.seen"))
}

/// Texts that are written once.
#[derive(Default)]
pub struct Texts {
    numbers: HashMap<String, u32>,
    all: Vec<String>,
}

impl Texts {
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.numbers.insert(text.to_owned(), number);
        self.all.push(text.to_owned());
        number
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.all.len() as u32).to_le_bytes());
        self.all.iter().for_each(|text| put_text(out, text));
    }
}

/// One thing as it will be written.
pub struct Entry {
    key: (u8, String),
    pub other: String,
    /// The last hour that is in `sightings`.
    pub hour: i64,
    pub sightings: Vec<u8>,
}

impl Entry {
    pub fn new(key: (u8, String)) -> Entry {
        Entry { key, other: String::new(), hour: 0, sightings: Vec::new() }
    }
}

fn hash(key: &(u8, String)) -> u64 {
    XxHash64::oneshot(u64::from(key.0), key.1.as_bytes())
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Writes a summary whole or not at all.
pub fn write(
    path: &Path,
    mut entries: Vec<Entry>,
    devices: &Texts,
    names: &Texts,
) -> Result<(), LakeError> {
    let folder = path.parent().unwrap_or(path);
    let io = |error| LakeError::io(path, error);
    std::fs::create_dir_all(folder).map_err(io)?;
    entries.sort_by_cached_key(|entry| hash(&entry.key));
    let unnamed = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(File::create(&unnamed)?);
        file.write_all(HEAD)?;
        let mut offset = HEAD.len() as u64;
        let mut index = Vec::with_capacity(entries.len() * SLOT);
        for entry in &entries {
            let mut block = vec![entry.key.0];
            put_text(&mut block, &entry.key.1);
            put_text(&mut block, &entry.other);
            block.extend_from_slice(&entry.sightings);
            file.write_all(&block)?;
            index.extend_from_slice(&hash(&entry.key).to_le_bytes());
            index.extend_from_slice(&offset.to_le_bytes());
            index.extend_from_slice(&(block.len() as u32).to_le_bytes());
            index.extend_from_slice(&checksum(&block).to_le_bytes());
            offset += block.len() as u64;
        }
        let texts_offset = offset + index.len() as u64;
        devices.put(&mut index);
        names.put(&mut index);
        file.write_all(&index)?;
        let mut tail = Vec::with_capacity(TAIL);
        tail.extend_from_slice(&offset.to_le_bytes());
        tail.extend_from_slice(&texts_offset.to_le_bytes());
        tail.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        tail.extend_from_slice(&checksum(&index).to_le_bytes());
        tail.extend_from_slice(END);
        file.write_all(&tail)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&unnamed, path)
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&unnamed);
        io(error)
    })?;
    sync_folder(folder)
}

/// A summary on disk whose index was checked. The file is opened for each look: there are many.
pub struct Summary {
    path: PathBuf,
    index: u64,
    texts: u64,
    blocks: u64,
    end: u64,
}

impl Summary {
    /// Errors: [`LakeError::Io`], also where there is none, and [`LakeError::Damaged`].
    pub fn open(path: &Path) -> Result<Summary, LakeError> {
        let io = |error| LakeError::io(path, error);
        let damaged = || LakeError::Damaged {
            path: path.to_owned(),
            reason: "it is no whole summary".to_owned(),
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let end = length.checked_sub(TAIL as u64).ok_or_else(damaged)?;
        let tail = read(&file, end, TAIL).map_err(io)?;
        let mut fields = Fields(&tail);
        let (Some(index), Some(texts), Some(blocks), Some(sum)) =
            (fields.long(), fields.long(), fields.long(), fields.int())
        else {
            return Err(damaged());
        };
        let fits = fields.0 == END
            && read(&file, 0, HEAD.len()).map_err(io)? == HEAD
            && HEAD.len() as u64 <= index
            && index.checked_add(blocks.saturating_mul(SLOT as u64)) == Some(texts)
            && texts <= end;
        if !fits {
            return Err(damaged());
        }
        let checked = read(&file, index, (end - index) as usize).map_err(io)?;
        match checksum(&checked) == sum {
            true => Ok(Summary { path: path.to_owned(), index, texts, blocks, end }),
            false => Err(damaged()),
        }
    }

    /// Adds what the file's rows tell of a thing.
    pub fn look(&self, thing: &Thing, window: &Window, found: &mut Found) -> Result<(), LakeError> {
        let io = |error| LakeError::io(&self.path, error);
        let damaged = || LakeError::Damaged {
            path: self.path.clone(),
            reason: "a block is not as it was written".to_owned(),
        };
        let file = File::open(&self.path).map_err(io)?;
        let key = thing.key();
        let sought = hash(&key);
        let slot = |at: u64| -> Result<(u64, u64, u32, u32), LakeError> {
            let bytes = read(&file, self.index + at * SLOT as u64, SLOT).map_err(io)?;
            let mut fields = Fields(&bytes);
            let slot = (fields.long(), fields.long(), fields.int(), fields.int());
            let (Some(hash), Some(offset), Some(length), Some(sum)) = slot else {
                return Err(damaged());
            };
            Ok((hash, offset, length, sum))
        };
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            match slot(middle)?.0 < sought {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        while low < self.blocks {
            let (hash, offset, length, sum) = slot(low)?;
            if hash != sought {
                break;
            }
            let block = read(&file, offset, length as usize).map_err(io)?;
            if checksum(&block) != sum {
                return Err(damaged());
            }
            let sightings = sightings_of(&block, &key).ok_or_else(damaged)?;
            if let Some((other, sightings)) = sightings {
                let texts = read(&file, self.texts, (self.end - self.texts) as usize);
                let texts = texts.map_err(io)?;
                return add(other, sightings, &texts, window, found).ok_or_else(damaged);
            }
            low += 1;
        }
        Ok(())
    }
}

/// The other hash and the sightings of a block, `Some(None)` if it is another thing's.
fn sightings_of<'b>(block: &'b [u8], key: &(u8, String)) -> Option<Option<(&'b str, &'b [u8])>> {
    let mut fields = Fields(block);
    let kind = fields.bytes(1)?[0];
    let (value, other) = (fields.text()?, fields.text()?);
    Some(((kind, value) == (key.0, key.1.as_str())).then_some((other, fields.0)))
}

/// Adds sightings; `None` if they are not as they should be.
fn add(
    other: &str,
    sightings: &[u8],
    texts: &[u8],
    window: &Window,
    found: &mut Found,
) -> Option<()> {
    let mut fields = Fields(sightings);
    let (mut hour, mut devices) = (0_i64, HashSet::new());
    let mut names: HashMap<u32, u64> = HashMap::new();
    while !fields.0.is_empty() {
        hour = hour.wrapping_add(fields.number()?.cast_signed());
        let (device, name) = (fields.number()? as u32, fields.number()? as u32);
        let first = hour.saturating_mul(HOUR).wrapping_add(fields.number()?.cast_signed());
        let last = first.wrapping_add(fields.number()?.cast_signed());
        let times = fields.number()?;
        if window.holds(last) {
            found.see(first, last, times);
            devices.insert(device);
            *names.entry(name).or_insert(0) += times;
        }
    }
    if devices.is_empty() {
        return Some(());
    }
    found.other(other);
    let mut texts = Fields(texts);
    for number in 0..texts.int()? {
        let device = texts.text()?;
        if devices.contains(&number) {
            found.device(device);
        }
    }
    for number in 0..texts.int()? {
        let name = texts.text()?;
        if let Some(times) = names.get(&number) {
            found.name(name, *times);
        }
    }
    Some(())
}

fn read(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Bytes that are read from the front.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn int(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = self.int()? as usize;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
