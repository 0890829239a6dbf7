//! Operators that make rows of rows: `mv-expand` and `parse`.

use super::Made;
use crate::error::QueryError;
use crate::functions::{self, Cell, Cells, array_of};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::error::DataFusionError;
use regex::Regex;
use vigie_kql::plan::{
    Column, ExpandItem, ExpandKind, ParseMode, ParseOutput, ParsePattern, ParseSegment,
};
use vigie_kql::types::Type;

/// One row per element.
pub struct Expand<'a> {
    pub items: &'a [ExpandItem],
    pub kind: ExpandKind,
    pub item_index: bool,
    pub limit: Option<usize>,
    /// Columns of the input; the values to expand stand behind them.
    pub width: usize,
}

impl Expand<'_> {
    pub fn rows(&self, batch: &RecordBatch, columns: &[Column]) -> Result<Made, QueryError> {
        let sources: Vec<ArrayRef> =
            (0..self.items.len()).map(|at| batch.column(self.width + at).clone()).collect();
        let cells = sources.iter().map(|array| Cells::of(array)).collect::<Result<Vec<_>, _>>()?;
        let mut origin: Vec<u32> = Vec::new();
        let mut index: Vec<i64> = Vec::new();
        let mut values: Vec<Vec<Option<String>>> = vec![Vec::new(); self.items.len()];
        for row in 0..batch.num_rows() {
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
        let origin = UInt32Array::from(origin);
        let arrays = columns.iter().enumerate().map(|(at, column)| {
            if let Some(item) = self.items.iter().position(|item| item.output == at) {
                let cells = values[item].iter().map(|json| element(json.as_deref(), column.ty));
                return Ok(array_of(column.ty, cells));
            }
            if at >= self.width || (self.item_index && at == columns.len() - 1) {
                return Ok(array_of(Type::Long, index.iter().map(|index| Cell::Long(*index))));
            }
            take(batch.column(at), &origin, None).map_err(DataFusionError::from)
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        Ok(Made { origin, arrays })
    }

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
pub struct Parse<'a> {
    regex: Regex,
    outputs: &'a [ParseOutput],
    relaxed: bool,
    keep_unmatched: bool,
    width: usize,
}

impl<'a> Parse<'a> {
    pub fn new(
        pattern: &ParsePattern,
        outputs: &'a [ParseOutput],
        keep_unmatched: bool,
        width: usize,
    ) -> Result<Parse<'a>, QueryError> {
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
        Ok(Parse { regex, outputs, relaxed, keep_unmatched, width })
    }

    pub fn rows(&self, batch: &RecordBatch, columns: &[Column]) -> Result<Made, QueryError> {
        let source = batch.column(self.width).clone();
        let source = Cells::of(&source)?;
        let mut kept: Vec<u32> = Vec::new();
        let mut captured: Vec<Vec<Cell<'static>>> = vec![Vec::new(); self.outputs.len()];
        for row in 0..batch.num_rows() {
            let cell = source.get(row);
            let found = self.regex.captures(cell.as_text());
            let mut values: Option<Vec<Cell<'static>>> = found.as_ref().map(|found| {
                let texts = (0..self.outputs.len())
                    .map(|at| found.name(&format!("v_{at}")).map_or("", |m| m.as_str()));
                (texts.zip(self.outputs))
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
        let kept = UInt32Array::from(kept);
        let arrays = columns.iter().enumerate().map(|(at, column)| {
            // The last capture of a name wins.
            match self.outputs.iter().rposition(|output| output.output == at) {
                Some(capture) => Ok(array_of(column.ty, captured[capture].iter().cloned())),
                None => take(batch.column(at), &kept, None).map_err(DataFusionError::from),
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        Ok(Made { origin: kept, arrays })
    }
}
