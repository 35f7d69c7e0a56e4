//! The reference pages are made from what the program itself says: the keys of the config file from its JSON Schema,
//! the API from the OpenAPI document. `just docs` writes them anew; here they are required to be what that would write.

mod api;
mod keys;

use std::fs;

use super::root;

/// Compares a page with what it should be, or writes it where that is asked for.
fn require(name: &str, expected: &str) {
    let path = root().join("docs").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{name} is not what the program says; `just docs` writes it anew"
    );
}

/// A description as it may stand in a cell of a table.
fn cell(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

#[test]
fn page_of_the_config_file_has_every_key_with_its_meaning() {
    require(
        "configuration.md",
        &keys::page(&switchback_config::schema()),
    );
}

#[test]
fn page_of_the_api_has_every_request_and_every_type() {
    let document = fs::read_to_string(root().join("tests/openapi.json")).unwrap();
    let document = serde_json::from_str(&document).unwrap();
    require("api.md", &api::page(&document));
}
