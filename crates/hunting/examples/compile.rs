//! How long queries take from text to physical plan: `compile [FILE.jsonl …]`, files with one JSON
//! object a line of which `query` is read. Large queries of our own are measured in any case.

use std::fmt::Write as _;
use std::time::Duration;
use vigie_contract::clock::Clock;
use vigie_hunting::{Database, Engine, EngineConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of the deep query.
const DEEP: usize = 67_000;
/// Elements of the long list.
const LONG: usize = 5_000;

/// Names by which the result of one query is shown.
struct Measured {
    name: String,
    took: Duration,
}

/// A tree of `or` as rules that were translated from another language have it.
fn deep() -> String {
    let mut query = String::from("DeviceProcessEvents | where (FileName =~ 'a0.exe')");
    let mut at = 0;
    while query.len() < DEEP {
        at += 1;
        let _ = write!(
            query,
            " or (FolderPath endswith '\\\\tool{at}.exe' and (ProcessCommandLine has 'word{at}' or \
             ProcessCommandLine contains '-x{at} '))"
        );
    }
    query + " | summarize count() by DeviceName"
}

fn list() -> String {
    let values: Vec<String> = (0..LONG).map(|at| format!("'{at:064x}'")).collect();
    format!("DeviceProcessEvents | where SHA256 in ({}) | count", values.join(", "))
}

fn main() {
    let engine = Engine::new(EngineConfig::new(Clock::default()));
    let engine = engine.unwrap_or_else(|error| panic!("no engine: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let mut measured = Vec::new();
    let mut measure = |name: &str, query: &str| {
        // The best of ten, as a server does it all day on a machine of its own.
        let times = (0..10).map(|_| runtime.block_on(engine.compile(&Database::Empty, query)));
        if let Some(took) = times.flatten().min() {
            measured.push(Measured { name: name.to_owned(), took });
        }
    };
    measure("deep tree of 'or'", &deep());
    measure("long list", &list());
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (number, line) in text.lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            if let Some(query) = line["query"].as_str() {
                measure(&format!("line {}, {} bytes", number + 1, query.len()), query);
            }
        }
    }
    for one in &measured[..2] {
        println!("{}: {:.1} ms", one.name, one.took.as_secs_f64() * 1e3);
    }
    measured.drain(..2);
    measured.sort_by_key(|one| one.took);
    if let (Some(median), Some(longest)) = (measured.get(measured.len() / 2), measured.last()) {
        println!(
            "{} queries: median {:.2} ms, longest {:.1} ms ({})",
            measured.len(),
            median.took.as_secs_f64() * 1e3,
            longest.took.as_secs_f64() * 1e3,
            longest.name
        );
    }
}
