//! Why a query gave no answer.

use vigie_kql::diagnostics::Diagnostic;

#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query, or names what does not exist.
    #[error("{}", .0.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("; "))]
    Rejected(Vec<Diagnostic>),
    /// A limit was reached; the text is the documented one.
    #[error("{}", .0.message())]
    Limit(Limit),
    /// The query failed while it ran.
    #[error("{0}")]
    Runtime(String),
    /// An error of Vigie's own, for the log; callers tell the person no more than that.
    #[error("internal error: {0}")]
    Internal(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Time,
    Size,
    Memory,
}

impl Limit {
    /// The wording of the documentation ("Handle errors in advanced hunting").
    pub fn message(self) -> &'static str {
        match self {
            Limit::Time => "Query exceeded the timeout period.",
            Limit::Size => {
                "Result size limit exceeded. Use \"summarize\" to aggregate results, \"project\" to \
                 drop uninteresting columns, or \"take\" to truncate results."
            }
            Limit::Memory => "Query stopped due to excessive resource consumption.",
        }
    }
}

impl From<datafusion::error::DataFusionError> for QueryError {
    fn from(error: datafusion::error::DataFusionError) -> QueryError {
        use datafusion::error::DataFusionError as E;
        match error.find_root() {
            E::ResourcesExhausted(_) => QueryError::Limit(Limit::Memory),
            E::Execution(message) => QueryError::Runtime(message.clone()),
            E::External(external) => QueryError::Runtime(external.to_string()),
            E::ParquetError(error) => {
                QueryError::Runtime(format!("a file cannot be read: {error}"))
            }
            E::ObjectStore(error) => QueryError::Runtime(format!("a file cannot be read: {error}")),
            other => QueryError::Internal(other.to_string()),
        }
    }
}
