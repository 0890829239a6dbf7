//! One server, one sensor that may respond, and a folder that stands for the machine's disk.

use crate::support::{ENROLMENT_KEY, ProtocolServer};
use serde_json::{Value, json};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uuid::Uuid;
use vigie_contract::sensor::{Command, OrderResult};
use vigie_sensor::{Sensor, SensorConfig, SensorHandle};

pub struct World {
    pub server: ProtocolServer,
    pub state: TempDir,
    /// The only folder that scans and searches look at.
    pub disk: TempDir,
    pub sensor: Option<SensorHandle>,
    pub machine: String,
}

impl World {
    pub async fn start() -> World {
        World::start_with(json!({})).await
    }

    /// With further parts of the policy.
    pub async fn start_with(more: Value) -> World {
        let server = ProtocolServer::start().await;
        let (state, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut policy = json!({
            "searchFolders": [disk.path()], "quickScanFolders": [disk.path()],
            "fullScanFolders": [disk.path()], "rulesFolder": null,
        });
        for (name, value) in more.as_object().unwrap() {
            policy[name] = value.clone();
        }
        let path = state.path().join("policy.json");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).mode(0o600).open(path).unwrap();
        serde_json::to_writer(file, &policy).unwrap();
        let sensor = Some(Sensor::start(config(&server, state.path())).await.unwrap());
        let machine = server.machine_id().await;
        World { server, state, disk, sensor, machine }
    }

    /// Gives an order and waits for its end.
    pub async fn order(&self, command: Command) -> (Uuid, OrderResult) {
        let id = self.server.order(&self.machine, command);
        (id, self.server.result(id).await)
    }

    /// Stops the sensor and starts another on the same state.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.sensor = Some(Sensor::start(config(&self.server, self.state.path())).await.unwrap());
    }

    pub async fn stop(&mut self) {
        if let Some(sensor) = self.sensor.take() {
            sensor.shutdown().await;
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// A row of `DeviceEvents` about a response.
    pub async fn event(&self, action: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.server.row("DeviceEvents", |row| row["ActionType"] == action && fits(row)).await
    }
}

pub fn config(server: &ProtocolServer, state_dir: &Path) -> SensorConfig {
    let mut config = SensorConfig::new(server.url(), server.ca_pem.clone(), state_dir);
    config.enrolment_key = Some(ENROLMENT_KEY.to_owned());
    config.installation_id = Some("3".repeat(40));
    config.allow_response = true;
    config
}
