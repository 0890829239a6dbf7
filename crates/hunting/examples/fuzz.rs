//! Makes queries at random and runs them: parse → bind → plan → run over small tables.
//!
//! `cargo xtask fuzz queries MINUTES [SEED]`. Half of the queries are
//! put together from every operator, function, aggregate and plugin of the reference; the others are
//! queries of the case files, damaged. An error of the engine's own (a panic, a plan that DataFusion
//! refuses), or a query that runs longer than [`SLOW`], is a finding: it is printed, and the exit
//! code is 1. A finding that was mended belongs into `tests/cases/found.kql`.

use std::collections::HashSet;
use std::time::{Duration, Instant};
use vigie_contract::clock::Clock;
use vigie_hunting::{Database, Engine, EngineConfig, Limit, Limits, QueryError};
use vigie_kql::reference;

const SLOW: Duration = Duration::from_secs(5);

/// What decides: the same for the same seed.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

const TABLE: &str = "let T = datatable(x:long, y:string, z:dynamic, r:real, t:datetime, d:timespan, \
    b:bool, i:int, g:guid, m:decimal)[
    1, 'a b', dynamic({'a': 1, 'b': [1, 2]}), 1.5, datetime(2026-01-01), 1h, true, 1, \
        guid(74be27de-1e4e-49d9-b579-fe0b331d3642), 1.25,
    2, '', dynamic([1, 'x', null]), real(nan), datetime(null), 2d, false, int(null), guid(null), \
        decimal(null),
    long(null), '10.0.0.1', dynamic(null), -2.5, datetime(2026-11-24 01:02:03), -1s, bool(null), 7, \
        guid(null), 3,
    3, '{\"a\": 5}', dynamic('text'), real(+inf), datetime(9999-12-31), 0s, true, -1, guid(null), -4];";

const COLUMNS: &[&str] =
    &["x", "y", "z", "r", "t", "d", "b", "i", "g", "m", "z.a", "z[0]", "z.b[1]"];

const LITERALS: &[&str] = &[
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "1.5",
    "real(nan)",
    "''",
    "'a'",
    "'%'",
    "@'(a|b)+'",
    "'2026-01-01'",
    "datetime(2026-01-01)",
    "datetime(null)",
    "1h",
    "-3d",
    "true",
    "int(null)",
    "dynamic(null)",
    "dynamic([1, 2, 3])",
    "dynamic(['a', 'b'])",
    "dynamic({'k': 'v'})",
    "decimal(1.5)",
    "guid(null)",
    "long(null)",
    "typeof(long)",
    "'10.0.0.0/8'",
    "'$.a'",
    "x",
    "1000000",
    "dynamic({'type':'Point','coordinates':[1,2]})",
    "dynamic({'type':'LineString','coordinates':[[0,0],[1,1],[2,0]]})",
    "dynamic({'type':'Polygon','coordinates':[[[0,0],[1,1],[2,0],[0,0]]]})",
];

const BINARY: &[&str] = &[
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "=~",
    "!~",
    "has",
    "!has",
    "contains",
    "startswith",
    "endswith",
    "hasprefix",
    "matches regex",
    "and",
    "or",
    "has_cs",
    "contains_cs",
];

struct Maker {
    random: Random,
    functions: Vec<&'static str>,
    aggregates: Vec<&'static str>,
    plugins: Vec<&'static str>,
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let names = |entries: Vec<reference::Entry>| entries.into_iter().map(|e| e.0).collect();
        Maker {
            random: Random(fastrand::Rng::with_seed(seed)),
            functions: names(reference::functions()),
            aggregates: names(reference::aggregates()),
            plugins: names(reference::plugins()),
        }
    }

    fn expr(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 4 } else { 12 }) {
            0..=2 => self.random.of(COLUMNS).to_owned(),
            3 => self.random.of(LITERALS).to_owned(),
            4 | 5 => {
                let (left, right) = (self.expr(depth - 1), self.expr(depth - 1));
                format!("({left} {} {right})", self.random.of(BINARY))
            }
            6 => {
                let (value, list) = (self.expr(depth - 1), self.list(depth - 1, 3));
                let operator = self.random.of(&["in", "!in", "in~", "has_any", "has_all"]);
                format!("({value} {operator} ({list}))")
            }
            7 => {
                let parts: Vec<String> = (0..3).map(|_| self.expr(depth - 1)).collect();
                format!("({} between ({} .. {}))", parts[0], parts[1], parts[2])
            }
            _ => {
                let name = self.functions[self.random.below(self.functions.len())];
                // The sample call fits; others mostly do not, and must be refused well.
                match (self.random.below(3), reference::sample_call(name)) {
                    (0, Some(call)) => call,
                    (1, Some(call)) => {
                        let column = self.random.of(COLUMNS);
                        call.replacen("\"1\"", column, 1).replacen("(1", &format!("({column}"), 1)
                    }
                    _ => format!("{name}({})", self.list(depth - 1, 4)),
                }
            }
        }
    }

    fn list(&mut self, depth: usize, most: usize) -> String {
        let count = self.random.below(most + 1);
        (0..count).map(|_| self.expr(depth)).collect::<Vec<_>>().join(", ")
    }

    fn aggregate(&mut self) -> String {
        let name = self.aggregates[self.random.below(self.aggregates.len())];
        match (self.random.below(2), reference::sample_call(name)) {
            (0, Some(call)) => call.replacen("\"1\"", self.random.of(COLUMNS), 1),
            _ => format!("{name}({})", self.list(1, 3)),
        }
    }

    fn keys(&mut self) -> String {
        let count = 1 + self.random.below(2);
        (0..count).map(|_| self.random.of(COLUMNS).to_owned()).collect::<Vec<_>>().join(", ")
    }

    fn operator(&mut self, depth: usize) -> String {
        let pick = self.random.below(34);
        let (e, f) = (self.expr(2), self.expr(1));
        let column = self.random.of(COLUMNS);
        match pick {
            0..=2 => format!("where {e}"),
            3 | 4 => format!("extend n{} = {e}", self.random.below(3)),
            5 => format!("project {column}, k = {e}"),
            6..=8 => {
                let (first, second, by) = (self.aggregate(), self.aggregate(), self.keys());
                format!("summarize {first}, v = {second} by {by}")
            }
            9 => format!(
                "summarize {} by bin({column}, {})",
                self.aggregate(),
                self.random.of(&["1h", "2", "1d"])
            ),
            10 => format!(
                "sort by {} {}",
                self.keys(),
                self.random.of(&["asc", "desc", "asc nulls last"])
            ),
            11 => format!("top {} by {e}", self.random.below(4)),
            12 => format!("take {}", self.random.below(4)),
            13 => format!("distinct {}", self.random.of(&["*", "x", "y, b"])),
            14 => format!(
                "mv-expand {} {column}",
                self.random.of(&["", "kind=array", "with_itemindex=n"])
            ),
            15 if depth > 0 => format!("mv-apply e = {column} on ({})", self.operator(depth - 1)),
            16 if depth > 0 => {
                let kind = self.random.of(&[
                    "inner",
                    "innerunique",
                    "leftouter",
                    "rightouter",
                    "fullouter",
                    "leftsemi",
                    "leftanti",
                    "rightsemi",
                    "rightanti",
                ]);
                format!(
                    "join kind={kind} (T | {}) on {}",
                    self.operator(depth - 1),
                    self.random.of(&["x", "y", "b", "t", "z"])
                )
            }
            17 => format!("lookup (T | project x, w = y) on x | extend {f}"),
            18 if depth > 0 => format!("union withsource=s (T | {})", self.operator(depth - 1)),
            19 => format!("parse y with p '{}' q:long *", self.random.of(&["a", ".", " "])),
            20 => "parse-kv y as (a:long, b:string)".to_owned(),
            21 => format!(
                "make-series s = {} default=0 on {} step {} by b",
                self.aggregate(),
                self.random.of(&["t", "x", "r"]),
                self.random.of(&["1d", "1", "365d"])
            ),
            22 => format!("top-nested 2 of {column} by {}", self.aggregate()),
            23 => format!("reduce by {column}"),
            24 => {
                let name = self.plugins[self.random.below(self.plugins.len())];
                format!("evaluate {name}({})", self.list(1, 4))
            }
            25 => format!(
                "evaluate {}",
                self.random.of(&[
                    "bag_unpack(z)",
                    "pivot(y)",
                    "narrow()",
                    "pivot(b, sum(x))",
                    "rows_near(b, 1)"
                ])
            ),
            26 if depth > 0 => format!(
                "partition by {} ({})",
                self.random.of(&["b", "y", "x"]),
                self.operator(depth - 1)
            ),
            27 => format!(
                "serialize w = {}",
                self.random.of(&[
                    "prev(x)",
                    "next(y, 1, 'd')",
                    "row_number()",
                    "row_cumsum(x, b)",
                    "row_rank_dense(x)",
                    "row_window_session(t, 1d, 1h)"
                ])
            ),
            28 => format!(
                "sort by x asc | scan declare(c:long=0) with (step s1: {e} => c = s1.c + 1; step s2: {f};)"
            ),
            29 => format!(
                "project-{} {}",
                self.random.of(&["away", "keep", "reorder"]),
                self.random.of(&["x", "x*", "*", "y, z", "t, *"])
            ),
            30 => "count".to_owned(),
            31 => format!("getschema | where ColumnName has '{}'", self.random.of(&["x", "y"])),
            32 => format!("search {}", self.random.of(&["'a'", "y:'a'", "x == 1", "'*b'"])),
            33 => format!(
                "where y in ((T | {} | project y))",
                self.random.of(&["take 1", "where b", "distinct y"])
            ),
            _ => format!("extend q = {e}"),
        }
    }

    fn query(&mut self) -> String {
        let count = 1 + self.random.below(4);
        let operators: Vec<String> = (0..count).map(|_| self.operator(2)).collect();
        format!("{TABLE}\nT | {}", operators.join(" | "))
    }

    /// Bytes of a query put elsewhere, doubled, left out or exchanged.
    fn damaged(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..1 + self.random.below(4) {
            let (at, count) = (self.random.below(characters.len()), 1 + self.random.below(12));
            let end = (at + count).min(characters.len());
            match self.random.below(4) {
                0 => drop(characters.drain(at..end)),
                1 => {
                    let copy: Vec<char> = characters[at..end].to_vec();
                    let to = self.random.below(characters.len());
                    characters.splice(to..to, copy);
                }
                2 => {
                    let with = self.random.of(&[
                        "(",
                        ")",
                        "|",
                        "'",
                        "\"",
                        "..",
                        "[",
                        "}",
                        "\u{1F980}",
                        "\0",
                        "0x",
                        "1e",
                        "//",
                    ]);
                    characters.splice(at..at, with.chars());
                }
                _ => {
                    let with: Vec<char> = self.expr(1).chars().collect();
                    characters.splice(at..end, with);
                }
            }
            if characters.is_empty() {
                break;
            }
        }
        characters.into_iter().collect()
    }
}

/// The queries of the case files.
fn cases() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let parts = text.split("\n\n").map(|part| part.split("\n---").next().unwrap_or_default());
        found.extend(parts.filter(|part| part.contains('|')).map(str::to_owned));
    }
    found
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut config = EngineConfig::new(Clock::default());
    config.memory_bytes = 256 << 20;
    let engine = Engine::new(config).unwrap_or_else(|error| panic!("no engine: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    // Panics are told with their query, once.
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits { time: SLOW, ..Limits::default() };
    let (cases, mut maker) = (cases(), Maker::new(seed));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let (mut ran, mut refused, mut failed) = (0u64, 0u64, 0u64);
    let mut findings: HashSet<String> = HashSet::new();
    while Instant::now() < end {
        let query = match maker.random.below(4) {
            0 if !cases.is_empty() => {
                let at = maker.random.below(cases.len());
                maker.damaged(&cases[at])
            }
            1 => {
                let whole = maker.query();
                maker.damaged(&whole)
            }
            _ => maker.query(),
        };
        let finding = match runtime.block_on(engine.run(&Database::Empty, &query, &limits)) {
            Ok(_) => {
                ran += 1;
                None
            }
            Err(QueryError::Rejected(_)) => {
                refused += 1;
                None
            }
            Err(QueryError::Runtime(_) | QueryError::Limit(Limit::Memory | Limit::Size)) => {
                failed += 1;
                None
            }
            Err(QueryError::Limit(Limit::Time)) => Some("slow".to_owned()),
            Err(QueryError::Internal(error)) => Some(error),
        };
        if let Some(finding) = finding {
            // One of each kind is enough.
            let kind: String = finding.chars().filter(|c| !c.is_ascii_digit()).take(90).collect();
            if findings.insert(kind) {
                println!("FINDING {finding}\n{}\n", query.trim_start_matches(TABLE).trim());
            }
        }
    }
    println!(
        "seed {seed}: {ran} ran, {refused} refused, {failed} failed, {} findings",
        findings.len()
    );
    std::process::exit(i32::from(!findings.is_empty()));
}
