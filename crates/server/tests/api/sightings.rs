//! Files, domains, addresses and users, out of what the lake saw.

use crate::odata::{SHA1, event};
use crate::support::{TestSensor, World};
use chrono::TimeDelta;
use serde_json::{Value as Json, json};

const ALL: &[&str] = &[
    "File.Read.All",
    "URL.Read.All",
    "Ip.Read.All",
    "User.Read.All",
    "Machine.Read.All",
    "Alert.Read.All",
];

#[tokio::test]
async fn what_machines_saw_is_told_and_what_nobody_saw_is_not_invented() {
    let world = World::start().await;
    let token = world.token_for(ALL).await;
    let mut one = world.sensor("a.tests.example").await;
    let mut two = world.sensor("b.tests.example").await;
    let now = world.clock.now();
    let early = (now - TimeDelta::days(3)).to_rfc3339();
    let sha256 = "c".repeat(64);
    let file = json!({
        "Timestamp": early, "ReportId": 1, "ActionType": "FileCreated", "FileName": "tool.exe",
        "FolderPath": "C:\\x", "SHA1": SHA1, "SHA256": sha256, "MD5": "d".repeat(32), "FileSize": 4096,
    });
    let process = json!({
        "Timestamp": now.to_rfc3339(), "ReportId": 2, "ActionType": "ProcessCreated",
        "FileName": "renamed.exe", "SHA1": SHA1.to_uppercase(),
        "ProcessVersionInfoCompanyName": "Maker", "ProcessVersionInfoProductName": "Tool", "ProcessId": 5, "AccountName": "mira",
    });
    let certificate = json!({
        "Timestamp": now.to_rfc3339(), "ReportId": 3, "SHA1": SHA1.to_uppercase(), "IsSigned": true,
        "Signer": "Maker Ltd", "SignerHash": "e".repeat(40), "Issuer": "Root", "IsTrusted": true,
    });
    let logon = |number: i64| {
        json!({
            "Timestamp": now.to_rfc3339(), "ReportId": number, "ActionType": "LogonSuccess",
            "LogonType": "Network", "AccountName": "Mira", "AccountDomain": "tests",
            "AccountSid": "S-1-5-21-7",
        })
    };
    one.send(json!({"DeviceFileEvents": [file], "DeviceNetworkEvents": [event(&world)]})).await;
    two.send(json!({
        "DeviceProcessEvents": [process], "DeviceFileCertificateInfo": [certificate],
        "DeviceLogonEvents": [logon(4), logon(5)],
    }))
    .await;
    let get = async |path: &str| world.get(path, &token).await;

    for hash in [SHA1.to_uppercase(), sha256.clone()] {
        let file = get(&format!("/api/files/{hash}")).await;
        assert_eq!(file.status, 200, "{}", file.body);
        for (name, value) in [
            ("sha1", json!(SHA1)),
            ("sha256", json!(sha256)),
            ("size", json!(4096)),
            ("globalPrevalence", Json::Null),
            ("determinationType", json!("Unknown")),
        ] {
            assert_eq!(file.body[name], value, "{hash} {name}");
        }
    }
    let signed = get(&format!("/api/files/{SHA1}")).await.body;
    for (name, value) in [
        ("signer", json!("Maker Ltd")),
        ("issuer", json!("Root")),
        ("isValidCertificate", json!(true)),
        ("filePublisher", json!("Maker")),
        ("fileProductName", json!("Tool")),
    ] {
        assert_eq!(signed[name], value, "{name}");
    }
    let stats = get(&format!("/api/files/{SHA1}/stats")).await.body;
    assert_eq!(stats["organizationPrevalence"], 2);
    assert_eq!(stats["globallyPrevalence"], Json::Null);
    let names = stats["topFileNames"].as_array().expect("names");
    assert!(
        names.contains(&json!("tool.exe")) && names.contains(&json!("renamed.exe")),
        "{names:?}"
    );
    assert!(stats["orgFirstSeen"].as_str() < stats["orgLastSeen"].as_str(), "{stats}");
    let recent = get(&format!("/api/files/{SHA1}/stats?lookBackHours=48")).await.body;
    assert!(!recent["topFileNames"].to_string().contains("tool.exe"), "{recent}");
    let machines = get(&format!("/api/files/{SHA1}/machines")).await.body;
    assert_eq!(machines["value"].as_array().map(Vec::len), Some(2));
    for path in
        [format!("/api/files/{}", "0".repeat(40)), format!("/api/files/{}/stats", "0".repeat(64))]
    {
        let missing = get(&path).await;
        assert_eq!(
            (missing.status, &missing.body["error"]["code"]),
            (404, &json!("ResourceNotFound"))
        );
    }

    let domain = get("/api/domains/WWW.bad.example/stats").await.body;
    assert_eq!(
        (&domain["host"], &domain["organizationPrevalence"]),
        (&json!("www.bad.example"), &json!(1))
    );
    assert_eq!(get("/api/domains/www.bad.example/machines").await.body["value"][0]["id"], one.id());
    let unseen = get("/api/domains/bad.example/stats").await.body;
    assert_eq!(
        (&unseen["organizationPrevalence"], &unseen["orgFirstSeen"]),
        (&json!(0), &Json::Null)
    );
    let address = get("/api/ips/198.51.100.9/stats").await.body;
    assert_eq!(
        (&address["ipAddress"], &address["organizationPrevalence"]),
        (&json!("198.51.100.9"), &json!(1))
    );
    assert!(address["orgFirstSeen"].is_string());
    assert_eq!(get("/api/ips/203.0.113.1/stats").await.body["organizationPrevalence"], 0);
    for (path, code) in [
        ("/api/files/zz", "InvalidHashValue"),
        ("/api/domains/nothing/stats", "InvalidDomainName"),
        ("/api/ips/1.2.3.4.5/stats", "InvalidIpAddress"),
        ("/api/ips/1.2.3.4/stats?lookBackHours=721", "BadRequest"),
        ("/api/ips/1.2.3.4/stats?lookBackHours=x", "BadRequest"),
    ] {
        let refused = get(path).await;
        assert_eq!((refused.status, &refused.body["error"]["code"]), (400, &json!(code)), "{path}");
    }
    users(&world, &token, &one, &two).await;
    world.stop().await;
}

async fn users(world: &World, token: &str, one: &TestSensor, two: &TestSensor) {
    let get = async |path: &str| world.get(path, token).await;
    let mut names = vec![one.id(), two.id()];
    names.sort_unstable();
    for id in ["mira", "MIRA", "tests%5Cmira", "mira@tests.example"] {
        let machines = get(&format!("/api/users/{id}/machines")).await.body;
        let found: Vec<&str> = machines["value"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|m| m["id"].as_str())
            .collect();
        assert_eq!(found, names, "{id}");
    }
    let user = get("/api/users/mira").await.body;
    assert_eq!(user["logOnMachinesCount"], 2);
    assert_eq!(user["mostPrevalentMachineId"], two.id(), "where most logons were");
    assert_eq!(user["logonTypes"], "Interactive,Network");
    assert_eq!(user["isOnlyNetworkUser"], false);
    assert_eq!(get("/api/users/nobody").await.status, 404);
    assert_eq!(get("/api/users/nobody/machines").await.body["value"], json!([]));
    assert_eq!(get("/api/users/o'hara\"|where/machines").await.body["value"], json!([]));
}
