//! The rules that come with the server.

use crate::features::alerts::Source;
use serde::Deserialize;
use std::sync::LazyLock;
use uuid::Uuid;
use vigie_contract::detection::{Detection, EntityType, Frequency, ImpactedEntity, NewDetection};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    id: Uuid,
    title: String,
    description: String,
    recommended_action: String,
    severity: String,
    category: String,
    techniques: Vec<String>,
    /// What the alert says that it comes from.
    #[serde(default)]
    source: Source,
    query: String,
}

static WRITTEN: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("../../../../../catalogue/detections.yaml"))
        .expect("catalogue/detections.yaml is part of the program")
});

/// All of them; they look at events as they arrive.
pub static RULES: LazyLock<Vec<Detection>> =
    LazyLock::new(|| WRITTEN.iter().map(detection).collect());

/// What alerts of a rule say that they come from.
pub fn source(rule: Uuid) -> Source {
    let written = WRITTEN.iter().find(|written| written.id == rule);
    written.map(|written| written.source).unwrap_or_default()
}

fn detection(rule: &Rule) -> Detection {
    let device = ImpactedEntity { r#type: EntityType::Device, column: "DeviceId".to_owned() };
    Detection {
        id: rule.id,
        rule: NewDetection {
            display_name: rule.title.clone(),
            enabled: true,
            frequency: Frequency::Continuous,
            query: rule.query.clone(),
            title: rule.title.clone(),
            description: rule.description.clone(),
            recommended_action: rule.recommended_action.clone(),
            severity: rule.severity.clone(),
            category: rule.category.clone(),
            techniques: rule.techniques.clone(),
            impacted_entities: vec![device],
        },
        built_in: true,
        last_run: None,
        last_run_status: None,
        next_run: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate::columns_needed;
    use super::*;
    use vigie_contract::clock::Clock;
    use vigie_hunting::{Database, Engine, EngineConfig, Limits};

    /// A query that the engine refuses, or that lacks what an alert needs, would raise nothing ever.
    #[tokio::test]
    async fn every_rule_runs_and_returns_what_an_alert_needs() {
        let engine = Engine::new(EngineConfig::new(Clock::default())).expect("an engine");
        for rule in RULES.iter() {
            let (title, query) = (&rule.rule.title, &rule.rule.query);
            let result = engine.run(&Database::Empty, query, &Limits::default()).await;
            let result = result.unwrap_or_else(|error| panic!("{title}: {error}"));
            let columns: Vec<&str> =
                result.tables[0].columns.iter().map(|column| column.name.as_str()).collect();
            for name in columns_needed().chain(["DeviceName"]) {
                assert!(columns.contains(&name), "{title} returns no {name}");
            }
            assert!(crate::features::alerts::SEVERITIES.contains(&rule.rule.severity.as_str()));
        }
    }
}
