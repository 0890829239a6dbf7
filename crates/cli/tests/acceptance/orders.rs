//! The server is killed between the request, the delivery, the begin, the pieces of an upload and the
//! end of every kind of order: each order is there afterwards, in the state that was told last, once.

use crate::support::{Up, free_port, output, vigie};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;
use vigie_contract::sensor::*;
use vigie_sensor::client::{CallError, Client};
use vigie_sensor::identity::Key;

/// Operations with their bodies, but for the comment.
const OPERATIONS: &[(&str, &str)] = &[
    ("isolate", r#"{"IsolationType": "Full"}"#),
    ("unisolate", "{}"),
    ("restrictCodeExecution", "{}"),
    ("unrestrictCodeExecution", "{}"),
    ("StopAndQuarantineFile", r#"{"Sha1": "0123456789abcdef0123456789abcdef01234567"}"#),
    ("runAntiVirusScan", r#"{"ScanType": "Quick"}"#),
    ("collectInvestigationPackage", "{}"),
    ("startInvestigation", "{}"),
    (
        "runliveresponse",
        r#"{"Commands": [{"type": "GetFile", "params": [{"key": "Path", "value": "/etc/hosts"}]}]}"#,
    ),
    ("offboard", "{}"),
];

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A server that is killed and comes back, and one machine's sensor at the level of the protocol.
struct World {
    folder: tempfile::TempDir,
    address: String,
    server: Option<Up>,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    sensor: Client,
    key: Key,
    machine: String,
    token: String,
}

impl World {
    fn start() -> World {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = Up::on(folder.path(), &["--listen", &address, "--no-quotas"]);
        let data = folder.path().join("data");
        let data = data.to_str().unwrap();
        let enrolment_key = output(&mut vigie(&["tenant", "enrolment-key", "--data", data]));
        let ca = std::fs::read_to_string(server.value("certificate")).unwrap();
        let roots = reqwest::Certificate::from_pem_bundle(ca.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only(roots).build().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sensor, key) =
            (Client::new(&server.url(), &ca).unwrap(), Key::from_seed(&[7; 32]).unwrap());
        let request = EnrolRequest {
            enrolment_key: enrolment_key.trim().to_owned(),
            public_key: key.public_key(),
            installation_id: "orders".to_owned(),
            report: MachineReport {
                computer_dns_name: "orders.example".to_owned(),
                os_platform: "Linux".to_owned(),
                ..MachineReport::default()
            },
        };
        let machine = runtime.block_on(sensor.enrol(&request)).unwrap().machine_id;
        let mut world = World {
            folder,
            address,
            server: Some(server),
            runtime,
            http,
            sensor,
            key,
            machine,
            token: String::new(),
        };
        world.token = world.application();
        world
    }

    /// A token of an application that may do everything here.
    fn application(&self) -> String {
        let data = self.folder.path().join("data");
        let data = data.to_str().unwrap();
        let permissions = [
            "Machine.Isolate",
            "Machine.RestrictExecution",
            "Machine.StopAndQuarantine",
            "Machine.Scan",
            "Machine.CollectForensics",
            "Machine.LiveResponse",
            "Machine.Offboard",
            "Machine.Read.All",
            "Alert.ReadWrite.All",
            "AdvancedQuery.Read.All",
        ];
        let mut create = vigie(&["app", "create", "orders", "--data", data, "-o", "json"]);
        let made = output(create.args(permissions.iter().flat_map(|one| ["--permission", one])));
        let made: Json = serde_json::from_str(&made).unwrap();
        let app = made["appId"].as_str().unwrap();
        let secret = output(&mut vigie(&["app", "add-secret", app, "--data", data]));
        let server = self.server.as_ref().unwrap();
        let url = format!("{}/{}/oauth2/v2.0/token", server.url(), server.value("tenant"));
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", app),
            ("client_secret", secret.trim()),
            ("scope", "https://api.securitycenter.microsoft.com/.default"),
        ];
        let answer: Json = self.runtime.block_on(async {
            self.http.post(url).form(&form).send().await.unwrap().json().await.unwrap()
        });
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn restart(&mut self) {
        self.server.take().unwrap().kill();
        self.server = Some(Up::on(self.folder.path(), &["--listen", &self.address, "--no-quotas"]));
    }

    fn call(&self, path: &str, body: Option<Json>) -> Json {
        let url = format!("{}/api/{path}", self.server.as_ref().unwrap().url());
        let request = match body {
            Some(body) => self.http.post(url).json(&body),
            None => self.http.get(url),
        };
        self.runtime.block_on(async {
            let response = request.bearer_auth(&self.token).send().await.unwrap();
            let status = response.status();
            let body: Json = response.json().await.unwrap();
            assert!(status.is_success(), "{path}: {body}");
            body
        })
    }

    /// Repeats a sensor's call, as sensors do, until the server takes it.
    fn until_taken<T>(&self, call: impl AsyncFn(String) -> Result<T, CallError>) -> T {
        self.runtime.block_on(async {
            loop {
                let request = self.key.session_request(&self.machine, unix_seconds());
                let outcome = match self.sensor.session(&request).await {
                    Ok(session) => call(session.token).await,
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(answer) => return answer,
                    Err(CallError::Unreachable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }

    /// The orders that are on their way, by id, as their signed texts.
    fn orders(&self) -> BTreeMap<Uuid, SignedOrder> {
        let orders = self.until_taken(async |token| self.sensor.orders(&token, 0).await).orders;
        let id = |signed: &SignedOrder| -> Uuid {
            let order: Order = serde_json::from_str(&signed.order).unwrap();
            order.id
        };
        orders.into_iter().map(|signed| (id(&signed), signed)).collect()
    }

    /// What the API says of the orders: actions by their id, investigations by their own.
    fn states(&self) -> BTreeMap<String, String> {
        let actions = self.call("machineactions", None);
        let investigations = self.call("investigations", None);
        let all = actions["value"].as_array().unwrap().iter().map(|one| (one, "status"));
        let more = investigations["value"].as_array().unwrap().iter().map(|one| (one, "state"));
        let text = |value: &Json| value.as_str().unwrap().to_owned();
        all.chain(more).map(|(one, state)| (text(&one["id"]), text(&one[state]))).collect()
    }

    fn tell(&self, id: Uuid, result: &OrderResult) {
        self.until_taken(async |token| self.sensor.order_result(&token, id, result).await);
    }
}

#[test]
fn orders_outlive_their_server_at_every_step() {
    let mut world = World::start();
    let given: Vec<Json> = OPERATIONS
        .iter()
        .map(|(operation, body)| {
            let mut body: Json = serde_json::from_str(body).unwrap();
            body["Comment"] = "kill the server".into();
            world.call(&format!("machines/{}/{operation}", world.machine), Some(body))
        })
        .collect();
    let state = |wanted: &str, investigation: &str| -> BTreeMap<String, String> {
        let of = |one: &Json| if one["type"].is_null() { investigation } else { wanted }.to_owned();
        given.iter().map(|one| (one["id"].as_str().unwrap().to_owned(), of(one))).collect()
    };
    // Created: all of them are there, and are delivered.
    world.restart();
    assert_eq!(world.states(), state("Pending", "Running"));
    let orders = world.orders();
    assert_eq!(orders.len(), OPERATIONS.len());

    // Sent, and nobody said that it begins: the same orders come again, to the letter.
    world.restart();
    let again = world.orders();
    assert!(orders.iter().all(|(id, order)| again[id].order == order.order));
    assert_eq!(world.states(), state("Pending", "Running"));

    // Begun: nothing is delivered a second time.
    for id in orders.keys() {
        world.tell(*id, &OrderResult::of(OrderStatus::InProgress));
    }
    world.restart();
    assert_eq!(world.states(), state("InProgress", "Running"));
    assert!(world.orders().is_empty());

    // In the middle of an upload: it goes on where it was.
    let of_kind = |kind: &str| {
        let wanted = format!("\"type\":\"{kind}\"");
        *orders.iter().find(|(_, order)| order.order.contains(&wanted)).unwrap().0
    };
    let upload = (of_kind("CollectInvestigationPackage"), 0);
    let piece = |offset: u64, bytes: &'static [u8]| {
        world.until_taken(async |token| {
            world.sensor.upload_piece(&token, upload, offset, bytes.into()).await
        })
    };
    assert_eq!(piece(0, b"first ").received, 6);
    world.restart();
    let piece = |offset: u64, bytes: &'static [u8]| {
        world.until_taken(async |token| {
            world.sensor.upload_piece(&token, upload, offset, bytes.into()).await
        })
    };
    assert_eq!(piece(0, b"").received, 6);
    assert_eq!(piece(6, b"second").received, 12);
    let sha256 = {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(b"first second");
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let end = UploadEnd { name: "package.zip".to_owned(), size: 12, sha256 };
    world.until_taken(async |token| world.sensor.upload_end(&token, upload, &end).await);

    // Ended, while the server is killed somewhere between the result and its answer.
    let offboard = of_kind("Offboard");
    for (number, id) in orders.keys().filter(|id| **id != offboard).enumerate() {
        let result = OrderResult::of(OrderStatus::Succeeded);
        let request = world.key.session_request(&world.machine, unix_seconds());
        let (sensor, id, sent) = (world.sensor.clone(), *id, result.clone());
        world.runtime.spawn(async move {
            let session = sensor.session(&request).await?;
            sensor.order_result(&session.token, id, &sent).await
        });
        std::thread::sleep(Duration::from_millis(3 * number as u64));
        world.restart();
        world.tell(id, &result);
    }
    world.tell(offboard, &OrderResult::of(OrderStatus::Succeeded));
    world.restart();
    assert_eq!(world.states(), state("Succeeded", "Benign"));
    let request = world.key.session_request(&world.machine, unix_seconds());
    let session = world.runtime.block_on(world.sensor.session(&request));
    assert!(session.is_err_and(|error| error.is_session()), "an offboarded machine has a session");

    let link = world.call(&format!("machineactions/{}/getPackageUri", upload.0), None);
    let package = world.runtime.block_on(async {
        let response = world.http.get(link["value"].as_str().unwrap()).send().await.unwrap();
        response.text().await.unwrap()
    });
    assert_eq!(package, "first second");

    // Each change of each order stands in hunting's table once.
    let query = "CloudAppEvents | extend Id = tostring(parse_json(RawEventData).actionId) \
                 | summarize Rows = count() by Id, ActivityType \
                 | summarize Changes = count(), Most = max(Rows)";
    let expected = json!({"Changes": 3 * OPERATIONS.len(), "Most": 1});
    let mut found = Json::Null;
    for _ in 0..50 {
        let answer = world.call("advancedqueries/run", Some(json!({"Query": query})));
        found = answer["Results"][0].clone();
        if found["Changes"] == expected["Changes"] {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(found, expected);
}
