//! JSON text of a batch → columns, with the exact types of the catalogue.

use super::LakeError;
use super::hot::HotBatch;
use super::shape::{Kind, Shape, shape};
use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use chrono::{DateTime, NaiveDate};
use simd_json::{Node, StaticNode};
use std::fmt::Write as _;
use std::sync::Arc;

/// Deepest nesting of a dynamic value; bounds the recursion that writes it as text.
const MAX_DEPTH: usize = 128;

/// Parses `{"tables":{"DeviceProcessEvents":[{…}]}}`. Strings that miss become "", other values
/// null; `constants` are set on every row of a table that has such a column and win over the row's
/// own value, since the server knows better than the sender whose rows these are.
///
/// Errors: [`LakeError::Malformed`] for text that is not this shape, [`LakeError::Rejected`] for a
/// row that does not fit its table; nothing of the batch is to be stored then.
pub fn parse(
    body: &[u8],
    constants: &[(String, String)],
    ingested_micros: i64,
) -> Result<Vec<(&'static Shape, HotBatch)>, LakeError> {
    let mut text = body.to_vec();
    let tape = simd_json::to_tape(&mut text).map_err(|error| malformed(error.to_string()))?;
    let nodes = tape.0.as_slice();
    let mut cursor = Cursor { nodes, at: 0 };
    let mut parsed: Vec<(&'static Shape, HotBatch)> = Vec::new();
    let Some(Node::Object { len, .. }) = cursor.next() else {
        return Err(malformed("the batch is not an object"));
    };
    for _ in 0..len {
        match cursor.key() {
            "tables" => {}
            other => return Err(malformed(format!("unknown property {other}"))),
        }
        let Some(Node::Object { len: tables, .. }) = cursor.next() else {
            return Err(malformed("tables is not an object"));
        };
        for _ in 0..tables {
            let name = cursor.key();
            let shape = shape(name).ok_or_else(|| LakeError::Rejected {
                table: name.to_owned(),
                row: 0,
                column: String::new(),
                reason: "unknown table".to_owned(),
            })?;
            if parsed.iter().any(|(earlier, _)| earlier.name == shape.name) {
                return Err(malformed(format!("table {} is given twice", shape.name)));
            }
            let Some(Node::Array { len: rows, .. }) = cursor.next() else {
                return Err(malformed(format!("table {name} is not an array of rows")));
            };
            let batch = parse_table(shape, rows, &mut cursor, constants, ingested_micros)?;
            if batch.rows > 0 {
                parsed.push((shape, batch));
            }
        }
    }
    Ok(parsed)
}

fn malformed(reason: impl Into<String>) -> LakeError {
    LakeError::Malformed { reason: reason.into() }
}

/// A walk over the tape's nodes.
struct Cursor<'t, 'i> {
    nodes: &'t [Node<'i>],
    at: usize,
}

impl<'i> Cursor<'_, 'i> {
    fn next(&mut self) -> Option<Node<'i>> {
        let node = self.nodes.get(self.at).copied();
        self.at += 1;
        node
    }

    /// The next node where the tape guarantees a key.
    fn key(&mut self) -> &'i str {
        match self.next() {
            Some(Node::String(key)) => key,
            other => unreachable!("an object's key is a string, not {other:?}"),
        }
    }
}

fn parse_table(
    shape: &'static Shape,
    rows: usize,
    cursor: &mut Cursor,
    constants: &[(String, String)],
    ingested_micros: i64,
) -> Result<HotBatch, LakeError> {
    let mut columns: Vec<Column> = Vec::new();
    columns.resize_with(shape.kinds.len(), Column::default);
    for (name, _) in constants {
        if let Some(index) = shape.column(name) {
            columns[index].constant = true;
        }
    }
    let mut order: Vec<usize> = Vec::new();
    for row in 0..rows {
        let reject = |index: usize, reason: String| LakeError::Rejected {
            table: shape.name.to_owned(),
            row,
            column: shape.column_name(index).to_owned(),
            reason,
        };
        let Some(Node::Object { len, .. }) = cursor.next() else {
            return Err(LakeError::Rejected {
                table: shape.name.to_owned(),
                row,
                column: String::new(),
                reason: "the row is not an object".to_owned(),
            });
        };
        for position in 0..len {
            let key = cursor.key();
            let index = find_column(shape, &mut order, position, key).ok_or_else(|| {
                LakeError::Rejected {
                    table: shape.name.to_owned(),
                    row,
                    column: key.to_owned(),
                    reason: "unknown column".to_owned(),
                }
            })?;
            let column = &mut columns[index];
            if column.seen > row {
                return Err(reject(index, "given twice in one row".to_owned()));
            }
            column.seen = row + 1;
            if column.constant {
                skip(cursor);
                continue;
            }
            column.take(shape.kinds[index], row, cursor).map_err(|reason| reject(index, reason))?;
        }
        if let Some(index) = shape.timestamp
            && columns[index].len() != row + 1
        {
            return Err(reject(index, "missing".to_owned()));
        }
    }
    let mut arrays: Vec<Option<ArrayRef>> =
        columns.into_iter().map(|column| column.finish(rows)).collect();
    for (name, value) in constants {
        if let Some(index) = shape.column(name) {
            arrays[index] = constant(shape, index, value, rows)?;
        }
    }
    let ingested = TimestampMicrosecondArray::from_value(ingested_micros, rows);
    arrays[shape.ingestion_time] = Some(Arc::new(ingested.with_timezone("UTC")));
    Ok(HotBatch::new(shape, rows, arrays))
}

/// Rows of a source have their keys in the same order nearly always, so the position in the row
/// before is tried ahead of the hash table. The hidden column is nobody's to set.
fn find_column(shape: &Shape, order: &mut Vec<usize>, position: usize, key: &str) -> Option<usize> {
    if let Some(&index) = order.get(position)
        && shape.column_name(index) == key
    {
        return Some(index);
    }
    let index = shape.column(key).filter(|&index| index != shape.ingestion_time)?;
    if position < order.len() {
        order[position] = index;
    } else if position == order.len() {
        order.push(index);
    }
    Some(index)
}

fn constant(
    shape: &Shape,
    index: usize,
    value: &str,
    rows: usize,
) -> Result<Option<ArrayRef>, LakeError> {
    let reject = |reason: &str| LakeError::Rejected {
        table: shape.name.to_owned(),
        row: 0,
        column: shape.column_name(index).to_owned(),
        reason: reason.to_owned(),
    };
    let value = match shape.kinds[index] {
        Kind::String => value.to_owned(),
        Kind::Guid => guid(value).ok_or_else(|| reject("not a guid"))?,
        _ => return Err(reject("a constant must be of type string or guid")),
    };
    if value.is_empty() {
        return Ok(None);
    }
    let mut builder = StringBuilder::with_capacity(rows, rows * value.len());
    for _ in 0..rows {
        builder.append_value(&value);
    }
    Ok(Some(Arc::new(builder.finish())))
}

/// Values of one column; the builder exists from the first value on.
#[derive(Default)]
struct Column {
    values: Option<Values>,
    /// Number of the last row that named this column, plus one.
    seen: usize,
    constant: bool,
}

enum Values {
    /// Never null.
    Text(StringBuilder),
    Dynamic(StringBuilder),
    Datetime(TimestampMicrosecondBuilder),
    Bool(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Real(Float64Builder),
}

impl Values {
    fn new(kind: Kind) -> Values {
        match kind {
            Kind::String | Kind::Guid => Values::Text(StringBuilder::new()),
            Kind::Dynamic => Values::Dynamic(StringBuilder::new()),
            Kind::Datetime => {
                Values::Datetime(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            Kind::Bool => Values::Bool(BooleanBuilder::new()),
            Kind::Int => Values::Int(Int32Builder::new()),
            Kind::Long => Values::Long(Int64Builder::new()),
            Kind::Real => Values::Real(Float64Builder::new()),
        }
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder as _;
        match self {
            Values::Text(builder) | Values::Dynamic(builder) => builder.len(),
            Values::Datetime(builder) => builder.len(),
            Values::Bool(builder) => builder.len(),
            Values::Int(builder) => builder.len(),
            Values::Long(builder) => builder.len(),
            Values::Real(builder) => builder.len(),
        }
    }

    /// Fills up with missing values.
    fn pad(&mut self, rows: usize) {
        let missing = rows - self.len();
        match self {
            Values::Text(builder) => (0..missing).for_each(|_| builder.append_value("")),
            Values::Dynamic(builder) => (0..missing).for_each(|_| builder.append_null()),
            Values::Datetime(builder) => builder.append_nulls(missing),
            Values::Bool(builder) => builder.append_nulls(missing),
            Values::Int(builder) => builder.append_nulls(missing),
            Values::Long(builder) => builder.append_nulls(missing),
            Values::Real(builder) => builder.append_nulls(missing),
        }
    }
}

impl Column {
    fn len(&self) -> usize {
        self.values.as_ref().map_or(0, Values::len)
    }

    /// Takes the cursor's next value for `row`. Null is the same as a missing value.
    fn take(&mut self, kind: Kind, row: usize, cursor: &mut Cursor) -> Result<(), String> {
        let start = cursor.at;
        let node = cursor.next().ok_or("value missing")?;
        if matches!(node, Node::Static(StaticNode::Null) | Node::String(""))
            && kind != Kind::Dynamic
        {
            return match node {
                Node::String(_) if kind.nullable() => Err(wrong(kind, &node)),
                _ => Ok(()),
            };
        }
        if node == Node::Static(StaticNode::Null) {
            return Ok(());
        }
        let values = self.values.get_or_insert_with(|| Values::new(kind));
        values.pad(row);
        match (values, node) {
            (Values::Text(builder), Node::String(text)) if kind == Kind::Guid => {
                builder.append_value(guid(text).ok_or_else(|| format!("not a guid: {text:.80}"))?);
            }
            (Values::Text(builder), Node::String(text)) => builder.append_value(text),
            (Values::Dynamic(builder), _) => {
                cursor.at = start;
                write_json(cursor, builder, 0)?;
                builder.append_value("");
            }
            (Values::Datetime(builder), Node::String(text)) => {
                builder.append_value(micros(text).ok_or_else(|| {
                    format!("not a time in RFC 3339 between the years 1 and 9999: {text:.40}")
                })?);
            }
            (Values::Bool(builder), Node::Static(StaticNode::Bool(value))) => {
                builder.append_value(value);
            }
            (Values::Int(builder), Node::Static(StaticNode::I64(value))) => {
                builder.append_value(i32::try_from(value).map_err(|_| out_of_range(kind, value))?)
            }
            (Values::Int(builder), Node::Static(StaticNode::U64(value))) => {
                builder.append_value(i32::try_from(value).map_err(|_| out_of_range(kind, value))?)
            }
            (Values::Long(builder), Node::Static(StaticNode::I64(value))) => {
                builder.append_value(value);
            }
            (Values::Long(builder), Node::Static(StaticNode::U64(value))) => {
                builder.append_value(i64::try_from(value).map_err(|_| out_of_range(kind, value))?)
            }
            (Values::Real(builder), Node::Static(StaticNode::I64(value))) => {
                builder.append_value(value as f64);
            }
            (Values::Real(builder), Node::Static(StaticNode::U64(value))) => {
                builder.append_value(value as f64);
            }
            (Values::Real(builder), Node::Static(StaticNode::F64(value))) => {
                builder.append_value(value);
            }
            (_, node) => return Err(wrong(kind, &node)),
        }
        Ok(())
    }

    fn finish(self, rows: usize) -> Option<ArrayRef> {
        let mut values = self.values?;
        values.pad(rows);
        Some(match values {
            Values::Text(mut builder) | Values::Dynamic(mut builder) => Arc::new(builder.finish()),
            Values::Datetime(mut builder) => Arc::new(builder.finish()),
            Values::Bool(mut builder) => Arc::new(builder.finish()),
            Values::Int(mut builder) => Arc::new(builder.finish()),
            Values::Long(mut builder) => Arc::new(builder.finish()),
            Values::Real(mut builder) => Arc::new(builder.finish()),
        })
    }
}

fn wrong(kind: Kind, node: &Node) -> String {
    let expected = match kind {
        Kind::String => "a string",
        Kind::Guid => "a guid as a string",
        Kind::Dynamic => "any JSON value",
        Kind::Datetime => "a time as a string in RFC 3339",
        Kind::Bool => "true or false",
        Kind::Int | Kind::Long => "a whole number",
        Kind::Real => "a number",
    };
    let got = match node {
        Node::String(_) => "a string",
        Node::Object { .. } => "an object",
        Node::Array { .. } => "an array",
        Node::Static(StaticNode::Bool(_)) => "a boolean",
        Node::Static(StaticNode::Null) => "null",
        Node::Static(StaticNode::F64(_)) => "a number with a fraction",
        Node::Static(_) => "a number",
    };
    format!("expected {expected}, got {got}")
}

fn out_of_range(kind: Kind, value: impl std::fmt::Display) -> String {
    let bits = if kind == Kind::Int { 32 } else { 64 };
    format!("{value} does not fit {bits} bits")
}

fn guid(text: &str) -> Option<String> {
    uuid::Uuid::try_parse(text).ok().map(|id| id.to_string())
}

/// Passes over one value.
fn skip(cursor: &mut Cursor) {
    if let Some(Node::Object { count, .. } | Node::Array { count, .. }) = cursor.next() {
        cursor.at += count;
    }
}

/// Writes one value as compact JSON text.
fn write_json(cursor: &mut Cursor, out: &mut StringBuilder, depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    let written = match cursor.next() {
        Some(Node::String(text)) => write_string(out, text),
        Some(Node::Static(StaticNode::Null)) | None => out.write_str("null"),
        Some(Node::Static(StaticNode::Bool(value))) => write!(out, "{value}"),
        Some(Node::Static(StaticNode::I64(value))) => write!(out, "{value}"),
        Some(Node::Static(StaticNode::U64(value))) => write!(out, "{value}"),
        // `Debug` keeps the ".0" and uses exponents, both valid JSON.
        Some(Node::Static(StaticNode::F64(value))) => write!(out, "{value:?}"),
        Some(Node::Array { len, .. }) => {
            for position in 0..len {
                let _ = out.write_char(if position == 0 { '[' } else { ',' });
                write_json(cursor, out, depth + 1)?;
            }
            out.write_str(if len == 0 { "[]" } else { "]" })
        }
        Some(Node::Object { len, .. }) => {
            for position in 0..len {
                let _ = out.write_char(if position == 0 { '{' } else { ',' });
                let _ = write_string(out, cursor.key());
                let _ = out.write_char(':');
                write_json(cursor, out, depth + 1)?;
            }
            out.write_str(if len == 0 { "{}" } else { "}" })
        }
    };
    written.map_err(|error| error.to_string())
}

fn write_string(out: &mut StringBuilder, text: &str) -> std::fmt::Result {
    out.write_char('"')?;
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(&text[plain..at])?;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            control => write!(out, "\\u{control:04x}")?,
        }
        plain = at + 1;
    }
    out.write_str(&text[plain..])?;
    out.write_char('"')
}

/// Microseconds since the Unix epoch of an RFC 3339 time; digits beyond the sixth are cut. The
/// common form (`2026-01-31T12:34:56.789Z`) is read without a general parser.
pub fn micros(text: &str) -> Option<i64> {
    fast_micros(text.as_bytes()).or_else(|| {
        let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        let year = chrono::Datelike::year(&time);
        (1..=9999).contains(&year).then(|| time.timestamp_micros())
    })
}

fn fast_micros(text: &[u8]) -> Option<i64> {
    let (last, text) = text.split_last()?;
    if *last != b'Z' || text.len() < 19 {
        return None;
    }
    let (date, fraction) = text.split_at(19);
    let separators = [date[4], date[7], date[10], date[13], date[16]];
    if separators != *b"--T::" {
        return None;
    }
    let number = |digits: &[u8]| -> Option<u32> {
        digits.iter().try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
        })
    };
    let day = NaiveDate::from_ymd_opt(
        i32::try_from(number(&date[..4])?).ok().filter(|year| *year > 0)?,
        number(&date[5..7])?,
        number(&date[8..10])?,
    )?;
    let (hour, minute, second) =
        (number(&date[11..13])?, number(&date[14..16])?, number(&date[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = 0;
    if let Some((dot, digits)) = fraction.split_first() {
        if *dot != b'.' || digits.is_empty() || digits.len() > 9 {
            return None;
        }
        number(digits)?;
        let kept = &digits[..digits.len().min(6)];
        micros = i64::from(number(kept)?) * 10_i64.pow(6 - kept.len() as u32);
    }
    let days = i64::from(chrono::Datelike::num_days_from_ce(&day)) - 719_163;
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * 1_000_000 + micros)
}
