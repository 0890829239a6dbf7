//! Facts of this machine: the report to the server and the rows of `DeviceInfo` and
//! `DeviceNetworkInfo`.

mod interfaces;
mod users;

pub use interfaces::{Interface, interfaces};
pub use users::logged_on_users;

use crate::rows::Row;
use crate::sources::ip_type;
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::HashMap;
use vigie_contract::sensor::{IpAddress, LogonUser, MachineReport};

/// What does not change while the sensor runs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub host: String,
    pub distribution: String,
    pub version: String,
    pub kernel: String,
    pub architecture: &'static str,
    pub processor: &'static str,
    pub vendor: String,
    pub model: String,
    pub hardware_uuid: String,
}

/// Reads the facts; what the system does not tell stays empty.
pub fn facts() -> Facts {
    let release = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let release = parse_os_release(&release);
    let names = rustix::system::uname();
    let dmi = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/class/dmi/id/{name}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let distribution = release.get("NAME").cloned().unwrap_or_else(|| "Linux".to_owned());
    Facts {
        host: host_name(&names.nodename().to_string_lossy()),
        distribution: distribution.split(" GNU/Linux").next().unwrap_or_default().to_owned(),
        version: release.get("VERSION_ID").cloned().unwrap_or_default(),
        kernel: names.release().to_string_lossy().into_owned(),
        architecture: if cfg!(target_pointer_width = "64") { "64-bit" } else { "32-bit" },
        processor: match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        },
        vendor: dmi("sys_vendor"),
        model: dmi("product_name"),
        hardware_uuid: dmi("product_uuid").to_lowercase(),
    }
}

/// The host name with its domain, where `/etc/hosts` gives one; no name server is asked.
fn host_name(node: &str) -> String {
    let node = node.to_lowercase();
    if node.contains('.') {
        return node;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let prefix = format!("{node}.");
    hosts
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::split_ascii_whitespace)
        .map(str::to_lowercase)
        .find(|name| name.starts_with(&prefix))
        .unwrap_or(node)
}

/// `NAME="value"` lines (os-release(5)).
fn parse_os_release(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            (name.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned())
        })
        .collect()
}

/// The report's part that comes from the machine.
pub fn report(facts: &Facts, interfaces: &[Interface], users: Vec<LogonUser>) -> MachineReport {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let addresses = interfaces.iter().flat_map(|interface| {
        interface.addresses.iter().map(|(address, _)| IpAddress {
            ip_address: address.to_string(),
            mac_address: some(&interface.mac),
            r#type: Some(interface.kind.to_owned()),
            operational_status: Some(interface.status().to_owned()),
        })
    });
    MachineReport {
        computer_dns_name: facts.host.clone(),
        os_platform: "Linux".to_owned(),
        version: some(&facts.version),
        os_architecture: Some(facts.architecture.to_owned()),
        os_processor: Some(facts.processor.to_owned()),
        os_distribution: some(&facts.distribution),
        os_version_info: some(&facts.kernel),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ip_addresses: addresses.collect(),
        logged_on_users: users,
        ..MachineReport::default()
    }
}

/// The row of `DeviceInfo`.
pub fn info_row(facts: &Facts, report: &MachineReport, at: DateTime<Utc>) -> Row {
    let mut row = Row::default();
    row.time("Timestamp", at);
    row.text("ClientVersion", env!("CARGO_PKG_VERSION"));
    row.text("OSPlatform", "Linux");
    row.text("OSArchitecture", facts.architecture);
    row.text("OSVersion", facts.version.clone());
    row.text("OSDistribution", facts.distribution.clone());
    row.text("OSVersionInfo", facts.kernel.clone());
    row.text("Vendor", facts.vendor.clone());
    row.text("Model", facts.model.clone());
    row.text("HardwareUuid", facts.hardware_uuid.clone());
    row.text("OnboardingStatus", "Onboarded");
    row.text("SensorHealthState", "Active");
    row.text("DeviceCategory", "Endpoint");
    row.flag("IsAzureADJoined", false);
    let users: Vec<_> = report
        .logged_on_users
        .iter()
        .map(|user| {
            json!({
                "UserName": user.account_name,
                "DomainName": user.account_domain,
                "Sid": user.account_sid,
            })
        })
        .collect();
    row.json("LoggedOnUsers", &users.into());
    row
}

/// One row of `DeviceNetworkInfo` for each interface.
pub fn network_rows(interfaces: &[Interface], at: DateTime<Utc>) -> Vec<Row> {
    let servers = interfaces::name_servers();
    let gateways = interfaces::default_gateways();
    let rows = interfaces.iter().map(|interface| {
        let mut row = Row::default();
        row.time("Timestamp", at);
        row.text("NetworkAdapterName", interface.name.clone());
        row.text("MacAddress", interface.mac.clone());
        row.text("NetworkAdapterType", interface.kind);
        row.text("NetworkAdapterStatus", interface.status());
        let addresses: Vec<_> = interface
            .addresses
            .iter()
            .map(|(address, prefix)| {
                json!({
                    "IPAddress": address.to_string(),
                    "SubnetPrefix": prefix,
                    "AddressType": ip_type(*address),
                })
            })
            .collect();
        row.json("IPAddresses", &addresses.into());
        let own: Vec<_> = gateways
            .iter()
            .filter(|(name, _)| *name == interface.name)
            .map(|(_, address)| address.clone())
            .collect();
        row.json("DefaultGateways", &own.into());
        row.json("DnsAddresses", &servers.clone().into());
        row.text("OnboardingStatus", "Onboarded");
        row
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_values_lose_their_quotes() {
        let values =
            parse_os_release("NAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\n#x\n");
        assert_eq!(values["NAME"], "Debian GNU/Linux");
        assert_eq!((values["VERSION_ID"].as_str(), values["ID"].as_str()), ("12", "debian"));
    }

    #[test]
    fn rows_have_only_columns_of_their_tables() {
        let facts = facts();
        let interfaces = interfaces().unwrap();
        assert!(interfaces.iter().any(|interface| interface.name == "lo"));
        let report = report(&facts, &interfaces, Vec::new());
        let now = vigie_contract::clock::Clock::default().now();
        let mut rows = vec![("DeviceInfo", info_row(&facts, &report, now))];
        rows.extend(network_rows(&interfaces, now).into_iter().map(|r| ("DeviceNetworkInfo", r)));
        for (table, row) in rows {
            let table = vigie_contract::tables::table(table).unwrap();
            for column in row.0.keys() {
                assert!(table.columns.iter().any(|c| c.name == *column), "{column}");
            }
        }
    }
}
