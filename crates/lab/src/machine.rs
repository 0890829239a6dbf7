//! The simulated machines: who they are, made from the seed.

use crate::names::{DOMAIN, FAMILY, GIVEN, Random, SERVER_ROLES, SUFFIX};
use crate::scenario::{Platform, Scenario};
use crate::{LabConfig, TAG};
use anyhow::Result;
use chrono::{DateTime, Utc};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use vigie_contract::sensor::{IpAddress, LogonUser, MachineReport, Provider};
use vigie_sensor::identity::hex;
use vigie_sensor::rows::Row;

/// A released version of an operating system, as machines report it.
struct Release {
    platform: &'static str,
    version: &'static str,
    build: Option<i64>,
    distribution: Option<&'static str>,
}

const WINDOWS: [Release; 4] = [
    Release { platform: "Windows11", version: "23H2", build: Some(22631), distribution: None },
    Release { platform: "Windows11", version: "24H2", build: Some(26100), distribution: None },
    Release { platform: "Windows10", version: "22H2", build: Some(19045), distribution: None },
    Release {
        platform: "WindowsServer2022",
        version: "21H2",
        build: Some(20348),
        distribution: None,
    },
];
const LINUX: [Release; 3] = [
    Release { platform: "Linux", version: "12", build: None, distribution: Some("Debian") },
    Release { platform: "Linux", version: "24.04", build: None, distribution: Some("Ubuntu") },
    Release {
        platform: "Linux",
        version: "9.4",
        build: None,
        distribution: Some("RedHatEnterpriseLinux"),
    },
];

/// One simulated machine.
pub struct Machine {
    pub index: usize,
    pub platform: Platform,
    pub host: String,
    pub user: String,
    pub ip: String,
    mac: String,
    release: &'static Release,
    pub key_seed: [u8; 32],
    pub installation_id: String,
    pub scenarios: Vec<Scenario>,
}

/// All machines of a lab. Every third one is a Linux server, the others are Windows.
pub fn fleet(config: &LabConfig) -> Result<Vec<Machine>> {
    let mut machines: Vec<Machine> =
        (0..config.machines).map(|index| machine(config.seed, index)).collect();
    for scenario in &config.scenarios {
        assign(&mut machines, scenario);
    }
    Ok(machines)
}

/// A background scenario is played by all machines of its platform, an attack by its share of them,
/// at least by one.
fn assign(machines: &mut [Machine], scenario: &Scenario) {
    let fitting: Vec<&mut Machine> =
        machines.iter_mut().filter(|machine| machine.platform == scenario.platform).collect();
    let count = match scenario.share {
        Some(share) => ((fitting.len() as f64 * share).ceil() as usize).max(1),
        None => fitting.len(),
    };
    for machine in fitting.into_iter().take(count) {
        machine.scenarios.push(scenario.clone());
    }
}

fn machine(seed: u64, index: usize) -> Machine {
    let mut random = Random::new(seed, index, "machine");
    let platform = if index % 3 == 1 { Platform::Linux } else { Platform::Windows };
    let (given, family) = (*random.pick(&GIVEN), *random.pick(&FAMILY));
    let (host, user, release) = match platform {
        Platform::Windows => {
            let release = random.pick(&WINDOWS);
            let kind = if release.platform.contains("Server") { "srv" } else { "pc" };
            (format!("{kind}-{family}-{index:04}"), format!("{given}.{family}"), release)
        }
        Platform::Linux => {
            let role = random.pick(&SERVER_ROLES);
            (format!("{role}-{index:04}"), format!("{given}{family}"), random.pick(&LINUX))
        }
    };
    let mut key_seed = [0; 32];
    let mut keys = Random::new(seed, index, "key");
    for part in key_seed.chunks_exact_mut(8) {
        part.copy_from_slice(&keys.next().to_le_bytes());
    }
    let address = index as u64 + 10;
    Machine {
        index,
        platform,
        host: format!("{host}.{SUFFIX}"),
        user,
        ip: format!("10.{}.{}.{}", 20 + address / 64_000, address / 250 % 256, address % 250 + 2),
        mac: format!("02{:010X}", random.next() & 0xff_ffff_ffff),
        release,
        key_seed,
        installation_id: hex(&Sha1::digest(format!("vigie-lab\n{seed}\n{index}"))),
        scenarios: Vec::new(),
    }
}

impl Machine {
    /// Domain of the machine's accounts.
    pub fn account_domain(&self) -> String {
        match self.platform {
            Platform::Windows => DOMAIN.to_owned(),
            Platform::Linux => self.host.split('.').next().unwrap_or_default().to_owned(),
        }
    }

    /// Windows security id, or uid.
    pub fn account_sid(&self) -> String {
        match self.platform {
            Platform::Windows => {
                format!("S-1-5-21-1004336348-1177238915-682003330-{}", 1100 + self.index)
            }
            Platform::Linux => "1000".to_owned(),
        }
    }

    /// The machine's report; `since` is when its user logged on.
    pub fn report(
        &self,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
        isolation: &str,
    ) -> MachineReport {
        let address = IpAddress {
            ip_address: self.ip.clone(),
            mac_address: Some(self.mac.clone()),
            r#type: Some("Ethernet".to_owned()),
            operational_status: Some("Up".to_owned()),
        };
        let user = LogonUser {
            account_name: self.user.clone(),
            account_domain: self.account_domain(),
            account_sid: Some(self.account_sid()),
            first_seen: since,
            last_seen: now,
            logon_type: "Interactive".to_owned(),
            is_domain_admin: false,
            is_only_network_user: false,
        };
        let provider = |source: &str| Provider {
            source: source.to_owned(),
            provider: "simulated".to_owned(),
            reason: String::new(),
        };
        MachineReport {
            computer_dns_name: self.host.clone(),
            os_platform: self.release.platform.to_owned(),
            version: Some(self.release.version.to_owned()),
            os_build: self.release.build,
            os_architecture: Some("64-bit".to_owned()),
            os_processor: Some("x64".to_owned()),
            os_distribution: self.release.distribution.map(str::to_owned),
            os_version_info: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ip_addresses: vec![address],
            logged_on_users: vec![user],
            providers: ["process", "network", "file", "logon"].map(provider).to_vec(),
            response_allowed: true,
            isolation: Some(isolation.to_owned()),
            execution_restricted: false,
            lost_events: BTreeMap::new(),
            tags: vec![TAG.to_owned()],
            aad_device_id: None,
        }
    }

    /// Rows that every machine writes when it starts.
    pub fn start_rows(&self, now: DateTime<Utc>) -> Vec<(&'static str, Row)> {
        let mut info = Row::default();
        info.time("Timestamp", now);
        info.text("ClientVersion", env!("CARGO_PKG_VERSION"));
        info.text("OSPlatform", self.release.platform);
        info.text("OSVersion", self.release.version);
        info.text("OSArchitecture", "64-bit");
        if let Some(build) = self.release.build {
            info.number("OSBuild", build);
        }
        info.text("OSDistribution", self.release.distribution.unwrap_or_default());
        info.text("OnboardingStatus", "Onboarded");
        info.text("SensorHealthState", "Active");
        info.text("DeviceCategory", "Endpoint");
        info.text("RegistryDeviceTag", TAG);
        info.json(
            "LoggedOnUsers",
            &serde_json::json!([{
                "UserName": self.user,
                "DomainName": self.account_domain(),
                "Sid": self.account_sid(),
            }]),
        );
        let mut network = Row::default();
        network.time("Timestamp", now);
        network.text("NetworkAdapterName", "Ethernet 1");
        network.text("MacAddress", self.mac.clone());
        network.text("NetworkAdapterType", "Ethernet");
        network.text("NetworkAdapterStatus", "Up");
        network.json(
            "IPAddresses",
            &serde_json::json!([{
                "IPAddress": self.ip, "SubnetPrefix": 16, "AddressType": "Private",
            }]),
        );
        let mut logon = Row::new(now, "LogonSuccess");
        logon.text("LogonType", "Interactive");
        logon.text("AccountName", self.user.clone());
        logon.text("AccountDomain", self.account_domain());
        logon.text("AccountSid", self.account_sid());
        logon.flag("IsLocalAdmin", false);
        vec![("DeviceInfo", info), ("DeviceNetworkInfo", network), ("DeviceLogonEvents", logon)]
    }
}
