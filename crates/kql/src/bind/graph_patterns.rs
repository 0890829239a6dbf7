//! What a graph pattern's names stand for. What is asked of one node or one edge becomes a column
//! of the nodes' or the edges' plan; a match gives columns with hidden names.

use super::graphs::{DEGREE_IN, DEGREE_OUT, KEY, identity, name_functions, no_labels};
use super::join::renumber;
use super::summarize::children;
use super::{Bind, Binder, Env, Failed, Row, column, plan};
use crate::diagnostics::{self, Diagnostic};
use crate::plan::*;
use crate::plan_text::visit;
use crate::syntax::{self, ExprKind as Syntax};
use crate::types::Type;

/// What a name of a pattern stands for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Element {
    Node(usize),
    /// With whether it may be several edges in a row.
    Edge(usize, bool),
}

/// Names of a pattern and what they stand for.
pub(super) type PatternNames = Vec<(String, Element)>;

/// A pattern on its way to a plan.
pub(super) struct Pattern {
    pub(super) names: Vec<(String, Element)>,
    pub(super) nodes: Elements,
    pub(super) edges: Elements,
    /// What a match gives: hidden names that the rewritten expressions use, and where from.
    pub(super) columns: Vec<Column>,
    pub(super) output: Vec<MatchOutput>,
}

/// The nodes' or the edges' plan with the columns that the pattern adds.
pub(super) struct Elements {
    pub(super) plan: Plan,
    pub(super) added: Vec<Expr>,
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

    pub(super) fn finish(self) -> Plan {
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
    /// Names of the pattern and its functions become names of the match's columns.
    pub(super) fn rewrite(
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
    pub(super) fn push_down(&mut self, condition: &Expr, paths: &mut [MatchPath]) -> bool {
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
