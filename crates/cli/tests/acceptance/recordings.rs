//! Public hunting queries on public recordings, both read in place beside the repository. The
//! answers in `recordings.jsonl` were worked out by hand from the recorded rows.

use crate::support::{output, vigie};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// One line of the case file.
#[derive(Deserialize)]
struct Case {
    /// Id of the query.
    query: String,
    /// The present time for it.
    now: String,
    /// Rows of the answer.
    count: usize,
    /// Rows that are in it, at least with these values; as many as stand here.
    rows: Vec<Map<String, Json>>,
    /// Why this is right.
    why: String,
}

fn shared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared")
}

fn queries() -> HashMap<String, String> {
    let text =
        std::fs::read_to_string(shared().join("conformance/kql/hunting_queries.jsonl")).unwrap();
    let parse = |line: &str| {
        let query: Json = serde_json::from_str(line).unwrap();
        (query["id"].as_str().unwrap().to_owned(), query["query"].as_str().unwrap().to_owned())
    };
    text.lines().map(parse).collect()
}

/// The rows of an answer; columns that hold JSON as text are read.
fn hunt(data: &Path, now: &str, query: &str) -> Vec<Map<String, Json>> {
    let mut command = vigie(&["hunt", "-o", "json", "--now", now, "-", "--data"]);
    command.arg(data).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(query.as_bytes()).unwrap();
    let answer = child.wait_with_output().unwrap();
    assert!(answer.status.success(), "refused:\n{query}");
    let text = String::from_utf8(answer.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn real_queries_on_real_recordings_are_right() {
    let recordings = shared().join("data/telemetry");
    if !recordings.exists() {
        println!("left out: no recordings beside the repository");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut import = vigie(&["import", "--data"]);
    import.arg(folder.path());
    for file in std::fs::read_dir(recordings).unwrap().flatten().map(|entry| entry.path()) {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        if extension == "zip" || extension == "evtx" {
            import.arg(file);
        }
    }
    output(&mut import);
    let queries = queries();
    let mut wrong = Vec::new();
    for line in include_str!("recordings.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut rows = hunt(folder.path(), &case.now, &queries[&case.query]);
        let label = format!("{} at {} ({})", case.query, case.now, case.why);
        if rows.len() != case.count {
            wrong.push(format!("{label}: {} rows, not {}", rows.len(), case.count));
        }
        for expected in &case.rows {
            let fits = |row: &Map<String, Json>| {
                expected.iter().all(|(name, value)| row.get(name) == Some(value))
            };
            match rows.iter().position(fits) {
                Some(at) => drop(rows.swap_remove(at)),
                None => wrong.push(format!("{label}: no further {expected:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
