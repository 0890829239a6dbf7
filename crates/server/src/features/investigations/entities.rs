//! What an investigation looks for.

use serde_json::Value as Json;
use std::collections::HashSet;
use vigie_contract::sensor::InvestigatedEntities;

/// Entities of one kind that are looked for in one round; alerts of a busy machine may name very many.
const MOST: usize = 200;

/// The entities of alerts' evidence, each once.
pub fn of_evidence(evidence: &[Json]) -> InvestigatedEntities {
    let mut entities = InvestigatedEntities::default();
    for entity in evidence {
        entities.sha1.extend(sha1_of(entity));
        match entity["entityType"].as_str() {
            Some("File") => entities.paths.push(path_of(entity).to_owned()),
            Some("Ip") => {
                let address = entity["ipAddress"].as_str().unwrap_or_default();
                entities.ip_addresses.push(address.to_lowercase());
            }
            _ => {}
        }
    }
    // Also without what is empty.
    minus(&entities, &InvestigatedEntities::default())
}

fn sha1_of(entity: &Json) -> Option<String> {
    let sha1 = entity["sha1"].as_str()?.to_lowercase();
    (sha1.len() == 40 && sha1.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(sha1)
}

fn path_of(entity: &Json) -> &str {
    entity["filePath"].as_str().unwrap_or_default()
}

/// What one round looks for of what is new: at most so much of each kind, and with paths the hashes of
/// their files, since a machine reports a file at a path only if its hash is looked for, too.
pub fn round(new: &InvestigatedEntities, evidence: &[Json]) -> InvestigatedEntities {
    let first = |list: &[String]| list.iter().take(MOST).cloned().collect();
    let mut round = InvestigatedEntities {
        sha1: first(&new.sha1),
        paths: first(&new.paths),
        process_names: first(&new.process_names),
        ip_addresses: first(&new.ip_addresses),
    };
    let paths: HashSet<&str> = round.paths.iter().map(String::as_str).collect();
    let of_paths = evidence.iter().filter(|entity| paths.contains(path_of(entity)));
    let hashes: Vec<String> = of_paths.filter_map(sha1_of).collect();
    for sha1 in hashes {
        add(&mut round.sha1, sha1);
    }
    round
}

/// Whether there is anything to look for.
pub fn can_look_for(evidence: &[Json]) -> bool {
    !is_empty(&of_evidence(evidence))
}

pub fn is_empty(entities: &InvestigatedEntities) -> bool {
    lists(entities).iter().all(|list| list.is_empty())
}

/// What of the wanted entities was not looked for yet, each once.
pub fn minus(wanted: &InvestigatedEntities, looked: &InvestigatedEntities) -> InvestigatedEntities {
    let rest = |wanted: &[String], looked: &[String]| {
        let mut known: HashSet<&str> = looked.iter().map(String::as_str).collect();
        known.insert("");
        let mut rest = Vec::new();
        for entity in wanted {
            if known.insert(entity) {
                rest.push(entity.clone());
            }
        }
        rest
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
    if !entity.is_empty() && !list.contains(&entity) {
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

    #[test]
    fn a_known_file_at_a_new_path_is_looked_for_with_its_hash() {
        let sha1 = "ab".repeat(20);
        let file = |path: &str| json!({"entityType": "File", "sha1": sha1, "filePath": path});
        let evidence = [file("/tmp/x"), file("/tmp/y")];
        let new = minus(&of_evidence(&evidence), &of_evidence(&evidence[..1]));
        assert!(new.sha1.is_empty());
        let round = round(&new, &evidence);
        assert_eq!((round.sha1, round.paths), (vec![sha1], vec!["/tmp/y".to_owned()]));
    }

    #[test]
    fn rounds_come_to_the_end_of_very_many() {
        let file = |number: usize| {
            let (sha1, path) = (format!("{number:040x}"), format!("/tmp/{number}"));
            json!({"entityType": "File", "sha1": sha1, "filePath": path})
        };
        let evidence: Vec<Json> = (0..2 * MOST + 1).map(file).collect();
        let wanted = of_evidence(&evidence);
        assert_eq!(wanted.paths.len(), 2 * MOST + 1);
        let mut looked = InvestigatedEntities::default();
        for left in [MOST + 1, 1, 0] {
            let round = round(&minus(&wanted, &looked), &evidence);
            assert!(round.paths.len() <= MOST && round.sha1.len() <= MOST);
            looked = union(&looked, &round);
            assert_eq!(minus(&wanted, &looked).paths.len(), left);
        }
        assert!(is_empty(&minus(&wanted, &looked)));
    }
}
