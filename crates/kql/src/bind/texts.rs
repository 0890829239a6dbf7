//! Operators that read columns out of texts: `parse`, `parse-where`, `parse-kv`.

use super::join::setting;
use super::names::Names;
use super::{Bind, Binder, Env, Row, cast, plan};
use crate::diagnostics::{self, Span};
use crate::plan::*;
use crate::syntax::{self, Name, Segment, Settings};
use crate::types::Type;

impl Binder<'_> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn parse(
        &mut self,
        input: Plan,
        filter: bool,
        options: &syntax::Settings,
        source: &syntax::Expr,
        written: &[Segment],
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let source = self.scalar(source, &Row::of(&input_columns, "parse"), env)?;
        let source = cast(source, Type::String);
        let mode = match setting(options, "kind").unwrap_or("simple") {
            "simple" => ParseMode::Simple,
            "regex" => ParseMode::Regex,
            "relaxed" => ParseMode::Relaxed,
            other => {
                let message = format!("'parse' operator: '{other}' is no kind");
                return self.fail(diagnostics::NOT_ALLOWED, span, message);
            }
        };
        let mut columns = input_columns;
        let mut output = Vec::new();
        let mut segments = Vec::new();
        for segment in written {
            segments.push(match segment {
                Segment::Star => ParseSegment::Skip,
                Segment::Text(text) => ParseSegment::Text(text.clone()),
                Segment::Column { name, ty } => {
                    let ty = ty.unwrap_or(Type::String);
                    let place = columns.iter().position(|column| column.name == name.text);
                    let at = match place {
                        Some(at) => {
                            columns[at].ty = ty;
                            at
                        }
                        None => {
                            columns.push(Column { name: name.text.clone(), ty });
                            columns.len() - 1
                        }
                    };
                    output.push(ParseOutput { output: at, ty });
                    ParseSegment::Capture(output.len() - 1)
                }
            });
        }
        let flags = setting(options, "flags").unwrap_or_default().to_owned();
        let pattern = ParsePattern { mode, segments, flags };
        let keep_unmatched = !filter;
        Ok(plan(columns, Node::Parse { input, source, pattern, keep_unmatched, output }))
    }

    pub(super) fn parse_kv(
        &mut self,
        input: Plan,
        source: &syntax::Expr,
        written: &[(Name, Type)],
        settings: &Settings,
        span: Span,
        env: &Env,
    ) -> Bind<Plan> {
        let input_columns = input.columns.clone();
        let source = self.scalar(source, &Row::of(&input_columns, "parse-kv"), env)?;
        let source = cast(source, Type::String);
        let mut columns = input_columns;
        let mut names = Names::taken(&columns);
        let mut keys = Vec::new();
        for (name, ty) in written {
            keys.push(Column { name: name.text.clone(), ty: *ty });
            columns.push(Column { name: names.give(Some(&name.text)), ty: *ty });
        }
        let mut options = ParseKvOptions::default();
        for setting in settings {
            match setting.name.as_str() {
                "pair_delimiter" => {
                    options.pair_delimiter.clone_from(&setting.value);
                }
                "kv_delimiter" => options.kv_delimiter.clone_from(&setting.value),
                "quote" => options.quotes = setting.value.chars().collect(),
                "escape" => options.escape = setting.value.chars().next(),
                "greedy" => options.greedy = setting.value == "true",
                "regex" => options.regex = Some(setting.value.clone()),
                other => {
                    let message = format!("'parse-kv' operator: '{other}' is no property");
                    return self.fail(diagnostics::NOT_ALLOWED, span, message);
                }
            }
        }
        Ok(plan(columns, Node::ParseKv { input, source, keys, options }))
    }
}
