//! The query language by cases: `cases/*.kql` hold queries with the columns and rows that they
//! give, or the message.
//!
//! ```text
//! // what a user would miss
//! print a = 1
//! --
//! a:long
//! [1]
//! ==
//! ```
//!
//! `VIGIE_UPDATE=1` writes what the engine gives into the files; read the difference before it is
//! committed. Most expected rows were worked out from the language's documentation, not copied from
//! what the engine said.

use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use vigie_contract::clock::Clock;
use vigie_hunting::{Engine, EngineConfig};

const BEFORE_ANSWER: &str = "\n--\n";
const BEHIND_ANSWER: &str = "==\n";

struct Case {
    query: String,
    answer: String,
}

fn read(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).expect("a case file");
    text.split_terminator(BEHIND_ANSWER)
        .map(|case| {
            let (query, answer) = case.split_once(BEFORE_ANSWER).unwrap_or((case.trim_end(), ""));
            Case { query: query.to_owned(), answer: answer.to_owned() }
        })
        .collect()
}

/// One line of columns and one a row, or the message.
fn answer(engine: &Engine, runtime: &tokio::runtime::Runtime, query: &str) -> String {
    let line = json!({ "id": 0, "query": query }).to_string();
    let answer: Json = serde_json::from_str(
        &runtime.block_on(engine.answer(&line, &vigie_hunting::Database::Empty)),
    )
    .expect("JSON");
    let mut out = String::new();
    if let Some(message) = answer["error"].as_str() {
        let kind = answer["kind"].as_str().expect("a kind");
        message.lines().for_each(|line| writeln!(out, "{kind}: {line}").expect("memory"));
        return out;
    }
    let columns = answer["columns"].as_array().expect("columns").iter();
    let columns: Vec<_> = columns
        .map(|c| format!("{}:{}", c["name"].as_str().unwrap(), c["type"].as_str().unwrap()))
        .collect();
    writeln!(out, "{}", columns.join(", ")).expect("memory");
    for row in answer["rows"].as_array().expect("rows") {
        writeln!(out, "{row}").expect("memory");
    }
    out
}

#[test]
fn queries_give_the_rows_of_the_case_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("cases").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let engine = Engine::new(EngineConfig::new(Clock::default())).expect("an engine");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let update = std::env::var_os("VIGIE_UPDATE").is_some();
    let mut wrong = String::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let mut written = String::new();
        for case in read(path) {
            let found = answer(&engine, &runtime, &case.query);
            if found != case.answer {
                let _ = writeln!(
                    wrong,
                    "{name}: {}\n  expected\n{}  found\n{found}",
                    case.query, case.answer
                );
            }
            let _ = write!(written, "{}{BEFORE_ANSWER}{found}{BEHIND_ANSWER}", case.query);
        }
        if update {
            std::fs::write(path, written).expect("a case file that can be written");
        }
    }
    assert!(files.len() > 5, "case files are missing");
    assert!(update || wrong.is_empty(), "{wrong}");
}
