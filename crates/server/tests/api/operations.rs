//! The cases of `cases/operations.yaml`: every operation's success in both contexts, bad input, empty
//! result and documented errors. That none is missing is looked after where docs/api-coverage.md is
//! made. Successes have the shape of the documented examples, where those are at hand.

use crate::catalogue::{Examples, Things, every_permission, furnish};
use crate::support::{Answer, TestSensor, World, answer};
use crate::user_context::Context;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use vigie_contract::operations::{OPERATIONS, Operation, operation};

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Case {
    path: Option<String>,
    body: Option<Json>,
    text: Option<String>,
    file: Option<String>,
    before: Vec<Case>,
    times: Option<usize>,
    gives: Option<String>,
    holds: Option<String>,
    /// The three say why nothing is sent.
    test: Option<String>,
    none: Option<String>,
    differs: Option<String>,
}

/// What stands for the names in braces.
struct Names<'a> {
    world: &'a World,
    things: &'a Things,
    /// A row that names nothing: its time, its machine, an alert about it.
    event: (String, String, String),
    number: usize,
}

impl Names<'_> {
    async fn start<'a>(world: &'a World, things: &'a Things, token: &str) -> Names<'a> {
        let mut sensor = world.sensor("bare.tests.example").await;
        let time = world.clock.now().to_rfc3339();
        let row = json!({"Timestamp": time, "ReportId": 79, "ActionType": "FileCreated"});
        sensor.send(json!({"DeviceFileEvents": [row]})).await;
        let body = json!({
            "machineId": sensor.id(), "severity": "High", "title": "bare", "description": "bare",
            "recommendedAction": "none", "category": "Execution", "eventTime": time,
            "reportId": "79",
        });
        let alert = world.post("/api/alerts/CreateAlertByReference", token, body).await.body;
        let alert = alert["id"].as_str().unwrap_or_else(|| panic!("no alert: {alert}")).to_owned();
        Names { world, things, event: (time, sensor.id().to_owned(), alert), number: 0 }
    }

    /// The values for one case.
    async fn of_case(&mut self) -> Vec<(&'static str, String)> {
        self.number += 1;
        let name = format!("case-{}", self.number);
        let fresh: TestSensor = self.world.sensor(&format!("{name}.tests.example")).await;
        let things = self.things;
        let now = self.world.clock.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        [
            ("{machine}", &things.machine),
            ("{alert}", &things.alert),
            ("{action}", &things.action),
            ("{indicator}", &things.indicator),
            ("{scan}", &things.scan),
            ("{investigation}", &things.investigation),
            ("{event}", &self.event.0),
            ("{event machine}", &self.event.1),
            ("{bare alert}", &self.event.2),
            ("{sha1}", &crate::odata::SHA1.to_owned()),
            ("{fresh}", &fresh.id().to_owned()),
            ("{unique}", &name),
            ("{now}", &now),
        ]
        .map(|(name, value)| (name, value.clone()))
        .to_vec()
    }
}

fn filled(text: &str, values: &[(&'static str, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

fn filled_body(body: &Json, values: &[(&'static str, String)]) -> Json {
    match body {
        Json::String(text) if text == "{501 ids}" => json!(vec!["1"; 501]),
        Json::String(text) => filled(text, values).into(),
        Json::Array(items) => items.iter().map(|item| filled_body(item, values)).collect(),
        Json::Object(members) => {
            let members = members.iter();
            members.map(|(name, value)| (name.clone(), filled_body(value, values))).collect()
        }
        other => other.clone(),
    }
}

/// Sends a case's request; the operation's own where it has none.
async fn send(
    names: &Names<'_>,
    operation: &Operation,
    method: Method,
    case: &Case,
    token: &str,
    values: &[(&'static str, String)],
) -> Answer {
    let world = names.world;
    if let Some(name) = &case.file {
        let parts = [("HasParameters", "true"), ("ParametersDescription", "a path")];
        return world.upload(token, &filled(name, values), b"echo", &parts).await;
    }
    let path = case.path.as_deref().map(|path| filled(path, values));
    let path = path.unwrap_or_else(|| names.things.path(world, operation));
    let mut request = world.request(method, &path).bearer_auth(token);
    if let Some(text) = &case.text {
        request = request.header("content-type", "application/json").body(text.clone());
    } else if let Some(body) = &case.body {
        request = request.json(&filled_body(body, values));
    }
    answer(request).await
}

/// The answer to a case, or what is wrong with it.
async fn outcome(
    names: &mut Names<'_>,
    operation: &Operation,
    (name, case): (&str, &Case),
    token: &str,
) -> Result<Json, String> {
    let mut values = names.of_case().await;
    for before in &case.before {
        let made = send(names, operation, Method::POST, before, token, &values).await;
        let id = match &made.body["id"] {
            Json::String(id) => id.clone(),
            id => id.to_string(),
        };
        values.push(("{made}", id));
    }
    let method: Method = operation.method.parse().expect("a method");
    let mut answered = None;
    for _ in 0..case.times.unwrap_or(1) {
        let method = method.clone();
        answered = Some(send(names, operation, method, case, token, &values).await);
    }
    let answered = answered.expect("sent at least once");
    let text = answered.body.to_string();
    let (status, code) = match (&case.gives, name) {
        (Some(gives), _) => told(gives),
        (None, "success" | "empty") => (operation.success_status.unwrap_or(200), None),
        (None, name) => told(name.split(": ").next().unwrap_or_default()),
    };
    let wrong = format!("{} {name}: {} {text}", operation.id, answered.status);
    let rows = answered.body["value"].as_array().map(Vec::len);
    let fits = answered.status == status
        && code.is_none_or(|code| answered.body["error"]["code"] == code)
        && case.holds.as_ref().is_none_or(|held| text.contains(held.as_str()))
        && (name != "empty" || case.holds.is_some() || rows == Some(0))
        && (name != "success" || !operation.is_list() || rows.is_some_and(|rows| rows > 0));
    if fits { Ok(answered.body) } else { Err(wrong) }
}

/// Status and code of `400 BadRequest`.
fn told(text: &str) -> (u16, Option<&str>) {
    let (status, code) = text.split_once(' ').unwrap_or((text, ""));
    (status.parse().expect("a status"), Some(code).filter(|code| !code.is_empty()))
}

#[tokio::test]
async fn every_operation_answers_as_documented_and_every_error_is_provoked() {
    all_cases(World::start().await).await;
}

#[tokio::test]
async fn every_operation_answers_alike_on_postgresql() {
    if let Some(world) = World::on_postgresql("operation_tests").await {
        all_cases(world).await;
    }
}

async fn all_cases(world: World) {
    let cases: BTreeMap<String, BTreeMap<String, Case>> =
        serde_saphyr::from_str(include_str!("../../cases/operations.yaml")).expect("cases");
    let context = Context::of(world).await;
    let world = &context.world;
    let token = world.token_for(&every_permission()).await;
    let scopes: Vec<&str> = context.every.iter().map(String::as_str).collect();
    let user = context.token("boss", &scopes).await;
    let things = furnish(world, &token).await;
    let mut names = Names::start(world, &things, &token).await;
    let (mut wrong, mut compared) = (Vec::new(), 0);
    let examples = Examples::at_hand();
    if examples.is_none() {
        println!("no documented examples at hand: shapes are not compared");
    }
    for (id, cases) in &cases {
        let operation = operation(id).unwrap_or_else(|| panic!("{id} is no operation"));
        for (name, case) in cases {
            if case.test.is_some() || case.none.is_some() || case.differs.is_some() {
                continue;
            }
            match outcome(&mut names, operation, (name.as_str(), case), &token).await {
                Ok(answer) if name == "success" => {
                    let examples = examples.as_ref();
                    compared +=
                        examples.map_or(0, |all| all.compare(operation, &answer, &mut wrong));
                }
                Ok(_) => {}
                Err(found) => wrong.push(found),
            }
            if name == "success" && !operation.delegated_permissions.is_empty() {
                let found = outcome(&mut names, operation, (name.as_str(), case), &user).await;
                wrong.extend(found.err().map(|wrong| format!("as a user: {wrong}")));
            }
        }
    }
    // What has no case is still to come, and says so.
    for operation in OPERATIONS.iter().filter(|operation| !cases.contains_key(&operation.id)) {
        let method = operation.method.parse().expect("a method");
        let path = things.path(world, operation);
        let answer = world.call(method, &path, &token, None).await;
        let error = &answer.body["error"];
        if (answer.status, &error["code"]) != (501, &json!("NotImplemented")) {
            wrong.push(format!("{} {path}: {} {}", operation.id, answer.status, answer.body));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(examples.is_none() || compared > 60, "{compared} examples were compared");
    println!("{compared} examples were compared");
    context.world.stop().await;
}
