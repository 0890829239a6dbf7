//! The service's two documents that OData clients look for: `GET /api/$metadata` (CSDL 4.0), to which
//! every `@odata.context` points, and `GET /api`, the entity sets. Made of the catalogue.

use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::sync::LazyLock;
use vigie_contract::resources::{RESOURCE_TYPES, ResourceProperty, ResourceType};

const NAMESPACE: &str = "microsoft.windowsDefenderATP.api";

/// The XML document; made once.
pub static DOCUMENT: LazyLock<String> = LazyLock::new(document);

/// Types that stand in a set of their own, with the set's name.
fn sets() -> impl Iterator<Item = (&'static str, &'static str)> {
    RESOURCE_TYPES.iter().filter_map(|(name, resource)| {
        let set = resource.entity_set.as_deref().filter(|_| has_key(resource))?;
        Some((set, name.as_str()))
    })
}

/// Whether the type is an entity: its key is one of its properties.
fn has_key(resource: &ResourceType) -> bool {
    let key = resource.key.as_deref();
    resource.properties.iter().any(|property| Some(property.name.as_str()) == key)
}

/// The service document.
pub fn service(base: &str) -> Json {
    let sets = sets().map(|(set, _)| json!({"name": set, "kind": "EntitySet", "url": set}));
    json!({"@odata.context": format!("{base}/$metadata"), "value": sets.collect::<Vec<_>>()})
}

fn document() -> String {
    let mut types = String::new();
    for (name, resource) in RESOURCE_TYPES.iter() {
        let is_entity = has_key(resource) && resource.entity_set.is_some();
        let element = if is_entity { "EntityType" } else { "ComplexType" };
        let _ = write!(types, "<{element} Name=\"{name}\" OpenType=\"true\">");
        if let Some(key) = resource.key.as_deref().filter(|_| is_entity) {
            let _ = write!(types, "<Key><PropertyRef Name=\"{key}\"/></Key>");
        }
        for property in resource.properties.iter().filter(|property| is_plain(property)) {
            let is_key = is_entity && resource.key.as_deref() == Some(property.name.as_str());
            let nullable = property.nullable && !is_key;
            let (name, ty) = (&property.name, edm(&property.r#type));
            let _ =
                write!(types, "<Property Name=\"{name}\" Type=\"{ty}\" Nullable=\"{nullable}\"/>");
        }
        let _ = write!(types, "</{element}>");
    }
    let sets = sets().fold(String::new(), |mut sets, (set, name)| {
        let _ = write!(sets, "<EntitySet Name=\"{set}\" EntityType=\"{NAMESPACE}.{name}\"/>");
        sets
    });
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
         <edmx:Edmx Version=\"4.0\" xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\">\
         <edmx:DataServices><Schema Namespace=\"{NAMESPACE}\" \
         xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">{types}\
         <ComplexType Name=\"Object\" OpenType=\"true\"/>\
         <EntityContainer Name=\"Container\">{sets}</EntityContainer>\
         </Schema></edmx:DataServices></edmx:Edmx>"
    )
}

/// Annotations such as `@odata.type` are no properties.
fn is_plain(property: &ResourceProperty) -> bool {
    let name = &property.name;
    !property.r#type.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn edm(ty: &str) -> String {
    if let Some(inner) = ty.strip_prefix("Collection(").and_then(|ty| ty.strip_suffix(')')) {
        return format!("Collection({})", edm(inner));
    }
    match ty {
        "Edm.Enum(string)" => "Edm.String".to_owned(),
        "Edm.String(guid)" => "Edm.Guid".to_owned(),
        "Collection" => format!("Collection({NAMESPACE}.Object)"),
        ty if ty.starts_with("Edm.") => ty.to_owned(),
        ty if RESOURCE_TYPES.contains_key(ty) => format!("{NAMESPACE}.{ty}"),
        _ => format!("{NAMESPACE}.Object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_types_that_there_are() {
        let known = |ty: &str| {
            let ty =
                ty.strip_prefix("Collection(").and_then(|ty| ty.strip_suffix(')')).unwrap_or(ty);
            let own = ty.strip_prefix(NAMESPACE).map(|name| name.trim_start_matches('.'));
            own.is_none_or(|name| name == "Object" || RESOURCE_TYPES.contains_key(name))
        };
        let mut types = 0;
        for part in DOCUMENT.split(" Type=\"").skip(1) {
            let ty = part.split('"').next().expect("a type");
            assert!(known(ty), "{ty}");
            types += 1;
        }
        assert!(types > 300, "{types}");
        for set in ["Alerts", "Machines", "Indicators", "Users", "Files"] {
            assert!(DOCUMENT.contains(&format!("<EntitySet Name=\"{set}\"")), "{set}");
        }
    }
}
