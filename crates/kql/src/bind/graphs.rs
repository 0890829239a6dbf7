//! Operators on graphs. A graph is two plans, nodes and edges, that meet by a key in a hidden column
//! of text; what a pattern asks of one node or one edge becomes a column of those plans, so that the
//! engine looks for shapes only and everything else is bound as in any other operator.

use super::join::{renumber, setting, unite};
use super::names::Names;
use super::summarize::children;
use super::{Bind, Binder, Env, Failed, Row, call, cast, column, columns, literal, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::plan_text::visit;
use crate::syntax::{self, ExprKind as Syntax, GraphPath, GraphTable, Name, Settings};
use crate::types::{Type, Value};
use std::sync::Arc;

/// Functions that graph patterns have.
pub(crate) const FUNCTIONS: &[&str] =
    &["all", "any", "inner_nodes", "labels", "map", "node_degree_in", "node_degree_out", "node_id"];

/// Most edges of a match: those in a row counted one by one.
const LONGEST: u32 = 1024;

/// Hidden columns: keys of nodes, keys of an edge's ends, degrees.
const KEY: &str = "\u{1}key";
const SOURCE: &str = "\u{1}source";
const TARGET: &str = "\u{1}target";
const DEGREE_IN: &str = "\u{1}in";
const DEGREE_OUT: &str = "\u{1}out";

/// What a name of a pattern stands for.
#[derive(Clone, Copy, PartialEq)]
enum Element {
    Node(usize),
    /// With whether it may be several edges in a row.
    Edge(usize, bool),
}

/// Names of a pattern and what they stand for.
type PatternNames = Vec<(String, Element)>;

/// A pattern on its way to a plan.
struct Pattern {
    names: Vec<(String, Element)>,
    nodes: Elements,
    edges: Elements,
    /// What a match gives: hidden names that the rewritten expressions use, and where from.
    columns: Vec<Column>,
    output: Vec<MatchOutput>,
}

/// The nodes' or the edges' plan with the columns that the pattern adds.
struct Elements {
    plan: Plan,
    added: Vec<Expr>,
}

impl Elements {
    /// Adds a value; its column. The same value twice is one column.
    fn add(&mut self, value: Expr) -> usize {
        if let ExprKind::Column(at) = value.kind {
            return at;
        }
        let found = self.added.iter().position(|known| *known == value);
        let at = found.unwrap_or_else(|| {
            self.added.push(value);
            self.added.len() - 1
        });
        self.plan.columns.len() + at
    }

    fn ty(&self, at: usize) -> Type {
        let own = self.plan.columns.len();
        if at < own { self.plan.columns[at].ty } else { self.added[at - own].ty }
    }

    fn finish(self) -> Plan {
        if self.added.is_empty() {
            return self.plan;
        }
        let mut all = self.plan.columns.clone();
        let mut items: Vec<Expr> = all.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        for (at, value) in self.added.into_iter().enumerate() {
            all.push(Column { name: format!("\u{1}{at}"), ty: value.ty });
            items.push(value);
        }
        plan(all, Node::Project { input: self.plan, items })
    }
}

impl Binder<'_> {
    /// Evaluated once, as nodes and edges are read by each other.
    fn once(&mut self, input: Plan) -> Plan {
        self.shared += 1;
        plan(input.columns.clone(), Node::Shared { id: self.shared, plan: Arc::new(input) })
    }

    pub(super) fn make_graph(
        &mut self,
        input: Plan,
        ends: [&Name; 2],
        tables: &[(syntax::Expr, Name)],
        node_id: Option<&Name>,
        env: &Env,
    ) -> Bind<Plan> {
        let mut all = input.columns.clone();
        let width = all.len();
        let mut items: Vec<Expr> = all.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
        let mut places = [0; 2];
        for ((end, hidden), place) in ends.into_iter().zip([SOURCE, TARGET]).zip(&mut places) {
            let found = self.scalar(
                &syntax::Expr { kind: Syntax::Name(end.text.clone()), span: end.span },
                &Row::of(&input.columns, "make-graph"),
                env,
            )?;
            let ExprKind::Column(at) = found.kind else {
                let message = format!("'make-graph' operator: '{}' is no column", end.text);
                return self.fail(diagnostics::UNKNOWN_NAME, end.span, message);
            };
            if found.ty == Type::Dynamic {
                let message = "'make-graph' operator: a key of type dynamic is not allowed";
                return self.fail(diagnostics::TYPE_MISMATCH, end.span, message);
            }
            *place = at;
            all.push(Column { name: hidden.to_owned(), ty: Type::String });
            items.push(cast(found, Type::String));
        }
        let key_type = input.columns[places[0]].ty;
        let edges = self.once(plan(all, Node::Project { input, items }));
        let mut inputs = Vec::new();
        let mut names: Vec<Column> = Vec::new();
        for (table, key) in tables {
            let bound = self.nested(table.span, |binder| binder.tabular(table, env, None))?;
            let Some(at) = bound.columns.iter().position(|c| c.name == key.text) else {
                let message =
                    format!("'make-graph' operator: the nodes have no column '{}'", key.text);
                let known: Vec<&str> = bound.columns.iter().map(|c| c.name.as_str()).collect();
                let diagnostic = Diagnostic::new(diagnostics::UNKNOWN_NAME, key.span, message)
                    .suggest(&key.text, known.into_iter());
                self.diagnostics.push(diagnostic);
                return Err(Failed);
            };
            names.push(bound.columns[at].clone());
            inputs.push((String::new(), keyed(bound, at)));
        }
        if let Some(name) = node_id {
            names.push(Column { name: name.text.clone(), ty: key_type });
        }
        if inputs.is_empty() {
            let empty = plan(names.clone(), Node::Values { rows: Vec::new() });
            let key = literal(Value::String("".into()));
            let mut columns = empty.columns.clone();
            let mut items: Vec<Expr> =
                columns.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
            columns.push(Column { name: KEY.to_owned(), ty: Type::String });
            items.push(key);
            inputs.push((String::new(), plan(columns, Node::Project { input: empty, items })));
        }
        let nodes = unite(inputs, false, None);
        let place = |name: &str, ty| {
            let typed = format!("{name}_{ty}");
            nodes.columns.iter().position(|c| c.ty == ty && (c.name == name || c.name == typed))
        };
        let keys = names.iter().filter_map(|key| place(&key.name, key.ty)).collect();
        let key = place(KEY, Type::String).unwrap_or_default();
        let columns = nodes.columns.clone();
        let graph = Graph { edges: edges.clone(), source: width, target: width + 1, nodes, key };
        let values = (places[0], places[1]);
        let make = GraphNodes::Complete { keys, values };
        let nodes = plan(columns, Node::GraphNodes { graph: Box::new(graph), make });
        let nodes = self.once(nodes);
        let graph = Graph { edges, source: width, target: width + 1, nodes, key };
        Ok(plan(Vec::new(), Node::Graph(Box::new(graph))))
    }

    pub(super) fn graph_where(
        &mut self,
        mut graph: Graph,
        edges: bool,
        predicate: &syntax::Expr,
        env: &Env,
    ) -> Bind<Plan> {
        let operator = if edges { "graph-where-edges" } else { "graph-where-nodes" };
        let mut predicate = predicate.clone();
        let nodes = self.with_degrees(&graph, &[&predicate]);
        let input = if edges { graph.edges.clone() } else { nodes };
        let columns = input.columns.clone();
        if !edges {
            name_functions(&mut predicate);
        }
        let predicate = self.condition(&predicate, &Row::of(&columns, operator), env)?;
        let mut filtered = plan(columns, Node::Filter { input, predicate });
        if !edges {
            // Degrees change with the nodes that are left.
            let own = graph.nodes.columns.iter().enumerate();
            let own = own.map(|(at, c)| (c.name.clone(), at)).collect();
            filtered = self.pick(filtered, own);
        }
        let filtered = self.once(filtered);
        *(if edges { &mut graph.edges } else { &mut graph.nodes }) = filtered;
        Ok(plan(Vec::new(), Node::Graph(Box::new(graph))))
    }

    pub(super) fn mark_components(
        &mut self,
        mut graph: Graph,
        options: &Settings,
        span: Span,
    ) -> Bind<Plan> {
        let strong = match setting(options, "kind").unwrap_or("weak") {
            "weak" => false,
            "strong" => true,
            other => {
                let message = format!("'graph-mark-components' operator: '{other}' is no kind");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let name = setting(options, "with_component_id").unwrap_or("ComponentId");
        let mut columns = graph.nodes.columns.clone();
        let name = Names::taken(&columns).give(Some(name));
        columns.push(Column { name, ty: Type::Long });
        let make = GraphNodes::Components { strong };
        let nodes = plan(columns, Node::GraphNodes { graph: Box::new(graph.clone()), make });
        graph.nodes = self.once(nodes);
        Ok(plan(Vec::new(), Node::Graph(Box::new(graph))))
    }

    /// The tables of nodes and edges. Those with a name are there for later statements too.
    pub(super) fn graph_to_table(&mut self, graph: &Graph, tables: &[GraphTable]) -> Bind<Plan> {
        let mut branches = Vec::new();
        for table in tables {
            let (ids, input) = match table.edges {
                false => (vec![("with_node_id", graph.key)], graph.nodes.clone()),
                true => {
                    let edges = Node::GraphEdges(Box::new(graph.clone()));
                    let ids =
                        vec![("with_source_id", graph.source), ("with_target_id", graph.target)];
                    (ids, plan(graph.edges.columns.clone(), edges))
                }
            };
            let mut names = Names::default();
            let (mut columns, mut items) = (Vec::new(), Vec::new());
            for (option, at) in ids {
                if let Some(name) = setting(&table.options, option) {
                    columns.push(Column { name: names.give(Some(name)), ty: Type::Long });
                    items.push(identity(at));
                }
            }
            for (at, c) in input.columns.iter().enumerate().filter(|(_, c)| !c.is_hidden()) {
                columns.push(Column { name: names.give(Some(&c.name)), ty: c.ty });
                items.push(column(at, c.ty));
            }
            let rows = plan(columns, Node::Project { input, items });
            let name = table.name.as_ref().map(|name| name.text.clone()).unwrap_or_default();
            if let Some(name) = &table.name {
                let rows = self.once(rows.clone());
                self.exported.push((name.text.clone(), rows.clone()));
                branches.push((name.text.clone(), rows));
                continue;
            }
            branches.push((name, rows));
        }
        if branches.len() == 1 {
            return Ok(branches.remove(0).1);
        }
        let columns = branches.last().map_or(Vec::new(), |(_, last)| last.columns.clone());
        let input = plan(Vec::new(), Node::Values { rows: Vec::new() });
        Ok(plan(columns, Node::Batch { input, branches }))
    }

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

    /// The nodes, with their degrees where a written expression asks for them.
    fn with_degrees(&mut self, graph: &Graph, written: &[&syntax::Expr]) -> Plan {
        if !written.iter().any(|written| asks_degree(&mut (*written).clone())) {
            return graph.nodes.clone();
        }
        let mut columns = graph.nodes.columns.clone();
        for name in [DEGREE_IN, DEGREE_OUT] {
            columns.push(Column { name: name.to_owned(), ty: Type::Long });
        }
        let make = GraphNodes::Degrees;
        let nodes = plan(columns, Node::GraphNodes { graph: Box::new(graph.clone()), make });
        self.once(nodes)
    }

    /// Names of the pattern and its functions become names of the match's columns.
    fn rewrite(
        &mut self,
        written: &mut syntax::Expr,
        pattern: &mut Pattern,
        key: usize,
        env: &Env,
    ) -> Bind<()> {
        let span = written.span;
        match &written.kind {
            Syntax::Member { base, name } => {
                if let Some(element) = base.name().and_then(|name| pattern.find(name)) {
                    let place = pattern.property(element, &name.text);
                    let Some((output, ty)) = place else {
                        let what = if let Element::Node(_) = element { "node" } else { "edge" };
                        let message =
                            format!("a {what} of the graph has no property '{}'", name.text);
                        let known = pattern.properties(element);
                        let diagnostic =
                            Diagnostic::new(diagnostics::UNKNOWN_NAME, name.span, message)
                                .suggest(&name.text, known);
                        self.diagnostics.push(diagnostic);
                        return Err(Failed);
                    };
                    written.kind = pattern.output(output, ty);
                    return Ok(());
                }
            }
            Syntax::Call { function, arguments } => {
                let element =
                    |argument: &syntax::Expr| argument.name().and_then(|name| pattern.find(name));
                match (function.text.as_str(), &arguments[..]) {
                    ("map" | "any" | "all", [over, inner]) => {
                        let (over, inner_nodes) = match &over.kind {
                            Syntax::Call { function, arguments }
                                if function.text == "inner_nodes" && arguments.len() == 1 =>
                            {
                                (&arguments[0], true)
                            }
                            _ => (over, false),
                        };
                        let Some(Element::Edge(slot, _)) = element(over) else {
                            let message = "an edge of the pattern is expected";
                            return self.fail(diagnostics::ARGUMENTS, over.span, message);
                        };
                        let fold = match function.text.as_str() {
                            "map" => PathFold::Map,
                            "any" => PathFold::Any,
                            _ => PathFold::All,
                        };
                        let mut inner = inner.clone();
                        let elements =
                            if inner_nodes { &mut pattern.nodes } else { &mut pattern.edges };
                        name_functions(&mut inner);
                        let columns = elements.plan.columns.clone();
                        let row = Row::of(&columns, "graph-match");
                        let value = match fold {
                            PathFold::Map => self.scalar(&inner, &row, env)?,
                            _ => self.condition(&inner, &row, env)?,
                        };
                        let column = elements.add(value);
                        let ty = if fold == PathFold::Map { Type::Dynamic } else { Type::Bool };
                        let output = MatchOutput::Path { slot, inner: inner_nodes, fold, column };
                        written.kind = pattern.output(output, ty);
                        return Ok(());
                    }
                    ("node_degree_in" | "node_degree_out" | "node_id", [of]) => {
                        let Some(Element::Node(slot)) = element(of) else {
                            let message = "a node of the pattern is expected";
                            return self.fail(diagnostics::ARGUMENTS, of.span, message);
                        };
                        let hidden = match function.text.as_str() {
                            "node_degree_in" => DEGREE_IN,
                            "node_degree_out" => DEGREE_OUT,
                            _ => KEY,
                        };
                        let columns = &pattern.nodes.plan.columns;
                        let at = columns.iter().position(|c| c.name == hidden).unwrap_or(key);
                        let column = match hidden {
                            KEY => pattern.nodes.add(identity(key)),
                            _ => at,
                        };
                        written.kind =
                            pattern.output(MatchOutput::Node { slot, column }, Type::Long);
                        return Ok(());
                    }
                    ("labels", [of]) if element(of).is_some() => {
                        written.kind = no_labels();
                        return Ok(());
                    }
                    ("inner_nodes", _) => {
                        let message = "inner_nodes() stands inside of map(), any() or all()";
                        return self.fail(diagnostics::NOT_ALLOWED, span, message);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        for child in children(written) {
            self.rewrite(child, pattern, key, env)?;
        }
        Ok(())
    }
}

impl Pattern {
    fn find(&self, name: &str) -> Option<Element> {
        self.names.iter().find(|(known, _)| known == name).map(|(_, element)| *element)
    }

    fn plan(&self, element: Element) -> &Plan {
        match element {
            Element::Node(_) => &self.nodes.plan,
            Element::Edge(..) => &self.edges.plan,
        }
    }

    fn properties(&self, element: Element) -> impl Iterator<Item = &str> {
        let seen = self.plan(element).columns.iter().filter(|c| !c.is_hidden());
        seen.map(|c| c.name.as_str())
    }

    /// The column of a node or an edge; of several edges in a row an array.
    fn property(&self, element: Element, name: &str) -> Option<(MatchOutput, Type)> {
        let columns = &self.plan(element).columns;
        let column = columns.iter().position(|c| c.name == name)?;
        let ty = columns[column].ty;
        Some(match element {
            Element::Node(slot) => (MatchOutput::Node { slot, column }, ty),
            Element::Edge(slot, false) => (MatchOutput::Edge { slot, column }, ty),
            Element::Edge(slot, true) => {
                let fold = PathFold::Map;
                (MatchOutput::Path { slot, inner: false, fold, column }, Type::Dynamic)
            }
        })
    }

    /// A name for what a match gives.
    fn output(&mut self, output: MatchOutput, ty: Type) -> Syntax {
        let found = self.output.iter().position(|known| *known == output);
        let at = found.unwrap_or_else(|| {
            self.columns.push(Column { name: format!("\u{1}{}", self.columns.len()), ty });
            self.output.push(output);
            self.output.len() - 1
        });
        Syntax::Name(self.columns[at].name.clone())
    }

    /// Gives a condition to the node or the edge that it is about. Whether it is about one only.
    fn push_down(&mut self, condition: &Expr, paths: &mut [MatchPath]) -> bool {
        let mut read = Vec::new();
        visit(condition, &mut |at| read.push(self.output[at].clone()));
        if let (ExprKind::Column(_), Some(MatchOutput::Path { slot, inner, fold, column })) =
            (&condition.kind, read.first())
        {
            if *fold != PathFold::All {
                return false;
            }
            for edge in paths.iter_mut().flat_map(|path| &mut path.edges) {
                if edge.slot == *slot {
                    let filters = if *inner { &mut edge.inner_filters } else { &mut edge.filters };
                    filters.push(*column);
                }
            }
            return true;
        }
        let source = |output: &MatchOutput| match output {
            MatchOutput::Node { slot, column } => Some((false, *slot, *column)),
            MatchOutput::Edge { slot, column } => Some((true, *slot, *column)),
            MatchOutput::Path { .. } => None,
        };
        let Some((edge, slot, _)) = read.first().and_then(source) else { return false };
        let same = |output| source(output).is_some_and(|(e, s, _)| (e, s) == (edge, slot));
        if !read.iter().all(same) {
            return false;
        }
        let mut own = condition.clone();
        let place = |at: usize| source(&self.output[at]).map_or(0, |(_, _, column)| column);
        // A property that an earlier condition added cannot be read beside it.
        let elements = if edge { &self.edges } else { &self.nodes };
        let mut plain = true;
        visit(&own, &mut |at| plain &= place(at) < elements.plan.columns.len());
        if !plain {
            return false;
        }
        renumber(&mut own, &place);
        let column = if edge { self.edges.add(own) } else { self.nodes.add(own) };
        debug_assert_eq!(
            if edge { self.edges.ty(column) } else { self.nodes.ty(column) },
            Type::Bool
        );
        for path in paths {
            for found in path.edges.iter_mut().filter(|e| edge && e.slot == slot) {
                found.filters.push(column);
            }
            for found in path.nodes.iter_mut().filter(|n| !edge && n.slot == slot) {
                found.filters.push(column);
            }
        }
        true
    }
}

/// Functions without an argument, about the node at hand.
fn name_functions(written: &mut syntax::Expr) {
    if let Syntax::Call { function, arguments } = &mut written.kind
        && arguments.is_empty()
    {
        match function.text.as_str() {
            "node_degree_in" => written.kind = Syntax::Name(DEGREE_IN.to_owned()),
            "node_degree_out" => written.kind = Syntax::Name(DEGREE_OUT.to_owned()),
            "node_id" => {
                let name = Syntax::Name(KEY.to_owned());
                function.text = "hash".to_owned();
                arguments.push(syntax::Expr { kind: name, span: written.span });
            }
            "labels" => written.kind = no_labels(),
            _ => {}
        }
        return;
    }
    for child in children(written) {
        name_functions(child);
    }
}

/// Graphs that a query makes have none.
fn no_labels() -> Syntax {
    Syntax::Literal(Value::Dynamic("[]".into()))
}

fn asks_degree(written: &mut syntax::Expr) -> bool {
    let own = matches!(&written.kind, Syntax::Call { function, .. }
        if matches!(function.text.as_str(), "node_degree_in" | "node_degree_out"));
    own || children(written).into_iter().any(asks_degree)
}

/// The number that stands for a node.
fn identity(key: usize) -> Expr {
    call(Type::Long, "hash", vec![column(key, Type::String)])
}

/// A table of nodes with the text of its key behind.
fn keyed(input: Plan, key: usize) -> Plan {
    let input = columns::without_hidden(input);
    let mut all = input.columns.clone();
    let mut items: Vec<Expr> = all.iter().enumerate().map(|(at, c)| column(at, c.ty)).collect();
    items.push(cast(column(key, all[key].ty), Type::String));
    all.push(Column { name: KEY.to_owned(), ty: Type::String });
    plan(all, Node::Project { input, items })
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
