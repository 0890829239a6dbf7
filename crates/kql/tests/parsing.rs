//! The parser on queries of others beside the repository, on damaged queries, and on large ones.

use serde_json::Value;
use std::path::Path;
use vigie_kql::parser::parse;

/// The lines of a conformance file, or nothing with one printed line.
fn conformance(name: &str) -> Vec<Value> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/kql").join(name);
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("left out: {name} is not beside the repository");
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[test]
fn real_queries_parse() {
    let mut failed = Vec::new();
    let mut count = 0;
    for line in conformance("hunting_queries.jsonl") {
        if line["binds"] != true {
            continue;
        }
        count += 1;
        let query = line["query"].as_str().expect("a query");
        if let Some(first) = parse(query).diagnostics.first() {
            failed.push(format!("{}: {}", line["id"], first.display(query)));
        }
    }
    println!("{} of {count} parse", count - failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn documented_examples_parse() {
    let mut failed = Vec::new();
    for line in conformance("docs_examples.jsonl") {
        let query = line["query"].as_str().expect("a query");
        // Statements of a cluster, which are refused.
        let cluster = ["macro-expand", "entity_group", "inline_external_table"];
        if cluster.iter().any(|name| query.contains(name)) {
            continue;
        }
        if let Some(first) = parse(query).diagnostics.first() {
            failed.push(format!("{}: {}\n{query}\n", line["id"], first.display(query)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

const OWN: &[&str] = &[
    "let Since = ago(3d);\nDeviceProcessEvents | where Timestamp > Since and FileName in~ ('sh', \"bash\")\n\
     | summarize Runs = count(), (First, Line) = arg_min(Timestamp, ProcessCommandLine) by DeviceId\n\
     | top 5 by Runs desc nulls last",
    "let f = (T:(*), n:long = 3) { T | take n };\nunion isfuzzy=true withsource=Where Device*, (Other | project a.b[0].['c d'])\n\
     | join kind=leftouter hint.strategy=broadcast (X) on $left.a == $right.b, c | invoke f(2)",
    "datatable(a:long, b:string)[1, 'x', 2, @'c:\\d',]\n| mv-expand kind=array with_itemindex=i x = dynamic([1, {'k': 2}]) to typeof(long) limit 9\n\
     | parse-where kind=regex b with * 'id=' id:long ';' rest | extend d = datetime(2024-02-29T12:00:00.1234567Z) - 1.5h",
    "T | make-series n = count() default=0 on t from ago(1d) to now() step 1h by k | render timechart with (title='x', ysplit=none)",
];

#[test]
fn own_queries_parse_and_damage_never_panics() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for query in OWN {
        let diagnostics = parse(query).diagnostics;
        assert!(diagnostics.is_empty(), "{}", diagnostics[0].display(query));
        let characters: Vec<char> = query.chars().collect();
        for _ in 0..3000 {
            let mut damaged = characters.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                match random(4) {
                    0 => drop(damaged.remove(at)),
                    1 => damaged.insert(
                        at,
                        "()[]{}|;,'\"=.*-\\é0"[..].chars().nth(random(18)).unwrap_or('x'),
                    ),
                    2 => damaged.truncate(at + 1),
                    _ => damaged.swap(at, 0),
                }
            }
            parse(&damaged.into_iter().collect::<String>());
        }
    }
}

#[test]
fn errors_are_told_with_place_and_suggestion() {
    let text = "T\n| wherre a > 1\n| take (\n";
    let messages: Vec<_> = parse(text).diagnostics.iter().map(|d| d.display(text)).collect();
    assert_eq!(
        messages,
        [
            "SYN0002 [line:position=2:3] 'wherre' is not an operator. Did you mean 'where'?",
            "SYN0002 [line:position=4:1] expected an expression, found the end of the query",
        ]
    );
}

#[test]
fn depth_is_bounded_and_length_is_not() {
    for open in ["(", "[", "a(", "-", "not("] {
        parse(&format!("print {}", open.repeat(20_000)));
    }
    let long = format!("T | where {}", vec!["a == 1"; 5000].join(" or "));
    assert!(parse(&long).diagnostics.is_empty());
    let list = format!("T | where a in ({})", vec!["'x'"; 5000].join(", "));
    assert!(parse(&list).diagnostics.is_empty());
}
