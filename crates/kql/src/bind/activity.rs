//! Plugins that count users, sessions and sequences over time: written in the language itself.
//!
//! Each is a template in which `{…}` stands for the dimensions that the query gives: `{, d}` for
//! `, d0, d1`, `{d asc,}` for `d0 asc, d1 asc,`, `{, d = dim}` for their definitions, `{differ}` for
//! "another group than the row before".

use super::{Bind, Binder, Binding, Bound, Env, Row, literal};
use crate::diagnostics::{self, Span};
use crate::parser;
use crate::plan::{Column, Expr, Plan};
use crate::syntax::{self, ExprKind as Syntax, Statement};
use crate::types::{Type, Value};

/// A plugin: the parameters before the dimensions, and its template.
struct Template {
    name: &'static str,
    parameters: &'static [&'static str],
    text: &'static str,
}

const TEMPLATES: &[Template] = &[
    Template {
        name: "active_users_count",
        parameters: &[
            "id", "timeline", "start", "end", "lookback", "period", "active_periods", "step",
        ],
        text: "T | project i = id, t = timeline{, d = dim}
            | where t >= start - lookback and t <= end
            | extend p = bin_at(t, period, start), first = bin_at(t, step, start)
            | distinct i, p, first{, d}
            | mv-expand k = range(0, tolong(lookback / step) - 1, 1) to typeof(long)
            | extend b = first + k * step
            | where b >= start and b <= end
            | summarize periods = dcount(p) by i, b{, d}
            | where periods >= active_periods
            | summarize n = count() by b{, d}
            | project {timeline} = b{, dim = d}, dcount = n",
    },
    Template {
        name: "activity_counts_metrics",
        parameters: &["id", "timeline", "start", "end", "step"],
        text: "let rows = T | project i = id, t = timeline{, d = dim} | where t >= start and t <= end
                | extend b = bin_at(t, step, start);
            let first = rows | summarize b = min(b) by i{, d} | summarize fresh = count() by b{, d};
            rows
            | summarize n = count(), u = dcount(i) by b{, d}
            | lookup first on b{, d}
            | extend fresh = coalesce(fresh, 0)
            | sort by {d asc,} b asc
            | extend total = row_cumsum(fresh, {differ})
            | project {timeline} = b{, dim = d}, ['count'] = n, ['dcount'] = u, new_dcount = fresh,
                aggregated_dcount = total",
    },
    Template {
        name: "activity_engagement",
        parameters: &["id", "timeline", "start", "end", "inner", "outer"],
        text: "let rows = T | project i = id, t = timeline{, d = dim} | where t >= start and t <= end
                | distinct i, b = bin_at(t, inner, start){, d};
            let wide = rows
                | mv-expand k = range(0, tolong(outer / inner) - 1, 1) to typeof(long)
                | extend b = b + k * inner
                | where b <= end
                | summarize o = dcount(i) by b{, d};
            rows
            | summarize n = dcount(i) by b{, d}
            | join kind=inner wide on b{, d}
            | project {timeline} = b{, dim = d}, dcount_activities_inner = n,
                dcount_activities_outer = o, activity_ratio = todouble(n) / o",
    },
    Template {
        name: "activity_metrics",
        parameters: &["id", "timeline", "start", "end", "window"],
        text: "let pairs = T | project i = id, t = timeline{, d = dim} | where t >= start and t <= end
                | distinct i, b = bin_at(t, window, start){, d};
            let sizes = pairs | summarize n = count() by b{, d};
            let fresh = pairs | summarize b = min(b) by i{, d} | summarize f = count() by b{, d};
            let kept = pairs | extend b = b + window | join kind=inner pairs on i, b{, d}
                | summarize k = count() by b{, d};
            let before = sizes | extend b = b + window | project-rename m = n;
            sizes
            | lookup fresh on b{, d}
            | lookup kept on b{, d}
            | lookup before on b{, d}
            | extend rate = iff(isnull(m), 1.0, todouble(coalesce(k, 0)) / m)
            | project {timeline} = b{, dim = d}, dcount_values = n,
                dcount_newvalues = coalesce(f, 0), retention_rate = rate, churn_rate = 1.0 - rate",
    },
    Template {
        name: "new_activity_metrics",
        parameters: &["id", "timeline", "start", "end", "window"],
        text: "let pairs = T | project i = id, t = timeline{, d = dim} | where t >= start and t <= end
                | distinct i, b = bin_at(t, window, start){, d};
            let firsts = pairs | summarize f = min(b) by i{, d} | where {cohort};
            let sizes = firsts | summarize n = count() by f{, d};
            let bins = range b from start to end step window | extend one = 1;
            let kept = pairs | join kind=inner firsts on i{, d} | summarize k = count() by f, b{, d};
            sizes
            | extend one = 1
            | join kind=inner bins on one
            | where b >= f
            | lookup kept on f, b{, d}
            | extend k = coalesce(k, 0)
            | sort by {d asc,} f asc, b asc
            | project {from_timeline} = f, {to_timeline} = b{, dim = d}, dcount_new_values = n,
                dcount_retained_values = k, dcount_churn_values = n - k,
                retention_rate = todouble(k) / n, churn_rate = 1.0 - todouble(k) / n",
    },
    Template {
        name: "rolling_percentile",
        parameters: &["value", "rank", "timeline", "size", "bins"],
        text: "let rows = T | project v = value, b = bin(timeline, size){, d = dim};
            let last = toscalar(rows | summarize max(b));
            rows
            | mv-expand k = range(0, bins - 1, 1) to typeof(long)
            | extend b = b + k * size
            | where b <= last
            | summarize p = percentile(v, rank) by b{, d}
            | project {timeline} = b{, dim = d}, {rolling} = p",
    },
    Template {
        name: "session_count",
        parameters: &["id", "timeline", "start", "end", "step", "lookback"],
        text: "T | project i = id, t = timeline{, d = dim} | where t >= start and t <= end
            | distinct i, b = bin_at(t, step, start){, d}
            | sort by i asc, {d asc,} b asc
            | where i != prev(i) or {differ} or b - prev(b) > lookback
            | summarize n = count() by b{, d}
            | project {timeline} = b{, dim = d}, count_sessions = n",
    },
    Template {
        name: "sliding_window_counts",
        parameters: &["id", "timeline", "start", "end", "lookback", "step"],
        text: "T | project i = id, t = timeline{, d = dim} | where t >= start - lookback and t <= end
            | extend b = bin_at(t, step, start)
            | mv-expand k = range(0, tolong(lookback / step) - 1, 1) to typeof(long)
            | extend b = b + k * step
            | where b >= start and b <= end
            | summarize n = count(), u = dcount(i) by b{, d}
            | project {timeline} = b{, dim = d}, ['count'] = n, ['dcount'] = u",
    },
    Template {
        name: "schema_merge",
        parameters: &[],
        text: "T | serialize r = row_number()
            | summarize arg_min(r, DataType, ColumnType) by ColumnName
            | sort by r asc
            | project ColumnName, ColumnOrdinal = row_number(0), DataType, ColumnType",
    },
];

/// The plugins of this module.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|template| template.name).chain(["sequence_detect"])
}

impl Binder<'_> {
    /// A plugin that is written in the language; `None` where `name` is another.
    pub(super) fn activity(
        &mut self,
        name: &str,
        input: &Plan,
        arguments: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Option<Plan>> {
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        if name == "sequence_detect" {
            return self.sequence_detect(input, arguments, span, &row, env).map(Some);
        }
        let Some(template) = TEMPLATES.iter().find(|template| template.name == name) else {
            return Ok(None);
        };
        let count = template.parameters.len();
        if arguments.len() < count {
            let message = format!("{name}: {count} arguments or more are expected");
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        let mut inner = Env::default().with("T", Binding::Table(input.clone()));
        let (given, mut dimensions) = arguments.split_at(count);
        let mut timeline = (String::new(), Type::DateTime);
        let mut rolling = (String::new(), String::new(), String::new());
        for (parameter, written) in template.parameters.iter().zip(given) {
            let bound = self.scalar(written, &row, env)?;
            let written_name = self.default_name(written, env).unwrap_or_default();
            match *parameter {
                "timeline" => timeline = (written_name, bound.ty),
                "value" => rolling.0 = written_name,
                "rank" => rolling.1 = number_text(&bound),
                "bins" => rolling.2 = number_text(&bound),
                _ => {}
            }
            inner = inner.with(parameter, Binding::Scalar(bound));
        }
        // One cohort may stand before the dimensions: a constant of the timeline's type.
        let mut cohort = "true";
        if name == "new_activity_metrics"
            && let Some((first, rest)) = dimensions.split_first()
        {
            let known = self.diagnostics.len();
            match self.scalar(first, &Row::none("evaluate"), env) {
                Ok(bound) if bound.ty == timeline.1 => {
                    inner = inner.with("cohort", Binding::Scalar(bound));
                    cohort = "f == cohort";
                    dimensions = rest;
                }
                _ => self.diagnostics.truncate(known),
            }
        }
        let mut names = Vec::new();
        for (at, written) in dimensions.iter().enumerate() {
            let bound = self.scalar(written, &row, env)?;
            names.push(self.default_name(written, env).unwrap_or_else(|| format!("Column{at}")));
            inner = inner.with(&format!("dim{at}"), Binding::Scalar(bound));
        }
        let rolling = format!("rolling_{}_percentile_{}_{}", rolling.2, rolling.0, rolling.1);
        let text = filled(template.text, &names)
            .replace("{cohort}", cohort)
            .replace("{rolling}", &quoted(&rolling))
            .replace("{timeline}", &quoted(&timeline.0))
            .replace("{from_timeline}", &quoted(&format!("from_{}", timeline.0)))
            .replace("{to_timeline}", &quoted(&format!("to_{}", timeline.0)));
        self.template(&text, inner, span).map(Some)
    }

    /// Steps in order within each group of the dimensions, by `scan`.
    fn sequence_detect(
        &mut self,
        input: &Plan,
        arguments: &[syntax::Expr],
        span: Span,
        row: &Row,
        env: &Env,
    ) -> Bind<Plan> {
        let [timeline, step, whole, rest @ ..] = arguments else {
            let message = "sequence_detect: a timeline, two windows and steps are expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let mut inner = Env::default().with("T", Binding::Table(input.clone()));
        let time_name = self.default_name(timeline, env).unwrap_or_default();
        for (name, written) in [("timeline", timeline), ("step", step), ("whole", whole)] {
            let bound = self.scalar(written, row, env)?;
            inner = inner.with(name, Binding::Scalar(bound));
        }
        let (mut steps, mut names) = (Vec::new(), Vec::new());
        for written in rest {
            let bound = self.scalar(written, row, env)?;
            match (&written.kind, bound.ty) {
                (Syntax::Named { names: step, .. }, Type::Bool) => {
                    inner = inner.with(&format!("e{}", steps.len()), Binding::Scalar(bound));
                    steps.push(step[0].text.clone());
                }
                _ => {
                    inner = inner.with(&format!("dim{}", names.len()), Binding::Scalar(bound));
                    names.push(self.default_name(written, env).unwrap_or_default());
                }
            }
        }
        if steps.is_empty() {
            let message = "sequence_detect: a step such as 'first = (State == \"x\")' is expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        }
        let places = 0..steps.len();
        let list = |part: &dyn Fn(usize) -> String, by: &str| {
            places.clone().map(part).collect::<Vec<_>>().join(by)
        };
        let last = steps.len() - 1;
        let partition: Vec<String> = (0..names.len()).map(|at| format!("d{at}")).collect();
        let partition = match partition.is_empty() {
            true => String::new(),
            false => format!("partition by {}", partition.join(", ")),
        };
        let step = |at: usize| {
            let output = if at == last { "last" } else { "none" };
            let condition = match at.checked_sub(1) {
                None => "c0".to_owned(),
                Some(before) => format!(
                    "c{at} and t - s{before}.x{before} <= step and t - s{before}.x0 <= whole"
                ),
            };
            let kept: Vec<String> =
                (0..at).map(|earlier| format!("x{earlier} = s{}.x{earlier}", at - 1)).collect();
            let kept = kept.into_iter().chain([format!("x{at} = t")]).collect::<Vec<_>>();
            format!("step s{at} output={output}: {condition} => {};", kept.join(", "))
        };
        let text = format!(
            "T | project t = timeline, {}{{, d = dim}}
            | sort by {{d asc,}} t asc
            | scan {partition} declare({}) with ({})
            | project {}{}, Duration = x{last} - x0",
            list(&|at| format!("c{at} = e{at}"), ", "),
            list(&|at| format!("x{at}:datetime"), ", "),
            list(&step, " "),
            "{dim = d, }",
            list(&|at| format!("{} = x{at}", quoted(&format!("{}_{time_name}", steps[at]))), ", "),
        );
        self.template(&filled(&text, &names), inner, span)
    }

    /// `geo_point…_lookup(table, shape, longitude, latitude, …)`: rows of the table whose shape is
    /// near the point, or around it.
    pub(super) fn geo_lookup(
        &mut self,
        input: &Plan,
        arguments: &[syntax::Expr],
        polygons: bool,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        const NAMES: [&str; 8] = [
            "table",
            "shape",
            "x",
            "y",
            "radius",
            "return_unmatched",
            "lookup_area_radius",
            "return_lookup_key",
        ];
        let (mut position, mut given) = (0, Vec::new());
        for argument in arguments {
            let (name, value) = match &argument.kind {
                Syntax::Named { names, value } => (names[0].text.clone(), &**value),
                _ => {
                    position += 1;
                    (NAMES.get(position - 1).copied().unwrap_or_default().to_owned(), argument)
                }
            };
            given.push((name, value));
        }
        let find = |name: &str| given.iter().find(|(known, _)| known == name).map(|(_, v)| *v);
        let (Some(table), Some(shape), Some(x), Some(y)) =
            (find("table"), find("shape"), find("x"), find("y"))
        else {
            let message = "a lookup table, a shape, a longitude and a latitude are expected";
            return self.fail(diagnostics::ARGUMENTS, span, message);
        };
        let flag = |name: &str| {
            matches!(find(name).map(|v| &v.kind), Some(Syntax::Literal(Value::Bool(true))))
        };
        let (unmatched, key) = (flag("return_unmatched"), flag("return_lookup_key"));
        let table = self.tabular(table, env, None)?;
        let columns = input.columns.clone();
        let row = Row::of(&columns, "evaluate");
        let right = table.columns.clone();
        let shape = self.scalar(shape, &Row::of(&right, "evaluate"), env)?;
        let left_out = match shape.kind {
            crate::plan::ExprKind::Column(at) if !key => Some(at),
            _ => None,
        };
        let mut inner = Env::default()
            .with("T", Binding::Table(input.clone()))
            .with("L", Binding::Table(table))
            .with("shape", Binding::Scalar(shape))
            .with("x", Binding::Scalar(self.scalar(x, &row, env)?))
            .with("y", Binding::Scalar(self.scalar(y, &row, env)?));
        let distance = match polygons {
            true => "geo_distance_point_to_polygon",
            false => "geo_distance_point_to_line",
        };
        let test = match find("radius") {
            Some(radius) => {
                let radius = self.scalar(radius, &Row::none("evaluate"), env)?;
                inner = inner.with("radius", Binding::Scalar(radius));
                format!("{distance}(geo_x, geo_y, geo_shape) <= radius")
            }
            None if polygons => "geo_point_in_polygon(geo_x, geo_y, geo_shape)".to_owned(),
            None => {
                let message = "geo_line_lookup: a radius is expected";
                return self.fail(diagnostics::ARGUMENTS, span, message);
            }
        };
        let mut shown: Vec<String> = columns.iter().map(|c| quoted(&c.name)).collect();
        for (at, c) in right.iter().enumerate().filter(|(at, _)| Some(*at) != left_out) {
            let _ = at;
            let taken = columns.iter().any(|other| other.name == c.name);
            shown.push(quoted(&if taken { format!("{}1", c.name) } else { c.name.clone() }));
        }
        let rest = match unmatched {
            true => ", (left | join kind=leftanti found on geo_row)",
            false => "",
        };
        let text = format!(
            "let left = T | extend geo_x = x, geo_y = y, geo_one = 1 | serialize geo_row = row_number();
            let right = L | extend geo_shape = shape, geo_one = 1;
            let found = left | join kind=inner right on geo_one | where {test};
            union found{rest} | project {}",
            shown.join(", ")
        );
        self.template(&text, inner, span)
    }

    /// Binds a template's text.
    pub(super) fn template(&mut self, text: &str, env: Env, span: Span) -> Bind<Plan> {
        let parsed = parser::parse(text);
        self.nested(span, |binder| {
            let mut env = env;
            let mut result = None;
            let known = binder.diagnostics.len();
            for statement in &parsed.statements {
                if let Statement::Expression(_) | Statement::Let { .. } = statement {
                    result = binder.statement(statement, &mut env).unwrap_or(None).or(result);
                }
            }
            // A fault in here comes from the arguments: their place is the plugin's.
            for diagnostic in &mut binder.diagnostics[known..] {
                diagnostic.span = span;
            }
            match result {
                Some(Bound::Plan(plan)) if binder.diagnostics.len() == known => Ok(plan),
                _ if binder.diagnostics.len() > known => Err(super::Failed),
                _ => binder.fail(diagnostics::ARGUMENTS, span, "the arguments do not fit"),
            }
        })
    }
}

/// A template with its dimensions put in.
fn filled(template: &str, names: &[String]) -> String {
    let list = |part: &dyn Fn(usize, &str) -> String| -> String {
        names.iter().enumerate().map(|(at, name)| part(at, name)).collect()
    };
    let differ = match names.is_empty() {
        true => "false".to_owned(),
        false => {
            let tests = (0..names.len()).map(|at| format!("d{at} != prev(d{at})"));
            format!("({})", tests.collect::<Vec<_>>().join(" or "))
        }
    };
    template
        .replace("{, d = dim}", &list(&|at, _| format!(", d{at} = dim{at}")))
        .replace("{, dim = d}", &list(&|at, name| format!(", {} = d{at}", quoted(name))))
        .replace("{dim = d, }", &list(&|at, name| format!("{} = d{at}, ", quoted(name))))
        .replace("{, d}", &list(&|at, _| format!(", d{at}")))
        .replace("{d asc,}", &list(&|at, _| format!("d{at} asc, ")))
        .replace("{differ}", &differ)
}

/// A column's name as the language writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("['{}']", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn number_text(bound: &Expr) -> String {
    match &bound.kind {
        crate::plan::ExprKind::Literal(Value::Long(number)) => number.to_string(),
        crate::plan::ExprKind::Literal(Value::Real(number)) => number.to_string().replace('.', "_"),
        _ => String::new(),
    }
}

/// `dcount_intersect(h1, h2 …)`: how many values are in the first, in the first two …
pub(super) fn intersections(input: Plan, sketches: Vec<Expr>) -> Plan {
    use crate::plan::{ExprKind, Node};
    let mut names = super::names::Names::taken(&input.columns);
    let mut columns = input.columns.clone();
    let mut items: Vec<Expr> =
        columns.iter().enumerate().map(|(at, c)| super::column(at, c.ty)).collect();
    let found = super::call(Type::Dynamic, "dcount_intersect", sketches.clone());
    for at in 0..sketches.len() {
        let base = Box::new(found.clone());
        let key = Box::new(literal(Value::Long(at as i64)));
        let member = super::expr(Type::Dynamic, ExprKind::Member { base, key });
        items.push(super::cast(member, Type::Long));
        columns.push(Column { name: names.give(Some(&format!("s{at}"))), ty: Type::Long });
    }
    super::plan(columns, Node::Project { input, items })
}
