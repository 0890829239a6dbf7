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

/// Whether there is anything to look for.
pub fn can_look_for(evidence: &[Json]) -> bool {
    !is_empty(&of_evidence(evidence))
}

pub fn is_empty(entities: &InvestigatedEntities) -> bool {
    lists(entities).iter().all(|list| list.is_empty())
}

/// What of the wanted entities was not looked for yet.
pub fn minus(wanted: &InvestigatedEntities, looked: &InvestigatedEntities) -> InvestigatedEntities {
    let rest = |wanted: &[String], looked: &[String]| {
        wanted.iter().filter(|entity| !looked.contains(entity)).cloned().collect()
    };
    InvestigatedEntities {
        sha1: rest(&wanted.sha1, &looked.sha1),
        paths: rest(&wanted.paths, &looked.paths),
        process_names: rest(&wanted.process_names, &looked.process_names),
        ip_addresses: rest(&wanted.ip_addresses, &looked.ip_addresses),
    }
}

pub fn union(one: &InvestigatedEntities, other: &InvestigatedEntities) -> InvestigatedEntities {
    let rest = minus(other, one);
    let both = |one: &[String], rest: Vec<String>| one.iter().cloned().chain(rest).collect();
    InvestigatedEntities {
        sha1: both(&one.sha1, rest.sha1),
        paths: both(&one.paths, rest.paths),
        process_names: both(&one.process_names, rest.process_names),
        ip_addresses: both(&one.ip_addresses, rest.ip_addresses),
    }
}

fn lists(entities: &InvestigatedEntities) -> [&[String]; 4] {
    [&entities.sha1, &entities.paths, &entities.process_names, &entities.ip_addresses]
}

pub fn add(list: &mut Vec<String>, entity: String) {
    if !entity.is_empty() && list.len() < MOST && !list.contains(&entity) {
        list.push(entity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn evidence_becomes_entities_and_what_was_looked_for_is_left_out() {
        let sha1 = "AB".repeat(20);
        let evidence = [
            json!({"entityType": "File", "sha1": sha1, "filePath": "/tmp/x"}),
            json!({"entityType": "File", "sha1": sha1, "filePath": "/tmp/x"}),
            json!({"entityType": "Ip", "ipAddress": "192.0.2.1"}),
            json!({"entityType": "User", "accountName": "mira"}),
        ];
        assert!(!can_look_for(&evidence[3..]));
        let all = of_evidence(&evidence);
        assert_eq!((&all.sha1, &all.paths), (&vec![sha1.to_lowercase()], &vec!["/tmp/x".into()]));
        let first = of_evidence(&evidence[..1]);
        let rest = minus(&all, &first);
        assert!(rest.sha1.is_empty() && rest.ip_addresses == ["192.0.2.1"]);
        assert_eq!(union(&first, &rest), all);
        assert!(is_empty(&minus(&all, &all)));
    }
}
