//! The types of the resource API as the catalogue has them: names and types of their properties.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One type, for example `Alert`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceType {
    pub entity_set: Option<String>,
    pub key: Option<String>,
    pub properties: Vec<ResourceProperty>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ResourceProperty {
    pub name: String,
    /// For example `Edm.String`, `Edm.Enum(string)`, `Collection(AlertComment)`.
    pub r#type: String,
    #[serde(default)]
    pub nullable: bool,
    pub r#enum: Option<Vec<serde_json::Value>>,
}

/// All types by name.
pub static RESOURCE_TYPES: LazyLock<BTreeMap<String, ResourceType>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../catalogue/resource_types.json"))
        .expect("catalogue/resource_types.json is part of the program")
});

#[cfg(test)]
mod tests {
    use super::RESOURCE_TYPES;

    #[test]
    fn the_types_read() {
        let alert = &RESOURCE_TYPES["Alert"];
        assert_eq!(alert.key.as_deref(), Some("id"));
        assert!(alert.properties.iter().any(|property| property.r#type.starts_with("Collection")));
    }
}
