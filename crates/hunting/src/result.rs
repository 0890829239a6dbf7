//! Rows that a query gave, and the forms in which they are written.

use crate::functions::{Cell, Cells, decimal_text, real_text, text};
use arrow::array::{Array as _, ArrayRef, RecordBatch, StringViewArray};
use serde_json::Value as Json;
use std::io::{self, Write};
use vigie_kql::plan::{Column, Render};
use vigie_kql::plan_text::{datetime_text, timespan_text};
use vigie_kql::types::Type;

/// What a query gave: one table for each tabular statement.
#[derive(Clone, Debug)]
pub struct QueryResult {
    pub tables: Vec<ResultTable>,
    pub render: Option<Render>,
    /// How long the query ran.
    pub seconds: f64,
}

/// Columns and rows.
#[derive(Clone, Debug)]
pub struct ResultTable {
    pub columns: Vec<Column>,
    pub(crate) batches: Vec<RecordBatch>,
}

/// Bytes of a batch's own values: buffers that slices share count for what each shows of them.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    let column = |array: &ArrayRef| match array.as_any().downcast_ref::<StringViewArray>() {
        Some(texts) => {
            let long = texts.views().iter().map(|view| *view as u32 as usize).filter(|n| *n > 12);
            texts.len() * 16 + long.sum::<usize>()
        }
        None => array.to_data().get_slice_memory_size().unwrap_or(0),
    };
    batch.columns().iter().map(column).sum()
}

impl ResultTable {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Memory that the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(bytes_of).sum()
    }

    /// The result as the API writes it: `{"Stats":{"ExecutionTime","dataset_statistics"},
    /// "Schema":[{"Name","Type"}],"Results":[{…}]}`, times in seconds and sizes in bytes. Of `Stats`
    /// there is what is measured.
    pub fn write_api_json(&self, seconds: f64, out: &mut impl Write) -> io::Result<()> {
        let (rows, bytes) = (self.rows(), self.bytes());
        write!(
            out,
            "{{\"Stats\":{{\"ExecutionTime\":{seconds},\"dataset_statistics\":\
             [{{\"table_row_count\":{rows},\"table_size\":{bytes}}}]}},\"Schema\":["
        )?;
        for (at, column) in self.columns.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let name = Json::from(column.name.as_str());
            write!(out, "{comma}{{\"Name\":{name},\"Type\":\"{}\"}}", api_type(column.ty))?;
        }
        write!(out, "],\"Results\":[")?;
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| Json::from(column.name.as_str()).to_string())
            .collect();
        let mut first = true;
        self.each_row(|cells| {
            out.write_all(if first { b"{" } else { b",{" })?;
            first = false;
            for (at, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
                let comma = if at > 0 { "," } else { "" };
                write!(out, "{comma}{}:{}", names[at], api_cell(column.ty, cell))?;
            }
            out.write_all(b"}")
        })?;
        write!(out, "]}}")
    }

    /// Rows as JSON objects, one a line.
    pub fn write_json_lines(&self, out: &mut impl Write) -> io::Result<()> {
        let names: Vec<String> = self
            .columns
            .iter()
            .map(|column| Json::from(column.name.as_str()).to_string())
            .collect();
        self.each_row(|cells| {
            for (at, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
                let before = if at > 0 { "," } else { "{" };
                write!(out, "{before}{}:{}", names[at], api_cell(column.ty, cell))?;
            }
            writeln!(out, "}}")
        })
    }

    /// RFC 4180, with a line of names.
    pub fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        writeln!(out, "{}", names.join(","))?;
        self.each_row(|cells| {
            let cells: Vec<String> = (cells.iter().zip(&self.columns))
                .map(|(c, column)| quoted(&plain(column.ty, c)))
                .collect();
            writeln!(out, "{}", cells.join(","))
        })
    }

    /// Cells as texts for a terminal.
    pub fn plain_rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let collected = self.each_row(|cells| {
            rows.push(
                (cells.iter().zip(&self.columns)).map(|(c, column)| plain(column.ty, c)).collect(),
            );
            Ok(())
        });
        debug_assert!(collected.is_ok());
        rows
    }

    /// One Parquet file, datetimes as ticks of 100 ns since 0001-01-01.
    pub fn write_parquet(&self, out: impl Write + Send) -> io::Result<()> {
        let fields = (self.columns.iter()).map(|column| {
            arrow::datatypes::Field::new(
                &column.name,
                crate::functions::arrow_type(column.ty),
                true,
            )
        });
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
        let mut writer = parquet::arrow::ArrowWriter::try_new(out, schema.clone(), None)?;
        for batch in &self.batches {
            let renamed = RecordBatch::try_new(schema.clone(), batch.columns().to_vec());
            writer.write(&renamed.map_err(io::Error::other)?)?;
        }
        writer.close()?;
        Ok(())
    }

    fn each_row(&self, mut row: impl FnMut(&[Cell<'_>]) -> io::Result<()>) -> io::Result<()> {
        for batch in &self.batches {
            let columns: Vec<Cells<'_>> = (batch.columns().iter())
                .map(|array| Cells::of(array).map_err(io::Error::other))
                .collect::<io::Result<_>>()?;
            let mut cells = Vec::with_capacity(columns.len());
            for at in 0..batch.num_rows() {
                cells.clear();
                cells.extend(columns.iter().map(|column| column.get(at)));
                row(&cells)?;
            }
        }
        Ok(())
    }
}

/// Names of types in the API's `Schema` (names of .NET types without their namespace).
fn api_type(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "SByte",
        Type::Int => "Int32",
        Type::Long => "Int64",
        Type::Real => "Double",
        Type::Decimal => "SqlDecimal",
        Type::DateTime => "DateTime",
        Type::TimeSpan => "TimeSpan",
        Type::Guid => "Guid",
        Type::String => "String",
        Type::Dynamic => "Object",
    }
}

/// A cell as the API writes it; dynamic values as JSON.
fn api_cell(ty: Type, cell: &Cell<'_>) -> String {
    match (ty, cell) {
        (Type::String, Cell::Null) => "\"\"".to_owned(),
        (_, Cell::Null) => "null".to_owned(),
        (Type::Dynamic, Cell::Text(json)) => json.to_string(),
        (Type::DateTime, Cell::Long(ticks)) => format!("\"{}\"", datetime_text(*ticks)),
        (Type::TimeSpan, Cell::Long(ticks)) => format!("\"{}\"", timespan_text(*ticks)),
        (_, Cell::Text(text)) => Json::from(text.as_ref()).to_string(),
        (_, Cell::Bool(value)) => value.to_string(),
        (_, Cell::Long(value)) => value.to_string(),
        (_, Cell::Real(value)) if value.is_finite() => Json::from(*value).to_string(),
        (_, Cell::Real(value)) => format!("\"{}\"", real_text(*value)),
        (_, Cell::Decimal(value)) => format!("\"{}\"", decimal_text(*value)),
    }
}

/// A cell as a person reads it.
fn plain(ty: Type, cell: &Cell<'_>) -> String {
    match (ty, cell) {
        (_, Cell::Bool(value)) => value.to_string(),
        (Type::Dynamic, Cell::Text(json)) => json.to_string(),
        (ty, cell) => text(ty, cell),
    }
}

/// A cell as the conformance set writes it: text, or null.
pub(crate) fn conformance_cell(ty: Type, cell: &Cell<'_>) -> Json {
    match cell {
        Cell::Null if ty == Type::String => "".into(),
        Cell::Null => Json::Null,
        cell => plain(ty, cell).into(),
    }
}

impl ResultTable {
    pub(crate) fn conformance_rows(&self) -> Vec<Json> {
        let mut rows = Vec::new();
        let collected = self.each_row(|cells| {
            let cells = cells.iter().zip(&self.columns);
            rows.push(cells.map(|(c, column)| conformance_cell(column.ty, c)).collect());
            Ok(())
        });
        debug_assert!(collected.is_ok());
        rows
    }
}
