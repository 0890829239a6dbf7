//! The project's chores: `cargo xtask check` is the whole gate, the other commands are its parts.

mod services;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
cargo xtask check     everything CI asks: format, lints, structure, licences, all tests
cargo xtask test      all tests with the services they need (arguments go to cargo nextest)
cargo xtask lint      format and clippy
cargo xtask tidy      structure: crate dependencies, names, forbidden text
cargo xtask deny      licences and sources of dependencies (installs cargo-deny once)
cargo xtask fuzz [queries] M [S]  M minutes of random queries against the engine, from seed S on
cargo xtask fuzz sign-in M [S]    M minutes of damaged requests to sign in, from seed S on
cargo xtask services  install and start what tests need, print the environment, wait for Enter";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        "check" => check(),
        "test" => test(rest),
        "lint" => lint(),
        "tidy" => tidy::run(),
        "deny" => deny(),
        "services" => services(),
        "fuzz" => fuzz(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    // Cheap refusals first; the tests, which take longest and whose summary matters most, last.
    step("tidy", tidy::run)?;
    step("format", format)?;
    step("licences", deny)?;
    step("clippy", clippy)?;
    step("tests", || test(&[]))
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("── {name}");
    let start = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    eprintln!("── {name}: ok after {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn lint() -> Result<()> {
    format()?;
    clippy()
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])
}

fn clippy() -> Result<()> {
    cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
}

/// Runs every test with services up. The product's binaries are built first because acceptance
/// tests start them.
fn test(arguments: &[String]) -> Result<()> {
    cargo(&["build", "--release", "--workspace", "--bins"])?;
    let services = services::start()?;
    let mut command = cargo_command();
    command
        .args(["nextest", "run", "--release", "--workspace", "--no-fail-fast"])
        .args(arguments)
        .envs(services.environment());
    run(&mut command)
}

fn services() -> Result<()> {
    let services = services::start()?;
    for (name, value) in services.environment() {
        println!("export {name}={value}");
    }
    eprintln!("press Enter to stop them");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Advisories need a database from the network, so the gate checks what can be checked offline.
fn deny() -> Result<()> {
    const VERSION: &str = "0.20.2";
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        let mut install = cargo_command();
        install.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]);
        install.arg(&tools).arg("--quiet");
        run(&mut install)?;
    }
    let mut command = Command::new(program);
    command.current_dir(root()).args(["--all-features", "check", "--hide-inclusion-graph"]);
    command.args(["licenses", "bans", "sources"]);
    run(&mut command)
}

/// Cargo, without what `cargo run` told this program of itself: build scripts of dependencies look at
/// `CARGO_MANIFEST_DIR`, and would make cargo compile everything a second time.
fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let own = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"];
        if name.to_str().is_some_and(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds within the workspace, so that DataFusion keeps the features it was built with.
fn fuzz(arguments: &[String]) -> Result<()> {
    let (example, rest) = match arguments.split_first() {
        Some((what, rest)) if what == "sign-in" => ("fuzz_sign_in", rest),
        Some((what, rest)) if what == "queries" => ("fuzz", rest),
        _ => ("fuzz", arguments),
    };
    cargo(&["build", "--release", "--workspace", "--example", example])?;
    run(Command::new(root().join("target/release/examples").join(example)).args(rest))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(cargo_command().args(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}

/// The repository's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").into()
}
