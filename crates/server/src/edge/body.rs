//! Bodies of requests: JSON of the shape that the catalogue gives the operation.
//!
//! Names of members are matched without regard to case and come out as documented; members that no
//! document names are left as they are and ignored. A member that is null counts as not sent.

use super::ApiError;
use crate::odata;
use http::{HeaderMap, header};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::fmt;
use vigie_contract::operations::BodyProperty;

pub type Shape = BTreeMap<String, BodyProperty>;

/// Reads a body and brings it into the documented form.
pub fn read(headers: &HeaderMap, body: &[u8], shape: Option<&Shape>) -> Result<Json, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if content_type.is_some_and(|value| !value.to_ascii_lowercase().contains("json")) {
        return Err(ApiError::media_type());
    }
    let needs_nothing = shape.is_none_or(|shape| !shape.values().any(|member| member.required));
    if body.trim_ascii().is_empty() && needs_nothing {
        return Ok(Json::Object(Map::new()));
    }
    let Strict(value) = serde_json::from_slice(body)
        .map_err(|error| ApiError::body(format!("Request body is incorrect: {error}")))?;
    match (value, shape) {
        (Json::Object(members), Some(shape)) => documented(members, shape).map(Json::Object),
        (_, Some(_)) => Err(ApiError::body("Request body is incorrect: an object is expected")),
        (value, None) => Ok(value),
    }
}

/// Members under their documented names, each of its documented type; those that must be there are.
pub fn documented(
    members: Map<String, Json>,
    shape: &Shape,
) -> Result<Map<String, Json>, ApiError> {
    let mut out = Map::new();
    for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
        let known = shape.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        let (name, value) = match known {
            Some((known, member)) => {
                (known.clone(), typed(known, value, member.r#type.as_deref().unwrap_or_default())?)
            }
            None => (name, value),
        };
        if out.contains_key(&name) {
            return Err(ApiError::body(format!("Request body is incorrect: {name} stands twice")));
        }
        out.insert(name, value);
    }
    let missing = shape.iter().find(|(name, member)| member.required && !out.contains_key(*name));
    match missing {
        Some((name, _)) => Err(ApiError::missing(name)),
        None => Ok(out),
    }
}

/// The value as its documented type; what can only mean one thing is converted.
fn typed(name: &str, value: Json, ty: &str) -> Result<Json, ApiError> {
    let wrong = |expected: &str| Err(ApiError::body(format!("{name}: {expected} is expected")));
    match (ty, value) {
        ("string", value @ Json::String(_)) => Ok(value),
        ("string", _) => wrong("a text"),
        ("string or number", Json::Number(number)) => Ok(number.to_string().into()),
        ("string or number", value @ Json::String(_)) => Ok(value),
        ("string or number", _) => wrong("a number in a text"),
        ("boolean", value @ Json::Bool(_)) => Ok(value),
        ("boolean", Json::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true.into()),
        ("boolean", Json::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false.into()),
        ("boolean", _) => wrong("true or false"),
        ("int", Json::Number(number)) if number.is_i64() => Ok(Json::Number(number)),
        ("int", Json::String(text)) => match text.parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => wrong("a whole number"),
        },
        ("int", _) => wrong("a whole number"),
        ("DateTimeOffset", Json::String(text)) => match odata::time(&text) {
            Some(_) => Ok(text.into()),
            None => wrong("a time such as 2026-01-31T12:00:00Z"),
        },
        ("DateTimeOffset", _) => wrong("a time such as 2026-01-31T12:00:00Z"),
        ("array of string", Json::Array(items)) if items.iter().all(Json::is_string) => {
            Ok(items.into())
        }
        ("array of string", _) => wrong("a list of texts"),
        (ty, value) if ty.starts_with("array of") && !value.is_array() => wrong("a list"),
        (ty, value) if ty.starts_with("object") && !value.is_object() => wrong("an object"),
        (_, value) => Ok(value),
    }
}

/// The documented spelling of a value out of few.
pub fn choice(name: &str, value: &str, allowed: &[&'static str]) -> Result<&'static str, ApiError> {
    let found = allowed.iter().find(|allowed| allowed.eq_ignore_ascii_case(value.trim()));
    found.copied().ok_or_else(|| {
        let value: String = value.chars().take(80).collect();
        ApiError::body(format!("{name}: '{value}' is not one of {}", allowed.join(", ")))
    })
}

/// JSON in which no object names a member twice and no text holds U+0000. Nesting is bounded by serde_json (128).
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        // PostgreSQL keeps no such text.
        match value.contains('\0') {
            true => Err(E::custom("a text holds the character U+0000")),
            false => Ok(value.into()),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut out = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if out.contains_key(&name) {
                let name: String = name.chars().take(80).collect();
                return Err(de::Error::custom(format_args!("the member '{name}' stands twice")));
            }
            out.insert(name, value);
        }
        Ok(Json::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape() -> Shape {
        let member = |ty: &str, required| BodyProperty {
            r#type: Some(ty.to_owned()),
            required,
            r#enum: None,
        };
        [
            ("Comment", member("string", true)),
            ("isActive", member("boolean", false)),
            ("MachineIds", member("array of string", false)),
        ]
        .map(|(name, member)| (name.to_owned(), member))
        .into()
    }

    #[test]
    fn members_come_out_as_documented() {
        let read = |text: &str| read(&HeaderMap::new(), text.as_bytes(), Some(&shape()));
        let good = read(r#"{"comment":"c","ISACTIVE":"True","more":1}"#).expect("read");
        assert_eq!(good, json!({"Comment": "c", "isActive": true, "more": 1}));
        for (text, named) in [
            ("", "EOF"),
            ("{}", "Comment is missing"),
            (r#"{"Comment":null}"#, "Comment is missing"),
            (r#"{"Comment":1}"#, "Comment"),
            (r#"{"Comment":"a","comment":"b"}"#, "twice"),
            (r#"{"Comment":"a","Comment":"b"}"#, "twice"),
            (r#"{"Comment":"a","isActive":"perhaps"}"#, "isActive"),
            (r#"{"Comment":"a","MachineIds":[1]}"#, "MachineIds"),
            (r#"{"Comment":"a\u0000b"}"#, "U+0000"),
            ("[]", "object"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.status, 400);
            assert!(error.message.contains(named), "{text}: {}", error.message);
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&deep).expect_err("deep").status, 400);
    }
}
