//! Graphs, and operators that make, narrow and show them. A graph is two plans, nodes and edges,
//! that meet by a key in a hidden column of text.

use super::join::{setting, unite};
use super::names::Names;
use super::summarize::children;
use super::{Bind, Binder, Env, Failed, Row, call, cast, column, columns, literal, plan};
use crate::diagnostics::{self, Diagnostic, Span};
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, GraphTable, Name, Settings};
use crate::types::{Type, Value};
use std::sync::Arc;

/// Functions that graph patterns have.
pub(crate) const FUNCTIONS: &[&str] =
    &["all", "any", "inner_nodes", "labels", "map", "node_degree_in", "node_degree_out", "node_id"];

/// Hidden columns: keys of nodes, keys of an edge's ends, degrees.
pub(super) const KEY: &str = "\u{1}key";
const SOURCE: &str = "\u{1}source";
const TARGET: &str = "\u{1}target";
pub(super) const DEGREE_IN: &str = "\u{1}in";
pub(super) const DEGREE_OUT: &str = "\u{1}out";

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

    /// The nodes, with their degrees where a written expression asks for them.
    pub(super) fn with_degrees(&mut self, graph: &Graph, written: &[&syntax::Expr]) -> Plan {
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
}

/// Functions without an argument, about the node at hand.
pub(super) fn name_functions(written: &mut syntax::Expr) {
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
pub(super) fn no_labels() -> Syntax {
    Syntax::Literal(Value::Dynamic("[]".into()))
}

fn asks_degree(written: &mut syntax::Expr) -> bool {
    let own = matches!(&written.kind, Syntax::Call { function, .. }
        if matches!(function.text.as_str(), "node_degree_in" | "node_degree_out"));
    own || children(written).into_iter().any(asks_degree)
}

/// The number that stands for a node.
pub(super) fn identity(key: usize) -> Expr {
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
