//! The lake as a whole: what is acknowledged stays, once, and is seen at once.

use super::*;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext, ident, lit};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

const TENANT: Uuid = Uuid::from_u128(7);
const TABLE: &str = "DeviceProcessEvents";

fn config(root: &std::path::Path) -> LakeConfig {
    let mut config = LakeConfig::new(root, Clock::default());
    config.background = false;
    config
}

/// Opens what a dropped lake left; its threads end, and its lock goes, a moment after the drop.
async fn reopened(config: LakeConfig) -> Lake {
    loop {
        match Lake::open(config.clone()).await {
            Err(LakeError::Locked { .. }) => tokio::task::yield_now().await,
            opened => return opened.expect("opened again"),
        }
    }
}

/// A batch of `rows` process rows whose ProcessId counts up from `first`.
fn batch(source: &str, sequence: u64, first: u64, rows: u64) -> Batch {
    let rows: Vec<_> = (first..first + rows)
        .map(|id| {
            serde_json::json!({
                "Timestamp": chrono::Utc::now(), "ActionType": "ProcessCreated", "ProcessId": id,
                "FileName": format!("program-{}", id % 7), "SHA1": sha1(id),
            })
        })
        .collect();
    Batch {
        tenant: TENANT,
        source: source.to_owned(),
        sequence,
        constants: vec![("DeviceId".to_owned(), format!("device-{source}"))],
        body: serde_json::json!({"tables": {TABLE: rows}}).to_string().into(),
    }
}

/// One of seven files.
fn sha1(id: u64) -> String {
    format!("{:040x}", id % 7)
}

async fn seen(lake: &Lake, thing: Thing) -> Seen {
    let since = lake.shared.config.clock.now() - TimeDelta::days(30);
    lake.seen(TENANT, thing, since).await.expect("looked up")
}

/// How many rows name each of the seven files.
async fn times(lake: &Lake) -> Vec<u64> {
    let mut times = Vec::new();
    for id in 0..7 {
        times.push(seen(lake, Thing::Sha1(sha1(id))).await.times);
    }
    times
}

fn context() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(2);
    config.options_mut().execution.parquet.pushdown_filters = true;
    SessionContext::new_with_config(config)
}

/// ProcessId of every row, ascending.
async fn ids(lake: &Lake) -> Vec<i64> {
    use datafusion::arrow::array::AsArray as _;
    let table = lake.table(TENANT, TABLE).expect("a table");
    let rows = context().read_table(table).expect("read").select(vec![ident("ProcessId")]);
    let batches = rows.expect("column").collect().await.expect("collected");
    let mut ids: Vec<i64> = (batches.iter())
        .flat_map(|batch| {
            let ids = batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
            ids.values().to_vec()
        })
        .collect();
    ids.sort_unstable();
    ids
}

fn numbers(count: i64) -> Vec<i64> {
    (0..count).collect()
}

#[tokio::test]
async fn rows_are_seen_at_once_and_after_flush_compaction_and_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(config(folder.path())).await.expect("opened");
    for part in 0..10 {
        let appended = lake.append(batch("a", part + 1, part * 10, 10)).await.expect("appended");
        assert_eq!(appended, Appended { sequence: part + 1, rows: 10, duplicate: false });
        assert_eq!(ids(&lake).await, numbers((part as i64 + 1) * 10));
        if part % 2 == 0 {
            assert_eq!(lake.flush().await.expect("flushed").files, 1);
            assert_eq!(ids(&lake).await, numbers((part as i64 + 1) * 10));
        }
    }
    lake.flush().await.expect("flushed");
    lake.compact().await.expect("compacted");
    assert_eq!(ids(&lake).await, numbers(100));
    lake.append(batch("a", 11, 100, 5)).await.expect("appended");
    drop(lake);
    let lake = reopened(config(folder.path())).await;
    assert_eq!(ids(&lake).await, numbers(105));
    assert_eq!(lake.last_sequence(TENANT, "a"), 11);
    assert_eq!(lake.problems(), Vec::<String>::new());
    lake.close().await.expect("closed");
}

#[tokio::test]
async fn a_repeated_batch_is_answered_and_not_stored_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(config(folder.path())).await.expect("opened");
    lake.append(batch("a", 1, 0, 3)).await.expect("appended");
    let again = lake.append(batch("a", 1, 0, 3)).await.expect("answered");
    assert_eq!(again, Appended { sequence: 1, rows: 0, duplicate: true });
    lake.flush().await.expect("flushed");
    lake.close().await.expect("closed");
    drop(lake);
    let lake = reopened(config(folder.path())).await;
    assert!(lake.append(batch("a", 1, 0, 3)).await.expect("answered").duplicate);
    assert_eq!(ids(&lake).await, numbers(3));
}

/// A Parquet file as others write it: a column more than the table has, times as text, and the rows
/// in no order.
fn exported() -> bytes::Bytes {
    use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
    let texts = |texts: &[Option<&str>]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let columns = [
        ("ProcessId", Arc::new(Int32Array::from(vec![2, 0, 1])) as ArrayRef),
        ("FileName", texts(&[Some("b"), None, Some("a")])),
        ("AdditionalFields", texts(&[Some("{\"a\":1}"), None, Some("plain")])),
        (
            "Timestamp",
            texts(&[
                Some("2026-01-03T00:00:00Z"),
                Some("2026-01-01T00:00:00.5Z"),
                Some("2026-01-02T00:00:00Z"),
            ]),
        ),
        ("Unknown", texts(&[None, None, Some("x")])),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    bytes.into()
}

#[tokio::test]
async fn exported_columns_are_loaded_once_and_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = || {
        let mut config = config(folder.path());
        config.retention = None;
        config
    };
    let lake = Lake::open(config()).await.expect("opened");
    let loaded = lake.load(TENANT, TABLE, "import:1", exported()).await.expect("loaded");
    assert_eq!(loaded, Loaded { rows: 3, duplicate: false });
    assert_eq!(ids(&lake).await, numbers(3));
    let again = lake.load(TENANT, TABLE, "import:1", exported()).await.expect("answered");
    assert_eq!(again, Loaded { rows: 0, duplicate: true });
    drop(lake);
    let lake = reopened(config()).await;
    assert!(lake.load(TENANT, TABLE, "import:1", exported()).await.expect("answered").duplicate);
    let table = lake.table(TENANT, TABLE).expect("a table");
    let columns = vec![ident("ProcessId"), ident("FileName"), ident("AdditionalFields")];
    let rows = context().read_table(table).expect("read").select(columns).expect("columns");
    let rows = rows.collect().await.expect("collected");
    let printed = pretty_format_batches(&rows).expect("printed").to_string();
    assert_eq!(
        printed,
        "\
+-----------+----------+------------------+
| ProcessId | FileName | AdditionalFields |
+-----------+----------+------------------+
| 0         |          |                  |
| 1         | a        | plain            |
| 2         | b        | {\"a\":1}          |
+-----------+----------+------------------+"
    );
    for (table, bytes, reason) in [
        ("Device", exported(), "Device is no hunting table"),
        (TABLE, "PAR1 no more".into(), "malformed"),
    ] {
        let error = lake.load(TENANT, table, "import:2", bytes).await.expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn filters_and_types_agree_between_memory_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.retention = None;
    let lake = Lake::open(config).await.expect("opened");
    let body = serde_json::json!({"tables": {TABLE: [
        {"Timestamp": "2024-01-01T00:00:00.0000019Z", "ProcessId": 1, "FileName": "a"},
        {"Timestamp": "2024-01-02T00:00:00Z", "ProcessId": 2, "SHA1": "00ff"},
        {"Timestamp": "2024-01-03T00:00:00Z", "ProcessId": 3, "ProcessCreationTime": "2024-01-01T00:00:00Z"},
    ]}});
    let one = Batch { body: body.to_string().into(), ..batch("a", 1, 0, 0) };
    lake.append(one).await.expect("appended");
    let ticks = |days: i64| shape::EPOCH_TICKS + (1_704_067_200 + days * 86_400) * 10_000_000;
    let query = async |lake: &Lake| {
        let table = lake.table(TENANT, TABLE).expect("a table");
        let rows = context().read_table(table).expect("read");
        let rows = rows
            .filter(
                ident("Timestamp")
                    .gt_eq(lit(ticks(0) + 5))
                    .and(ident("Timestamp").lt(lit(ticks(2)))),
            )
            .and_then(|rows| rows.sort_by(vec![ident("ProcessId")]))
            .and_then(|rows| {
                rows.select(
                    [
                        "Timestamp",
                        "DeviceId",
                        "FileName",
                        "SHA1",
                        "ProcessId",
                        "ProcessCreationTime",
                    ]
                    .map(ident),
                )
            });
        let batches = rows.expect("planned").collect().await.expect("collected");
        pretty_format_batches(&batches).expect("printed").to_string()
    };
    let in_memory = query(&lake).await;
    assert!(
        in_memory.contains("| 638396640000000010 | device-a | a        |      | 1         |"),
        "{in_memory}"
    );
    assert!(
        in_memory.contains("| 638397504000000000 | device-a |          | 00ff | 2         |"),
        "{in_memory}"
    );
    assert!(!in_memory.contains("| 3 "), "{in_memory}");
    lake.flush().await.expect("flushed");
    assert_eq!(query(&lake).await, in_memory);
}

#[tokio::test]
async fn a_wrong_row_names_table_row_and_column_and_stores_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(config(folder.path())).await.expect("opened");
    let time = "2024-01-01T00:00:00Z";
    let cases = [
        (
            serde_json::json!([{"Timestamp": time}, {"Timestamp": time, "Nonsense": 1}]),
            "row 1, column Nonsense: unknown column",
        ),
        (
            serde_json::json!([{"Timestamp": time, "ProcessId": "x"}]),
            "row 0, column ProcessId: expected a whole number, got a string",
        ),
        (serde_json::json!([{"ProcessId": 1}]), "row 0, column Timestamp: missing"),
        (serde_json::json!([{"Timestamp": "yesterday"}]), "row 0, column Timestamp: not a time"),
    ];
    for (rows, expected) in cases {
        let body = serde_json::json!({"tables": {TABLE: rows}}).to_string().into();
        let error = lake.append(Batch { body, ..batch("a", 1, 0, 0) }).await.expect_err("wrong");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let text = Batch { body: "{\"tables\":".into(), ..batch("a", 1, 0, 0) };
    assert!(matches!(lake.append(text).await, Err(LakeError::Malformed { .. })));
    assert_eq!(lake.last_sequence(TENANT, "a"), 0);
    assert_eq!(ids(&lake).await, numbers(0));
}

#[tokio::test]
async fn rows_out_of_retention_are_hidden_and_then_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    let clock = config.clock.clone();
    config.grace = TimeDelta::minutes(1);
    let lake = Lake::open(config).await.expect("opened");
    lake.append(batch("a", 1, 0, 3)).await.expect("appended");
    lake.flush().await.expect("flushed");
    clock.advance(TimeDelta::days(31));
    assert_eq!(ids(&lake).await, numbers(0));
    assert_eq!(lake.expire().await.expect("expired").rows, 3);
    clock.advance(TimeDelta::minutes(2));
    assert_eq!(lake.expire().await.expect("expired").removed, 1);
}

/// Rows that tell of a file, an address and a host, in several spellings, of two devices.
fn telling(source: &str, sequence: u64, time: chrono::DateTime<chrono::Utc>) -> Batch {
    let hash = "AB".repeat(20);
    let body = serde_json::json!({"tables": {
        TABLE: [
            {"Timestamp": time, "FileName": "tool", "SHA1": hash, "SHA256": "cd".repeat(32)},
            {"Timestamp": time + TimeDelta::minutes(90), "FileName": "renamed", "SHA1": hash,
             "InitiatingProcessSHA1": hash.to_lowercase(), "InitiatingProcessFileName": "tool"},
        ],
        "DeviceNetworkEvents": [
            {"Timestamp": time, "RemoteIP": "::ffff:192.0.2.7", "RemoteUrl": "https://Bad.Example:8443/a"},
            {"Timestamp": time, "RemoteIP": "192.0.2.7", "RemoteUrl": "bad.example"},
            {"Timestamp": time, "RemoteIP": "192.0.2.70", "RemoteUrl": "https://other.example/bad.example"},
        ],
    }});
    Batch { body: body.to_string().into(), ..batch(source, sequence, 0, 0) }
}

#[tokio::test]
async fn what_was_seen_is_the_same_from_memory_files_merged_files_and_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.compaction.files = 2;
    config.grace = TimeDelta::zero();
    let lake = Lake::open(config.clone()).await.expect("opened");
    let begin = config.clock.now() - TimeDelta::hours(100);
    let begin =
        chrono::DateTime::from_timestamp(begin.timestamp() / 3600 * 3600, 0).expect("a time");
    let things = [
        Thing::Sha1("ab".repeat(20)),
        Thing::Sha256("cd".repeat(32)),
        Thing::Address("192.0.2.7".parse().expect("an address")),
        Thing::Host("bad.example".to_owned()),
        Thing::Host("example".to_owned()),
    ];
    let all = async |lake: &Lake| {
        let mut all = Vec::new();
        for thing in &things {
            all.push(seen(lake, thing.clone()).await);
        }
        all
    };
    lake.append(telling("a", 1, begin)).await.expect("appended");
    lake.append(telling("b", 1, begin + TimeDelta::hours(1))).await.expect("appended");
    let found = all(&lake).await;
    let micros = |minutes| Some((begin + TimeDelta::minutes(minutes)).timestamp_micros());
    let devices = ["device-a", "device-b"].map(str::to_owned).to_vec();
    let file = Seen {
        times: 6,
        devices: devices.clone(),
        first: micros(0),
        last: micros(150),
        names: vec![("tool".to_owned(), 4), ("renamed".to_owned(), 2)],
        other_hash: Some("cd".repeat(32)),
    };
    assert_eq!(found[0], file);
    assert_eq!(found[1].other_hash, Some("ab".repeat(20)));
    assert_eq!((found[1].times, found[2].times, found[3].times), (2, 4, 4));
    assert_eq!((&found[3].devices, &found[4]), (&devices, &Seen::default()));
    // The window begins with its hour.
    let since = async |minutes: i64| {
        let since = begin + TimeDelta::minutes(minutes);
        lake.seen(TENANT, things[0].clone(), since).await.expect("looked up").times
    };
    let windows = async || [since(0).await, since(59).await, since(60).await, since(125).await];
    assert_eq!(windows().await, [6, 6, 5, 2]);

    lake.flush().await.expect("flushed");
    assert_eq!(all(&lake).await, found, "from files");
    assert_eq!(windows().await, [6, 6, 5, 2]);
    lake.append(telling("c", 1, begin)).await.expect("appended");
    let found = all(&lake).await;
    assert_eq!(found[0].devices.len(), 3, "files and memory together");
    lake.flush().await.expect("flushed");
    assert_eq!(all(&lake).await, found, "from more files");
    assert!(lake.compact().await.expect("compacted").files_after > 0);
    assert_eq!(all(&lake).await, found, "from merged files");
    lake.expire().await.expect("expired");
    let summaries = seen::folder(&folder.path().join(TENANT.to_string()).join(TABLE));
    let list = || -> Vec<_> {
        let entries = std::fs::read_dir(&summaries).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    assert_eq!(list().len(), 1, "a replaced file takes its summary along");

    for damage in [0, 20, usize::MAX] {
        let path = &list()[0];
        let mut bytes = std::fs::read(path).expect("read");
        let place = damage.min(bytes.len() - 20);
        bytes[place] ^= 1;
        std::fs::write(path, &bytes).expect("written");
        let table = lake.shared.table(TENANT, shape::shape(TABLE).expect("a table"));
        table.summaries.lock().clear();
        assert_eq!(all(&lake).await, found, "damaged at {place}");
    }
    std::fs::remove_file(&list()[0]).expect("removed");
    drop(lake);
    let lake = reopened(config.clone()).await;
    assert_eq!(lake.summarise().await, 1);
    assert_eq!(all(&lake).await, found, "made anew");
    config.clock.advance(TimeDelta::days(31));
    assert_eq!(all(&lake).await, vec![Seen::default(); 5], "out of retention");
    lake.expire().await.expect("expired");
    assert!(list().is_empty(), "gone with the rows");
}

#[tokio::test]
async fn a_second_lake_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _lake = Lake::open(config(folder.path())).await.expect("opened");
    let second = Lake::open(config(folder.path())).await.err().expect("refused");
    let expected = LakeError::Locked {
        root: folder.path().canonicalize().expect("a path"),
        pid: Some(std::process::id()),
    };
    assert_eq!(second, expected);
}

#[tokio::test]
async fn a_cut_log_loses_only_what_was_never_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(config(folder.path())).await.expect("opened");
    lake.append(batch("a", 1, 0, 3)).await.expect("appended");
    drop(lake);
    let segment = wal::segment_path(&folder.path().join("wal"), 1);
    // The file is allocated ahead; find the end of what was written.
    let bytes = std::fs::read(&segment).expect("read");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("some") + 1;
    std::fs::write(&segment, [&bytes[..written], &b"VGR"[..]].concat()).expect("written");
    let lake = reopened(config(folder.path())).await;
    assert_eq!(ids(&lake).await, numbers(3));
    drop(lake);
    std::fs::write(&segment, &bytes[..written - 4]).expect("written");
    let lake = reopened(config(folder.path())).await;
    assert_eq!(ids(&lake).await, numbers(0));
    lake.append(batch("a", 2, 0, 3)).await.expect("appended");
    assert_eq!(ids(&lake).await, numbers(3));
}

/// Parquet files of a table, in the order in which they were written.
fn files_of(lake: &Lake, table: &str) -> Vec<Arc<table::LakeFile>> {
    let table = lake.shared.table(TENANT, shape::shape(table).expect("a table"));
    table.snapshot().files.iter().cloned().collect()
}

#[tokio::test]
async fn missing_summaries_wait_for_a_flush_and_for_no_damaged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let clock = config.clock.clone();
    let lake = Lake::open(config).await.expect("opened");
    for part in 0..2 {
        lake.append(batch("a", part + 1, part * 3, 3)).await.expect("appended");
        lake.flush().await.expect("flushed");
    }
    let place = folder.path().join(TENANT.to_string()).join(TABLE);
    let files = files_of(&lake, TABLE);
    assert_eq!(files.len(), 2);
    let summaries: Vec<PathBuf> = files.iter().map(|file| seen::path(&place, &file.path)).collect();
    summaries.iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
    std::fs::write(place.join(&files[0].path), b"PAR1 nothing else PAR1").expect("written");

    lake.append(batch("a", 3, 6, 3)).await.expect("appended");
    clock.advance(TimeDelta::minutes(6));
    assert_eq!(lake.summarise().await, 0, "a flush is due");
    lake.flush().await.expect("flushed");
    assert_eq!(lake.summarise().await, 1, "that of the whole file");
    assert!(!summaries[0].exists() && summaries[1].exists());
}

#[tokio::test]
async fn summaries_are_looked_into_while_one_is_made_and_not_kept_of_replaced_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.compaction.files = 2;
    let lake = Lake::open(config).await.expect("opened");
    for part in 0..2 {
        lake.append(batch("a", part + 1, part * 3, 3)).await.expect("appended");
        lake.flush().await.expect("flushed");
    }
    let table = lake.shared.table(TENANT, shape::shape(TABLE).expect("a table"));
    let making = table.making.lock();
    let replaced = files_of(&lake, TABLE);
    for file in &replaced {
        table.summary(file).expect("looked into");
    }
    drop(making);
    assert_eq!(table.summaries.lock().len(), 2);
    assert_eq!(lake.compact().await.expect("compacted").files_before, 2);
    assert!(table.summaries.lock().is_empty());
    // As a look-up does that began before.
    table.summary(&replaced[0]).expect("still on disk");
    assert!(table.summaries.lock().is_empty());
}

#[tokio::test]
async fn a_damaged_file_is_named_and_other_tables_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(config(folder.path())).await.expect("opened");
    lake.append(batch("a", 1, 0, 3)).await.expect("appended");
    let body = r#"{"tables":{"DeviceInfo":[{"Timestamp":"2099-01-01T00:00:00Z"}]}}"#;
    lake.append(Batch { body: body.into(), ..batch("a", 2, 0, 0) }).await.expect("appended");
    lake.flush().await.expect("flushed");
    let table = folder.path().join(TENANT.to_string()).join(TABLE);
    let file = std::fs::read_dir(&table)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .expect("a file");
    std::fs::write(&file, b"PAR1 nothing else PAR1").expect("written");
    let read = async |name: &str| {
        let table = lake.table(TENANT, name).expect("a table");
        context().read_table(table).expect("read").collect().await
    };
    read(TABLE).await.expect_err("damaged");
    assert_eq!(
        read("DeviceInfo").await.expect("read").iter().map(|b| b.num_rows()).sum::<usize>(),
        1
    );
}

/// Environment variable that turns the test below into the process that is killed.
const APPEND_UNTIL_KILLED: &str = "VIGIE_TEST_APPEND_UNTIL_KILLED";

#[test]
fn killed_at_any_moment_the_lake_keeps_each_acknowledged_row_once() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(root) = std::env::var_os(APPEND_UNTIL_KILLED) {
        runtime.block_on(append_until_killed(std::path::Path::new(&root)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let name = "lake::tests::killed_at_any_moment_the_lake_keeps_each_acknowledged_row_once";
    let mut acknowledged = 0u64;
    for round in 0..20u64 {
        let mut child = Command::new(&program)
            .args(["--exact", name, "--nocapture"])
            .env(APPEND_UNTIL_KILLED, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        // A different number of acknowledgements each round; the kill falls anywhere after it.
        let wanted = 1 + (round * 37) % 53;
        let mut seen = 0;
        for line in output.lines() {
            let line = line.expect("a line");
            let Some(sequence) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged = acknowledged.max(sequence.parse().expect("a number"));
            seen += 1;
            if seen == wanted {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
        let (stored, last, times) = runtime.block_on(async {
            let lake = Lake::open(config(folder.path())).await.expect("opened");
            assert_eq!(lake.problems(), Vec::<String>::new());
            (ids(&lake).await, lake.last_sequence(TENANT, "killed"), times(&lake).await)
        });
        assert!(last >= acknowledged, "round {round}: {acknowledged} acknowledged, {last} stored");
        assert_eq!(stored, numbers(last as i64 * 20), "round {round}");
        let rows = |id: u64| (0..last * 20).filter(|row| row % 7 == id).count() as u64;
        assert_eq!(times, (0..7).map(rows).collect::<Vec<_>>(), "round {round}: what was seen");
    }
}

/// Appends in order, flushing and compacting all the while, and prints each acknowledgement.
async fn append_until_killed(root: &std::path::Path) {
    let mut config = config(root);
    config.background = true;
    config.flush.rows = 300;
    let lake = Lake::open(config).await.expect("opened");
    let housekeeper = lake.clone();
    tokio::spawn(async move {
        loop {
            housekeeper.flush().await.expect("flushed");
            housekeeper.compact().await.expect("compacted");
        }
    });
    let mut sequence = lake.last_sequence(TENANT, "killed");
    loop {
        sequence += 1;
        let next = batch("killed", sequence, (sequence - 1) * 20, 20);
        lake.append(next).await.expect("appended");
        println!("acknowledged {sequence}");
    }
}
