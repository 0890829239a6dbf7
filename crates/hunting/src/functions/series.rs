//! `series_*`: arithmetic, filling, filters, statistics and fits over arrays of numbers.

use super::dynamic::read;
use super::{Call, Cell, RowFunction};
use serde_json::{Map, Value, json};
use vigie_kql::types::Type;

/// Numbers with gaps.
pub(super) type Gaps = Vec<Option<f64>>;

pub fn find(name: &str) -> Option<RowFunction> {
    macro_rules! each {
        ($work:expr) => {
            |_, cells| each(cells, $work)
        };
    }
    macro_rules! pairs {
        ($work:expr) => {
            |call, cells| pairs(call, cells, $work)
        };
    }
    Some(match name {
        "series_abs" => |_, cells| each_kept(cells, f64::abs),
        "series_ceiling" => |_, cells| each_kept(cells, f64::ceil),
        "series_floor" => |_, cells| each_kept(cells, f64::floor),
        "series_sign" => |_, cells| each_kept(cells, sign),
        "series_acos" => each!(f64::acos),
        "series_asin" => each!(f64::asin),
        "series_atan" => each!(f64::atan),
        "series_cos" => each!(f64::cos),
        "series_exp" => each!(f64::exp),
        "series_log" => each!(f64::ln),
        "series_sin" => each!(f64::sin),
        "series_tan" => each!(f64::tan),
        "series_add" => pairs!(|a, b, whole| number(a + b, whole)),
        "series_subtract" => pairs!(|a, b, whole| number(a - b, whole)),
        "series_multiply" => pairs!(|a, b, whole| number(a * b, whole)),
        "series_divide" => pairs!(|a, b, _| number(a / b, false)),
        "series_pow" => pairs!(|a, b, _| number(a.powf(b), false)),
        "series_equals" => pairs!(|a, b, _| (a == b).into()),
        "series_not_equals" => pairs!(|a, b, _| (a != b).into()),
        "series_greater" => pairs!(|a, b, _| (a > b).into()),
        "series_greater_equals" => pairs!(|a, b, _| (a >= b).into()),
        "series_less" => pairs!(|a, b, _| (a < b).into()),
        "series_less_equals" => pairs!(|a, b, _| (a <= b).into()),
        "series_sum" => |_, cells| Cell::from_real(all(&cells[0]).map(|all| all.iter().sum())),
        "series_product" => {
            |_, cells| Cell::from_real(all(&cells[0]).map(|all| all.iter().product()))
        }
        "series_magnitude" => |_, cells| Cell::from_real(all(&cells[0]).map(|a| magnitude(&a))),
        "series_dot_product" => |call, cells| {
            let (a, b) = (operand(call, cells, 0), operand(call, cells, 1));
            let product = a.zip(b).and_then(|(a, b)| {
                let count = a.len().max(b.len());
                (0..count).map(|at| Some(a.at(at)? * b.at(at)?)).sum::<Option<f64>>()
            });
            Cell::from_real(product)
        },
        "series_cosine_similarity" => |_, cells| {
            let found = all(&cells[0]).zip(all(&cells[1])).filter(|(a, b)| a.len() == b.len());
            let given = |at: usize| cells.get(at).and_then(Cell::as_real);
            Cell::from_real(found.map(|(a, b)| {
                let product: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
                let a = given(2).unwrap_or_else(|| magnitude(&a));
                product / (a * given(3).unwrap_or_else(|| magnitude(&b)))
            }))
        },
        "series_pearson_correlation" => |_, cells| {
            let found = all(&cells[0]).zip(all(&cells[1])).filter(|(a, b)| a.len() == b.len());
            Cell::from_real(found.map(|(a, b)| pearson(&a, &b)))
        },
        "series_fill_const" => |call, cells| {
            let constant = cells.get(1).map_or(json!(0), |cell| json_number(call, 1, cell));
            filled(call, cells, 2, |values, missing| {
                let fill = |(value, missing): (&Value, &bool)| match missing {
                    true => constant.clone(),
                    false => value.clone(),
                };
                values.iter().zip(missing).map(fill).collect()
            })
        },
        "series_fill_forward" => |call, cells| {
            filled(call, cells, 1, |values, missing| {
                let mut last = Value::Null;
                let fill = |(value, missing): (&Value, &bool)| {
                    if !missing {
                        last = value.clone();
                    }
                    if *missing && last.is_null() { value.clone() } else { last.clone() }
                };
                values.iter().zip(missing).map(fill).collect()
            })
        },
        "series_fill_backward" => |call, cells| {
            filled(call, cells, 1, |values, missing| {
                let mut next = Value::Null;
                let fill = |(value, missing): (&Value, &bool)| {
                    if !missing {
                        next = value.clone();
                    }
                    if *missing && next.is_null() { value.clone() } else { next.clone() }
                };
                let mut made: Vec<Value> = values.iter().zip(missing).rev().map(fill).collect();
                made.reverse();
                made
            })
        },
        "series_fill_linear" => fill_linear,
        "series_fir" => fir,
        "series_iir" => iir,
        "series_stats" => |_, cells| match statistics(cells) {
            Some(found) => {
                Cell::text(Value::from(found.map(|(_, value)| value).to_vec()).to_string())
            }
            None => Cell::Null,
        },
        "series_stats_dynamic" => |_, cells| match statistics(cells) {
            Some(found) => {
                let bag = found.into_iter().map(|(name, value)| (name.to_owned(), value));
                Cell::text(Value::Object(bag.collect::<Map<_, _>>()).to_string())
            }
            None => Cell::Null,
        },
        "series_fit_line" => |_, cells| match all(&cells[0]).map(|y| Line::fit(0, &y)) {
            Some(line) => Cell::text(Value::from(line.results().map(|r| r.1).to_vec()).to_string()),
            None => Cell::Null,
        },
        "series_fit_line_dynamic" => |_, cells| match all(&cells[0]).map(|y| Line::fit(0, &y)) {
            Some(line) => bag(&line.results()),
            None => Cell::Null,
        },
        "series_fit_2lines" => |_, cells| match two_lines(cells) {
            Some(found) => Cell::text(
                Value::from(found.into_iter().map(|r| r.1).collect::<Vec<_>>()).to_string(),
            ),
            None => Cell::Null,
        },
        "series_fit_2lines_dynamic" => |_, cells| match two_lines(cells) {
            Some(found) => {
                let (sides, whole): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|(name, _)| name.contains("t_"));
                let mut made: Map<String, Value> =
                    whole.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                for (name, value) in sides {
                    match name.split_once('_') {
                        Some((side @ ("left" | "right"), name)) => {
                            let part = made.entry(side).or_insert_with(|| json!({}));
                            part[name] = value;
                        }
                        _ => {
                            made.insert(name.to_owned(), value);
                        }
                    }
                }
                Cell::text(Value::Object(made).to_string())
            }
            None => Cell::Null,
        },
        "series_fit_poly" => fit_poly,
        _ => return None,
    })
}

fn bag<'a>(results: &[(&'static str, Value)]) -> Cell<'a> {
    let bag: Map<_, _> =
        results.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Cell::text(Value::Object(bag).to_string())
}

fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// A number of an array: whole ones stay whole where the inputs were.
pub(super) fn number(value: f64, whole: bool) -> Value {
    match whole && value.fract() == 0.0 {
        true => json!(value as i64),
        false => json!(value),
    }
}

/// The elements of an array of numbers; `None` where it is no array.
pub(super) fn gaps(cell: &Cell<'_>) -> Option<Gaps> {
    match read(cell)? {
        Value::Array(values) => Some(values.iter().map(Value::as_f64).collect()),
        _ => None,
    }
}

/// The elements, where every one is a number and there is one.
pub(super) fn all(cell: &Cell<'_>) -> Option<Vec<f64>> {
    gaps(cell)?.into_iter().collect::<Option<Vec<f64>>>().filter(|all| !all.is_empty())
}

fn each<'a>(cells: &[Cell<'a>], work: fn(f64) -> f64) -> Cell<'a> {
    let made = gaps(&cells[0]).map(|values| {
        let made = values.into_iter().map(|value| value.map_or(Value::Null, |v| json!(work(v))));
        Value::Array(made.collect()).to_string()
    });
    Cell::from_text(made)
}

/// As [`each`], an array of whole numbers giving one of whole numbers.
fn each_kept<'a>(cells: &[Cell<'a>], work: fn(f64) -> f64) -> Cell<'a> {
    let Some(Value::Array(values)) = read(&cells[0]) else { return Cell::Null };
    let whole = values.iter().all(|value| value.is_i64() || value.is_null());
    let made =
        values.iter().map(|value| value.as_f64().map_or(Value::Null, |v| number(work(v), whole)));
    Cell::text(Value::Array(made.collect()).to_string())
}

/// An array, or one number for every place.
enum Operand {
    Series(Gaps, bool),
    One(f64, bool),
}

impl Operand {
    fn at(&self, at: usize) -> Option<f64> {
        match self {
            Operand::Series(values, _) => values.get(at).copied().flatten(),
            Operand::One(value, _) => Some(*value),
        }
    }

    fn len(&self) -> usize {
        match self {
            Operand::Series(values, _) => values.len(),
            Operand::One(..) => 0,
        }
    }

    fn whole(&self) -> bool {
        match self {
            Operand::Series(_, whole) | Operand::One(_, whole) => *whole,
        }
    }
}

fn operand(call: &Call, cells: &[Cell<'_>], at: usize) -> Option<Operand> {
    if call.arguments[at] != Type::Dynamic {
        let whole = matches!(call.arguments[at], Type::Int | Type::Long);
        return Some(Operand::One(cells[at].as_real()?, whole));
    }
    match read(&cells[at])? {
        Value::Array(values) => {
            let whole = values.iter().all(|value| value.is_i64() || value.is_null());
            Some(Operand::Series(values.iter().map(Value::as_f64).collect(), whole))
        }
        other => Some(Operand::One(other.as_f64()?, other.is_i64())),
    }
}

/// Element by element; null where one side has none.
fn pairs<'a>(call: &Call, cells: &[Cell<'a>], work: fn(f64, f64, bool) -> Value) -> Cell<'a> {
    let (Some(a), Some(b)) = (operand(call, cells, 0), operand(call, cells, 1)) else {
        return Cell::Null;
    };
    let whole = a.whole() && b.whole();
    let made = (0..a.len().max(b.len())).map(|at| match (a.at(at), b.at(at)) {
        (Some(a), Some(b)) => work(a, b, whole),
        _ => Value::Null,
    });
    Cell::text(Value::Array(made.collect()).to_string())
}

fn magnitude(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| of(x - mean_a, y - mean_b)).sum()
    };
    sum(&|x, y| x * y) / (sum(&|x, _| x * x).sqrt() * sum(&|_, y| y * y).sqrt())
}

fn json_number(call: &Call, at: usize, cell: &Cell<'_>) -> Value {
    match call.arguments[at] {
        Type::Dynamic => read(cell).unwrap_or_default(),
        Type::Int | Type::Long => cell.as_long().map_or(Value::Null, Value::from),
        _ => cell.as_real().map_or(Value::Null, Value::from),
    }
}

/// Calls `fill` with the elements and which of them are missing: null, or the placeholder that
/// argument `at` gives.
fn filled<'a>(
    call: &Call,
    cells: &[Cell<'a>],
    at: usize,
    fill: impl Fn(&[Value], &[bool]) -> Vec<Value>,
) -> Cell<'a> {
    let Some(Value::Array(values)) = read(&cells[0]) else { return Cell::Null };
    let placeholder = cells.get(at).and_then(|cell| json_number(call, at, cell).as_f64());
    let missing: Vec<bool> = values
        .iter()
        .map(|value| match placeholder {
            Some(placeholder) => value.as_f64() == Some(placeholder),
            None => value.is_null(),
        })
        .collect();
    Cell::text(Value::Array(fill(&values, &missing)).to_string())
}

fn fill_linear<'a>(call: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let edges = cells.get(2).is_none_or(|cell| *cell != Cell::Bool(false));
    let constant = cells.get(3).map(|cell| json_number(call, 3, cell));
    filled(call, cells, 1, |values, missing| {
        let known: Vec<usize> = (0..values.len()).filter(|at| !missing[*at]).collect();
        let whole = known.iter().all(|at| values[*at].is_i64());
        let (Some(first), Some(last)) = (known.first(), known.last()) else {
            return vec![constant.clone().unwrap_or(json!(0.0)); values.len()];
        };
        let value = |at: usize| values[at].as_f64().unwrap_or_default();
        let made = (0..values.len()).map(|at| {
            if !missing[at] {
                return values[at].clone();
            }
            if at < *first || at > *last {
                let nearest = if at < *first { first } else { last };
                return if edges { values[*nearest].clone() } else { values[at].clone() };
            }
            let after = known.partition_point(|known| *known < at);
            let (left, right) = (known[after - 1], known[after]);
            let slope = (value(right) - value(left)) / (right - left) as f64;
            let made = value(left) + slope * (at - left) as f64;
            if whole { json!(made as i64) } else { json!(made) }
        });
        made.collect()
    })
}

fn fir<'a>(_: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let (Some(series), Some(filter)) = (gaps(&cells[0]), all(&cells[1])) else { return Cell::Null };
    // A filter whose sum is zero (a difference) is not normalized by itself.
    let sum: f64 = filter.iter().sum();
    let normalize = match cells.get(2) {
        Some(normalize) => *normalize == Cell::Bool(true),
        None => filter.iter().all(|weight| *weight >= 0.0) && sum != 0.0,
    };
    let scale = if normalize && sum != 0.0 { sum } else { 1.0 };
    let centered = cells.get(3).is_some_and(|cell| *cell == Cell::Bool(true));
    let ahead = if centered { filter.len() / 2 } else { 0 };
    let made = (0..series.len()).map(|at| {
        let sum: f64 = (filter.iter().enumerate())
            .filter_map(|(back, weight)| {
                let from = (at + ahead).checked_sub(back)?;
                Some(weight * series.get(from).copied().flatten().unwrap_or(0.0))
            })
            .sum();
        json!(sum / scale)
    });
    Cell::text(Value::Array(made.collect()).to_string())
}

fn iir<'a>(_: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let (Some(x), Some(b), Some(a)) = (gaps(&cells[0]), all(&cells[1]), all(&cells[2])) else {
        return Cell::Null;
    };
    if a[0] == 0.0 {
        return Cell::Null;
    }
    let mut y: Vec<f64> = Vec::with_capacity(x.len());
    for at in 0..x.len() {
        let forward = b
            .iter()
            .enumerate()
            .filter_map(|(back, weight)| Some(weight * x[at.checked_sub(back)?].unwrap_or(0.0)));
        let feedback = a
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(back, weight)| Some(weight * y[at.checked_sub(back)?]));
        let next = (forward.sum::<f64>() - feedback.sum::<f64>()) / a[0];
        y.push(next);
    }
    Cell::text(Value::from(y).to_string())
}

fn statistics(cells: &[Cell<'_>]) -> Option<[(&'static str, Value); 7]> {
    let ignore = cells.get(1).is_some_and(|cell| *cell == Cell::Bool(true));
    let values = gaps(&cells[0])?;
    if !ignore && values.iter().any(Option::is_none) {
        return Some(NAMES_OF_STATISTICS.map(|name| (name, Value::Null)));
    }
    let known: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).collect();
    let min = known.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a })?;
    let max = known.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let numbers: Vec<f64> = known.iter().map(|(_, value)| *value).collect();
    let variance = variance(&numbers);
    let found = [
        json!(min.1),
        json!(min.0),
        json!(max.1),
        json!(max.0),
        json!(mean(&numbers)),
        json!(variance.sqrt()),
        json!(variance),
    ];
    let mut found = found.into_iter();
    Some(NAMES_OF_STATISTICS.map(|name| (name, found.next().unwrap_or_default())))
}

const NAMES_OF_STATISTICS: [&str; 7] =
    ["min", "min_idx", "max", "max_idx", "avg", "stdev", "variance"];

/// Of a sample.
pub(super) fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

/// A regression line over the places of a part of a series.
pub(super) struct Line {
    rsquare: f64,
    pub slope: f64,
    variance: f64,
    rvariance: f64,
    /// At place 0 of the whole series.
    pub interception: f64,
    fit: Vec<f64>,
}

impl Line {
    /// `y` begins at place `from`.
    pub fn fit(from: usize, y: &[f64]) -> Line {
        let x: Vec<f64> = (0..y.len()).map(|at| (from + at) as f64).collect();
        let (mean_x, mean_y) = (mean(&x), mean(y));
        let across: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let along: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
        let slope = if along == 0.0 { 0.0 } else { across / along };
        let interception = mean_y - slope * mean_x;
        let fit: Vec<f64> = x.iter().map(|x| interception + slope * x).collect();
        let rest: Vec<f64> = y.iter().zip(&fit).map(|(y, fit)| y - fit).collect();
        let (whole, left) = (variance(y), variance(&rest));
        let rsquare = if whole == 0.0 { 1.0 } else { 1.0 - left / whole };
        Line { rsquare, slope, variance: whole, rvariance: left, interception, fit }
    }

    fn results(&self) -> [(&'static str, Value); 6] {
        [
            ("rsquare", json!(self.rsquare)),
            ("slope", json!(self.slope)),
            ("variance", json!(self.variance)),
            ("rvariance", json!(self.rvariance)),
            ("interception", json!(self.interception)),
            ("line_fit", json!(self.fit)),
        ]
    }
}

/// Two lines whose meeting place leaves the least variance.
fn two_lines(cells: &[Cell<'_>]) -> Option<Vec<(&'static str, Value)>> {
    let y = all(&cells[0]).filter(|y| y.len() >= 2)?;
    let whole = variance(&y);
    let tried = (1..y.len()).map(|split| {
        let (left, right) = (Line::fit(0, &y[..split]), Line::fit(split, &y[split..]));
        let fit: Vec<f64> = left.fit.iter().chain(&right.fit).copied().collect();
        let rest: Vec<f64> = y.iter().zip(&fit).map(|(y, fit)| y - fit).collect();
        (variance(&rest), split, left, right, fit)
    });
    let (rest, split, left, right, fit) = tried.reduce(|a, b| if b.0 < a.0 { b } else { a })?;
    Some(vec![
        ("rsquare", json!(if whole == 0.0 { 1.0 } else { 1.0 - rest / whole })),
        ("split_idx", json!(split)),
        ("variance", json!(whole)),
        ("rvariance", json!(rest)),
        ("line_fit", json!(fit)),
        ("right_rsquare", json!(right.rsquare)),
        ("right_slope", json!(right.slope)),
        ("right_interception", json!(right.interception)),
        ("right_variance", json!(right.variance)),
        ("right_rvariance", json!(right.rvariance)),
        ("left_rsquare", json!(left.rsquare)),
        ("left_slope", json!(left.slope)),
        ("left_interception", json!(left.interception)),
        ("left_variance", json!(left.variance)),
        ("left_rvariance", json!(left.rvariance)),
    ])
}

/// Least squares by the normal equations, over places scaled to -1 … 1.
fn fit_poly<'a>(call: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let Some(y) = all(&cells[0]) else { return Cell::Null };
    let (mut x, mut degree) = (None, 5);
    for (at, cell) in cells.iter().enumerate().skip(1) {
        match call.arguments[at] {
            Type::Dynamic => x = all(cell).or(x),
            _ => degree = cell.as_long().unwrap_or(5),
        }
    }
    let x = x.unwrap_or_else(|| (0..y.len()).map(|at| at as f64).collect());
    let degree = usize::try_from(degree).unwrap_or(0).min(y.len().saturating_sub(1));
    if x.len() != y.len() || degree > 20 {
        return Cell::Null;
    }
    let low = x.iter().copied().fold(f64::INFINITY, f64::min);
    let high = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (middle, half) = ((low + high) / 2.0, ((high - low) / 2.0).max(f64::MIN_POSITIVE));
    let scaled: Vec<f64> = x.iter().map(|x| (x - middle) / half).collect();
    let size = degree + 1;
    let mut rows = vec![vec![0.0; size + 1]; size];
    for (x, y) in scaled.iter().zip(&y) {
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().take(size).enumerate() {
                *cell += x.powi((i + j) as i32);
            }
            row[size] += y * x.powi(i as i32);
        }
    }
    let Some(scaled) = solve(rows) else { return Cell::Null };
    // p((x - m) / h) written out in powers of x.
    let mut plain = vec![0.0; size];
    for coefficient in scaled.iter().rev() {
        let mut next = vec![0.0; size];
        for (power, value) in plain.iter().enumerate() {
            next[power] -= value * middle / half;
            if power + 1 < size {
                next[power + 1] += value / half;
            }
        }
        next[0] += coefficient;
        plain = next;
    }
    let value = |x: f64| plain.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient);
    let fit: Vec<f64> = x.iter().map(|x| value(*x)).collect();
    let rest: Vec<f64> = y.iter().zip(&fit).map(|(y, fit)| y - fit).collect();
    let (whole, left) = (variance(&y), variance(&rest));
    plain.reverse();
    let rsquare = if whole == 0.0 { 1.0 } else { 1.0 - left / whole };
    Cell::text(json!([rsquare, plain, whole, left, fit]).to_string())
}

/// Gauss with pivots; each row has its right side last.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = rows.len();
    for at in 0..size {
        let pivot = (at..size).max_by(|a, b| rows[*a][at].abs().total_cmp(&rows[*b][at].abs()))?;
        if rows[pivot][at].abs() < 1e-12 {
            return None;
        }
        rows.swap(at, pivot);
        let top = rows[at].clone();
        for row in rows.iter_mut().skip(at + 1) {
            let factor = row[at] / top[at];
            row.iter_mut().zip(&top).for_each(|(value, top)| *value -= factor * top);
        }
    }
    let mut found = vec![0.0; size];
    for at in (0..size).rev() {
        let known: f64 = (at + 1..size).map(|j| rows[at][j] * found[j]).sum();
        found[at] = (rows[at][size] - known) / rows[at][at];
    }
    Some(found)
}
