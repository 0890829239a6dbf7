//! Under which addresses this server is known. They come from its configuration: what a request
//! names as host only chooses among them.

use http::header;
use http::request::Parts;

/// Addresses of the authorization server and the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authority {
    /// For example `https://127.0.0.1:8443`.
    base: String,
    /// `host` and `host:port` under which the server is reached too.
    hosts: Vec<String>,
    /// Further identifiers of the Defender resource: the addresses.
    pub(crate) identifiers: Vec<String>,
}

impl Authority {
    /// `base` is the public address; `names` are further host names or addresses, reached at the
    /// same port, or at the usual one.
    pub fn new(base: &str, names: &[String]) -> Authority {
        let base = base.trim_end_matches('/').to_owned();
        let authority = base.split("://").nth(1).unwrap_or_default();
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.contains(']'));
        let mut hosts = vec![authority.to_owned()];
        for name in names {
            let name = match name.contains(':') {
                true => format!("[{name}]"),
                false => name.clone(),
            };
            hosts.extend(port.map(|port| format!("{name}:{port}")));
            hosts.push(name);
        }
        let identifiers = hosts.iter().flat_map(|h| [format!("https://{h}"), h.clone()]).collect();
        Authority { base, hosts, identifiers }
    }

    /// The address to write into answers to this request: the configured name by which it came, else
    /// the public one.
    pub(crate) fn base(&self, parts: &Parts) -> String {
        // HTTP/2 names the host in the address, HTTP/1.1 in a header.
        let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let named = parts.uri.authority().map(|authority| authority.as_str()).or(named);
        match named.and_then(|named| self.known(named)) {
            Some(host) => format!("https://{host}"),
            None => self.base.clone(),
        }
    }

    /// A host of the configuration.
    pub(crate) fn known(&self, host: &str) -> Option<&str> {
        self.hosts.iter().find(|known| known.eq_ignore_ascii_case(host)).map(String::as_str)
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(host: &str) -> Parts {
        http::Request::builder().uri("/x").header("host", host).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_chooses_among_configured_names_only() {
        let names = ["login.example".to_owned(), "::1".to_owned()];
        let authority = Authority::new("https://127.0.0.1:8443/", &names);
        let base = |host: &str| authority.base(&parts(host));
        assert_eq!(base("127.0.0.1:8443"), "https://127.0.0.1:8443");
        assert_eq!(base("LOGIN.example:8443"), "https://login.example:8443");
        assert_eq!(base("login.example"), "https://login.example");
        assert_eq!(base("[::1]:8443"), "https://[::1]:8443");
        for foreign in ["evil.example", "login.example:9999", "login.example.evil.example"] {
            assert_eq!(base(foreign), "https://127.0.0.1:8443", "{foreign}");
        }
    }
}
