//! Antivirus scans: the test file and a tenant's own rule are found, and nothing else.

use crate::world::World;
use serde_json::{Value, json};
use vigie_contract::sensor::{Command, OrderStatus, ScanType};

/// Enough for the files of these tests; the machine's running programs are scanned, too, and need not
/// be waited for.
const SMALL: u64 = 64 << 10;

fn test_file() -> String {
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn malware_is_found_reported_and_left_where_the_policy_says_nothing() {
    let mut world = World::start_with(json!({"largestScannedBytes": SMALL})).await;
    std::fs::create_dir(world.path("sub")).unwrap();
    std::fs::write(world.path("sub/test"), test_file()).unwrap();
    std::fs::write(world.path("clean"), "about EICAR").unwrap();
    // Made here: this program runs, so a mark that stood in it would be found in it.
    let mark = uuid::Uuid::new_v4().to_string();
    std::fs::write(world.path("marked"), format!("xx {mark} xx")).unwrap();
    let rule = format!("rule OwnRule {{ strings: $a = \"{mark}\" condition: $a }}");
    let rules = vec![
        world.server.library("own.yar", rule.as_bytes()),
        world.server.library("broken.yar", b"rule broken {"),
    ];
    let (id, result) =
        world.order(Command::RunAntiVirusScan { scan_type: ScanType::Quick, rules }).await;
    assert_eq!(result.status, OrderStatus::Succeeded);
    let text = result.error.unwrap();
    assert!(text.contains("2 detections, 0 files quarantined"), "{text}");
    assert!(text.contains("broken.yar"), "rules that are not used are named: {text}");
    let fields = |row: &Value| -> Value {
        serde_json::from_str(row["AdditionalFields"].as_str().unwrap()).unwrap()
    };
    let found = world.event("AntivirusDetection", |row| row["FileName"] == "test").await;
    assert_eq!(fields(&found)["ThreatName"], "EICAR_Test_File");
    assert_eq!(fields(&found)["WasRemediated"], false);
    assert_eq!(found["SHA1"], "3395856ce81f2b7382dee72602f798b642f14140");
    let found = world.event("AntivirusDetection", |row| row["FileName"] == "marked").await;
    assert_eq!(fields(&found)["ThreatName"], "OwnRule");
    let ended = world.event("AntivirusScanCompleted", |_| true).await;
    assert_eq!(fields(&ended)["ActionId"], id.to_string());
    assert!(world.path("sub/test").exists());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_goes_into_quarantine_by_policy() {
    let policy = json!({"quarantineDetections": true, "largestScannedBytes": SMALL});
    let mut world = World::start_with(policy).await;
    std::fs::write(world.path("test"), test_file()).unwrap();
    let scan = Command::RunAntiVirusScan { scan_type: ScanType::Full, rules: Vec::new() };
    let (_, result) = world.order(scan).await;
    assert!(result.error.unwrap().contains("1 detections, 1 files quarantined"));
    assert!(!world.path("test").exists());
    assert_eq!(vigie_sensor::quarantined(world.state.path()).unwrap().len(), 1);
    world.stop().await;
}

/// A zip of 256 MB of zeros in 256 kB, and a file that claims to have ten gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn archives_that_grow_and_files_out_of_bounds_cost_nothing() {
    let mut world = World::start_with(json!({"largestScannedBytes": 1 << 20})).await;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(world.path("bomb.zip")).unwrap());
    zip.start_file("zeros", zip::write::SimpleFileOptions::default()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..256 {
        std::io::Write::write_all(&mut zip, &zeros).unwrap();
    }
    zip.finish().unwrap();
    let huge = std::fs::File::create(world.path("huge")).unwrap();
    huge.set_len(10 << 30).unwrap();
    let scan = Command::RunAntiVirusScan { scan_type: ScanType::Full, rules: Vec::new() };
    let (_, result) = world.order(scan).await;
    assert_eq!(result.status, OrderStatus::Succeeded);
    let ended = world.event("AntivirusScanCompleted", |_| true).await;
    let fields: Value = serde_json::from_str(ended["AdditionalFields"].as_str().unwrap()).unwrap();
    // Running programs are scanned, too: small ones are a part of what is scanned.
    assert!(fields["TooLargeFiles"].as_u64().unwrap() >= 1, "{fields}");
    assert!(fields["ScannedBytes"].as_u64().unwrap() < 256 << 20, "{fields}");
    world.stop().await;
}
