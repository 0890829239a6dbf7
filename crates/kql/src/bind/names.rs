//! Default names of columns (SEMANTICS of Kusto: six rules and a counter).

use super::{Binder, Env};
use crate::aggregates;
use crate::functions::{self, Naming};
use crate::plan::Column;
use crate::syntax::{Expr, ExprKind};
use crate::types::Value;

/// Names of an operator's results, as they are given out.
#[derive(Default)]
pub struct Names {
    taken: Vec<String>,
    unnamed: usize,
}

impl Names {
    /// `wanted`, with the first free number behind it where it is taken; without a wish `Column1` ….
    pub fn give(&mut self, wanted: Option<&str>) -> String {
        let name = match wanted {
            Some(name) => self.free(name),
            None => loop {
                self.unnamed += 1;
                let name = format!("Column{}", self.unnamed);
                if !self.taken.contains(&name) {
                    break name;
                }
            },
        };
        self.taken.push(name.clone());
        name
    }

    fn free(&self, name: &str) -> String {
        if !self.taken.iter().any(|taken| taken == name) {
            return name.to_owned();
        }
        let numbered = (1..).map(|number| format!("{name}{number}"));
        numbered.into_iter().find(|name| !self.taken.contains(name)).unwrap_or_default()
    }

    /// Names that exist already.
    pub fn taken(columns: &[Column]) -> Names {
        Names { taken: columns.iter().map(|column| column.name.clone()).collect(), unnamed: 0 }
    }
}

impl Binder<'_> {
    /// The name that an unnamed expression gives its column, if any.
    pub(super) fn default_name(&self, expr: &Expr, env: &Env) -> Option<String> {
        match &expr.kind {
            ExprKind::Name(name) => Some(name.clone()),
            ExprKind::Named { names, .. } => names.first().map(|name| name.text.clone()),
            ExprKind::Member { base, name } => {
                // `$left.x` is x.
                match base.name() {
                    Some("$left" | "$right") => Some(name.text.clone()),
                    _ => Some(format!("{}_{}", self.default_name(base, env)?, name.text)),
                }
            }
            ExprKind::Index { base, index } => {
                let base = self.default_name(base, env)?;
                match &index.kind {
                    ExprKind::Literal(Value::String(key)) => Some(format!("{base}_{key}")),
                    ExprKind::Literal(Value::Long(number)) if *number >= 0 => {
                        Some(format!("{base}_{number}"))
                    }
                    _ => None,
                }
            }
            ExprKind::Call { function, arguments } => {
                self.call_name(&function.text, arguments, env)
            }
            _ => None,
        }
    }

    fn call_name(&self, function: &str, arguments: &[Expr], env: &Env) -> Option<String> {
        let first = || arguments.first().and_then(|first| self.default_name(first, env));
        let aggregate = aggregates::find(function);
        if let Some("percentile" | "percentiles" | "percentilew" | "percentilesw") =
            aggregate.map(|aggregate| aggregate.name)
        {
            let weighted = function.contains('w');
            let percentile = arguments.get(if weighted { 2 } else { 1 }).map(number_text)??;
            return Some(format!("percentile_{}_{percentile}", first()?));
        }
        if matches!(aggregate.map(|a| a.name), Some("arg_max" | "arg_min" | "take_any")) {
            return first();
        }
        if function.starts_with("covariance") {
            let second = arguments.get(1).and_then(|a| self.default_name(a, env));
            let (first, second) = (first().unwrap_or_default(), second.unwrap_or_default());
            return Some(format!("{function}_{first}_{second}"));
        }
        let naming = match aggregate {
            Some(aggregate) => aggregate.naming,
            None => functions::find(function)?.naming,
        };
        match naming {
            Naming::None => None,
            Naming::First => first(),
            Naming::Only => first().filter(|_| arguments.len() == 1),
            Naming::Prefixed(prefix) => Some(format!("{prefix}_{}", first().unwrap_or_default())),
            Naming::Fixed(name) => Some(name.to_owned()),
            Naming::ColumnNamed => match &arguments.first()?.kind {
                ExprKind::Literal(Value::String(name)) => Some(name.to_string()),
                _ => None,
            },
        }
    }
}

/// A number as part of a name: `99.9` → `99_9`.
fn number_text(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Literal(Value::Long(number)) => Some(number.to_string()),
        ExprKind::Literal(Value::Real(number)) => Some(format!("{number}").replace('.', "_")),
        _ => None,
    }
}
