//! The kernel's table of TCP sockets (`linux/sock_diag.h`, `linux/inet_diag.h`).

use super::netlink::{Netlink, Received, u16_at, u32_at};
use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const NETLINK_SOCK_DIAG: isize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;
/// Where `struct inet_diag_sockid` stands in an `inet_diag_msg`, and its length.
const ID_AT: usize = 4;
const ID_BYTES: usize = 48;

pub const ESTABLISHED: u8 = 1;
pub const SYN_SENT: u8 = 2;
pub const TIME_WAIT: u8 = 6;
pub const LISTEN: u8 = 10;

/// One socket.
#[derive(Clone, Debug)]
pub struct Entry {
    pub state: u8,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub uid: u32,
    /// 0 where no process has it open (TIME_WAIT).
    pub inode: u64,
    /// The kernel's own identification, as it wants it back.
    id: [u8; ID_BYTES],
    family: u8,
}

pub struct Sockets {
    netlink: Netlink,
}

impl Sockets {
    pub fn open() -> Result<Sockets> {
        let netlink = Netlink::open(NETLINK_SOCK_DIAG, 0)?;
        netlink.set_receive_buffer(1024 * 1024);
        let mut sockets = Sockets { netlink };
        sockets.tcp()?;
        Ok(sockets)
    }

    /// All TCP sockets of this network namespace.
    pub fn tcp(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let mut request = [0; REQUEST_BYTES];
            request[0] = family;
            request[1] = libc::IPPROTO_TCP as u8;
            request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
            self.netlink.send(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &request)?;
            self.read_dump(&mut entries)?;
        }
        Ok(entries)
    }

    fn read_dump(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        loop {
            let length = match self.netlink.receive(Duration::from_secs(2))? {
                Received::Bytes(length) => length,
                Received::Nothing => return Err(Error::other("the kernel does not answer")),
                Received::Overrun => return Err(Error::other("answer longer than the buffer")),
            };
            for (kind, body) in self.netlink.messages(length) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(error_of(body)),
                    _ => entries.extend(parse(body)),
                }
            }
        }
    }

    /// Ends a connection of this machine as if the peer had reset it (needs `CAP_NET_ADMIN` and a
    /// kernel with `CONFIG_INET_DIAG_DESTROY`).
    pub fn destroy(&mut self, entry: &Entry) -> Result<()> {
        let mut request = [0; REQUEST_BYTES];
        request[0] = entry.family;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        request[8..8 + ID_BYTES].copy_from_slice(&entry.id);
        self.netlink.send(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &request)?;
        let Received::Bytes(length) = self.netlink.receive(Duration::from_secs(2))? else {
            return Err(Error::other("the kernel does not answer"));
        };
        match self.netlink.messages(length).next() {
            Some((NLMSG_ERROR, body)) if u32_at(body, 0) != Some(0) => Err(error_of(body)),
            _ => Ok(()),
        }
    }
}

fn error_of(body: &[u8]) -> Error {
    let code = u32_at(body, 0).unwrap_or(0) as i32;
    Error::from_raw_os_error(code.wrapping_neg())
}

fn parse(body: &[u8]) -> Option<Entry> {
    let (family, state) = (*body.first()?, *body.get(1)?);
    let id: [u8; ID_BYTES] = body.get(ID_AT..ID_AT + ID_BYTES)?.try_into().ok()?;
    // Ports and addresses are in network order; addresses take 16 bytes each.
    let port = |at: usize| u16_at(&id, at).map(u16::from_be);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
        Some(if i32::from(family) == libc::AF_INET {
            Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
        } else {
            // A socket for both protocols shows IPv4 peers in mapped form.
            Ipv6Addr::from(bytes).to_canonical()
        })
    };
    let tail = ID_AT + ID_BYTES;
    Some(Entry {
        state,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        // expires, receive queue, send queue, uid, inode
        uid: u32_at(body, tail + 12)?,
        inode: u64::from(u32_at(body, tail + 16)?),
        id,
        family,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn own_connections_are_found_and_can_be_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let entries = Sockets::open().unwrap().tcp().unwrap();
        let find = |state, local| {
            entries.iter().find(|entry| entry.state == state && entry.local == local).unwrap()
        };
        assert!(find(LISTEN, address).inode != 0);
        let connected = find(ESTABLISHED, client.local_addr().unwrap());
        assert_eq!(connected.remote, address);
        assert_eq!(connected.uid, rustix::process::getuid().as_raw());
        assert_ne!(connected.inode, find(LISTEN, address).inode);
    }
}
