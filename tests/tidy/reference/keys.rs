//! The page of the config file, from its JSON Schema.

use std::fmt::Write;

use serde_json::Value;

use super::cell;

const HEAD: &str = "# The config file

Every key, with what may be written and what it means. Made from `switchback schema`, which editors can check a file with
while it is written; [deploy/switchback.yaml](../deploy/switchback.yaml) has all keys in one file, and
[concepts](concepts.md) tells how they belong together.

* A changed file is in force without a restart, but for `workers`, `admin.address`, `admin.tls`, `access_log.path` and
  `ofrep`: a file that changes one of these is refused by the running process, and `check` cannot know.
* Unknown and repeated keys are errors, with the nearest key as a suggestion. A file is taken over as a whole or not at
  all.
* Durations carry their unit: `250ms`, `30s`, `5m`, `48h`. So do sizes (`64KiB`, `1MiB`) and percents (`5%`).
* `NAME` stands for a name of yours. Names of files are relative to the directory of the config file.
* `switchback check FILE --explain` prints a file with every default filled in.
";

/// Said where limits are set for a part only.
const LIMITS: &str =
    "The keys of [limits](#limits) that work here; `switchback check` tells of those that do not.";

/// The whole page.
pub(super) fn page(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    let required = strings(&schema["required"]);
    let _ = write!(page, "\n## The file\n\n");
    table(&mut page, schema, "", &required);
    for (name, key) in members(schema) {
        section(&mut page, name, key, 2);
    }
    page
}

fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<&str> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(Value::as_str).collect()
}

/// The table below a key, below its list or below its names; and how it is reached.
fn inner<'a>(path: &str, schema: &'a Value) -> Option<(String, &'a Value)> {
    if schema["properties"].is_object() {
        return Some((path.to_owned(), schema));
    }
    let lower = [("additionalProperties", ".NAME"), ("items", "[]")];
    for (key, suffix) in lower {
        if schema[key].is_object() {
            return inner(&format!("{path}{suffix}"), &schema[key]);
        }
    }
    let choices = schema["anyOf"].as_array()?;
    choices.iter().find_map(|choice| inner(path, choice))
}

/// A key with a table of its own, and those below it.
fn section(page: &mut String, path: &str, schema: &Value, depth: usize) {
    let Some((path, table_of)) = inner(path, schema) else {
        return;
    };
    if path.ends_with(".limits") {
        return;
    }
    let hashes = "#".repeat(depth.min(3));
    let _ = write!(page, "\n{hashes} {path}\n\n");
    let described = table_of["description"]
        .as_str()
        .or(schema["description"].as_str());
    if let Some(text) = described {
        let _ = write!(page, "{}\n\n", text.trim());
    }
    table(page, table_of, &path, &[]);
    for (name, key) in members(table_of) {
        section(page, &format!("{path}.{name}"), key, depth + 1);
    }
}

fn table(page: &mut String, schema: &Value, path: &str, required: &[&str]) {
    page.push_str("| key | value | meaning |\n| --- | --- | --- |\n");
    for (name, key) in members(schema) {
        let below = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let needed = if required.contains(&name.as_str()) {
            " Needed."
        } else {
            ""
        };
        let meaning = match name.as_str() {
            "limits" if !path.is_empty() => LIMITS.to_owned(),
            _ => cell(key["description"].as_str().unwrap_or_default()),
        };
        let shown = match inner(&below, key) {
            Some((target, _)) if !target.ends_with(".limits") => {
                format!("[`{name}`](#{})", anchor(&target))
            }
            _ => format!("`{name}`"),
        };
        let _ = writeln!(page, "| {shown} | {} | {meaning}{needed} |", value(key));
    }
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let kept = |character: &char| character.is_ascii_alphanumeric() || "-_".contains(*character);
    heading.to_lowercase().chars().filter(kept).collect()
}

/// What may be written.
fn value(schema: &Value) -> String {
    if let Some(word) = schema.get("const") {
        return format!("`{}`", word.as_str().unwrap_or_default());
    }
    if schema["enum"].is_array() {
        let words: Vec<String> = strings(&schema["enum"])
            .iter()
            .map(|word| format!("`{word}`"))
            .collect();
        return words.join(", ");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let choices: Vec<String> = choices.iter().map(value).collect();
        return choices.join(" or ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", value(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!(
                "names, each with {}",
                value(&schema["additionalProperties"])
            )
        }
        Some("object") => "table".into(),
        Some("integer" | "number") => "number".into(),
        Some("boolean") => "`true` or `false`".into(),
        _ => text(schema["pattern"].as_str()).into(),
    }
}

/// Texts are told apart by what they have to look like.
fn text(pattern: Option<&str>) -> &'static str {
    match pattern {
        Some("^\\d[\\d.a-z ]*[a-z]$") => "duration",
        Some("^\\d[\\d.]* ?[A-Za-z]+$") => "size",
        Some("^\\d[\\d.]* ?%$") => "percent",
        Some("^.+:\\d+$") => "address:port",
        Some("^[0-9a-fA-F.:]+(/\\d+)?$") => "network",
        _ => "text",
    }
}
