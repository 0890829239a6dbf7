//! A tenant's indicators, prepared for the values of arriving rows. A crate of its own because every
//! value that arrives goes through it: it is built for speed, the API's features for the wait.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use vigie_hunting::lake::{Watch, host_of};

/// An indicator that raises alerts.
#[derive(Clone, Debug)]
pub struct Sought {
    pub id: i64,
    pub ty: String,
    pub sought: String,
    pub title: String,
    pub description: String,
    pub severity: String,
    pub recommended_actions: String,
    /// Microseconds since the Unix epoch.
    pub expires: Option<i64>,
    /// Names of device groups; empty for all machines.
    pub groups: Vec<String>,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hash,
    Thumbprint,
    Address,
    Url,
}

/// Columns that are looked at and what they hold.
const COLUMNS: &[&str] = &[
    "SHA1",
    "SHA256",
    "MD5",
    "InitiatingProcessSHA1",
    "InitiatingProcessSHA256",
    "InitiatingProcessMD5",
    "SignerHash",
    "RemoteIP",
    "FileOriginIP",
    "RemoteUrl",
    "FileOriginUrl",
];
const KINDS: &[Kind] = &[
    Kind::Hash,
    Kind::Hash,
    Kind::Hash,
    Kind::Hash,
    Kind::Hash,
    Kind::Hash,
    Kind::Thumbprint,
    Kind::Address,
    Kind::Address,
    Kind::Url,
    Kind::Url,
];

/// Sets of a tenant's sought values; each leads to the places of its indicators.
#[derive(Default)]
pub struct Watchlist {
    indicators: Vec<Sought>,
    hashes: HashMap<String, usize, ahash::RandomState>,
    thumbprints: HashMap<String, usize, ahash::RandomState>,
    addresses: HashMap<IpAddr, usize, ahash::RandomState>,
    /// Networks by the length of their prefix.
    networks: Vec<(bool, u8, HashMap<IpAddr, usize, ahash::RandomState>)>,
    domains: HashMap<String, usize, ahash::RandomState>,
    urls: HashMap<String, usize, ahash::RandomState>,
    /// Hosts of the sought URLs: of plainly written URLs, only those of these are taken apart.
    hosts: HashSet<String, ahash::RandomState>,
    /// One bit for each beginning of a hash, set where one is sought: most hashes are none of them.
    beginnings: Vec<u64>,
}

/// Digits of a hash that are looked at first.
const BEGINNING: usize = 5;

/// The number of a hash's first digits; `None` for what is no hash.
fn beginning(hash: &str) -> Option<usize> {
    let digits = hash.as_bytes().get(..BEGINNING)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as usize);
    digits.iter().try_fold(0, |number, byte| Some(number << 4 | digit(byte)?))
}

impl Watchlist {
    pub fn new(indicators: Vec<Sought>) -> Watchlist {
        let mut list = Watchlist::default();
        for (at, indicator) in indicators.iter().enumerate() {
            let value = indicator.sought.clone();
            match indicator.ty.as_str() {
                "FileSha1" | "FileSha256" | "FileMd5" => {
                    if let Some(beginning) = beginning(&value) {
                        list.beginnings.resize(1 << (4 * BEGINNING - 6), 0);
                        list.beginnings[beginning / 64] |= 1 << (beginning % 64);
                    }
                    list.hashes.insert(value, at);
                }
                "CertificateThumbprint" => {
                    list.thumbprints.insert(value, at);
                }
                "DomainName" => {
                    list.domains.insert(value, at);
                }
                "Url" => {
                    list.hosts.insert(host(&value).into_owned());
                    list.urls.insert(value, at);
                }
                _ => list.add_address(&value, at),
            }
        }
        list.indicators = indicators;
        list
    }

    fn add_address(&mut self, value: &str, at: usize) {
        if let Ok(address) = value.parse::<IpAddr>() {
            self.addresses.insert(address, at);
        } else if let Ok(network) = value.parse::<ipnet::IpNet>() {
            let key = (network.addr().is_ipv4(), network.prefix_len());
            let found = self.networks.iter().position(|(v4, length, _)| (*v4, *length) == key);
            let place = found.unwrap_or_else(|| {
                self.networks.push((key.0, key.1, HashMap::default()));
                self.networks.len() - 1
            });
            self.networks[place].2.insert(network.trunc().addr(), at);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.indicators.is_empty()
    }

    /// The indicator that a value of the column at that place is sought by.
    pub fn find(&self, column: usize, value: &str) -> Option<&Sought> {
        let place = match KINDS.get(column)? {
            Kind::Hash => self.find_hash(value),
            Kind::Thumbprint => self.thumbprints.get(&value.to_ascii_lowercase()).copied(),
            Kind::Address => self.find_address(value),
            Kind::Url => self.find_url(value),
        };
        self.indicators.get(place?)
    }

    fn find_hash(&self, value: &str) -> Option<usize> {
        let beginning = beginning(value)?;
        if self.beginnings.get(beginning / 64)? & 1 << (beginning % 64) == 0 {
            return None;
        }
        match value.bytes().any(|byte| byte.is_ascii_uppercase()) {
            false => self.hashes.get(value).copied(),
            true => self.hashes.get(&value.to_ascii_lowercase()).copied(),
        }
    }

    fn find_address(&self, value: &str) -> Option<usize> {
        if self.addresses.is_empty() && self.networks.is_empty() {
            return None;
        }
        let address = value.parse::<IpAddr>().ok()?.to_canonical();
        if let Some(at) = self.addresses.get(&address) {
            return Some(*at);
        }
        self.networks.iter().find_map(|(v4, length, networks)| {
            let fits = *v4 == address.is_ipv4();
            let network = fits.then(|| ipnet::IpNet::new(address, *length).ok()).flatten()?;
            networks.get(&network.trunc().addr()).copied()
        })
    }

    /// A URL, each path above it, then its host and each domain above that.
    fn find_url(&self, value: &str) -> Option<usize> {
        if self.hosts.is_empty() && self.domains.is_empty() {
            return None;
        }
        let host = host(value);
        // How others are written says nothing of the host that they lead to.
        let may_be_sought = !self.hosts.is_empty()
            && (self.hosts.contains(host.as_ref())
                || !is_plain(&host)
                || memchr::memchr(b'\\', value.as_bytes()).is_some());
        if may_be_sought && let Some(full) = url(value) {
            let mut path = full.as_str();
            loop {
                if let Some(at) = self.urls.get(path) {
                    return Some(*at);
                }
                match path.rfind(['/', '?', '#']) {
                    Some(end) if end > 0 => path = &path[..end],
                    _ => break,
                }
            }
        }
        let mut domain = host.as_ref();
        loop {
            if let Some(at) = self.domains.get(domain) {
                return Some(*at);
            }
            domain = &domain[memchr::memchr(b'.', domain.as_bytes())? + 1..];
        }
    }
}

/// The host of a URL or any part of it in lower case; empty where there is none.
fn host(url: &str) -> Cow<'_, str> {
    let host = host_of(url).unwrap_or_default();
    // Names that are not ASCII have their lower case too.
    match host.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        true => host.to_lowercase().into(),
        false => host.into(),
    }
}

/// Whether a host is a name that stays as it is when a URL is brought into its one form: letters,
/// digits and their like, and no number at the end, which would be an address.
fn is_plain(host: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
    let last = host.rsplit('.').next().unwrap_or_default();
    host.bytes().all(plain) && last.starts_with(|letter: char| letter.is_ascii_lowercase())
}

impl Watch for Watchlist {
    fn columns(&self) -> &[&'static str] {
        COLUMNS
    }

    fn seeks(&self, column: usize, value: &str) -> bool {
        self.find(column, value).is_some()
    }
}

/// A URL in the form in which it is compared: without its scheme, the host in lower case, without a
/// slash at the end. `None` for what is no URL of the web.
pub fn url(text: &str) -> Option<String> {
    let text = text.trim();
    let with_scheme = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let parsed = url::Url::parse(&with_scheme).ok()?;
    if !matches!(parsed.scheme(), "http" | "https" | "ftp") {
        return None;
    }
    let host = parsed.host_str().filter(|host| host.contains(['.', ':']))?;
    let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
    let query = parsed.query().map_or_else(String::new, |query| format!("?{query}"));
    let path = parsed.path();
    let path = if query.is_empty() { path.trim_end_matches('/') } else { path };
    Some(format!("{host}{port}{path}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[(&str, &str)]) -> Watchlist {
        let sought = |(at, (ty, value)): (usize, &(&str, &str))| Sought {
            id: at as i64,
            ty: (*ty).to_owned(),
            sought: (*value).to_owned(),
            title: String::new(),
            description: String::new(),
            severity: "Low".to_owned(),
            recommended_actions: String::new(),
            expires: None,
            groups: Vec::new(),
        };
        Watchlist::new(values.iter().enumerate().map(sought).collect())
    }

    fn column(name: &str) -> usize {
        COLUMNS.iter().position(|column| *column == name).expect("a column")
    }

    #[test]
    fn values_are_found_in_their_columns() {
        let hash = "0991a395da64e1c5fbe8732ed11e6be064081d9f";
        let list = list(&[
            ("FileSha1", hash),
            ("IpAddress", "192.0.2.7"),
            ("IpAddress", "198.51.100.0/24"),
            ("IpAddress", "2001:db8::/32"),
            ("DomainName", "bad.example"),
            ("Url", "evil.example/a/b"),
            ("CertificateThumbprint", "1111111111111111111111111111111111111111"),
            ("Url", "xn--bcher-kva.example/a"),
            ("Url", "127.0.0.1"),
            ("Url", "[2001:db8::1]/a"),
        ]);
        for (name, value, found) in [
            ("SHA1", hash.to_uppercase().as_str(), Some(0)),
            ("InitiatingProcessSHA1", hash, Some(0)),
            ("SHA1", "0991a395da64e1c5fbe8732ed11e6be064081d90", None),
            ("SignerHash", hash, None),
            ("SignerHash", "1111111111111111111111111111111111111111", Some(6)),
            ("RemoteIP", "192.0.2.7", Some(1)),
            ("RemoteIP", "::ffff:192.0.2.7", Some(1)),
            ("RemoteIP", "198.51.100.99", Some(2)),
            ("RemoteIP", "198.51.101.99", None),
            ("RemoteIP", "2001:db8:1::1", Some(3)),
            ("RemoteIP", "not an address", None),
            ("RemoteUrl", "bad.example", Some(4)),
            ("RemoteUrl", "https://www.BAD.example:8443/x", Some(4)),
            ("RemoteUrl", "notbad.example", None),
            ("RemoteUrl", "http://evil.example/a/b/", Some(5)),
            ("RemoteUrl", "https://evil.example/a/b/c?d=e", Some(5)),
            ("RemoteUrl", "https://evil.example/a/bc", None),
            ("RemoteUrl", "https://bücher.example/a", Some(7)),
            ("RemoteUrl", r"https://evil.example\a\b", Some(5)),
            ("RemoteUrl", r"https://evil.example\a\b\@other.example/", Some(5)),
            ("RemoteUrl", "http://0x7f.1/", Some(8)),
            ("RemoteUrl", "https://[2001:DB8:0:0::1]/a", Some(9)),
            ("RemoteUrl", "https://[2001:db8::2]/a", None),
        ] {
            let id = list.find(column(name), value).map(|found| found.id);
            assert_eq!(id, found, "{name} {value}");
        }
    }

    #[test]
    fn urls_have_one_form() {
        for (text, form) in [
            ("HTTP://Example.COM/", "example.com"),
            ("example.com/Path/", "example.com/Path"),
            ("https://example.com:8443/a?b=c", "example.com:8443/a?b=c"),
        ] {
            assert_eq!(url(text).as_deref(), Some(form), "{text}");
        }
        for bad in ["", "nothing", "javascript:alert(1)", "http://"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
