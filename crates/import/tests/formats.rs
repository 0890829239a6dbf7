//! Every form of recording, in small samples of our own.

use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use vigie_import::{FileReport, Options, Row, import};

/// The rows and the reports of one file with the given content.
fn read(name: &str, content: &[u8], options: &Options) -> (Vec<Row>, Vec<FileReport>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, content).expect("written");
    let mut rows = Vec::new();
    let mut keep = |row| {
        rows.push(row);
        Ok(())
    };
    let report = import(&[file], options, &mut keep, &mut |_, _| ()).expect("readable");
    (rows, report.files)
}

/// The only row of a file without a bad line.
fn only_row(content: impl AsRef<[u8]>) -> Row {
    let (mut rows, files) = read("sample", content.as_ref(), &Options::default());
    assert_eq!(files[0].first_bad, []);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn process_line(guid: &str, parent: &str) -> String {
    json!({
        "EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": "DESK-7",
        "UtcTime": "2024-03-05 10:20:30.456", "ProcessGuid": guid, "ProcessId": "4242",
        "Image": "C:\\Tools\\Probe.exe", "CommandLine": "probe.exe --fast", "User": "LAB\\ines",
        "LogonId": "0x3e7", "IntegrityLevel": "High", "Hashes": "SHA1=AB01,MD5=CD02,IMPHASH=EF03",
        "ParentImage": "C:\\Windows\\Explorer.EXE", "ParentProcessId": 77, "ParentProcessGuid": parent
    })
    .to_string()
}

#[test]
fn sysmon_process_becomes_a_process_row() {
    let row = only_row(process_line("{1}", "{0}"));
    assert_eq!(row.table, "DeviceProcessEvents");
    let expected = json!({
        "Timestamp": "2024-03-05T10:20:30.4560000Z", "ProcessCreationTime": "2024-03-05T10:20:30.4560000Z",
        "DeviceName": "DESK-7", "ActionType": "ProcessCreated", "ReportId": 1,
        "FileName": "Probe.exe", "FolderPath": "C:\\Tools\\Probe.exe", "ProcessId": 4242,
        "ProcessCommandLine": "probe.exe --fast", "AccountDomain": "LAB", "AccountName": "ines",
        "LogonId": 999, "ProcessIntegrityLevel": "High", "SHA1": "ab01", "MD5": "cd02",
        "InitiatingProcessId": 77, "InitiatingProcessFileName": "Explorer.EXE",
        "InitiatingProcessFolderPath": "c:\\windows\\explorer.exe",
        "AdditionalFields": "{\"IMPHASH\":\"ef03\"}"
    });
    let mut columns = row.columns;
    let device = columns.remove("DeviceId").expect("a device id");
    assert_eq!(device.as_str().map(str::len), Some(40));
    assert_eq!(Value::Object(columns), expected);
}

#[test]
fn later_rows_know_the_process_that_was_created_before() {
    let connection = json!({
        "EventID": 3, "Channel": "Microsoft-Windows-Sysmon/Operational", "Hostname": "DESK-7",
        "UtcTime": "2024-03-05 10:20:31.000", "ProcessGuid": "{1}", "ProcessId": 4242,
        "Image": "C:\\Tools\\Probe.exe", "Initiated": "true", "Protocol": "tcp",
        "SourceIp": "10.1.1.5", "SourcePort": 50123, "DestinationIp": "203.0.113.9", "DestinationPort": 443
    });
    let content = format!("{}\n{connection}\n", process_line("{1}", "{0}"));
    let (rows, _) = read("two.json", content.as_bytes(), &Options::default());
    let columns = &rows[1].columns;
    assert_eq!(rows[1].table, "DeviceNetworkEvents");
    assert_eq!(columns["InitiatingProcessCommandLine"], "probe.exe --fast");
    assert_eq!(columns["InitiatingProcessParentFileName"], "Explorer.EXE");
    assert_eq!(columns["Protocol"], "Tcp");
    assert_eq!(columns["RemoteIPType"], "Public");
    assert_eq!(columns["ReportId"], 2);
}

#[test]
fn nested_events_and_arrays_give_the_same_row() {
    let nested = json!({"Event": {
        "System": {"EventID": {"#text": 13}, "Computer": "srv", "Channel": "Microsoft-Windows-Sysmon/Operational",
            "TimeCreated": {"#attributes": {"SystemTime": "2024-01-01T00:00:00.5Z"}}},
        "EventData": {"EventType": "SetValue", "Image": "C:\\a.exe", "TargetObject": "HKLM\\Software\\Run\\x",
            "Details": "DWORD (0x0000000a)"}
    }});
    let one = only_row(nested.to_string());
    assert_eq!(one.columns["RegistryKey"], "HKEY_LOCAL_MACHINE\\Software\\Run");
    assert_eq!(one.columns["RegistryValueName"], "x");
    assert_eq!(one.columns["RegistryValueData"], "10");
    assert_eq!(one.columns["RegistryValueType"], "Dword");
    assert_eq!(only_row(json!([nested]).to_string()), one);
}

#[test]
fn sysmon_for_linux_inside_syslog_with_a_bare_ampersand() {
    let xml = "<Event><System><EventID>1</EventID><Channel>Linux-Sysmon/Operational</Channel>\
        <Computer>web1</Computer></System><EventData><Data Name=\"UtcTime\">2024-01-01 00:00:00.001</Data>\
        <Data Name=\"Image\">/bin/sh</Data><Data Name=\"CommandLine\">a &amp;&amp; b & c</Data>\
        <Data Name=\"User\">root</Data></EventData></Event>";
    let in_row = only_row(json!({"SyslogMessage": xml, "Facility": "user"}).to_string());
    assert_eq!(in_row.columns["ProcessCommandLine"], "a && b & c");
    assert_eq!(in_row.columns["AccountName"], "root");
    assert_eq!(only_row(format!("Jan  1 00:00:00 web1 sysmon: {xml}")), in_row);
}

#[test]
fn audit_records_of_one_serial_are_one_event() {
    let line = "type=SYSCALL msg=audit(1700000000.250:7): arch=c000003e syscall=59 success=yes exit=0 \
        ppid=10 pid=11 auid=1000 uid=0 euid=0 tty=pts1 ses=3 comm=\"cat\" exe=\"/usr/bin/cat\" key=(null)\n\
        type=EXECVE msg=audit(1700000000.250:7): argc=2 a0=\"cat\" a1=2F746D702F6120622E747874\n\
        type=CWD msg=audit(1700000000.250:7): cwd=\"/root\"\n";
    let options = Options { device_name: Some("bastion".into()), ..Options::default() };
    let (rows, _) = read("audit.log", line.as_bytes(), &options);
    let columns = &rows[0].columns;
    assert_eq!(columns["ProcessCommandLine"], "cat /tmp/a b.txt");
    assert_eq!(columns["DeviceName"], "bastion");
    assert_eq!(columns["Timestamp"], "2023-11-14T22:13:20.2500000Z");
    assert_eq!(columns["FolderPath"], "/usr/bin/cat");
}

#[test]
fn rows_of_a_tenant_keep_their_columns() {
    let row = only_row(
        json!({"Timestamp": "2024-01-01T00:00:00.1234567Z", "DeviceId": "d1", "DeviceName": "h",
            "ActionType": "LdapSearch", "ReportId_long": 5, "ReportId_string": "", "RemotePort": null,
            "InitiatingProcessId": 8})
        .to_string(),
    );
    assert_eq!(row.table, "DeviceEvents");
    assert_eq!(row.columns["ReportId"], 5);
    assert_eq!(row.columns["Timestamp"], "2024-01-01T00:00:00.1234567Z");
    assert!(!row.columns.contains_key("RemotePort"));
}

#[test]
fn archives_are_unfolded_and_twins_skipped() {
    let line = process_line("{1}", "{0}");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in [("a/events.json", line.as_str()), ("a/._events.json", "junk")] {
        zip.start_file(name, options).expect("a member");
        zip.write_all(content.as_bytes()).expect("written");
    }
    let zip = zip.finish().expect("a zip").into_inner();

    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Default::default()));
    let mut header = tar::Header::new_ustar();
    header.set_size(line.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, "events.json", line.as_bytes()).expect("a member");
    let tar = tar.into_inner().expect("a tar").finish().expect("a gzip");

    let plain = only_row(&line);
    assert_eq!(only_row(zip), plain);
    assert_eq!(only_row(tar), plain);
}

#[test]
fn a_bad_line_is_named_and_the_rest_goes_on() {
    let good = process_line("{1}", "{0}");
    let content = format!("{good}\n{{\"EventID\": \nhello\n{{\"EventID\":1}}\n{good}\n");
    let (rows, files) = read("mixed.json", content.as_bytes(), &Options::default());
    assert_eq!(rows.len(), 2);
    assert_eq!(files[0].bad_lines, 3);
    let lines: Vec<u64> = files[0].first_bad.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn events_without_a_counterpart_are_counted() {
    let ended = json!({"EventID": 5, "Channel": "Microsoft-Windows-Sysmon/Operational",
        "Hostname": "h", "UtcTime": "2024-01-01 00:00:00.000"});
    let (rows, files) = read("e.json", ended.to_string().as_bytes(), &Options::default());
    assert!(rows.is_empty());
    assert_eq!(files[0].unmapped[&("sysmon".to_owned(), "5".to_owned())], 1);
}

#[test]
fn times_move_so_that_the_newest_event_falls_on_the_wish() {
    let newest_at = "2026-01-01T00:00:00Z".parse().expect("a time");
    let options = Options { newest_at: Some(newest_at), ..Options::default() };
    let (rows, _) = read("e.json", process_line("{1}", "{0}").as_bytes(), &options);
    assert_eq!(rows[0].columns["Timestamp"], "2026-01-01T00:00:00.0000000Z");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let missing = PathBuf::from("no/such/file.json");
    let error = import(&[missing], &Options::default(), &mut |_| Ok(()), &mut |_, _| ());
    assert!(error.expect_err("missing").to_string().starts_with("no/such/file.json: "));
}

/// Damage in any place of any form must end in rows or in bad lines.
#[test]
fn damaged_content_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = "type=SYSCALL msg=audit(1700000000.250:7): arch=c000003e syscall=42 exit=0 pid=1\n\
        type=SOCKADDR msg=audit(1700000000.250:7): saddr=02000050CB007109\n";
    let xml = "<Event><System><EventID>1</EventID><Channel>Linux-Sysmon</Channel></System>\
        <EventData><Data Name=\"UtcTime\">2024-01-01 00:00:00</Data></EventData></Event>";
    let samples = [
        process_line("{1}", "{0}"),
        format!("[{}]", process_line("{2}", "{0}")),
        audit.into(),
        xml.into(),
    ];
    // A small generator with a fixed seed (SplitMix64): the same damage on every run.
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) % below as u64) as usize
    };
    let file = folder.path().join("damaged");
    for round in 0..2000 {
        let mut content = samples[round % samples.len()].clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(content.len());
            match random(3) {
                0 => content[at] = random(256) as u8,
                1 => content.truncate(at.max(1)),
                _ => content.insert(at, b"{}[]<>\"\\=\n"[random(10)]),
            }
        }
        File::create(&file).and_then(|mut file| file.write_all(&content)).expect("written");
        import(std::slice::from_ref(&file), &Options::default(), &mut |_| Ok(()), &mut |_, _| ())
            .expect("readable");
    }
}
