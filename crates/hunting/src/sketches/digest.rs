//! t-digest (Dunning): quantiles of many numbers from a few weighted means.

use super::Sketch;
use crate::functions::Cell;
use serde_json::{Value, json};

/// Means that are kept; 1 % of the rows or less in each but the outer ones.
const MEANS: f64 = 200.0;
/// Values that wait to be merged in.
const WAITING: usize = 2000;

/// `[[7], [means], [weights]]`, means in order.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    means: Vec<(f64, f64)>,
    waiting: Vec<(f64, f64)>,
    /// Whether every value is a whole number, so that results are whole too.
    pub whole: bool,
}

impl Digest {
    pub fn new(whole: bool) -> Digest {
        Digest { whole, ..Digest::default() }
    }

    pub fn read(text: &str) -> Option<Digest> {
        let Value::Array(parts) = serde_json::from_str(text).ok()? else { return None };
        let [_, means, weights] = parts.as_slice() else { return None };
        let whole = means.as_array()?.iter().all(Value::is_i64);
        let numbers = |value: &Value| -> Option<Vec<f64>> {
            value.as_array()?.iter().map(Value::as_f64).collect()
        };
        let (means, weights) = (numbers(means)?, numbers(weights)?);
        if means.len() != weights.len() || means.is_empty() || weights.iter().any(|w| *w <= 0.0) {
            return None;
        }
        let mut means: Vec<(f64, f64)> = means.into_iter().zip(weights).collect();
        means.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Digest { means, waiting: Vec::new(), whole })
    }

    fn push(&mut self, value: f64, weight: f64) {
        self.waiting.push((value, weight));
        if self.waiting.len() >= WAITING {
            self.settle();
        }
    }

    pub fn absorb(&mut self, other: &Digest) {
        self.whole &= other.whole;
        for (value, weight) in other.means.iter().chain(&other.waiting) {
            self.push(*value, *weight);
        }
    }

    /// Merges what waits: equal values always, others while a mean stays light enough.
    fn settle(&mut self) {
        let mut all = std::mem::take(&mut self.means);
        all.append(&mut self.waiting);
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.dedup_by(|next, kept| {
            let equal = next.0 == kept.0;
            if equal {
                kept.1 += next.1;
            }
            equal
        });
        if all.len() as f64 > MEANS * 2.0 {
            let total: f64 = all.iter().map(|(_, weight)| weight).sum();
            let mut before = 0.0;
            let mut merged: Vec<(f64, f64)> = Vec::new();
            for (value, weight) in all {
                if let Some(last) = merged.last_mut() {
                    let middle = (before + (last.1 + weight) / 2.0) / total;
                    let most = 4.0 * total * middle * (1.0 - middle) / MEANS;
                    if last.1 + weight <= most {
                        last.0 += (value - last.0) * weight / (last.1 + weight);
                        last.1 += weight;
                        continue;
                    }
                    before += last.1;
                }
                merged.push((value, weight));
            }
            self.whole &= merged.iter().all(|(value, _)| value.fract() == 0.0);
            all = merged;
        }
        self.means = all;
    }

    fn settled(&self) -> Digest {
        let mut settled = self.clone();
        settled.settle();
        settled
    }

    /// The nearest-rank value at `percentile` of 100.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        let settled = self.settled();
        let total: f64 = settled.means.iter().map(|(_, weight)| weight).sum();
        let rank = (percentile.clamp(0.0, 100.0) / 100.0 * total).max(f64::MIN_POSITIVE);
        let mut before = 0.0;
        for (value, weight) in &settled.means {
            before += weight;
            if before >= rank {
                return Some(*value);
            }
        }
        settled.means.last().map(|(value, _)| *value)
    }

    /// How many values are at most `value`, and how many there are.
    pub fn rank(&self, value: f64) -> (f64, f64) {
        let settled = self.settled();
        let total = settled.means.iter().map(|(_, weight)| weight).sum();
        let below = settled.means.iter().filter(|(mean, _)| *mean <= value);
        (below.map(|(_, weight)| weight).sum(), total)
    }

    pub fn text(&self) -> String {
        let settled = self.settled();
        let number = |value: f64, whole: bool| match whole && value.fract() == 0.0 {
            true => json!(value as i64),
            false => json!(value),
        };
        let means: Vec<Value> =
            settled.means.iter().map(|(mean, _)| number(*mean, settled.whole)).collect();
        let weights: Vec<Value> =
            settled.means.iter().map(|(_, weight)| number(*weight, true)).collect();
        json!([[7], means, weights]).to_string()
    }
}

impl Sketch for Digest {
    fn add(&mut self, row: &[Cell<'_>]) {
        let weight = row.get(1).map_or(Some(1.0), Cell::as_real);
        if let (Some(value), Some(weight)) = (row[0].as_real(), weight)
            && !value.is_nan()
            && weight > 0.0
        {
            self.push(value, weight);
        }
    }

    fn merge(&mut self, state: &str) {
        if let Some(other) = Digest::read(state) {
            match self.means.is_empty() && self.waiting.is_empty() {
                true => *self = other,
                false => self.absorb(&other),
            }
        }
    }

    fn state(&self) -> Option<String> {
        (!self.means.is_empty() || !self.waiting.is_empty()).then(|| self.text())
    }

    fn size(&self) -> usize {
        (self.means.capacity() + self.waiting.capacity()) * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_ranks_are_close_and_states_merge() {
        let mut digest = Digest::new(true);
        let mut other = Digest::new(true);
        for value in 1..=100_000i64 {
            let into = if value % 2 == 0 { &mut digest } else { &mut other };
            into.add(&[Cell::Long(value * 7919 % 100_003)]);
        }
        digest.merge(&other.text());
        assert!(digest.text().len() < 20_000);
        for percentile in [1.0, 25.0, 50.0, 99.0, 99.9] {
            let found = digest.percentile(percentile).unwrap();
            assert!((found - percentile * 1000.0).abs() < 700.0, "{percentile}: {found}");
        }
        let (below, all) = digest.rank(50_000.0);
        assert_eq!(all, 100_000.0);
        assert!((below - 50_000.0).abs() < 700.0, "{below}");
    }

    #[test]
    fn few_values_are_exact_and_bad_states_are_left_out() {
        let mut digest = Digest::new(false);
        digest.add(&[Cell::Real(1.0), Cell::Long(1)]);
        digest.add(&[Cell::Real(2.0), Cell::Long(2)]);
        for bad in ["", "[]", "[[7],[1],[]]", "[[7],[1],[-1]]", "{}"] {
            digest.merge(bad);
        }
        assert_eq!(digest.percentile(50.0), Some(2.0));
        assert_eq!(digest.text(), "[[7],[1.0,2.0],[1,2]]");
    }
}
