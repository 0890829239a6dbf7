//! OData 4.0 query options over SQL, for the documented properties of an entity: `$filter`,
//! `$orderby`, `$top`, `$skip`, `$count`, `$select`, `$expand`, `…/$count` and pages that follow
//! each other by `@odata.nextLink`.

mod condition;
mod counts;
mod memory;
mod options;
mod page;
mod skip_token;
mod syntax;
mod token;

pub use condition::time;
pub use counts::Counted;
pub use memory::List;
pub use options::Query;

/// How a property is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    /// Kept in lower case, compared without regard to it.
    Guid,
    Integer,
    /// 0 or 1.
    Flag,
    /// Microseconds since the Unix epoch.
    Time,
    /// A collection: `any` and `all` run over it.
    Many(&'static Elements),
}

/// A JSON array of texts.
pub const TEXTS: Type = Type::Many(&Elements::Texts);

/// What a collection property holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Elements {
    /// The property's SQL is a column with a JSON array of texts.
    Texts,
    /// Rows of another table whose column `key` equals the property's SQL. The SQL of `properties`
    /// is a column of that table.
    Rows { table: &'static str, key: &'static str, properties: &'static [Property] },
}

/// A property that may be filtered and, unless it is a collection, ordered by.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    pub name: &'static str,
    /// SQL that gives it. `{now}` is the time of the request.
    pub sql: &'static str,
    pub ty: Type,
}

/// A collection: where its rows are and what may be asked of them.
pub struct Collection {
    /// Name in `@odata.context`, for example `Machines`.
    pub name: &'static str,
    /// `FROM` and its joins.
    pub from: &'static str,
    /// Columns that the feature reads.
    pub columns: &'static str,
    pub properties: &'static [Property],
    /// Properties that are only shown.
    pub shown: &'static [&'static str],
    /// Properties that `$expand` fills, in lower case.
    pub expandable: &'static [&'static str],
    /// Default order, which is also the last key of any order: columns that are never null, each
    /// with `DESC` or without.
    pub key: &'static str,
    /// Further columns that are never null: databases find their order in an index.
    pub never_null: &'static [&'static str],
    /// Numbers kept beside the rows, so that a page behind many rows is found without a walk over
    /// them.
    pub counted: Option<Counted>,
    pub max_page: u64,
}
