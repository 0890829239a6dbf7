//! `summarize`: keys and aggregates.

use super::columns::projected;
use super::{Planner, coalesce, filled, hidden};
use crate::aggregates::{self, Kind};
use crate::error::QueryError;
use crate::expressions::{column_name, typed, unsupported};
use crate::functions::{self, arrow_type};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::core::expr_fn::nullif;
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{
    Expr as Df, ExprFunctionExt as _, LogicalPlan, LogicalPlanBuilder, cast, ident, lit,
};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use vigie_kql::plan::{Aggregate, Expr, ExprKind};
use vigie_kql::types::{Type, Value};

impl Planner<'_> {
    pub(super) fn summarize(
        &self,
        input: LogicalPlan,
        keys: &[Expr],
        aggregates: &[Aggregate],
    ) -> Result<LogicalPlan, QueryError> {
        let schema = input.schema().clone();
        let kept = hidden(&input);
        // A key's name must not be that of another column below: DataFusion 55 pushes filters on
        // keys, such as the bounds that a join found, through an aggregate by name alone.
        let summary = self.summaries.fetch_add(1, Ordering::Relaxed);
        let key_name = |at: usize| format!("k{summary}_{at}");
        let mut groups = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let value = typed(self.expressions().expr(key)?, key.ty, &schema)?;
            groups.push(value.alias(key_name(at)));
        }
        for (at, name) in kept.iter().enumerate() {
            groups.push(ident(name).alias(key_name(keys.len() + at)));
        }
        let mut calls = Vec::new();
        // What each result column is made of, over keys and raw aggregates.
        let mut finals: Vec<Df> = (0..keys.len()).map(|at| ident(key_name(at))).collect();
        for aggregate in aggregates {
            self.aggregate(aggregate, &mut calls, &mut finals)?;
        }
        let calls = distinct(calls, &mut finals)?;
        let grouped = match calls.is_empty() {
            true => LogicalPlanBuilder::from(input).project(groups)?.distinct()?.build()?,
            false => LogicalPlanBuilder::from(input).aggregate(groups, calls)?.build()?,
        };
        let mut named: Vec<Df> = (finals.into_iter().enumerate())
            .map(|(at, value)| value.alias(column_name(at)))
            .collect();
        let kept = kept.iter().enumerate();
        named.extend(kept.map(|(at, name)| ident(key_name(keys.len() + at)).alias(name)));
        projected(grouped, named)
    }

    /// Appends the calls that an aggregate needs, and its results over them.
    fn aggregate(
        &self,
        aggregate: &Aggregate,
        calls: &mut Vec<Df>,
        finals: &mut Vec<Df>,
    ) -> Result<(), QueryError> {
        let name = aggregate.function;
        let ty = aggregate.columns.first().map_or(Type::Dynamic, |column| column.ty);
        let arguments = aggregate.arguments.iter().map(|a| self.expressions().expr(a));
        let mut arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Type> = aggregate.arguments.iter().map(|a| a.ty).collect();
        // `sumif(x, p)` is `sum(x)` over the rows where p holds; the condition stands second, but
        // alone in `countif`.
        let (base, condition) = match name {
            "countif" => ("count", Some(arguments.remove(0))),
            "covarianceif" | "covariancepif" => {
                (name.trim_end_matches("if"), Some(arguments.remove(2)))
            }
            _ if name.ends_with("if") && !matches!(name, "countif") => {
                (name.trim_end_matches("if").trim_end_matches('_'), Some(arguments.remove(1)))
            }
            _ => (name, None),
        };
        // DataFusion's builder would forget a call's DISTINCT.
        let filtered = |mut call: Df| {
            if let (Df::AggregateFunction(function), Some(condition)) = (&mut call, &condition) {
                function.params.filter = Some(Box::new(condition.clone()));
            }
            call
        };
        let next = |calls: &Vec<Df>| ident(format!("a{}", calls.len()));
        let limit = |at: usize| -> usize {
            match aggregate.arguments.get(at).map(|a| &a.kind) {
                Some(ExprKind::Literal(Value::Long(limit))) => usize::try_from(*limit).unwrap_or(0),
                _ => 1_048_576,
            }
        };
        let json = |value: Df, ty: Type| match ty {
            Type::Dynamic => value,
            ty => functions::cast(ty, Type::Dynamic).call(vec![value]),
        };
        let limit_at = if condition.is_some() { 2 } else { 1 };
        match base {
            "count" => {
                finals.push(next(calls));
                calls.push(filtered(agg::count(lit(1i64))));
            }
            "dcount" | "count_distinct" => {
                finals.push(next(calls));
                let value = arguments.remove(0);
                let types = [arrow_type(types[0])];
                let function = aggregates::function(Kind::Distinct, &types, DataType::Int64);
                calls.push(filtered(function.call(vec![value])));
            }
            "sum" => {
                let value = cast(arguments.remove(0), arrow_type(ty));
                let zero =
                    if ty == Type::Real { lit(0.0f64) } else { cast(lit(0i64), arrow_type(ty)) };
                finals.push(coalesce(next(calls), zero));
                calls.push(filtered(agg::sum(value)));
            }
            "avg" => {
                let value = cast(arguments.remove(0), DataType::Float64);
                let average = coalesce(next(calls), lit(f64::NAN));
                finals.push(match ty {
                    Type::Real => average,
                    ty => cast(next(calls), arrow_type(ty)),
                });
                calls.push(filtered(agg::avg(value)));
            }
            "min" | "max" => {
                let value = arguments.remove(0);
                finals.push(filled(next(calls), ty));
                calls.push(filtered(match base {
                    "min" => agg::min(value),
                    _ => agg::max(value),
                }));
            }
            // Of one column, a value that is there goes before one that is not.
            "take_any" if aggregate.columns.len() == 1 => {
                let value = arguments.remove(0);
                let value = match types[0] {
                    Type::String => nullif(value, lit(ScalarValue::Utf8View(Some(String::new())))),
                    _ => value,
                };
                finals.push(filled(next(calls), ty));
                let first = agg::first_value(value, vec![]);
                let first = first.null_treatment(NullTreatment::IgnoreNulls);
                calls.push(match condition.clone() {
                    Some(condition) => first.filter(condition).build()?,
                    None => first.build()?,
                });
            }
            "take_any" => {
                for (value, column) in arguments.into_iter().zip(&aggregate.columns) {
                    finals.push(filled(next(calls), column.ty));
                    calls.push(filtered(agg::first_value(value, vec![])));
                }
            }
            "stdev" | "stdevp" | "variance" | "variancep" => {
                let value = cast(arguments.remove(0), DataType::Float64);
                finals.push(coalesce(next(calls), lit(0.0f64)));
                calls.push(filtered(match base {
                    "stdev" => agg::stddev(value),
                    "stdevp" => agg::stddev_pop(value),
                    "variance" => agg::var_sample(value),
                    _ => agg::var_pop(value),
                }));
            }
            "make_list" | "make_set" | "make_bag" => {
                let value = json(arguments.remove(0), types[0]);
                let limit = limit(limit_at);
                let kind = match base {
                    "make_list" => Kind::List { limit },
                    "make_set" => Kind::Set { limit },
                    _ => Kind::Bag { limit },
                };
                let function =
                    aggregates::function(kind, &[DataType::Utf8View], DataType::Utf8View);
                let empty = if base == "make_bag" { "{}" } else { "[]" };
                finals.push(coalesce(
                    next(calls),
                    lit(ScalarValue::Utf8View(Some(empty.to_owned()))),
                ));
                calls.push(filtered(function.call(vec![value])));
            }
            "arg_max" | "arg_min" => {
                let kinds: Vec<DataType> = types.iter().map(|ty| arrow_type(*ty)).collect();
                let result = DataType::Struct(aggregates::row_fields(&kinds).into());
                let kind = Kind::Extreme { greatest: base == "arg_max" };
                let row = next(calls);
                for (at, column) in aggregate.columns.iter().enumerate() {
                    let field = datafusion::functions::core::expr_fn::get_field(
                        row.clone(),
                        format!("f{at}"),
                    );
                    finals.push(filled(field, column.ty));
                }
                calls.push(aggregates::function(kind, &kinds, result).call(arguments));
            }
            "percentile" | "percentiles" | "percentilew" | "percentilesw" | "percentiles_array"
            | "percentilesw_array" => {
                let fixed = if base.contains('w') { 2 } else { 1 };
                let result = match types[0] {
                    Type::Int => Type::Long,
                    Type::Dynamic => Type::Real,
                    ty => ty,
                };
                let ty = if result == Type::Decimal { Type::Real } else { result };
                let mut values = vec![as_type(arguments[0].clone(), types[0], ty)];
                let mut kinds = vec![arrow_type(ty)];
                if fixed == 2 {
                    values.push(as_type(arguments[1].clone(), types[1], Type::Long));
                    kinds.push(DataType::Int64);
                }
                let mut found = Vec::new();
                for rank in self.percentiles(&aggregate.arguments[fixed..])? {
                    let kind = Kind::Percentile { rank: (rank * 1e6).round() as u64 };
                    found.push(as_type(next(calls), ty, result));
                    let function = aggregates::function(kind, &kinds, arrow_type(ty));
                    calls.push(function.call(values.clone()));
                }
                if !base.ends_with("_array") {
                    finals.extend(found);
                } else {
                    let arguments = vec![result; found.len()];
                    let pack = functions::scalar("pack_array", &arguments, Type::Dynamic);
                    let pack = pack.ok_or_else(|| unsupported("function 'pack_array'"))?;
                    finals.push(pack.call(found));
                }
            }
            "make_list_with_nulls" => {
                let value = json(arguments.remove(0), types[0]);
                let value = coalesce(value, lit(ScalarValue::Utf8View(Some("null".to_owned()))));
                let kind = Kind::List { limit: 1_048_576 };
                let function =
                    aggregates::function(kind, &[DataType::Utf8View], DataType::Utf8View);
                let empty = lit(ScalarValue::Utf8View(Some("[]".to_owned())));
                finals.push(coalesce(next(calls), empty));
                calls.push(filtered(function.call(vec![value])));
            }
            "binary_all_and" | "binary_all_or" | "binary_all_xor" => {
                let value = as_type(arguments.remove(0), types[0], Type::Long);
                finals.push(as_type(next(calls), Type::Long, ty));
                calls.push(filtered(match base {
                    "binary_all_and" => agg::bit_and(value),
                    "binary_all_or" => agg::bit_or(value),
                    _ => agg::bit_xor(value),
                }));
            }
            "covariance" | "covariancep" => {
                let mut values = arguments.drain(..2).map(|value| cast(value, DataType::Float64));
                let (x, y) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
                finals.push(coalesce(next(calls), lit(0.0f64)));
                calls.push(filtered(match base {
                    "covariance" => agg::covar_samp(x, y),
                    _ => agg::covar_pop(x, y),
                }));
            }
            "hll" | "hll_merge" | "tdigest" | "tdigest_merge" | "buildschema" => {
                let accuracy = match aggregate.arguments.last().map(|a| &a.kind) {
                    Some(ExprKind::Literal(Value::Long(accuracy))) if types.len() > 1 => {
                        usize::try_from(*accuracy).unwrap_or(1)
                    }
                    _ => 1,
                };
                let merging = base.ends_with("merge");
                let kind = match base {
                    "buildschema" => Kind::Schema,
                    "hll" | "hll_merge" => Kind::Hll { accuracy, merging },
                    _ => Kind::Digest { whole: types[0] != Type::Real, merging },
                };
                let weighted = base == "tdigest" && arguments.len() > 1;
                arguments.truncate(if weighted { 2 } else { 1 });
                let types: Vec<DataType> =
                    types.iter().take(arguments.len()).map(|ty| arrow_type(*ty)).collect();
                finals.push(next(calls));
                let function = aggregates::function(kind, &types, DataType::Utf8View);
                calls.push(filtered(function.call(arguments)));
            }
            other => return Err(unsupported(&format!("aggregate '{other}'"))),
        }
        Ok(())
    }

    /// Constant percentiles: numbers, or one array of them.
    fn percentiles(&self, arguments: &[Expr]) -> Result<Vec<f64>, QueryError> {
        let wrong = || QueryError::Runtime("a percentile must be a constant number".to_owned());
        let mut found = Vec::new();
        for argument in arguments {
            match self.constant(argument)? {
                ScalarValue::Int64(Some(rank)) => found.push(rank as f64),
                ScalarValue::Int32(Some(rank)) => found.push(rank.into()),
                ScalarValue::Float64(Some(rank)) => found.push(rank),
                ScalarValue::Utf8View(Some(array)) if argument.ty == Type::Dynamic => {
                    found.extend(serde_json::from_str::<Vec<f64>>(&array).map_err(|_| wrong())?);
                }
                _ => return Err(wrong()),
            }
        }
        match found.iter().all(|rank| (0.0..=100.0).contains(rank)) {
            true => Ok(found),
            false => Err(wrong()),
        }
    }
}

/// A value in another type; null where it cannot be one.
fn as_type(value: Df, from: Type, to: Type) -> Df {
    if from == to { value } else { functions::cast(from, to).call(vec![value]) }
}

/// The calls as `a0`, `a1` …, one of several that are the same: DataFusion 55 gives two equal
/// aggregates with a computed argument one name, and then refuses the plan. `finals` read what is
/// left.
fn distinct(calls: Vec<Df>, finals: &mut [Df]) -> Result<Vec<Df>, QueryError> {
    let mut left: Vec<(usize, Df)> = Vec::new();
    let mut names: HashMap<String, String> = HashMap::new();
    for (at, call) in calls.into_iter().enumerate() {
        let same = left.iter().find(|(_, known)| *known == call && !call.is_volatile());
        match same {
            Some((first, _)) => {
                names.insert(format!("a{at}"), format!("a{first}"));
            }
            None => left.push((at, call)),
        }
    }
    for value in finals {
        let renamed = value.clone().transform(|part| match &part {
            Df::Column(column) if names.contains_key(&column.name) => {
                Ok(Transformed::yes(ident(&names[&column.name])))
            }
            _ => Ok(Transformed::no(part)),
        });
        *value = renamed?.data;
    }
    Ok(left.into_iter().map(|(at, call)| call.alias(format!("a{at}"))).collect())
}
