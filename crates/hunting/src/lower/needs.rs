//! Which columns of each operator somebody reads. DataFusion finds that out for itself, but it takes
//! longer over wide plans than over narrow ones, and what is collected before DataFusion sees the rest
//! of the query (window functions) has to know it.

use std::collections::{BTreeSet, HashMap};
use vigie_kql::plan::{Expr, Node, Plan};
use vigie_kql::plan_text::visit;

/// Columns by the operator that gives them; an operator that is missing gives all.
#[derive(Default)]
pub struct Needs(HashMap<usize, BTreeSet<usize>>);

impl Needs {
    /// Goes through a plan of which all columns are the result.
    pub fn add(&mut self, plan: &Plan) {
        // Not by recursion: a pipeline may have thousands of operators.
        let mut waiting = vec![(plan, None)];
        while let Some((plan, needed)) = waiting.pop() {
            inputs(plan, needed.as_ref(), &mut waiting);
            if let Some(needed) = needed {
                self.0.insert(place(plan), needed);
            }
        }
    }

    /// The columns of `plan` that are read; `None` where all are.
    pub fn columns(&self, plan: &Plan) -> Option<&BTreeSet<usize>> {
        self.0.get(&place(plan))
    }

    /// Whether a column of `plan` is read.
    pub fn column(&self, plan: &Plan, at: usize) -> bool {
        self.columns(plan).is_none_or(|needed| needed.contains(&at))
    }
}

/// What tells operators of one query apart: their addresses.
fn place(plan: &Plan) -> usize {
    std::ptr::from_ref(plan).addr()
}

/// What is needed of the inputs of `plan`, of which `needed` is read.
fn inputs<'p>(
    plan: &'p Plan,
    needed: Option<&BTreeSet<usize>>,
    out: &mut Vec<(&'p Plan, Option<BTreeSet<usize>>)>,
) {
    let all = || (0..plan.columns.len()).collect::<BTreeSet<usize>>();
    let through = || needed.cloned().unwrap_or_else(all);
    match &*plan.node {
        Node::Filter { input, predicate } => {
            out.push((input, Some(with(through(), [predicate]))));
        }
        Node::Project { input, items } => {
            let read = through().into_iter().filter_map(|at| items.get(at));
            out.push((input, Some(with(BTreeSet::new(), read))));
        }
        Node::Serialize { input } | Node::Take { input, .. } | Node::Sample { input, .. } => {
            out.push((input, needed.cloned()));
        }
        Node::Sort { input, keys } | Node::Top { input, keys, .. } => {
            out.push((input, Some(with(through(), keys.iter().map(|key| &key.expr)))));
        }
        Node::Count { input } => out.push((input, Some(BTreeSet::new()))),
        Node::Summarize { input, keys, aggregates } => {
            let arguments = aggregates.iter().flat_map(|aggregate| &aggregate.arguments);
            out.push((input, Some(with(BTreeSet::new(), keys.iter().chain(arguments)))));
        }
        Node::MvExpand { input, items, .. } => {
            let made: Vec<usize> = items.iter().map(|item| item.output).collect();
            let kept = own(through(), &made, input);
            out.push((input, Some(with(kept, items.iter().map(|item| &item.expr)))));
        }
        Node::Parse { input, source, output, .. } => {
            let made: Vec<usize> = output.iter().map(|output| output.output).collect();
            out.push((input, Some(with(own(through(), &made, input), [source]))));
        }
        Node::ParseKv { input, source, .. } => {
            out.push((input, Some(with(own(through(), &[], input), [source]))));
        }
        Node::Join { left, right, on, output, .. } => {
            let width = left.columns.len();
            let read = through().into_iter().filter_map(|at| output.get(at).copied());
            let (lefts, rights): (BTreeSet<_>, BTreeSet<_>) = read.partition(|at| *at < width);
            let rights = rights.into_iter().map(|at| at - width).collect();
            out.push((left, Some(with(lefts, on.iter().map(|(left, _)| left)))));
            out.push((right, Some(with(rights, on.iter().map(|(_, right)| right)))));
        }
        Node::Union { inputs } => {
            out.extend(inputs.iter().map(|input| (input, needed.cloned())));
        }
        _ => out.extend(plan.inputs().into_iter().map(|input| (input, None))),
    }
}

/// The columns that an operator hands on from its input.
fn own(needed: BTreeSet<usize>, made: &[usize], input: &Plan) -> BTreeSet<usize> {
    let width = input.columns.len();
    needed.into_iter().filter(|at| *at < width && !made.contains(at)).collect()
}

fn with<'e>(
    mut needed: BTreeSet<usize>,
    exprs: impl IntoIterator<Item = &'e Expr>,
) -> BTreeSet<usize> {
    exprs.into_iter().for_each(|expr| {
        visit(expr, &mut |at| {
            needed.insert(at);
        });
    });
    needed
}
