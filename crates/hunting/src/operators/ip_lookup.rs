//! `ipv4_lookup`, `ipv6_lookup`: rows joined where a network contains an address.

use crate::error::QueryError;
use crate::functions::{Cells, array_of, as_network};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::DataFusionError;
use ipnet::IpNet;
use std::collections::HashMap;
use vigie_kql::plan::Column;
use vigie_kql::plan_text::null_of;

pub struct IpLookup {
    /// Columns of the input before its keys, and of the table.
    pub left: usize,
    pub right: usize,
    pub v6: bool,
    pub unmatched: bool,
}

/// A network and the texts that must be equal besides.
type Key = (IpNet, Vec<String>);

impl IpLookup {
    /// The result's columns; every network that contains an address counts.
    pub fn arrays(
        &self,
        input: &RecordBatch,
        table: &RecordBatch,
        columns: &[Column],
    ) -> Result<Vec<ArrayRef>, QueryError> {
        let mut networks: HashMap<Key, Vec<u32>> = HashMap::new();
        let mut lengths: Vec<u8> = Vec::new();
        for (row, key) in self.keys(table, self.right)?.into_iter().enumerate() {
            let Some((network, extra)) = key else { continue };
            if !lengths.contains(&network.prefix_len()) {
                lengths.push(network.prefix_len());
            }
            networks.entry((network.trunc(), extra)).or_default().push(row as u32);
        }
        // The narrowest network stands first.
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let (mut lefts, mut rights): (Vec<u32>, Vec<Option<u32>>) = (Vec::new(), Vec::new());
        for (row, key) in self.keys(input, self.left)?.into_iter().enumerate() {
            let before = lefts.len();
            if let Some((address, extra)) = key {
                for length in lengths.iter().filter(|length| **length <= address.prefix_len()) {
                    let Ok(network) = IpNet::new(address.addr(), *length) else { continue };
                    let found = networks.get(&(network.trunc(), extra.clone()));
                    for found in found.into_iter().flatten() {
                        lefts.push(row as u32);
                        rights.push(Some(*found));
                    }
                }
            }
            if lefts.len() == before && self.unmatched {
                lefts.push(row as u32);
                rights.push(None);
            }
        }
        let (lefts, rights) = (UInt32Array::from(lefts), UInt32Array::from(rights));
        let from_input = input.columns()[..self.left].iter().map(|array| (array, &lefts));
        let from_table = table.columns()[..self.right].iter().map(|array| (array, &rights));
        let all: Vec<_> = match self.v6 {
            false => from_input.chain(from_table).collect(),
            true => from_table.chain(from_input).collect(),
        };
        let mut arrays = Vec::new();
        for ((array, rows), column) in all.into_iter().zip(columns) {
            let taken = take(array, rows, None).map_err(DataFusionError::from)?;
            // Strings are never null.
            arrays.push(match null_of(column.ty) {
                vigie_kql::types::Value::String(_) => {
                    let cells = Cells::of(&taken)?;
                    array_of(column.ty, (0..taken.len()).map(|row| cells.get(row)))
                }
                _ => taken.clone(),
            });
        }
        Ok(arrays)
    }

    /// The key of each row; `None` where it is no address.
    fn keys(&self, rows: &RecordBatch, from: usize) -> Result<Vec<Option<Key>>, QueryError> {
        let cells = (rows.columns()[from..].iter())
            .map(|array| Cells::of(array))
            .collect::<Result<Vec<_>, _>>()?;
        let key = |row: usize| {
            let network = as_network(cells[0].get(row).as_text(), self.v6)?;
            let extra = cells[1..].iter().map(|cells| cells.get(row).as_text().to_owned());
            Some((network, extra.collect()))
        };
        Ok((0..rows.num_rows()).map(key).collect())
    }
}
