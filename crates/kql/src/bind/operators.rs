//! A pipeline's operators over their input: the small ones, and which binder takes which other.

use super::{Bind, Binder, Binding, Env, Row, literal, plan};
use crate::diagnostics;
use crate::plan::*;
use crate::syntax::{self, ExprKind as Syntax, Name, Operator, OperatorKind};
use crate::types::{Type, Value};
use std::sync::Arc;

impl Binder<'_> {
    pub(super) fn operator(
        &mut self,
        input: Option<Plan>,
        operator: &Operator,
        env: &mut Env,
    ) -> Bind<Plan> {
        let span = operator.span;
        // Operators that need no input.
        match &operator.kind {
            OperatorKind::Print(items) => return self.print(items, env),
            OperatorKind::Range { column, from, to, step } => {
                return self.range(column, [from, to, step], span, env);
            }
            OperatorKind::Union { options, tables } => {
                return self.union(input, options, tables, span, env);
            }
            OperatorKind::Search { options, tables, predicate } => {
                return self.search(input, options, tables, predicate, span, env);
            }
            OperatorKind::Find { options, tables, predicate, project } => {
                return self.find(options, tables, predicate, project.as_deref(), span, env);
            }
            OperatorKind::Evaluate { call, schema } if input.is_none() => {
                return self.evaluate(None, call, schema.as_deref(), span, env);
            }
            _ => {}
        }
        let Some(input) = input else {
            return self.unsupported(span, "this operator without an input");
        };
        if let Node::Batch { .. } = *input.node {
            let message = "no operator can follow one that makes several tables";
            return self.fail(diagnostics::NOT_ALLOWED, span, message);
        }
        if let Node::Graph(graph) = *input.node {
            return self.graph_operator(*graph, operator, env);
        }
        let columns = input.columns.clone();
        Ok(match &operator.kind {
            OperatorKind::MakeGraph { source, target, nodes, node_id } => {
                self.make_graph(input, [source, target], nodes, node_id.as_ref(), env)?
            }
            OperatorKind::GraphMatch { .. }
            | OperatorKind::GraphWhere { .. }
            | OperatorKind::GraphMarkComponents(_)
            | OperatorKind::GraphToTable(_) => {
                let message = "the input is no graph; 'make-graph' makes one of a table of edges";
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
            OperatorKind::Where(predicate) => {
                // A wrong condition does not hide what is wrong behind it.
                match self.condition(predicate, &Row::of(&columns, "where"), env) {
                    Ok(predicate) => plan(columns, Node::Filter { input, predicate }),
                    Err(super::Failed) => input,
                }
            }
            OperatorKind::Project(items) => self.project(input, items, "project", env)?,
            OperatorKind::Extend(items) => self.extend(input, items, "extend", env)?,
            OperatorKind::ProjectAway(patterns) => self.choose(input, patterns, false)?,
            OperatorKind::ProjectKeep(patterns) => self.choose(input, patterns, true)?,
            OperatorKind::ProjectByNames(names) => self.choose_by_names(input, names, env)?,
            OperatorKind::ProjectRename(items) => self.rename(input, items)?,
            OperatorKind::ProjectReorder(items) => self.reorder(input, items)?,
            OperatorKind::Summarize { aggregates, by } => {
                self.summarize(input, aggregates, by.as_deref(), env)?
            }
            OperatorKind::Count => {
                let columns = vec![Column { name: "Count".to_owned(), ty: Type::Long }];
                plan(columns, Node::Count { input })
            }
            OperatorKind::Take(count) => {
                let count = self.constant(count, "take", Type::Long, env)?;
                plan(columns, Node::Take { input, count })
            }
            OperatorKind::Sample(count) => {
                let count = self.constant(count, "sample", Type::Long, env)?;
                plan(columns, Node::Sample { input, count })
            }
            OperatorKind::SampleDistinct { count, of } => {
                let count = self.constant(count, "sample-distinct", Type::Long, env)?;
                let row = Row::of(&columns, "sample-distinct");
                let name = self.default_name(of, env).unwrap_or_else(|| "Column1".to_owned());
                let of = self.scalar(of, &row, env)?;
                let columns = vec![Column { name, ty: of.ty }];
                plan(columns, Node::SampleDistinct { input, count, of })
            }
            OperatorKind::Sort(keys) => {
                let keys = self.sort_keys(keys, &columns, "sort", env)?;
                plan(columns, Node::Sort { input, keys })
            }
            OperatorKind::Top { count, keys } => {
                let count = self.constant(count, "top", Type::Long, env)?;
                let keys = self.sort_keys(keys, &columns, "top", env)?;
                plan(columns, Node::Top { input, count, keys })
            }
            OperatorKind::Distinct(items) => {
                let projected = self.project(input, items, "distinct", env)?;
                plan(projected.columns.clone(), Node::Distinct { input: projected })
            }
            OperatorKind::Join { options, right, on } => {
                self.join(input, options, right, on, span, env)?
            }
            OperatorKind::Lookup { options, right, on } => {
                self.lookup(input, options, right, on, span, env)?
            }
            OperatorKind::Serialize(items) if items.is_empty() => {
                plan(columns, Node::Serialize { input })
            }
            OperatorKind::Serialize(items) => {
                let serialized = plan(columns, Node::Serialize { input });
                self.extend(serialized, items, "serialize", env)?
            }
            OperatorKind::As(name) => {
                self.shared += 1;
                let node = Node::Shared { id: self.shared, plan: Arc::new(input) };
                let shared = plan(columns, node);
                *env = env.with(&name.text, Binding::Table(shared.clone()));
                shared
            }
            OperatorKind::Consume => {
                let count = literal(Value::Long(0));
                plan(columns, Node::Take { input, count })
            }
            OperatorKind::GetSchema => {
                let schema = [
                    ("ColumnName", Type::String),
                    ("ColumnOrdinal", Type::Int),
                    ("DataType", Type::String),
                    ("ColumnType", Type::String),
                ];
                let result = schema.map(|(name, ty)| Column { name: name.to_owned(), ty });
                let of = columns.into_iter().filter(|column| !column.is_hidden()).collect();
                plan(result.to_vec(), Node::GetSchema { of })
            }
            OperatorKind::MvExpand { options, items, limit } => {
                self.mv_expand(input, options, items, limit.as_ref(), span, env)?
            }
            OperatorKind::Parse { filter, options, source, pattern } => {
                self.parse(input, *filter, options, source, pattern, span, env)?
            }
            OperatorKind::MvApply { options, items, limit, plan: inner } => {
                self.mv_apply(input, options, items, limit.as_ref(), inner, span, env)?
            }
            OperatorKind::ParseKv { source, columns, options } => {
                self.parse_kv(input, source, columns, options, span, env)?
            }
            OperatorKind::MakeSeries { options, aggregates, on, from, to, step, in_range, by } => {
                let bounds = [from.as_ref(), to.as_ref(), step.as_ref()];
                self.make_series(input, options, aggregates, on, bounds, *in_range, by, span, env)?
            }
            OperatorKind::TopNested(levels) => self.top_nested(input, levels, span, env)?,
            OperatorKind::TopHitters { count, of, by } => {
                self.top_hitters(input, count, of, by.as_ref(), span, env)?
            }
            OperatorKind::Reduce { by, options } => self.reduce(input, by, options, span, env)?,
            OperatorKind::Evaluate { call, schema } => {
                self.evaluate(Some(input), call, schema.as_deref(), span, env)?
            }
            OperatorKind::Partition { by, plan: inner } => {
                self.partition(input, by, inner, span, env)?
            }
            OperatorKind::Fork(branches) => self.fork(input, branches, env)?,
            OperatorKind::Facet { by, with } => self.facet(input, by, with.as_deref(), env)?,
            OperatorKind::Scan { options, partition_by, declare, steps } => {
                self.scan(input, options, partition_by, declare, steps, span, env)?
            }
            OperatorKind::Invoke(written) => match &written.kind {
                Syntax::Call { function, arguments } => {
                    self.applied(Some(input), function, arguments, span, env)?
                }
                Syntax::Name(name) => {
                    let function = Name { text: name.clone(), span: written.span };
                    self.applied(Some(input), &function, &[], span, env)?
                }
                _ => {
                    let message = "'invoke' operator: a function is expected";
                    return self.fail(diagnostics::NOT_ALLOWED, written.span, message);
                }
            },
            OperatorKind::Render { kind, properties } => {
                self.render =
                    Some(Render { kind: kind.text.clone(), properties: properties.clone() });
                input
            }
            OperatorKind::Other { name } => {
                return self.unsupported(span, &format!("operator '{name}'"));
            }
            // Those that need no input were taken above.
            _ => return self.fail(diagnostics::NOT_ALLOWED, span, "the operator takes no input"),
        })
    }

    /// An operator whose input is a graph.
    fn graph_operator(&mut self, graph: Graph, operator: &Operator, env: &mut Env) -> Bind<Plan> {
        let span = operator.span;
        match &operator.kind {
            OperatorKind::GraphMatch { shortest, options, paths, predicate, project } => {
                let predicate = predicate.as_ref();
                self.graph_match(graph, *shortest, options, paths, predicate, project, span, env)
            }
            OperatorKind::GraphWhere { edges, predicate } => {
                self.graph_where(graph, *edges, predicate, env)
            }
            OperatorKind::GraphMarkComponents(options) => {
                self.mark_components(graph, options, span)
            }
            OperatorKind::GraphToTable(tables) => self.graph_to_table(&graph, tables),
            OperatorKind::As(name) => {
                let graph = plan(Vec::new(), Node::Graph(Box::new(graph)));
                *env = env.with(&name.text, Binding::Table(graph.clone()));
                Ok(graph)
            }
            _ => self.fail(diagnostics::NOT_ALLOWED, span, super::NOT_ROWS),
        }
    }

    fn sort_keys(
        &mut self,
        written: &[syntax::SortKey],
        columns: &[Column],
        operator: &str,
        env: &Env,
    ) -> Bind<Vec<SortKey>> {
        let row = Row::of(columns, operator);
        let mut keys = Vec::new();
        for key in written {
            let span = key.expr.span;
            let expr = self.scalar(&key.expr, &row, env)?;
            let expr = match expr.ty {
                Type::Dynamic => {
                    let message =
                        format!("'{operator}' operator: a key of type dynamic; convert it first");
                    return self.fail(diagnostics::TYPE_MISMATCH, span, message);
                }
                _ => expr,
            };
            let descending = key.descending.unwrap_or(true);
            let nulls_first = key.nulls_first.unwrap_or(!descending);
            keys.push(SortKey { expr, descending, nulls_first });
        }
        Ok(keys)
    }
}
