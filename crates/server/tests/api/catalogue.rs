//! Every operation of the catalogue: tried across tenants, and compared in shape with the documented
//! examples where those are at hand.

use crate::odata::{SHA1, alert};
use crate::support::{DEFENDER, World, config};
use reqwest::Method;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;
use std::path::Path;
use vigie_contract::clock::Clock;
use vigie_contract::operations::{OPERATIONS, Operation};
use vigie_server::ServerConfig;

/// Text in everything that belongs to the first tenant and that nobody sends.
const MARK: &str = "ours-alone";

/// Ids of what a tenant has, by the group of operations that take them.
pub struct Things {
    pub machine: String,
    pub alert: String,
    pub action: String,
    pub indicator: String,
    pub scan: String,
    pub investigation: String,
}

impl Things {
    /// What stands for the parameter of an operation's path.
    pub fn parameter(&self, operation: &Operation) -> String {
        match operation.group.as_str() {
            "Alerts" => self.alert.clone(),
            "Files" => SHA1.to_owned(),
            "Domains" => "www.bad.example".to_owned(),
            "IPs" => "198.51.100.9".to_owned(),
            "Users" => "mira".to_owned(),
            "Indicators" => self.indicator.clone(),
            "Authenticated scans" if operation.id.contains("Agents") => self.machine.clone(),
            "Authenticated scans" => self.scan.clone(),
            _ if operation.path.starts_with("/api/investigations") => self.investigation.clone(),
            _ if operation.path.to_lowercase().starts_with("/api/machineactions") => {
                self.action.clone()
            }
            _ => self.machine.clone(),
        }
    }

    pub fn path(&self, world: &World, operation: &Operation) -> String {
        let now = world.clock.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        match operation.id.as_str() {
            "machines.findByIp" => {
                return format!("/api/machines/findbyip(ip='192.0.2.17',timestamp={now})");
            }
            "machines.find" => {
                return format!("/api/machines/find(timestamp={now},key='192.0.2.17')");
            }
            "machines.findByTag" => return "/api/machines/findbytag?tag=office".to_owned(),
            _ => {}
        }
        let mut path = String::new();
        let mut rest = operation.path.split('?').next().unwrap_or_default();
        while let Some((before, after)) = rest.split_once('{') {
            path.push_str(before);
            path.push_str(&self.parameter(operation));
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        path + rest
    }

    /// A body with what the operation documents, its ids this tenant's.
    pub fn body(&self, world: &World, operation: &Operation) -> Option<Json> {
        let members = operation.request_body.as_ref()?;
        let mut body = Map::new();
        for (name, member) in members {
            let ids = json!([self.parameter(operation)]);
            let value = match (name.as_str(), member.r#type.as_deref().unwrap_or_default()) {
                ("machineId", _) => json!(self.machine),
                ("MachineIds", _) => json!([self.machine]),
                ("reportId", _) => json!("77"),
                ("eventTime", _) => json!(world.clock.now().to_rfc3339()),
                ("scannerAgent", _) => json!({"machineId": self.machine}),
                ("Indicators", _) => continue,
                ("Query", _) => json!("union withsource=T Device*, Alert* | take 100"),
                ("expirationTime", _) => continue,
                ("target", _) => json!("192.0.2.1"),
                ("targetType", _) => json!("Ip"),
                ("indicatorType", _) => json!("DomainName"),
                ("indicatorValue", _) => json!("another.example"),
                ("action", _) => json!("Block"),
                (_, ty) if ty.starts_with("array") => ids,
                (_, "boolean") => json!(true),
                (_, "int") => json!(4),
                (_, "object") => json!({}),
                _ => match member.r#enum.as_ref().and_then(|values| values.first()) {
                    Some(value) => value.clone(),
                    None => json!("text"),
                },
            };
            body.insert(name.clone(), value);
        }
        Some(Json::Object(body))
    }
}

fn method(operation: &Operation) -> Method {
    operation.method.parse().expect("a method")
}

/// All application permissions that there are.
pub fn every_permission() -> Vec<&'static str> {
    let all: BTreeSet<&str> =
        OPERATIONS.iter().flat_map(|o| &o.app_permissions).map(String::as_str).collect();
    // A misprint of one page, kept as an alternative in the catalogue.
    all.into_iter().filter(|name| *name != "Alerts.ReadWrite.All").collect()
}

/// A tenant that has one of everything.
pub async fn furnish(world: &World, token: &str) -> Things {
    let mut sensor = world.sensor(&format!("{MARK}.tests.example")).await;
    let alert = alert(world, token, &mut sensor, &format!("{MARK} alert")).await;
    let file = json!({
        "Timestamp": world.clock.now().to_rfc3339(), "ReportId": 78, "ActionType": "FileCreated",
        "FileName": format!("{MARK}.exe"), "SHA1": SHA1, "FileSize": 77,
    });
    sensor.send(json!({"DeviceFileEvents": [file]})).await;
    let machine = sensor.id().to_owned();
    let isolate = json!({"Comment": MARK, "IsolationType": "Full"});
    let action = world.post(&format!("/api/machines/{machine}/isolate"), token, isolate).await.body;
    let indicator = json!({
        "indicatorValue": SHA1, "indicatorType": "FileSha1", "action": "Audit",
        "title": format!("{MARK} indicator"), "description": MARK, "severity": "Low",
    });
    let indicator = world.post("/api/indicators", token, indicator).await.body;
    let scan = json!({
        "scanType": "Network", "scanName": format!("{MARK} scan"), "isActive": true,
        "target": "192.0.2.1", "intervalInHours": 1, "targetType": "Ip",
        "scannerAgent": {"machineId": machine}, "scanAuthenticationParams": {"type": "NoAuthNoPriv"},
    });
    let scan = world.post("/api/DeviceAuthenticatedScanDefinitions", token, scan).await.body;
    let gathered = json!({
        "Timestamp": world.clock.now().to_rfc3339(), "AdditionalFields": {"AvMode": "0", "Name": MARK},
    });
    sensor.send(json!({"DeviceTvmInfoGathering": [gathered]})).await;
    let start = json!({"Comment": MARK});
    let path = format!("/api/machines/{machine}/startInvestigation");
    let investigation = world.post(&path, token, start).await.body;
    let id = |entity: &Json| match &entity["id"] {
        Json::String(id) => id.clone(),
        other => panic!("no id: {other} in {entity}"),
    };
    Things {
        machine,
        alert: id(&alert),
        action: id(&action),
        indicator: id(&indicator),
        scan: id(&scan),
        investigation: id(&investigation),
    }
}

#[tokio::test]
async fn no_operation_shows_or_changes_what_another_tenant_has() {
    let world = World::start().await;
    let ours = world.token_for(&every_permission()).await;
    let (_, theirs, _) = world.second_tenant(&every_permission()).await;
    let things = furnish(&world, &ours).await;
    let before = snapshot(&world, &ours, &things).await;
    for operation in OPERATIONS.iter() {
        let (id, path) = (&operation.id, things.path(&world, operation));
        let body = things.body(&world, operation);
        let answer = world.call(method(operation), &path, &theirs, body.clone()).await;
        assert!(answer.status != 500, "{id} {path} {body:?}: {}", answer.body);
        let text = answer.body.to_string();
        assert!(!text.contains(MARK), "{id} {path}: {text}");
        for options in ["$filter=id ne 'x' or id eq 'x'", "$count=true", "$expand=evidence"] {
            if operation.is_list() {
                let text = world.get(&format!("{path}?{options}"), &theirs).await.body.to_string();
                assert!(!text.contains(MARK), "{id} {options}: {text}");
            }
        }
    }
    assert_eq!(snapshot(&world, &ours, &things).await, before, "nothing is changed from outside");
    world.stop().await;
}

/// What a tenant has, as its API tells.
async fn snapshot(world: &World, token: &str, things: &Things) -> Vec<Json> {
    let mut all = Vec::new();
    for path in [
        format!("/api/machines/{}", things.machine),
        format!("/api/alerts/{}", things.alert),
        format!("/api/machineactions/{}", things.action),
        "/api/indicators".to_owned(),
        "/api/DeviceAuthenticatedScanDefinitions".to_owned(),
    ] {
        let answer = world.get(&path, token).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        all.push(answer.body);
    }
    all
}

/// Members of examples that pages of other years show, and what stands for them.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("machineActions.list", "lastUpdateTimeUtc"),
    ("indicators.list", "source"),
    ("indicators.list", "sourceType"),
    ("scanDefinitions.list", "scanAuthenticationParams"),
    ("scanAgents.list", "AssignedApplicationId"),
    ("scanAgents.list", "ScannerSoftwareVersion"),
    ("scanAgents.list", "LastCommandExecutionTimestamp"),
    ("scanAgents.get", "AssignedApplicationId"),
    ("scanAgents.get", "ScannerSoftwareVersion"),
    ("scanAgents.get", "LastCommandExecutionTimestamp"),
];

/// Every member of the example is there, of the same type where both have a value.
fn compare(operation: &str, example: &Json, found: &Json, place: &str, out: &mut Vec<String>) {
    match (example, found) {
        (Json::Object(example), Json::Object(found)) => {
            for (name, value) in example {
                let not_shown = NOT_SHOWN.contains(&(operation, name.as_str()));
                match found.get(name) {
                    // Which columns hunting gives depends on the query.
                    _ if not_shown || name == "@odata.context" || name == "Results" => {}
                    Some(found) => {
                        compare(operation, value, found, &format!("{place}.{name}"), out)
                    }
                    None => out.push(format!("{operation}: {place}.{name} is missing")),
                }
            }
        }
        (Json::Array(example), Json::Array(found)) => {
            if let (Some(example), Some(found)) = (example.first(), found.first()) {
                compare(operation, example, found, &format!("{place}[0]"), out);
            }
        }
        (Json::Null, _) | (_, Json::Null) => {}
        (Json::String(_), Json::String(_)) => {}
        (Json::Number(_), Json::Number(_)) => {}
        (Json::Bool(_), Json::Bool(_)) => {}
        _ => out.push(format!("{operation}: {place} is {found}, the example has another type")),
    }
}

/// The documented examples, where they are at hand.
pub struct Examples {
    operations: Json,
    types: Json,
}

impl Examples {
    pub fn at_hand() -> Option<Examples> {
        let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/facts");
        // A checkout may lie one folder deeper than the first.
        let deeper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/facts");
        let read = |name: &str| -> Option<Json> {
            let bytes = std::fs::read(facts.join(name)).or(std::fs::read(deeper.join(name)));
            serde_json::from_slice(&bytes.ok()?).ok()
        };
        Some(Examples { operations: read("operations.json")?, types: read("resource_types.json")? })
    }

    /// The examples of an operation's answer.
    fn of(&self, operation: &Operation) -> Vec<Json> {
        let all = self.operations.as_array().expect("a list");
        let facts = all.iter().find(|facts| facts["id"] == operation.id.as_str());
        let examples = facts.and_then(|facts| facts["response_example"].as_array());
        let body = |example: &Json| match example["body_ref"].as_str() {
            None => example["body"].clone(),
            Some(text) => {
                let (_, pointer) = text.split_once('#').expect("a pointer");
                let (name, member) = pointer.split_once('.').unwrap_or((pointer, "example"));
                let entity = self.types[name][member].clone();
                match operation.is_list() || example["collection"] == true {
                    true => json!({"value": [entity]}),
                    false => entity,
                }
            }
        };
        examples.into_iter().flatten().map(body).collect()
    }

    /// Compares an answer; the differences go to `out`. Returns the number of examples.
    pub fn compare(&self, operation: &Operation, answer: &Json, out: &mut Vec<String>) -> usize {
        let examples = self.of(operation);
        for example in &examples {
            compare(&operation.id, example, answer, "", out);
        }
        examples.len()
    }
}

/// The document that generators of clients read.
#[tokio::test]
async fn the_api_describes_itself() {
    let world = World::start().await;
    let document = world.get("/openapi.json", "").await;
    assert_eq!((document.status, &document.body["openapi"]), (200, &json!("3.1.0")));
    let metadata = world.get("/api/v1.0/$metadata", "").await.body;
    assert!(metadata.as_str().expect("XML").contains("<EntitySet Name=\"Alerts\""));
    let service = world.get("/api", "").await.body;
    assert!(service["value"].to_string().contains("Machines"), "{service}");
    let (id, secret) = world.application(&["Machine.Read.All"]).await;
    let token = world.token(&world.first.tenant.to_string(), &id, &secret, DEFENDER).await;
    let machines = &document.body["paths"]["/api/machines"]["get"];
    assert_eq!(machines["operationId"], "machines_list");
    assert_eq!(machines["security"][0], json!({"bearer": ["Machine.Read.All"]}));
    assert_eq!(world.get("/api/machines", &token).await.status, 200);
    world.stop().await;
}

/// Requests that a tester of APIs makes up out of `/openapi.json`, right ones and wrong ones, some
/// thousands: none of them is answered by 500 or leaves the server silent.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_requests_meet_no_server_error() {
    let Ok(python) = std::env::var("VIGIE_TEST_PYTHON") else {
        println!("left out: VIGIE_TEST_PYTHON names no interpreter with schemathesis");
        return;
    };
    let (data, clock) = (tempfile::tempdir().expect("a folder"), Clock::default());
    let config = ServerConfig { quotas: false, ..config(&data, &clock) };
    let world = World::start_with(data, clock, config).await.expect("started");
    let token = world.token_for(&every_permission()).await;
    furnish(&world, &token).await;
    let folder = tempfile::tempdir().expect("a folder");
    // One worker: threads of CPython 3.11 share a count of the depth of its parser, so that one can
    // make the other fail ("AST constructor recursion depth mismatch").
    let mut run = tokio::process::Command::new(Path::new(&python).with_file_name("schemathesis"));
    run.current_dir(folder.path())
        .args(["run", &format!("{}/openapi.json", world.url), "--tls-verify"])
        .arg(world.server.ca_path())
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .args(["--checks", "not_a_server_error", "--phases", "coverage,fuzzing"])
        .args(["--seed", "1", "--max-examples", "10", "--workers", "1", "--no-shrink"])
        .args(["--continue-on-failure", "--generation-database", "none", "--no-color"]);
    // What is still to come answers 501 whatever is sent.
    for operation in OPERATIONS.iter() {
        if world.call(method(operation), &things_path(operation), &token, None).await.status == 501
        {
            run.args(["--exclude-operation-id", &operation.id.replace('.', "_")]);
        }
    }
    let output = run.output().await.expect("schemathesis runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("Seed: 1"), "{text}");
    world.stop().await;
}

/// A path of the operation with something in place of its parameters.
fn things_path(operation: &Operation) -> String {
    let path = operation.path.split('?').next().unwrap_or_default();
    let segments = path.split('/').map(|segment| match segment.contains('{') {
        true if !segment.contains('(') => "x",
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}
