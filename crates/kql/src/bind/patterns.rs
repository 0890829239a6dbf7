//! Plugins that look for what many rows have in common (`autocluster`, `basket`, `diffpatterns`), for
//! what stands before and behind a sequence (`funnel_sequence` …), and `preview`.

use super::names::Names;
use super::{Bind, Binder, Binding, Env, Row, cast, literal, null, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax};
use crate::types::{Type, Value};

/// The plugins of this module.
pub const NAMES: &[&str] = &[
    "autocluster",
    "basket",
    "diffpatterns",
    "funnel_sequence",
    "funnel_sequence_completion",
    "preview",
];

/// Least share of rows that `basket` and `diffpatterns` may be asked for.
const LEAST_SHARE: f64 = 0.015;

impl Binder<'_> {
    /// `autocluster([weight of size, weights, seeds, wildcard …])`,
    /// `basket([threshold, weights, dimensions, wildcard …])`,
    /// `diffpatterns(split, a, b [, weights, threshold, dimensions, wildcard …])`; `~` is a default.
    pub(super) fn patterns(
        &mut self,
        name: &str,
        input: Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        let (fixed, rest) =
            arguments.split_at(arguments.len().min(if name == "diffpatterns" { 3 } else { 0 }));
        let (number, weight) = if name == "diffpatterns" { (1, 0) } else { (0, 1) };
        let given = |at: usize| {
            let default = Syntax::Literal(Value::String("~".into()));
            rest.get(at).filter(|written| written.kind != default)
        };
        let mut share = None;
        if let Some(written) = given(number) {
            let value = self.real(written, env)?;
            let least = if name == "autocluster" { 0.0 } else { LEAST_SHARE };
            if !(least..=1.0).contains(&value) {
                let message = format!("{name}: a number from {least} to 1 is expected");
                return self.fail(diagnostics::ARGUMENTS, written.span, message);
            }
            share = Some(value);
        }
        let weight = match given(weight) {
            None => None,
            Some(written) => {
                let bound = self.scalar(written, &row, env)?;
                match bound.kind {
                    ExprKind::Column(at) if bound.ty.is_numeric() => Some(at),
                    _ => {
                        let message = format!("{name}: a column of numbers is expected");
                        return self.fail(diagnostics::ARGUMENTS, written.span, message);
                    }
                }
            }
        };
        let mut count = None;
        if let Some(written) = given(2) {
            match self.constant(written, "evaluate", Type::Long, env)?.kind {
                ExprKind::Literal(Value::Long(number @ 1..)) => count = Some(number as usize),
                _ => {
                    let message = format!("{name}: a whole number above 0 is expected");
                    return self.fail(diagnostics::ARGUMENTS, written.span, message);
                }
            }
        }
        // A wildcard holds for all columns of its type.
        let mut wildcards = Vec::new();
        for written in rest.iter().skip(3) {
            if let ExprKind::Literal(value) =
                self.scalar(written, &Row::none("evaluate"), env)?.kind
                && value != Value::String("~".into())
            {
                wildcards.push(value);
            }
        }
        let mut lead =
            vec![("SegmentId", Type::Long), ("Count", Type::Long), ("Percent", Type::Real)];
        let mut split = None;
        let kind = match name {
            "autocluster" => PatternKind::Clusters {
                size_weight: share.unwrap_or(0.5),
                seeds: count.unwrap_or(25),
            },
            "basket" => PatternKind::Frequent {
                threshold: share.unwrap_or(0.05),
                dimensions: count.unwrap_or(5),
            },
            _ => {
                let [column, a, b] = fixed else {
                    let message = "diffpatterns: a column and two of its values are expected";
                    return self.fail(diagnostics::ARGUMENTS, span, message);
                };
                let ExprKind::Column(column) = self.scalar(column, &row, env)?.kind else {
                    let message = "diffpatterns: a column is expected";
                    return self.fail(diagnostics::ARGUMENTS, column.span, message);
                };
                let mut values = Vec::new();
                for written in [a, b] {
                    match self.constant(written, "evaluate", Type::String, env)?.kind {
                        ExprKind::Literal(value) => {
                            values.push(crate::plan_text::plain_text(&value))
                        }
                        ExprKind::Cast(inner) => match inner.kind {
                            ExprKind::Literal(value) => {
                                values.push(crate::plan_text::plain_text(&value));
                            }
                            _ => {
                                return self
                                    .unsupported(written.span, "a value that is no constant");
                            }
                        },
                        _ => return self.unsupported(written.span, "a value that is no constant"),
                    }
                }
                lead = vec![
                    ("SegmentId", Type::Long),
                    ("CountA", Type::Long),
                    ("CountB", Type::Long),
                    ("PercentA", Type::Real),
                    ("PercentB", Type::Real),
                    ("PercentDiffAB", Type::Real),
                ];
                split = Some(column);
                let values = (values.remove(0), values.remove(0));
                let threshold = share.unwrap_or(0.05);
                let dimensions = count.unwrap_or(columns.len());
                PatternKind::Differences { split: column, values, threshold, dimensions }
            }
        };
        let attributes: Vec<usize> =
            (0..columns.len()).filter(|at| Some(*at) != weight || Some(*at) == split).collect();
        let mut names = Names::default();
        let mut result: Vec<Column> = (lead.into_iter())
            .map(|(name, ty)| Column { name: names.give(Some(name)), ty })
            .collect();
        let mut empty = Vec::new();
        for at in &attributes {
            let Column { name, ty } = &columns[*at];
            result.push(Column { name: names.give(Some(name)), ty: *ty });
            let custom = wildcards.iter().find(|value| value.ty() == *ty);
            empty.push(custom.cloned().unwrap_or_else(|| match null(*ty).kind {
                ExprKind::Literal(value) => value,
                _ => Value::Null(*ty),
            }));
        }
        let plugin = Plugin::Patterns { kind, weight, attributes, wildcards: empty };
        Ok(plan(result, Node::Plugin { input: Some(input), plugin, open: None }))
    }

    fn real(&mut self, written: &syntax::Expr, env: &Env) -> Bind<f64> {
        match self.constant(written, "evaluate", Type::Real, env)?.kind {
            ExprKind::Literal(Value::Real(value)) => Ok(value),
            _ => self.fail(diagnostics::ARGUMENTS, written.span, "a number is expected"),
        }
    }

    /// `preview(n)`: the number of rows, and the first rows.
    pub(super) fn preview(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let [count] = arguments else {
            return self.fail(
                diagnostics::ARGUMENTS,
                span,
                "preview: a number of rows is expected",
            );
        };
        let count = self.constant(count, "evaluate", Type::Long, env)?;
        let columns = input.columns.clone();
        let context = || plan(columns.clone(), Node::Context);
        let total = vec![Column { name: "Count".to_owned(), ty: Type::Long }];
        let total = plan(total, Node::Count { input: context() });
        let first = plan(columns.clone(), Node::Take { input: context(), count });
        // The rows stand last: callers that take one of several results take the last.
        let branches = vec![(String::new(), total), (String::new(), first)];
        Ok(plan(columns, Node::Batch { input, branches }))
    }

    /// `funnel_sequence(id, timeline, start, end, window, step, state, sequence)`: how many have gone
    /// through a sequence of states, each state at most `window` behind the one before, and what
    /// stood before and behind it; by both, by what stood before, by what stood behind.
    pub(super) fn funnel_sequence(
        &mut self,
        input: Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let names = ["id", "timeline", "start", "end", "window", "step", "state", "sequence"];
        let funnel = self.funnel(&names, &input, arguments, span, env)?;
        let last = funnel.states.len() - 1;
        let step = |at: usize| {
            let output = if at == last { "last" } else { "none" };
            match at.checked_sub(1) {
                None => {
                    format!("step s0 output={output}: s == q0 => first = t, at = t, before = p;")
                }
                Some(earlier) => format!(
                    "step s{at} output={output}: s == q{at} and t - s{earlier}.at <= window \
                     => first = s{earlier}.first, at = t, before = s{earlier}.before;"
                ),
            }
        };
        let steps: Vec<String> = (0..=last).map(step).collect();
        let found = format!(
            "T | project i = id, t = timeline, s = tostring(state)
            | where t >= start and t <= end
            | sort by i asc, t asc
            | extend p = iff(isnotnull(prev(t)) and prev(i) == i and t - prev(t) <= window, prev(s), ''),
                x = iff(isnotnull(next(t)) and next(i) == i and next(t) - t <= window, next(s), '')
            | scan partition by i declare(first:{ty}, at:{ty}, before:string) with ({steps})
            | extend b = bin_at(first, step, start)",
            ty = funnel.timeline.1,
            steps = steps.join(" "),
        );
        let mut branches = Vec::new();
        let timeline = super::activity::quoted(&funnel.timeline.0);
        for (keys, given) in [
            ("next = x", "['next']"),
            ("prev = before", "['prev']"),
            ("prev = before, next = x", "['prev'], ['next']"),
        ] {
            let text = format!(
                "{found} | summarize n = dcount(i), samples = make_set(i, 128) by b, {keys}
                | sort by b asc, n desc
                | project {timeline} = b, {given}, ['dcount'] = n, samples"
            );
            branches.push((String::new(), self.template(&text, funnel.env.clone(), span)?));
        }
        // By both stands last: callers that take one of several results take the last.
        let columns = branches[2].1.columns.clone();
        let input = plan(Vec::new(), Node::Values { rows: Vec::new() });
        Ok(plan(columns, Node::Batch { input, branches }))
    }

    /// `funnel_sequence_completion(id, timeline, start, end, step, state, sequence, periods)`: how many
    /// got how far in a sequence of states, within each of the periods.
    pub(super) fn funnel_completion(
        &mut self,
        input: &Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let names = ["id", "timeline", "start", "end", "step", "state", "sequence", "periods"];
        let funnel = self.funnel(&names, input, arguments, span, env)?;
        let step = |at: usize| match at.checked_sub(1) {
            None => "step s0 output=all: s == q0 => first = t, k = 0;".to_owned(),
            Some(earlier) => {
                format!("step s{at} output=all: s == q{at} => first = s{earlier}.first, k = {at};")
            }
        };
        let steps: Vec<String> = (0..funnel.states.len()).map(step).collect();
        let ty = funnel.timeline.1;
        let text = format!(
            "T | project i = id, t = timeline, s = tostring(state)
            | where t >= start and t <= end
            | sort by i asc, t asc
            | scan partition by i declare(first:{ty}, k:long) with ({steps})
            | mv-expand period = periods to typeof({span_type})
            | where t - first <= period
            | summarize n = dcount(i) by b = bin_at(first, step, start), period, k
            | sort by b asc, period asc, k asc
            | project {timeline} = b, {state} = tostring(sequence[k]), Period = period, ['dcount'] = n",
            steps = steps.join(" "),
            span_type = if ty == Type::DateTime { Type::TimeSpan } else { ty },
            timeline = super::activity::quoted(&funnel.timeline.0),
            state = super::activity::quoted(&funnel.state),
        );
        self.template(&text, funnel.env, span)
    }

    fn funnel(
        &mut self,
        names: &[&str],
        input: &Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Funnel> {
        if arguments.len() != names.len() {
            let message = format!("{} arguments are expected: {}", names.len(), names.join(", "));
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        self.shared += 1;
        let node = Node::Shared { id: self.shared, plan: std::sync::Arc::new(input.clone()) };
        let table = plan(columns.clone(), node);
        let mut inner = Env::default().with("T", Binding::Table(table));
        let (mut timeline, mut state) = ((String::new(), Type::DateTime), String::new());
        let mut states = Vec::new();
        for (name, written) in names.iter().zip(arguments) {
            let mut bound = self.scalar(written, &row, env)?;
            let written_name = self.default_name(written, env).unwrap_or_default();
            match (*name, &bound.kind) {
                ("timeline", _) => timeline = (written_name, bound.ty),
                ("state", _) => state = written_name,
                ("sequence", ExprKind::Literal(Value::Dynamic(json))) => {
                    let values = crate::json::elements(json).unwrap_or_default();
                    states = values.iter().map(crate::plan_text::plain_text).collect();
                    bound = cast(bound, Type::Dynamic);
                }
                _ => {}
            }
            inner = inner.with(name, Binding::Scalar(bound));
        }
        if states.is_empty() {
            let message = "the sequence is an array of states, written in the query";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        for (at, state) in states.iter().enumerate() {
            let value = literal(Value::String(state.as_str().into()));
            inner = inner.with(&format!("q{at}"), Binding::Scalar(value));
        }
        Ok(Funnel { env: inner, timeline, state, states })
    }
}

/// What a funnel's template reads.
struct Funnel {
    env: Env,
    /// Name and type.
    timeline: (String, Type),
    /// Name of the column of states.
    state: String,
    states: Vec<String>,
}
