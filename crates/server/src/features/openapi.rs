//! The resource API as an OpenAPI 3.1 document, made of the catalogue; `GET /openapi.json`.

use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use vigie_contract::operations::{OPERATIONS, Operation};
use vigie_contract::resources::RESOURCE_TYPES;

/// Options that every list understands, and their types.
const LIST_OPTIONS: &[(&str, &str)] = &[
    ("$filter", "string"),
    ("$orderby", "string"),
    ("$select", "string"),
    ("$expand", "string"),
    ("$top", "integer"),
    ("$skip", "integer"),
    ("$count", "boolean"),
    ("$skiptoken", "string"),
];

/// The document; made once.
pub static DOCUMENT: LazyLock<Json> = LazyLock::new(document);

fn document() -> Json {
    let mut paths: BTreeMap<String, Map<String, Json>> = BTreeMap::new();
    for operation in OPERATIONS.iter() {
        let (path, parameters) = path(&operation.path);
        let methods = paths.entry(path).or_default();
        methods.insert(operation.method.to_lowercase(), described(operation, &parameters));
    }
    let mut schemas: Map<String, Json> = RESOURCE_TYPES
        .iter()
        .map(|(name, resource)| {
            let properties: Map<String, Json> = resource
                .properties
                .iter()
                .filter(|property| !property.r#type.is_empty())
                .map(|property| {
                    let schema = property_schema(&property.r#type, property.r#enum.as_deref());
                    (property.name.clone(), nullable(schema, property.nullable))
                })
                .collect();
            (name.clone(), json!({"type": "object", "properties": properties}))
        })
        .collect();
    schemas.insert("ErrorResponse".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vigie resource API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Compatible with Microsoft Defender for Endpoint.",
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    })
}

fn error_schema() -> Json {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "target"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "target": {"type": "string", "format": "uuid"},
            },
        }},
    })
}

/// A path with parameters that are called the same wherever the same path stands: `id`, `id2` … for
/// whole segments, their own names in functions.
fn path(template: &str) -> (String, Vec<String>) {
    let template = template.split('?').next().unwrap_or_default();
    let mut parameters = Vec::new();
    let mut segments = Vec::new();
    for segment in template.split('/') {
        if segment.starts_with('{') && segment.ends_with('}') && segment.matches('{').count() == 1 {
            let name = match parameters.len() {
                0 => "id".to_owned(),
                more => format!("id{}", more + 1),
            };
            segments.push(format!("{{{name}}}"));
            parameters.push(name);
            continue;
        }
        let mut out = String::new();
        let mut rest = segment;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            out.push_str(&format!("{before}{{{name}}}"));
            parameters.push(name);
            rest = after;
        }
        segments.push(out + rest);
    }
    (segments.join("/"), parameters)
}

fn described(operation: &Operation, parameters: &[String]) -> Json {
    let mut all: Vec<Json> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if operation.is_list() {
        all.extend(LIST_OPTIONS.iter().map(|(name, ty)| query_parameter(name, ty)));
    }
    all.extend(operation.query_parameters.iter().map(|name| query_parameter(name, "string")));
    let security: Vec<Json> =
        operation.app_permissions.iter().map(|name| json!({"bearer": [name]})).collect();
    let mut answers = Map::new();
    answers.insert(success_status(operation).to_string(), success(operation));
    for status in ["400", "401", "403", "404", "405", "413", "415", "429", "500", "501", "503"] {
        let content = json!({"application/json": {"schema": reference("ErrorResponse")}});
        let answer = json!({"description": "Error", "content": content});
        answers.insert(status.to_owned(), answer);
    }
    let mut described = json!({
        "operationId": operation.id.replace('.', "_"),
        "tags": [operation.group],
        "parameters": all,
        "security": security,
        "responses": answers,
    });
    if operation.status.as_deref() == Some("withdrawn") {
        described["deprecated"] = true.into();
    }
    if let Some(body) = body(operation) {
        described["requestBody"] = body;
    }
    described
}

fn query_parameter(name: &str, ty: &str) -> Json {
    json!({"name": name, "in": "query", "required": false, "schema": {"type": ty}})
}

/// The status of success.
fn success_status(operation: &Operation) -> u16 {
    operation.success_status.unwrap_or(200)
}

fn success(operation: &Operation) -> Json {
    let ty = operation.response_type.as_deref().unwrap_or("none");
    if ty.starts_with("none") || success_status(operation) == 204 {
        return json!({"description": "Success"});
    }
    if ty.starts_with("number as plain text") {
        let schema = json!({"type": "integer"});
        return json!({"description": "Success", "content": {"text/plain": {"schema": schema}}});
    }
    let name: String =
        ty.chars().take_while(|character| character.is_ascii_alphanumeric()).collect();
    let one = match RESOURCE_TYPES.contains_key(&name) {
        true => reference(&name),
        false => json!({"type": "object"}),
    };
    let schema = match ty.contains(" collection") {
        true => json!({
            "type": "object",
            "required": ["value"],
            "properties": {
                "@odata.context": {"type": "string"},
                "@odata.count": {"type": "integer"},
                "@odata.nextLink": {"type": "string"},
                "value": {"type": "array", "items": one},
            },
        }),
        false => one,
    };
    json!({"description": "Success", "content": {"application/json": {"schema": schema}}})
}

fn body(operation: &Operation) -> Option<Json> {
    let members = operation.request_body.as_ref()?;
    let is_form = members.values().any(|member| member.r#type.as_deref() == Some("file"));
    let properties: Map<String, Json> = members
        .iter()
        .map(|(name, member)| {
            let mut schema = member_schema(member.r#type.as_deref().unwrap_or_default());
            if let Some(values) = &member.r#enum {
                schema["enum"] = json!(values);
            }
            (name.clone(), schema)
        })
        .collect();
    let required: Vec<&String> =
        members.iter().filter(|(_, member)| member.required).map(|(name, _)| name).collect();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    let media = if is_form { "multipart/form-data" } else { "application/json" };
    Some(json!({"required": !required.is_empty(), "content": {media: {"schema": schema}}}))
}

fn member_schema(ty: &str) -> Json {
    match ty {
        "boolean" => json!({"type": "boolean"}),
        "int" => json!({"type": "integer"}),
        "DateTimeOffset" => json!({"type": "string", "format": "date-time"}),
        "array of string" => json!({"type": "array", "items": {"type": "string"}}),
        "string or array of string" => {
            json!({"type": ["string", "array"], "items": {"type": "string"}})
        }
        "string or number" => json!({"type": ["string", "integer"]}),
        "array of Indicator" => json!({"type": "array", "items": reference("Indicator")}),
        ty if ty.starts_with("array") => json!({"type": "array", "items": {"type": "object"}}),
        ty if ty.starts_with("object") => json!({"type": "object"}),
        // A file's bytes, too.
        _ => json!({"type": "string"}),
    }
}

fn property_schema(ty: &str, values: Option<&[Json]>) -> Json {
    if let Some(inner) = ty.strip_prefix("Collection(").and_then(|ty| ty.strip_suffix(')')) {
        return json!({"type": "array", "items": property_schema(inner, None)});
    }
    let mut schema = match ty {
        "Edm.Boolean" => json!({"type": "boolean"}),
        "Edm.Int64" | "Edm.Int32" => json!({"type": "integer"}),
        "Edm.Double" => json!({"type": "number"}),
        "Edm.DateTimeOffset" => json!({"type": "string", "format": "date-time"}),
        "Edm.Guid" | "Edm.String(guid)" => json!({"type": "string", "format": "uuid"}),
        "Collection" => json!({"type": "array", "items": {}}),
        ty if ty.starts_with("Edm.") => json!({"type": "string"}),
        ty if RESOURCE_TYPES.contains_key(ty) => reference(ty),
        _ => json!({"type": "object"}),
    };
    if let Some(values) = values.filter(|values| !values.is_empty()) {
        schema["enum"] = json!(values);
    }
    schema
}

fn nullable(mut schema: Json, nullable: bool) -> Json {
    if !nullable {
        return schema;
    }
    if schema.get("$ref").is_some() {
        return json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(values) = schema["enum"].as_array_mut() {
        values.push(Json::Null);
    } else if let Some(members) = schema.as_object_mut() {
        members.remove("enum");
    }
    schema
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn references(value: &Json, found: &mut BTreeSet<String>) {
        match value {
            Json::Object(members) => {
                if let Some(Json::String(name)) = members.get("$ref") {
                    found.insert(name.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Json::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    /// What generators stumble over: names that lead nowhere, ids that stand twice, parameters of a
    /// path that nobody describes, paths that differ in the names of parameters alone.
    #[test]
    fn the_document_holds_together() {
        let mut found = BTreeSet::new();
        references(&DOCUMENT, &mut found);
        for name in found {
            let name = name.trim_start_matches('#');
            assert!(DOCUMENT.pointer(name).is_some(), "{name} leads nowhere");
        }
        let (mut ids, mut shapes) = (BTreeSet::new(), BTreeSet::new());
        for (path, methods) in DOCUMENT["paths"].as_object().expect("paths") {
            let shape: String =
                path.split('{').map(|part| part.split_once('}').map_or(part, |p| p.1)).collect();
            assert!(shapes.insert(shape.clone()), "{path} stands twice");
            for (method, operation) in methods.as_object().expect("methods") {
                let id = operation["operationId"].as_str().expect("an id").to_owned();
                assert!(ids.insert(id.clone()), "{id} stands twice");
                let parameters = operation["parameters"].as_array().expect("parameters");
                let described: BTreeSet<&str> = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "path")
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                let named: BTreeSet<&str> =
                    path.split('{').skip(1).filter_map(|part| part.split('}').next()).collect();
                assert_eq!(described, named, "{method} {path}");
            }
        }
        assert_eq!(ids.len(), OPERATIONS.len());
    }
}
