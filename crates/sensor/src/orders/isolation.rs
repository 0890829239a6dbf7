//! Cutting the machine off the network with nftables, all but the server.
//!
//! One table, `inet vigie_isolation`, with chains before all others that drop what is not allowed:
//! loopback, the server's addresses and port, IPv6 neighbour discovery and DHCP (without either the
//! machine would lose its address and with it the server), and for `Selective` the networks that the
//! sensor's configuration names. The rules keep no connection state, so standing connections are cut
//! too; their sockets are ended where the kernel can. What is in force stands in `isolation.json`,
//! and is put back at the next start before the sensor speaks to anyone.

use crate::disk;
use crate::sources::sock_diag::{ESTABLISHED, Entry, SYN_SENT, Sockets};
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vigie_contract::sensor::IsolationType;

const TABLE: &str = "inet vigie_isolation";
const STATE_FILE: &str = "isolation.json";

/// What is in force, as on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InForce {
    isolation_type: IsolationType,
    /// Addresses of the server when the machine was cut off: names cannot be resolved afterwards.
    server_addresses: BTreeSet<IpAddr>,
    server_port: u16,
}

pub struct Isolation {
    state_file: PathBuf,
    server_host: String,
    server_port: u16,
    /// Networks that stay reachable under `Selective`.
    allowed: Vec<IpNet>,
    in_force: Mutex<Option<InForce>>,
}

impl Isolation {
    /// Reads what is in force; changes nothing.
    pub fn new(state_dir: &Path, server_url: &str, allowed: Vec<IpNet>) -> Result<Isolation> {
        let url = reqwest::Url::parse(server_url)
            .with_context(|| format!("server address {server_url}"))?;
        let host = url.host_str().context("the server address has no host")?;
        let state_file = state_dir.join(STATE_FILE);
        let in_force = disk::read_json(&state_file)?;
        Ok(Isolation {
            state_file,
            server_host: host.trim_matches(['[', ']']).to_owned(),
            server_port: url.port_or_known_default().unwrap_or(443),
            allowed,
            in_force: Mutex::new(in_force),
        })
    }

    /// The isolation in force.
    pub fn current(&self) -> Option<IsolationType> {
        self.in_force.lock().as_ref().map(|in_force| in_force.isolation_type)
    }

    /// Puts back what was in force before a restart of the machine or the sensor.
    pub fn reapply(&self) -> Result<()> {
        let in_force = self.in_force.lock();
        let Some(in_force) = in_force.as_ref() else { return Ok(()) };
        tracing::warn!(isolation = ?in_force.isolation_type, "this machine is isolated");
        run_nft(&self.rules(in_force, &[]))?;
        end_connections(|entry| self.is_cut(in_force, entry));
        Ok(())
    }

    /// Cuts the machine off; a second order replaces the kind.
    pub fn isolate(&self, isolation_type: IsolationType) -> Result<()> {
        let mut in_force = self.in_force.lock();
        let mut server_addresses: BTreeSet<IpAddr> =
            match (self.server_host.as_str(), self.server_port).to_socket_addrs() {
                Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
                Err(error) => {
                    // While isolated no name can be resolved, but the addresses are known.
                    let known = in_force.as_ref().map(|known| known.server_addresses.clone());
                    known.with_context(|| {
                        format!("cannot find the address of {}: {error}", self.server_host)
                    })?
                }
            };
        if let Some(known) = in_force.as_ref() {
            server_addresses.extend(&known.server_addresses);
        }
        let wanted = InForce { isolation_type, server_addresses, server_port: self.server_port };
        // On disk first: after a crash in between, the next start finishes the isolation.
        let before = in_force.clone();
        disk::write_json(&self.state_file, &wanted)?;
        if let Err(error) = run_nft(&self.rules(&wanted, &[])) {
            self.keep(before.as_ref())?;
            return Err(error);
        }
        end_connections(|entry| self.is_cut(&wanted, entry));
        *in_force = Some(wanted);
        Ok(())
    }

    /// Opens the network where this sensor has shut it.
    pub fn release_if_in_force(&self) -> Result<()> {
        if self.current().is_some() { self.release() } else { Ok(()) }
    }

    /// While isolated and out of reach of the server: asks the machine's name servers, which are cut
    /// off as well, for the server's present address. They can be reached for the time of this look.
    pub fn look_up(&self) {
        let mut in_force = self.in_force.lock();
        let Some(known) = in_force.as_ref() else { return };
        if self.server_host.parse::<IpAddr>().is_ok() {
            return;
        }
        let servers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let looked = run_nft(&self.rules(known, &name_servers(&servers))).map(|()| {
            let found = (self.server_host.as_str(), self.server_port).to_socket_addrs();
            found.map(|found| found.map(|address| address.ip().to_canonical()).collect())
        });
        let mut wanted = known.clone();
        match looked {
            Ok(Ok(found)) => {
                let found: BTreeSet<IpAddr> = found;
                wanted.server_addresses.extend(found);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the server's address cannot be found"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no look at name servers"),
        }
        let kept = disk::write_json(&self.state_file, &wanted);
        if let Err(error) = kept.and_then(|()| run_nft(&self.rules(&wanted, &[]))) {
            tracing::error!(error = format!("{error:#}"), "the isolation cannot be renewed");
        }
        *in_force = Some(wanted);
    }

    /// Opens the network again; fine when nothing is in force.
    pub fn release(&self) -> Result<()> {
        let mut in_force = self.in_force.lock();
        // `destroy` would need a newer nft: declaring the table makes deleting it always right.
        run_nft(&format!("table {TABLE}\ndelete table {TABLE}\n"))?;
        *in_force = None;
        self.keep(None)
    }

    fn keep(&self, in_force: Option<&InForce>) -> Result<()> {
        match in_force {
            Some(in_force) => disk::write_json(&self.state_file, in_force),
            None => match std::fs::remove_file(&self.state_file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(disk::sync_folder_of(&self.state_file)?),
            },
        }
    }

    /// The whole rule set as one transaction; with name servers that may be asked.
    fn rules(&self, in_force: &InForce, name_servers: &[IpAddr]) -> String {
        let port = in_force.server_port;
        let mut inbound = String::new();
        let mut outbound = String::new();
        for address in name_servers {
            let family = if address.is_ipv6() { "ip6" } else { "ip" };
            let _ = writeln!(inbound, "    {family} saddr {address} udp sport 53 accept");
            let _ = writeln!(outbound, "    {family} daddr {address} udp dport 53 accept");
        }
        let mut allow = |network: &str, ipv6: bool, ports: Option<u16>| {
            let family = if ipv6 { "ip6" } else { "ip" };
            let (from, to) = match ports {
                Some(port) => (format!(" tcp sport {port}"), format!(" tcp dport {port}")),
                None => (String::new(), String::new()),
            };
            let _ = writeln!(inbound, "    {family} saddr {network}{from} accept");
            let _ = writeln!(outbound, "    {family} daddr {network}{to} accept");
        };
        for address in &in_force.server_addresses {
            allow(&address.to_string(), address.is_ipv6(), Some(port));
        }
        if in_force.isolation_type == IsolationType::Selective {
            for network in &self.allowed {
                let ipv6 = matches!(network, IpNet::V6(_));
                allow(&network.to_string(), ipv6, None);
            }
        }
        let neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, \
                          nd-router-solicit, nd-router-advert } accept";
        format!(
            "table {TABLE}\n\
             delete table {TABLE}\n\
             table {TABLE} {{\n\
             \x20 chain input {{\n\
             \x20   type filter hook input priority -400; policy drop;\n\
             \x20   iif lo accept\n\
             {inbound}\
             \x20   {neighbours}\n\
             \x20   udp sport 67 udp dport 68 accept\n\
             \x20   udp sport 547 udp dport 546 accept\n\
             \x20 }}\n\
             \x20 chain output {{\n\
             \x20   type filter hook output priority -400; policy drop;\n\
             \x20   oif lo accept\n\
             {outbound}\
             \x20   {neighbours}\n\
             \x20   udp sport 68 udp dport 67 accept\n\
             \x20   udp sport 546 udp dport 547 accept\n\
             \x20 }}\n\
             \x20 chain forward {{\n\
             \x20   type filter hook forward priority -400; policy drop;\n\
             \x20 }}\n\
             }}\n"
        )
    }

    fn is_cut(&self, in_force: &InForce, entry: &Entry) -> bool {
        let remote = entry.remote.ip();
        let to_server = in_force.server_addresses.contains(&remote)
            && entry.remote.port() == in_force.server_port;
        let selected = in_force.isolation_type == IsolationType::Selective
            && self.allowed.iter().any(|network| network.contains(&remote));
        !(remote.is_loopback() || entry.local.ip() == remote || to_server || selected)
    }
}

/// The servers of a resolv.conf(5).
fn name_servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}

/// Ends the connections that the rules cut, so that programs notice now and not at a time-out. The
/// packets are dropped in any case; a kernel without this ability only makes programs wait.
fn end_connections(is_cut: impl Fn(&Entry) -> bool) {
    let entries = Sockets::open().and_then(|mut sockets| Ok((sockets.tcp()?, sockets)));
    let (entries, mut sockets) = match entries {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot end the machine's connections");
            return;
        }
    };
    let open = entries.iter().filter(|entry| matches!(entry.state, ESTABLISHED | SYN_SENT));
    for entry in open.filter(|entry| is_cut(entry)) {
        if let Err(error) = sockets.destroy(entry) {
            tracing::debug!(%error, remote = %entry.remote, "connection not ended");
        }
    }
}

/// Hands a rule set to `nft`, which applies all of it or nothing.
fn run_nft(rules: &str) -> Result<()> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the program nft is not installed (package nftables)")
        }
        Err(error) => return Err(error).context("cannot run nft"),
    };
    // A program that ends early closes its input; its own words say more than the broken pipe.
    let _ = child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes());
    let output = child.wait_with_output().context("cannot run nft")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("nft refused the rules: {}", text.lines().next().unwrap_or("no message").trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selective_isolation_allows_the_configured_networks() {
        let folder = tempfile::tempdir().unwrap();
        let allowed = vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let isolation = Isolation::new(folder.path(), "https://192.0.2.1:8443", allowed).unwrap();
        let rules = |isolation_type| {
            let in_force = InForce {
                isolation_type,
                server_addresses: ["192.0.2.1".parse().unwrap()].into(),
                server_port: 8443,
            };
            isolation.rules(&in_force, &[])
        };
        let full = rules(IsolationType::Full);
        assert!(full.contains("ip daddr 192.0.2.1 tcp dport 8443 accept"));
        assert!(!full.contains("198.51.100"));
        let selective = rules(IsolationType::Selective);
        assert!(selective.contains("ip saddr 198.51.100.0/24 accept"));
        assert!(selective.contains("ip6 daddr 2001:db8::/32 accept"));
    }

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text =
            "# nameserver 192.0.2.9\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nsearch x\n";
        let expected: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn an_isolation_from_before_a_restart_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let in_force = InForce {
            isolation_type: IsolationType::Selective,
            server_addresses: ["192.0.2.1".parse().unwrap()].into(),
            server_port: 443,
        };
        disk::write_json(&folder.path().join(STATE_FILE), &in_force).unwrap();
        let isolation = Isolation::new(folder.path(), "https://192.0.2.1", vec![]).unwrap();
        assert_eq!(isolation.current(), Some(IsolationType::Selective));
    }
}
