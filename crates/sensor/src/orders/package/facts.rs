//! What the sensor itself collects, mostly out of `/proc`.

use crate::orders::executor::Executor;
use crate::orders::quarantine::walk;
use crate::process::pids;
use crate::sources::sock_diag::Sockets;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Open files of one process that are listed.
const MOST_OPEN_FILES: usize = 500;
/// Files that changed within this time are recent …
const RECENT: Duration = Duration::from_secs(3 * 86_400);
/// … and listed up to this number, looked for up to this long.
const MOST_RECENT: usize = 20_000;
const LONGEST_LOOK: Duration = Duration::from_secs(8);
/// Files of one folder of autostarts.
const MOST_AUTOSTARTS: usize = 2000;

pub fn machine(executor: &Executor) -> Result<Value> {
    let text = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
    Ok(json!({
        "host": executor.processes.host(),
        "release": text("/etc/os-release"),
        "kernel": text("/proc/version"),
        "commandLine": text("/proc/cmdline"),
        "uptimeSeconds": text("/proc/uptime").split(' ').next().unwrap_or_default(),
        "load": text("/proc/loadavg"),
        "memory": text("/proc/meminfo"),
        "mounts": text("/proc/mounts"),
        "time": executor.clock.now(),
    }))
}

/// All processes with parents, open files and environment's names.
pub fn processes(executor: &Executor) -> Result<Value> {
    let mut all = Vec::new();
    for pid in pids() {
        let Some(process) = executor.processes.find(pid) else { continue };
        let image = &process.image;
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let hashes = executor.processes.hash_file(Path::new(&image.path));
        let status = read_to_string(folder.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches(':').trim().to_owned())
        };
        all.push(json!({
            "pid": pid, "parent": process.parent_pid, "name": image.name, "path": image.path,
            "commandLine": image.command_line, "folder": image.current_directory,
            "uid": image.uid, "effectiveUid": image.effective_uid, "loginUid": image.login_uid,
            "started": process.started, "state": field("State"), "threads": field("Threads"),
            "capabilities": field("CapEff"), "tracer": field("TracerPid"),
            "cgroup": read_to_string(folder.join("cgroup")).unwrap_or_default().trim(),
            "root": std::fs::read_link(folder.join("root")).ok(),
            "sha1": hashes.as_ref().map(|hashes| &hashes.sha1),
            "sha256": hashes.as_ref().map(|hashes| &hashes.sha256),
            "openFiles": open_files(&folder), "libraries": libraries(&folder),
            "variables": variables(&folder),
        }));
    }
    Ok(all.into())
}

fn open_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        Some(format!("{} {}", entry.file_name().to_string_lossy(), target.display()))
    });
    links.take(MOST_OPEN_FILES).collect()
}

fn libraries(folder: &Path) -> Vec<String> {
    let maps = read_to_string(folder.join("maps")).unwrap_or_default();
    let mut paths: Vec<String> = maps
        .lines()
        .filter(|line| line.contains("r-xp"))
        .filter_map(|line| Some(line[line.find('/')?..].to_owned()))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Names of environment variables, and the values of those that change what a program loads. The
/// others hold secrets too often.
fn variables(folder: &Path) -> Vec<String> {
    let bytes = std::fs::read(folder.join("environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let telling = ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "PYTHONPATH"];
    text.split('\0')
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| match telling.contains(&name) {
            true => format!("{name}={value}"),
            false => name.to_owned(),
        })
        .collect()
}

/// TCP sockets with their inode, which the lists of open files name, and the kernel's other tables.
pub fn network(_: &Executor) -> Result<Value> {
    let sockets = Sockets::open().and_then(|mut sockets| sockets.tcp());
    let tcp: Vec<Value> = sockets
        .context("the kernel's table of sockets")?
        .iter()
        .map(|entry| {
            json!({"state": entry.state, "local": entry.local.to_string(),
                   "remote": entry.remote.to_string(), "uid": entry.uid, "inode": entry.inode})
        })
        .collect();
    let table = |name: &str| read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    Ok(json!({
        "tcp": tcp, "udp": table("udp"), "udp6": table("udp6"), "unix": table("unix"),
        "raw": table("raw"), "packet": table("packet"), "arp": table("arp"),
        "hosts": read_to_string("/etc/hosts").unwrap_or_default(),
        "resolver": read_to_string("/etc/resolv.conf").unwrap_or_default(),
    }))
}

pub fn kernel_modules(_: &Executor) -> Result<Value> {
    let text = read_to_string("/proc/modules").context("/proc/modules")?;
    let modules = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(json!({"name": words.next()?, "size": words.next()?, "rest": words.collect::<Vec<_>>()}))
    });
    let taint = read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    Ok(json!({"modules": modules.collect::<Vec<_>>(), "tainted": taint.trim()}))
}

/// Accounts without their password hashes.
pub fn users(_: &Executor) -> Result<Value> {
    let lines = |path: &str| -> Vec<String> {
        let text = read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let with_password: Vec<String> = lines("/etc/shadow")
        .iter()
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with(['*', '!', ':']))
        .map(|(name, _)| name.to_owned())
        .collect();
    Ok(json!({
        "accounts": lines("/etc/passwd"), "groups": lines("/etc/group"),
        "accountsWithPassword": with_password,
    }))
}

/// Files that changed lately where everybody may write or programs lie, newest first.
pub fn recent_files(executor: &Executor) -> Result<Value> {
    let mut folders = executor.policy.quick_scan_folders.clone();
    folders.extend(["/usr/bin", "/usr/sbin", "/usr/lib/systemd"].map(PathBuf::from));
    let until = Instant::now() + LONGEST_LOOK;
    let since = SystemTime::now() - RECENT;
    let mut found = Vec::new();
    walk(&folders, &|| Instant::now() >= until, &mut |path, data| {
        if let Some(modified) = data.modified().ok().filter(|modified| *modified >= since) {
            found.push((modified, path.to_owned(), data.len()));
        }
    });
    let complete = Instant::now() < until;
    found.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
    let total = found.len();
    found.truncate(MOST_RECENT);
    let files = found.into_iter().map(|(modified, path, size)| {
        json!({"path": path, "modified": chrono::DateTime::<chrono::Utc>::from(modified),
               "size": size})
    });
    Ok(json!({"complete": complete, "total": total, "files": files.collect::<Vec<_>>()}))
}

/// Files from which programs start by themselves.
pub fn autostart_files() -> Vec<PathBuf> {
    let folders = [
        "/etc/systemd/system",
        "/etc/systemd/user",
        "/run/systemd/system",
        "/etc/cron.d",
        "/etc/cron.hourly",
        "/etc/cron.daily",
        "/etc/cron.weekly",
        "/etc/cron.monthly",
        "/var/spool/cron",
        "/etc/init.d",
        "/etc/profile.d",
        "/etc/xdg/autostart",
        "/etc/udev/rules.d",
        "/etc/modules-load.d",
        "/etc/pam.d",
        "/etc/update-motd.d",
    ];
    let files = [
        "/etc/crontab",
        "/etc/anacrontab",
        "/etc/rc.local",
        "/etc/profile",
        "/etc/bash.bashrc",
        "/etc/environment",
        "/etc/ld.so.preload",
        "/etc/ld.so.conf",
        "/etc/modules",
    ];
    let mut all: Vec<PathBuf> =
        files.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
    let folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    walk(&folders, &|| false, &mut |path, _| {
        if all.len() < MOST_AUTOSTARTS {
            all.push(path.to_owned());
        }
    });
    for home in homes() {
        for name in [".profile", ".bash_profile", ".bashrc", ".bash_login", ".zshrc", ".ssh/rc"] {
            all.push(home.join(name));
        }
        let personal = [home.join(".config/systemd"), home.join(".config/autostart")];
        walk(&personal, &|| false, &mut |path, _| {
            if all.len() < MOST_AUTOSTARTS {
                all.push(path.to_owned());
            }
        });
    }
    all.retain(|path| path.is_file());
    all
}

/// Further files of the system that tell how it is set up, and the end of the audit log.
pub fn system_files() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["/etc/ssh/sshd_config", "/etc/sudoers", "/etc/fstab", "/var/log/audit/audit.log"]
            .iter()
            .map(PathBuf::from)
            .collect();
    all.extend(homes().into_iter().map(|home| home.join(".ssh/authorized_keys")));
    walk(&["/etc/sudoers.d".into()], &|| false, &mut |path, _| all.push(path.to_owned()));
    all.retain(|path| path.is_file());
    all
}

fn homes() -> Vec<PathBuf> {
    let text = read_to_string("/etc/passwd").unwrap_or_default();
    let mut homes: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(':').nth(5))
        .filter(|home| home.len() > 1)
        .map(PathBuf::from)
        .filter(|home| home.is_dir())
        .collect();
    homes.sort();
    homes.dedup();
    homes
}
