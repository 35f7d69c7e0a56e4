//! What unit tests of several modules begin with.

use switchback_config::model::Config;

/// What a config file means that has no faults.
pub(crate) fn config(text: &str) -> Config {
    let parsed = switchback_config::parse(text);
    parsed
        .config
        .unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}
