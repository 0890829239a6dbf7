//! Graphs: which edges meet which nodes, and what follows from that for every node.

use crate::error::QueryError;
use crate::functions::{Cell, Cells, array_of, convert_cell};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::error::DataFusionError;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vigie_kql::plan::{Column, Graph, GraphNodes};

/// Nodes and edges by their rows.
pub struct Links {
    /// Source and target of each edge, where both are nodes.
    pub ends: Vec<Option<(u32, u32)>>,
    pub nodes: usize,
}

impl Links {
    pub fn new(
        graph: &Graph,
        nodes: &RecordBatch,
        edges: &RecordBatch,
    ) -> Result<Links, QueryError> {
        let keys = Cells::of(nodes.column(graph.key))?;
        let keys: Vec<Cell> = (0..nodes.num_rows()).map(|row| keys.get(row)).collect();
        let mut index = HashMap::with_capacity(keys.len());
        for (row, key) in keys.iter().enumerate() {
            index.entry(key.as_text()).or_insert(row as u32);
        }
        let sources = Cells::of(edges.column(graph.source))?;
        let targets = Cells::of(edges.column(graph.target))?;
        let end = |cells: &Cells, row| index.get(cells.get(row).as_text()).copied();
        let ends = (0..edges.num_rows())
            .map(|row| Some((end(&sources, row)?, end(&targets, row)?)))
            .collect();
        Ok(Links { ends, nodes: keys.len() })
    }

    /// The edges that count, of one to another.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.ends.iter().flatten().map(|(from, to)| (*from as usize, *to as usize))
    }

    /// For each node its edges in one direction: row and node at the other end.
    pub fn adjacent(&self, outgoing: bool) -> Vec<Vec<(u32, u32)>> {
        let mut all = vec![Vec::new(); self.nodes];
        for (row, ends) in self.ends.iter().enumerate() {
            let Some((from, to)) = *ends else { continue };
            let (at, other) = if outgoing { (from, to) } else { (to, from) };
            all[at as usize].push((row as u32, other));
        }
        all
    }

    /// The number of each node's component, in the order in which rows meet them.
    fn components(&self, strong: bool) -> Vec<i64> {
        let raw = if strong { self.strong() } else { self.weak() };
        let mut numbers: HashMap<usize, i64> = HashMap::new();
        let number = |component| {
            let next = numbers.len() as i64;
            *numbers.entry(component).or_insert(next)
        };
        raw.into_iter().map(number).collect()
    }

    /// A node that stands for the component of each.
    fn weak(&self) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.nodes).collect();
        fn root(parent: &mut [usize], mut at: usize) -> usize {
            while parent[at] != at {
                parent[at] = parent[parent[at]];
                at = parent[at];
            }
            at
        }
        for (from, to) in self.pairs() {
            let (a, b) = (root(&mut parent, from), root(&mut parent, to));
            parent[a.max(b)] = a.min(b);
        }
        (0..self.nodes).map(|at| root(&mut parent, at)).collect()
    }

    /// Tarjan's algorithm, without recursion: a path may be as long as the graph.
    fn strong(&self) -> Vec<usize> {
        const NEW: usize = usize::MAX;
        let next = self.adjacent(true);
        let mut order = vec![NEW; self.nodes];
        let mut low = vec![0; self.nodes];
        let mut component = vec![NEW; self.nodes];
        let (mut met, mut stack) = (0, Vec::new());
        for first in 0..self.nodes {
            if order[first] != NEW {
                continue;
            }
            let mut walk = vec![(first, 0)];
            while let Some((at, edge)) = walk.pop() {
                if edge == 0 {
                    (order[at], low[at]) = (met, met);
                    met += 1;
                    stack.push(at);
                } else {
                    let child = next[at][edge - 1].1 as usize;
                    if component[child] == NEW {
                        low[at] = low[at].min(low[child]);
                    }
                }
                let unseen = (edge..next[at].len()).find(|edge| {
                    let child = next[at][*edge].1 as usize;
                    if order[child] != NEW && component[child] == NEW {
                        low[at] = low[at].min(order[child]);
                    }
                    order[child] == NEW
                });
                if let Some(edge) = unseen {
                    walk.push((at, edge + 1));
                    walk.push((next[at][edge].1 as usize, 0));
                } else if low[at] == order[at] {
                    while let Some(member) = stack.pop() {
                        component[member] = at;
                        if member == at {
                            break;
                        }
                    }
                }
            }
        }
        component
    }
}

/// The result's columns.
pub fn graph_nodes(
    graph: &Graph,
    make: &GraphNodes,
    columns: &[Column],
    nodes: &RecordBatch,
    edges: &RecordBatch,
) -> Result<Vec<ArrayRef>, QueryError> {
    if let GraphNodes::Complete { keys, values } = make {
        return complete(graph, keys, *values, columns, nodes, edges);
    }
    let links = Links::new(graph, nodes, edges)?;
    let mut arrays = nodes.columns()[..graph.nodes.columns.len()].to_vec();
    match make {
        GraphNodes::Degrees => {
            let (mut incoming, mut outgoing) = (vec![0i64; links.nodes], vec![0i64; links.nodes]);
            for (from, to) in links.pairs() {
                outgoing[from] += 1;
                incoming[to] += 1;
            }
            arrays.push(Arc::new(Int64Array::from(incoming)));
            arrays.push(Arc::new(Int64Array::from(outgoing)));
        }
        GraphNodes::Components { strong } => {
            arrays.push(Arc::new(Int64Array::from(links.components(*strong))));
        }
        GraphNodes::Complete { .. } => {}
    }
    Ok(arrays)
}

/// The first row of each key, then the ends of edges that have none.
fn complete(
    graph: &Graph,
    keys: &[usize],
    values: (usize, usize),
    columns: &[Column],
    nodes: &RecordBatch,
    edges: &RecordBatch,
) -> Result<Vec<ArrayRef>, QueryError> {
    let known = Cells::of(nodes.column(graph.key))?;
    let known: Vec<Cell> = (0..nodes.num_rows()).map(|row| known.get(row)).collect();
    let ends = [(graph.source, values.0), (graph.target, values.1)];
    let ends = ends.map(|(text, value)| {
        let ty = graph.edges.columns[value].ty;
        Ok::<_, QueryError>((Cells::of(edges.column(text))?, Cells::of(edges.column(value))?, ty))
    });
    let [source, target] = ends;
    let ends = [source?, target?];
    let mut met: HashSet<String> = HashSet::new();
    let mut rows: Vec<u32> = Vec::new();
    for (row, key) in known.iter().enumerate() {
        if met.insert(key.as_text().to_owned()) {
            rows.push(row as u32);
        }
    }
    // Edge and end.
    let mut missing: Vec<(usize, usize)> = Vec::new();
    for row in 0..edges.num_rows() {
        for (end, (texts, _, _)) in ends.iter().enumerate() {
            if met.insert(texts.get(row).as_text().to_owned()) {
                missing.push((row, end));
            }
        }
    }
    let rows = UInt32Array::from(rows);
    let mut arrays = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let taken = take(nodes.column(at), &rows, None).map_err(DataFusionError::from)?;
        let taken = Cells::of(&taken)?;
        let own = (0..rows.len()).map(|row| taken.get(row));
        let added = missing.iter().map(|(row, end)| {
            let (texts, values, ty) = &ends[*end];
            if at == graph.key {
                texts.get(*row)
            } else if keys.contains(&at) {
                convert_cell(*ty, column.ty, &values.get(*row))
            } else {
                Cell::Null
            }
        });
        arrays.push(array_of(column.ty, own.chain(added)));
    }
    Ok(arrays)
}

/// The edges that count.
pub fn graph_edges(
    graph: &Graph,
    nodes: &RecordBatch,
    edges: &RecordBatch,
) -> Result<Vec<ArrayRef>, QueryError> {
    let links = Links::new(graph, nodes, edges)?;
    let rows = links.ends.iter().enumerate().filter(|(_, ends)| ends.is_some());
    let rows = UInt32Array::from_iter_values(rows.map(|(row, _)| row as u32));
    let width = graph.edges.columns.len();
    let taken = edges.columns()[..width].iter().map(|array| take(array, &rows, None));
    Ok(taken.collect::<Result<_, _>>().map_err(DataFusionError::from)?)
}
