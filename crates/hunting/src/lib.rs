//! The event lake and the query engine: the only crate that names DataFusion.

pub mod lake;
