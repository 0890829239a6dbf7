//! Netlink sockets with bounded waits, and the message header.

use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Bytes of `struct nlmsghdr`.
pub const HEADER_BYTES: usize = 16;

/// A netlink socket for one family, member of the given multicast groups (bit mask).
pub struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What a wait brought.
pub enum Received {
    /// That many bytes are in the buffer.
    Bytes(usize),
    /// Nothing within the time.
    Nothing,
    /// The kernel dropped messages because they were not read quickly enough.
    Overrun,
}

impl Netlink {
    pub fn open(family: isize, groups: u32) -> Result<Netlink> {
        let mut socket = Socket::new(family)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Netlink { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Asks for a receive buffer of that many bytes, beyond the system's bound where allowed.
    pub fn set_receive_buffer(&self, bytes: usize) {
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(fd, bytes).is_err() {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(fd, bytes);
        }
    }

    /// Sends one message of this type to the kernel.
    pub fn send(&self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).map(drop)
    }

    /// Waits for a datagram; read it with [`Netlink::messages`].
    pub fn receive(&mut self, wait: Duration) -> Result<Received> {
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        let timeout = rustix::event::Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(Received::Nothing),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Received::Nothing),
            Err(error) => return Err(error.into()),
        }
        match rustix::net::recv(fd, &mut self.buffer[..], rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, length)) => Ok(Received::Bytes(length.min(self.buffer.len()))),
            Err(rustix::io::Errno::NOBUFS) => Ok(Received::Overrun),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(Error::from(error)),
        }
    }

    /// Type and body of each message in the first `length` bytes of the buffer.
    pub fn messages(&self, length: usize) -> Messages<'_> {
        Messages { rest: &self.buffer[..length] }
    }
}

pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = u32_at(self.rest, 0)? as usize;
        let kind = u16_at(self.rest, 4)?;
        let body = self.rest.get(HEADER_BYTES..length)?;
        let aligned = length.next_multiple_of(4).min(self.rest.len());
        self.rest = &self.rest[aligned..];
        Some((kind, body))
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
