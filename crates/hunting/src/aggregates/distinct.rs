//! Counting different values: one table of hashes for all groups.

use super::lists;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, UInt64Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, UInt64Type};
use datafusion::common::hash_utils::create_hashes_with_hasher;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use std::mem::{size_of, size_of_val};
use std::sync::{Arc, LazyLock};

/// Values are told apart by 64 bits of a hash: among ten million values of a group one is lost with
/// a probability of 1 in 400,000. The seed is the process's own, so that nobody can choose values
/// that collide.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Type of the intermediate state: the hashes of a group's values.
pub fn state_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::UInt64, true)))
}

fn hashes(values: &ArrayRef) -> Result<Vec<u64>> {
    let mut hashes = vec![0; values.len()];
    create_hashes_with_hasher([values], &*HASHER, &mut hashes)?;
    Ok(hashes)
}

fn list(lengths: impl IntoIterator<Item = usize>, hashes: Vec<u64>) -> Result<ListArray> {
    let item = Arc::new(Field::new_list_field(DataType::UInt64, true));
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let values = UInt64Array::new(ScalarBuffer::from(hashes), None);
    Ok(ListArray::try_new(item, offsets, Arc::new(values), None)?)
}

/// Without groups.
#[derive(Debug, Default)]
pub struct Distinct {
    seen: HashSet<u64, Unhashed>,
}

/// Hashes are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Unhashed(u64);

impl std::hash::Hasher for Unhashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl std::hash::BuildHasher for Unhashed {
    type Hasher = Unhashed;

    fn build_hasher(&self) -> Unhashed {
        Unhashed(0)
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let hashes = hashes(&values[0])?.into_iter().enumerate();
        self.seen.extend(hashes.filter(|(row, _)| values[0].is_valid(*row)).map(|(_, hash)| hash));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.seen.len() as i64)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.allocation_size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let all: Vec<u64> = self.seen.iter().copied().collect();
        Ok(vec![ScalarValue::List(Arc::new(list([all.len()], all)?))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for hashes in lists(&states[0])? {
            self.seen.extend(hashes.as_primitive::<UInt64Type>().values());
        }
        Ok(())
    }
}

/// A group's number and a value's hash in halves, which keeps a pair at twelve bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pair {
    group: u32,
    hash: [u32; 2],
}

impl Pair {
    fn new(group: usize, hash: u64) -> Pair {
        Pair { group: group as u32, hash: [hash as u32, (hash >> 32) as u32] }
    }

    fn value(self) -> u64 {
        u64::from(self.hash[0]) | u64::from(self.hash[1]) << 32
    }

    fn place(self) -> u64 {
        (self.value() ^ u64::from(self.group)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Pairs are collected as they come and thinned out now and then: first dealt out to as many parts
/// as keep each within the processor's cache, then each part by a table of its own. A table for all
/// of them at once would miss the cache with every row.
#[derive(Debug, Default)]
pub struct DistinctGroups {
    pairs: Vec<Pair>,
    /// So many of the first pairs are known to differ.
    thinned: usize,
    groups: usize,
}

/// Pairs that are collected before they are thinned out for the first time.
const FIRST_THINNING: usize = 1 << 18;
/// Pairs of one part, roughly.
const PART_PAIRS: usize = 1 << 13;

impl DistinctGroups {
    fn add(&mut self, group: usize, hash: u64) {
        self.pairs.push(Pair::new(group, hash));
    }

    fn thin_if_due(&mut self) {
        if self.pairs.len() >= FIRST_THINNING.max(self.thinned * 2) {
            self.thin();
        }
    }

    fn thin(&mut self) {
        if self.thinned == self.pairs.len() {
            return;
        }
        let bits = (self.pairs.len() / PART_PAIRS).max(1).next_power_of_two().ilog2().min(16);
        let part = |pair: &Pair| (pair.place() >> 48 >> (16 - bits)) as usize;
        let mut ends = vec![0_usize; (1 << bits) + 1];
        self.pairs.iter().for_each(|pair| ends[part(pair) + 1] += 1);
        (1..ends.len()).for_each(|at| ends[at] += ends[at - 1]);
        let starts = ends.clone();
        let mut dealt = vec![Pair::default(); self.pairs.len()];
        for pair in &self.pairs {
            let at = &mut ends[part(pair)];
            dealt[*at] = *pair;
            *at += 1;
        }
        self.pairs.clear();
        let mut seen: HashTable<Pair> = HashTable::new();
        for range in starts.windows(2) {
            for pair in &dealt[range[0]..range[1]] {
                // The upper 16 bits are much the same within a part; a table goes by the lowest.
                let spread = |pair: &Pair| pair.place().rotate_left(32);
                let place = seen.entry(spread(pair), |known| known == pair, spread);
                if let hashbrown::hash_table::Entry::Vacant(vacant) = place {
                    vacant.insert(*pair);
                    self.pairs.push(*pair);
                }
            }
            seen.clear();
        }
        self.thinned = self.pairs.len();
    }

    /// The different pairs of the first groups, which are taken out; the others are renumbered.
    fn take(&mut self, emit: EmitTo) -> (usize, Vec<Pair>) {
        self.thin();
        match emit {
            EmitTo::All => {
                self.thinned = 0;
                (std::mem::take(&mut self.groups), std::mem::take(&mut self.pairs))
            }
            EmitTo::First(first) => {
                let stays = |pair: &mut Pair| pair.group as usize >= first;
                let mut stay: Vec<Pair> = self.pairs.extract_if(.., stays).collect();
                stay.iter_mut().for_each(|pair| pair.group -= first as u32);
                self.thinned = stay.len();
                self.groups -= first;
                (first, std::mem::replace(&mut self.pairs, stay))
            }
        }
    }
}

fn counts(groups: usize, pairs: &[Pair]) -> Vec<i64> {
    let mut counts = vec![0; groups];
    pairs.iter().for_each(|pair| counts[pair.group as usize] += 1);
    counts
}

impl GroupsAccumulator for DistinctGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups = total;
        let wanted = wanted(&values[0], filter);
        for (row, (group, hash)) in groups.iter().zip(hashes(&values[0])?).enumerate() {
            if wanted(row) {
                self.add(*group, hash);
            }
        }
        self.thin_if_due();
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (groups, pairs) = self.take(emit);
        Ok(Arc::new(Int64Array::from(counts(groups, &pairs))))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (groups, pairs) = self.take(emit);
        let counts = counts(groups, &pairs);
        let mut next: Vec<usize> = Vec::with_capacity(counts.len());
        let mut sum = 0;
        for count in &counts {
            next.push(sum);
            sum += *count as usize;
        }
        let mut hashes = vec![0; sum];
        for pair in pairs {
            let at = &mut next[pair.group as usize];
            hashes[*at] = pair.value();
            *at += 1;
        }
        Ok(vec![Arc::new(list(counts.into_iter().map(|count| count as usize), hashes)?)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups = total;
        let states = states[0].as_list::<i32>();
        let hashes = states.values().as_primitive::<UInt64Type>().values();
        let offsets = states.value_offsets();
        for (row, group) in groups.iter().enumerate() {
            for hash in &hashes[offsets[row] as usize..offsets[row + 1] as usize] {
                self.add(*group, *hash);
            }
        }
        self.thin_if_due();
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut hashes = hashes(&values[0])?;
        let wanted = wanted(&values[0], filter);
        let lengths: Vec<usize> = (0..hashes.len()).map(|row| usize::from(wanted(row))).collect();
        let mut row = 0;
        hashes.retain(|_| {
            row += 1;
            lengths[row - 1] == 1
        });
        Ok(vec![Arc::new(list(lengths, hashes)?)])
    }

    fn size(&self) -> usize {
        // Twice: thinning deals them out to a copy.
        self.pairs.capacity() * size_of::<Pair>() * 2
    }
}

/// Whether a row counts: its value is none of null, and the aggregate's condition holds.
fn wanted<'a>(
    values: &'a ArrayRef,
    filter: Option<&'a BooleanArray>,
) -> impl Fn(usize) -> bool + 'a {
    move |row| {
        values.is_valid(row)
            && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
    }
}
