//! `$skiptoken`: where a page ended, as the values of its last row's order keys.
//!
//! The next page begins behind that row, wherever it stands by then: rows that arrive or go while a
//! client walks move nothing.

use super::options::OrderKey;
use crate::edge::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use vigie_database::Value;

/// A token of the last row's key values.
pub fn write(order: &[OrderKey], keys: &[&Value]) -> String {
    let mut content = vec![Json::from(fingerprint(order))];
    content.extend(keys.iter().map(|key| match key {
        Value::Text(text) => Json::from(text.clone()),
        Value::Integer(number) => Json::from(*number),
        Value::Real(_) | Value::Bytes(_) => Json::Null,
    }));
    URL_SAFE_NO_PAD.encode(Json::from(content).to_string())
}

/// The key values of a token for the same order.
pub fn read(token: &str, order: &[OrderKey]) -> Result<Vec<Json>, ApiError> {
    let invalid = || ApiError::odata("The $skiptoken is not one of this list and order.");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let mut content: Vec<Json> = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let simple = |value: &Json| value.is_null() || value.is_string() || value.is_i64();
    let fits = content.len() == order.len() + 1
        && content[0] == fingerprint(order).as_str()
        && content.iter().all(simple)
        && order.iter().zip(&content[1..]).all(|(key, value)| key.nullable || !value.is_null());
    if !fits {
        return Err(invalid());
    }
    content.remove(0);
    Ok(content)
}

fn fingerprint(order: &[OrderKey]) -> String {
    let mut hash = Sha256::new();
    for key in order {
        hash.update(format!("{}\n{}\n", key.sql, key.descending));
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..6])
}

/// The condition that a row comes after the one of the values; they are appended to `values`.
pub fn condition(order: &[OrderKey], after: &[Json], values: &mut Vec<Value>) -> String {
    let mut alternatives = Vec::new();
    let mut equal: Vec<String> = Vec::new();
    for (key, value) in order.iter().zip(after) {
        let sql = &key.sql;
        let name = match value {
            Json::Null => None,
            Json::String(text) => Some(Value::from(text.as_str())),
            other => Some(Value::from(other.as_i64().unwrap_or_default())),
        };
        let name = name.map(|value| {
            values.push(value);
            format!("${}", values.len())
        });
        let (behind, same) = match (&name, key.descending) {
            (None, false) => (format!("{sql} IS NOT NULL"), format!("{sql} IS NULL")),
            (None, true) => ("1 = 0".to_owned(), format!("{sql} IS NULL")),
            (Some(name), false) => (format!("{sql} > {name}"), format!("{sql} = {name}")),
            (Some(name), true) if key.nullable => {
                (format!("({sql} < {name} OR {sql} IS NULL)"), format!("{sql} = {name}"))
            }
            (Some(name), true) => (format!("{sql} < {name}"), format!("{sql} = {name}")),
        };
        let mut parts = equal.clone();
        parts.push(behind);
        alternatives.push(format!("({})", parts.join(" AND ")));
        equal.push(same);
    }
    // What the first key says alone is what an index can begin at.
    let first = match (order.first(), after.first()) {
        (Some(key), Some(value)) if !value.is_null() && !key.nullable => {
            let symbol = if key.descending { "<=" } else { ">=" };
            let number = values.len() + 1 - after.iter().filter(|value| !value.is_null()).count();
            format!("{} {symbol} ${number} AND ", key.sql)
        }
        _ => String::new(),
    };
    format!("({first}({}))", alternatives.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Vec<OrderKey> {
        vec![
            OrderKey { sql: "a".to_owned(), descending: true, nullable: false },
            OrderKey { sql: "b".to_owned(), descending: false, nullable: true },
        ]
    }

    #[test]
    fn a_token_comes_back_and_fits_its_order_only() {
        let token = write(&order(), &[&Value::from(5), &Value::from("x")]);
        assert_eq!(read(&token, &order()).expect("read"), [Json::from(5), Json::from("x")]);
        let mut other = order();
        other[0].descending = false;
        assert!(read(&token, &other).is_err());
        for broken in ["", "x", "W10", &token[1..]] {
            assert!(read(broken, &order()).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_condition_orders_null_before_values() {
        let mut values = vec![Value::from("tenant")];
        let sql = condition(&order(), &[5.into(), Json::Null], &mut values);
        assert_eq!(sql, "(a <= $2 AND ((a < $2) OR (a = $2 AND b IS NOT NULL)))");
        assert_eq!(values.len(), 2);
    }
}
