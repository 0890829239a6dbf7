//! Just enough of JSON to take literal arrays of a query apart.

use crate::types::Value;

/// The scalars of a JSON array, inner arrays opened; `None` where the text is no array. Elements
/// keep their JSON type: text, number, truth value; objects stay dynamic.
pub fn elements(json: &str) -> Option<Vec<Value>> {
    let inner = json.strip_prefix('[')?.strip_suffix(']')?;
    let mut values = Vec::new();
    for part in split(inner) {
        match part.as_bytes().first()? {
            b'[' => values.extend(elements(part)?),
            b'{' => values.push(Value::Dynamic(part.into())),
            b'"' => values.push(Value::String(crate::literals::string(part, false)?.0.into())),
            b't' => values.push(Value::Bool(true)),
            b'f' => values.push(Value::Bool(false)),
            b'n' => {}
            _ => values.push(match part.parse::<i64>() {
                Ok(number) => Value::Long(number),
                Err(_) => Value::Real(part.parse().ok()?),
            }),
        }
    }
    Some(values)
}

/// The parts between the commas of the outermost level.
fn split(inner: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut quoted, mut escaped) = (0i32, 0, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = inner[start..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}
