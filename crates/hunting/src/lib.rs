//! The event lake and the query engine: the only crate that names DataFusion.

mod aggregates;
mod database;
mod engine;
mod error;
mod expressions;
mod external;
mod functions;
mod geo;
pub mod lake;
mod lower;
mod operators;
mod result;
mod row_wise;
mod session;
mod sketches;

pub use database::{Database, SavedFunctions};
pub use engine::{Engine, EngineConfig, Limits, Stage};
pub use error::{Limit, QueryError};
pub use external::ExternalSources;
pub use result::{QueryResult, ResultTable};
