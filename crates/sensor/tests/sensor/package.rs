//! The investigation package: what is in it, and that it arrives whole after interruptions.

use crate::world::World;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::{Cursor, Read};
use vigie_contract::sensor::{Command, OrderStatus, UPLOAD_PIECE_BYTES};
use vigie_sensor::identity::hex;

#[tokio::test(flavor = "multi_thread")]
async fn the_package_is_whole_and_its_index_true() {
    let mut world = World::start().await;
    let (id, result) = world.order(Command::CollectInvestigationPackage {}).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    let (name, bytes) = world.server.upload(id, 0).expect("a package");
    assert_eq!(name, "investigation-package.zip");
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let index: Value = serde_json::from_slice(&read("index.json")).unwrap();
    assert_eq!(index["actionId"], id.to_string());
    let files = index["files"].as_array().unwrap();
    for file in files.iter().filter(|file| file["error"].is_null()) {
        let name = file["name"].as_str().unwrap();
        assert!(!name.contains("..") && !name.starts_with('/'), "{name}");
        assert_eq!(hex(&Sha256::digest(read(name))), file["sha256"].as_str().unwrap(), "{name}");
    }
    let processes: Value = serde_json::from_slice(&read("processes.json")).unwrap();
    let own = processes.as_array().unwrap().iter().find(|p| p["pid"] == std::process::id());
    let state = world.state.path().to_str().unwrap();
    let open = own.expect("this process")["openFiles"].as_array().unwrap();
    assert!(open.iter().any(|file| file.as_str().unwrap().contains(state)), "{open:?}");
    let network: Value = serde_json::from_slice(&read("network.json")).unwrap();
    let server = world.server.address.to_string();
    assert!(network["tcp"].as_array().unwrap().iter().any(|socket| socket["local"] == server));
    let users: Value = serde_json::from_slice(&read("users.json")).unwrap();
    let text = users.to_string();
    assert!(text.contains("root:") && !text.contains("$y$") && !text.contains("$6$"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sending_goes_on_after_an_outage_and_a_restart() {
    let mut world = World::start().await;
    // Something that fills more than one piece and does not compress.
    let mut noise = vec![0; 3 * UPLOAD_PIECE_BYTES];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let path = world.path("noise");
    std::fs::write(&path, &noise).unwrap();
    let commands =
        vec![vigie_contract::sensor::LiveCommand::GetFile { path: path.to_str().unwrap().into() }];
    world.server.memory.lock().unwrap().uploads_break_at = Some(UPLOAD_PIECE_BYTES);
    let id = world.server.order(&world.machine, Command::LiveResponse { commands });
    world
        .server
        .until("the first piece", |memory| {
            let upload = memory.uploads.get(&(id, 0))?;
            (upload.bytes.len() >= UPLOAD_PIECE_BYTES).then_some(())
        })
        .await;
    world.restart().await;
    world.server.memory.lock().unwrap().uploads_break_at = None;
    let result = world.server.result(id).await;
    assert_eq!(result.status, OrderStatus::Succeeded, "{:?}", result.error);
    assert_eq!(world.server.upload(id, 0).expect("the file").1, noise);
    world.stop().await;
}
