//! `graph-match`, `graph-shortest-paths`: a pattern of paths to a plan of its matches. What it asks
//! of one node or one edge goes to their plans, so that the engine looks for shapes only and
//! everything else is bound as in any other operator.

use super::graph_patterns::{Element, Elements, Pattern, PatternNames};
use super::join::{renumber, setting};
use super::names::Names;
use super::{Bind, Binder, Env, Failed, Row, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::plan_text::visit;
use crate::syntax::{self, ExprKind as Syntax, GraphPath, Name, Settings};

/// Most edges of a match: those in a row counted one by one.
const LONGEST: u32 = 1024;

impl Binder<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn graph_match(
        &mut self,
        graph: Graph,
        shortest: bool,
        options: &Settings,
        paths: &[GraphPath],
        predicate: Option<&syntax::Expr>,
        project: &[syntax::Expr],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let operator = if shortest { "graph-shortest-paths" } else { "graph-match" };
        let cycles = match setting(options, "cycles").unwrap_or("unique_edges") {
            "all" => Cycles::All,
            "unique_edges" => Cycles::UniqueEdges,
            "none" => Cycles::None,
            other => {
                let message = format!("'{operator}' operator: '{other}' is no kind of cycles");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let shortest = match (shortest, setting(options, "output").unwrap_or("any")) {
            (false, _) => None,
            (true, "any") => Some(false),
            (true, "all") => Some(true),
            (true, other) => {
                let message = format!("'{operator}' operator: '{other}' is no kind of output");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let long = paths.iter().flat_map(|path| &path.edges).filter(|e| e.range.is_some()).count();
        if shortest.is_some() && (paths.len() != 1 || long != 1) {
            let message =
                format!("'{operator}' operator: one path with one variable edge is expected");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        if project.is_empty() {
            let message = format!("'{operator}' operator: 'project' says what a match gives");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        let length = |path: &GraphPath| -> u32 {
            path.edges.iter().map(|edge| edge.range.map_or(1, |(_, most)| most)).sum()
        };
        if paths.iter().map(length).sum::<u32>() > LONGEST {
            let message = format!("'{operator}' operator: a pattern has at most {LONGEST} edges");
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        let (mut paths, names) = self.slots(paths, operator)?;
        let written: Vec<&syntax::Expr> = predicate.into_iter().chain(project).collect();
        let nodes = self.with_degrees(&graph, &written);
        let mut pattern = Pattern {
            names,
            nodes: Elements { plan: nodes, added: Vec::new() },
            edges: Elements { plan: graph.edges.clone(), added: Vec::new() },
            columns: Vec::new(),
            output: Vec::new(),
        };
        let mut residual = Vec::new();
        for conjunct in predicate.map(conjuncts).unwrap_or_default() {
            let mut conjunct = conjunct.clone();
            self.rewrite(&mut conjunct, &mut pattern, graph.key, env)?;
            let bound = self.condition(&conjunct, &Row::of(&pattern.columns, operator), env)?;
            if !pattern.push_down(&bound, &mut paths) {
                residual.push(bound);
            }
        }
        let mut items = Vec::new();
        let mut given = Names::default();
        let mut result = Vec::new();
        let mut failed = false;
        for item in project {
            let (name, value) = match &item.kind {
                Syntax::Named { names, value } => {
                    (names.first().map(|name| name.text.clone()), &**value)
                }
                _ => (self.default_name(item, env), item),
            };
            let mut value = value.clone();
            let bound = self
                .rewrite(&mut value, &mut pattern, graph.key, env)
                .and_then(|()| self.scalar(&value, &Row::of(&pattern.columns, operator), env));
            let Ok(bound) = bound else {
                failed = true;
                continue;
            };
            result.push(Column { name: given.give(name.as_deref()), ty: bound.ty });
            items.push(bound);
        }
        if failed {
            return Err(Failed);
        }
        // What only a pushed condition read is no column of a match.
        let mut used: Vec<usize> = Vec::new();
        residual.iter().chain(&items).for_each(|value| visit(value, &mut |at| used.push(at)));
        used.sort_unstable();
        used.dedup();
        let place = |at: usize| used.binary_search(&at).unwrap_or_default();
        residual.iter_mut().chain(&mut items).for_each(|value| renumber(value, &place));
        let columns = used.iter().map(|at| pattern.columns[*at].clone()).collect::<Vec<_>>();
        let output = used.iter().map(|at| pattern.output[*at].clone()).collect();
        let (nodes, edges) = (pattern.nodes.finish(), pattern.edges.finish());
        let graph = Graph { edges, nodes, ..graph };
        let found = GraphMatch { graph, paths, cycles, shortest, output };
        let mut matched = plan(columns.clone(), Node::GraphMatch(Box::new(found)));
        for predicate in residual {
            matched = plan(columns.clone(), Node::Filter { input: matched, predicate });
        }
        Ok(plan(result, Node::Project { input: matched, items }))
    }

    /// Numbers for the nodes and edges of a pattern, and what its names stand for.
    fn slots(
        &mut self,
        written: &[GraphPath],
        operator: &str,
    ) -> Bind<(Vec<MatchPath>, PatternNames)> {
        let mut names: Vec<(String, Element)> = Vec::new();
        let (mut node_slots, mut edge_slots) = (0, 0);
        let mut paths = Vec::new();
        for path in written {
            let mut nodes = Vec::new();
            for name in &path.nodes {
                let known = name.as_ref().and_then(|name| {
                    names.iter().find(|(known, _)| *known == name.text).map(|(_, slot)| *slot)
                });
                let slot = match (known, name) {
                    (Some(Element::Node(slot)), _) => slot,
                    (Some(Element::Edge(..)), Some(name)) => {
                        return self.twice(name, operator);
                    }
                    _ => {
                        node_slots += 1;
                        if let Some(name) = name {
                            names.push((name.text.clone(), Element::Node(node_slots - 1)));
                        }
                        node_slots - 1
                    }
                };
                nodes.push(MatchNode { slot, filters: Vec::new() });
            }
            let mut edges = Vec::new();
            for step in &path.edges {
                let slot = edge_slots;
                edge_slots += 1;
                if let Some(name) = &step.name {
                    if names.iter().any(|(known, _)| *known == name.text) {
                        return self.twice(name, operator);
                    }
                    names.push((name.text.clone(), Element::Edge(slot, step.range.is_some())));
                }
                edges.push(MatchEdge {
                    slot,
                    direction: step.direction,
                    range: step.range.unwrap_or((1, 1)),
                    filters: Vec::new(),
                    inner_filters: Vec::new(),
                });
            }
            paths.push(MatchPath { nodes, edges });
        }
        Ok((paths, names))
    }

    fn twice<T>(&mut self, name: &Name, operator: &str) -> Bind<T> {
        let message = format!(
            "'{operator}' operator: the name '{}' has another element of the pattern",
            name.text
        );
        self.fail(diagnostics::NOT_ALLOWED, name.span, message)
    }
}

/// The conditions that must all hold.
fn conjuncts(written: &syntax::Expr) -> Vec<&syntax::Expr> {
    match &written.kind {
        Syntax::Chain { operator: "and", operands } => {
            operands.iter().flat_map(conjuncts).collect()
        }
        _ => vec![written],
    }
}
