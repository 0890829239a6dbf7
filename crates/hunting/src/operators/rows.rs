//! Operators that make rows of one row each: `mv-expand` and `parse`.

use crate::error::QueryError;
use crate::functions::{self, Cell, Cells, array_of};
use crate::row_wise::{RowOperator, RowsMade};
use arrow::array::{ArrayRef, UInt32Array};
use regex::Regex;
use vigie_kql::plan::{ExpandKind, ParseMode, ParseOutput, ParsePattern, ParseSegment};
use vigie_kql::types::Type;

/// One row per element.
pub struct Expand {
    /// Types of the values' columns, then of the index where there is one.
    pub types: Vec<Type>,
    pub kind: ExpandKind,
    pub limit: Option<usize>,
}

impl RowOperator for Expand {
    fn name(&self) -> &'static str {
        "mv-expand"
    }

    fn make(&self, sources: &[ArrayRef], rows: usize) -> Result<RowsMade, QueryError> {
        let cells = sources.iter().map(|array| Cells::of(array)).collect::<Result<Vec<_>, _>>()?;
        let mut origin: Vec<u32> = Vec::new();
        let mut index: Vec<i64> = Vec::new();
        let mut values: Vec<Vec<Option<String>>> = vec![Vec::new(); sources.len()];
        for row in 0..rows {
            let lists: Vec<Vec<Option<String>>> =
                cells.iter().map(|cells| self.elements(&cells.get(row))).collect();
            let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..longest.min(self.limit.unwrap_or(usize::MAX)) {
                origin.push(row as u32);
                index.push(at as i64);
                for (list, values) in lists.iter().zip(&mut values) {
                    values.push(list.get(at).cloned().flatten());
                }
            }
        }
        let mut arrays: Vec<ArrayRef> = (values.iter().zip(&self.types))
            .map(|(values, ty)| {
                array_of(*ty, values.iter().map(|json| element(json.as_deref(), *ty)))
            })
            .collect();
        if self.types.len() > sources.len() {
            arrays.push(array_of(Type::Long, index.iter().map(|index| Cell::Long(*index))));
        }
        Ok(RowsMade { origin: UInt32Array::from(origin), arrays })
    }
}

impl Expand {
    /// JSON texts of the elements; null for a null element.
    fn elements(&self, cell: &Cell<'_>) -> Vec<Option<String>> {
        let Cell::Text(json) = cell else { return vec![None] };
        match serde_json::from_str::<serde_json::Value>(json) {
            Ok(serde_json::Value::Array(array)) => {
                array.into_iter().map(|v| (!v.is_null()).then(|| v.to_string())).collect()
            }
            Ok(serde_json::Value::Object(bag)) => (bag.into_iter())
                .map(|(key, value)| {
                    Some(match self.kind {
                        ExpandKind::Bag => serde_json::json!({ key: value }).to_string(),
                        ExpandKind::Array => serde_json::json!([key, value]).to_string(),
                    })
                })
                .collect(),
            _ => vec![Some(json.to_string())],
        }
    }
}

/// An element by value: a number does not come from text.
fn element<'a>(json: Option<&'a str>, ty: Type) -> Cell<'a> {
    let Some(json) = json else { return Cell::Null };
    match ty {
        Type::Dynamic => Cell::text(json),
        Type::String => Cell::text(functions::to_text(json)),
        Type::Long | Type::Int => Cell::from_long(json.parse().ok()),
        Type::Real => Cell::from_real(json.parse().ok()),
        Type::Bool => Cell::from_bool(json.parse().ok()),
        ty => {
            let text = functions::to_text(json);
            functions::convert_text(ty, &text)
        }
    }
}

/// Captures of a pattern as columns.
pub struct Parse {
    regex: Regex,
    outputs: Vec<ParseOutput>,
    relaxed: bool,
    keep_unmatched: bool,
}

impl Parse {
    pub fn new(
        pattern: &ParsePattern,
        outputs: &[ParseOutput],
        keep_unmatched: bool,
    ) -> Result<Parse, QueryError> {
        let regex_mode = pattern.mode == ParseMode::Regex;
        let mut text = String::from("(?s");
        if pattern.flags.contains('i') {
            text.push('i');
        }
        if pattern.flags.contains('U') || !regex_mode {
            text.push('U');
        }
        text.push(')');
        // Simple patterns match the whole text, unless they begin or end with `*`.
        if !regex_mode {
            text.push('^');
        }
        let greedy = if pattern.flags.contains('U') || !regex_mode { "?" } else { "" };
        for (at, segment) in pattern.segments.iter().enumerate() {
            match segment {
                ParseSegment::Skip => text.push_str(".*"),
                ParseSegment::Text(part) if regex_mode => text.push_str(part),
                ParseSegment::Text(part) => text.push_str(&regex::escape(part)),
                ParseSegment::Capture(output) => {
                    // A number takes its digits where no text says how far it goes.
                    let open = regex_mode
                        || matches!(pattern.segments.get(at + 1), Some(ParseSegment::Skip));
                    let value = match outputs[*output].ty {
                        Type::Int | Type::Long if open => format!("[-+]?[0-9]+{greedy}"),
                        Type::Real | Type::Decimal if open => format!("[-+0-9.eE]+{greedy}"),
                        _ => ".*".to_owned(),
                    };
                    // The pattern may have groups of its own.
                    text.push_str(&format!("(?<v_{output}>{value})"));
                }
            }
        }
        if !regex_mode {
            text.push('$');
        }
        let regex = Regex::new(&text)
            .map_err(|error| QueryError::Runtime(format!("'parse' operator: {error}")))?;
        let relaxed = pattern.mode == ParseMode::Relaxed;
        Ok(Parse { regex, outputs: outputs.to_vec(), relaxed, keep_unmatched })
    }

    /// The columns that captures become, in order: the last capture of a column wins.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> = self.outputs.iter().map(|output| output.output).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

impl RowOperator for Parse {
    fn name(&self) -> &'static str {
        "parse"
    }

    fn make(&self, values: &[ArrayRef], rows: usize) -> Result<RowsMade, QueryError> {
        let source = Cells::of(&values[0])?;
        let mut kept: Vec<u32> = Vec::new();
        let mut captured: Vec<Vec<Cell<'static>>> = vec![Vec::new(); self.outputs.len()];
        for row in 0..rows {
            let cell = source.get(row);
            let found = self.regex.captures(cell.as_text());
            let mut values: Option<Vec<Cell<'static>>> = found.as_ref().map(|found| {
                let texts = (0..self.outputs.len())
                    .map(|at| found.name(&format!("v_{at}")).map_or("", |m| m.as_str()));
                (texts.zip(&self.outputs))
                    .map(|(text, output)| functions::convert_text(output.ty, text).into_owned())
                    .collect()
            });
            // One value that cannot be converted blanks all.
            let failed = values.as_ref().is_some_and(|v| v.contains(&Cell::Null));
            if failed && !self.relaxed {
                values = None;
            }
            if values.is_none() && !self.keep_unmatched {
                continue;
            }
            kept.push(row as u32);
            for (at, output) in self.outputs.iter().enumerate() {
                let blank = || if output.ty == Type::String { Cell::text("") } else { Cell::Null };
                captured[at].push(values.as_ref().map_or_else(blank, |v| v[at].clone()));
            }
        }
        let arrays = self.columns().into_iter().filter_map(|column| {
            let capture = self.outputs.iter().rposition(|output| output.output == column)?;
            Some(array_of(self.outputs[capture].ty, captured[capture].iter().cloned()))
        });
        Ok(RowsMade { arrays: arrays.collect(), origin: UInt32Array::from(kept) })
    }
}
