//! The API operations of the catalogue: paths, permissions and limits.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One documented operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// For example `machines.list`; handlers are bound by it.
    pub id: String,
    pub group: String,
    pub method: String,
    /// With `{parameter}` segments; compared without regard to case.
    pub path: String,
    /// Any one of them suffices.
    #[serde(default)]
    pub app_permissions: Vec<String>,
    #[serde(default)]
    pub delegated_permissions: Vec<String>,
    /// The RBAC permission that a user needs besides the scope.
    pub role_permission: Option<String>,
    #[serde(default)]
    pub device_group_scoped: bool,
    pub request_body: Option<BTreeMap<String, BodyProperty>>,
    /// Parameters of the query that are no options of OData.
    #[serde(default)]
    pub query_parameters: Vec<String>,
    /// Properties that `$filter` may name.
    pub filterable: Option<Vec<String>>,
    pub rate_limit: Option<RateLimit>,
    pub max_page_size: Option<u64>,
    pub success_status: Option<u16>,
    pub response_type: Option<String>,
    /// Errors that the operation's page tells of, besides those that all operations have.
    #[serde(default)]
    pub errors: Vec<DocumentedError>,
    /// `current`, `legacy` or `withdrawn`.
    pub status: Option<String>,
}

impl Operation {
    /// Whether the answer is a collection of OData.
    pub fn is_list(&self) -> bool {
        let ty = self.response_type.as_deref().unwrap_or_default();
        self.method == "GET" && ty.contains(" collection")
    }

    /// The documented values of a member of the body.
    pub fn choices(&self, member: &str) -> Vec<&str> {
        let member = self.request_body.as_ref().and_then(|members| members.get(member));
        let values = member.and_then(|member| member.r#enum.as_deref()).unwrap_or_default();
        values.iter().filter_map(|value| value.as_str()).collect()
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct DocumentedError {
    pub status: u16,
    pub code: String,
    pub when: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct BodyProperty {
    pub r#type: Option<String>,
    #[serde(default)]
    pub required: bool,
    pub r#enum: Option<Vec<serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct RateLimit {
    pub per_minute: Option<u32>,
    pub per_hour: Option<u32>,
}

/// All operations in the catalogue's order.
pub static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../catalogue/operations.json"))
        .expect("catalogue/operations.json is part of the program")
});

/// The operation of that id.
pub fn operation(id: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_reads_and_ids_are_unique() {
        let mut ids: Vec<_> = OPERATIONS.iter().map(|operation| &operation.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), OPERATIONS.len());
        assert_eq!(operation("machines.isolate").unwrap().app_permissions, ["Machine.Isolate"]);
    }
}
