//! TCP connections and listening ports, by comparing the socket table with the one before.

use super::Context;
use super::sock_diag::{ESTABLISHED, Entry, LISTEN, Sockets, TIME_WAIT};
use crate::process::pids;
use crate::rows::Row;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looking through the open files of every process is dear; at most this often.
const SEARCH_ALL_EVERY: Duration = Duration::from_secs(2);

type Ends = (SocketAddr, SocketAddr);

#[derive(Default)]
struct Seen {
    /// Connections and listeners of the last look. A short connection shows only as TIME_WAIT.
    ends: HashSet<Ends>,
    /// Process by socket inode.
    owners: HashMap<u64, u32>,
    searched_all: Option<Instant>,
    /// Connections of the sensor itself that were reported once.
    own: HashSet<(IpAddr, u16)>,
}

pub fn run(context: &Context, mut sockets: Sockets) {
    let mut seen = Seen::default();
    let mut first = true;
    while !context.stop.is_cancelled() {
        match sockets.tcp() {
            Ok(entries) => look(context, &mut seen, entries, first),
            Err(error) => {
                tracing::warn!(%error, "cannot read the socket table");
                context.sink.lost("network", 1);
            }
        }
        first = false;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Reports what is new. On the first look connections that stand already are not: when they began
/// is not known; open ports are reported, since they are the machine's present state.
fn look(context: &Context, seen: &mut Seen, entries: Vec<Entry>, first: bool) {
    let listening: HashSet<u16> = entries
        .iter()
        .filter(|entry| entry.state == LISTEN)
        .map(|entry| entry.local.port())
        .collect();
    let new: Vec<&Entry> = entries
        .iter()
        .filter(|entry| matches!(entry.state, ESTABLISHED | LISTEN | TIME_WAIT))
        .filter(|entry| !seen.ends.contains(&(entry.local, entry.remote)))
        .filter(|entry| !first || entry.state == LISTEN)
        .collect();
    find_owners(seen, &new);
    for entry in &new {
        report(context, seen, entry, &listening);
    }
    let inodes: HashSet<u64> = entries.iter().map(|entry| entry.inode).collect();
    seen.owners.retain(|inode, _| inodes.contains(inode));
    seen.ends = entries
        .iter()
        .filter(|entry| matches!(entry.state, ESTABLISHED | LISTEN | TIME_WAIT))
        .map(|entry| (entry.local, entry.remote))
        .collect();
}

fn report(context: &Context, seen: &mut Seen, entry: &Entry, listening: &HashSet<u16>) {
    let inbound = listening.contains(&entry.local.port());
    // The side that closes last leaves TIME_WAIT behind without an owner.
    let owner = seen.owners.get(&entry.inode).copied();
    if entry.state != LISTEN && is_own_noise(context, seen, entry, inbound, owner) {
        return;
    }
    let action = match (entry.state, inbound) {
        (LISTEN, _) => "ListeningConnectionCreated",
        (_, true) => "InboundConnectionAccepted",
        (_, false) => "ConnectionSuccess",
    };
    let mut row = Row::new(context.clock.now(), action);
    row.text("Protocol", "Tcp");
    row.text("LocalIP", entry.local.ip().to_string());
    row.number("LocalPort", entry.local.port());
    row.text("LocalIPType", ip_type(entry.local.ip()));
    if entry.state != LISTEN {
        row.text("RemoteIP", entry.remote.ip().to_string());
        row.number("RemotePort", entry.remote.port());
        row.text("RemoteIPType", ip_type(entry.remote.ip()));
    }
    match owner.and_then(|pid| context.processes.find(pid)) {
        Some(process) => context.processes.describe_initiating(&mut row, &process),
        // A socket in TIME_WAIT belongs to nobody any more; the kernel says uid 0 of it.
        None if entry.inode != 0 => {
            row.text("InitiatingProcessAccountName", context.processes.account_name(entry.uid));
            row.text("InitiatingProcessAccountSid", entry.uid.to_string());
        }
        None => {}
    }
    context.sink.put("network", "DeviceNetworkEvents", row);
}

/// The sensor's talk with its server is reported once for each end, not at every reconnection. In
/// a process that is server and sensor at once, both sides of it are this process's.
fn is_own_noise(
    context: &Context,
    seen: &mut Seen,
    entry: &Entry,
    inbound: bool,
    owner: Option<u32>,
) -> bool {
    let own = owner == Some(std::process::id());
    let to_server = entry.remote.port() == context.server_port && !inbound;
    let from_self = inbound
        && entry.local.port() == context.server_port
        && entry.local.ip() == entry.remote.ip();
    let unowned = owner.is_none() && entry.state == TIME_WAIT;
    if !((own || unowned) && (to_server || from_self)) {
        return false;
    }
    !seen.own.insert((entry.remote.ip(), if to_server { entry.remote.port() } else { 0 }))
}

/// Finds the processes of new sockets: first among processes that have sockets already, then, not
/// too often, among all.
fn find_owners(seen: &mut Seen, new: &[&Entry]) {
    let mut wanted: HashSet<u64> = new
        .iter()
        .map(|entry| entry.inode)
        .filter(|inode| *inode != 0 && !seen.owners.contains_key(inode))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let likely: HashSet<u32> = seen.owners.values().copied().collect();
    search(seen, likely.into_iter(), &mut wanted);
    let may_search_all = seen.searched_all.is_none_or(|at| at.elapsed() >= SEARCH_ALL_EVERY);
    if !wanted.is_empty() && may_search_all {
        let mut all = pids();
        // Young processes are the likely ones.
        all.sort_unstable_by(|a, b| b.cmp(a));
        search(seen, all.into_iter(), &mut wanted);
        seen.searched_all = Some(Instant::now());
    }
}

fn search(seen: &mut Seen, pids: impl Iterator<Item = u32>, wanted: &mut HashSet<u64>) {
    for pid in pids {
        if wanted.is_empty() {
            return;
        }
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            if let Some(inode) = target.to_str().and_then(socket_inode)
                && wanted.remove(&inode)
            {
                seen.owners.insert(inode, pid);
            }
        }
    }
}

/// `socket:[123]` → 123.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The published categories of `LocalIPType` and `RemoteIPType`.
pub fn ip_type(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => "Loopback",
        IpAddr::V4(v4) if v4.is_private() => "Private",
        IpAddr::V4(v4) if v4.is_link_local() => "LinkLocal",
        IpAddr::V4(v4) if v4.is_broadcast() => "Broadcast",
        IpAddr::V4(v4) if v4.is_multicast() => "Multicast",
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => "Reserved",
        IpAddr::V4(_) => "Public",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "FourToSixMapping",
        IpAddr::V6(v6) if v6.is_loopback() => "Loopback",
        IpAddr::V6(v6) if v6.is_unspecified() => "Reserved",
        IpAddr::V6(v6) if v6.is_multicast() => "Multicast",
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80 => "LinkLocal",
        IpAddr::V6(v6) if v6.segments()[0] & 0xfe00 == 0xfc00 => "Private",
        IpAddr::V6(v6) if v6.segments()[..2] == [0x2001, 0] => "Teredo",
        IpAddr::V6(_) => "Public",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_published_types() {
        let cases = [
            ("127.0.0.1", "Loopback"),
            ("10.1.2.3", "Private"),
            ("172.32.0.1", "Public"),
            ("169.254.0.9", "LinkLocal"),
            ("224.0.0.251", "Multicast"),
            ("255.255.255.255", "Broadcast"),
            ("0.0.0.0", "Reserved"),
            ("::1", "Loopback"),
            ("fe80::1", "LinkLocal"),
            ("fd00::1", "Private"),
            ("::ffff:1.2.3.4", "FourToSixMapping"),
            ("2001:0:1::1", "Teredo"),
            ("2606:4700::1", "Public"),
        ];
        for (address, expected) in cases {
            assert_eq!(ip_type(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(socket_inode("socket:[42]"), Some(42));
        assert_eq!(socket_inode("pipe:[42]"), None);
    }
}
