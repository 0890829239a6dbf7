//! Requests, answers, and what holds for all of them.

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is wrong, and with which request.
pub struct Finding {
    pub kind: String,
    pub request: String,
}

/// A request that is about to be sent.
pub struct Sent {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Sent {
    pub fn form(path: String, body: Vec<u8>) -> Sent {
        let form = b"application/x-www-form-urlencoded".to_vec();
        Sent { method: Method::POST, path, headers: vec![("content-type", form)], body }
    }

    pub fn get(path: String) -> Sent {
        Sent { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
    }

    pub fn told(&self) -> String {
        let mut told = format!("{} {}\n", self.method, self.path.escape_debug());
        for (name, value) in &self.headers {
            told.push_str(&format!("{name}: {}\n", value.escape_ascii()));
        }
        let body: String = self.body.escape_ascii().to_string().chars().take(3000).collect();
        told + &body
    }

    pub fn finding(&self, kind: impl Into<String>) -> Finding {
        Finding { kind: kind.into(), request: self.told() }
    }
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub json: Json,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn has_token(&self) -> bool {
        ["access_token", "id_token", "refresh_token"].iter().any(|name| !self.json[*name].is_null())
    }

    /// For the tally.
    pub fn outcome(&self) -> String {
        match self.json["error_codes"][0].as_u64() {
            Some(number) => format!("AADSTS{number}"),
            None => self.status.as_u16().to_string(),
        }
    }
}

/// User and system time of this process, which does nothing else meanwhile: fields 14 and 15 of
/// proc_pid_stat(5), in hundredths of a second.
pub fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// What holds for every answer, whatever was asked.
pub fn check_reply(sent: &Sent, reply: &Reply) -> Result<(), Finding> {
    let wrong = |kind: &str| Err(sent.finding(format!("{kind}: {} {}", reply.status, reply.text)));
    if reply.status.is_server_error() {
        return wrong("a server's error");
    }
    if !reply.header("cache-control").contains("no-store") {
        return wrong("kept by caches");
    }
    let kind = reply.header("content-type");
    if kind.starts_with("text/html") {
        let scripts = reply.text.matches("<script").count();
        let own = reply.text.matches("<script>document.forms[0].submit()</script>").count();
        if scripts != own || reply.text.contains("<img") {
            return wrong("markup that was sent");
        }
        if !reply.header("content-security-policy").contains("default-src 'none'") {
            return wrong("a page without policy");
        }
    }
    if let Some(error) = reply.json["error"].as_str() {
        let Some(number) = reply.json["error_codes"][0].as_u64() else {
            return wrong("an error without number");
        };
        let description = reply.json["error_description"].as_str().unwrap_or_default();
        let whole = !error.is_empty()
            && description.starts_with(&format!("AADSTS{number}: "))
            && description.contains("Trace ID: ")
            && reply.json["trace_id"] == reply.header("x-ms-request-id")
            && reply.json["error_uri"]
                .as_str()
                .is_some_and(|uri| uri.ends_with(&number.to_string()));
        if !whole || reply.has_token() {
            return wrong("an error out of shape");
        }
        if !matches!(reply.status.as_u16(), 400 | 401 | 405 | 429) {
            return wrong("an error of unknown status");
        }
    }
    for set in reply.headers.get_all("set-cookie") {
        if !set.to_str().is_ok_and(|set| set.starts_with("__Host-vigie-")) {
            return wrong("a foreign cookie");
        }
    }
    Ok(())
}

/// Fields of a body as sent, and whether one is there twice.
pub fn sent_fields(body: &[u8]) -> (BTreeMap<String, String>, bool) {
    let (mut all, mut twice) = (BTreeMap::new(), false);
    for (name, value) in url::form_urlencoded::parse(body) {
        twice |= all.insert(name.into_owned(), value.into_owned()).is_some();
    }
    (all, twice)
}

pub type Fields = Vec<(String, String)>;

pub fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
