//! The same options over a list that stands in memory.

use super::syntax::{Kind, Node, Operator, parse};
use super::{Property, Type, condition};
use crate::edge::{ApiError, Call, json};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value as Json, json};
use std::cmp::Ordering;

/// A list of entities that are few: its name in `@odata.context` and what may be filtered by. The
/// SQL of the properties is not used.
pub struct List {
    pub name: &'static str,
    pub properties: &'static [Property],
}

/// A value that can be compared; null comes before every other.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Cell {
    Null,
    Flag(bool),
    /// A number, or microseconds since the Unix epoch.
    Number(i64),
    Text(String),
}

impl List {
    /// The answer: the page of the list, or its length where the path ended in `/$count`.
    pub fn respond(&self, call: &Call, mut entities: Vec<Json>) -> Result<Response, ApiError> {
        let (mut count, mut skip, mut top, mut select) = (false, 0, usize::MAX, None);
        for (name, value) in &call.query {
            let number = || {
                let message = format!("Invalid value '{value}' for the query option '{name}'.");
                value.parse::<usize>().map_err(|_| ApiError::odata(message))
            };
            match name.to_ascii_lowercase().as_str() {
                "$filter" => {
                    let tree = parse(value)?;
                    let mut kept = Vec::new();
                    for entity in entities {
                        if self.holds(&tree, &entity)? {
                            kept.push(entity);
                        }
                    }
                    // A filter that is wrong is refused where nothing stands to be filtered, too.
                    self.holds(&tree, &Json::Null)?;
                    entities = kept;
                }
                "$orderby" => self.order(&mut entities, value)?,
                "$count" => count = value.eq_ignore_ascii_case("true"),
                "$skip" => skip = number()?,
                "$top" => top = number()?,
                "$select" => {
                    let names: Vec<String> =
                        value.split(',').map(|name| name.trim().to_owned()).collect();
                    for name in names.iter().filter(|name| *name != "*") {
                        self.property(name)?;
                    }
                    select = Some(names).filter(|names| !names.iter().any(|name| name == "*"));
                }
                "$format" => {}
                option if option.starts_with('$') => {
                    return Err(ApiError::odata(format!(
                        "The query option '{name}' is not supported."
                    )));
                }
                _ => {}
            }
        }
        let all = entities.len();
        if call.count {
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Ok((StatusCode::OK, plain, all.to_string()).into_response());
        }
        let mut answer =
            json!({"@odata.context": format!("{}/$metadata#{}", call.base, self.name)});
        if count {
            answer["@odata.count"] = all.into();
        }
        let page = entities.into_iter().skip(skip).take(top);
        answer["value"] = page.map(|entity| chosen(entity, select.as_deref())).collect();
        Ok(json(200, &answer))
    }

    fn property(&self, name: &str) -> Result<&'static Property, ApiError> {
        let found = self.properties.iter().find(|p| p.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| condition::unknown(self.name, name))
    }

    fn order(&self, entities: &mut [Json], text: &str) -> Result<(), ApiError> {
        let mut keys = Vec::new();
        for part in text.split(',') {
            let mut words = part.split_whitespace();
            let property = self.property(words.next().unwrap_or_default())?;
            keys.push((
                property,
                words.next().is_some_and(|word| word.eq_ignore_ascii_case("desc")),
            ));
        }
        entities.sort_by(|a, b| {
            let compared = keys.iter().map(|(property, descending)| {
                let ordering = cell(property, a).partial_cmp(&cell(property, b));
                let ordering = ordering.unwrap_or(Ordering::Equal);
                if *descending { ordering.reverse() } else { ordering }
            });
            compared.fold(Ordering::Equal, Ordering::then)
        });
        Ok(())
    }

    fn holds(&self, node: &Node, entity: &Json) -> Result<bool, ApiError> {
        match &node.kind {
            Kind::And(parts) => {
                let held = parts.iter().map(|part| self.holds(part, entity));
                Ok(held.collect::<Result<Vec<_>, _>>()?.into_iter().all(|held| held))
            }
            Kind::Or(parts) => {
                let held = parts.iter().map(|part| self.holds(part, entity));
                Ok(held.collect::<Result<Vec<_>, _>>()?.into_iter().any(|held| held))
            }
            Kind::Not(inner) => Ok(!self.holds(inner, entity)?),
            Kind::Compare(operator, left, right) => {
                let (property, operator, literal) = match self.operand(left) {
                    Ok(property) => (property, *operator, right),
                    Err(error) => match self.operand(right) {
                        Ok(property) => (property, operator.turned(), left),
                        Err(_) => return Err(error),
                    },
                };
                let literal = value(property, literal)?;
                let found = cell(property, entity);
                if found == Cell::Null || literal == Cell::Null {
                    return Ok(match operator {
                        Operator::Equal => found == literal,
                        Operator::NotEqual => found != literal,
                        _ => false,
                    });
                }
                let ordering = found.partial_cmp(&literal).unwrap_or(Ordering::Equal);
                Ok(match operator {
                    Operator::Equal => ordering.is_eq(),
                    Operator::NotEqual => ordering.is_ne(),
                    Operator::Less => ordering.is_lt(),
                    Operator::LessOrEqual => ordering.is_le(),
                    Operator::Greater => ordering.is_gt(),
                    Operator::GreaterOrEqual => ordering.is_ge(),
                })
            }
            Kind::In(left, items) => {
                let property = self.operand(left)?;
                let found = cell(property, entity);
                let items = items.iter().map(|item| value(property, item));
                Ok(items.collect::<Result<Vec<_>, _>>()?.contains(&found))
            }
            Kind::Call(name, arguments) => self.test(name, arguments, node.place, entity),
            _ => Err(ApiError::odata(format!(
                "What stands at position {} of the filter is not supported on this list.",
                node.place
            ))),
        }
    }

    fn operand(&self, node: &Node) -> Result<&'static Property, ApiError> {
        match &node.kind {
            Kind::Word(word) => self.property(word),
            _ => {
                Err(ApiError::odata(format!("A property is expected at position {}.", node.place)))
            }
        }
    }

    fn test(
        &self,
        name: &str,
        arguments: &[Node],
        place: usize,
        entity: &Json,
    ) -> Result<bool, ApiError> {
        let test = match name.to_ascii_lowercase().as_str() {
            "startswith" => |text: &str, part: &str| text.starts_with(part),
            "endswith" => |text: &str, part: &str| text.ends_with(part),
            "contains" => |text: &str, part: &str| text.contains(part),
            _ => {
                let message =
                    format!("The function '{name}' at position {place} is not supported here.");
                return Err(ApiError::odata(message));
            }
        };
        let [subject, part] = arguments else {
            let message = format!("The function '{name}' at position {place} takes two arguments.");
            return Err(ApiError::odata(message));
        };
        let property = self.operand(subject)?;
        let Cell::Text(part) = value(property, part)? else { return Ok(false) };
        let Cell::Text(text) = cell(property, entity) else { return Ok(false) };
        Ok(test(&text.to_lowercase(), &part.to_lowercase()))
    }
}

fn chosen(entity: Json, select: Option<&[String]>) -> Json {
    let (Some(select), Json::Object(properties)) = (select, &entity) else { return entity };
    let kept = properties
        .iter()
        .filter(|(name, _)| select.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)));
    Json::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

fn cell(property: &Property, entity: &Json) -> Cell {
    match (property.ty, &entity[property.name]) {
        (_, Json::Null) => Cell::Null,
        (Type::Time, Json::String(text)) => match condition::time(text) {
            Some(time) => Cell::Number(time.timestamp_micros()),
            None => Cell::Null,
        },
        (_, Json::Bool(value)) => Cell::Flag(*value),
        (_, Json::Number(number)) => number.as_i64().map_or(Cell::Null, Cell::Number),
        (_, Json::String(text)) => Cell::Text(text.clone()),
        (_, other) => Cell::Text(other.to_string()),
    }
}

/// A literal of the property's type.
fn value(property: &Property, node: &Node) -> Result<Cell, ApiError> {
    let (text, quoted) = match &node.kind {
        Kind::Text(text) => (text, true),
        Kind::Word(text) => (text, false),
        _ => {
            let message = format!("A literal is expected at position {}.", node.place);
            return Err(ApiError::odata(message));
        }
    };
    if !quoted && text == "null" {
        return Ok(Cell::Null);
    }
    let found = match property.ty {
        Type::Text | Type::Guid | Type::Many(_) => Some(Cell::Text(text.clone())),
        Type::Integer => text.parse().ok().map(Cell::Number),
        Type::Flag => text.to_ascii_lowercase().parse().ok().map(Cell::Flag),
        Type::Time => condition::time(text).map(|time| Cell::Number(time.timestamp_micros())),
    };
    found.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        ApiError::odata(format!(
            "The value '{shown}' at position {} does not fit the property '{}'.",
            node.place, property.name
        ))
    })
}
