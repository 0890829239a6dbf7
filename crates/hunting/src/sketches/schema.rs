//! `buildschema`: the least schema that fits all dynamic values.

use super::Sketch;
use crate::functions::Cell;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of values seen in one place.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    simple: BTreeSet<String>,
    bag: Option<BTreeMap<String, Schema>>,
    /// Of an array's elements.
    elements: Option<Box<Schema>>,
}

/// The key under which an array's elements stand.
const INDEXER: &str = "`indexer`";

impl Schema {
    fn see(&mut self, value: &Value) {
        let simple = match value {
            Value::Null => return,
            Value::Object(bag) => {
                let known = self.bag.get_or_insert_default();
                for (key, value) in bag {
                    known.entry(key.clone()).or_default().see(value);
                }
                return;
            }
            Value::Array(values) => {
                let elements = self.elements.get_or_insert_default();
                values.iter().for_each(|value| elements.see(value));
                return;
            }
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "double",
            Value::Number(_) => "long",
            Value::String(_) => "string",
        };
        self.simple.insert(simple.to_owned());
    }

    /// What [`Schema::json`] wrote.
    fn read(&mut self, written: &Value) {
        match written {
            Value::String(simple) => {
                self.simple.insert(simple.clone());
            }
            Value::Array(several) => several.iter().for_each(|one| self.read(one)),
            Value::Object(bag) => match bag.get(INDEXER) {
                Some(elements) if bag.len() == 1 => {
                    self.elements.get_or_insert_default().read(elements);
                }
                _ => {
                    let known = self.bag.get_or_insert_default();
                    for (key, value) in bag {
                        known.entry(key.clone()).or_default().read(value);
                    }
                }
            },
            _ => {}
        }
    }

    fn json(&self) -> Value {
        let mut all = Vec::new();
        if let Some(bag) = &self.bag {
            let bag = bag.iter().map(|(key, schema)| (key.clone(), schema.json()));
            all.push(Value::Object(bag.collect()));
        }
        if let Some(elements) = &self.elements {
            all.push(Value::Object(Map::from_iter([(INDEXER.to_owned(), elements.json())])));
        }
        all.extend(self.simple.iter().cloned().map(Value::String));
        match all.len() {
            1 => all.remove(0),
            _ => Value::Array(all),
        }
    }

    fn is_empty(&self) -> bool {
        self.simple.is_empty() && self.bag.is_none() && self.elements.is_none()
    }
}

impl Sketch for Schema {
    fn add(&mut self, row: &[Cell<'_>]) {
        if let Ok(value) = serde_json::from_str(row[0].as_text()) {
            self.see(&value);
        }
    }

    fn merge(&mut self, state: &str) {
        if let Ok(written) = serde_json::from_str(state) {
            self.read(&written);
        }
    }

    fn state(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.json().to_string())
    }

    fn size(&self) -> usize {
        let bag = self.bag.iter().flatten().map(|(key, schema)| key.len() + 48 + schema.size());
        self.simple.len() * 32
            + bag.sum::<usize>()
            + self.elements.as_ref().map_or(0, |elements| 64 + elements.size())
    }
}
