//! HyperLogLog: how many different values there are, within a few percent.

use super::Sketch;
use crate::functions::Cell;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use twox_hash::XxHash64;

/// Different hashes that are kept as they are, and counted exactly.
const EXACT: usize = 1024;

/// `[[EXACT, bits], [hashes as text], registers in base64 or ""]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hll {
    bits: u8,
    hashes: BTreeSet<u64>,
    /// 2^bits registers, once there were too many hashes.
    registers: Vec<u8>,
}

impl Hll {
    /// The accuracy of Kusto's `hll(x, accuracy)`: 0 to 4 are 2^12, 2^14, 2^16, 2^17 and 2^18 registers.
    pub fn new(accuracy: usize) -> Hll {
        let bits = [12, 14, 16, 17, 18][accuracy.min(4)];
        Hll { bits, hashes: BTreeSet::new(), registers: Vec::new() }
    }

    pub fn read(text: &str) -> Option<Hll> {
        let Value::Array(parts) = serde_json::from_str(text).ok()? else { return None };
        let [head, hashes, registers] = parts.as_slice() else { return None };
        let bits = u8::try_from(head.get(1)?.as_u64()?).ok()?;
        let registers = STANDARD.decode(registers.as_str()?).ok()?;
        let hashes = hashes.as_array()?.iter().map(|hash| hash.as_str()?.parse().ok());
        let hashes = hashes.collect::<Option<BTreeSet<u64>>>()?;
        let sound = (4..=18).contains(&bits) && [0, 1 << bits].contains(&registers.len());
        sound.then_some(Hll { bits, hashes, registers })
    }

    fn insert(&mut self, hash: u64) {
        if self.registers.is_empty() {
            self.hashes.insert(hash);
            if self.hashes.len() <= EXACT {
                return;
            }
            self.registers = vec![0; 1 << self.bits];
            for hash in std::mem::take(&mut self.hashes) {
                self.register(hash);
            }
            return;
        }
        self.register(hash);
    }

    fn register(&mut self, hash: u64) {
        let index = (hash >> (64 - self.bits)) as usize;
        let rank = ((hash << self.bits) | 1 << (self.bits - 1)).leading_zeros() as u8 + 1;
        self.registers[index] = self.registers[index].max(rank);
    }

    pub fn absorb(&mut self, other: &Hll) {
        let (mut low, mut high) = (self.clone(), other.clone());
        if low.bits > high.bits {
            (low, high) = (high, low);
        }
        // The state with fewer registers decides; a register's place begins with the same bits.
        let by = high.bits - low.bits;
        let mut merged = low;
        for hash in &high.hashes {
            merged.insert(*hash);
        }
        if !high.registers.is_empty() {
            if merged.registers.is_empty() {
                merged.registers = vec![0; 1 << merged.bits];
                for hash in std::mem::take(&mut merged.hashes) {
                    merged.register(hash);
                }
            }
            for (index, rank) in high.registers.iter().enumerate().filter(|(_, rank)| **rank > 0) {
                let (place, dropped) = (index >> by, index & ((1 << by) - 1));
                // The bits that leave the place come first in what is counted.
                let rank = match dropped {
                    0 => rank + by,
                    dropped => by - (usize::BITS - dropped.leading_zeros()) as u8 + 1,
                };
                merged.registers[place] = merged.registers[place].max(rank);
            }
        }
        *self = merged;
    }

    /// How many different values were added.
    pub fn count(&self) -> i64 {
        if self.registers.is_empty() {
            return self.hashes.len() as i64;
        }
        let size = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / size) * size * size / sum;
        let zeros = self.registers.iter().filter(|rank| **rank == 0).count();
        // Few values: how many registers are still empty tells more (Flajolet et al. 2007).
        let estimate = match zeros {
            zeros if zeros > 0 && estimate <= 2.5 * size => size * (size / zeros as f64).ln(),
            _ => estimate,
        };
        estimate.round() as i64
    }

    pub fn text(&self) -> String {
        let hashes: Vec<Value> = self.hashes.iter().map(|hash| hash.to_string().into()).collect();
        json!([[EXACT, self.bits], hashes, STANDARD.encode(&self.registers)]).to_string()
    }
}

impl Sketch for Hll {
    fn add(&mut self, row: &[Cell<'_>]) {
        let hash = match &row[0] {
            Cell::Null => return,
            Cell::Text(text) => XxHash64::oneshot(0, text.as_bytes()),
            Cell::Long(value) => XxHash64::oneshot(0, &value.to_le_bytes()),
            Cell::Real(value) => XxHash64::oneshot(0, &value.to_le_bytes()),
            Cell::Bool(value) => XxHash64::oneshot(0, &[u8::from(*value)]),
            Cell::Decimal(value) => XxHash64::oneshot(0, &value.to_le_bytes()),
        };
        self.insert(hash);
    }

    fn merge(&mut self, state: &str) {
        if let Some(other) = Hll::read(state) {
            match self.hashes.is_empty() && self.registers.is_empty() {
                true => *self = other,
                false => self.absorb(&other),
            }
        }
    }

    fn state(&self) -> Option<String> {
        (!self.hashes.is_empty() || !self.registers.is_empty()).then(|| self.text())
    }

    fn size(&self) -> usize {
        self.hashes.len() * 24 + self.registers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accuracy: usize, values: std::ops::Range<i64>) -> Hll {
        let mut hll = Hll::new(accuracy);
        values.for_each(|value| hll.add(&[Cell::Long(value)]));
        hll
    }

    #[test]
    fn counts_are_exact_at_first_and_close_later() {
        for (count, off) in [(1, 0.0), (1000, 0.0), (20_000, 0.03), (300_000, 0.03)] {
            let found = of(1, 0..count).count();
            assert!((found - count).abs() as f64 <= off * count as f64, "{found} for {count}");
        }
    }

    #[test]
    fn states_merge_in_text_and_across_accuracies() {
        for (a, b) in [(1, 1), (0, 4), (4, 0)] {
            let (mut left, right) = (of(a, 0..40_000), of(b, 20_000..60_000));
            left.merge(&right.text());
            let found = left.count();
            assert!((57_000..63_000).contains(&found), "{a} and {b}: {found}");
            assert_eq!(Hll::read(&left.text()), Some(left));
        }
        let mut few = of(1, 0..10);
        few.merge(&of(1, 5..15).text());
        assert_eq!(few.count(), 15);
        few.merge("[[1024,14],[],\"AA==\"]");
        few.merge("no state");
        assert_eq!(few.count(), 15);
    }
}
