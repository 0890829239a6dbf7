//! Values that go into statements and come out of rows.

use crate::DatabaseError;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

/// A value with its type; `None` is null.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Real(Option<f64>),
    Bytes(Option<Vec<u8>>),
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(Some(value))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Value {
        Value::Text(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Value {
        Value::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Integer(Some(value.into()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Value {
        Value::Bytes(Some(value))
    }
}

/// One row of a result; columns count from 0.
#[derive(Clone, Debug)]
pub struct Row(Vec<Value>);

impl Row {
    pub(crate) fn from_sqlite(row: &SqliteRow) -> Result<Row, DatabaseError> {
        let value = |at: usize| -> Result<Value, DatabaseError> {
            let raw = row.try_get_raw(at)?;
            if raw.is_null() {
                return Ok(null_of(row.columns()[at].type_info().name()));
            }
            Ok(match raw.type_info().name() {
                "INTEGER" | "BOOLEAN" => Value::Integer(Some(row.try_get(at)?)),
                "REAL" => Value::Real(Some(row.try_get(at)?)),
                "BLOB" => Value::Bytes(Some(row.try_get(at)?)),
                _ => Value::Text(Some(row.try_get(at)?)),
            })
        };
        Ok(Row((0..row.len()).map(value).collect::<Result<_, _>>()?))
    }

    pub(crate) fn from_postgres(row: &PgRow) -> Result<Row, DatabaseError> {
        let value = |at: usize| -> Result<Value, DatabaseError> {
            Ok(match row.columns()[at].type_info().name() {
                "INT8" => Value::Integer(row.try_get(at)?),
                "INT4" => Value::Integer(row.try_get::<Option<i32>, _>(at)?.map(i64::from)),
                "BOOL" => Value::Integer(row.try_get::<Option<bool>, _>(at)?.map(i64::from)),
                "FLOAT8" => Value::Real(row.try_get(at)?),
                "BYTEA" => Value::Bytes(row.try_get(at)?),
                _ => Value::Text(row.try_get(at)?),
            })
        };
        Ok(Row((0..row.len()).map(value).collect::<Result<_, _>>()?))
    }

    /// Columns of the row.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn value(&self, column: usize) -> &Value {
        &self.0[column]
    }

    pub fn text(&self, column: usize) -> Result<&str, DatabaseError> {
        match &self.0[column] {
            Value::Text(Some(text)) => Ok(text),
            _ => Err(self.wrong(column, "a text")),
        }
    }

    pub fn optional_text(&self, column: usize) -> Result<Option<&str>, DatabaseError> {
        match &self.0[column] {
            Value::Text(text) => Ok(text.as_deref()),
            value if is_null(value) => Ok(None),
            _ => Err(self.wrong(column, "a text")),
        }
    }

    pub fn integer(&self, column: usize) -> Result<i64, DatabaseError> {
        match &self.0[column] {
            Value::Integer(Some(value)) => Ok(*value),
            _ => Err(self.wrong(column, "an integer")),
        }
    }

    pub fn optional_integer(&self, column: usize) -> Result<Option<i64>, DatabaseError> {
        match &self.0[column] {
            Value::Integer(value) => Ok(*value),
            value if is_null(value) => Ok(None),
            _ => Err(self.wrong(column, "an integer")),
        }
    }

    pub fn flag(&self, column: usize) -> Result<bool, DatabaseError> {
        Ok(self.integer(column)? != 0)
    }

    pub fn bytes(&self, column: usize) -> Result<&[u8], DatabaseError> {
        match &self.0[column] {
            Value::Bytes(Some(bytes)) => Ok(bytes),
            _ => Err(self.wrong(column, "bytes")),
        }
    }

    fn wrong(&self, column: usize, expected: &'static str) -> DatabaseError {
        let found = match &self.0[column] {
            Value::Text(_) => "a text",
            Value::Integer(_) => "an integer",
            Value::Real(_) => "a real",
            Value::Bytes(_) => "bytes",
        };
        DatabaseError::Type { column, found: found.to_owned(), expected }
    }
}

fn is_null(value: &Value) -> bool {
    matches!(
        value,
        Value::Text(None) | Value::Integer(None) | Value::Real(None) | Value::Bytes(None)
    )
}

fn null_of(declared: &str) -> Value {
    match declared {
        "INTEGER" | "BIGINT" | "BOOLEAN" => Value::Integer(None),
        "REAL" | "DOUBLE PRECISION" => Value::Real(None),
        "BLOB" | "BYTEA" => Value::Bytes(None),
        _ => Value::Text(None),
    }
}
