//! `docs/kql-reference.md` is made here: every name of the language, and whether it runs.
//!
//! `VIGIE_UPDATE=1` writes the file; without it a difference fails.

use std::fmt::Write as _;
use std::path::Path;
use vigie_contract::clock::Clock;
use vigie_hunting::{Database, Engine, EngineConfig, Limits, QueryError};
use vigie_kql::reference::{self, Entry};

/// Functions whose arguments have to mean something; the sample call would be refused.
const CALLS: &[(&str, &str)] = &[
    ("assert", "assert(true, \"message\")"),
    ("bin_auto", "1"),
    ("column_ifexists", "column_ifexists(\"x\", 1)"),
    ("column_names_of", "column_names_of(T)"),
    ("convert_angle", "convert_angle(1.0, \"Degree\", \"Radian\")"),
    ("extract", "extract(\"a\", 0, \"a\")"),
    ("inner_nodes", "map(inner_nodes(e), name)"),
    ("labels", "labels(a)"),
    ("map", "map(e, w)"),
    ("materialize", "toscalar(materialize(T))"),
    ("node_degree_in", "node_degree_in(a)"),
    ("node_degree_out", "node_degree_out(a)"),
    ("node_id", "node_id(a)"),
    ("bag_pack_columns", "bag_pack_columns(x, y)"),
    ("pack_all", "pack_all()"),
    ("percentile", "percentile(x, 1)"),
    ("percentiles", "percentiles(x, 1, 2)"),
    ("percentiles_array", "percentiles_array(x, 1, 2)"),
    ("percentilesw", "percentilesw(x, x, 1)"),
    ("percentilesw_array", "percentilesw_array(x, x, 1)"),
    ("percentilew", "percentilew(x, x, 1)"),
    ("table", "toscalar(table(\"T\"))"),
    ("toscalar", "toscalar(T)"),
];

/// Those of graph patterns whose names aggregates have as well.
const PATTERN_CALLS: &[(&str, &str)] = &[("all", "all(e, w > 0)"), ("any", "any(e, w > 0)")];

struct Probe {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

impl Probe {
    /// Why a query does not run: the engine's words, where it is not supported.
    fn refusal(&self, query: &str) -> Option<String> {
        let limits = Limits::default();
        let ran = self.runtime.block_on(self.engine.run(&Database::Empty, query, &limits));
        match ran {
            Ok(_) | Err(QueryError::Runtime(_)) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

fn section(text: &mut String, title: &str, entries: &[(Entry, Option<String>)]) {
    let done = entries.iter().filter(|(_, refusal)| refusal.is_none()).count();
    let _ = writeln!(text, "\n## {title}\n\n{done} of {} run.\n", entries.len());
    let _ = writeln!(text, "| name | state |\n|---|---|");
    for ((name, _), refusal) in entries {
        let _ = match refusal {
            None => writeln!(text, "| `{name}` | done |"),
            Some(reason) => writeln!(text, "| `{name}` | not supported: {reason} |"),
        };
    }
}

#[test]
fn the_reference_says_what_runs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = Engine::new(EngineConfig::new(Clock::default())).unwrap();
    let probe = Probe { engine, runtime };
    let call = |name: &str| {
        let own =
            CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| (*call).to_owned());
        own.or_else(|| reference::sample_call(name)).unwrap_or_else(|| format!("{name}()"))
    };
    let wrong = std::cell::RefCell::new(String::new());
    let state = |(name, reason): Entry, query: String| {
        let found = probe.refusal(&query);
        match (reason, found) {
            (Some(reason), Some(_)) => ((name, Some(reason)), Some(reason.to_owned())),
            (None, None) => ((name, None), None),
            (reason, found) => {
                let _ = writeln!(wrong.borrow_mut(), "{query}: {reason:?}, but {found:?}");
                ((name, reason), found)
            }
        }
    };
    let functions = reference::functions().into_iter().map(|entry| {
        let query = format!(
            "let T = datatable(x:long, y:string)[1, 'a']; T | serialize | extend z = {}",
            call(entry.0)
        );
        state(entry, query)
    });
    let aggregates = reference::aggregates().into_iter().map(|entry| {
        let query = format!("print x = 1 | summarize z = {}", call(entry.0));
        state(entry, query)
    });
    let graph_functions = reference::graph_functions().into_iter().map(|entry| {
        let query = format!(
            "datatable(s:string, t:string, w:long)['x', 'y', 1] | make-graph s --> t with_node_id=name
            | graph-match (a)-[e*1..2]->(b) project z = {}",
            PATTERN_CALLS
                .iter()
                .find(|(name, _)| *name == entry.0)
                .map_or_else(|| call(entry.0), |(_, call)| (*call).to_owned())
        );
        state(entry, query)
    });
    let graph_functions: Vec<_> = graph_functions.collect();
    let (functions, aggregates): (Vec<_>, Vec<_>) = (functions.collect(), aggregates.collect());
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow());
    let stated = |entry: Entry| (entry, entry.1.map(str::to_owned));
    let operators: Vec<_> = reference::operators().into_iter().map(stated).collect();
    let plugins: Vec<_> = reference::plugins().into_iter().map(stated).collect();
    let mut text = String::from(
        "# The query language, name by name\n\nMade by the test `reference`, which runs every \
         function and aggregate. Statements: `let`, `set`, `declare query_parameters`; `alias`, \
         `restrict access to` and `declare pattern` are refused.\n",
    );
    section(&mut text, "Operators", &operators);
    section(&mut text, "Scalar and window functions", &functions);
    section(&mut text, "Functions over graph patterns", &graph_functions);
    section(&mut text, "Aggregates", &aggregates);
    section(&mut text, "Plugins", &plugins);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kql-reference.md");
    if std::env::var_os("VIGIE_UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "docs/kql-reference.md is old; VIGIE_UPDATE=1 writes it anew");
}
