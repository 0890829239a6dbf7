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
