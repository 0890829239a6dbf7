//! Columns that name files, addresses and hosts.

use super::super::shape::Shape;
use super::Thing;
use memchr::{memchr, memchr_iter, memchr3, memrchr};
use std::net::IpAddr;

/// Files of the row's own, and of the process that did it: both hashes and the name.
const FILES: &[[&str; 3]] = &[
    ["SHA1", "SHA256", "FileName"],
    ["InitiatingProcessSHA1", "InitiatingProcessSHA256", "InitiatingProcessFileName"],
];

/// What a column names; the number stands in files.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
pub enum Kind {
    Sha1 = 1,
    Sha256 = 2,
    Address = 3,
    /// The host of a URL, or a bare name.
    Host = 4,
}

/// One column of a table, by place.
#[derive(Clone, Debug)]
pub struct Source {
    pub column: usize,
    pub kind: Kind,
    /// The file's name.
    pub name: Option<usize>,
    /// The file's hash of the other kind.
    pub other: Option<usize>,
}

impl Source {
    /// What the column's text names.
    pub fn thing(&self, text: &str) -> Option<Thing> {
        if text.is_empty() {
            return None;
        }
        match self.kind {
            Kind::Sha1 => Some(Thing::Sha1(text.to_ascii_lowercase())),
            Kind::Sha256 => Some(Thing::Sha256(text.to_ascii_lowercase())),
            Kind::Address => {
                let address = text.parse::<IpAddr>().ok()?;
                Some(Thing::Address(address.to_canonical()))
            }
            Kind::Host => host_of(text).map(|host| Thing::Host(host.to_lowercase())),
        }
    }

    /// Whether the column's text names the thing: [`Source::thing`] without a copy of the text.
    pub fn names(&self, text: &str, thing: &Thing) -> bool {
        match (self.kind, thing) {
            (Kind::Sha1, Thing::Sha1(hash)) | (Kind::Sha256, Thing::Sha256(hash)) => {
                text.eq_ignore_ascii_case(hash)
            }
            (Kind::Host, Thing::Host(sought)) => host_of(text).is_some_and(|host| {
                host.eq_ignore_ascii_case(sought)
                    || (!host.is_ascii() && host.to_lowercase() == *sought)
            }),
            (Kind::Address, Thing::Address(_)) => self.thing(text).as_ref() == Some(thing),
            _ => false,
        }
    }
}

/// The columns of a table that name things.
pub fn of(shape: &Shape) -> Vec<Source> {
    let mut sources = Vec::new();
    for [sha1, sha256, name] in FILES {
        let (sha1, sha256) = (shape.column(sha1), shape.column(sha256));
        let name = shape.column(name);
        for (kind, column, other) in [(Kind::Sha1, sha1, sha256), (Kind::Sha256, sha256, sha1)] {
            sources.extend(column.map(|column| Source { column, kind, name, other }));
        }
    }
    for (kind, column) in [(Kind::Address, "RemoteIP"), (Kind::Host, "RemoteUrl")] {
        let column = shape.column(column);
        sources.extend(column.map(|column| Source { column, kind, name: None, other: None }));
    }
    sources
}

/// The columns that [`of`] needs, with time and device.
pub fn columns(shape: &Shape) -> Vec<usize> {
    let mut columns: Vec<usize> = shape.timestamp.into_iter().chain(shape.device_id).collect();
    for source in of(shape) {
        columns.extend([Some(source.column), source.name, source.other].into_iter().flatten());
    }
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// The host of `scheme://user@host:port/path` or any part of it, as it is written there but for dots
/// at its end and brackets around an IPv6 address; `None` where there is none.
pub fn host_of(url: &str) -> Option<&str> {
    // Every URL that arrives passes here, so bytes are looked for, not characters.
    let scheme = memchr_iter(b':', url.as_bytes()).find(|at| url[at + 1..].starts_with("//"));
    let rest = scheme.map_or(url, |at| &url[at + 3..]);
    let rest = memchr3(b'/', b'?', b'#', rest.as_bytes()).map_or(rest, |end| &rest[..end]);
    let host = memrchr(b'@', rest.as_bytes()).map_or(rest, |at| &rest[at + 1..]);
    let (host, end) = match host.strip_prefix('[') {
        Some(address) => (address, b']'),
        None => (host, b':'),
    };
    let host = memchr(end, host.as_bytes()).map_or(host, |end| &host[..end]);
    let host = host.trim_end_matches('.');
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_host() {
        for (url, expected) in [
            ("https://Bad.Example/x?y=//z", Some("Bad.Example")),
            ("bad.example", Some("bad.example")),
            ("bad.example.:8080", Some("bad.example")),
            ("ftp://me:secret@bad.example:21/", Some("bad.example")),
            ("https://[2001:db8::1]:80/", Some("2001:db8::1")),
            ("bad.example:x", Some("bad.example")),
            (".", None),
            ("https:///path", None),
            ("", None),
        ] {
            assert_eq!(host_of(url), expected, "{url}");
        }
    }
}
