//! The hunting tables of the catalogue: names and columns, letter for letter.

use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A hunting table as published.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    pub name: String,
    /// Product area, for example `Devices` or `Identity`.
    pub family: Option<String>,
    /// In the documented order.
    pub columns: Vec<Column>,
}

/// Name and Kusto type (`string`, `long`, `int`, `datetime`, `bool`, `dynamic`, `real`, `guid` …).
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "(String, String)")]
pub struct Column {
    pub name: String,
    pub ty: String,
}

impl From<(String, String)> for Column {
    fn from((name, ty): (String, String)) -> Column {
        Column { name, ty }
    }
}

/// All hunting tables in the catalogue's order.
pub static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../catalogue/hunting_tables.json"))
        .expect("catalogue/hunting_tables.json is part of the program")
});

static BY_NAME: LazyLock<HashMap<&'static str, &'static Table>> =
    LazyLock::new(|| TABLES.iter().map(|table| (table.name.as_str(), table)).collect());

/// The table of that name; names are case-sensitive.
pub fn table(name: &str) -> Option<&'static Table> {
    BY_NAME.get(name).copied()
}
