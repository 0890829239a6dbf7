//! What a query may name: tables with their columns, and functions.

use crate::plan::Column;
use crate::types::{Type, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A database as the binder sees it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Answer of `current_database()` and the prefix of labels in `union withsource=`.
    pub name: String,
    tables: BTreeMap<String, Arc<[Column]>>,
    functions: BTreeMap<String, Function>,
}

/// A function of the database.
#[derive(Clone, Debug)]
pub enum Function {
    /// Written in Kusto's language: `(T:(*), x:string='') { … }`, parameters and body as in `let`.
    Query { text: Arc<str> },
    /// Carried out by the engine: [`crate::plan::Node::Invoke`].
    BuiltIn(Arc<BuiltIn>),
}

/// A tabular function that the engine carries out (`FileProfile` …).
#[derive(Clone, Debug)]
pub struct BuiltIn {
    pub name: String,
    /// Whether the first argument is a table, whose columns come first in the result.
    pub takes_table: bool,
    pub parameters: Vec<BuiltInParameter>,
    /// Columns that the function adds. Names already taken get a number, as in a join.
    pub columns: Vec<Column>,
}

/// A scalar parameter of a [`BuiltIn`].
#[derive(Clone, Debug)]
pub struct BuiltInParameter {
    pub name: String,
    pub ty: Type,
    /// `None`: the argument is required.
    pub default: Option<Value>,
}

impl Database {
    /// An empty database.
    pub fn new(name: impl Into<String>) -> Database {
        Database { name: name.into(), ..Database::default() }
    }

    /// Adds a table, or replaces it; columns in the order of results.
    pub fn add_table(&mut self, name: impl Into<String>, columns: Vec<Column>) {
        self.tables.insert(name.into(), columns.into());
    }

    /// Adds a function that is written in the language: `text` is `(parameters) { body }`
    /// ([`crate::saved::text`]).
    pub fn add_function(&mut self, name: impl Into<String>, text: &str) {
        self.functions.insert(name.into(), Function::Query { text: text.into() });
    }

    /// Adds a function of the engine.
    pub fn add_built_in(&mut self, function: BuiltIn) {
        self.functions.insert(function.name.clone(), Function::BuiltIn(Arc::new(function)));
    }

    /// The columns of a table.
    pub fn table(&self, name: &str) -> Option<&Arc<[Column]>> {
        self.tables.get(name)
    }

    /// A function by name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// All tables in order of their names.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &[Column])> {
        self.tables.iter().map(|(name, columns)| (name.as_str(), columns.as_ref()))
    }

    /// The names of all functions.
    pub fn function_names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}
