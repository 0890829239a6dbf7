//! Kusto Query Language: text → tokens → syntax → bound, typed plan.
//!
//! Knows neither Arrow nor Defender, does no input or output, and never panics on any text.

pub mod aggregates;
mod bind;
pub mod diagnostics;
pub mod editor;
pub mod functions;
mod json;
pub mod lexer;
pub mod literals;
pub mod parser;
pub mod plan;
pub mod plan_text;
pub mod reference;
pub mod saved;
pub mod schema;
pub mod syntax;
pub mod types;

pub use bind::{BindOptions, Schemas, bind};
