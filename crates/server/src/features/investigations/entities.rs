//! What an investigation looks for.

use serde_json::Value as Json;
use vigie_contract::sensor::InvestigatedEntities;

/// Entities of one kind that are looked for; alerts of a busy machine may name very many.
const MOST: usize = 200;

/// The entities of alerts' evidence, each once.
pub fn of_evidence(evidence: &[Json]) -> InvestigatedEntities {
    let mut entities = InvestigatedEntities::default();
    for entity in evidence {
        let text = |name: &str| entity[name].as_str().unwrap_or_default().to_lowercase();
        let sha1 = text("sha1");
        if sha1.len() == 40 && sha1.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            add(&mut entities.sha1, sha1);
        }
        match entity["entityType"].as_str() {
            Some("File") => {
                let path = entity["filePath"].as_str().unwrap_or_default();
                add(&mut entities.paths, path.to_owned());
            }
            Some("Ip") => add(&mut entities.ip_addresses, text("ipAddress")),
            _ => {}
        }
    }
    entities
}

fn add(list: &mut Vec<String>, entity: String) {
    if !entity.is_empty() && list.len() < MOST && !list.contains(&entity) {
        list.push(entity);
    }
}
