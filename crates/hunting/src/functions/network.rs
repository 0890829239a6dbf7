//! Addresses and URLs.

use super::dynamic::{value_of, write};
use super::{Call, Cell, RowFunction, convert};
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vigie_kql::types::Type;

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
        "ipv4_is_in_any_range" => |call, cells| {
            let address = ipv4(cells[0].as_text());
            let ranges = listed(call, cells);
            Cell::from_bool(address.map(|address| {
                let within = |range: Ipv4Net| range.contains(&address.addr());
                ranges.iter().filter_map(|range| ipv4(range)).any(within)
            }))
        },
        "ipv6_is_in_range" => {
            |_, cells| {
                let (address, range) = (ipv6(cells[0].as_text()), ipv6(cells[1].as_text()));
                Cell::from_bool(address.zip(range).map(|((address, _), (range, bits))| {
                    masked(address, bits) == masked(range, bits)
                }))
            }
        }
        "ipv6_is_in_any_range" => |call, cells| {
            let ranges = listed(call, cells);
            Cell::from_bool(ipv6(cells[0].as_text()).map(|(address, _)| {
                ranges
                    .iter()
                    .filter_map(|range| ipv6(range))
                    .any(|(range, bits)| masked(address, bits) == masked(range, bits))
            }))
        },
        "ipv6_is_match" => |_, cells| Cell::from_bool(compared6(cells).map(|order| order == 0)),
        "ipv6_compare" => |_, cells| Cell::from_long(compared6(cells)),
        "ipv4_netmask_suffix" => {
            |_, cells| Cell::from_long(ipv4(cells[0].as_text()).map(|net| net.prefix_len().into()))
        }
        "ipv4_range_to_cidr_list" => |_, cells| {
            let ends = cells[0].as_text().parse().ok().zip(cells[1].as_text().parse().ok());
            match ends {
                Some((from, to)) if from <= to => {
                    write(Ipv4Subnets::new(from, to, 0).map(|net| net.to_string()).collect())
                }
                _ => Cell::Null,
            }
        },
        "parse_ipv4_mask" => |_, cells| {
            let address = cells[0].as_text().trim().parse::<Ipv4Addr>().ok();
            let bits = cells[1].as_long().and_then(|bits| u8::try_from(bits).ok());
            let net = address.zip(bits).and_then(|(a, bits)| Ipv4Net::new(a, bits).ok());
            Cell::from_long(net.map(|net| u32::from(net.network()).into()))
        },
        "parse_ipv6" => |_, cells| {
            let found = ipv6(cells[0].as_text());
            Cell::text(
                found.map(|(address, bits)| long_form(masked(address, bits))).unwrap_or_default(),
            )
        },
        "parse_ipv6_mask" => |_, cells| {
            let wanted = cells[1].as_long().and_then(|bits| u8::try_from(bits).ok());
            let found = ipv6(cells[0].as_text()).zip(wanted.filter(|bits| *bits <= 128));
            Cell::text(
                found
                    .map(|((address, bits), wanted)| long_form(masked(address, bits.min(wanted))))
                    .unwrap_or_default(),
            )
        },
        "has_ipv4" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            Cell::Bool(has_address(&text, cells[1].as_text(), false))
        },
        "has_ipv4_prefix" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            Cell::Bool(has_address(&text, cells[1].as_text(), true))
        },
        "has_any_ipv4" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            Cell::Bool(listed(call, cells).iter().any(|wanted| has_address(&text, wanted, false)))
        },
        "has_any_ipv4_prefix" => |call, cells| {
            let text = convert::text(call.arguments[0], &cells[0]);
            Cell::Bool(listed(call, cells).iter().any(|wanted| has_address(&text, wanted, true)))
        },
        // No location data comes with the product; private addresses have none anyway.
        "geo_info_from_ip_address" => |_, cells| {
            let known = cells[0].as_text().trim().parse::<IpAddr>().is_ok();
            if known { Cell::text("{}") } else { Cell::Null }
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
/// An address or a network of the family; IPv4 as IPv6 where that is asked for.
pub fn as_network(text: &str, v6: bool) -> Option<IpNet> {
    if !v6 {
        return ipv4(text).map(IpNet::V4);
    }
    let text = text.trim();
    let network = match text.parse::<std::net::IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    Some(match network {
        IpNet::V4(network) => {
            let address = network.addr().to_ipv6_mapped();
            IpNet::new(address.into(), network.prefix_len() + 96).ok()?
        }
        v6 => v6,
    })
}

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

/// The arguments behind the first: texts, or arrays of them.
fn listed(call: &Call, cells: &[Cell<'_>]) -> Vec<String> {
    let mut all = Vec::new();
    for (cell, ty) in cells.iter().zip(&call.arguments).skip(1) {
        match value_of(*ty, cell) {
            Value::Array(list) => {
                all.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            Value::String(text) => all.push(text),
            _ => {}
        }
    }
    all
}

/// An address with the length of its prefix; IPv4 stands in the mapped range.
fn ipv6(text: &str) -> Option<(u128, u8)> {
    let (address, bits) = match text.trim().split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text.trim(), None),
    };
    match address.parse().ok()? {
        IpAddr::V4(address) => {
            let bits = bits.unwrap_or(32);
            (bits <= 32).then(|| (u128::from(address.to_ipv6_mapped()), 96 + bits))
        }
        IpAddr::V6(address) => {
            let bits = bits.unwrap_or(128);
            (bits <= 128).then(|| (u128::from(address), bits))
        }
    }
}

fn masked(address: u128, bits: u8) -> u128 {
    match bits {
        0 => 0,
        bits => address & (u128::MAX << (128 - u32::from(bits))),
    }
}

fn long_form(address: u128) -> String {
    let groups = Ipv6Addr::from(address).segments();
    groups.map(|group| format!("{group:04x}")).join(":")
}

fn compared6(cells: &[Cell<'_>]) -> Option<i64> {
    let ((a, a_bits), (b, b_bits)) = (ipv6(cells[0].as_text())?, ipv6(cells[1].as_text())?);
    let wanted = cells.get(2).and_then(Cell::as_long).unwrap_or(128).clamp(0, 128) as u8;
    let bits = a_bits.min(b_bits).min(wanted);
    Some(masked(a, bits).cmp(&masked(b, bits)) as i64)
}

/// Whether an address, or one that begins so, stands in a text with no letter or digit beside it. A
/// prefix ends with a point, or is a whole address.
fn has_address(text: &str, wanted: &str, prefix: bool) -> bool {
    let whole = wanted.parse::<Ipv4Addr>().is_ok();
    let begins = prefix
        && wanted.ends_with('.')
        && wanted.trim_end_matches('.').split('.').all(|part| part.parse::<u8>().is_ok());
    if !whole && !begins {
        return false;
    }
    text.split(|c: char| !c.is_alphanumeric() && c != '.').any(|word| {
        let word = word.trim_matches('.');
        word.parse::<Ipv4Addr>().is_ok()
            && if whole { word == wanted } else { word.starts_with(wanted) }
    })
}

/// An address given as text or number under a mask, and the mask's bits.
pub(super) fn formatted(call: &Call, cells: &[Cell<'_>]) -> Option<(Ipv4Addr, u8)> {
    let net = match (call.arguments[0], &cells[0]) {
        (Type::String, Cell::Text(text)) => ipv4(text)?,
        (Type::Dynamic, cell) => ipv4(&convert::text(Type::Dynamic, cell))?,
        (_, cell) => Ipv4Net::from(Ipv4Addr::from(u32::try_from(cell.as_long()?).ok()?)),
    };
    let wanted = match cells.get(1) {
        Some(cell) => u8::try_from(cell.as_long()?).ok().filter(|bits| *bits <= 32)?,
        None => 32,
    };
    let bits = net.prefix_len().min(wanted);
    Some((Ipv4Net::new(net.addr(), bits).ok()?.network(), bits))
}

/// The parameters of a URL's query, in their order.
pub(super) fn query_parameters(query: &str) -> Map<String, Value> {
    (query.split('&'))
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.into())
        })
        .collect()
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
    let parameters = query_parameters(query);
    serde_json::json!({
        "Scheme": scheme, "Host": host, "Port": port, "Path": path, "Username": user,
        "Password": password, "Query Parameters": parameters, "Fragment": fragment,
    })
    .to_string()
}
