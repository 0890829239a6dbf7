//! The syntax tree: what was written, nothing decided.

use crate::diagnostics::Span;
use crate::types::{Type, Value};

/// A name with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// A statement of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// A tabular (or, inside functions, scalar) expression.
    Expression(Expr),
    Let {
        name: Name,
        value: LetValue,
    },
    /// `set name [= value]`, and `#name value`.
    Set {
        name: String,
        value: Option<Value>,
    },
    /// `declare query_parameters(…)`.
    QueryParameters(Vec<Parameter>),
    /// `alias database …`, `pattern …`, `restrict access to …`: known and refused.
    Refused {
        what: &'static str,
        span: Span,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum LetValue {
    Expression(Expr),
    Function(Function),
}

/// `(parameters) { body }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub view: bool,
    pub parameters: Vec<Parameter>,
    pub body: Vec<Statement>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: Name,
    pub ty: ParameterType,
    pub default: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ParameterType {
    Scalar(Type),
    /// Columns that the table must have; `open` where it may have others (`*`).
    Table {
        columns: Vec<(Name, Type)>,
        open: bool,
    },
}

/// An expression, scalar or tabular.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Literal(Value),
    Name(String),
    /// A name with `*` in it, where columns or tables are chosen.
    Wildcard(String),
    /// `*`
    Star,
    /// `typeof(…)`: one type, or a row's types.
    TypeOf(Vec<(Option<Name>, Type)>),
    Call {
        function: Name,
        arguments: Vec<Expr>,
    },
    /// `base.name`
    Member {
        base: Box<Expr>,
        name: Name,
    },
    /// `base[index]`
    Index {
        base: Box<Expr>,
        index: Box<Expr>,
    },
    /// `-x`, `+x`
    Sign {
        minus: bool,
        operand: Box<Expr>,
    },
    Binary {
        operator: &'static str,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `a and b and c`, `a or b or c`: flat, two or more.
    Chain {
        operator: &'static str,
        operands: Vec<Expr>,
    },
    /// `in`, `!in`, `in~`, `!in~`, `has_any`, `has_all`.
    In {
        operator: &'static str,
        value: Box<Expr>,
        list: Vec<Expr>,
    },
    Between {
        negated: bool,
        value: Box<Expr>,
        from: Box<Expr>,
        to: Box<Expr>,
    },
    /// `name = value`, `(a, b) = value`.
    Named {
        names: Vec<Name>,
        value: Box<Expr>,
    },
    /// `source | operator | …`
    Pipe {
        source: Box<Expr>,
        operators: Vec<Operator>,
    },
    /// `datatable(a:long) [1, 2]`
    DataTable {
        columns: Vec<(Name, Type)>,
        values: Vec<Expr>,
    },
    /// `externaldata(a:long) [uri] with (…)`
    ExternalData {
        columns: Vec<(Name, Type)>,
        uris: Vec<Expr>,
        properties: Vec<(String, String)>,
    },
    /// An operator that begins a query: `print`, `range`, `union`, `search`, `find`.
    Source(Box<Operator>),
}

/// One operator of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    pub kind: OperatorKind,
    pub span: Span,
}

/// `kind=inner hint.strategy=broadcast`: name, value, place.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub span: Span,
}

/// Named values before an operator's arguments.
pub type Settings = Vec<Setting>;

#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: Option<bool>,
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expanded {
    pub expr: Expr,
    pub to: Option<Type>,
}

/// A part of `parse`'s pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    Star,
    Text(String),
    Column { name: Name, ty: Option<Type> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct NestedLevel {
    pub count: Option<Expr>,
    pub of: Expr,
    pub others: Option<Expr>,
    pub by: Expr,
    pub descending: Option<bool>,
}

/// `(a)-[e]->(b)<-[f*1..3]-(c)`: one node more than edges. What has no name cannot be referred to.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphPath {
    pub nodes: Vec<Option<Name>>,
    pub edges: Vec<GraphStep>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GraphStep {
    pub name: Option<Name>,
    pub direction: Direction,
    /// How many edges in a row, least and most; `None` for one.
    pub range: Option<(u32, u32)>,
}

/// Which way an edge of a pattern points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `-[]->`
    Right,
    /// `<-[]-`
    Left,
    /// `-[]-`
    Any,
}

/// `nodes as N with_node_id=id`
#[derive(Clone, Debug, PartialEq)]
pub struct GraphTable {
    pub edges: bool,
    pub name: Option<Name>,
    pub options: Settings,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: Name,
    pub optional: bool,
    pub output: Option<Name>,
    pub condition: Expr,
    pub assignments: Vec<(Name, Expr)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OperatorKind {
    Where(Expr),
    Project(Vec<Expr>),
    Extend(Vec<Expr>),
    ProjectAway(Vec<Expr>),
    ProjectKeep(Vec<Expr>),
    ProjectRename(Vec<Expr>),
    ProjectReorder(Vec<(Expr, Option<Name>)>),
    Summarize {
        aggregates: Vec<Expr>,
        by: Option<Vec<Expr>>,
    },
    Count,
    Take(Expr),
    Sort(Vec<SortKey>),
    Top {
        count: Expr,
        keys: Vec<SortKey>,
    },
    Distinct(Vec<Expr>),
    Join {
        options: Settings,
        right: Box<Expr>,
        on: Vec<Expr>,
    },
    Lookup {
        options: Settings,
        right: Box<Expr>,
        on: Vec<Expr>,
    },
    Union {
        options: Settings,
        tables: Vec<Expr>,
    },
    Print(Vec<Expr>),
    Range {
        column: Name,
        from: Expr,
        to: Expr,
        step: Expr,
    },
    Serialize(Vec<Expr>),
    As(Name),
    Consume,
    GetSchema,
    Sample(Expr),
    SampleDistinct {
        count: Expr,
        of: Expr,
    },
    MvExpand {
        options: Settings,
        items: Vec<Expanded>,
        limit: Option<Expr>,
    },
    MvApply {
        options: Settings,
        items: Vec<Expanded>,
        limit: Option<Expr>,
        plan: Box<Expr>,
    },
    Parse {
        filter: bool,
        options: Settings,
        source: Expr,
        pattern: Vec<Segment>,
    },
    ParseKv {
        source: Expr,
        columns: Vec<(Name, Type)>,
        options: Settings,
    },
    MakeSeries {
        options: Settings,
        /// Aggregate and `default=`.
        aggregates: Vec<(Expr, Option<Expr>)>,
        on: Expr,
        from: Option<Expr>,
        to: Option<Expr>,
        step: Option<Expr>,
        /// The older `in range(from, to, step)`: `to` is included.
        in_range: bool,
        by: Vec<Expr>,
    },
    TopNested(Vec<NestedLevel>),
    TopHitters {
        count: Expr,
        of: Expr,
        by: Option<Expr>,
    },
    Reduce {
        by: Expr,
        options: Settings,
    },
    Evaluate {
        call: Expr,
        schema: Option<Vec<(Name, Type)>>,
    },
    Invoke(Expr),
    Partition {
        by: Expr,
        plan: Box<Expr>,
    },
    Fork(Vec<(Option<Name>, Expr)>),
    Facet {
        by: Vec<Expr>,
        with: Option<Box<Expr>>,
    },
    Scan {
        options: Settings,
        partition_by: Vec<Expr>,
        declare: Vec<(Name, Type, Option<Expr>)>,
        steps: Vec<Step>,
    },
    Search {
        options: Settings,
        tables: Vec<Expr>,
        predicate: Expr,
    },
    Find {
        options: Settings,
        tables: Vec<Expr>,
        predicate: Expr,
        project: Option<Vec<Expr>>,
    },
    ProjectByNames(Vec<Expr>),
    Render {
        kind: Name,
        properties: Vec<(String, String)>,
    },
    /// `make-graph a --> b with Nodes on key`
    MakeGraph {
        source: Name,
        target: Name,
        /// Tables of nodes, each with the name of its key.
        nodes: Vec<(Expr, Name)>,
        /// `with_node_id=`: the name of the nodes' only column.
        node_id: Option<Name>,
    },
    /// `graph-match`, `graph-shortest-paths`
    GraphMatch {
        shortest: bool,
        options: Settings,
        paths: Vec<GraphPath>,
        predicate: Option<Expr>,
        project: Vec<Expr>,
    },
    /// `graph-where-nodes`, `graph-where-edges`
    GraphWhere {
        edges: bool,
        predicate: Expr,
    },
    GraphMarkComponents(Settings),
    GraphToTable(Vec<GraphTable>),
    /// An operator of the language that is recognised and not carried out.
    Other {
        name: String,
    },
}

impl Expr {
    pub fn new(kind: ExprKind, span: Span) -> Expr {
        Expr { kind, span }
    }

    /// The name, where the expression is nothing but one.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Name(name) => Some(name),
            _ => None,
        }
    }
}
