//! The bound plan: what a query means, with every name, type and default decided.
//!
//! This is the only thing that an engine has to read. It holds no syntax and no open question:
//! column references are positions, implicit conversions are explicit casts, `let`s are
//! substituted, default names (`count_`, `Column1` …) are given, aliases are resolved.
//! Engines must not decide semantics, only carry them out.
//!
//! What is fixed beyond the types below:
//!
//! - Column names of one plan differ from each other.
//! - `and` and `or` are flat: two or more arguments. `between` and `!between` have three (value,
//!   lowest, highest), the highest already being a datetime where the query wrote a timespan.
//! - `now()` and `ago()` of constants are literals: one clock reading for the whole query.
//! - Conversions (`tostring`, `tolong` …) are [`ExprKind::Cast`], `parse_json`/`todynamic` are calls
//!   of `parse_json`; a cast of a string to dynamic is a dynamic that holds the string.
//! - Arguments of comparisons, `in`, `case`, `iff`, `coalesce`, `min_of`, `max_of` have one type, but
//!   for numbers of several widths beside decimal, datetime ± timespan and a lone dynamic array in
//!   `in`-like calls. Where a dynamic meets another type, the dynamic is cast to that type.
//! - `has`-like operators and `matches regex` have two strings. `has_any`, `has_all`, `in` … have the
//!   value and either all elements or one dynamic array that is no literal.
//! - A function with several results (`series_fit_line`, `array_sort_asc` …) is one call of type
//!   dynamic: an array of the results, taken apart by [`ExprKind::Member`] and casts.
//! - `typeof(T)` arguments are dropped; the call has the type that it would have without, under a cast.
//! - `column_ifexists`, `iscolumnexists`, `bag_pack_columns` and `current_database` are resolved and
//!   do not occur; `pack_all` is `bag_pack` of all columns, and `pack_all(true)` is `pack_all` with
//!   name, value, name, value …, which leaves out what is null or empty.
//! - Window functions occur only where the input is ordered, inside `Project` or `Filter`.

pub use crate::syntax::Direction;
use crate::types::{Type, Value};
use std::sync::Arc;

/// The hidden last column of a table, read by `ingestion_time()`. It is in a plan only where the
/// query calls that function, and never in a result.
pub const INGESTION_TIME: &str = "\u{1}ingestion_time";

/// A column of a table or of an operator's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub ty: Type,
}

impl Column {
    /// Whether queries cannot name it.
    pub fn is_hidden(&self) -> bool {
        self.name.starts_with('\u{1}')
    }
}

/// Everything that one query text asks for: one plan for each tabular statement.
#[derive(Clone, Debug)]
pub struct Query {
    pub statements: Vec<Plan>,
    /// A [`Node::Plugin`] whose result columns must be known before binding can go on: run it, and
    /// bind again with its columns in `BindOptions::schemas`. Everything else is empty then.
    pub open: Option<Plan>,
    /// `render` of the last statement: kind and properties, kept as an annotation.
    pub render: Option<Render>,
    /// `set name = value;` and `#` options, as written.
    pub options: Vec<(String, Option<Value>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Render {
    pub kind: String,
    pub properties: Vec<(String, String)>,
}

/// A tabular expression with its result columns.
#[derive(Clone, Debug)]
pub struct Plan {
    pub columns: Vec<Column>,
    pub node: Box<Node>,
}

/// One operator. `input`'s columns are what [`ExprKind::Column`] counts, unless said otherwise.
#[derive(Clone, Debug)]
pub enum Node {
    /// A table of the database, all its columns, in the catalogue's order.
    Table {
        name: String,
    },
    /// Rows written in the query (`datatable`, folded `print` constants).
    Values {
        rows: Vec<Vec<Value>>,
    },
    /// `print`: one row of expressions without columns.
    Print {
        items: Vec<Expr>,
    },
    /// `range`: inclusive of `to`.
    Range {
        from: Expr,
        to: Expr,
        step: Expr,
    },
    /// `externaldata`; the engine decides whether it may be fetched.
    ExternalData {
        uris: Vec<Expr>,
        properties: Vec<(String, String)>,
    },
    /// The rows handed in by the enclosing operator: the leaf of the sub-plans of `mv-apply`,
    /// `partition`, `fork`, `facet` and of functions with a table argument that is used once.
    Context,
    /// A shared result (`materialize`, `as` that is read again): evaluated once per query for each id.
    Shared {
        id: u32,
        plan: Arc<Plan>,
    },

    Filter {
        input: Plan,
        predicate: Expr,
    },
    /// `project`, `extend`, `project-away` …: exactly these expressions, named by the plan's columns.
    Project {
        input: Plan,
        items: Vec<Expr>,
    },
    /// `serialize`, `as`, `consume`, hints: the rows as they are. `ordered` promises their order.
    Serialize {
        input: Plan,
    },
    Take {
        input: Plan,
        count: Expr,
    },
    Sort {
        input: Plan,
        keys: Vec<SortKey>,
    },
    Top {
        input: Plan,
        count: Expr,
        keys: Vec<SortKey>,
    },
    Count {
        input: Plan,
    },
    Distinct {
        input: Plan,
    },
    Sample {
        input: Plan,
        count: Expr,
    },
    SampleDistinct {
        input: Plan,
        count: Expr,
        of: Expr,
    },
    /// Result columns: keys first, then aggregates (an `arg_max` gives several).
    Summarize {
        input: Plan,
        keys: Vec<Expr>,
        aggregates: Vec<Aggregate>,
    },
    /// `left`'s columns come first in [`ExprKind::Column`], then `right`'s.
    Join {
        kind: JoinKind,
        left: Plan,
        right: Plan,
        on: Vec<(Expr, Expr)>,
        output: Vec<usize>,
    },
    /// Inputs already projected to the same columns. `distinct` is never set by Kusto's `union`.
    Union {
        inputs: Vec<Plan>,
    },
    MvExpand {
        input: Plan,
        items: Vec<ExpandItem>,
        kind: ExpandKind,
        item_index: bool,
        limit: Option<Expr>,
    },
    /// `plan` runs once per input row over its expanded rows; its [`Node::Context`] has the input's
    /// columns (replaced or extended by the items).
    MvApply {
        input: Plan,
        items: Vec<ExpandItem>,
        kind: ExpandKind,
        item_index: bool,
        limit: Option<Expr>,
        context: Vec<Column>,
        plan: Plan,
        /// Where each result column comes from.
        output: Vec<ApplyOutput>,
    },
    /// `parse`, `parse-where`: the input's columns with the captures appended or replaced.
    Parse {
        input: Plan,
        source: Expr,
        pattern: ParsePattern,
        keep_unmatched: bool,
        output: Vec<ParseOutput>,
    },
    ParseKv {
        input: Plan,
        source: Expr,
        keys: Vec<Column>,
        options: ParseKvOptions,
    },
    /// `input` is the summary: `keys` columns, the axis' bin, then the aggregates. The result has
    /// the keys, one array for each aggregate and the axis as an array.
    MakeSeries {
        input: Plan,
        keys: usize,
        /// What an empty bin has, for each aggregate.
        defaults: Vec<Expr>,
        from: Option<Expr>,
        to: Option<Expr>,
        /// Whether `to` is a bin of its own (`in range(…)`).
        inclusive: bool,
        step: Expr,
        /// One series of defaults where there are no rows.
        nonempty: bool,
    },
    TopNested {
        input: Plan,
        levels: Vec<TopNestedLevel>,
    },
    Reduce {
        input: Plan,
        of: Expr,
        threshold: f64,
        characters: String,
        /// `kind=source`: every row with its pattern instead of one row a pattern.
        source: bool,
    },
    /// `plan` runs once for each distinct value of `by`, which it sees through [`Node::Context`].
    Partition {
        input: Plan,
        by: Expr,
        plan: Plan,
    },
    Scan {
        input: Plan,
        partition_by: Vec<Expr>,
        declare: Vec<(Column, Option<Expr>)>,
        match_id: bool,
        steps: Vec<ScanStep>,
    },
    /// `evaluate plugin(arguments)`; the plan's columns are the declared or the computed ones.
    Plugin {
        input: Option<Plan>,
        plugin: Plugin,
        /// The place in `BindOptions::schemas`, where the columns depend on data.
        open: Option<usize>,
    },
    /// Rows of `table` whose network contains an address of `input`. Both sides end in `keys` hidden
    /// texts: the address and the network, then texts that must be equal. Result: `input`'s other
    /// columns, then `table`'s; the other way round for IPv6.
    IpLookup {
        input: Plan,
        table: Plan,
        keys: usize,
        v6: bool,
        /// Whether rows without a network stay, with empty values.
        unmatched: bool,
    },
    /// `getschema`.
    GetSchema {
        of: Vec<Column>,
    },
    /// A graph; it has no columns, and only operators on graphs take it.
    Graph(Box<Graph>),
    GraphNodes {
        graph: Box<Graph>,
        make: GraphNodes,
    },
    /// The edges that count.
    GraphEdges(Box<Graph>),
    GraphMatch(Box<GraphMatch>),
    /// `fork` and `facet`: several results of one input.
    Batch {
        input: Plan,
        branches: Vec<(String, Plan)>,
    },
    /// A built-in tabular function over an input, as `invoke FileProfile(…)`: columns appended.
    Invoke {
        input: Option<Plan>,
        function: String,
        arguments: Vec<Expr>,
    },
}

#[derive(Clone, Debug)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// One arbitrary left row per key, then inner: Kusto's default.
    InnerUnique,
    Inner,
    LeftOuter,
    RightOuter,
    FullOuter,
    LeftSemi,
    LeftAnti,
    RightSemi,
    RightAnti,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The reference's name: `count`, `dcountif`, `arg_max`, `make_set` …
    pub function: &'static str,
    pub arguments: Vec<Expr>,
    /// Result columns that this aggregate gives (one, but for `arg_max`, `percentiles` …).
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug)]
pub struct ExpandItem {
    pub expr: Expr,
    /// Position in the result that receives the value.
    pub output: usize,
    /// `to typeof(T)`.
    pub to: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpandKind {
    Bag,
    Array,
}

#[derive(Clone, Debug)]
pub struct ParsePattern {
    pub mode: ParseMode,
    pub segments: Vec<ParseSegment>,
    /// `flags=` of `kind=regex`.
    pub flags: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseMode {
    Simple,
    Regex,
    Relaxed,
}

#[derive(Clone, Debug)]
pub enum ParseSegment {
    /// `*`
    Skip,
    Text(String),
    /// Index into `Node::Parse::output`.
    Capture(usize),
}

#[derive(Clone, Debug)]
pub struct ParseOutput {
    /// Position in the result that receives the capture.
    pub output: usize,
    pub ty: Type,
}

#[derive(Clone, Debug, Default)]
pub struct ParseKvOptions {
    /// "" where none is written: any character but letters and digits separates then.
    pub pair_delimiter: String,
    pub kv_delimiter: String,
    /// None, one, or an opening and a closing one.
    pub quotes: Vec<char>,
    pub escape: Option<char>,
    pub greedy: bool,
    pub regex: Option<String>,
}

#[derive(Clone, Debug)]
pub struct TopNestedLevel {
    pub count: Option<Expr>,
    pub of: Expr,
    pub others: Option<Expr>,
    pub by: Aggregate,
    pub ascending: bool,
}

#[derive(Clone, Debug)]
pub struct ScanStep {
    pub name: String,
    pub optional: bool,
    /// `output=all | last | none`.
    pub output: ScanOutput,
    /// Over [`ExprKind::Column`] of the input and [`ExprKind::ScanState`].
    pub condition: Expr,
    /// Declared column index, new value.
    pub assignments: Vec<(usize, Expr)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanOutput {
    All,
    Last,
    None,
}

/// A column of `mv-apply`'s result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutput {
    /// A column of the input, repeated.
    Outer(usize),
    /// A column of the sub-query.
    Applied(usize),
}

/// A plugin with its arguments decided.
#[derive(Clone, Debug)]
pub enum Plugin {
    /// A column for each key of the bags in `column`, which goes away.
    BagUnpack { column: usize, prefix: String, conflict: Conflict, ignored: Vec<String> },
    /// The input has `keys` columns, the pivoted value and one aggregate: a column for each value.
    Pivot {
        keys: usize,
        /// What a missing combination has.
        missing: Value,
    },
    /// Row number, column name and value as text.
    Narrow,
    /// Rows around those whose last column is true; that column goes away.
    RowsNear { before: usize, after: usize },
    /// What many rows have in common: values of some of the `attributes`, `wildcards` in the others.
    Patterns {
        kind: PatternKind,
        /// A column of numbers: how often a row counts.
        weight: Option<usize>,
        attributes: Vec<usize>,
        wildcards: Vec<Value>,
    },
}

/// Which patterns of [`Plugin::Patterns`].
#[derive(Clone, Debug)]
pub enum PatternKind {
    /// A few that tell most of the rows: from 0 (many values each) to 1 (many rows each).
    Clusters { size_weight: f64, seeds: usize },
    /// All with at least this share of the rows and at most so many values.
    Frequent { threshold: f64, dimensions: usize },
    /// Those whose shares of two sets of rows differ by at least this.
    Differences { split: usize, values: (String, String), threshold: f64, dimensions: usize },
}

/// What `bag_unpack` does where a key has the name of another column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    Error,
    ReplaceSource,
    KeepSource,
}

/// Nodes and edges. The keys by which they meet are texts in hidden columns. An edge counts where
/// both its ends are nodes.
#[derive(Clone, Debug)]
pub struct Graph {
    pub edges: Plan,
    /// Columns of `edges`.
    pub source: usize,
    pub target: usize,
    /// One row a node.
    pub nodes: Plan,
    /// Column of `nodes`.
    pub key: usize,
}

/// What is made of a graph's nodes.
#[derive(Clone, Debug)]
pub enum GraphNodes {
    /// One row a key, and rows for the ends of edges that have none: `values` of the edges, source
    /// and target, stand in the columns `keys`; other columns are empty.
    Complete { keys: Vec<usize>, values: (usize, usize) },
    /// Two columns behind: how many edges come in, how many go out.
    Degrees,
    /// One column behind: the number of the component.
    Components { strong: bool },
}

/// `graph-match` and `graph-shortest-paths`: one row a match.
#[derive(Clone, Debug)]
pub struct GraphMatch {
    pub graph: Graph,
    pub paths: Vec<MatchPath>,
    pub cycles: Cycles,
    /// Of the matches with the same ends the shortest: all (`true`) or one of them.
    pub shortest: Option<bool>,
    /// The result's columns.
    pub output: Vec<MatchOutput>,
}

/// Which edges and nodes a match may meet twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycles {
    All,
    /// Nodes, not edges.
    UniqueEdges,
    None,
}

/// One node more than edges. Nodes and edges have numbers; a node's number may appear again.
#[derive(Clone, Debug)]
pub struct MatchPath {
    pub nodes: Vec<MatchNode>,
    pub edges: Vec<MatchEdge>,
}

#[derive(Clone, Debug)]
pub struct MatchNode {
    pub slot: usize,
    /// Columns of the graph's nodes that have to be true.
    pub filters: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct MatchEdge {
    pub slot: usize,
    pub direction: Direction,
    /// Least and most edges in a row.
    pub range: (u32, u32),
    /// Columns of the graph's edges that have to be true, for each.
    pub filters: Vec<usize>,
    /// Columns of the graph's nodes that have to be true, for each between the ends.
    pub inner_filters: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MatchOutput {
    Node {
        slot: usize,
        column: usize,
    },
    /// Of an edge that is one.
    Edge {
        slot: usize,
        column: usize,
    },
    /// Over the edges of a path, or the nodes between its ends.
    Path {
        slot: usize,
        inner: bool,
        fold: PathFold,
        column: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFold {
    /// The values as an array.
    Map,
    /// Whether one is true.
    Any,
    /// Whether all are.
    All,
}

/// A scalar expression with its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub ty: Type,
    pub kind: ExprKind,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Literal(Value),
    /// Position in the operator's input columns.
    Column(usize),
    /// A scalar function or operator by the reference's name. Operators go by their text: `==`,
    /// `!=`, `=~`, `<`, `+`, `and`, `has`, `!contains_cs`, `in`, `in~`, `between`, `matches regex`,
    /// `-` with one argument, `not` …; window functions (`prev`, `row_number` …) too.
    /// `in`-like operators have the list's elements, or one dynamic array, as further arguments.
    Call {
        function: &'static str,
        arguments: Vec<Expr>,
    },
    /// An explicit conversion (`tolong` …) or an implicit widening that the binder made visible.
    /// Never fails: what cannot be converted is null, "" for strings.
    Cast(Box<Expr>),
    /// `d.name`, `d["name"]`, `d[0]`, `d[expr]`: null where there is none.
    Member {
        base: Box<Expr>,
        key: Box<Expr>,
    },
    /// `toscalar(plan)`: first column of the first row, evaluated once per query.
    ScalarQuery(Arc<Plan>),
    /// `x in (plan)`, `has_any (plan)` …: the first column of the plan is the list.
    InQuery {
        operator: &'static str,
        value: Box<Expr>,
        plan: Arc<Plan>,
    },
    /// In `scan`: the state of a step; `column` counts the input's columns, then the declared ones.
    ScanState {
        step: usize,
        column: usize,
    },
}

impl PartialEq for ExprKind {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (ExprKind::Literal(a), ExprKind::Literal(b)) => a == b,
            (ExprKind::Column(a), ExprKind::Column(b)) => a == b,
            (
                ExprKind::Call { function: f, arguments: a },
                ExprKind::Call { function: g, arguments: b },
            ) => f == g && a == b,
            (ExprKind::Cast(a), ExprKind::Cast(b)) => a == b,
            (ExprKind::Member { base: a, key: k }, ExprKind::Member { base: b, key: l }) => {
                a == b && k == l
            }
            (
                ExprKind::ScanState { step: a, column: c },
                ExprKind::ScanState { step: b, column: d },
            ) => a == b && c == d,
            // Two sub-queries are never taken for the same: their rows may differ (`rand`, `sample`).
            _ => false,
        }
    }
}
