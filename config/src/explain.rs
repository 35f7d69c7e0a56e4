//! The file as it is meant, with every default written out.
//!
//! Written as YAML by way of JSON: keys plain, texts quoted, so that it needs no rules about which
//! words must be quoted and reads back to exactly the same configuration.

use std::fmt::Write;

use serde_json::Value;

use crate::model::Config;

/// The effective file.
#[must_use]
pub fn explain(config: &Config) -> String {
    let mut out = String::from("version: 1\n");
    if let Ok(value) = serde_json::to_value(config) {
        write_map(&value, 0, &mut out);
    }
    out
}

/// Any part of a file.
#[must_use]
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    write_map(value, 0, &mut out);
    out
}

fn write_map(value: &Value, indent: usize, out: &mut String) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let _ = write!(out, "{:indent$}{}:", "", quoted_key(key));
        write_value(value, indent, out);
    }
}

fn write_value(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(value, indent + 2, out);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            out.push('\n');
            for item in items {
                let _ = writeln!(out, "{:indent$}  - {item}", "");
            }
        }
        value => {
            let _ = writeln!(out, " {value}");
        }
    }
}

/// Names of services and backends may look like numbers or words of YAML.
fn quoted_key(key: &str) -> String {
    let plain = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if plain && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&key) {
        key.into()
    } else {
        Value::from(key).to_string()
    }
}
