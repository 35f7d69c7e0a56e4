//! The JSON Schema of the file, made from the same declarations as its decoder.

use serde_json::{Value, json};

use crate::decode::Decode;
use crate::raw;

/// The JSON Schema (2020-12) of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut schema = raw::File::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "switchback configuration".into();
    schema["required"] = json!(["version", "listeners", "routes", "services"]);
    schema
}
