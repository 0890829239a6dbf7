//! Functions over the states of [`crate::sketches`].

use super::dynamic::read;
use super::{Call, Cell, RowFunction};
use crate::sketches::{Digest, Hll};
use serde_json::Value;
use vigie_kql::types::Type;

pub fn find(name: &str) -> Option<RowFunction> {
    Some(match name {
        "dcount_hll" => {
            |_, cells| Cell::from_long(Hll::read(cells[0].as_text()).map(|hll| hll.count()))
        }
        "dcount_intersect" => |_, cells| {
            let all: Option<Vec<Hll>> =
                cells.iter().map(|cell| Hll::read(cell.as_text())).collect();
            Cell::from_text(all.map(|all| {
                let counts: Vec<Value> =
                    (1..=all.len()).map(|count| intersection(&all[..count]).into()).collect();
                Value::Array(counts).to_string()
            }))
        },
        "hll_isvalid" => |_, cells| Cell::Bool(Hll::read(cells[0].as_text()).is_some()),
        "hll_merge" => |_, cells| {
            let merged = cells.iter().filter_map(|cell| Hll::read(cell.as_text()));
            let merged = merged.reduce(|mut all, one| {
                all.absorb(&one);
                all
            });
            Cell::from_text(merged.map(|hll| hll.text()))
        },
        "tdigest_isvalid" => |_, cells| Cell::Bool(Digest::read(cells[0].as_text()).is_some()),
        "merge_tdigest" => |_, cells| {
            let merged = cells.iter().filter_map(|cell| Digest::read(cell.as_text()));
            let merged = merged.reduce(|mut all, one| {
                all.absorb(&one);
                all
            });
            Cell::from_text(merged.map(|digest| digest.text()))
        },
        "percentile_tdigest" => |_, cells| {
            let digest = Digest::read(cells[0].as_text());
            let found = digest.zip(cells[1].as_real()).and_then(|(digest, percentile)| {
                Some(number(&digest, digest.percentile(percentile)?).to_string())
            });
            Cell::from_text(found)
        },
        "percentiles_array_tdigest" | "percentile_array_tdigest" => percentiles,
        "rank_tdigest" => |call, cells| {
            let digest = Digest::read(cells[0].as_text());
            let wanted = real(call, cells, 1);
            Cell::from_real(digest.zip(wanted).map(|(digest, value)| digest.rank(value).0))
        },
        "percentrank_tdigest" => |call, cells| {
            let digest = Digest::read(cells[0].as_text());
            let wanted = real(call, cells, 1);
            Cell::from_real(digest.zip(wanted).map(|(digest, value)| {
                let (below, all) = digest.rank(value);
                100.0 * below / all
            }))
        },
        _ => return None,
    })
}

fn real(call: &Call, cells: &[Cell<'_>], at: usize) -> Option<f64> {
    match call.arguments[at] {
        Type::Dynamic => read(&cells[at])?.as_f64(),
        _ => cells[at].as_real(),
    }
}

fn number(digest: &Digest, value: f64) -> Value {
    match digest.whole && value.fract() == 0.0 {
        true => Value::from(value as i64),
        false => Value::from(value),
    }
}

fn percentiles<'a>(call: &Call, cells: &[Cell<'a>]) -> Cell<'a> {
    let Some(digest) = Digest::read(cells[0].as_text()) else { return Cell::Null };
    let wanted: Vec<f64> = match (call.arguments[1], read(&cells[1])) {
        (Type::Dynamic, Some(Value::Array(wanted))) => {
            wanted.iter().filter_map(Value::as_f64).collect()
        }
        _ => cells[1..].iter().filter_map(Cell::as_real).collect(),
    };
    let found = wanted.iter().filter_map(|wanted| digest.percentile(*wanted));
    let found: Vec<Value> = found.map(|value| number(&digest, value)).collect();
    Cell::text(Value::Array(found).to_string())
}

/// How many values are in all of them: by inclusion and exclusion over unions.
fn intersection(all: &[Hll]) -> i64 {
    let mut sum = 0;
    for chosen in 1u32..1 << all.len().min(16) {
        let parts = all.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
        let union = parts.map(|(_, hll)| hll.clone()).reduce(|mut union, hll| {
            union.absorb(&hll);
            union
        });
        let count = union.map_or(0, |union| union.count());
        sum += if chosen.count_ones() % 2 == 1 { count } else { -count };
    }
    sum.max(0)
}
