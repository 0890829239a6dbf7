//! A filter's tree → a SQL condition with values, for the properties of a collection.
//!
//! Texts are compared letter for letter by `eq` and its like, and without regard to case by
//! `startswith`, `endswith` and `contains`. A missing value differs from every other.

use super::syntax::{Kind, Node, Operator, parse};
use super::{Collection, Counted, Elements, Property, Type};
use crate::edge::ApiError;
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use vigie_database::Value;

const FUNCTIONS: &str =
    "startswith, endswith, contains, substringof, tolower, toupper, trim, length, concat, now";

/// Reads a filter; values are appended to `values` and named `$n` in the SQL.
pub fn sql(
    text: &str,
    collection: &Collection,
    values: &mut Vec<Value>,
) -> Result<String, ApiError> {
    let tree = parse(text)?;
    Lowering::new(collection, values).condition(&tree)
}

/// What a query asks of numbers that are kept by kind and time.
pub struct Kept {
    /// The condition on kinds and the tenant, and its values.
    pub sql: String,
    pub values: Vec<Value>,
    /// Rows before this time only, in microseconds since the Unix epoch.
    pub before: Option<i64>,
    /// Whether there is a bound on the other side.
    pub since: bool,
}

/// A filter for the numbers that are kept of a tenant's rows; `None` if it reads anything else.
pub fn kept(
    filter: Option<&str>,
    collection: &Collection,
    counted: &Counted,
    tenant: &str,
) -> Result<Option<Kept>, ApiError> {
    let mut kept = Kept {
        sql: "t.tenant = $1".to_owned(),
        values: vec![tenant.into()],
        before: None,
        since: false,
    };
    let Some(filter) = filter else { return Ok(Some(kept)) };
    let tree = parse(filter)?;
    let parts = match &tree.kind {
        Kind::And(parts) => parts.as_slice(),
        _ => std::slice::from_ref(&tree),
    };
    for part in parts {
        if let Some((operator, time)) = bound(part, collection, counted) {
            let before = match operator {
                Operator::Greater | Operator::GreaterOrEqual => {
                    kept.since = true;
                    continue;
                }
                Operator::Less => time,
                Operator::LessOrEqual => time.saturating_add(1),
                Operator::Equal | Operator::NotEqual => return Ok(None),
            };
            kept.before = Some(kept.before.map_or(before, |known| known.min(before)));
            continue;
        }
        let mut lowering = Lowering::new(collection, &mut kept.values);
        let sql = lowering.condition(part)?;
        // What the page has to complete is not of kinds either.
        if sql.contains('{') || !lowering.read.iter().all(|sql| counted.kinds.contains(sql)) {
            return Ok(None);
        }
        kept.sql = format!("{} AND {sql}", kept.sql);
    }
    Ok(Some(kept))
}

/// A comparison of the time by which rows are counted with a literal, microseconds since the Unix
/// epoch.
fn bound(part: &Node, collection: &Collection, counted: &Counted) -> Option<(Operator, i64)> {
    let Kind::Compare(operator, left, right) = &part.kind else { return None };
    let is_time = |node: &Node| match &node.kind {
        Kind::Word(word) => {
            find(collection.properties, word).is_some_and(|found| found.sql == counted.time)
        }
        _ => false,
    };
    let (operator, literal) = match (is_time(left), is_time(right)) {
        (true, false) => (*operator, right),
        (false, true) => (operator.turned(), left),
        _ => return None,
    };
    let (Kind::Word(text) | Kind::Text(text)) = &literal.kind else { return None };
    Some((operator, time(text)?.timestamp_micros()))
}

/// A value of a comparison.
enum Operand<'a> {
    /// SQL of a known type, and the name that errors call it by.
    Typed {
        sql: String,
        ty: Type,
        name: String,
    },
    Literal(Literal<'a>),
}

/// A literal takes the type of what it is compared to.
#[derive(Clone, Copy)]
struct Literal<'a> {
    text: &'a str,
    quoted: bool,
    place: usize,
}

/// A variable of a lambda and what it runs over.
struct Variable {
    name: String,
    alias: String,
    elements: &'static Elements,
}

struct Lowering<'a> {
    collection: &'a Collection,
    values: &'a mut Vec<Value>,
    inside: Vec<Variable>,
    lambdas: usize,
    /// The SQL of the collection's properties that the filter reads.
    read: Vec<&'static str>,
}

impl<'a> Lowering<'a> {
    fn new(collection: &'a Collection, values: &'a mut Vec<Value>) -> Lowering<'a> {
        Lowering { collection, values, inside: Vec::new(), lambdas: 0, read: Vec::new() }
    }

    fn condition(&mut self, node: &Node) -> Result<String, ApiError> {
        match &node.kind {
            Kind::And(parts) => {
                let parts = parts.iter().map(|part| self.condition(part));
                Ok(balanced(&parts.collect::<Result<Vec<_>, _>>()?, " AND "))
            }
            Kind::Or(parts) => {
                let parts = parts.iter().map(|part| self.condition(part));
                Ok(balanced(&parts.collect::<Result<Vec<_>, _>>()?, " OR "))
            }
            // Null counts as false inside, so its negation is true.
            Kind::Not(inner) => Ok(format!("NOT COALESCE({}, 1 = 0)", self.condition(inner)?)),
            Kind::Compare(operator, left, right) => self.compare(*operator, left, right),
            Kind::In(left, items) => self.one_of(left, items),
            Kind::Call(name, arguments) => self.test(name, arguments, node.place),
            Kind::Lambda { path, all, body } => self.lambda(path, *all, body.as_ref(), node.place),
            Kind::Word(word) if word.eq_ignore_ascii_case("true") => Ok("1 = 1".to_owned()),
            Kind::Word(word) if word.eq_ignore_ascii_case("false") => Ok("1 = 0".to_owned()),
            Kind::Word(word) => match self.property(word)? {
                Some(Operand::Typed { sql, ty: Type::Flag, .. }) => Ok(format!("{sql} <> 0")),
                Some(_) => Err(ApiError::odata(format!(
                    "'{word}' at position {} is no condition: an operator is expected after it.",
                    node.place
                ))),
                None => Err(unknown(self.collection.name, word)),
            },
            Kind::Text(_) => Err(ApiError::odata(format!(
                "A text at position {} in the filter is no condition.",
                node.place
            ))),
        }
    }

    fn compare(
        &mut self,
        operator: Operator,
        left: &Node,
        right: &Node,
    ) -> Result<String, ApiError> {
        // `startswith(…) eq true`, `(a eq 1) eq false`
        for (one, other) in [(left, right), (right, left)] {
            if let (Some(truth), true) = (truth(other), is_condition(one)) {
                let condition = self.condition(one)?;
                return match operator {
                    Operator::Equal if truth => Ok(condition),
                    Operator::NotEqual if !truth => Ok(condition),
                    Operator::Equal | Operator::NotEqual => {
                        Ok(format!("NOT COALESCE({condition}, 1 = 0)"))
                    }
                    _ => Err(ApiError::odata(format!(
                        "Truth at position {} can only be compared by eq and ne.",
                        other.place
                    ))),
                };
            }
        }
        match (self.operand(left)?, self.operand(right)?) {
            (Operand::Typed { sql, ty, name }, Operand::Literal(literal)) => {
                self.with_literal(operator, &sql, ty, &name, literal)
            }
            (Operand::Literal(literal), Operand::Typed { sql, ty, name }) => {
                self.with_literal(operator.turned(), &sql, ty, &name, literal)
            }
            (Operand::Typed { sql: a, ty, .. }, Operand::Typed { sql: b, ty: other, .. }) => {
                if ty != other {
                    return Err(ApiError::odata(format!(
                        "The types of both sides at position {} differ.",
                        left.place
                    )));
                }
                Ok(match operator {
                    Operator::NotEqual => format!("{a} IS DISTINCT FROM {b}"),
                    other => format!("{a} {} {b}", symbol(other)),
                })
            }
            (Operand::Literal(literal), Operand::Literal(_)) if literal.quoted => {
                let place = literal.place;
                Err(ApiError::odata(format!("No property is compared at position {place}.")))
            }
            (Operand::Literal(literal), _) => Err(unknown(self.collection.name, literal.text)),
        }
    }

    fn with_literal(
        &mut self,
        operator: Operator,
        sql: &str,
        ty: Type,
        name: &str,
        literal: Literal<'_>,
    ) -> Result<String, ApiError> {
        Ok(match (self.bind(ty, name, literal)?, operator) {
            (None, Operator::Equal) => format!("{sql} IS NULL"),
            (None, Operator::NotEqual) => format!("{sql} IS NOT NULL"),
            (None, _) => "1 = 0".to_owned(),
            (Some(value), Operator::NotEqual) => format!("({sql} <> {value} OR {sql} IS NULL)"),
            (Some(value), operator) => format!("{sql} {} {value}", symbol(operator)),
        })
    }

    fn one_of(&mut self, left: &Node, items: &[Node]) -> Result<String, ApiError> {
        let Operand::Typed { sql, ty, name } = self.operand(left)? else {
            return Err(match &left.kind {
                Kind::Word(word) => unknown(self.collection.name, word),
                _ => {
                    ApiError::odata(format!("No property is compared at position {}.", left.place))
                }
            });
        };
        let (mut names, mut null) = (Vec::new(), false);
        for item in items {
            match self.bind(ty, &name, literal(item)?)? {
                Some(value) => names.push(value),
                None => null = true,
            }
        }
        let among = format!("{sql} IN ({})", names.join(", "));
        Ok(match (names.is_empty(), null) {
            (true, _) => format!("{sql} IS NULL"),
            (false, true) => format!("({among} OR {sql} IS NULL)"),
            (false, false) => among,
        })
    }

    fn operand<'n>(&mut self, node: &'n Node) -> Result<Operand<'n>, ApiError> {
        match &node.kind {
            Kind::Text(text) => {
                Ok(Operand::Literal(Literal { text, quoted: true, place: node.place }))
            }
            Kind::Word(word) => match self.property(word)? {
                Some(found) => Ok(found),
                None => Ok(Operand::Literal(literal(node)?)),
            },
            Kind::Call(name, arguments) => self.value(name, arguments, node.place),
            _ => Err(ApiError::odata(format!("A value is expected at position {}.", node.place))),
        }
    }

    /// The property of a path, also behind the variable of a lambda.
    fn property(&mut self, path: &str) -> Result<Option<Operand<'static>>, ApiError> {
        let typed = |sql: String, property: &Property| Operand::Typed {
            sql,
            ty: property.ty,
            name: property.name.to_owned(),
        };
        let (first, rest) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
        if let Some(variable) = self.inside.iter().rev().find(|v| v.name == first) {
            let alias = &variable.alias;
            return match (variable.elements, rest) {
                (Elements::Texts, None) => Ok(Some(Operand::Typed {
                    sql: format!("{alias}.value"),
                    ty: Type::Text,
                    name: first.to_owned(),
                })),
                (Elements::Rows { properties, .. }, Some(rest)) => {
                    let found = find(properties, rest).ok_or_else(|| {
                        ApiError::odata(format!(
                            "Could not find a property named '{rest}' behind '{first}' that can be \
                             used here."
                        ))
                    })?;
                    Ok(Some(typed(format!("{alias}.{}", found.sql), found)))
                }
                _ => Err(ApiError::odata(format!("'{path}' is no property of an element."))),
            };
        }
        match find(self.collection.properties, path) {
            Some(Property { name, ty: Type::Many(_), .. }) => Err(ApiError::odata(format!(
                "'{name}' is a collection: use {name}/any(x: …) or {name}/all(x: …)."
            ))),
            Some(found) => {
                self.read.push(found.sql);
                Ok(Some(typed(found.sql.to_owned(), found)))
            }
            None => Ok(None),
        }
    }

    /// A literal of the type as `$n`; `None` for null.
    fn bind(
        &mut self,
        ty: Type,
        name: &str,
        literal: Literal<'_>,
    ) -> Result<Option<String>, ApiError> {
        let Literal { text, quoted, place } = literal;
        if !quoted && text == "null" {
            return Ok(None);
        }
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            ApiError::odata(format!(
                "The value '{shown}' at position {place} does not fit the property '{name}'."
            ))
        };
        let value: Value = match ty {
            // Ids and enumerations without quotes are seen in real clients.
            Type::Text => text.into(),
            Type::Guid => text.to_lowercase().into(),
            Type::Integer => text.parse::<i64>().map_err(|_| wrong())?.into(),
            Type::Flag => truth_of(text).ok_or_else(wrong)?.into(),
            Type::Time => time(text).ok_or_else(wrong)?.timestamp_micros().into(),
            Type::Many(_) => return Err(wrong()),
        };
        self.values.push(value);
        Ok(Some(format!("${}", self.values.len())))
    }

    /// A function that gives truth.
    fn test(&mut self, name: &str, arguments: &[Node], place: usize) -> Result<String, ApiError> {
        let lower = name.to_ascii_lowercase();
        let (subject, needle) = match (lower.as_str(), arguments) {
            ("startswith" | "endswith" | "contains", [subject, needle]) => (subject, needle),
            ("substringof", [needle, subject]) => (subject, needle),
            ("startswith" | "endswith" | "contains" | "substringof", _) => {
                return Err(ApiError::odata(format!(
                    "The function '{name}' at position {place} takes two arguments."
                )));
            }
            _ if is_value_function(&lower) => {
                return Err(ApiError::odata(format!(
                    "'{name}' at position {place} is no condition: an operator is expected after it."
                )));
            }
            _ => return Err(unsupported(name, place)),
        };
        let sql = match self.operand(subject)? {
            Operand::Typed { sql, ty: Type::Text | Type::Guid, .. } => sql,
            Operand::Typed { name, .. } => {
                let place = subject.place;
                return Err(ApiError::odata(format!("'{name}' at position {place} is no text.")));
            }
            Operand::Literal(literal) => return Err(unknown(self.collection.name, literal.text)),
        };
        let needle = literal(needle)?;
        let escaped = needle.text.to_lowercase().replace('\\', "\\\\");
        let escaped = escaped.replace('%', "\\%").replace('_', "\\_");
        let pattern = match lower.as_str() {
            "startswith" => format!("{escaped}%"),
            "endswith" => format!("%{escaped}"),
            _ => format!("%{escaped}%"),
        };
        self.values.push(pattern.into());
        Ok(format!("LOWER({sql}) LIKE ${} ESCAPE '\\'", self.values.len()))
    }

    /// A function that gives a text, a number or a time.
    fn value<'n>(
        &mut self,
        name: &str,
        arguments: &'n [Node],
        place: usize,
    ) -> Result<Operand<'n>, ApiError> {
        let lower = name.to_ascii_lowercase();
        let typed = |sql: String, ty: Type| Ok(Operand::Typed { sql, ty, name: name.to_owned() });
        match (lower.as_str(), arguments) {
            ("now", []) => typed("{now}".to_owned(), Type::Time),
            ("tolower", [argument]) => {
                typed(format!("LOWER({})", self.text(argument)?), Type::Text)
            }
            ("toupper", [argument]) => {
                typed(format!("UPPER({})", self.text(argument)?), Type::Text)
            }
            ("trim", [argument]) => typed(format!("TRIM({})", self.text(argument)?), Type::Text),
            ("length", [argument]) => {
                typed(format!("LENGTH({})", self.text(argument)?), Type::Integer)
            }
            ("concat", [one, other]) => {
                let sql = format!("({} || {})", self.text(one)?, self.text(other)?);
                typed(sql, Type::Text)
            }
            (known, _) if is_value_function(known) => Err(ApiError::odata(format!(
                "The function '{name}' at position {place} has another number of arguments."
            ))),
            _ => Err(unsupported(name, place)),
        }
    }

    /// An argument that is a text.
    fn text(&mut self, node: &Node) -> Result<String, ApiError> {
        match self.operand(node)? {
            Operand::Typed { sql, ty: Type::Text | Type::Guid, .. } => Ok(sql),
            Operand::Literal(literal) if literal.quoted => {
                self.values.push(literal.text.into());
                Ok(format!("${}", self.values.len()))
            }
            Operand::Literal(literal) => Err(unknown(self.collection.name, literal.text)),
            Operand::Typed { name, .. } => {
                let place = node.place;
                Err(ApiError::odata(format!("'{name}' at position {place} is no text.")))
            }
        }
    }

    fn lambda(
        &mut self,
        path: &str,
        all: bool,
        body: Option<&(String, Box<Node>)>,
        place: usize,
    ) -> Result<String, ApiError> {
        let property = find(self.collection.properties, path);
        let property = property.ok_or_else(|| unknown(self.collection.name, path))?;
        let Type::Many(elements) = property.ty else {
            let message = format!("'{path}' at position {place} is no collection.");
            return Err(ApiError::odata(message));
        };
        self.read.push(property.sql);
        self.lambdas += 1;
        let alias = format!("x{}", self.lambdas);
        let (from, joined) = match elements {
            // The page writes what the database calls an array's elements.
            Elements::Texts => (format!("{{texts {} {alias}}}", property.sql), "1 = 1".to_owned()),
            Elements::Rows { table, key, .. } => {
                (format!("{table} {alias}"), format!("{alias}.{key} = {}", property.sql))
            }
        };
        let condition = match body {
            None if all => return Ok("1 = 1".to_owned()),
            None => "1 = 1".to_owned(),
            Some((variable, body)) => {
                let name = variable.clone();
                self.inside.push(Variable { name, alias, elements });
                let condition = self.condition(body);
                self.inside.pop();
                condition?
            }
        };
        Ok(match all {
            false => format!("EXISTS (SELECT 1 FROM {from} WHERE {joined} AND {condition})"),
            true => format!(
                "NOT EXISTS (SELECT 1 FROM {from} WHERE {joined} AND NOT COALESCE({condition}, 1 = 0))"
            ),
        })
    }
}

fn find<'a>(properties: &'a [Property], name: &str) -> Option<&'a Property> {
    properties.iter().find(|property| property.name.eq_ignore_ascii_case(name))
}

/// The error for a property that the collection of that name does not have.
pub fn unknown(collection: &str, name: &str) -> ApiError {
    let name: String = name.chars().take(80).collect();
    ApiError::odata(format!(
        "Could not find a property named '{name}' on type '{collection}' that can be used here."
    ))
}

fn unsupported(name: &str, place: usize) -> ApiError {
    let name: String = name.chars().take(80).collect();
    ApiError::odata(format!(
        "The function '{name}' at position {place} is not supported here; there are {FUNCTIONS}."
    ))
}

fn is_value_function(lower: &str) -> bool {
    matches!(lower, "now" | "tolower" | "toupper" | "trim" | "length" | "concat")
}

fn is_condition(node: &Node) -> bool {
    match &node.kind {
        Kind::Call(name, _) => !is_value_function(&name.to_ascii_lowercase()),
        Kind::And(_) | Kind::Or(_) | Kind::Not(_) | Kind::Compare(..) | Kind::In(..) => true,
        Kind::Lambda { .. } => true,
        Kind::Text(_) | Kind::Word(_) => false,
    }
}

fn truth(node: &Node) -> Option<bool> {
    match &node.kind {
        Kind::Word(word) => truth_of(word),
        _ => None,
    }
}

fn truth_of(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn literal(node: &Node) -> Result<Literal<'_>, ApiError> {
    match &node.kind {
        Kind::Text(text) => Ok(Literal { text, quoted: true, place: node.place }),
        Kind::Word(text) => Ok(Literal { text, quoted: false, place: node.place }),
        _ => Err(ApiError::odata(format!("A literal is expected at position {}.", node.place))),
    }
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "=",
        Operator::NotEqual => "<>",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
    }
}

/// Parts joined as a balanced tree: databases bound the depth of an expression, not its size.
fn balanced(parts: &[String], joint: &str) -> String {
    match parts {
        [one] => one.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            format!("({}{joint}{})", balanced(left, joint), balanced(right, joint))
        }
    }
}

/// A date, or a time in RFC 3339, with any number of digits of a second.
pub fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let plain = text.trim_end_matches(['Z', 'z']);
    if let Ok(date) = NaiveDate::parse_from_str(plain, "%Y-%m-%d") {
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc());
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f"];
    forms.iter().find_map(|form| Some(NaiveDateTime::parse_from_str(plain, form).ok()?.and_utc()))
}
