//! `reduce`: texts that are alike, as patterns.

use crate::error::QueryError;
use crate::functions::{Cell, Cells, array_of};
use arrow::array::{ArrayRef, RecordBatch};
use vigie_kql::types::Type;

/// Clusters texts by the words that they share, in the way of SLCT: a text joins the first pattern
/// of the same number of words with which it shares enough of them; words that differ become `*`.
pub struct Reduce<'a> {
    /// Where the text stands behind the columns.
    pub width: usize,
    /// Share of words that may differ.
    pub threshold: f64,
    /// Characters that also belong to words.
    pub characters: &'a str,
}

struct Cluster {
    words: Vec<Option<String>>,
    count: i64,
    representative: String,
}

impl Reduce<'_> {
    pub fn arrays(&self, rows: &RecordBatch, source: bool) -> Result<Vec<ArrayRef>, QueryError> {
        let texts = Cells::of(rows.column(self.width))?;
        let mut clusters: Vec<Cluster> = Vec::new();
        let mut of_row = Vec::new();
        for row in 0..rows.num_rows() {
            let cell = texts.get(row);
            of_row.push(self.join(&mut clusters, cell.as_text()));
        }
        if source {
            let mut arrays = rows.columns()[..self.width].to_vec();
            let patterns = of_row.iter().map(|at| Cell::text(clusters[*at].pattern()));
            arrays.push(array_of(Type::String, patterns));
            let names = of_row.iter().map(|at| Cell::text(clusters[*at].representative.as_str()));
            arrays.push(array_of(Type::String, names));
            return Ok(arrays);
        }
        clusters.sort_by_key(|cluster| -cluster.count);
        let column = |ty, cell: fn(&Cluster) -> Cell<'_>| array_of(ty, clusters.iter().map(cell));
        Ok(vec![
            column(Type::String, |cluster| Cell::text(cluster.pattern())),
            column(Type::Long, |cluster| Cell::Long(cluster.count)),
            column(Type::String, |cluster| Cell::text(cluster.representative.as_str())),
        ])
    }

    fn join(&self, clusters: &mut Vec<Cluster>, text: &str) -> usize {
        let words = self.words(text);
        let found = clusters.iter().position(|cluster| {
            if cluster.words.len() != words.len() {
                return false;
            }
            let different = (cluster.words.iter().zip(&words))
                .filter(|(a, b)| a.as_ref().is_none_or(|a| a != *b))
                .count();
            let share = different as f64 / words.len().max(1) as f64;
            share <= self.threshold.max(0.0).sqrt()
        });
        match found {
            Some(at) => {
                let cluster = &mut clusters[at];
                cluster.count += 1;
                for (kept, word) in cluster.words.iter_mut().zip(&words) {
                    if kept.as_ref() != Some(word) {
                        *kept = None;
                    }
                }
                at
            }
            None => {
                let words = words.into_iter().map(Some).collect();
                clusters.push(Cluster { words, count: 1, representative: text.to_owned() });
                clusters.len() - 1
            }
        }
    }

    /// Words and what stands between them.
    fn words(&self, text: &str) -> Vec<String> {
        let belongs = |c: char| c.is_alphanumeric() || self.characters.contains(c);
        let mut words: Vec<String> = Vec::new();
        let mut inside = None;
        for c in text.chars() {
            match (&mut words.last_mut(), inside == Some(belongs(c))) {
                (Some(last), true) => last.push(c),
                _ => words.push(c.to_string()),
            }
            inside = Some(belongs(c));
        }
        words
    }
}

impl Cluster {
    fn pattern(&self) -> String {
        self.words.iter().map(|word| word.as_deref().unwrap_or("*")).collect()
    }
}
