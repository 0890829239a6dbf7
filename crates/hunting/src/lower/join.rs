//! `join` and `lookup`.

use super::columns::projected;
use super::{Planner, filled, hidden};
use crate::error::QueryError;
use crate::expressions::{column_name, typed, unsupported};
use datafusion::common::{Column as DfColumn, JoinType, NullEquality};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr as Df, LogicalPlan, LogicalPlanBuilder, ident, lit};
use vigie_kql::plan::{Column, Expr, JoinKind};

impl Planner<'_> {
    /// `output` are places of the result with the column of both sides that comes there; sides may
    /// lack what is not read.
    pub(super) fn join(
        &self,
        kind: JoinKind,
        (left, lefts): (LogicalPlan, &[Column]),
        (right, rights): (LogicalPlan, &[Column]),
        on: &[(Expr, Expr)],
        output: &[(usize, usize)],
    ) -> Result<LogicalPlan, QueryError> {
        let (left_hidden, right_hidden) = (hidden(&left), hidden(&right));
        // Rows without a match belong to every group of the other side, not to none.
        let grouped_left = left_hidden.iter().any(|name| !right_hidden.contains(name));
        let grouped_right = right_hidden.iter().any(|name| !left_hidden.contains(name));
        if grouped_left && !keeps_left(kind) || grouped_right && !keeps_right(kind) {
            return Err(unsupported("a join of the rows of each group with all of other rows"));
        }
        // Sides with names that differ, keys as columns of their own behind.
        let side =
            |plan: LogicalPlan, width: usize, prefix: &str, keys: Vec<&Expr>, kept: &[String]| {
                let there =
                    |at: &usize| plan.schema().has_column_with_unqualified_name(&column_name(*at));
                let mut exprs: Vec<Df> = (0..width)
                    .filter(there)
                    .map(|at| ident(column_name(at)).alias(format!("{prefix}{at}")))
                    .collect();
                for (at, key) in keys.iter().enumerate() {
                    let value = typed(self.expressions().expr(key)?, key.ty, plan.schema())?;
                    exprs.push(value.alias(format!("{prefix}k{at}")));
                }
                exprs.extend(kept.iter().map(|name| ident(name).alias(format!("{prefix}{name}"))));
                Ok::<_, QueryError>(LogicalPlanBuilder::from(projected(plan, exprs)?))
            };
        let left_keys = on.iter().map(|(l, _)| l).collect();
        let mut left = side(left, lefts.len(), "l", left_keys, &left_hidden)?;
        let right_keys = on.iter().map(|(_, r)| r).collect();
        let right = side(right, rights.len(), "r", right_keys, &right_hidden)?.build()?;
        // Both sides read the same group of rows.
        let both: Vec<&String> =
            left_hidden.iter().filter(|name| right_hidden.contains(name)).collect();
        let keys = |prefix: &str| -> Vec<DfColumn> {
            let keys = (0..on.len()).map(|at| format!("{prefix}k{at}"));
            let both = both.iter().map(|name| format!("{prefix}{name}"));
            keys.chain(both).map(DfColumn::from_name).collect()
        };
        if kind == JoinKind::InnerUnique {
            let by: Vec<Df> = keys("l").into_iter().map(Df::Column).collect();
            let names = left.schema().fields().iter().map(|field| field.name().clone());
            let own = (0..lefts.len()).map(|at| format!("l{at}"));
            let names: std::collections::HashSet<String> = names.collect();
            let all: Vec<Df> = own
                .filter(|name| names.contains(name))
                .map(ident)
                .chain(by.iter().cloned())
                .chain(left_hidden.iter().map(|name| ident(format!("l{name}"))))
                .collect();
            left = left.distinct_on(by, all, None)?;
        }
        let join_type = match kind {
            JoinKind::InnerUnique | JoinKind::Inner => JoinType::Inner,
            JoinKind::LeftOuter => JoinType::Left,
            JoinKind::RightOuter => JoinType::Right,
            JoinKind::FullOuter => JoinType::Full,
            JoinKind::LeftSemi => JoinType::LeftSemi,
            JoinKind::LeftAnti => JoinType::LeftAnti,
            JoinKind::RightSemi => JoinType::RightSemi,
            JoinKind::RightAnti => JoinType::RightAnti,
        };
        let equality = NullEquality::NullEqualsNull;
        let joined =
            left.join_detailed(right, join_type, (keys("l"), keys("r")), None, equality)?;
        // A side without a match has nulls, where Kusto's strings are "".
        let fill_left = matches!(kind, JoinKind::RightOuter | JoinKind::FullOuter);
        let fill_right = matches!(kind, JoinKind::LeftOuter | JoinKind::FullOuter);
        let exprs = output.iter().map(|(at, from)| {
            let (name, ty, fill) = match from.checked_sub(lefts.len()) {
                None => (format!("l{from}"), lefts[*from].ty, fill_left),
                Some(right) => (format!("r{right}"), rights[right].ty, fill_right),
            };
            let value = if fill { filled(ident(name), ty) } else { ident(name) };
            value.alias(column_name(*at))
        });
        let mut exprs: Vec<Df> = exprs.collect();
        let lefts_only = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let rights_only = matches!(kind, JoinKind::RightSemi | JoinKind::RightAnti);
        for name in &left_hidden {
            if kind == JoinKind::FullOuter && both.contains(&name) {
                let sides = vec![ident(format!("l{name}")), ident(format!("r{name}"))];
                exprs.push(coalesce(sides).alias(name));
            } else if !(rights_only || kind == JoinKind::RightOuter && both.contains(&name)) {
                exprs.push(ident(format!("l{name}")).alias(name));
            }
        }
        for name in &right_hidden {
            let given = exprs.iter().any(|e| e.schema_name().to_string() == *name);
            if !lefts_only && !given {
                exprs.push(ident(format!("r{name}")).alias(name));
            }
        }
        if exprs.is_empty() {
            // Rows without a column would lose their number.
            exprs.push(lit(true).alias("u"));
        }
        projected(joined.build()?, exprs)
    }
}

/// Whether all rows of the result hold one of the left side.
fn keeps_left(kind: JoinKind) -> bool {
    use JoinKind::{FullOuter, RightAnti, RightOuter, RightSemi};
    !matches!(kind, RightOuter | FullOuter | RightSemi | RightAnti)
}

/// Whether all rows of the result hold one of the right side.
fn keeps_right(kind: JoinKind) -> bool {
    use JoinKind::{FullOuter, LeftAnti, LeftOuter, LeftSemi};
    !matches!(kind, LeftOuter | FullOuter | LeftSemi | LeftAnti)
}
