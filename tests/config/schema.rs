//! The JSON Schema says what the decoder accepts: neither knows a key that the other does not.
//!
//! Only keys and nesting are compared, since they come from the same declarations as the schema but
//! are read by different code. What values may be is pinned by the corpus.

use serde_json::{Map, Value, json};
use switchback_config::diagnostic::Code;
use switchback_config::{explain, parse, schema};

use super::good_cases;

/// The paths of all keys; names that users give are `NAME`, items of lists `0`.
fn keys(schema: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    let below = |key: &str| [path, &[key.to_owned()]].concat();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        found.push(below(key));
        keys(value, &below(key), found);
    }
    if schema["additionalProperties"].is_object() {
        keys(&schema["additionalProperties"], &below("NAME"), found);
    }
    if schema["items"].is_object() {
        keys(&schema["items"], &below("0"), found);
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        keys(choice, path, found);
    }
}

/// A file in which the key at `path` stands with a value that fits nowhere.
fn file_with(path: &[String]) -> Value {
    match path {
        [] => Value::Null,
        [item, rest @ ..] if item == "0" => json!([file_with(rest)]),
        [key, rest @ ..] => Value::Object(Map::from_iter([(key.clone(), file_with(rest))])),
    }
}

#[test]
fn decoder_knows_every_key_of_the_schema() {
    let mut found = Vec::new();
    keys(&schema(), &[], &mut found);
    assert!(found.len() > 150, "only {} keys found", found.len());
    for path in found {
        let faults = parse(&file_with(&path).to_string()).diagnostics;
        let unknown = [Code::UnknownKey, Code::Unsupported];
        let fault = faults.iter().find(|fault| unknown.contains(&fault.code));
        assert_eq!(fault, None, "{path:?}");
    }
}

#[test]
fn schema_knows_every_key_of_effective_files() {
    for case in good_cases() {
        let config = parse(&case.text).config.unwrap();
        let mut written = serde_json::to_value(&config).unwrap();
        written["version"] = 1.into();
        assert!(explain(&config).starts_with("version: 1\n"));
        unknown_keys(&written, &schema(), &case.name);
    }
}

fn unknown_keys(written: &Value, schema: &Value, path: &str) {
    // `off` or a table: only the table has keys.
    let mut choices = schema["anyOf"].as_array().into_iter().flatten();
    let schema = choices
        .find(|choice| choice["properties"].is_object())
        .unwrap_or(schema);
    for (key, value) in written.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let known = schema["properties"].get(key);
        let named = schema.get("additionalProperties").filter(|s| s.is_object());
        let below = known
            .or(named)
            .unwrap_or_else(|| panic!("{path}: not in the schema"));
        unknown_keys(value, below, &path);
    }
    for item in written.as_array().into_iter().flatten() {
        unknown_keys(item, &schema["items"], path);
    }
}

#[test]
fn schema_describes_every_key_and_allows_no_others() {
    fn check(schema: &Value, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], json!(false), "{path}");
            for (key, value) in properties {
                let path = format!("{path}.{key}");
                let description = value["description"].as_str().unwrap_or_default();
                assert!(description.len() > 3, "{path} is not described");
                check(value, &path);
            }
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                check(&schema[below], path);
            }
        }
        for choice in schema["anyOf"].as_array().into_iter().flatten() {
            check(choice, path);
        }
    }
    check(&schema(), "");
}
