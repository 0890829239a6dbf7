//! Functions that somebody keeps by name (saved functions of advanced hunting), as text.

use crate::diagnostics::{Diagnostic, NOT_ALLOWED, Span};
use crate::parser;
use crate::schema::Database;
use crate::syntax::{Function, LetValue, Parameter, ParameterType, Statement};
use crate::types::Type;
use crate::{BindOptions, bind};
use std::fmt::Write as _;

/// The text that [`Database::add_function`] takes, of parameters as in `T:(DeviceId:string), n:long=5`
/// and a query that may read them.
pub fn text(parameters: &str, query: &str) -> String {
    // The query on lines of its own: it may end with a comment.
    format!("{}{query}\n}}", head(parameters))
}

fn head(parameters: &str) -> String {
    format!("({parameters}) {{\n")
}

/// Whether a function is right: its name is free, and its query binds with its parameters.
///
/// Errors: the diagnostics, placed in `query`; those of name and parameters begin with that word and
/// stand at the query's beginning.
pub fn check(
    name: &str,
    parameters: &str,
    query: &str,
    database: &Database,
) -> Result<(), Vec<Diagnostic>> {
    let refused = |message: String| vec![Diagnostic::new(NOT_ALLOWED, Span::default(), message)];
    let first = name.chars().next().unwrap_or_default();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !(first.is_ascii_alphabetic() || first == '_') || !name.chars().all(word) {
        let message = "name: a letter, then letters, digits and '_' are expected";
        return Err(refused(message.to_owned()));
    }
    let known = database.table(name).is_some()
        || database.function(name).is_some()
        || crate::functions::find(name).is_some()
        || crate::aggregates::find(name).is_some();
    if known {
        return Err(refused(format!("name: '{name}' is a table or function already")));
    }
    let text = text(parameters, query);
    let head = head(parameters).len();
    let placed = |head: usize, diagnostics: Vec<Diagnostic>| {
        diagnostics.into_iter().map(|diagnostic| shifted(diagnostic, head, query.len())).collect()
    };
    let definition = format!("let {name} = ");
    let within = definition.len() + head;
    let parsed = parser::parse(&format!("{definition}{text}"));
    if !parsed.diagnostics.is_empty() {
        return Err(placed(within, parsed.diagnostics));
    }
    // Text that closes the brace itself would be something else than what it is kept as.
    let [Statement::Let { value: LetValue::Function(function), .. }] = &parsed.statements[..]
    else {
        return Err(refused("query: a query is expected".to_owned()));
    };
    let arguments = arguments(function);
    let options = BindOptions { now: 0, ..BindOptions::default() };
    let scalar = format!("{definition}{text};\nprint {name}({arguments})");
    let tabular = format!("{definition}{text};\n{name}({arguments})");
    match (bind(&tabular, database, &options), bind(&scalar, database, &options)) {
        (Ok(_), _) | (_, Ok(_)) => Ok(()),
        (Err(tabular), Err(scalar)) => {
            // What is wrong inside stands in both; the wrong kind of call fails outside.
            let inside = |diagnostics: &[Diagnostic]| {
                diagnostics.iter().all(|d| d.span.start < definition.len() + text.len())
            };
            let found = if inside(&tabular) || !inside(&scalar) { tabular } else { scalar };
            Err(placed(within, found))
        }
    }
}

/// A call's arguments: nulls, and tables without a row.
fn arguments(function: &Function) -> String {
    let argument = |parameter: &Parameter| match &parameter.ty {
        ParameterType::Scalar(Type::String) => "''".to_owned(),
        ParameterType::Scalar(ty) => format!("{}(null)", ty.name()),
        ParameterType::Table { columns, .. } => {
            let mut table = "datatable(".to_owned();
            for (at, (name, ty)) in columns.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                let _ = write!(table, "{comma}['{}']:{}", name.text, ty.name());
            }
            if columns.is_empty() {
                table.push_str("any:string");
            }
            table + ")[]"
        }
    };
    function.parameters.iter().map(argument).collect::<Vec<_>>().join(", ")
}

/// A diagnostic of the whole text as one of the query, which begins at `head` in it.
fn shifted(mut diagnostic: Diagnostic, head: usize, length: usize) -> Diagnostic {
    if diagnostic.span.end < head {
        diagnostic.message = format!("parameters: {}", diagnostic.message);
    }
    let place = |at: usize| at.saturating_sub(head).min(length);
    diagnostic.span = Span::new(place(diagnostic.span.start), place(diagnostic.span.end));
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Column;

    fn database() -> Database {
        let column = |name: &str, ty| Column { name: name.to_owned(), ty };
        let mut database = Database::new("hunting");
        let columns = vec![column("DeviceId", Type::String), column("Port", Type::Long)];
        database.add_table("Connections", columns);
        database
    }

    #[test]
    fn right_functions_are_accepted_and_callable() {
        let mut database = database();
        for (name, parameters, query, call) in [
            ("Busy", "", "Connections | where Port == 443 // often", "Busy() | count"),
            ("On", "port:long", "Connections | where Port == port", "On(22)"),
            ("Half", "n:long", "n / 2", "print Half(4)"),
            (
                "Of",
                "T:(DeviceId:string), id:string=''",
                "T | where DeviceId == id",
                "Connections | invoke Of('a')",
            ),
            ("Any", "T:(*)", "T | take 1", "Connections | invoke Any()"),
            (
                "Lets",
                "",
                "let ports = dynamic([22]);\nConnections | where Port in (ports)",
                "Lets()",
            ),
        ] {
            check(name, parameters, query, &database).unwrap_or_else(|d| panic!("{name}: {d:?}"));
            database.add_function(name, &text(parameters, query));
            let bound = bind(call, &database, &BindOptions::default());
            bound.unwrap_or_else(|d| panic!("{call}: {d:?}"));
        }
    }

    #[test]
    fn wrong_functions_are_refused_where_they_are_wrong() {
        let database = database();
        let refused = |name: &str, parameters: &str, query: &str| {
            let found = check(name, parameters, query, &database).expect_err(query);
            found[0].display(query)
        };
        let shown = refused("F", "", "Connections\n| where Prt == 1");
        assert!(shown.contains("2:9") && shown.contains("Did you mean 'Port'?"), "{shown}");
        let shown = refused("F", "", "Connections\n| were 1");
        assert!(shown.contains("position=2:3"), "{shown}");
        assert!(refused("F", "x:strin", "Connections").contains("parameters: "));
        assert!(refused("F", "", "} | take 1").contains("position=1:"));
        for name in ["", "1x", "a b", "Connections", "strlen", "dcount"] {
            assert!(refused(name, "", "Connections").contains("name: "), "{name}");
        }
    }
}
