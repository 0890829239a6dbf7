//! What has to run before a plan can be lowered: sub-queries of its expressions, shared plans.

use std::collections::HashMap;
use std::sync::Arc;
use vigie_kql::plan::{Expr, ExprKind, Node, Plan};

/// Sub-queries of a plan and the uses of shared plans, not those inside other sub-queries.
#[derive(Default)]
pub(super) struct SubQueries<'p> {
    pub scalars: Vec<&'p Arc<Plan>>,
    pub lists: Vec<&'p Arc<Plan>>,
    pub shared: Vec<(u32, &'p Plan)>,
    pub shared_uses: HashMap<u32, usize>,
}

impl<'p> SubQueries<'p> {
    pub fn in_plan(&mut self, plan: &'p Plan) {
        if let Node::Shared { id, plan } = &*plan.node {
            let uses = self.shared_uses.entry(*id).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                self.in_plan(plan);
                self.shared.push((*id, plan));
            }
            return;
        }
        for input in plan.inputs() {
            self.in_plan(input);
        }
        for expr in expressions_of(&plan.node) {
            self.in_expr(expr);
        }
    }

    fn in_expr(&mut self, expr: &'p Expr) {
        match &expr.kind {
            ExprKind::ScalarQuery(plan) => {
                self.count_shared(plan);
                self.scalars.push(plan);
            }
            ExprKind::InQuery { value, plan, .. } => {
                self.in_expr(value);
                self.count_shared(plan);
                self.lists.push(plan);
            }
            ExprKind::Call { arguments, .. } => arguments.iter().for_each(|a| self.in_expr(a)),
            ExprKind::Cast(inner) => self.in_expr(inner),
            ExprKind::Member { base, key } => {
                self.in_expr(base);
                self.in_expr(key);
            }
            _ => {}
        }
    }

    /// A shared plan that a sub-query reads as well counts as read twice.
    fn count_shared(&mut self, plan: &'p Arc<Plan>) {
        let mut inner = SubQueries::default();
        inner.in_plan(plan);
        for (id, uses) in inner.shared_uses {
            *self.shared_uses.entry(id).or_insert(0) += uses;
        }
    }
}

/// The expressions of an operator that may hold sub-queries.
fn expressions_of(node: &Node) -> Vec<&Expr> {
    match node {
        Node::Filter { predicate, .. } => vec![predicate],
        Node::Project { items, .. } | Node::Print { items } => items.iter().collect(),
        Node::Summarize { keys, aggregates, .. } => {
            keys.iter().chain(aggregates.iter().flat_map(|a| &a.arguments)).collect()
        }
        Node::Take { count, .. } | Node::Sample { count, .. } => vec![count],
        Node::SampleDistinct { count, of, .. } => vec![count, of],
        Node::Top { count, keys, .. } => {
            std::iter::once(count).chain(keys.iter().map(|key| &key.expr)).collect()
        }
        Node::Sort { keys, .. } => keys.iter().map(|key| &key.expr).collect(),
        Node::Join { on, .. } => on.iter().flat_map(|(l, r)| [l, r]).collect(),
        Node::MvExpand { items, limit, .. } | Node::MvApply { items, limit, .. } => {
            items.iter().map(|item| &item.expr).chain(limit).collect()
        }
        Node::Parse { source, .. } | Node::ParseKv { source, .. } => vec![source],
        Node::Partition { by, .. } => vec![by],
        Node::Reduce { of, .. } => vec![of],
        Node::MakeSeries { defaults, from, to, step, .. } => {
            defaults.iter().chain(from).chain(to).chain([step]).collect()
        }
        Node::TopNested { levels, .. } => (levels.iter())
            .flat_map(|level| {
                let own = level.count.iter().chain(&level.others).chain([&level.of]);
                own.chain(&level.by.arguments)
            })
            .collect(),
        Node::Scan { partition_by, declare, steps, .. } => (partition_by.iter())
            .chain(declare.iter().filter_map(|(_, default)| default.as_ref()))
            .chain(steps.iter().flat_map(|step| {
                let values = step.assignments.iter().map(|(_, value)| value);
                std::iter::once(&step.condition).chain(values)
            }))
            .collect(),
        Node::Range { from, to, step } => vec![from, to, step],
        _ => Vec::new(),
    }
}
