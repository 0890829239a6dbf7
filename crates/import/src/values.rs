//! Value rules: how single values are written in hunting tables.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 3339, or Sysmon's `2020-10-12 22:32:46.069` which is UTC.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let text = text.strip_suffix('Z').unwrap_or(text);
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| time.and_utc())
}

/// UTC with 100 ns digits and Z.
pub fn format_time(time: DateTime<Utc>) -> String {
    let text = time.to_rfc3339_opts(SecondsFormat::Nanos, true);
    // Nanoseconds have nine digits, Kusto's ticks seven.
    match text.len() {
        30 => format!("{}Z", &text[..27]),
        _ => text,
    }
}

/// Decimal or `0x` hexadecimal.
pub fn parse_number(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|number| number as i64),
        None => text.parse().ok(),
    }
}

/// Last element of a Windows or Unix path.
pub fn file_name(path: &str) -> &str {
    path.rsplit(['\\', '/']).next().unwrap_or(path)
}

/// `DOMAIN\name` → domain, name; without a domain only the name.
pub fn split_user(user: &str) -> (&str, &str) {
    user.split_once('\\').unwrap_or(("", user))
}

/// `SHA1=…,MD5=…,SHA256=…,IMPHASH=…` → name in upper case, value in lower case.
pub fn hashes(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split(',').filter_map(|part| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_ascii_uppercase(), value.trim().to_ascii_lowercase()))
    })
}

/// Windows logon type number → its name.
pub fn logon_type(number: &str) -> &'static str {
    match number {
        "2" => "Interactive",
        "3" => "Network",
        "4" => "Batch",
        "5" => "Service",
        "7" => "Unlock",
        "8" => "NetworkCleartext",
        "9" => "NewCredentials",
        "10" => "RemoteInteractive",
        "11" => "CachedInteractive",
        _ => "Unknown",
    }
}

/// NTSTATUS of a failed logon → reason; the code itself where it has no name.
pub fn failure_reason(status: &str) -> String {
    let name = match status.to_ascii_lowercase().as_str() {
        "0xc0000064" => "UnknownUser",
        "0xc000006a" | "0xc000006d" => "InvalidUserNameOrPassword",
        "0xc0000072" => "AccountDisabled",
        "0xc0000234" => "AccountLockedOut",
        "0xc0000193" => "AccountExpired",
        "0xc0000071" => "PasswordExpired",
        _ => status,
    };
    name.to_owned()
}

/// IANA protocol number → name with a capital first letter.
pub fn protocol_number(number: &str) -> String {
    match number {
        "1" => "Icmp".to_owned(),
        "6" => "Tcp".to_owned(),
        "17" => "Udp".to_owned(),
        "58" => "IcmpV6".to_owned(),
        other => other.to_owned(),
    }
}

/// `tcp` → `Tcp`.
pub fn protocol(name: &str) -> String {
    let mut characters = name.chars();
    match characters.next() {
        Some(first) => {
            first.to_uppercase().chain(characters.flat_map(char::to_lowercase)).collect()
        }
        None => String::new(),
    }
}

/// `HKLM\…`, `\REGISTRY\MACHINE\…` → `HKEY_LOCAL_MACHINE\…`.
pub fn registry_key(path: &str) -> String {
    const HIVES: &[(&str, &str)] = &[
        ("\\REGISTRY\\MACHINE", "HKEY_LOCAL_MACHINE"),
        ("\\REGISTRY\\USER", "HKEY_USERS"),
        ("HKLM", "HKEY_LOCAL_MACHINE"),
        ("HKU", "HKEY_USERS"),
        ("HKCU", "HKEY_CURRENT_USER"),
        ("HKCR", "HKEY_CLASSES_ROOT"),
    ];
    for (short, long) in HIVES {
        if let Some(start) = path.get(..short.len())
            && start.eq_ignore_ascii_case(short)
            && (path.len() == short.len() || path.as_bytes()[short.len()] == b'\\')
        {
            return format!("{long}{}", &path[short.len()..]);
        }
    }
    path.to_owned()
}

/// Sysmon's text of a registry value → data and type.
pub fn registry_data(details: &str) -> (String, &'static str) {
    let inner = |prefix: &str| details.strip_prefix(prefix)?.strip_suffix(')');
    if let Some(hex) = inner("DWORD (") {
        return (parse_number(hex).map_or(details.to_owned(), |n| n.to_string()), "Dword");
    }
    if let Some(hex) = inner("QWORD (") {
        // Sysmon writes the halves apart: `0x00000001-0x00000002`.
        let (high, low) = hex.split_once('-').unwrap_or(("0x0", hex));
        return match (parse_number(high), parse_number(low)) {
            (Some(high), Some(low)) => (((high << 32) | low).to_string(), "Qword"),
            _ => (details.to_owned(), "Qword"),
        };
    }
    match details {
        "Binary Data" => (String::new(), "Binary"),
        "(Empty)" => (String::new(), "String"),
        text if text.contains('%') => (text.to_owned(), "ExpandString"),
        text => (text.to_owned(), "String"),
    }
}

/// Kind of an address, from the address alone.
pub fn ip_type(address: &str) -> &'static str {
    match address.parse() {
        Ok(IpAddr::V4(address)) => ipv4_type(address),
        Ok(IpAddr::V6(address)) => ipv6_type(address),
        Err(_) => "",
    }
}

fn ipv4_type(address: Ipv4Addr) -> &'static str {
    match address {
        a if a.is_loopback() => "Loopback",
        a if a.is_private() => "Private",
        a if a.is_link_local() => "LinkLocal",
        a if a.is_broadcast() => "Broadcast",
        a if a.is_multicast() => "Multicast",
        a if a.octets()[0] == 0 || a.octets()[0] >= 240 => "Reserved",
        _ => "Public",
    }
}

fn ipv6_type(address: Ipv6Addr) -> &'static str {
    let first = address.segments()[0];
    match address {
        a if a.to_ipv4_mapped().is_some() => "FourToSixMapping",
        a if a.is_loopback() => "Loopback",
        a if a.is_multicast() => "Multicast",
        a if a.is_unspecified() => "Reserved",
        _ if first & 0xffc0 == 0xfe80 => "LinkLocal",
        _ if first & 0xfe00 == 0xfc00 => "Private",
        a if first == 0x2001 && a.segments()[1] == 0 => "Teredo",
        _ => "Public",
    }
}

/// Sysmon's `type:  5 host;::ffff:1.2.3.4;` → list of records.
pub fn dns_results(text: &str) -> Value {
    let results = text.split(';').filter(|part| !part.trim().is_empty()).map(|part| {
        let (kind, result) = match part.trim().strip_prefix("type:") {
            Some(rest) => match rest.trim_start().split_once(char::is_whitespace) {
                Some((kind, result)) => (kind.trim(), result.trim()),
                None => (rest.trim(), ""),
            },
            None => match part.trim().strip_prefix("::ffff:") {
                Some(v4) => ("A", v4),
                None if part.contains(':') => ("AAAA", part.trim()),
                None => ("A", part.trim()),
            },
        };
        serde_json::json!({"DnsQueryType": kind, "Result": result})
    });
    Value::Array(results.collect())
}

/// `TokenElevationType` of event 4688 → its name.
pub fn token_elevation(message: &str) -> &'static str {
    match message {
        "%%1936" => "TokenElevationTypeDefault",
        "%%1937" => "TokenElevationTypeFull",
        "%%1938" => "TokenElevationTypeLimited",
        _ => "",
    }
}

/// SID of a mandatory label (`S-1-16-…`) → integrity level.
pub fn integrity_level(sid: &str) -> &'static str {
    match sid {
        "S-1-16-0" => "Untrusted",
        "S-1-16-4096" => "Low",
        "S-1-16-8192" | "S-1-16-8448" => "Medium",
        "S-1-16-12288" => "High",
        "S-1-16-16384" => "System",
        _ => "",
    }
}
