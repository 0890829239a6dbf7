//! `scan`: steps that rows go through in their order, and what each step remembers.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, ScanSteps, cast, expr, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, Name, Settings};
use crate::types::Type;

impl Binder<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn scan(
        &mut self,
        input: Plan,
        options: &Settings,
        partition_by: &[syntax::Expr],
        declared: &[(Name, Type, Option<syntax::Expr>)],
        written: &[syntax::Step],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let row = Row::of(&input_columns, "scan");
        let mut keys = Vec::new();
        for key in partition_by {
            keys.push(self.scalar(key, &row, env)?);
        }
        let mut columns = input_columns.clone();
        let mut declare = Vec::new();
        for (name, ty, default) in declared {
            let default = match default {
                Some(default) => Some(cast(self.scalar(default, &row, env)?, *ty)),
                None => None,
            };
            let column = Column { name: name.text.clone(), ty: *ty };
            columns.push(column.clone());
            declare.push((column, default));
        }
        let names: Vec<&str> = written.iter().map(|step| step.name.text.as_str()).collect();
        let scan = ScanSteps { names: &names, columns: &columns };
        let row = Row { scan: Some(&scan), ..row };
        let mut steps = Vec::new();
        for step in written {
            let condition = self.condition(&step.condition, &row, env)?;
            let mut assignments = Vec::new();
            for (name, value) in &step.assignments {
                let Some(at) = columns.iter().position(|column| column.name == name.text) else {
                    let message =
                        format!("'scan' operator: '{}' is not a declared column", name.text);
                    return self.fail(diagnostics::UNKNOWN_NAME, name.span, message);
                };
                let value = self.scalar(value, &row, env)?;
                assignments.push((at, cast(value, columns[at].ty)));
            }
            let last = steps.len() + 1 == written.len();
            let output = match step.output.as_ref().map(|name| name.text.as_str()) {
                Some("all") => ScanOutput::All,
                Some("last") => ScanOutput::Last,
                Some("none") => ScanOutput::None,
                None if written.len() == 1 || last => ScanOutput::All,
                None => ScanOutput::All,
                Some(other) => {
                    let message = format!("'scan' operator: '{other}' is no kind of output");
                    return self.fail(diagnostics::NOT_ALLOWED, span, message);
                }
            };
            let name = step.name.text.clone();
            let optional = step.optional;
            steps.push(ScanStep { name, optional, output, condition, assignments });
        }
        let mut result = columns;
        let match_id = setting(options, "with_match_id");
        if let Some(name) = match_id {
            let name = Names::taken(&result).give(Some(name));
            result.push(Column { name, ty: Type::Long });
        }
        let match_id = match_id.is_some();
        let node = Node::Scan { input, partition_by: keys, declare, match_id, steps };
        Ok(plan(result, node))
    }
}

/// `s1.column` inside `scan`.
pub(super) fn state(row: &Row, step: &str, name: &str) -> Option<Option<Expr>> {
    let scan = row.scan?;
    let step = scan.names.iter().position(|known| *known == step)?;
    let found = scan.columns.iter().position(|c| c.name == name);
    Some(found.map(|at| expr(scan.columns[at].ty, ExprKind::ScanState { step, column: at })))
}
