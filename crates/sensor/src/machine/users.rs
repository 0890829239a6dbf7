//! Who is logged on: the sessions of `utmp`, else the owners of processes at a terminal.

use crate::process::{Processes, pids, read_image};
use crate::sources::utmp;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::path::Path;
use vigie_contract::sensor::LogonUser;

/// The users logged on at this moment, one entry a user.
pub fn logged_on_users(processes: &Processes, now: DateTime<Utc>) -> Vec<LogonUser> {
    let mut users: BTreeMap<String, LogonUser> = BTreeMap::new();
    let mut add = |name: String, uid: Option<u32>, since: DateTime<Utc>, remote: bool| {
        let logon_type = if remote { "RemoteInteractive" } else { "Interactive" };
        let user = users.entry(name.clone()).or_insert_with(|| LogonUser {
            account_name: name,
            account_domain: processes.host().to_owned(),
            account_sid: uid.map(|uid| uid.to_string()),
            first_seen: since,
            last_seen: now,
            logon_type: logon_type.to_owned(),
            is_domain_admin: false,
            is_only_network_user: remote,
        });
        user.first_seen = user.first_seen.min(since);
        user.is_only_network_user &= remote;
    };
    let sessions = utmp::records(Path::new("/run/utmp"), 0).unwrap_or_default();
    for session in sessions.iter().filter(|record| record.is_user()) {
        add(session.user.clone(), None, session.at, session.is_remote());
    }
    // Systems without utmp (and containers): whoever runs something at a terminal is there.
    for pid in pids() {
        let Some(image) = read_image(pid).filter(|image| image.terminal != 0) else { continue };
        let since = processes.find(pid).map_or(now, |process| process.started);
        let uid = image.login_uid.unwrap_or(image.uid);
        add(processes.account_name(uid), Some(uid), since, false);
    }
    users.into_values().collect()
}
