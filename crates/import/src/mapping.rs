//! Which event becomes which row: the rules of `catalogue/event_mapping.json`.

use crate::event::Event;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use vigie_contract::tables::{self, Table};

/// One rule. Rules of the same source and event are tried in the file's order; the first whose
/// conditions hold decides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    source: String,
    event: String,
    #[serde(default)]
    when: BTreeMap<String, String>,
    /// Absent where the event has no counterpart in the hunting tables.
    table: Option<String>,
    #[serde(default)]
    action: String,
    /// Target column, `AdditionalFields.NAME` or `@form` → where its value comes from.
    #[serde(default)]
    columns: BTreeMap<String, String>,
}

/// What a rule makes of an event.
pub struct Target {
    pub table: &'static Table,
    pub action: &'static str,
    pub columns: &'static BTreeMap<String, String>,
}

type Rules = HashMap<(String, String), Vec<Rule>>;

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let text = include_str!("../../../catalogue/event_mapping.json");
    let rules: Vec<Rule> =
        serde_json::from_str(text).expect("catalogue/event_mapping.json is part of the program");
    let mut by_event = Rules::new();
    for rule in rules {
        by_event.entry((rule.source.clone(), rule.event.clone())).or_default().push(rule);
    }
    by_event
});

/// The rule for an event, `None` where there is no rule or the rule has no table.
pub fn target(event: &Event) -> Option<Target> {
    let rules = RULES.get(&(event.source.clone(), event.id.clone()))?;
    let rule = rules.iter().find(|rule| rule.holds(event))?;
    Some(Target {
        table: tables::table(rule.table.as_deref()?)?,
        action: &rule.action,
        columns: &rule.columns,
    })
}

/// The table in which rules put an action type, where they agree on one.
pub fn table_of_action(action: &str) -> Option<&'static Table> {
    let mut found =
        RULES.values().flatten().filter(|rule| rule.action == action).map(|rule| &rule.table);
    let first = found.next()?.as_deref()?;
    found.all(|table| table.as_deref() == Some(first)).then(|| tables::table(first))?
}

impl Rule {
    /// `*`: any value; `~text`: contains, ignoring case; else equal, ignoring case.
    fn holds(&self, event: &Event) -> bool {
        self.when.iter().all(|(field, wanted)| {
            let value = event.text(field);
            match wanted.strip_prefix('~') {
                Some(part) => value.to_ascii_lowercase().contains(&part.to_ascii_lowercase()),
                None if wanted == "*" => !value.is_empty(),
                None => value.eq_ignore_ascii_case(wanted),
            }
        })
    }
}

/// The value that a column's source names: `='text'` is that text, `A|B` the first that is not empty.
pub fn source_value<'a>(event: &'a Event, source: &'a str) -> &'a str {
    if let Some(constant) = source.strip_prefix("='") {
        return constant.trim_end_matches('\'');
    }
    source.split('|').map(|field| event.text(field)).find(|text| !text.is_empty()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets that `rows.rs` understands besides columns.
    const FORMS: &[&str] = &[
        "@path",
        "@initiating",
        "@user",
        "@initiatingUser",
        "@hashes",
        "@process",
        "@remember",
        "@registryKey",
        "@registryValue",
        "@previousRegistryKey",
        "@registryData",
        "@logonType",
        "@failure",
        "@elevation",
        "@integrity",
        "@protocolNumber",
        "@dnsResults",
        "@zone",
    ];

    #[test]
    fn every_rule_names_a_table_and_columns_that_exist() {
        for rule in RULES.values().flatten() {
            let Some(name) = &rule.table else { continue };
            let table = tables::table(name).unwrap_or_else(|| panic!("no table {name}"));
            for target in rule.columns.keys() {
                let exists = match target.split_once('.') {
                    Some((column, _)) => column == "AdditionalFields",
                    None if target.starts_with('@') => FORMS.contains(&target.as_str()),
                    None => table.columns.iter().any(|column| column.name == *target),
                };
                assert!(exists, "{}/{}: {name} has no {target}", rule.source, rule.event);
            }
        }
    }
}
