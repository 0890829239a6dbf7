//! `graph-match` and `graph-shortest-paths`: patterns of nodes and edges looked for in a graph.
//!
//! The pattern becomes a list of steps, each of which goes from a node that is known already along
//! one edge (or several in a row) of the pattern. It begins where the fewest nodes fit.

use super::graph::Links;
use crate::error::{Limit, QueryError};
use crate::functions::{Cell, Cells, array_of, json_of};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::error::DataFusionError;
use std::collections::HashMap;
use vigie_kql::plan::{Column, Cycles, Direction, GraphMatch, MatchOutput, PathFold};
use vigie_kql::types::Type;

/// Most edges that are looked at; more is no pattern but an explosion.
const MOST_STEPS: usize = 50_000_000;
/// Most nodes and edges of all matches together.
const LARGEST_RESULT: usize = 20_000_000;

/// A step of the search.
enum Step {
    /// Every node that fits a slot which nothing leads to.
    Any(usize),
    /// Along an edge of the pattern, from a slot that is bound.
    Hop { path: usize, edge: usize, from: usize, to: usize, backwards: bool },
}

/// Edges of one slot in all matches, and the nodes between them.
#[derive(Default)]
struct Runs {
    edges: Vec<u32>,
    edge_ends: Vec<usize>,
    inner: Vec<u32>,
    inner_ends: Vec<usize>,
}

impl Runs {
    fn push(&mut self, run: &Run) {
        self.edges.extend_from_slice(&run.edges);
        self.edge_ends.push(self.edges.len());
        self.inner.extend_from_slice(&run.inner);
        self.inner_ends.push(self.inner.len());
    }

    fn of(&self, found: usize, inner: bool) -> &[u32] {
        let (all, ends) =
            if inner { (&self.inner, &self.inner_ends) } else { (&self.edges, &self.edge_ends) };
        let start = found.checked_sub(1).map_or(0, |before| ends[before]);
        &all[start..ends[found]]
    }
}

/// Edges in a row, in the order in which the pattern writes them, and the nodes between them.
#[derive(Clone, Default)]
struct Run {
    edges: Vec<u32>,
    inner: Vec<u32>,
}

struct Search<'a> {
    pattern: &'a GraphMatch,
    out: Vec<Vec<(u32, u32)>>,
    into: Vec<Vec<(u32, u32)>>,
    nodes: usize,
    /// Nodes that fit a slot, by slot.
    fits: Vec<Option<Vec<bool>>>,
    /// Edges that fit, and nodes that may stand between, by slot of the edge.
    edge_fits: Vec<Option<Vec<bool>>>,
    inner_fits: Vec<Option<Vec<bool>>>,
    steps: Vec<Step>,
    /// What is bound at the moment.
    bound: Vec<Option<u32>>,
    runs: Vec<Run>,
    /// How often each edge is in use, where that matters.
    used: Vec<bool>,
    /// By path and node, where cycles are not wanted.
    visited: Vec<HashMap<u32, usize>>,
    looked_at: usize,
    size: usize,
    found_nodes: Vec<Vec<u32>>,
    found_runs: Vec<Runs>,
    found: usize,
}

/// The result's columns.
pub fn graph_match(
    pattern: &GraphMatch,
    columns: &[Column],
    nodes: &RecordBatch,
    edges: &RecordBatch,
) -> Result<Vec<ArrayRef>, QueryError> {
    let links = Links::new(&pattern.graph, nodes, edges)?;
    let mut search = Search::new(pattern, &links, nodes, edges)?;
    match pattern.shortest {
        Some(all) if search.is_plain() => search.breadth_first(all)?,
        Some(all) => {
            search.step(0)?;
            search.keep_shortest(all);
        }
        None => search.step(0)?,
    }
    search.arrays(columns, nodes, edges)
}

/// Rows for which all of these columns are true; `None` where there are no conditions.
fn fitting(rows: &RecordBatch, filters: &[usize]) -> Result<Option<Vec<bool>>, QueryError> {
    let mut fits: Option<Vec<bool>> = None;
    for filter in filters {
        let cells = Cells::of(rows.column(*filter))?;
        let own = (0..rows.num_rows()).map(|row| cells.get(row).as_bool() == Some(true));
        fits = Some(match fits {
            None => own.collect(),
            Some(known) => known.into_iter().zip(own).map(|(a, b)| a && b).collect(),
        });
    }
    Ok(fits)
}

fn fit(fits: &Option<Vec<bool>>, row: u32) -> bool {
    fits.as_ref().is_none_or(|fits| fits[row as usize])
}

impl<'a> Search<'a> {
    fn new(
        pattern: &'a GraphMatch,
        links: &Links,
        nodes: &RecordBatch,
        edges: &RecordBatch,
    ) -> Result<Search<'a>, QueryError> {
        let all_nodes = || pattern.paths.iter().flat_map(|path| &path.nodes);
        let all_edges = || pattern.paths.iter().flat_map(|path| &path.edges);
        let node_slots = all_nodes().map(|node| node.slot + 1).max().unwrap_or(0);
        let edge_slots = all_edges().map(|edge| edge.slot + 1).max().unwrap_or(0);
        let mut fits = vec![None; node_slots];
        for node in all_nodes() {
            // A node that appears again has all its conditions at each place.
            fits[node.slot] = fitting(nodes, &node.filters)?;
        }
        let (mut edge_fits, mut inner_fits) = (vec![None; edge_slots], vec![None; edge_slots]);
        for edge in all_edges() {
            edge_fits[edge.slot] = fitting(edges, &edge.filters)?;
            inner_fits[edge.slot] = fitting(nodes, &edge.inner_filters)?;
        }
        let mut search = Search {
            pattern,
            out: links.adjacent(true),
            into: links.adjacent(false),
            nodes: links.nodes,
            fits,
            edge_fits,
            inner_fits,
            steps: Vec::new(),
            bound: vec![None; node_slots],
            runs: vec![Run::default(); edge_slots],
            used: vec![false; links.ends.len()],
            visited: vec![HashMap::new(); pattern.paths.len()],
            looked_at: 0,
            size: 0,
            found_nodes: vec![Vec::new(); node_slots],
            found_runs: (0..edge_slots).map(|_| Runs::default()).collect(),
            found: 0,
        };
        search.steps = search.order();
        Ok(search)
    }

    /// Steps through all of the pattern.
    fn order(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut known = vec![false; self.bound.len()];
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (path, written) in self.pattern.paths.iter().enumerate() {
            open.extend((0..written.edges.len()).map(|edge| (path, edge)));
        }
        loop {
            // A hop between two nodes that are known comes first: it only drops matches.
            let ends = |(path, edge): (usize, usize)| {
                let nodes = &self.pattern.paths[path].nodes;
                (nodes[edge].slot, nodes[edge + 1].slot)
            };
            let both = |hop: &(usize, usize)| {
                let (a, b) = ends(*hop);
                known[a] && known[b]
            };
            let one = |hop: &(usize, usize)| {
                let (a, b) = ends(*hop);
                known[a] || known[b]
            };
            let next = open.iter().position(both).or_else(|| open.iter().position(one));
            if let Some(next) = next {
                let (path, edge) = open.remove(next);
                let (a, b) = ends((path, edge));
                let backwards = !known[a];
                let (from, to) = if backwards { (b, a) } else { (a, b) };
                known[to] = true;
                steps.push(Step::Hop { path, edge, from, to, backwards });
                continue;
            }
            let count = |slot: &usize| {
                let fits = self.fits[*slot].as_ref();
                fits.map_or(self.nodes, |fits| fits.iter().filter(|fits| **fits).count())
            };
            let Some(start) = (0..known.len()).filter(|slot| !known[*slot]).min_by_key(count)
            else {
                return steps;
            };
            known[start] = true;
            steps.push(Step::Any(start));
        }
    }

    fn step(&mut self, at: usize) -> Result<(), QueryError> {
        match self.steps.get(at) {
            None => self.emit(),
            Some(&Step::Any(slot)) => {
                for node in 0..self.nodes as u32 {
                    if fit(&self.fits[slot], node) {
                        self.look()?;
                        self.bind(slot, node, |search| search.step(at + 1))?;
                    }
                }
                Ok(())
            }
            Some(&Step::Hop { path, edge, from, .. }) => {
                let written = &self.pattern.paths[path].edges[edge];
                let Some(start) = self.bound[from] else { return Ok(()) };
                self.walk(at, start, written.range, &mut Vec::new(), &mut Vec::new())
            }
        }
    }

    /// Sets a slot while `then` runs. `false` cycles: a node is once in a path.
    fn bind(
        &mut self,
        slot: usize,
        node: u32,
        then: impl FnOnce(&mut Self) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let mut entered = Vec::new();
        let mut free = true;
        if self.pattern.cycles == Cycles::None {
            for (path, written) in self.pattern.paths.iter().enumerate() {
                let times = written.nodes.iter().filter(|node| node.slot == slot).count();
                if times == 0 {
                    continue;
                }
                free &= times == 1 && !self.visited[path].contains_key(&node);
                entered.push(path);
            }
        }
        if !free {
            return Ok(());
        }
        for path in &entered {
            self.visited[*path].insert(node, slot);
        }
        self.bound[slot] = Some(node);
        let done = then(self);
        self.bound[slot] = None;
        for path in &entered {
            self.visited[*path].remove(&node);
        }
        done
    }

    fn look(&mut self) -> Result<(), QueryError> {
        self.looked_at += 1;
        match self.looked_at > MOST_STEPS {
            true => Err(QueryError::Limit(Limit::Memory)),
            false => Ok(()),
        }
    }

    /// Edges of the pattern's direction at a node: row and node at the other end.
    fn around(&self, node: u32, direction: Direction, backwards: bool) -> [&[(u32, u32)]; 2] {
        let (out, into) = (&self.out[node as usize][..], &self.into[node as usize][..]);
        match (direction, backwards) {
            (Direction::Any, _) => [out, into],
            (Direction::Right, false) | (Direction::Left, true) => [out, &[]],
            (Direction::Left, false) | (Direction::Right, true) => [into, &[]],
        }
    }

    /// Goes on from `node`, behind the edges `run`.
    fn walk(
        &mut self,
        at: usize,
        node: u32,
        range: (u32, u32),
        run: &mut Vec<u32>,
        inner: &mut Vec<u32>,
    ) -> Result<(), QueryError> {
        let Step::Hop { path, edge, to, backwards, .. } = self.steps[at] else { return Ok(()) };
        let written = &self.pattern.paths[path].edges[edge];
        let length = run.len() as u32;
        if length >= range.0 && fit(&self.fits[to], node) {
            match self.bound[to] {
                Some(bound) if bound == node => {
                    self.arrive(at, written.slot, run, inner, backwards)?
                }
                Some(_) => {}
                None => {
                    let (run, inner) = (&*run, &*inner);
                    self.bind(to, node, |search| {
                        search.arrive(at, written.slot, run, inner, backwards)
                    })?;
                }
            }
        }
        if length == range.1 {
            return Ok(());
        }
        if length > 0 {
            // The node is one between the ends from here on.
            if !fit(&self.inner_fits[written.slot], node) {
                return Ok(());
            }
            if self.pattern.cycles == Cycles::None {
                if self.visited[path].contains_key(&node) {
                    return Ok(());
                }
                self.visited[path].insert(node, usize::MAX);
            }
            inner.push(node);
        }
        let done = self.onward(at, node, range, run, inner);
        if length > 0 {
            inner.pop();
            if self.pattern.cycles == Cycles::None {
                self.visited[path].remove(&node);
            }
        }
        done
    }

    fn onward(
        &mut self,
        at: usize,
        node: u32,
        range: (u32, u32),
        run: &mut Vec<u32>,
        inner: &mut Vec<u32>,
    ) -> Result<(), QueryError> {
        let Step::Hop { path, edge, backwards, .. } = self.steps[at] else { return Ok(()) };
        let written = &self.pattern.paths[path].edges[edge];
        for side in 0..2 {
            let count = self.around(node, written.direction, backwards)[side].len();
            for place in 0..count {
                let (row, other) = self.around(node, written.direction, backwards)[side][place];
                self.look()?;
                // A loop is seen once, though both its ends are here.
                let again = side == 1 && other == node;
                let taken = self.pattern.cycles != Cycles::All && self.used[row as usize];
                if again || taken || !fit(&self.edge_fits[written.slot], row) {
                    continue;
                }
                self.used[row as usize] = true;
                run.push(row);
                let done = self.walk(at, other, range, run, inner);
                run.pop();
                self.used[row as usize] = false;
                done?;
            }
        }
        Ok(())
    }

    /// One edge of the pattern is found; goes on with the next step.
    fn arrive(
        &mut self,
        at: usize,
        slot: usize,
        run: &[u32],
        inner: &[u32],
        backwards: bool,
    ) -> Result<(), QueryError> {
        let own = &mut self.runs[slot];
        (own.edges, own.inner) = (run.to_vec(), inner.to_vec());
        if backwards {
            own.edges.reverse();
            own.inner.reverse();
        }
        self.step(at + 1)
    }

    fn emit(&mut self) -> Result<(), QueryError> {
        for (all, bound) in self.found_nodes.iter_mut().zip(&self.bound) {
            all.push(bound.unwrap_or_default());
        }
        self.size += self.bound.len();
        for (all, run) in self.found_runs.iter_mut().zip(&self.runs) {
            all.push(run);
            self.size += run.edges.len() + run.inner.len() + 2;
        }
        self.found += 1;
        match self.size > LARGEST_RESULT {
            true => Err(QueryError::Limit(Limit::Memory)),
            false => Ok(()),
        }
    }

    /// Whether the shortest paths can be found without looking at longer ones: one edge in a row,
    /// at least none or one.
    fn is_plain(&self) -> bool {
        let path = &self.pattern.paths[0];
        let [edge] = &path.edges[..] else { return false };
        edge.range.0 <= 1 && path.nodes[0].slot != path.nodes[1].slot
    }

    fn breadth_first(&mut self, all: bool) -> Result<(), QueryError> {
        let path = &self.pattern.paths[0];
        let (edge, start, end) = (&path.edges[0], path.nodes[0].slot, path.nodes[1].slot);
        const FAR: u32 = u32::MAX;
        for first in
            (0..self.nodes as u32).filter(|node| fit(&self.fits[start], *node)).collect::<Vec<_>>()
        {
            let mut distance = vec![FAR; self.nodes];
            // The last edges of shortest paths to each node, and the nodes that they come from.
            let mut before: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.nodes];
            distance[first as usize] = 0;
            let mut level = vec![first];
            for length in 1..=edge.range.1 {
                let mut next = Vec::new();
                for node in level {
                    if length > 1 && !fit(&self.inner_fits[edge.slot], node) {
                        continue;
                    }
                    for side in 0..2 {
                        let count = self.around(node, edge.direction, false)[side].len();
                        for place in 0..count {
                            let (row, other) =
                                self.around(node, edge.direction, false)[side][place];
                            self.look()?;
                            let reached = distance[other as usize];
                            if reached < length || !fit(&self.edge_fits[edge.slot], row) {
                                continue;
                            }
                            if reached == FAR {
                                distance[other as usize] = length;
                                next.push(other);
                            }
                            if all || before[other as usize].is_empty() {
                                before[other as usize].push((row, node));
                            }
                        }
                    }
                }
                level = next;
            }
            for last in 0..self.nodes as u32 {
                let length = distance[last as usize];
                if length == FAR || length < edge.range.0 || !fit(&self.fits[end], last) {
                    continue;
                }
                self.bound[start] = Some(first);
                self.bound[end] = Some(last);
                self.trace(&before, first, last, edge.slot, &mut Run::default())?;
            }
        }
        Ok(())
    }

    /// Shortest paths from their end back to their start.
    fn trace(
        &mut self,
        before: &[Vec<(u32, u32)>],
        first: u32,
        node: u32,
        slot: usize,
        run: &mut Run,
    ) -> Result<(), QueryError> {
        if node == first {
            let mut found = run.clone();
            found.edges.reverse();
            // The end itself was the first to be noted.
            found.inner.reverse();
            self.runs[slot] = found;
            return self.emit();
        }
        for (row, from) in &before[node as usize] {
            self.look()?;
            run.edges.push(*row);
            if *from != first {
                run.inner.push(*from);
            }
            self.trace(before, first, *from, slot, run)?;
            run.edges.pop();
            if *from != first {
                run.inner.pop();
            }
        }
        Ok(())
    }

    /// Of the matches with the same ends those with the fewest edges.
    fn keep_shortest(&mut self, all: bool) {
        let path = &self.pattern.paths[0];
        let start = path.nodes.first().map_or(0, |node| node.slot);
        let end = path.nodes.last().map_or(0, |node| node.slot);
        let lengths: Vec<usize> = (0..self.found)
            .map(|found| self.found_runs.iter().map(|runs| runs.of(found, false).len()).sum())
            .collect();
        let ends = |found: usize| (self.found_nodes[start][found], self.found_nodes[end][found]);
        let mut best: HashMap<(u32, u32), (usize, usize)> = HashMap::new();
        for (found, length) in lengths.iter().enumerate() {
            let best = best.entry(ends(found)).or_insert((*length, found));
            if *length < best.0 {
                *best = (*length, found);
            }
        }
        let kept: Vec<usize> = (0..self.found)
            .filter(|found| {
                let (length, first) = best[&ends(*found)];
                if all { lengths[*found] == length } else { first == *found }
            })
            .collect();
        for nodes in &mut self.found_nodes {
            *nodes = kept.iter().map(|found| nodes[*found]).collect();
        }
        for runs in &mut self.found_runs {
            let mut own = Runs::default();
            for found in &kept {
                let [edges, inner] = [false, true].map(|inner| runs.of(*found, inner).to_vec());
                own.push(&Run { edges, inner });
            }
            *runs = own;
        }
        self.found = kept.len();
    }

    fn arrays(
        &self,
        columns: &[Column],
        nodes: &RecordBatch,
        edges: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, QueryError> {
        let mut arrays = Vec::new();
        for (output, column) in self.pattern.output.iter().zip(columns) {
            arrays.push(match output {
                MatchOutput::Node { slot, column } => {
                    let rows = UInt32Array::from(self.found_nodes[*slot].clone());
                    take(nodes.column(*column), &rows, None).map_err(DataFusionError::from)?
                }
                MatchOutput::Edge { slot, column } => {
                    let rows = UInt32Array::from(self.found_runs[*slot].edges.clone());
                    take(edges.column(*column), &rows, None).map_err(DataFusionError::from)?
                }
                MatchOutput::Path { slot, inner, fold, column: from } => {
                    let (rows, plan) = match inner {
                        true => (nodes, &self.pattern.graph.nodes),
                        false => (edges, &self.pattern.graph.edges),
                    };
                    let (cells, ty) = (Cells::of(rows.column(*from))?, plan.columns[*from].ty);
                    let runs = &self.found_runs[*slot];
                    let fold = |found| folded(*fold, ty, &cells, runs.of(found, *inner));
                    array_of(column.ty, (0..self.found).map(fold))
                }
            });
        }
        Ok(arrays)
    }
}

fn folded(fold: PathFold, ty: Type, cells: &Cells, rows: &[u32]) -> Cell<'static> {
    let holds = |row: &u32| cells.get(*row as usize).as_bool() == Some(true);
    match fold {
        PathFold::Any => Cell::Bool(rows.iter().any(holds)),
        PathFold::All => Cell::Bool(rows.iter().all(holds)),
        PathFold::Map => {
            let values: Vec<String> =
                rows.iter().map(|row| json_of(ty, &cells.get(*row as usize))).collect();
            Cell::text(format!("[{}]", values.join(",")))
        }
    }
}
