//! Three hosts in network namespaces, made by `tests/netns.sh`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

pub const SERVER: &str = "10.99.0.1";
pub const SENSOR: &str = "10.99.0.2";
pub const OTHER: &str = "10.99.0.3";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns.sh");

/// The namespaces of one test; removed at its end.
pub struct Hosts {
    prefix: String,
}

impl Hosts {
    /// `None`, with a printed line, where namespaces or nft are not to be had.
    pub fn new(name: &str) -> Option<Hosts> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root for network namespaces");
            return None;
        }
        if Command::new("nft").arg("--version").output().is_err() {
            println!("skipped: nft is not installed");
            return None;
        }
        let hosts = Hosts { prefix: format!("vigie-{name}-{}", std::process::id()) };
        match hosts.script("up") {
            Ok(()) => Some(hosts),
            Err(error) => {
                println!("skipped: no network namespaces: {error}");
                None
            }
        }
    }

    fn script(&self, what: &str) -> Result<(), String> {
        let output = Command::new(SCRIPT)
            .args([what, &self.prefix])
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// A command that runs on a host: `server`, `sensor` or `other`.
    pub fn command(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.prefix), program]);
        command
    }

    /// Runs a function on a thread of its own whose new sockets belong to that host.
    pub fn on<T: Send>(&self, host: &str, run: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}-{host}", self.prefix);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let space = std::fs::File::open(path).unwrap();
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&space),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .unwrap();
                run()
            });
            thread.join().unwrap()
        })
    }

    /// Whether that host can open a connection.
    pub fn reaches(&self, host: &str, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        self.on(host, || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    }

    /// A port that takes connections on that host.
    pub fn listen(&self, host: &str, address: &str) -> TcpListener {
        self.on(host, || TcpListener::bind(address).unwrap())
    }

    /// A connection opened from that host.
    pub fn connect(&self, host: &str, address: &str) -> TcpStream {
        self.on(host, || TcpStream::connect(address).unwrap())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = self.script("down") {
            println!("cannot remove the namespaces: {error}");
        }
    }
}
