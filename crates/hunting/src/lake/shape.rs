//! The two Arrow schemas of a hunting table: as stored (in memory and in Parquet) and as the engine
//! sees it.

use arrow::array::{ArrayRef, StringViewArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use hashbrown::HashMap;
use std::sync::{Arc, LazyLock};
use vigie_contract::tables::{self, TABLES};

/// Hidden last column of every table: when the lake took the row, for `ingestion_time()`.
pub const INGESTION_TIME: &str = "_ingestion_time";

/// Ticks (100 ns since 0001-01-01) at the Unix epoch.
pub const EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// How values of a column are stored and what the engine gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stored as UTF-8, never null.
    String,
    /// Lower-case text, "" where missing.
    Guid,
    /// JSON text, null where missing.
    Dynamic,
    /// Stored in microseconds since the Unix epoch, ticks to the engine.
    Datetime,
    Bool,
    Int,
    Long,
    Real,
}

impl Kind {
    fn of(kusto: &str) -> Kind {
        match kusto {
            "string" => Kind::String,
            "guid" => Kind::Guid,
            "dynamic" => Kind::Dynamic,
            "datetime" => Kind::Datetime,
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "real" => Kind::Real,
            other => panic!("catalogue/hunting_tables.json has a column of unknown type {other}"),
        }
    }

    /// The Arrow type in memory and in Parquet.
    pub fn stored(self) -> DataType {
        match self {
            Kind::String | Kind::Guid | Kind::Dynamic => DataType::Utf8,
            Kind::Datetime => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int32,
            Kind::Long => DataType::Int64,
            Kind::Real => DataType::Float64,
        }
    }

    /// The Arrow type that the engine computes with.
    pub fn engine(self) -> DataType {
        match self {
            Kind::String | Kind::Guid | Kind::Dynamic => DataType::Utf8View,
            Kind::Datetime => DataType::Int64,
            other => other.stored(),
        }
    }

    /// Whether a missing value is null; otherwise it is the empty string.
    pub fn nullable(self) -> bool {
        !matches!(self, Kind::String | Kind::Guid)
    }
}

/// A hunting table's columns, resolved once.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub kinds: Vec<Kind>,
    /// Schema in memory and in Parquet files; a file leaves out columns that have no value in it.
    pub stored: SchemaRef,
    /// Schema towards the engine, same order.
    pub engine: SchemaRef,
    /// Position of `Timestamp`; some tables have none.
    pub timestamp: Option<usize>,
    pub device_id: Option<usize>,
    pub ingestion_time: usize,
    by_name: HashMap<&'static str, usize>,
}

/// A column's name and kind.
type Named = (&'static str, Kind);

/// Delta Lake does not tell names apart by letter case, but the catalogue has both `LogonId` and
/// `LogonID`: the later one is stored with an underscore behind it.
fn stored_name(columns: &[Named], index: usize) -> String {
    let name = columns[index].0;
    let taken = columns[..index].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
    if taken { format!("{name}_") } else { name.to_owned() }
}

impl Shape {
    fn new(table: &'static tables::Table) -> Shape {
        let mut columns: Vec<Named> = (table.columns.iter())
            .map(|column| (column.name.as_str(), Kind::of(&column.ty)))
            .collect();
        columns.push((INGESTION_TIME, Kind::Datetime));
        let schema = |name: fn(&[Named], usize) -> String, ty: fn(Kind) -> DataType| {
            let field = |index: usize| {
                let kind = columns[index].1;
                Field::new(name(&columns, index), ty(kind), kind.nullable())
            };
            Arc::new(Schema::new((0..columns.len()).map(field).collect::<Vec<_>>()))
        };
        let by_name: HashMap<_, _> =
            (columns.iter().enumerate()).map(|(index, (name, _))| (*name, index)).collect();
        Shape {
            name: &table.name,
            stored: schema(stored_name, Kind::stored),
            engine: schema(|columns, index| columns[index].0.to_owned(), Kind::engine),
            timestamp: by_name.get("Timestamp").copied(),
            device_id: by_name.get("DeviceId").copied(),
            ingestion_time: columns.len() - 1,
            kinds: columns.iter().map(|(_, kind)| *kind).collect(),
            by_name,
        }
    }

    /// Position of a column; names are case-sensitive.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn column_name(&self, index: usize) -> &str {
        self.engine.field(index).name()
    }

    /// The column's name in files; see [`stored_name`].
    pub fn stored_name(&self, index: usize) -> &str {
        self.stored.field(index).name()
    }

    /// `rows` missing values of a column, as stored.
    pub fn missing_stored(&self, index: usize, rows: usize) -> ArrayRef {
        match self.kinds[index] {
            Kind::String | Kind::Guid => {
                Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n("", rows)))
            }
            kind => new_null_array(&kind.stored(), rows),
        }
    }

    /// `rows` missing values of a column, for the engine.
    pub fn missing_engine(&self, index: usize, rows: usize) -> ArrayRef {
        match self.kinds[index] {
            // A zeroed view is the empty string.
            Kind::String | Kind::Guid => {
                let views = arrow::buffer::ScalarBuffer::from(vec![0u128; rows]);
                Arc::new(StringViewArray::new(views, vec![], None))
            }
            kind => new_null_array(&kind.engine(), rows),
        }
    }
}

static SHAPES: LazyLock<HashMap<&'static str, &'static Shape>> = LazyLock::new(|| {
    (TABLES.iter())
        .map(|table| (table.name.as_str(), &*Box::leak(Box::new(Shape::new(table)))))
        .collect()
});

/// The shape of a table. `GraphAPIAuditEvents` is a second published name of `GraphApiAuditEvents`.
pub fn shape(table: &str) -> Option<&'static Shape> {
    let table = match table {
        "GraphAPIAuditEvents" => "GraphApiAuditEvents",
        other => other,
    };
    SHAPES.get(table).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_catalogue_has_a_shape() {
        for table in TABLES.iter() {
            let shape = shape(&table.name).expect("shape");
            assert_eq!(shape.stored.fields().len(), table.columns.len() + 1, "{}", table.name);
            assert_eq!(shape.column(INGESTION_TIME), Some(table.columns.len()));
        }
        let second_name = shape("GraphAPIAuditEvents").expect("second name");
        assert_eq!(second_name.name, "GraphApiAuditEvents");
    }
}
