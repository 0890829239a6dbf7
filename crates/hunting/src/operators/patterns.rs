//! `autocluster`, `basket`, `diffpatterns`: values that many rows have in common.
//!
//! Microsoft does not publish its search for clusters; the parameters and the meaning of the results
//! are theirs, the way to them is ours. Same rows, same answer: nothing here is random.

use crate::error::{Limit, QueryError};
use crate::expressions::scalar_value;
use crate::functions::{Cell, Cells, array_of, text};
use crate::operators::cell_of;
use arrow::array::{ArrayRef, RecordBatch};
use std::collections::HashMap;
use vigie_kql::plan::{Column, PatternKind};
use vigie_kql::types::{Type, Value};

/// Most rows that are read while patterns are looked for.
const MOST_READ: usize = 200_000_000;
/// Distinct rows, the heaviest, in which clusters are looked for; counts are of all.
const CLUSTERED: usize = 20_000;
/// A cluster tells of at least this share of the rows.
const SMALLEST_CLUSTER: f64 = 0.01;

/// Values of some attributes: attribute and the number of its value.
type Pattern = Vec<(usize, u32)>;

/// How much the rows of set A and of set B count.
type Weights = [f64; 2];

/// Rows of the same values as one, values as numbers.
struct Rows {
    values: Vec<Vec<u32>>,
    weights: Vec<Weights>,
    /// A row that has the value, by attribute and number.
    examples: Vec<Vec<usize>>,
    total: Weights,
}

pub struct Patterns<'a> {
    pub kind: &'a PatternKind,
    pub weight: Option<usize>,
    pub attributes: &'a [usize],
    pub wildcards: &'a [Value],
}

impl Patterns<'_> {
    /// The result's columns.
    pub fn arrays(
        &self,
        input: &[Column],
        columns: &[Column],
        batch: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, QueryError> {
        let rows = self.read(input, batch)?;
        let found = match self.kind {
            PatternKind::Clusters { size_weight, seeds } => clusters(&rows, *size_weight, *seeds),
            PatternKind::Frequent { threshold, dimensions } => {
                let mut found = frequent(&rows, *threshold, *dimensions, None)?;
                let weight = |pattern: &(Pattern, Weights)| pattern.1[0];
                found.sort_by(|a, b| {
                    weight(b).total_cmp(&weight(a)).then(a.0.len().cmp(&b.0.len()))
                });
                found
            }
            PatternKind::Differences { split, threshold, dimensions, .. } => {
                let apart = self.attributes.iter().position(|at| at == split);
                let found = frequent(&rows, *threshold, *dimensions, apart)?;
                differences(&rows, found, *threshold)
            }
        };
        let differing = matches!(self.kind, PatternKind::Differences { .. });
        let share = |weights: &Weights, set: usize| match rows.total[set] {
            0.0 => 0.0,
            total => 100.0 * weights[set] / total,
        };
        let longs = |value: &dyn Fn(usize, &Weights) -> f64| {
            let values = found.iter().enumerate();
            let cells = values.map(|(at, (_, w))| Cell::Long(value(at, w).round() as i64));
            array_of(Type::Long, cells)
        };
        let reals = |value: &dyn Fn(&Weights) -> f64| {
            array_of(Type::Real, found.iter().map(|(_, weights)| Cell::Real(value(weights))))
        };
        let mut arrays = vec![longs(&|at, _| at as f64), longs(&|_, weights| weights[0])];
        if differing {
            arrays.push(longs(&|_, weights| weights[1]));
            arrays.push(reals(&|weights| share(weights, 0)));
            arrays.push(reals(&|weights| share(weights, 1)));
            arrays.push(reals(&|weights| (share(weights, 0) - share(weights, 1)).abs()));
        } else {
            arrays.push(reals(&|weights| share(weights, 0)));
        }
        let lead = arrays.len();
        for (attribute, at) in self.attributes.iter().enumerate() {
            let cells = Cells::of(batch.column(*at))?;
            let ty = columns[lead + attribute].ty;
            let empty = cell_of(&scalar_value(&self.wildcards[attribute]), ty)?;
            let values = found.iter().map(|(pattern, _)| {
                let set = pattern.iter().find(|(known, _)| *known == attribute);
                match set {
                    Some((_, value)) => cells.get(rows.examples[attribute][*value as usize]),
                    None => empty.clone(),
                }
            });
            arrays.push(array_of(ty, values));
        }
        Ok(arrays)
    }

    fn read(&self, input: &[Column], batch: &RecordBatch) -> Result<Rows, QueryError> {
        let cells = |at: usize| Cells::of(batch.column(at));
        let weights = self.weight.map(cells).transpose()?;
        let sets = match self.kind {
            PatternKind::Differences { split, values, .. } => {
                Some((cells(*split)?, input[*split].ty, values))
            }
            _ => None,
        };
        let mut attributes = Vec::new();
        for at in self.attributes {
            attributes.push((cells(*at)?, input[*at].ty));
        }
        let mut numbers: Vec<HashMap<String, u32>> = vec![HashMap::new(); attributes.len()];
        let mut rows = Rows {
            values: Vec::new(),
            weights: Vec::new(),
            examples: vec![Vec::new(); attributes.len()],
            total: [0.0; 2],
        };
        let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
        for row in 0..batch.num_rows() {
            let set = match &sets {
                None => 0,
                Some((cells, ty, (a, b))) => match text(*ty, &cells.get(row)) {
                    value if value == *a => 0,
                    value if value == *b => 1,
                    _ => continue,
                },
            };
            let weight = match &weights {
                None => 1.0,
                Some(cells) => cells.get(row).as_real().unwrap_or(0.0),
            };
            let mut values = Vec::with_capacity(attributes.len());
            for (attribute, (cells, ty)) in attributes.iter().enumerate() {
                let examples = &mut rows.examples[attribute];
                let value = text(*ty, &cells.get(row)).to_string();
                values.push(*numbers[attribute].entry(value).or_insert_with(|| {
                    examples.push(row);
                    examples.len() as u32 - 1
                }));
            }
            let at = *known.entry(values).or_insert_with_key(|values| {
                rows.values.push(values.clone());
                rows.weights.push([0.0; 2]);
                rows.values.len() - 1
            });
            rows.weights[at][set] += weight;
            rows.total[set] += weight;
        }
        Ok(rows)
    }
}

fn sum(rows: &Rows, of: impl Iterator<Item = u32>) -> Weights {
    of.fold([0.0; 2], |[a, b], row| {
        let [c, d] = rows.weights[row as usize];
        [a + c, b + d]
    })
}

/// All patterns with at least `threshold` of the rows, in one of the sets. `apart` is no attribute.
fn frequent(
    rows: &Rows,
    threshold: f64,
    dimensions: usize,
    apart: Option<usize>,
) -> Result<Vec<(Pattern, Weights)>, QueryError> {
    struct Miner<'a> {
        rows: &'a Rows,
        least: Weights,
        dimensions: usize,
        apart: Option<usize>,
        read: usize,
        found: Vec<(Pattern, Weights)>,
    }
    impl Miner<'_> {
        /// Longer patterns of those rows: with values of attributes from `first` on.
        fn longer(
            &mut self,
            pattern: &mut Pattern,
            having: &[u32],
            first: usize,
        ) -> Result<(), QueryError> {
            if pattern.len() == self.dimensions {
                return Ok(());
            }
            let apart = self.apart;
            for attribute in (first..self.rows.examples.len()).filter(|at| Some(*at) != apart) {
                self.read += having.len();
                if self.read > MOST_READ {
                    return Err(QueryError::Limit(Limit::Memory));
                }
                let mut by_value: HashMap<u32, Vec<u32>> = HashMap::new();
                for row in having {
                    let value = self.rows.values[*row as usize][attribute];
                    by_value.entry(value).or_default().push(*row);
                }
                let mut by_value: Vec<(u32, Vec<u32>)> = by_value.into_iter().collect();
                by_value.sort_unstable_by_key(|(value, _)| *value);
                for (value, having) in by_value {
                    let weights = sum(self.rows, having.iter().copied());
                    let often =
                        |set: usize| self.least[set] > 0.0 && weights[set] >= self.least[set];
                    if !often(0) && !often(1) {
                        continue;
                    }
                    pattern.push((attribute, value));
                    self.found.push((pattern.clone(), weights));
                    self.longer(pattern, &having, attribute + 1)?;
                    pattern.pop();
                }
            }
            Ok(())
        }
    }
    let least = rows.total.map(|total| total * threshold);
    let mut miner = Miner { rows, least, dimensions, apart, read: 0, found: Vec::new() };
    let all: Vec<u32> = (0..rows.values.len() as u32).collect();
    miner.longer(&mut Vec::new(), &all, 0)?;
    Ok(miner.found)
}

/// Those that tell the sets apart, the clearest first. Of two of which one says more the clearer one
/// stays.
fn differences(
    rows: &Rows,
    mut found: Vec<(Pattern, Weights)>,
    threshold: f64,
) -> Vec<(Pattern, Weights)> {
    let share = |weights: &Weights, set: usize| match rows.total[set] {
        0.0 => 0.0,
        total => weights[set] / total,
    };
    let difference = |found: &(Pattern, Weights)| (share(&found.1, 0) - share(&found.1, 1)).abs();
    found.retain(|found| difference(found) >= threshold);
    found.sort_by(|a, b| difference(b).total_cmp(&difference(a)).then(b.0.len().cmp(&a.0.len())));
    let within = |a: &Pattern, b: &Pattern| a.iter().all(|item| b.contains(item));
    let mut kept: Vec<(Pattern, Weights)> = Vec::new();
    for pattern in found {
        if !kept.iter().any(|k| within(&k.0, &pattern.0) || within(&pattern.0, &k.0)) {
            kept.push(pattern);
        }
    }
    kept
}

/// From each of the heaviest rows that no cluster has yet: all its values, then one value less at a
/// time, the one whose loss gains the most rows; the best of these is a cluster.
fn clusters(rows: &Rows, size_weight: f64, seeds: usize) -> Vec<(Pattern, Weights)> {
    let mut heaviest: Vec<u32> = (0..rows.values.len() as u32).collect();
    heaviest.sort_by(|a, b| {
        let weight = |row: &u32| rows.weights[*row as usize][0];
        weight(b).total_cmp(&weight(a)).then(a.cmp(b))
    });
    heaviest.truncate(CLUSTERED);
    let has = |pattern: &Pattern, row: u32| {
        pattern.iter().all(|(at, value)| rows.values[row as usize][*at] == *value)
    };
    let attributes = rows.examples.len() as f64;
    let score = |pattern: &Pattern, weight: f64| {
        let (size, detail) = (weight / rows.total[0], pattern.len() as f64 / attributes);
        size.powf(size_weight) * detail.powf(1.0 - size_weight)
    };
    let mut open = heaviest.clone();
    let mut found: Vec<(Pattern, Weights)> = Vec::new();
    for _ in 0..seeds {
        let Some(seed) = open.first() else { break };
        let mut pattern: Pattern =
            rows.values[*seed as usize].iter().copied().enumerate().collect();
        let mut best: Option<(f64, Pattern)> = None;
        while !pattern.is_empty() {
            let weight = sum(rows, heaviest.iter().copied().filter(|row| has(&pattern, *row)))[0];
            let own = score(&pattern, weight);
            if best.as_ref().is_none_or(|(known, _)| own > *known) {
                best = Some((own, pattern.clone()));
            }
            // Rows that differ in one value only would be gained by its loss.
            let mut gains = vec![0.0; pattern.len()];
            for row in &heaviest {
                let values = &rows.values[*row as usize];
                let mut differing =
                    pattern.iter().enumerate().filter(|(_, (at, v))| values[*at] != *v);
                if let (Some((item, _)), None) = (differing.next(), differing.next()) {
                    gains[item] += rows.weights[*row as usize][0];
                }
            }
            let most =
                (0..gains.len()).max_by(|a, b| gains[*a].total_cmp(&gains[*b]).then(b.cmp(a)));
            pattern.remove(most.unwrap_or_default());
        }
        let Some((_, pattern)) = best else { break };
        open.retain(|row| !has(&pattern, *row));
        let all = (0..rows.values.len() as u32).filter(|row| has(&pattern, *row));
        let weights = sum(rows, all);
        if weights[0] >= SMALLEST_CLUSTER * rows.total[0] {
            found.push((pattern, weights));
        }
    }
    found
}
