//! What the server acknowledged is there after `kill -9`, once.

use crate::support::{Up, free_port, output, vigie};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vigie_contract::sensor::{EnrolRequest, MachineReport};
use vigie_sensor::client::{CallError, Client};
use vigie_sensor::identity::Key;

const SENSORS: u8 = 4;
const KILLS: u32 = 20;

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Sends numbered batches until told to stop, each until it is acknowledged, as sensors do;
/// returns how many rows were acknowledged.
async fn feed(client: Client, enrolment_key: String, number: u8, stop: Arc<AtomicBool>) -> i64 {
    let key = Key::from_seed(&[number; 32]).unwrap();
    let request = EnrolRequest {
        enrolment_key,
        public_key: key.public_key(),
        installation_id: format!("durability {number}"),
        report: MachineReport {
            computer_dns_name: format!("host{number}.durability.example"),
            os_platform: "Linux".to_owned(),
            ..MachineReport::default()
        },
    };
    let machine = client.enrol(&request).await.unwrap().machine_id;
    let mut rows = 0_i64;
    let mut sequence = 0;
    let mut token = String::new();
    while !stop.load(Ordering::Relaxed) {
        sequence += 1;
        let length = 1 + sequence as i64 * 37 % 300;
        let batch: Vec<Json> = (rows..rows + length).map(row).collect();
        let text = json!({"tables": {"DeviceProcessEvents": batch}}).to_string();
        let body = zstd::encode_all(text.as_bytes(), 1).unwrap();
        loop {
            match client.telemetry(&token, sequence, body.clone().into()).await {
                Ok(_) => break,
                Err(error) => token = renew(&client, &key, &machine, token, &error).await,
            }
        }
        rows += length;
    }
    rows
}

async fn renew(
    client: &Client,
    key: &Key,
    machine: &str,
    token: String,
    error: &CallError,
) -> String {
    if !error.is_session() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        return token;
    }
    let session = client.session(&key.session_request(machine, unix_seconds())).await;
    session.map_or(token, |session| session.token)
}

fn row(number: i64) -> Json {
    json!({
        "Timestamp": chrono::Utc::now().to_rfc3339(), "ReportId": number,
        "ActionType": "ProcessCreated", "FileName": "true", "ProcessId": number,
        "ProcessCommandLine": format!("true {number}"),
    })
}

#[test]
fn twenty_kills_lose_and_double_no_acknowledged_event() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let start = || Up::on(folder.path(), &["--listen", &address]);
    let mut server = start();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let enrolment_key = output(&mut vigie(&["tenant", "enrolment-key", "--data", data]));
    let enrolment_key = enrolment_key.trim();
    let ca = std::fs::read_to_string(server.value("certificate")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sensors: Vec<_> = (1..=SENSORS)
        .map(|number| {
            let client = Client::new(&server.url(), &ca).unwrap();
            runtime.spawn(feed(client, enrolment_key.to_owned(), number, stop.clone()))
        })
        .collect();
    // Enrolling is no part of this test.
    std::thread::sleep(Duration::from_millis(500));
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    println!("seed {seed}");
    let mut random = seed;
    for _ in 0..KILLS {
        // Knuth's generator; the moments shall differ from run to run, no more.
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis(20 + (random >> 33) % 500));
        server.kill();
        server = start();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let acknowledged: i64 =
        sensors.into_iter().map(|sensor| runtime.block_on(sensor).unwrap()).sum();
    let query = "DeviceProcessEvents | summarize Rows = count() by DeviceId, ReportId \
                 | summarize Rows = sum(Rows), Events = count(), Most = max(Rows)";
    let found = output(&mut vigie(&["hunt", "--data", data, "-o", "json", query]));
    let found: Json = serde_json::from_str(found.trim()).unwrap();
    println!("{acknowledged} events acknowledged: {found}");
    assert!(acknowledged > 10_000, "only {acknowledged} events were sent");
    assert_eq!(found, json!({"Rows": acknowledged, "Events": acknowledged, "Most": 1}));
    drop(server);
}
