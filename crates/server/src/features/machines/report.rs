//! What a sensor reports of its machine, and how it is kept.

use crate::edge::ApiError;
use crate::state::State;
use serde_json::json;
use uuid::Uuid;
use vigie_contract::administration::DeviceGroup;
use vigie_contract::sensor::{IpAddress, MachineReport};
use vigie_database::Transaction;

/// An address that is reported again within this time was there all the while (sensors report every
/// five minutes).
const SAME_SPAN_MICROS: i64 = 16 * 60_000_000;
/// Addresses are asked for up to 30 days back.
const KEPT_MICROS: i64 = 31 * 86_400_000_000;

/// Stores a sensor's report; `external` is the address that it came from.
pub async fn store_report(
    state: &State,
    transaction: &mut Transaction,
    machine: &str,
    report: &MachineReport,
    external: Option<&str>,
) -> Result<(), ApiError> {
    let up = |address: &&IpAddress| {
        let loopback = address.r#type.as_deref() == Some("SoftwareLoopback");
        !loopback && address.operational_status.as_deref() != Some("Down")
    };
    let first_address = report.ip_addresses.iter().find(up).map(|a| a.ip_address.clone());
    let update = "UPDATE machines SET name = $1, os_platform = $2, version = $3, os_build = $4, \
                  agent_version = $5, last_ip = $6, last_external_ip = $7, aad_device_id = $8, \
                  report = $9, last_seen = $10, os_processor = $11, os_architecture = $12 \
                  WHERE id = $13";
    let values = [
        report.computer_dns_name.as_str().into(),
        report.os_platform.as_str().into(),
        report.version.clone().into(),
        report.os_build.into(),
        report.agent_version.as_str().into(),
        first_address.into(),
        external.map(str::to_owned).into(),
        report.aad_device_id.map(|id| id.to_string()).into(),
        json!(report).to_string().into(),
        state.now().into(),
        report.os_processor.clone().into(),
        report.os_architecture.clone().into(),
        machine.into(),
    ];
    transaction.execute(update, &values).await?;
    store_addresses(state.now(), transaction, machine, report).await?;
    store_users(transaction, machine, report).await?;
    assign_group(state, transaction, machine).await?;
    merge(transaction, machine, report).await
}

/// Puts a machine into the device group whose rules it meets, told by its name, tags and system.
pub async fn assign_group(
    state: &State,
    transaction: &mut Transaction,
    machine: &str,
) -> Result<(), ApiError> {
    let select = "SELECT tenant, name, tags, os_platform FROM machines WHERE id = $1";
    let rows = transaction.read(select, &[machine.into()]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let tenant = Uuid::try_parse(row.text(0)?).map_err(ApiError::internal)?;
    let tags: Vec<String> = serde_json::from_str(row.text(2)?).map_err(ApiError::internal)?;
    let groups = state.directory.device_groups(tenant).await?;
    let group = DeviceGroup::of(&groups, row.text(1)?, &tags, row.text(3)?);
    let set = "UPDATE machines SET group_id = $1, group_name = $2 WHERE id = $3";
    let name = group.map(|group| group.content.name.clone());
    let values = [group.map_or(0, |group| group.id).into(), name.into(), machine.into()];
    transaction.execute(set, &values).await?;
    Ok(())
}

/// Keeps since when and until when the machine had each address.
async fn store_addresses(
    now: i64,
    transaction: &mut Transaction,
    machine: &str,
    report: &MachineReport,
) -> Result<(), ApiError> {
    let forget = "DELETE FROM machine_addresses WHERE machine = $1 AND ended < $2";
    transaction.execute(forget, &[machine.into(), (now - KEPT_MICROS).into()]).await?;
    for address in &report.ip_addresses {
        let extend = "UPDATE machine_addresses SET ended = $1, mac = $2, type = $3, status = $4 \
                      WHERE machine = $5 AND address = $6 AND ended >= $7";
        let values = [
            now.into(),
            address.mac_address.clone().into(),
            address.r#type.clone().into(),
            address.operational_status.clone().into(),
            machine.into(),
            address.ip_address.as_str().into(),
            (now - SAME_SPAN_MICROS).into(),
        ];
        if transaction.execute(extend, &values).await? > 0 {
            continue;
        }
        let insert = "INSERT INTO machine_addresses (ended, mac, type, status, machine, address, \
                      began) VALUES ($1, $2, $3, $4, $5, $6, $1) ON CONFLICT DO NOTHING";
        transaction.execute(insert, &values[..6]).await?;
    }
    Ok(())
}

async fn store_users(
    transaction: &mut Transaction,
    machine: &str,
    report: &MachineReport,
) -> Result<(), ApiError> {
    for user in &report.logged_on_users {
        let insert = "INSERT INTO machine_users (machine, account_name, account_domain, account_sid, \
            logon_types, first_seen, last_seen, domain_admin, only_network) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
            ON CONFLICT (machine, account_domain, account_name) DO UPDATE SET \
            last_seen = excluded.last_seen, logon_types = excluded.logon_types";
        let values = [
            machine.into(),
            user.account_name.as_str().into(),
            user.account_domain.as_str().into(),
            user.account_sid.clone().into(),
            user.logon_type.as_str().into(),
            user.first_seen.timestamp_micros().into(),
            user.last_seen.timestamp_micros().into(),
            user.is_domain_admin.into(),
            user.is_only_network_user.into(),
        ];
        transaction.execute(insert, &values).await?;
    }
    Ok(())
}

/// A device of the directory is one machine: what enrolled before under the same device id is merged
/// into this one.
async fn merge(
    transaction: &mut Transaction,
    machine: &str,
    report: &MachineReport,
) -> Result<(), ApiError> {
    let Some(device) = report.aad_device_id else { return Ok(()) };
    let update = "UPDATE machines SET merged_into = $1 WHERE id <> $1 AND aad_device_id = $2 AND \
        merged_into IS NULL AND tenant = (SELECT m.tenant FROM machines m WHERE m.id = $1) AND \
        first_seen <= (SELECT m.first_seen FROM machines m WHERE m.id = $1)";
    transaction.execute(update, &[machine.into(), device.to_string().into()]).await?;
    Ok(())
}
