//! The public recordings beside the repository import as their description says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vigie_import::{Options, Report, Row, import};

fn recording(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/telemetry");
    let file = folder.join(name);
    if !file.exists() {
        println!("left out: {name} is not beside the repository");
        return None;
    }
    Some(file)
}

fn read(file: PathBuf) -> Report {
    let mut check = |row: Row| {
        let table = vigie_contract::tables::table(row.table).expect("a hunting table");
        for name in row.columns.keys() {
            let exists = table.columns.iter().any(|column| column.name == *name);
            assert!(exists, "{} has no column {name}", row.table);
        }
        Ok(())
    };
    import(&[file], &Options::default(), &mut check, &mut |_, _| ()).expect("readable")
}

/// Events, rows by table, and the bad lines of one recording.
fn check(name: &str, events: u64, rows: &[(&str, u64)]) {
    let Some(file) = recording(name) else { return };
    let report = read(file);
    let first_bad: Vec<_> = report.files.iter().flat_map(|file| &file.first_bad).collect();
    assert!(first_bad.is_empty(), "{first_bad:?}");
    assert_eq!(report.files.iter().map(|file| file.events).sum::<u64>(), events);
    assert_eq!(report.rows(), rows.iter().copied().collect::<BTreeMap<_, _>>());
}

#[test]
fn workstation_with_cobalt_strike() {
    check(
        "aptsimulator_cobaltstrike.zip",
        2611,
        &[
            ("DeviceEvents", 1102),
            ("DeviceFileEvents", 31),
            ("DeviceImageLoadEvents", 911),
            ("DeviceNetworkEvents", 28),
            ("DeviceProcessEvents", 73),
            ("DeviceRegistryEvents", 146),
        ],
    );
}

#[test]
fn remote_thread_on_three_hosts() {
    check(
        "covenant_lolbin_wuauclt_createremotethread.zip",
        1326,
        &[
            ("DeviceEvents", 210),
            ("DeviceFileEvents", 19),
            ("DeviceImageLoadEvents", 183),
            ("DeviceLogonEvents", 9),
            ("DeviceNetworkEvents", 117),
            ("DeviceProcessEvents", 8),
            ("DeviceRegistryEvents", 311),
        ],
    );
}

#[test]
fn task_made_from_afar() {
    check(
        "schtask_create.zip",
        1041,
        &[
            ("DeviceEvents", 416),
            ("DeviceFileEvents", 10),
            ("DeviceImageLoadEvents", 391),
            ("DeviceLogonEvents", 1),
            ("DeviceNetworkEvents", 23),
            ("DeviceProcessEvents", 20),
            ("DeviceRegistryEvents", 67),
        ],
    );
}

#[test]
fn four_hosts_under_a_playbook() {
    check(
        "purplesharp_ad_playbook_I.zip",
        25993,
        &[
            ("DeviceEvents", 466),
            ("DeviceFileEvents", 835),
            ("DeviceImageLoadEvents", 1537),
            ("DeviceLogonEvents", 56),
            ("DeviceNetworkEvents", 323),
            ("DeviceProcessEvents", 48),
            ("DeviceRegistryEvents", 19052),
            ("IdentityLogonEvents", 24),
        ],
    );
}

#[test]
fn sysmon_for_linux_in_syslog() {
    check(
        "syslog_sysmon_log4shell_cve2021_44228_jndi_reference.zip",
        93,
        &[("DeviceFileEvents", 6), ("DeviceNetworkEvents", 6), ("DeviceProcessEvents", 31)],
    );
}

#[test]
fn raw_audit_records() {
    check("sh_binary_padding_dd.zip", 1, &[("DeviceProcessEvents", 1)]);
}

#[test]
fn rows_of_a_tenant() {
    check(
        "Microsoft365DefenderEvents.Zip",
        9,
        &[("CloudAppEvents", 2), ("DeviceEvents", 5), ("IdentityDirectoryEvents", 2)],
    );
}

#[test]
fn binary_event_log() {
    check(
        "panache_sysmon_vs_EDRTestingScript.evtx",
        122,
        &[
            ("DeviceFileEvents", 5),
            ("DeviceImageLoadEvents", 8),
            ("DeviceNetworkEvents", 8),
            ("DeviceProcessEvents", 96),
            ("DeviceRegistryEvents", 5),
        ],
    );
}

#[test]
fn one_event_for_each_rule() {
    check(
        "sigma_regression_shared.jsonl",
        105,
        &[
            ("DeviceEvents", 2),
            ("DeviceFileEvents", 9),
            ("DeviceImageLoadEvents", 2),
            ("DeviceProcessEvents", 74),
            ("DeviceRegistryEvents", 17),
        ],
    );
}
