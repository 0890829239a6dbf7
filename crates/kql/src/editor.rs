//! What an editor asks while somebody writes a query: names that can stand here, and what a name is.
//!
//! Offsets and spans are bytes of the text. Nothing here fails: a text that cannot be read gives
//! fewer answers.

use crate::diagnostics::{Diagnostic, Span};
use crate::functions::{self, Function, Kind, Parameter, Returns, Signature};
use crate::lexer::{self, Token, TokenKind};
use crate::parser;
use crate::plan::Column;
use crate::schema::{Database, Function as Stored};
use crate::{BindOptions, aggregates, bind, reference};

/// What kind of thing a completion is, for its icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    Operator,
    Table,
    Column,
    Function,
    Aggregate,
    Plugin,
    /// A name that a `let` of the query gave.
    Variable,
    Keyword,
}

/// A name that can stand at the cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub label: String,
    pub kind: ItemKind,
    /// A column's type, a function's parameters and result; empty where there is nothing to say.
    pub detail: String,
    /// What replaces the word at the cursor; differs from the label where the name has to be quoted.
    pub insert: String,
}

/// Completions at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Completions {
    /// The word at the cursor, which an item replaces.
    pub replace: Span,
    /// Sorted by kind as the place suggests, then by label; those that begin with the word.
    pub items: Vec<Item>,
}

/// What is known of the name at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Hover {
    pub span: Span,
    pub kind: ItemKind,
    /// One line for each way to call it, or `name: type`.
    pub text: String,
}

/// Errors of a text, as [`bind`] tells them; empty where the query runs.
pub fn diagnostics(text: &str, database: &Database, options: &BindOptions) -> Vec<Diagnostic> {
    bind(text, database, options).err().unwrap_or_default()
}

/// Names that can stand at `offset`; nothing inside strings and comments.
pub fn complete(text: &str, offset: usize, database: &Database) -> Completions {
    let offset = boundary(text, offset);
    let place = Place::at(text, offset);
    let mut items = Vec::new();
    let word = text[place.word.start..offset].to_ascii_lowercase();
    if !place.closed {
        place.items(text, database, &mut items);
    }
    items.retain(|item| item.label.to_ascii_lowercase().starts_with(&word));
    let mut known = std::collections::HashSet::new();
    items.retain(|item| known.insert((item.label.clone(), item.kind as u8)));
    Completions { replace: place.word, items }
}

/// What the name at `offset` is.
pub fn hover(text: &str, offset: usize, database: &Database) -> Option<Hover> {
    let offset = boundary(text, offset);
    let (tokens, _) = lexer::tokens(text);
    let at = tokens.iter().position(|t| t.span.start <= offset && offset < t.span.end)?;
    let name = match &tokens[at].kind {
        TokenKind::Name(name) | TokenKind::Quoted(name) => name.as_str(),
        _ => return None,
    };
    let told = |kind, text| Some(Hover { span: tokens[at].span, kind, text });
    // A word with a dash is several tokens: `project-away`.
    if let Some((span, operator)) = operator_at(text, &tokens, at) {
        let kind = ItemKind::Operator;
        return Some(Hover { span, kind, text: format!("{operator} operator") });
    }
    let called = matches!(&tokens[at + 1].kind, TokenKind::Punctuation("("));
    if !called && let Some(columns) = database.table(name) {
        let columns: Vec<String> = columns.iter().map(shown).collect();
        return told(ItemKind::Table, format!("{name}\n{}", columns.join("\n")));
    }
    let place = Place::at(text, tokens[at].span.start);
    if !called {
        let columns = place.columns(text, database);
        let column = columns.iter().find(|column| column.name == name)?;
        return told(ItemKind::Column, shown(column));
    }
    match (aggregates::find(name), functions::find(name)) {
        (Some(function), None) => told(ItemKind::Aggregate, calls(name, function)),
        (Some(function), Some(_)) if place.aggregates() => {
            told(ItemKind::Aggregate, calls(name, function))
        }
        (_, Some(function)) => told(ItemKind::Function, calls(name, function)),
        (None, None) => match database.function(name)? {
            Stored::Query { text } => {
                let parameters = text.split('{').next().unwrap_or_default().trim();
                told(ItemKind::Function, format!("{name}{parameters}"))
            }
            Stored::BuiltIn(function) => {
                let given: Vec<String> =
                    (function.parameters.iter()).map(|p| format!("{}: {}", p.name, p.ty)).collect();
                told(ItemKind::Function, format!("{name}({})", given.join(", ")))
            }
        },
    }
}

/// `name(source: string, start: long?): string`, one line a signature.
fn calls(name: &str, function: &Function) -> String {
    let lines: Vec<String> =
        function.signatures.iter().map(|signature| call(name, signature)).collect();
    lines.join("\n")
}

fn call(name: &str, signature: &Signature) -> String {
    let parameter = |p: &Parameter| {
        let mark = match (p.repeats, p.optional) {
            (true, _) => " …",
            (false, true) => "?",
            (false, false) => "",
        };
        let kind = match p.kind {
            Kind::Of(ty) => ty.name().to_owned(),
            other => other.expected().to_owned(),
        };
        format!("{}: {kind}{mark}", p.name)
    };
    let parameters: Vec<String> = signature.parameters.iter().map(parameter).collect();
    let result = match &signature.returns {
        Returns::Type(ty) => format!(": {ty}"),
        Returns::Columns(columns) => {
            let columns: Vec<String> =
                columns.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
            format!(": ({})", columns.join(", "))
        }
        _ => String::new(),
    };
    format!("{name}({}){result}", parameters.join(", "))
}

fn shown(column: &Column) -> String {
    format!("{}: {}", column.name, column.ty)
}

/// The nearest place at or before `offset` where a character begins.
fn boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The operator that the name token at `at` is part of.
fn operator_at<'t>(text: &'t str, tokens: &[Token], at: usize) -> Option<(Span, &'t str)> {
    let part =
        |token: &Token| matches!(&token.kind, TokenKind::Name(_) | TokenKind::Punctuation("-"));
    let joined = |a: usize, b: usize| {
        part(&tokens[a]) && part(&tokens[b]) && tokens[a].span.end == tokens[b].span.start
    };
    let (mut first, mut last) = (at, at);
    while first > 0 && joined(first - 1, first) {
        first -= 1;
    }
    while joined(last, last + 1) {
        last += 1;
    }
    let span = tokens[first].span.to(tokens[last].span);
    let name = &text[span.start..span.end];
    let begins = first == 0
        || matches!(&tokens[first - 1].kind, TokenKind::Punctuation("|" | "(" | ";" | "=" | "{"));
    (begins && parser::operator_names().contains(&name)).then_some((span, name))
}

/// Where the cursor is.
struct Place {
    /// The word that the cursor is in or behind; empty where there is none.
    word: Span,
    /// Inside a string or a comment.
    closed: bool,
    /// `let` statements and others before the statement at hand.
    before: usize,
    /// What feeds the operator at hand: from here to `pipe`.
    begin: usize,
    /// Where the `|` before the cursor is; `None` where the pipeline has none yet.
    pipe: Option<usize>,
    /// The operator at hand; empty right behind the `|`.
    operator: String,
    /// The token before the word.
    previous: Option<TokenKind>,
}

impl Place {
    fn at(text: &str, offset: usize) -> Place {
        let head = &text[..offset];
        let letters = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let start = offset
            - head.chars().rev().take_while(|c| letters(*c)).map(char::len_utf8).sum::<usize>();
        let end = offset
            + text[offset..].chars().take_while(|c| letters(*c)).map(char::len_utf8).sum::<usize>();
        // `project-a▮`: the word of an operator has dashes.
        let (tokens, _) = lexer::tokens(&text[..start]);
        let tokens = &tokens[..tokens.len() - 1];
        let mut place = Place {
            word: Span::new(start, end),
            closed: is_closed(head),
            before: 0,
            begin: 0,
            pipe: None,
            operator: String::new(),
            previous: tokens.last().map(|token| token.kind.clone()),
        };
        place.follow(tokens);
        place.operator(text, tokens);
        place
    }

    /// Finds the pipeline that the last token is in.
    fn follow(&mut self, tokens: &[Token]) {
        let mut open: Vec<(usize, Option<usize>)> = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let TokenKind::Punctuation(mark) = token.kind else { continue };
            match mark {
                ";" => {
                    open.clear();
                    (self.before, self.begin, self.pipe) = (token.span.end, token.span.end, None);
                }
                "(" | "[" | "{" => {
                    open.push((self.begin, self.pipe));
                    // Whether a query or an argument begins here shows when a `|` comes.
                    if is_table_place(tokens, at) {
                        (self.begin, self.pipe) = (token.span.end, None);
                    }
                }
                ")" | "]" | "}" => {
                    if let Some(outer) = open.pop() {
                        (self.begin, self.pipe) = outer;
                    }
                }
                "|" => self.pipe = Some(token.span.start),
                "=" if is_let(tokens, at, self.before) && open.is_empty() => {
                    self.begin = token.span.end;
                }
                _ => {}
            }
        }
    }

    /// Reads the operator behind the pipe.
    fn operator(&mut self, text: &str, tokens: &[Token]) {
        let from = self.pipe.map_or(self.begin, |pipe| pipe + 1);
        let mut parts = tokens.iter().filter(|t| t.span.start >= from).peekable();
        let Some(first) = parts.next() else { return };
        let (start, mut end) = (first.span.start, first.span.end);
        while let Some(next) = parts.next_if(|next| next.span.start == end) {
            if !matches!(next.kind, TokenKind::Name(_) | TokenKind::Punctuation("-")) {
                break;
            }
            end = next.span.end;
        }
        let name = &text[start..end];
        if end == self.word.start && name.ends_with('-') && self.pipe.is_some() {
            // The word goes on in front of the dash.
            self.word = Span::new(start, self.word.end);
        } else {
            self.operator = name.to_owned();
        }
    }

    /// Whether aggregates can stand here.
    fn aggregates(&self) -> bool {
        matches!(self.operator.as_str(), "summarize" | "make-series" | "mv-apply" | "top-nested")
    }

    /// The columns that the operator at hand reads.
    fn columns(&self, text: &str, database: &Database) -> Vec<Column> {
        let end = self.pipe.unwrap_or(self.begin);
        if end <= self.begin {
            return Vec::new();
        }
        let query = format!("{}\n{}", &text[..self.before], &text[self.begin..end]);
        let bound = bind(&query, database, &BindOptions::default());
        let plan = bound.ok().and_then(|mut query| query.statements.pop());
        let columns = plan.map(|plan| plan.columns).unwrap_or_default();
        columns.into_iter().filter(|column| !column.is_hidden()).collect()
    }

    fn items(&self, text: &str, database: &Database, items: &mut Vec<Item>) {
        let begins = self.operator.is_empty();
        if begins && self.pipe.is_some() {
            names(items, ItemKind::Operator, parser::operator_names().iter().copied());
            return;
        }
        if begins {
            self.sources(text, database, items);
            return;
        }
        match self.operator.as_str() {
            "evaluate" if matches!(&self.previous, Some(TokenKind::Name(n)) if n == "evaluate") => {
                let plugins = reference::plugins();
                let done = plugins.iter().filter(|(_, reason)| reason.is_none());
                return names(items, ItemKind::Plugin, done.map(|(name, _)| *name));
            }
            "let" | "set" | "declare" if self.pipe.is_none() => return,
            "union" | "join" | "lookup" | "find" | "search" => {
                self.sources(text, database, items);
            }
            _ => {}
        }
        for column in self.columns(text, database) {
            items.push(Item {
                insert: written(&column.name),
                detail: column.ty.name().to_owned(),
                label: column.name,
                kind: ItemKind::Column,
            });
        }
        self.variables(text, items);
        if self.aggregates() {
            for name in sorted(aggregates::names()) {
                items.push(function(ItemKind::Aggregate, name, aggregates::find(name)));
            }
        }
        for name in sorted(functions::all().map(|function| function.name)) {
            if functions::REFUSED.iter().all(|(refused, _)| *refused != name) {
                items.push(function(ItemKind::Function, name, functions::find(name)));
            }
        }
        names(
            items,
            ItemKind::Keyword,
            ["and", "asc", "by", "desc", "in", "kind", "on", "or"].into_iter(),
        );
    }

    /// What a pipeline can begin with.
    fn sources(&self, text: &str, database: &Database, items: &mut Vec<Item>) {
        self.variables(text, items);
        for (name, columns) in database.tables() {
            let detail = format!("{} columns", columns.len());
            let (label, insert) = (name.to_owned(), written(name));
            items.push(Item { label, kind: ItemKind::Table, detail, insert });
        }
        names(items, ItemKind::Function, database.function_names());
        let begin = [
            "datatable",
            "declare",
            "externaldata",
            "find",
            "let",
            "print",
            "range",
            "search",
            "set",
            "union",
        ];
        names(items, ItemKind::Keyword, begin.into_iter());
    }

    /// Names of the `let`s before.
    fn variables(&self, text: &str, items: &mut Vec<Item>) {
        let (tokens, _) = lexer::tokens(&text[..self.before]);
        for pair in tokens.windows(2) {
            if let [
                Token { kind: TokenKind::Name(word), .. },
                Token { kind: TokenKind::Name(name), .. },
            ] = pair
                && word == "let"
            {
                names(items, ItemKind::Variable, std::iter::once(name.as_str()));
            }
        }
    }
}

/// Whether the end of `head` is in a string, which then has no end, or behind `//`.
fn is_closed(head: &str) -> bool {
    let (tokens, problems) = lexer::tokens(head);
    let in_string = problems.iter().any(|problem| {
        let text = head[problem.span.start.min(head.len())..].trim_start_matches(['@', 'h', 'H']);
        problem.span.end >= head.len() && text.starts_with(['"', '\'', '`', '~'])
    });
    let last = tokens.iter().rev().nth(1).map_or(0, |token| token.span.end);
    let rest = head.get(last..).unwrap_or_default();
    in_string || rest.lines().last().is_some_and(|line| line.contains("//"))
}

/// Whether the bracket at `at` begins a query and not arguments.
fn is_table_place(tokens: &[Token], at: usize) -> bool {
    const TABULAR: &[&str] = &[
        "join",
        "lookup",
        "union",
        "in",
        "toscalar",
        "materialize",
        "partition",
        "fork",
        "apply",
        "in~",
    ];
    let Some(before) = at.checked_sub(1).map(|before| &tokens[before].kind) else { return true };
    match before {
        TokenKind::Name(name) => {
            TABULAR.contains(&name.as_str())
                || name.starts_with("inner")
                || name.starts_with("left")
        }
        TokenKind::Punctuation(mark) => matches!(*mark, "(" | "=" | "," | ")" | ";"),
        _ => false,
    }
}

/// Whether the `=` at `at` is that of a `let` statement that begins at `before`.
fn is_let(tokens: &[Token], at: usize, before: usize) -> bool {
    let statement = tokens[..at].iter().find(|token| token.span.start >= before);
    matches!(statement.map(|token| &token.kind), Some(TokenKind::Name(word)) if word == "let")
        && tokens[..at].iter().filter(|token| token.span.start >= before).count() == 2
}

fn names<'n>(items: &mut Vec<Item>, kind: ItemKind, names: impl Iterator<Item = &'n str>) {
    for name in sorted(names) {
        let (label, insert) = (name.to_owned(), name.to_owned());
        items.push(Item { label, kind, detail: String::new(), insert });
    }
}

fn function(kind: ItemKind, name: &str, found: Option<&Function>) -> Item {
    let signature = found.and_then(|function| function.signatures.first());
    let detail = signature.map(|signature| call(name, signature)).unwrap_or_default();
    Item { label: name.to_owned(), kind, detail, insert: name.to_owned() }
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A name as queries write it.
fn written(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !parser::operator_names().contains(&name);
    if plain { name.to_owned() } else { format!("['{}']", name.replace('\'', "\\'")) }
}
