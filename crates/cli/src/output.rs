//! Rows on the terminal and in files.

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;
use std::io::Write;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
}

/// Prints rows of the API under the named columns; JSON prints the rows whole.
pub fn print(rows: &[Value], columns: &[&str], format: Format) -> Result<()> {
    let out = std::io::stdout().lock();
    match format {
        Format::Json => json(out, rows),
        Format::Csv => csv(out, rows, columns),
        Format::Table => table(out, rows, columns),
    }
}

fn json(mut out: impl Write, rows: &[Value]) -> Result<()> {
    for row in rows {
        serde_json::to_writer(&mut out, row)?;
        writeln!(out)?;
    }
    Ok(())
}

fn csv(mut out: impl Write, rows: &[Value], columns: &[&str]) -> Result<()> {
    writeln!(out, "{}", columns.join(","))?;
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|name| csv_cell(&text(&row[*name]))).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

/// RFC 4180: quoted where it holds a comma, a quote or a line break.
fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn table(mut out: impl Write, rows: &[Value], columns: &[&str]) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(columns);
    for row in rows {
        table.add_row(columns.iter().map(|name| cell(&row[*name])));
    }
    writeln!(out, "{table}")?;
    Ok(())
}

/// Characters of a cell in a table; JSON and CSV have the whole.
const CELL: usize = 80;

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => text(other),
    };
    let text = printable(&text);
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A cell as a person reads it: strings bare, null empty, the rest as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Control characters of recorded events must not reach the terminal.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}
