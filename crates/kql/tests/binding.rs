//! Result columns of real queries, and messages.

use serde_json::Value as Json;
use std::path::Path;
use vigie_kql::plan::Column;
use vigie_kql::schema::Database;
use vigie_kql::types::Type;
use vigie_kql::{BindOptions, bind};

fn shared(name: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/kql");
    let text = std::fs::read_to_string(folder.join(name)).ok();
    if text.is_none() {
        println!("left out: {name} is not beside the repository");
    }
    text
}

fn column(name: &str, ty: &str) -> Column {
    Column { name: name.to_owned(), ty: Type::parse(ty).expect("a type") }
}

/// Queries over the device and alert tables: bound as Microsoft's own binder does.
#[test]
fn real_queries_bind_with_the_right_columns() {
    let Some(schema) = shared("schema_m365.json") else { return };
    let Some(queries) = shared("hunting_queries.jsonl") else { return };
    let schema: Json = serde_json::from_str(&schema).expect("JSON");
    let mut database = Database::new("hunting");
    let catalogue = include_str!("../../../catalogue/hunting_tables.json");
    let catalogue: Vec<Json> = serde_json::from_str(catalogue).expect("JSON");
    for table in &catalogue {
        let columns = table["columns"].as_array().expect("columns").iter();
        let columns =
            columns.map(|c| column(c[0].as_str().expect("a name"), c[1].as_str().expect("a type")));
        let columns: Vec<_> = columns.collect();
        let name = table["name"].as_str().expect("a name");
        if name == "GraphApiAuditEvents" {
            database.add_table("GraphAPIAuditEvents", columns.clone());
        }
        database.add_table(name, columns);
    }
    for function in schema["functions"].as_array().expect("functions") {
        let part = |name: &str| function[name].as_str().expect("a text").to_owned();
        let text = format!("{}{}", part("params"), part("body"));
        database.add_function(part("name"), &text);
    }
    let options = BindOptions { now: 638_000_000_000_000_000, ..Default::default() };
    let (mut count, mut bound, mut right) = (0, 0, 0);
    let verbose = std::env::var_os("VERBOSE").is_some();
    for line in queries.lines() {
        let line: Json = serde_json::from_str(line).expect("JSON");
        if line["binds"] != true || line["binds_env"] != "m365" {
            continue;
        }
        count += 1;
        let query = line["query"].as_str().expect("a query");
        match bind(query, &database, &options) {
            Err(diagnostics) => {
                if verbose {
                    println!("{} {}", line["id"], diagnostics[0].display(query));
                }
            }
            Ok(query) => {
                bound += 1;
                let columns = &query.statements.last().expect("a statement").columns;
                let same = |ty: Type| if ty == Type::Int { Type::Long } else { ty };
                let expected = line["expected_schema"].as_array().expect("a schema");
                let equal = expected.len() == columns.len()
                    && expected.iter().zip(columns).all(|(expected, column)| {
                        let ty = Type::parse(expected["type"].as_str().expect("a type"));
                        expected["name"] == column.name.as_str()
                            && ty.map(same) == Some(same(column.ty))
                    });
                if equal || line["schema_open"] == true {
                    right += 1;
                } else if verbose {
                    let found: Vec<_> =
                        columns.iter().map(|c| format!("{}:{}", c.name, c.ty)).collect();
                    println!("{} SCHEMA {} INSTEAD OF {expected:?}", line["id"], found.join(","));
                }
            }
        }
    }
    println!("{bound} of {count} bind, {right} with the right columns");
    assert!(right * 100 >= count * 90, "{bound} of {count} bind, {right} with the right columns");
}
