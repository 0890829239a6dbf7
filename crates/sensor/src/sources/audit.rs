//! Logons from the kernel's audit records, which PAM programs (sshd, login, su, sudo, cron) write.
//! The records are read from the multicast group, beside any audit daemon; no rules are set.

use super::netlink::{Netlink, Received};
use super::network::ip_type;
use super::{Context, TICK};
use crate::rows::Row;
use std::collections::HashMap;
use std::net::IpAddr;

const NETLINK_AUDIT: isize = 9;
/// `AUDIT_NLGRP_READLOG` as a bit.
const READLOG: u32 = 1;
const USER_AUTH: u16 = 1100;
const USER_START: u16 = 1105;
const USER_LOGIN: u16 = 1112;
const SOURCE: &str = "logon";

pub struct Listener {
    netlink: Netlink,
}

impl Listener {
    pub fn open() -> Result<Listener, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let netlink = Netlink::open(NETLINK_AUDIT, READLOG).map_err(|error| error.to_string())?;
        netlink.set_receive_buffer(4 * 1024 * 1024);
        Ok(Listener { netlink })
    }

    pub fn run(mut self, context: &Context) {
        while !context.stop.is_cancelled() {
            match self.netlink.receive(TICK) {
                Ok(Received::Bytes(length)) => {
                    for (kind, body) in self.netlink.messages(length) {
                        if let Some(logon) = parse(kind, &String::from_utf8_lossy(body)) {
                            context.sink.put(SOURCE, "DeviceLogonEvents", row(context, &logon));
                        }
                    }
                }
                Ok(Received::Nothing) => {}
                // The kernel does not say how many were dropped.
                Ok(Received::Overrun) => context.sink.lost(SOURCE, 1),
                Err(error) => {
                    tracing::error!(%error, "audit failed, no more logon events");
                    return;
                }
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct Logon {
    succeeded: bool,
    logon_type: &'static str,
    account: String,
    pid: Option<u32>,
    session: Option<u32>,
    address: Option<IpAddr>,
    host: String,
    terminal: String,
}

/// A record that tells of a logon. `USER_AUTH` counts when it failed (success is but half a logon),
/// `USER_START` for programs that write no `USER_LOGIN`.
fn parse(kind: u16, text: &str) -> Option<Logon> {
    if !matches!(kind, USER_AUTH | USER_START | USER_LOGIN) {
        return None;
    }
    let fields = fields(text);
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let succeeded = field("res") == "success";
    let program = field("exe").rsplit('/').next().unwrap_or_default();
    match kind {
        USER_AUTH if succeeded => return None,
        USER_START if !field("op").starts_with("PAM:session_open") => return None,
        // These tell the same again as USER_LOGIN.
        USER_START if matches!(program, "sshd" | "sshd-session" | "login") => return None,
        _ => {}
    }
    let address: Option<IpAddr> = field("addr").parse().ok();
    let terminal = field("terminal").to_owned();
    let logon_type = match program {
        "sshd" | "sshd-session" => "RemoteInteractive",
        "cron" | "crond" | "atd" => "Batch",
        "systemd" | "systemd-executor" => "Service",
        _ if address.is_some() => "Network",
        _ => "Interactive",
    };
    let account = [field("acct"), field("id")].into_iter().find(|name| !name.is_empty())?;
    Some(Logon {
        succeeded,
        logon_type,
        account: account.to_owned(),
        pid: field("pid").parse().ok(),
        session: field("ses").parse().ok().filter(|&session| session != u32::MAX),
        address,
        host: field("hostname").trim_matches('?').to_owned(),
        terminal,
    })
}

/// `name=value` pairs, the program's own inside `msg='…'` among them. Values with spaces stand in
/// double quotes; account names that are not plain text come in hexadecimal digits without quotes.
fn fields(text: &str) -> HashMap<String, String> {
    let text = text.replace("msg='", " ");
    let mut fields = HashMap::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.rsplit(' ').next().unwrap_or_default();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"').unwrap_or((quoted, ""));
                (value.to_owned(), next)
            }
            None => {
                let end = after.find([' ', '\'', '\0']).unwrap_or(after.len());
                let (value, next) = after.split_at(end);
                let plain = if name == "acct" { from_hex(value) } else { None };
                (plain.unwrap_or_else(|| value.to_owned()), next)
            }
        };
        fields.entry(name.to_owned()).or_insert(value);
        rest = next;
    }
    fields
}

fn from_hex(text: &str) -> Option<String> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(byte).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

fn row(context: &Context, logon: &Logon) -> Row {
    let action = if logon.succeeded { "LogonSuccess" } else { "LogonFailed" };
    let mut row = Row::new(context.clock.now(), action);
    match logon.account.parse() {
        // USER_LOGIN of a known account gives its number.
        Ok(uid) => {
            row.text("AccountName", context.processes.account_name(uid));
            row.text("AccountSid", logon.account.clone());
        }
        Err(_) => row.text("AccountName", logon.account.clone()),
    }
    row.text("AccountDomain", context.processes.host());
    row.text("LogonType", logon.logon_type);
    row.flag("IsLocalAdmin", matches!(logon.account.as_str(), "root" | "0"));
    row.text("RemoteDeviceName", logon.host.clone());
    if let Some(address) = logon.address {
        row.text("RemoteIP", address.to_string());
        row.text("RemoteIPType", ip_type(address));
    }
    if let Some(session) = logon.session {
        row.number("LogonId", session);
    }
    if !logon.terminal.is_empty() {
        row.json("AdditionalFields", &serde_json::json!({ "Terminal": logon.terminal }));
    }
    if let Some(process) = logon.pid.and_then(|pid| context.processes.find(pid)) {
        context.processes.describe_initiating(&mut row, &process);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: &str, acct: &str, exe: &str, addr: &str, res: &str) -> String {
        format!(
            "audit(1700000000.123:45): pid=812 uid=0 auid=1000 ses=7 subj=unconfined \
             msg='op={op} {acct} exe=\"{exe}\" hostname={addr} addr={addr} terminal=ssh res={res}'"
        )
    }

    #[test]
    fn logons_are_told_from_other_records() {
        let login = record("login", "id=1000", "/usr/sbin/sshd", "192.0.2.5", "success");
        let found = parse(USER_LOGIN, &login).unwrap();
        assert!(found.succeeded);
        assert_eq!((found.logon_type, found.account.as_str()), ("RemoteInteractive", "1000"));
        assert_eq!((found.pid, found.session), (Some(812), Some(7)));
        assert_eq!(found.address, Some("192.0.2.5".parse().unwrap()));
        assert_eq!(found.terminal, "ssh");

        let wrong = record("PAM:authentication", "acct=\"ada\"", "/usr/sbin/sshd", "::1", "failed");
        let found = parse(USER_AUTH, &wrong).unwrap();
        assert!(!found.succeeded && found.account == "ada");
        let right =
            record("PAM:authentication", "acct=\"ada\"", "/usr/sbin/sshd", "::1", "success");
        assert_eq!(parse(USER_AUTH, &right), None);

        let cron = record("PAM:session_open", "acct=\"root\"", "/usr/sbin/cron", "?", "success");
        assert_eq!(parse(USER_START, &cron).unwrap().logon_type, "Batch");
        let ssh = record("PAM:session_open", "acct=\"root\"", "/usr/sbin/sshd", "?", "success");
        assert_eq!(parse(USER_START, &ssh), None);
        assert_eq!(parse(1300, &cron), None);
    }

    #[test]
    fn an_account_name_in_hexadecimal_digits_is_read() {
        let text =
            record("login", "acct=28756E6B6E6F776E207573657229", "/bin/login", "?", "failed");
        assert_eq!(parse(USER_LOGIN, &text).unwrap().account, "(unknown user)");
    }
}
