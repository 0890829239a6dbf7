//! Clients of others, unmodified.

use crate::support::{Up, output};
use std::process::Command;

/// The interpreter with the clients installed, which `cargo xtask test` provides.
fn python() -> Option<String> {
    let python = std::env::var("VIGIE_TEST_PYTHON").ok();
    if python.is_none() {
        println!("left out: VIGIE_TEST_PYTHON names no interpreter with the clients");
    }
    python
}

#[test]
fn msal_for_python_gets_an_application_token_and_lists_alerts() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = Up::on(folder.path(), &["--lab", "1"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance/msal_application.py");
    let mut run = Command::new(python);
    run.args([script, &server.url(), &server.value("tenant")])
        .args([server.value("application"), server.value("secret")])
        .env("REQUESTS_CA_BUNDLE", server.value("certificate"));
    println!("{}", output(&mut run));
    assert!(!server.log().contains(&server.value("secret")), "the secret is in the log");
}

/// One library drops the port of the authority when it asks for a user's realm, so this server
/// listens where none is needed: on an address of the loopback network that is this test's own.
#[test]
fn clients_of_others_sign_users_in() {
    let Some(python) = python() else { return };
    if !rustix::process::geteuid().is_root() {
        println!("left out: port 443 needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pid = std::process::id();
    let listen = format!("127.{}.{}.{}:443", 64 + pid % 64, pid / 64 % 250, 1 + pid / 16000 % 250);
    let server = Up::on(folder.path(), &["--lab", "1", "--listen", &listen]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance/user_context.py");
    let mut run = Command::new(python);
    run.args([script, server.url().trim_end_matches(":443"), &server.value("tenant")])
        .args([server.value("application"), server.value("secret")])
        .arg(crate::support::VIGIE)
        .env("VIGIE_DATA", folder.path().join("data"))
        .env("REQUESTS_CA_BUNDLE", server.value("certificate"));
    println!("{}", output(&mut run));
    let log = server.log();
    for secret in [server.value("secret"), "correct horse battery".to_owned()] {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
}

/// MSAL for Node and openid-client. The script runs in a folder that holds the packages, since Node
/// looks for them beside it.
#[test]
fn clients_of_others_on_node_sign_in() {
    let Some(python) = python() else { return };
    let (Ok(node), Ok(modules)) =
        (std::env::var("VIGIE_TEST_NODE"), std::env::var("VIGIE_TEST_NODE_MODULES"))
    else {
        println!("left out: VIGIE_TEST_NODE and VIGIE_TEST_NODE_MODULES name no Node");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Up::on(folder.path(), &["--lab", "1"]);
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance");
    let script = folder.path().join("node_clients.mjs");
    std::fs::copy(format!("{scripts}/node_clients.mjs"), &script).unwrap();
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let mut run = Command::new(node);
    run.arg(script)
        .args([server.url(), server.value("tenant")])
        .args([server.value("application"), server.value("secret")])
        .args([crate::support::VIGIE, &python, scripts])
        .env("VIGIE_DATA", folder.path().join("data"))
        .env("NODE_EXTRA_CA_CERTS", server.value("certificate"))
        .env("REQUESTS_CA_BUNDLE", server.value("certificate"));
    println!("{}", output(&mut run));
    let log = server.log();
    for secret in [server.value("secret"), "correct horse battery".to_owned()] {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
}

/// The commands of the tutorial, as they stand there.
#[test]
fn the_tutorial_of_sign_in_runs_as_written() {
    let text = include_str!("../../../../docs/sign-in.md");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: Vec<&str> = blocks.collect();
    assert!(script.len() > 5, "the tutorial has commands");
    let folder = tempfile::tempdir().unwrap();
    let server = Up::on(folder.path(), &["--lab", "1"]);
    let programs = std::path::Path::new(crate::support::VIGIE).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut run = Command::new("bash");
    run.args(["-euo", "pipefail", "-c", &script.concat()])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("VIGIE_DATA", folder.path().join("data"))
        .env("URL", server.url())
        .env("TENANT", server.value("tenant"))
        .env("CURL_CA_BUNDLE", server.value("certificate"));
    let said = output(&mut run);
    println!("{said}");
    assert!(said.contains("\"value\""), "{said}");
}
