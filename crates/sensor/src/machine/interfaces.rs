//! Network interfaces with their addresses.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub name: String,
    /// Twelve hexadecimal digits, upper case; empty where there is none.
    pub mac: String,
    /// `Ethernet`, `SoftwareLoopback`, `Tunnel`, `Wireless80211`.
    pub kind: &'static str,
    pub up: bool,
    /// Address and length of its network prefix.
    pub addresses: Vec<(IpAddr, u32)>,
}

impl Interface {
    pub fn status(&self) -> &'static str {
        if self.up { "Up" } else { "Down" }
    }
}

/// All interfaces of this network namespace, by name.
pub fn interfaces() -> std::io::Result<Vec<Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills the pointer with a list that stays valid until freeifaddrs, or fails.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` walks the list that getifaddrs made; names are C strings.
        let (entry, name) =
            unsafe { (&*next, CStr::from_ptr((*next).ifa_name).to_string_lossy().into_owned()) };
        let interface = found.entry(name).or_insert_with_key(|name| Interface {
            name: name.clone(),
            mac: mac(name),
            kind: kind(name, entry.ifa_flags as i32),
            up: entry.ifa_flags as i32 & libc::IFF_RUNNING != 0,
            addresses: Vec::new(),
        });
        // SAFETY: both are null or socket addresses of the family that they name.
        if let Some(address) = unsafe { ip_of(entry.ifa_addr) } {
            let mask = unsafe { ip_of(entry.ifa_netmask) };
            interface.addresses.push((address, mask.map_or(0, prefix_length)));
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list of above, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(found.into_values().collect())
}

/// # Safety
/// `address` is null or points to a socket address of its family's length.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            let v4 = unsafe { *address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            let v6 = unsafe { *address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn prefix_length(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    }
}

fn mac(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/address"));
    let digits: String = text.unwrap_or_default().chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() == 12 && digits.chars().any(|digit| digit != '0') {
        digits.to_uppercase()
    } else {
        String::new()
    }
}

fn kind(name: &str, flags: i32) -> &'static str {
    let exists =
        |path: &str| std::path::Path::new(&format!("/sys/class/net/{name}/{path}")).exists();
    if flags & libc::IFF_LOOPBACK != 0 {
        "SoftwareLoopback"
    } else if exists("wireless") {
        "Wireless80211"
    } else if flags & libc::IFF_POINTOPOINT != 0 || exists("tun_flags") {
        "Tunnel"
    } else {
        "Ethernet"
    }
}

/// Name servers of `/etc/resolv.conf`.
pub fn name_servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(|address| address.trim().to_owned())
        .collect()
}

/// Interface and IPv4 gateway of each default route of `/proc/net/route`.
pub fn default_gateways() -> Vec<(String, String)> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse_routes(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (name, destination, gateway) = (fields.next()?, fields.next()?, fields.next()?);
            let gateway = u32::from_str_radix(gateway, 16).ok()?;
            // The kernel prints addresses as numbers of the machine's own byte order.
            (destination == "00000000" && gateway != 0)
                .then(|| (name.to_owned(), Ipv4Addr::from(gateway.to_ne_bytes()).to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn default_routes_are_found() {
        let text = "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t0102000A\t0003\n\
                    eth0\t0002000A\t00000000\t0001\n";
        let expected = if cfg!(target_endian = "little") { "10.0.2.1" } else { "1.2.0.10" };
        assert_eq!(super::parse_routes(text), [("eth0".to_owned(), expected.to_owned())]);
    }
}
