//! What utoipa writes about Rust types, as this API means it.
//!
//! An `Option` of a parameter or of a body is one that may be left out, not one that may be `null`; whole
//! numbers have an end; and the alias that stands for names of services and backends has a name itself.

use serde_json::{Map, Value, json};

/// Where schemas are, within the document.
const SCHEMAS: &str = "#/components/schemas/";

/// What utoipa calls the alias [`switchback_config::model::Name`], and what it is called here.
const NAMES: [(&str, &str); 2] = [("String", "Name"), ("Override_String", "Override_Name")];

/// Goes over a document.
pub(super) fn polish(document: &mut Value) {
    walk(document);
    document["components"]["schemas"]["Name"] = json!({
        "type": "string",
        "description": "Name of a service or a backend, as in the config file.",
    });
    let paths = document["paths"].as_object_mut();
    for item in paths.into_iter().flat_map(Map::values_mut) {
        let operations = item.as_object_mut();
        for operation in operations.into_iter().flat_map(Map::values_mut) {
            let parameters = operation
                .get_mut("parameters")
                .and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                without_null(&mut parameter["schema"]);
            }
            let responses = operation
                .get_mut("responses")
                .and_then(Value::as_object_mut);
            for response in responses.into_iter().flat_map(Map::values_mut) {
                describe(response);
            }
            if let Some(content) = operation.pointer_mut("/requestBody/content/application~1json") {
                without_null(&mut content["schema"]);
            }
        }
    }
}

/// Calls names names, and bounds whole numbers, wherever they are.
fn walk(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (from, to) in NAMES {
                if let Some(schema) = members.remove(from) {
                    members.insert(to.into(), schema);
                }
            }
            bound(members);
            members.values_mut().for_each(walk);
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::String(text) => {
            let named = text.strip_prefix(SCHEMAS);
            if let Some((_, to)) = NAMES.iter().find(|(from, _)| named == Some(from)) {
                *text = format!("{SCHEMAS}{to}");
            }
        }
        _ => {}
    }
}

/// OpenAPI's formats are signed, these numbers are not.
fn bound(schema: &mut Map<String, Value>) {
    if schema.get("minimum").and_then(Value::as_u64) != Some(0) {
        return;
    }
    let (format, maximum) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => ("uint32", u64::from(u32::MAX)),
        Some("int64") => ("uint64", u64::MAX),
        _ => return,
    };
    schema.insert("format".into(), format.into());
    schema.entry("maximum").or_insert(maximum.into());
}

/// A response needs a description, also one whose body says it all.
fn describe(response: &mut Value) {
    if let Some(response) = response.as_object_mut() {
        response.entry("description").or_insert("As asked".into());
    }
}

/// What may be left out is not there as `null`.
fn without_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type")
        && let Some([one, _]) = types.as_array().map(Vec::as_slice)
    {
        *types = one.clone();
    }
    let choices = schema.get("oneOf").and_then(Value::as_array);
    let mut real = choices
        .into_iter()
        .flatten()
        .filter(|choice| choice["type"] != "null");
    if let (Some(only), None) = (real.next(), real.next()) {
        *schema = only.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_bodies_may_be_left_out_but_not_null() {
        let nullable =
            json!({"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/String"}]});
        let mut document = json!({
            "paths": {"/": {"get": {
                "parameters": [{"schema": {"type": ["string", "null"]}}, {"schema": nullable}],
                "requestBody": {"content": {"application/json": {"schema": nullable}}},
            }}},
            "components": {"schemas": {"String": {}}},
        });
        polish(&mut document);
        let name = json!({"$ref": "#/components/schemas/Name"});
        let operation = &document["paths"]["/"]["get"];
        assert_eq!(
            operation["parameters"][0]["schema"],
            json!({"type": "string"})
        );
        assert_eq!(operation["parameters"][1]["schema"], name);
        assert_eq!(
            operation["requestBody"]["content"]["application/json"]["schema"],
            name
        );
        assert!(document["components"]["schemas"]["String"].is_null());
    }

    #[test]
    fn unsigned_numbers_have_an_end() {
        let mut number = json!({"type": "integer", "format": "int32", "minimum": 0});
        walk(&mut number);
        assert_eq!(number["maximum"], u32::MAX);
        assert_eq!(number["format"], "uint32");
        let mut signed = json!({"type": "integer", "format": "int32"});
        walk(&mut signed);
        assert!(signed.get("maximum").is_none());
    }
}
