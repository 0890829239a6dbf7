//! Addresses and URLs.

use super::{Cell, RowFunction};
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "ipv4_is_private" => |_, cells| {
            Cell::from_bool(ipv4(cells[0].as_text()).map(|net| {
                let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
                private.iter().any(|range| range.parse::<Ipv4Net>().is_ok_and(|r| r.contains(&net)))
            }))
        },
        "ipv4_is_in_range" => |_, cells| {
            let (address, range) = (ipv4(cells[0].as_text()), ipv4(cells[1].as_text()));
            Cell::from_bool(
                address.zip(range).map(|(address, range)| range.contains(&address.addr())),
            )
        },
        "ipv6_is_in_range" => |_, cells| {
            let address = cells[0].as_text().parse::<IpAddr>().ok();
            let range = cells[1].as_text().parse::<IpNet>().ok();
            Cell::from_bool(address.zip(range).map(|(address, range)| range.contains(&address)))
        },
        "ipv4_is_match" => |_, cells| Cell::from_bool(compared(cells).map(|order| order == 0)),
        "ipv4_compare" => |_, cells| Cell::from_long(compared(cells)),
        "parse_ipv4" => |_, cells| {
            Cell::from_long(ipv4(cells[0].as_text()).map(|net| u32::from(net.network()).into()))
        },
        "parse_url" => |_, cells| Cell::text(url_parts(cells[0].as_text())),
        _ => return None,
    })
}

/// An address, or a range in CIDR form.
fn ipv4(text: &str) -> Option<Ipv4Net> {
    let text = text.trim();
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Some(Ipv4Net::from(address)),
        Err(_) => text.parse().ok(),
    }
}

/// -1, 0 or 1 under the shorter of the two masks.
fn compared(cells: &[Cell<'_>]) -> Option<i64> {
    let (a, b) = (ipv4(cells[0].as_text())?, ipv4(cells[1].as_text())?);
    let wanted = cells.get(2).and_then(Cell::as_long).unwrap_or(32).clamp(0, 32) as u8;
    let bits = a.prefix_len().min(b.prefix_len()).min(wanted);
    let masked = |net: Ipv4Net| Ipv4Net::new(net.addr(), bits).map(|net| u32::from(net.network()));
    Some(masked(a).ok()?.cmp(&masked(b).ok()?) as i64)
}

fn url_parts(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user_info, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (host_port, ""),
    };
    let parameters: serde_json::Map<String, serde_json::Value> = (query.split('&'))
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.into())
        })
        .collect();
    serde_json::json!({
        "Scheme": scheme, "Host": host, "Port": port, "Path": path, "Username": user,
        "Password": password, "Query Parameters": parameters, "Fragment": fragment,
    })
    .to_string()
}
