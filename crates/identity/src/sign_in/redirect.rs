//! Redirect URIs: which are registered, and how an answer travels to them.

use super::code::Platform;
use super::pages;
use super::request::Ask;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::form_urlencoded::Serializer;
use vigie_contract::administration::Registration;

/// How an answer travels (OAuth 2.0 Multiple Response Types, section 2.1; Form Post Response Mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    Query,
    Fragment,
    FormPost,
}

/// The platform for which the URI is registered. Compared as a string; loopback addresses match with
/// any port (RFC 8252, section 7.3).
pub fn platform(registration: &Registration, uri: &str) -> Option<Platform> {
    let uris = &registration.redirect_uris;
    let has = |list: &[String]| list.iter().any(|known| matches(known, uri));
    if has(&uris.web) {
        return Some(Platform::Web);
    }
    if has(&uris.spa) {
        return Some(Platform::Spa);
    }
    has(&uris.public_client).then_some(Platform::Public)
}

fn matches(known: &str, uri: &str) -> bool {
    if known == uri {
        return true;
    }
    match (loopback(known), loopback(uri)) {
        (Some((host, path)), Some((own_host, own_path))) => host == own_host && path == own_path,
        _ => false,
    }
}

/// Host and rest of a plain-HTTP loopback URI, without its port; the root path with its slash.
fn loopback(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.strip_prefix("[::1]") {
        Some(port) => ("[::1]", port),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let known = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let known_port = match port.strip_prefix(':') {
        // Rust reads `+80` as a number; browsers do not.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.is_empty() || port.parse::<u16>().is_ok()
        }
        Some(_) => false,
        None => port.is_empty(),
    };
    (known && known_port).then_some((host, if path.is_empty() { "/" } else { path }))
}

/// Scheme, host and port of a URI for `form-action`, or its scheme where it is a native one.
pub fn origin(uri: &str) -> String {
    let Ok(parsed) = url::Url::parse(uri) else { return String::new() };
    match (parsed.scheme(), parsed.host_str(), parsed.port()) {
        (scheme @ ("http" | "https"), Some(host), Some(port)) => {
            format!("{scheme}://{host}:{port}")
        }
        (scheme @ ("http" | "https"), Some(host), None) => format!("{scheme}://{host}"),
        (scheme, _, _) => format!("{scheme}:"),
    }
}

impl Ask {
    /// The answer at the client's redirect URI.
    pub fn send_back(&self, uri: &str, mode: Mode, members: &[(&str, &str)]) -> Response {
        let encoded = || {
            let mut serializer = Serializer::new(String::new());
            for (name, value) in members {
                serializer.append_pair(name, value);
            }
            // Some clients take a plus sign literally.
            serializer.finish().replace('+', "%20")
        };
        let separator = if uri.contains('?') { '&' } else { '?' };
        match mode {
            Mode::Query => self.see_other(&format!("{uri}{separator}{}", encoded())),
            Mode::Fragment => self.see_other(&format!("{uri}#{}", encoded())),
            Mode::FormPost => pages::form_post(uri, members),
        }
    }

    /// 303: the browser follows with a GET, so that a password is never sent on (RFC 9700, 4.12).
    pub fn see_other(&self, location: &str) -> Response {
        let Ok(location) = HeaderValue::from_str(location) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let mut response = StatusCode::SEE_OTHER.into_response();
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, location);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_match_as_strings_and_loopback_addresses_with_any_port() {
        for (known, uri, expected) in [
            ("https://app.example/cb", "https://app.example/cb", true),
            ("https://app.example/cb", "https://app.example/CB", false),
            ("https://app.example/cb", "https://app.example/cb/", false),
            ("https://app.example/cb", "https://app.example/cb?x=1", false),
            ("https://app.example/cb", "https://app.example/cb/../x", false),
            ("https://app.example/cb", "https://app.example.evil.example/cb", false),
            ("https://app.example/cb", "https://evil@app.example/cb", false),
            ("http://localhost", "http://localhost:5000", true),
            ("http://localhost", "http://localhost:5000/", true),
            ("http://localhost/", "http://localhost:5000", true),
            ("http://localhost/cb", "http://localhost:1/cb", true),
            ("http://localhost/cb", "http://localhost:1/other", false),
            ("http://localhost", "http://127.0.0.1:5000", false),
            ("http://127.0.0.1", "http://127.0.0.1:1234", true),
            ("http://[::1]", "http://[::1]:1234/", true),
            ("http://localhost", "http://localhost.evil.example", false),
            ("http://localhost", "http://localhost:80@evil.example/", false),
            ("http://localhost", "http://localhost:+80/", false),
            ("http://[::1]", "http://[::1]80/", false),
            ("http://[::1]", "http://[::1].evil.example/", false),
            ("http://localhost", "https://localhost", false),
            ("myapp://auth", "myapp://auth", true),
            ("myapp://auth", "myapp://auth2", false),
        ] {
            assert_eq!(matches(known, uri), expected, "{known} {uri}");
        }
    }

    proptest::proptest! {
        /// Whatever is appended or put in between: a browser goes to the registered host and path.
        #[test]
        fn no_text_leads_elsewhere(
            middle in "[a-z0-9:@/\\\\?#.%\\[\\] ]{0,12}", end in "[a-z0-9:@/\\\\?#.%]{0,8}"
        ) {
            for uri in [format!("http://localhost{middle}/cb{end}"), format!("http://{middle}localhost/cb")] {
                if matches("http://localhost/cb", &uri) {
                    let parsed = url::Url::parse(&uri).expect("a URI");
                    proptest::prop_assert_eq!(parsed.host_str(), Some("localhost"), "{}", &uri);
                    proptest::prop_assert_eq!(parsed.path(), "/cb", "{}", &uri);
                    proptest::prop_assert!(parsed.username().is_empty(), "{}", &uri);
                }
            }
        }
    }
}
