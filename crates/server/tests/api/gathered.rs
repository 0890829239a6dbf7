//! Device health, information gathering and authenticated scans.

use crate::support::World;
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value as Json, json};
use std::io::Read as _;

#[tokio::test]
async fn device_health_is_what_machines_report() {
    let world = World::start().await;
    let token = world.token_for(&["Machine.Read.All", "Vulnerability.Read.All"]).await;
    let list = async |path: &str| {
        let found = world.get(path, &token).await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
        found.body
    };
    assert_eq!(list("/api/deviceavinfo").await["value"], json!([]));
    let export = "/api/machines/InfoGatheringExport";
    assert_eq!(list(export).await["exportFiles"], json!([]));
    let mut sensor = world.sensor("elm.tests.example").await;
    let gathered = json!({
        "AvMode": "0", "AvSignatureVersion": "1.371.1", "AvIsSignatureUptoDate": "true",
        "AvScanResults": "{\"Quick\":{\"ScanStatus\":\"Completed\",\"ErrorCode\":\"\",\"Timestamp\":\"2026-01-01T00:00:00Z\"}}",
    });
    sensor
        .send(json!({"DeviceTvmInfoGathering": [{
            "Timestamp": world.clock.now().to_rfc3339(), "LastSeenTime": world.clock.now().to_rfc3339(),
            "AdditionalFields": gathered,
        }]}))
        .await;
    let health = list("/api/deviceAvInfo?$filter=avMode eq '0' and osKind eq 'linux'").await;
    let health = &health["value"][0];
    for (name, value) in [
        ("machineId", json!(sensor.id())),
        ("computerDnsName", json!("elm.tests.example")),
        ("avSignatureVersion", json!("1.371.1")),
        ("avIsSignatureUpToDate", json!("True")),
        ("quickScanResult", json!("Completed")),
        ("avEngineVersion", Json::Null),
    ] {
        assert_eq!(health[name], value, "{name}: {health}");
    }
    assert_eq!(list("/api/deviceavinfo?$filter=avMode ne '0'").await["value"], json!([]));
    assert_eq!(list("/api/deviceavinfo/$count").await, json!(1));

    let exported = list("/api/machines/InfoGatheringExport?sasValidHours=2").await;
    let link = exported["exportFiles"][0].as_str().expect("a link").to_owned();
    let file = world.http.get(&link).send().await.expect("answered");
    assert_eq!(file.status().as_u16(), 200, "the link needs no token");
    let bytes = file.bytes().await.expect("bytes");
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_ref()).read_to_string(&mut text).expect("gzip");
    let row: Json = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!(row["DeviceId"], sensor.id());
    assert_eq!(row["DeviceGatheredInfo"]["AvMode"], "0");
    let forged = link.replace("sig=", "sig=00");
    assert_eq!(world.http.get(&forged).send().await.expect("answered").status().as_u16(), 403);
    world.clock.advance(TimeDelta::hours(3));
    assert_eq!(world.http.get(&link).send().await.expect("answered").status().as_u16(), 403);
    let token = world.token_for(&["Vulnerability.Read.All"]).await;
    let refused = world.get("/api/machines/InfoGatheringExport?sasValidHours=7", &token).await;
    assert_eq!(refused.status, 400);
    world.stop().await;
}

#[tokio::test]
async fn scan_definitions_are_kept_and_their_secrets_never_shown() {
    let world = World::start().await;
    let token = world.token_for(&["Machine.ReadWrite.All", "Machine.Read.All"]).await;
    let (_, theirs, _) = world.second_tenant(&["Machine.ReadWrite.All", "Machine.Read.All"]).await;
    let sensor = world.sensor("elm.tests.example").await;
    let base = "/api/DeviceAuthenticatedScanDefinitions";
    let new = json!({
        "scanType": "windows", "scanName": "Nightly", "isActive": true, "target": "192.0.2.1, 192.0.2.2",
        "intervalInHours": 4, "targetType": "Ip", "scannerAgent": {"machineId": sensor.id()},
        "scanAuthenticationParams": {
            "@odata.type": "#microsoft.windowsDefenderATP.api.WindowsAuthParams", "type": "Kerberos",
            "username": "scanner", "domain": "pass-phrase",
        },
    });
    let made = world.post(base, &token, new.clone()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(made.body["scanType"], "Windows");
    assert_eq!(made.body["scanAuthenticationParams"], Json::Null);
    assert_eq!(made.body["scannerAgent"]["machineName"], "elm.tests.example");
    let id = made.body["id"].as_str().expect("an id").to_owned();
    let path = format!("{base}/{id}");
    let patched = world
        .call(Method::PATCH, &path, &token, Some(json!({"isActive": false, "intervalInHours": 8})))
        .await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert_eq!(
        (&patched.body["isActive"], &patched.body["scanName"]),
        (&json!(false), &json!("Nightly"))
    );
    let listed = world.get(&format!("{base}?$filter=isActive eq false"), &token).await.body;
    assert_eq!(listed["value"][0]["intervalInHours"], 8);
    assert!(!listed.to_string().contains("pass-phrase"));
    let agents = world.get("/api/DeviceAuthenticatedScanAgents", &token).await.body;
    assert_eq!(agents["value"][0]["machineId"], sensor.id());
    let agent =
        world.get(&format!("/api/DeviceAuthenticatedScanAgents/{}", sensor.id()), &token).await;
    assert_eq!(agent.status, 200, "{}", agent.body);
    for (member, value, status) in [
        ("scanType", json!("Router"), 400),
        ("target", json!("nowhere"), 400),
        ("intervalInHours", json!(0), 400),
        ("scannerAgent", json!({"machineId": "none"}), 404),
        ("scannerAgent", Json::Null, 400),
        ("scanAuthenticationParams", Json::Null, 400),
    ] {
        let mut bad = new.clone();
        bad[member] = value;
        assert_eq!(world.post(base, &token, bad).await.status, status, "{member}");
    }
    let ids = json!({"ScanDefinitionIds": [id]});
    let history = format!("{base}/GetScanHistoryByScanDefinitionId");
    assert_eq!(world.post(&history, &token, ids.clone()).await.body["value"], json!([]));
    assert_eq!(world.post(&history, &theirs, ids.clone()).await.status, 404);
    let sessions = json!({"SessionIds": ["01decc497f4b4ec49a5fc4e12597f8c8"]});
    let session = world.post(&format!("{base}/GetScanHistoryBySessionId"), &token, sessions).await;
    assert_eq!(session.body["value"], json!([]));
    assert_eq!(world.get(base, &theirs).await.body["value"], json!([]));
    assert_eq!(
        world.call(Method::PATCH, &path, &theirs, Some(json!({"isActive": true}))).await.status,
        404
    );
    let delete = format!("{base}/BatchDelete");
    assert_eq!(world.post(&delete, &theirs, ids.clone()).await.status, 404);
    assert_eq!(world.post(&delete, &token, ids.clone()).await.status, 200);
    assert_eq!(world.post(&delete, &token, ids).await.status, 404);
    world.stop().await;
}
