//! Starting: again, twice, on a used port, without root, with a JSON log, from a document.

use crate::support::{Up, VIGIE, free_port, output, refusal, vigie};
use serde_json::Value as Json;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[test]
fn a_second_start_reuses_everything_and_prints_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let first = Up::on(folder.path(), &[]);
    let (tenant, application, secret) =
        (first.value("tenant"), first.value("application"), first.value("secret"));
    let ca = first.value("certificate");
    let (status, said) = first.interrupt();
    assert!(status.success(), "{status}");
    assert_eq!(said, "stopping");
    let second = Up::on(folder.path(), &[]);
    assert_eq!((second.value("tenant"), second.value("certificate")), (tenant.clone(), ca));
    for word in ["secret", "password", &secret] {
        assert!(!second.said.contains(word), "{}", second.said);
    }
    let mut token = vigie(&["token", "--url", &second.url(), "--ca", &second.value("certificate")]);
    token.args(["--tenant", &tenant, "--client-id", &application]);
    let token = output(token.env("VIGIE_CLIENT_SECRET", &secret));
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
}

#[test]
fn one_server_a_folder_and_one_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let address = format!("127.0.0.1:{}", free_port());
    let _server = Up::on(folder.path(), &["--listen", &address]);
    let mut second = vigie(&["up", "--no-sensor", "--listen", "127.0.0.1:0", "--data"]);
    let said = refusal(second.arg(&data));
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    let mut other = vigie(&["up", "--no-sensor", "--listen", &address, "--data"]);
    let said = refusal(other.arg(folder.path().join("other")));
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
}

#[test]
fn the_log_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = vigie(&["up", "--listen", "127.0.0.1:0", "--log", "json", "--data"]);
    command.arg(folder.path().join("data")).env("RUST_LOG", "info");
    let server = Up::start(&mut command, &log);
    let text = server.log();
    assert!(text.lines().count() > 2, "{text}");
    for line in text.lines() {
        let line: Json = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    let said = refusal(vigie(&["up", "--no-sensor"]).env("RUST_LOG", "a=b=c"));
    assert!(said.contains("RUST_LOG"), "{said}");
}

#[test]
fn without_root_it_runs_and_says_what_it_cannot_see() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can become somebody else");
        return;
    }
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().unwrap();
    // The program may lie where only root looks.
    let program = folder.path().join("vigie");
    std::fs::copy(VIGIE, &program).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(&program);
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
    command.uid(NOBODY).gid(NOBODY).current_dir(folder.path()).env("HOME", folder.path());
    let server = Up::start(&mut command, &folder.path().join("log"));
    let network = server.value("network");
    assert!(network.starts_with("sock-diag"), "{network}");
    for source in ["process", "file", "logon"] {
        let provider = server.value(source);
        assert!(provider.contains("root"), "{source}: {provider}");
    }
    let machines = output(
        vigie(&["machines", "list", "-o", "json"]).env("VIGIE_DATA", folder.path().join("data")),
    );
    assert_eq!(machines.lines().count(), 1, "{machines}");
}

#[test]
fn a_document_makes_the_environment_of_a_test() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("tenant.yaml");
    let text = "\
tenants:
  - id: 11111111-2222-4333-8444-555555555555
    displayName: Pipeline
    domains: [pipeline.example]
    lab: { machines: 2 }
    applications:
      - appId: 66666666-7777-4888-9999-aaaaaaaaaaaa
        displayName: connector
        permissions: [Machine.Read.All, AdvancedQuery.Read.All]
        secrets:
          - secret: constant-secret-of-the-pipeline
";
    std::fs::write(&document, text).unwrap();
    let server = Up::on(folder.path(), &["--apply", document.to_str().unwrap()]);
    let ask = |arguments: &[&str]| {
        let mut command = vigie(arguments);
        command
            .args(["--url", &server.url(), "--ca", &server.value("certificate")])
            .args(["--tenant", "pipeline.example"])
            .args(["--client-id", "66666666-7777-4888-9999-aaaaaaaaaaaa"])
            .env("VIGIE_CLIENT_SECRET", "constant-secret-of-the-pipeline");
        output(&mut command)
    };
    let machines = ask(&["machines", "list", "-o", "json"]);
    assert_eq!(machines.lines().count(), 2, "{machines}");
    let data = folder.path().join("data");
    let export = || output(vigie(&["export"]).env("VIGIE_DATA", &data));
    let exported = export();
    assert!(exported.contains("Pipeline") && exported.contains("machines: 2"), "{exported}");
    assert!(!exported.contains("constant-secret"), "{exported}");
    // What was exported changes nothing when it is applied.
    std::fs::write(&document, &exported).unwrap();
    output(vigie(&["apply", "-f", document.to_str().unwrap()]).env("VIGIE_DATA", &data));
    assert_eq!(export(), exported);
}
