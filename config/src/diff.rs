//! What differs between two configurations.

use serde::Serialize;
use serde_json::Value;

use crate::mask::{mask, mask_hooks};
use crate::model::Config;

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The key: `services.checkout.weights.green`.
    pub path: String,
    /// What it was; `null` if it was not there.
    pub before: Value,
    /// What it is; `null` if it is gone.
    pub after: Value,
}

/// All differences, in the order of the keys.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut found = differences(&json(before), &json(after));
    // Who reads this may not be whom the secrets of hooks are for.
    for change in &mut found {
        let hide = match change.path.ends_with(".hooks") {
            true => mask_hooks,
            false => mask,
        };
        hide(&mut change.before);
        hide(&mut change.after);
    }
    found
}

/// All differences between two values, in the order of the keys.
#[must_use]
pub fn differences(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

/// Differences that only a restart can bring into force.
#[must_use]
pub fn restart_only(before: &Config, after: &Config) -> Vec<Change> {
    let is_restart_only = |change: &Change| {
        change.path == "workers"
            || change.path.starts_with("admin.address")
            || change.path.starts_with("admin.tls")
            || change.path.starts_with("access_log.path")
            || change.path == "ofrep"
            || change.path.starts_with("ofrep.")
            || change.path == "cluster"
            || change.path.starts_with("cluster.")
    };
    changes(before, after)
        .into_iter()
        .filter(is_restart_only)
        .collect()
}

fn json(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    if let (Value::Object(one), Value::Object(other)) = (before, after) {
        let keys = one
            .keys()
            .chain(other.keys().filter(|key| !one.contains_key(*key)));
        for key in keys {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            compare(
                &path,
                one.get(key).unwrap_or(&Value::Null),
                other.get(key).unwrap_or(&Value::Null),
                found,
            );
        }
        return;
    }
    found.push(Change {
        path: path.into(),
        before: before.clone(),
        after: after.clone(),
    });
}
