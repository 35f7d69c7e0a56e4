//! The page of the admin API, from its OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use super::cell;

const HEAD: &str = "# The admin API

Every request, and every type that is sent or answered. Made from `/openapi.json`, which a running switchback serves
and from which clients can be generated; `/docs/` there shows it in a browser and lets one try it.

* `Authorization: Bearer TOKEN` goes with every request but for `/livez`, `/readyz`, `/healthz`, `/metrics` and `/docs/`. The
  token is in `admin.token` of the state directory, or one of `admin.tokens_file` (`switchback token new`).
* Bodies are JSON objects, sent as `application/json`. Errors are `application/problem+json` with a stable `code` and a
  `detail` for people: see [Problem](#problem), and [Statuses](#statuses).
* A write that is answered with 2xx is in force on every worker. `?dry_run=true` only tells what would change.
  `If-Match: \"REVISION\"` makes it depend on nothing else having happened (412 if it has); `rollback` and `block` do not.
";

/// The whole page.
pub(super) fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    statuses(&mut page, document);
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        let title = tag["description"].as_str().unwrap_or(name);
        let _ = write!(page, "\n## {title}\n");
        for (path, method, operation) in operations(document) {
            if operation["tags"][0] == name {
                request(&mut page, path, method, operation);
            }
        }
    }
    page.push_str("\n## Types\n");
    let types = document["components"]["schemas"].as_object();
    for (name, schema) in types.into_iter().flatten() {
        let _ = write!(page, "\n### {name}\n\n");
        described(&mut page, schema);
        body(&mut page, schema);
    }
    page
}

/// What statuses other than success mean, wherever they are answered.
fn statuses(page: &mut String, document: &Value) {
    let mut meanings: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, _, operation) in operations(document) {
        let answers = operation["responses"].as_object().into_iter().flatten();
        for (status, answer) in answers.filter(|(status, _)| !is_success(status)) {
            let text = cell(answer["description"].as_str().unwrap_or_default());
            meanings.entry(status).or_default().insert(text);
        }
    }
    page.push_str("\n## Statuses\n\n| status | means |\n| --- | --- |\n");
    for (status, meanings) in meanings {
        let meanings: Vec<String> = meanings.into_iter().collect();
        let _ = writeln!(page, "| {status} | {} |", meanings.join(". "));
    }
}

fn is_success(status: &str) -> bool {
    status.starts_with(['2', '3'])
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn described(page: &mut String, schema: &Value) {
    if let Some(text) = schema["description"].as_str() {
        let _ = write!(page, "{}\n\n", text.trim());
    }
}

fn request(page: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(page, "\n### {} {path}\n\n", method.to_uppercase());
    for text in ["summary", "description"] {
        if let Some(text) = operation[text].as_str() {
            let _ = write!(page, "{}\n\n", text.trim());
        }
    }
    let parameters: Vec<&Value> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    if !parameters.is_empty() {
        page.push_str("| parameter | in | value | meaning |\n| --- | --- | --- | --- |\n");
        for parameter in parameters {
            let text = |key: &str| parameter[key].as_str().unwrap_or_default();
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                text("name"),
                text("in"),
                kind(&parameter["schema"]),
                cell(text("description"))
            );
        }
        page.push('\n');
    }
    let asked = &operation["requestBody"];
    if let Some(schema) = content(asked) {
        let optional = if asked["required"] == true {
            ""
        } else {
            ", may be missing"
        };
        let _ = write!(page, "Body: {}{optional}.\n\n", kind(schema));
    }
    let answers = operation["responses"].as_object().into_iter().flatten();
    let (good, bad): (Vec<_>, Vec<_>) = answers.partition(|(status, _)| is_success(status));
    let good: Vec<String> = good
        .into_iter()
        .map(|(status, answer)| answered(status, answer))
        .collect();
    let bad: Vec<&str> = bad.iter().map(|(status, _)| status.as_str()).collect();
    let _ = writeln!(page, "Answers: {}; or {}.", good.join(", "), bad.join(", "));
}

/// The first kind of body of a request or an answer.
fn content(value: &Value) -> Option<&Value> {
    let kinds = value["content"].as_object()?;
    kinds.values().next().map(|kind| &kind["schema"])
}

fn answered(status: &str, answer: &Value) -> String {
    match content(answer) {
        Some(schema) => format!("{status} {}", kind(schema)),
        None => {
            let text = cell(answer["description"].as_str().unwrap_or_default());
            format!("{status} {}", text.trim_end_matches('.'))
        }
    }
}

/// The fields of a type, or what it may be.
fn body(page: &mut String, schema: &Value) {
    let parts: Vec<&Value> = match schema["allOf"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![schema],
    };
    if parts.iter().all(|part| !part["properties"].is_object()) {
        let _ = writeln!(page, "{}", capital(&kind(schema)));
        return;
    }
    for base in parts.iter().filter(|part| part["$ref"].is_string()) {
        let _ = write!(page, "All of {}, and:\n\n", kind(base));
    }
    page.push_str("| field | value | meaning |\n| --- | --- | --- |\n");
    for part in parts {
        let needed: Vec<&str> = part["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, field) in part["properties"].as_object().into_iter().flatten() {
            let optional = if needed.contains(&name.as_str()) {
                ""
            } else {
                ", may be missing"
            };
            let text = text_of(field);
            let _ = writeln!(
                page,
                "| `{name}` | {}{optional} | {} |",
                kind(field),
                cell(text)
            );
        }
    }
}

/// The description of a field, which may stand at one of its choices.
fn text_of(field: &Value) -> &str {
    let own = field["description"].as_str();
    let choices = field["oneOf"].as_array().into_iter().flatten();
    own.or_else(|| {
        choices
            .filter_map(|choice| choice["description"].as_str())
            .next()
    })
    .unwrap_or_default()
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

/// What a value is, in words, with links to types.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|name| name.rsplit('/').next())
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(word) = schema.get("const") {
        return format!(
            "`{}`",
            word.as_str()
                .map_or_else(|| word.to_string(), str::to_owned)
        );
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                format!(
                    "`{}`",
                    word.as_str()
                        .map_or_else(|| word.to_string(), str::to_owned)
                )
            })
            .collect();
        return words.join(", ");
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let choices: Vec<String> = choices.iter().map(kind).collect();
            return choices.join(if choice == "allOf" { " with " } else { " or " });
        }
    }
    if let Some(kinds) = schema["type"].as_array() {
        let kinds = kinds.iter().filter_map(Value::as_str);
        let kinds: Vec<&str> = kinds.map(simple).collect();
        return kinds.join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("by name: {}", kind(&schema["additionalProperties"]))
        }
        Some("object") if schema["properties"].is_object() => {
            let fields: Vec<String> = schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, field)| format!("`{name}`: {}", kind(field)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Some("string") if schema["format"] == "date-time" => "time (RFC 3339)".into(),
        Some(other) => simple(other).into(),
        None => "anything".into(),
    }
}

fn simple(kind: &str) -> &'static str {
    match kind {
        "integer" | "number" => "number",
        "boolean" => "true or false",
        "string" => "text",
        "null" => "null",
        "array" => "list",
        _ => "object",
    }
}
