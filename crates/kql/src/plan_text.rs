//! A plan as an indented tree, for `--show plan` and for tests.

use crate::plan::*;
use crate::types::{TICKS_PER_DAY, TICKS_PER_SECOND, Type, Value};
use std::fmt::{self, Display, Formatter, Write};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.options {
            match value {
                Some(value) => writeln!(f, "set {name} = {value}")?,
                None => writeln!(f, "set {name}")?,
            }
        }
        for plan in &self.statements {
            write!(f, "{plan}")?;
        }
        if let Some(render) = &self.render {
            writeln!(f, "render {}", render.kind)?;
        }
        Ok(())
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null(ty) => write!(f, "{ty}(null)"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "int({value})"),
            Value::Long(value) => write!(f, "{value}"),
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Decimal(value, scale) => write!(f, "decimal({})", decimal_text(*value, *scale)),
            Value::DateTime(ticks) => write!(f, "datetime({})", datetime_text(*ticks)),
            Value::TimeSpan(ticks) => write!(f, "time({})", timespan_text(*ticks)),
            Value::Guid(value) => write!(f, "guid({})", guid_text(*value)),
            Value::String(text) => write!(f, "{text:?}"),
            Value::Dynamic(json) => write!(f, "dynamic({json})"),
        }
    }
}

/// `1.50` for an unscaled 150 with two digits after the point.
pub fn decimal_text(value: i128, scale: u8) -> String {
    let digits = format!("{:0>1$}", value.unsigned_abs(), scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// ISO 8601 with seven digits and `Z`.
pub fn datetime_text(ticks: i64) -> String {
    let days = ticks.div_euclid(TICKS_PER_DAY);
    let rest = ticks.rem_euclid(TICKS_PER_DAY);
    // Civil date from days since 0001-01-01, by 400-year eras that start on 1 March.
    let shifted = days + 306;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = rest / TICKS_PER_SECOND;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:07}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest % TICKS_PER_SECOND
    )
}

/// `[-][d.]hh:mm:ss[.fffffff]`.
pub fn timespan_text(ticks: i64) -> String {
    let sign = if ticks < 0 { "-" } else { "" };
    let ticks = ticks.unsigned_abs();
    let days = ticks / TICKS_PER_DAY as u64;
    let seconds = ticks / TICKS_PER_SECOND as u64 % 86_400;
    let fraction = ticks % TICKS_PER_SECOND as u64;
    let mut out = sign.to_owned();
    if days > 0 {
        let _ = write!(out, "{days}.");
    }
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let _ = write!(out, ".{fraction:07}");
    }
    out
}

/// Lower-case text with dashes.
pub fn guid_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// An expression over named columns.
struct Named<'a>(&'a Expr, &'a [Column]);

impl Display for Named<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Named(expr, columns) = self;
        let sub = |e| Named(e, columns);
        match &expr.kind {
            ExprKind::Literal(value) => write!(f, "{value}"),
            ExprKind::Column(at) => match columns.get(*at) {
                Some(column) => f.write_str(&column.name),
                None => write!(f, "#{at}"),
            },
            ExprKind::Call { function, arguments } => {
                let word = function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                let infix = !word || matches!(*function, "and" | "or" | "has" | "contains");
                if infix && arguments.len() >= 2 && arguments.len() <= 8 {
                    f.write_char('(')?;
                    for (at, argument) in arguments.iter().enumerate() {
                        if at > 0 {
                            write!(f, " {function} ")?;
                        }
                        write!(f, "{}", sub(argument))?;
                    }
                    return f.write_char(')');
                }
                write!(f, "{function}(")?;
                for (at, argument) in arguments.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    if at == 20 {
                        write!(f, "… {} more", arguments.len() - at)?;
                        break;
                    }
                    write!(f, "{}", sub(argument))?;
                }
                f.write_char(')')
            }
            ExprKind::Cast(inner) => write!(f, "{}:{}", sub(inner), expr.ty),
            ExprKind::Member { base, key } => write!(f, "{}[{}]", sub(base), sub(key)),
            ExprKind::ScalarQuery(plan) => {
                write!(f, "toscalar({} column)", plan.columns.len())
            }
            ExprKind::InQuery { operator, value, .. } => {
                write!(f, "({} {operator} (query))", sub(value))
            }
            ExprKind::ScanState { step, column } => write!(f, "step{step}.{column}"),
        }
    }
}

fn list<'a>(items: impl IntoIterator<Item = &'a Expr>, columns: &[Column]) -> String {
    let texts: Vec<_> = items.into_iter().map(|e| Named(e, columns).to_string()).collect();
    texts.join(", ")
}

fn assignments(items: &[Expr], input: &[Column], output: &[Column]) -> String {
    let text = |(item, column): (&Expr, &Column)| {
        let value = Named(item, input).to_string();
        if value == column.name { value } else { format!("{} = {value}", column.name) }
    };
    items.iter().zip(output).map(text).collect::<Vec<_>>().join(", ")
}

fn keys(keys: &[SortKey], columns: &[Column]) -> String {
    let text = |key: &SortKey| {
        let direction = if key.descending { "desc" } else { "asc" };
        let nulls = if key.nulls_first { "first" } else { "last" };
        format!("{} {direction} nulls {nulls}", Named(&key.expr, columns))
    };
    keys.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn aggregate(aggregate: &Aggregate, input: &[Column]) -> String {
    let names: Vec<_> = aggregate.columns.iter().map(|c| c.name.as_str()).collect();
    let arguments = list(&aggregate.arguments, input);
    format!("{} = {}({arguments})", names.join(", "), aggregate.function)
}

fn schema(columns: &[Column]) -> String {
    let text = |c: &Column| format!("{}: {}", c.name, c.ty);
    columns.iter().map(text).collect::<Vec<_>>().join(", ")
}

impl Plan {
    /// The plans that this one reads directly, sub-queries in expressions not among them.
    pub fn inputs(&self) -> Vec<&Plan> {
        match self.node.as_ref() {
            Node::Table { .. }
            | Node::Values { .. }
            | Node::Print { .. }
            | Node::Range { .. }
            | Node::ExternalData { .. }
            | Node::Context
            | Node::GetSchema { .. } => Vec::new(),
            Node::Shared { plan, .. } => vec![plan],
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Serialize { input }
            | Node::Take { input, .. }
            | Node::Sort { input, .. }
            | Node::Top { input, .. }
            | Node::Count { input }
            | Node::Distinct { input }
            | Node::Sample { input, .. }
            | Node::SampleDistinct { input, .. }
            | Node::Summarize { input, .. }
            | Node::MvExpand { input, .. }
            | Node::Parse { input, .. }
            | Node::ParseKv { input, .. }
            | Node::MakeSeries { input, .. }
            | Node::TopNested { input, .. }
            | Node::Reduce { input, .. }
            | Node::Scan { input, .. } => vec![input],
            Node::MvApply { input, plan, .. } | Node::Partition { input, plan, .. } => {
                vec![input, plan]
            }
            Node::Join { left, right, .. } => vec![left, right],
            Node::IpLookup { input, table, .. } => vec![input, table],
            Node::Union { inputs } => inputs.iter().collect(),
            Node::Plugin { input, .. } | Node::Invoke { input, .. } => input.iter().collect(),
            Node::Graph(graph) | Node::GraphNodes { graph, .. } | Node::GraphEdges(graph) => {
                vec![&graph.edges, &graph.nodes]
            }
            Node::GraphMatch(found) => vec![&found.graph.edges, &found.graph.nodes],
            Node::Batch { input, branches } => {
                std::iter::once(input).chain(branches.iter().map(|b| &b.1)).collect()
            }
        }
    }

    /// The inputs whose rows the operator reads in the same context: not the sub-queries of
    /// `mv-apply` and `partition`, which have contexts of their own.
    pub fn sources_mut(&mut self) -> Vec<&mut Plan> {
        match self.node.as_mut() {
            Node::Table { .. }
            | Node::Values { .. }
            | Node::Print { .. }
            | Node::Range { .. }
            | Node::ExternalData { .. }
            | Node::Context
            | Node::Shared { .. }
            | Node::GetSchema { .. } => Vec::new(),
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Serialize { input }
            | Node::Take { input, .. }
            | Node::Sort { input, .. }
            | Node::Top { input, .. }
            | Node::Count { input }
            | Node::Distinct { input }
            | Node::Sample { input, .. }
            | Node::SampleDistinct { input, .. }
            | Node::Summarize { input, .. }
            | Node::MvExpand { input, .. }
            | Node::MvApply { input, .. }
            | Node::Partition { input, .. }
            | Node::Parse { input, .. }
            | Node::ParseKv { input, .. }
            | Node::MakeSeries { input, .. }
            | Node::TopNested { input, .. }
            | Node::Reduce { input, .. }
            | Node::Scan { input, .. }
            | Node::Batch { input, .. } => vec![input],
            Node::Join { left, right, .. } => vec![left, right],
            Node::IpLookup { input, table, .. } => vec![input, table],
            Node::Union { inputs } => inputs.iter_mut().collect(),
            Node::Plugin { input, .. } | Node::Invoke { input, .. } => input.iter_mut().collect(),
            Node::Graph(graph) | Node::GraphNodes { graph, .. } | Node::GraphEdges(graph) => {
                vec![&mut graph.edges, &mut graph.nodes]
            }
            Node::GraphMatch(found) => vec![&mut found.graph.edges, &mut found.graph.nodes],
        }
    }

    fn write(&self, f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
        // A pipeline of thousands of operators must not exhaust the stack.
        if depth > 200 {
            return writeln!(f, "{:depth$}…", "");
        }
        write!(f, "{:1$}", "", depth * 2)?;
        self.write_node(f)?;
        writeln!(f)?;
        self.inputs().into_iter().try_for_each(|input| input.write(f, depth + 1))
    }

    fn write_node(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let input: &[Column] = self.inputs().first().map_or(&[], |plan| &plan.columns);
        let one = |expr| Named(expr, input);
        match self.node.as_ref() {
            Node::Table { name } => write!(f, "table {name}"),
            Node::Values { rows } => {
                write!(f, "values {} rows ({})", rows.len(), schema(&self.columns))
            }
            Node::Print { items } => write!(f, "print {}", assignments(items, &[], &self.columns)),
            Node::Range { from, to, step } => {
                write!(f, "range {} to {} step {}", one(from), one(to), one(step))
            }
            Node::ExternalData { uris, .. } => {
                write!(f, "externaldata {} ({})", list(uris, &[]), schema(&self.columns))
            }
            Node::Context => write!(f, "rows of the enclosing operator"),
            Node::Shared { id, .. } => write!(f, "shared {id}"),
            Node::Filter { predicate, .. } => write!(f, "where {}", one(predicate)),
            Node::Project { items, .. } => {
                write!(f, "project {}", assignments(items, input, &self.columns))
            }
            Node::Serialize { .. } => write!(f, "serialize"),
            Node::Take { count, .. } => write!(f, "take {}", one(count)),
            Node::Sort { keys: by, .. } => write!(f, "sort by {}", keys(by, input)),
            Node::Top { count, keys: by, .. } => {
                write!(f, "top {} by {}", one(count), keys(by, input))
            }
            Node::Count { .. } => write!(f, "count"),
            Node::Distinct { .. } => write!(f, "distinct"),
            Node::Sample { count, .. } => write!(f, "sample {}", one(count)),
            Node::SampleDistinct { count, of, .. } => {
                write!(f, "sample-distinct {} of {}", one(count), one(of))
            }
            Node::Summarize { keys, aggregates, .. } => {
                let aggregates: Vec<_> = aggregates.iter().map(|a| aggregate(a, input)).collect();
                write!(f, "summarize {}", aggregates.join(", "))?;
                if !keys.is_empty() {
                    write!(f, " by {}", assignments(keys, input, &self.columns))?;
                }
                Ok(())
            }
            Node::Join { kind, left, right, on, .. } => {
                let on = on.iter().map(|(l, r)| {
                    format!("{} == {}", Named(l, &left.columns), Named(r, &right.columns))
                });
                write!(f, "join {kind:?} on {}", on.collect::<Vec<_>>().join(", "))
            }
            Node::Union { .. } => write!(f, "union ({})", schema(&self.columns)),
            Node::Plugin { plugin, .. } => {
                write!(f, "evaluate {} ({})", plugin.name(), schema(&self.columns))
            }
            Node::Invoke { function, arguments, .. } => {
                write!(f, "invoke {function}({})", list(arguments, input))
            }
            Node::MvExpand { items, .. } | Node::MvApply { items, .. } => {
                let name =
                    if matches!(*self.node, Node::MvExpand { .. }) { "expand" } else { "apply" };
                write!(f, "mv-{name} {}", list(items.iter().map(|i| &i.expr), input))
            }
            Node::MakeSeries { step, .. } => write!(f, "make-series step {}", one(step)),
            Node::Partition { by, .. } => write!(f, "partition by {}", one(by)),
            other => write!(f, "{} ({})", other.name(), schema(&self.columns)),
        }
    }
}

impl Node {
    /// The operator's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Node::Table { .. } => "table",
            Node::Values { .. } => "datatable",
            Node::Print { .. } => "print",
            Node::Range { .. } => "range",
            Node::ExternalData { .. } => "externaldata",
            Node::Context => "context",
            Node::Shared { .. } => "materialize",
            Node::Filter { .. } => "where",
            Node::Project { .. } => "project",
            Node::Serialize { .. } => "serialize",
            Node::Take { .. } => "take",
            Node::Sort { .. } => "sort",
            Node::Top { .. } => "top",
            Node::Count { .. } => "count",
            Node::Distinct { .. } => "distinct",
            Node::Sample { .. } => "sample",
            Node::SampleDistinct { .. } => "sample-distinct",
            Node::Summarize { .. } => "summarize",
            Node::Join { .. } => "join",
            Node::IpLookup { v6: false, .. } => "ipv4_lookup",
            Node::IpLookup { v6: true, .. } => "ipv6_lookup",
            Node::Union { .. } => "union",
            Node::MvExpand { .. } => "mv-expand",
            Node::MvApply { .. } => "mv-apply",
            Node::Parse { .. } => "parse",
            Node::ParseKv { .. } => "parse-kv",
            Node::MakeSeries { .. } => "make-series",
            Node::TopNested { .. } => "top-nested",
            Node::Reduce { .. } => "reduce",
            Node::Partition { .. } => "partition",
            Node::Scan { .. } => "scan",
            Node::Plugin { .. } => "evaluate",
            Node::GetSchema { .. } => "getschema",
            Node::Graph(_) => "make-graph",
            Node::GraphNodes { .. } => "graph nodes",
            Node::GraphEdges(_) => "graph edges",
            Node::GraphMatch(found) => match found.shortest {
                None => "graph-match",
                Some(_) => "graph-shortest-paths",
            },
            Node::Batch { .. } => "fork",
            Node::Invoke { .. } => "invoke",
        }
    }
}

impl Plugin {
    pub fn name(&self) -> &'static str {
        match self {
            Plugin::BagUnpack { .. } => "bag_unpack",
            Plugin::Pivot { .. } => "pivot",
            Plugin::Narrow => "narrow",
            Plugin::RowsNear { .. } => "rows_near",
            Plugin::Patterns { kind, .. } => match kind {
                PatternKind::Clusters { .. } => "autocluster",
                PatternKind::Frequent { .. } => "basket",
                PatternKind::Differences { .. } => "diffpatterns",
            },
        }
    }
}

/// A value as `tostring` writes it.
pub fn plain_text(value: &Value) -> String {
    match value {
        Value::Null(_) => String::new(),
        Value::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::Real(value) => value.to_string(),
        Value::Decimal(value, scale) => decimal_text(*value, *scale),
        Value::DateTime(ticks) => datetime_text(*ticks),
        Value::TimeSpan(ticks) => timespan_text(*ticks),
        Value::Guid(value) => guid_text(*value),
        Value::String(text) | Value::Dynamic(text) => text.to_string(),
    }
}

/// The value that stands for missing data of a type.
pub fn null_of(ty: Type) -> Value {
    if ty == Type::String { Value::String("".into()) } else { Value::Null(ty) }
}

/// Calls `see` with every column that an expression reads.
pub fn visit(value: &Expr, see: &mut impl FnMut(usize)) {
    match &value.kind {
        ExprKind::Column(at) => see(*at),
        ExprKind::Call { arguments, .. } => arguments.iter().for_each(|a| visit(a, see)),
        ExprKind::Cast(inner) => visit(inner, see),
        ExprKind::Member { base, key } => {
            visit(base, see);
            visit(key, see);
        }
        ExprKind::InQuery { value, .. } => visit(value, see),
        ExprKind::Literal(_) | ExprKind::ScalarQuery(_) | ExprKind::ScanState { .. } => {}
    }
}

/// Whether an expression's value depends on a row.
pub fn reads_columns(value: &Expr) -> bool {
    match &value.kind {
        ExprKind::Column(_) | ExprKind::ScanState { .. } => true,
        ExprKind::Literal(_) | ExprKind::ScalarQuery(_) => false,
        ExprKind::Call { arguments, .. } => arguments.iter().any(reads_columns),
        ExprKind::Cast(inner) => reads_columns(inner),
        ExprKind::Member { base, key } => reads_columns(base) || reads_columns(key),
        ExprKind::InQuery { value, .. } => reads_columns(value),
    }
}

/// Whether a plan has a leaf that the enclosing operator fills.
pub fn has_context(plan: &Plan) -> bool {
    match &*plan.node {
        Node::Context => true,
        // Their sub-queries have contexts of their own.
        Node::MvApply { input, .. } | Node::Partition { input, .. } => has_context(input),
        _ => plan.inputs().into_iter().any(has_context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MAX_DATETIME_TICKS, UNIX_EPOCH_TICKS};

    #[test]
    fn values_print_as_kusto_writes_them() {
        assert_eq!(datetime_text(0), "0001-01-01T00:00:00.0000000Z");
        assert_eq!(datetime_text(UNIX_EPOCH_TICKS), "1970-01-01T00:00:00.0000000Z");
        assert_eq!(datetime_text(MAX_DATETIME_TICKS), "9999-12-31T23:59:59.9999999Z");
        assert_eq!(timespan_text(-(TICKS_PER_DAY + 1)), "-1.00:00:00.0000001");
        assert_eq!(timespan_text(90 * TICKS_PER_SECOND), "00:01:30");
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(guid_text(1), "00000000-0000-0000-0000-000000000001");
    }
}
