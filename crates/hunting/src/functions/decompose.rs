//! `series_*` that take a series apart: periods, seasons, outliers, anomalies, Fourier transforms.

use super::series::{Line, all, gaps};
use super::{Cell, RowFunction};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use serde_json::{Value, json};
use vigie_kql::types::Type;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "series_fft" => |_, cells| transformed(cells, false),
        "series_ifft" => |_, cells| transformed(cells, true),
        "series_outliers" => |_, cells| {
            let Some(series) = gaps(&cells[0]) else { return Cell::Null };
            let ctukey = cells.get(1).is_none_or(|kind| kind.as_text() != "tukey");
            let ignored = cells.get(2).and_then(Cell::as_real);
            let number =
                |at: usize, default: f64| cells.get(at).and_then(Cell::as_real).unwrap_or(default);
            let (low, high) = if ctukey { (10.0, 90.0) } else { (25.0, 75.0) };
            let range = (number(3, low), number(4, high));
            let learned = learned(series.len(), cells.get(5));
            Cell::text(json!(outliers(&series, ignored, range, learned)).to_string())
        },
        "series_periods_detect" => |_, cells| {
            let Some(series) = all(&cells[0]) else { return Cell::Null };
            let number = |at: usize| cells.get(at).and_then(Cell::as_real).unwrap_or(0.0);
            let most = usize::try_from(cells[3].as_long().unwrap_or(0)).unwrap_or(0);
            let mut found = periods(&series, number(1), number(2));
            found.truncate(most);
            periods_text(&found)
        },
        "series_periods_validate" => |call, cells| {
            let Some(series) = all(&cells[0]) else { return Cell::Null };
            let correlations = correlations(&series);
            let wanted =
                cells.iter().zip(&call.arguments).skip(1).filter_map(|(cell, ty)| {
                    if *ty == Type::Dynamic { None } else { cell.as_real() }
                });
            let found: Vec<(f64, f64)> = wanted
                .map(|period| {
                    let at = period.round().max(0.0) as usize;
                    (period, correlations.get(at).copied().unwrap_or(0.0).max(0.0))
                })
                .collect();
            periods_text(&found)
        },
        "series_seasonal" => |_, cells| {
            let Some(series) = all(&cells[0]) else { return Cell::Null };
            let period = cells.get(1).and_then(Cell::as_long).unwrap_or(-1);
            let learned = learned(series.len(), cells.get(2));
            let period = match usize::try_from(period) {
                Ok(period) => Some(period),
                Err(_) => detected(&series[..learned], 0.6),
            };
            Cell::text(json!(seasonal(&series, period, learned)).to_string())
        },
        "series_decompose" => |_, cells| match all(&cells[0]) {
            Some(series) => Parts::of(&series, cells, [1, 2, 3, 4]).text(&series),
            None => Cell::Null,
        },
        "series_decompose_forecast" => |_, cells| match gaps(&cells[0]) {
            Some(series) => {
                let series: Vec<f64> = series.iter().map(|value| value.unwrap_or(0.0)).collect();
                Parts::of(&series, cells, [2, 3, 1, 4]).text(&series)
            }
            None => Cell::Null,
        },
        "series_decompose_anomalies" => |_, cells| {
            let Some(series) = all(&cells[0]) else { return Cell::Null };
            let threshold = cells.get(1).and_then(Cell::as_real).unwrap_or(1.5);
            let parts = Parts::of(&series, cells, [2, 3, 4, 6]);
            let rest: Vec<Option<f64>> = series
                .iter()
                .zip(parts.baseline())
                .map(|(value, base)| Some(value - base))
                .collect();
            let tukey = cells.get(5).is_some_and(|method| method.as_text() == "tukey");
            let range = if tukey { (25.0, 75.0) } else { (10.0, 90.0) };
            let scores = outliers(&rest, None, range, parts.learned);
            let flags: Vec<i64> = scores
                .iter()
                .map(|score| match score.unwrap_or(0.0) {
                    score if score > threshold => 1,
                    score if score < -threshold => -1,
                    _ => 0,
                })
                .collect();
            let baseline: Vec<f64> = parts.baseline().collect();
            Cell::text(json!([flags, scores, baseline]).to_string())
        },
        _ => return None,
    })
}

/// How many points teach, the last `test_points` being left out.
fn learned(points: usize, test_points: Option<&Cell<'_>>) -> usize {
    let left_out = test_points.and_then(Cell::as_long).unwrap_or(0);
    points.saturating_sub(usize::try_from(left_out).unwrap_or(0)).max(1).min(points)
}

fn transformed<'a>(cells: &[Cell<'a>], inverse: bool) -> Cell<'a> {
    let Some(real) = all(&cells[0]) else { return Cell::Null };
    let imaginary = cells.get(1).and_then(all).unwrap_or_else(|| vec![0.0; real.len()]);
    if imaginary.len() != real.len() {
        return Cell::Null;
    }
    let mut values: Vec<Complex<f64>> =
        real.iter().zip(&imaginary).map(|(re, im)| Complex::new(*re, *im)).collect();
    let mut planner = FftPlanner::new();
    let count = values.len();
    let scale = if inverse { 1.0 / count as f64 } else { 1.0 };
    let work =
        if inverse { planner.plan_fft_inverse(count) } else { planner.plan_fft_forward(count) };
    work.process(&mut values);
    let real: Vec<f64> = values.iter().map(|value| value.re * scale).collect();
    let imaginary: Vec<f64> = values.iter().map(|value| value.im * scale).collect();
    Cell::text(json!([real, imaginary]).to_string())
}

/// A percentile with a straight line between two values.
fn percentile(sorted: &[f64], percentile: f64) -> f64 {
    let place = percentile / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

/// Tukey's fences: how many ranges of the two percentiles a value lies outside of them.
fn outliers(
    series: &[Option<f64>],
    ignored: Option<f64>,
    range: (f64, f64),
    learned: usize,
) -> Vec<Option<f64>> {
    let known = series.iter().take(learned).flatten().copied();
    let mut sorted: Vec<f64> = known.filter(|value| Some(*value) != ignored).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return vec![None; series.len()];
    }
    let (low, high) = (percentile(&sorted, range.0), percentile(&sorted, range.1));
    let width = (high - low).max(f64::MIN_POSITIVE);
    // Fences at 1.5 mean the same for every range: those of 25 and 75 are the measure.
    let normal = |percent: f64| {
        use statrs::distribution::{ContinuousCDF as _, Normal};
        Normal::standard().inverse_cdf(percent / 100.0)
    };
    let reach = |range: (f64, f64)| normal(range.1) - normal(range.0);
    let fence = normal(75.0) + 1.5 * reach((25.0, 75.0));
    let unit = (fence - normal(range.1)).max(0.1) / reach(range) / 1.5;
    let score = |value: f64| match value {
        value if value > high => (value - high) / width / unit,
        value if value < low => (value - low) / width / unit,
        _ => 0.0,
    };
    series.iter().map(|value| value.map(score)).collect()
}

/// The autocorrelation at every lag up to half of the series.
fn correlations(series: &[f64]) -> Vec<f64> {
    let count = series.len();
    let mean = series.iter().sum::<f64>() / count as f64;
    let mut values: Vec<Complex<f64>> =
        series.iter().map(|v| Complex::new(v - mean, 0.0)).collect();
    // Zeros behind keep the end from meeting the beginning.
    values.resize(2 * count, Complex::default());
    let mut planner = FftPlanner::new();
    planner.plan_fft_forward(2 * count).process(&mut values);
    values.iter_mut().for_each(|value| *value = Complex::new(value.norm_sqr(), 0.0));
    planner.plan_fft_inverse(2 * count).process(&mut values);
    let whole = values[0].re.max(f64::MIN_POSITIVE);
    let at = |lag: usize| values[lag].re / whole * count as f64 / (count - lag) as f64;
    (0..=count / 2).filter(|lag| *lag < count).map(at).collect()
}

/// Periods between two lags with their scores, the best first.
fn periods(series: &[f64], least: f64, most: f64) -> Vec<(f64, f64)> {
    let correlations = correlations(series);
    let mut found: Vec<(f64, f64)> = (1..correlations.len().saturating_sub(1))
        .filter(|lag| {
            let here = correlations[*lag];
            here > 0.0 && here > correlations[lag - 1] && here >= correlations[lag + 1]
        })
        .filter(|lag| (least..=most).contains(&(*lag as f64)))
        .map(|lag| (lag as f64, correlations[lag].min(1.0)))
        .collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.total_cmp(&b.0)));
    // A multiple of a period that explains as much is no period of its own.
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (lag, score) in found {
        let multiple = |(base, _): &(f64, f64)| lag > *base && (lag / base).fract() == 0.0;
        if !kept.iter().any(multiple) {
            kept.push((lag, score));
        }
    }
    kept
}

/// The strongest period of a series, where its score reaches the threshold.
fn detected(series: &[f64], threshold: f64) -> Option<usize> {
    let line = Line::fit(0, series);
    let rest: Vec<f64> = (series.iter().enumerate())
        .map(|(at, value)| value - line.interception - line.slope * at as f64)
        .collect();
    let found = periods(&rest, 2.0, (series.len() / 2) as f64);
    found.first().filter(|(_, score)| *score >= threshold).map(|(period, _)| *period as usize)
}

fn periods_text<'a>(found: &[(f64, f64)]) -> Cell<'a> {
    let (periods, scores): (Vec<f64>, Vec<f64>) = found.iter().copied().unzip();
    Cell::text(json!([periods, scores]).to_string())
}

/// The median of each place of the period over the points that teach; zeros without a period.
fn seasonal(series: &[f64], period: Option<usize>, learned: usize) -> Vec<f64> {
    let Some(period) = period.filter(|period| (1..=learned).contains(period)) else {
        return vec![0.0; series.len()];
    };
    let places: Vec<f64> = (0..period)
        .map(|place| {
            let mut values: Vec<f64> =
                series[..learned].iter().skip(place).step_by(period).copied().collect();
            values.sort_by(f64::total_cmp);
            percentile(&values, 50.0)
        })
        .collect();
    (0..series.len()).map(|at| places[at % period]).collect()
}

/// A series as trend and season; what is left over is the caller's.
struct Parts {
    trend: Vec<f64>,
    seasonal: Vec<f64>,
    learned: usize,
}

impl Parts {
    /// `places`: the arguments for the period, the kind of trend, the test points, the threshold.
    fn of(series: &[f64], cells: &[Cell<'_>], places: [usize; 4]) -> Parts {
        let [period, trend, test_points, threshold] = places.map(|at| cells.get(at));
        let learned = learned(series.len(), test_points);
        let teaching = &series[..learned];
        let trend = match trend.map_or("avg", Cell::as_text) {
            "linefit" => {
                let line = Line::fit(0, teaching);
                (0..series.len()).map(|at| line.interception + line.slope * at as f64).collect()
            }
            "none" => vec![0.0; series.len()],
            _ => vec![teaching.iter().sum::<f64>() / learned as f64; series.len()],
        };
        let rest: Vec<f64> =
            series.iter().zip(&trend).map(|(value, trend)| value - trend).collect();
        let threshold = threshold.and_then(Cell::as_real).unwrap_or(0.6);
        let period = match period.and_then(Cell::as_long).unwrap_or(-1) {
            -1 => detected(teaching, threshold),
            period => usize::try_from(period).ok().filter(|period| *period > 0),
        };
        Parts { seasonal: seasonal(&rest, period, learned), trend, learned }
    }

    fn baseline(&self) -> impl Iterator<Item = f64> + '_ {
        self.trend.iter().zip(&self.seasonal).map(|(trend, seasonal)| trend + seasonal)
    }

    fn text<'a>(&self, series: &[f64]) -> Cell<'a> {
        let baseline: Vec<f64> = self.baseline().collect();
        let rest: Vec<f64> =
            series.iter().zip(&baseline).map(|(value, base)| value - base).collect();
        let parts: Value = json!([baseline, self.seasonal, self.trend, rest]);
        Cell::text(parts.to_string())
    }
}
