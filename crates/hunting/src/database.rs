//! What a query runs on.

use crate::error::QueryError;
use crate::lake::Lake;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;
use vigie_contract::tables::{TABLES, Table};
use vigie_kql::plan::Column;
use vigie_kql::schema;
use vigie_kql::types::Type;

/// The hunting tables and where their rows are.
#[derive(Clone)]
pub enum Database {
    /// A tenant's rows in the lake.
    Lake { lake: Lake, tenant: Uuid },
    /// Every hunting table, without a row.
    Empty,
    /// The two sample tables that Kusto's documentation reads, without a row.
    Samples,
    /// Hunting tables, and functions that somebody keeps beside them.
    Extended { tables: Box<Database>, functions: SavedFunctions },
}

/// Saved functions beside the hunting tables. Cheap to clone.
#[derive(Clone)]
pub struct SavedFunctions(Arc<schema::Database>);

impl SavedFunctions {
    /// Functions by name, parameters and query, the last two as [`vigie_kql::saved::text`] takes them.
    pub fn new<'f>(functions: impl IntoIterator<Item = (&'f str, &'f str, &'f str)>) -> Self {
        let mut database = HUNTING.clone();
        for (name, parameters, query) in functions {
            database.add_function(name, &vigie_kql::saved::text(parameters, query));
        }
        SavedFunctions(Arc::new(database))
    }

    /// Whether a further function is right; its query may call these.
    ///
    /// Errors: those of [`vigie_kql::saved::check`].
    pub fn check(&self, name: &str, parameters: &str, query: &str) -> Result<(), QueryError> {
        let checked = vigie_kql::saved::check(name, parameters, query, &self.0);
        checked.map_err(QueryError::Rejected)
    }
}

/// The hunting tables as the binder sees them.
static HUNTING: LazyLock<schema::Database> = LazyLock::new(|| {
    let mut database = schema::Database::new("hunting");
    for table in TABLES.iter() {
        database.add_table(table.name.as_str(), columns(table));
        // A second published spelling of the name.
        if table.name == "GraphApiAuditEvents" {
            database.add_table("GraphAPIAuditEvents", columns(table));
        }
    }
    for (name, text) in LIBRARY {
        database.add_function(*name, text);
    }
    database
});

/// Names and types of the columns of Kusto's sample tables.
const SAMPLES: &[(&str, &str)] = &[
    (
        "StormEvents",
        "StartTime:datetime EndTime:datetime EpisodeId:int EventId:int State:string \
         EventType:string InjuriesDirect:int InjuriesIndirect:int DeathsDirect:int \
         DeathsIndirect:int DamageProperty:int DamageCrops:int Source:string BeginLocation:string \
         EndLocation:string BeginLat:real BeginLon:real EndLat:real EndLon:real \
         EpisodeNarrative:string EventNarrative:string StormSummary:dynamic",
    ),
    ("PopulationData", "State:string Population:long"),
];

static SAMPLE_TABLES: LazyLock<schema::Database> = LazyLock::new(|| {
    let mut database = schema::Database::new("docs");
    for (name, columns) in SAMPLES {
        let columns = columns.split_whitespace().filter_map(|column| {
            let (name, ty) = column.split_once(':')?;
            Some(Column { name: name.to_owned(), ty: Type::parse(ty)? })
        });
        database.add_table(*name, columns.collect());
    }
    database
});

/// Advanced hunting's own functions, written in the language itself.
const LIBRARY: &[(&str, &str)] = &[
    ("AssignedIPAddresses", include_str!("../library/AssignedIPAddresses.kql")),
    ("DeviceFromIP", include_str!("../library/DeviceFromIP.kql")),
    ("FileProfile", include_str!("../library/FileProfile.kql")),
    ("SeenBy", include_str!("../library/SeenBy.kql")),
];

pub(crate) fn columns(table: &Table) -> Vec<Column> {
    let column = |column: &vigie_contract::tables::Column| Column {
        name: column.name.clone(),
        ty: Type::parse(&column.ty).unwrap_or(Type::Dynamic),
    };
    table.columns.iter().map(column).collect()
}

impl Database {
    /// The same tables, and functions.
    pub fn with(self, functions: SavedFunctions) -> Database {
        Database::Extended { tables: Box::new(self), functions }
    }

    pub(crate) fn schema(&self) -> &schema::Database {
        match self {
            Database::Extended { functions, .. } => &functions.0,
            Database::Samples => &SAMPLE_TABLES,
            Database::Lake { .. } | Database::Empty => &HUNTING,
        }
    }

    /// Whether a table has no rows at present.
    pub(crate) fn is_vacant(&self, name: &str) -> bool {
        match self {
            Database::Lake { lake, tenant } => lake.is_vacant(*tenant, name),
            Database::Empty | Database::Samples => true,
            Database::Extended { tables, .. } => tables.is_vacant(name),
        }
    }

    pub(crate) fn provider(&self, name: &str) -> Result<Arc<dyn TableProvider>, QueryError> {
        let unknown = || QueryError::Internal(format!("the engine has no table {name}"));
        match self {
            Database::Lake { lake, tenant } => lake.table(*tenant, name).ok_or_else(unknown),
            Database::Extended { tables, .. } => tables.provider(name),
            Database::Empty | Database::Samples => {
                let columns = self.schema().table(name).ok_or_else(unknown)?;
                let fields = columns.iter().map(|column| {
                    let ty = crate::functions::arrow_type(column.ty);
                    arrow::datatypes::Field::new(&column.name, ty, true)
                });
                let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
                Ok(Arc::new(MemTable::try_new(schema, vec![vec![]])?))
            }
        }
    }
}
