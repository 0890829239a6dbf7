//! Records of `utmp`, `wtmp` and `btmp` (utmp(5)): 384 bytes each on every Linux of glibc with the
//! 32-bit times that it kept for compatibility.

use chrono::{DateTime, Utc};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

pub const RECORD_BYTES: usize = 384;
const USER_PROCESS: i16 = 7;
const LOGIN_PROCESS: i16 = 6;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub kind: i16,
    pub pid: u32,
    /// Terminal, like `pts/0`.
    pub line: String,
    pub user: String,
    /// Remote host as the program that wrote the record knew it.
    pub host: String,
    pub address: Option<IpAddr>,
    pub session: u32,
    pub at: DateTime<Utc>,
}

impl Record {
    pub fn is_user(&self) -> bool {
        self.kind == USER_PROCESS && !self.user.is_empty()
    }

    /// `btmp` holds failed attempts, which some programs write with the type of a login process.
    pub fn is_attempt(&self) -> bool {
        matches!(self.kind, USER_PROCESS | LOGIN_PROCESS) && !self.user.is_empty()
    }

    pub fn is_remote(&self) -> bool {
        self.address.is_some_and(|address| !address.is_unspecified())
    }
}

/// The records from this byte on; an unfinished one at the end is left for later.
pub fn records(path: &Path, from: u64) -> std::io::Result<Vec<Record>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(16 * 1024 * 1024).read_to_end(&mut bytes)?;
    Ok(bytes.chunks_exact(RECORD_BYTES).filter_map(parse).collect())
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let number = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let text = |at: usize, length: usize| {
        let field = bytes.get(at..at + length)?;
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(length);
        Some(String::from_utf8_lossy(&field[..end]).into_owned())
    };
    let address: [u8; 16] = bytes.get(348..364)?.try_into().ok()?;
    let address = if address[4..] == [0; 12] {
        IpAddr::from(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    } else {
        Ipv6Addr::from(address).to_canonical()
    };
    let micros = i64::from(number(340)?) * 1_000_000 + i64::from(number(344)?);
    Some(Record {
        kind: i16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?),
        pid: u32::try_from(number(4)?).ok()?,
        line: text(8, 32)?,
        user: text(44, 32)?,
        host: text(76, 256)?,
        session: number(336)? as u32,
        at: DateTime::from_timestamp_micros(micros)?,
        address: (!address.is_unspecified()).then_some(address),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record as `login` writes it.
    pub fn record(user: &str, address: [u8; 4], seconds: i32) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_BYTES];
        bytes[0..2].copy_from_slice(&USER_PROCESS.to_ne_bytes());
        bytes[4..8].copy_from_slice(&77i32.to_ne_bytes());
        bytes[8..13].copy_from_slice(b"pts/3");
        bytes[44..44 + user.len()].copy_from_slice(user.as_bytes());
        bytes[340..344].copy_from_slice(&seconds.to_ne_bytes());
        bytes[348..352].copy_from_slice(&address);
        bytes
    }

    #[test]
    fn records_are_read_and_the_unfinished_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wtmp");
        let mut bytes = record("ada", [192, 0, 2, 7], 1_000_000_000);
        bytes.extend(record("bob", [0; 4], 1_000_000_001));
        bytes.extend([7; 100]);
        std::fs::write(&path, bytes).unwrap();
        let found = records(&path, 0).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].user.as_str(), found[0].line.as_str()), ("ada", "pts/3"));
        assert_eq!(found[0].address, Some("192.0.2.7".parse().unwrap()));
        assert!(found[0].is_remote() && !found[1].is_remote());
        assert_eq!(records(&path, RECORD_BYTES as u64).unwrap()[0].user, "bob");
    }
}
