//! What differs between two states of a service, field by field, as people read it.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};
use switchback_config::model::{Flag, Name};
use utoipa::ToSchema;

use super::past::Moment;
use crate::state::{Block, RolloutState};

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = FieldDifference)]
pub struct Difference {
    /// The service, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The flag, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<Name>,
    /// The field: `weights.green`, `backends.green.version`, `blocked.42`, `enabled`.
    pub field: String,
    /// What it was; `null` if there was nothing.
    pub before: Value,
    /// What it is; `null` if there is nothing.
    pub after: Value,
}

/// All fields of a service that differ. None: it is not configured.
#[must_use]
pub fn differences(
    service: &Name,
    before: Option<&Moment>,
    after: Option<&Moment>,
) -> Vec<Difference> {
    let fields_of = |moment: Option<&Moment>| moment.map(fields).unwrap_or_default();
    let mut found = compare(fields_of(before), fields_of(after));
    for difference in &mut found {
        difference.service = Some(service.clone());
    }
    found
}

/// All fields of a flag that differ. None: there is no such flag.
#[must_use]
pub fn flag_differences(
    flag: &Name,
    before: Option<&Flag>,
    after: Option<&Flag>,
) -> Vec<Difference> {
    let fields_of = |flag: Option<&Flag>| match json!(flag) {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => IndexMap::new(),
    };
    let mut found = compare(fields_of(before), fields_of(after));
    for difference in &mut found {
        difference.flag = Some(flag.clone());
    }
    found
}

fn compare(
    mut before: IndexMap<String, Value>,
    mut after: IndexMap<String, Value>,
) -> Vec<Difference> {
    let mut names: Vec<String> = before.keys().cloned().collect();
    names.extend(
        after
            .keys()
            .filter(|name| !before.contains_key(*name))
            .cloned(),
    );
    let mut found = Vec::new();
    for field in names {
        let take = |fields: &mut IndexMap<String, Value>| {
            fields.get_mut(&field).map(Value::take).unwrap_or_default()
        };
        let (before, after) = (take(&mut before), take(&mut after));
        if before != after {
            found.push(Difference {
                service: None,
                flag: None,
                field,
                before,
                after,
            });
        }
    }
    found
}

/// Everything of a service that somebody may want to compare.
fn fields(moment: &Moment) -> IndexMap<String, Value> {
    let Moment { state, in_force } = moment;
    let mut fields = IndexMap::new();
    fields.insert("stable".to_owned(), json!(in_force.stable));
    fields.insert("previous".to_owned(), json!(in_force.previous));
    for (name, weight) in &in_force.weights {
        fields.insert(format!("weights.{name}"), json!(weight));
    }
    for (name, backend) in &in_force.backends {
        let version = format!("backends.{name}.version");
        fields.insert(version, json!(backend.version));
        let endpoints = format!("backends.{name}.endpoints");
        fields.insert(endpoints, json!(backend.endpoints));
        if !backend.tls.is_default() {
            fields.insert(format!("backends.{name}.tls"), json!(backend.tls));
        }
        if backend.schema.is_some() {
            fields.insert(format!("backends.{name}.schema"), json!(backend.schema));
        }
        if !backend.migration.is_none() {
            let migration = format!("backends.{name}.migration");
            fields.insert(migration, json!(backend.migration));
        }
    }
    for (version, block) in &state.blocked {
        fields.insert(format!("blocked.{version}"), block_text(block).into());
    }
    if let Some(trial) = &state.on_trial {
        let text = format!("{} until {:.0}", trial.backend, trial.until);
        fields.insert("on_trial".to_owned(), text.into());
    }
    if let Some(rollout) = &state.rollout {
        fields.insert("rollout".to_owned(), rollout_text(rollout).into());
    }
    if let Some(lease) = &state.lease {
        let text = format!("the weights end at {:.0}", lease.until);
        fields.insert("lease".to_owned(), text.into());
    }
    fields
}

fn block_text(block: &Block) -> String {
    let reason = block.reason.as_deref();
    let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
    format!("{} by {} at {}{why}", block.backend, block.by, block.at)
}

fn rollout_text(rollout: &RolloutState) -> String {
    let RolloutState {
        canary, version, ..
    } = rollout;
    match &rollout.ended {
        Some(_) => format!("{canary} ({version}): {}", rollout.status()),
        None => format!(
            "{canary} ({version}): {}, {}",
            rollout.stage_text(),
            rollout.status()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Settled;
    use crate::state::ServiceState;
    use switchback_config::model::{Backend, Migration};

    fn moment(green: u32, version: &str) -> Moment {
        let backend = |version: &str, port: u16| Backend {
            version: version.into(),
            endpoints: vec![
                format!("http://127.0.0.1:{port}")
                    .parse()
                    .expect("endpoint"),
            ],
            tls: Default::default(),
            off_on_rollback: Vec::new(),
            schema: None,
            migration: Migration::None,
        };
        Moment {
            state: ServiceState::default(),
            in_force: Settled {
                stable: "blue".into(),
                previous: None,
                weights: IndexMap::from([("blue".into(), 100), ("green".into(), green)]),
                backends: IndexMap::from([
                    ("blue".into(), backend("1", 1)),
                    ("green".into(), backend(version, 2)),
                ]),
            },
        }
    }

    fn lines(before: Option<&Moment>, after: Option<&Moment>) -> Vec<String> {
        let found = differences(&"shop".into(), before, after);
        let lines = found.iter().map(|found| {
            assert_eq!(found.service.as_deref(), Some("shop"));
            format!("{}: {} -> {}", found.field, found.before, found.after)
        });
        lines.collect()
    }

    #[test]
    fn fields_that_differ_are_named_with_both_values() {
        let (before, mut after) = (moment(0, "2"), moment(5, "3"));
        assert_eq!(lines(Some(&before), Some(&before)), [""; 0]);
        let block = Block {
            backend: "green".into(),
            by: "judge".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            cause: "judge".into(),
            reason: Some("it fails".into()),
        };
        after.state.blocked.insert("2".into(), block);
        assert_eq!(
            lines(Some(&before), Some(&after)),
            [
                "weights.green: 0 -> 5",
                "backends.green.version: \"2\" -> \"3\"",
                "blocked.2: null -> \"green by judge at 1970-01-01T00:00:00Z: it fails\"",
            ]
        );
        assert_eq!(
            lines(Some(&after), Some(&before))[2],
            "blocked.2: \"green by judge at 1970-01-01T00:00:00Z: it fails\" -> null"
        );
    }

    #[test]
    fn service_that_is_new_or_gone_differs_in_every_field_it_has() {
        let moment = moment(5, "2");
        let new = lines(None, Some(&moment));
        assert!(
            new.contains(&"stable: null -> \"blue\"".to_owned()),
            "{new:?}"
        );
        assert!(!new.iter().any(|line| line.starts_with("previous")));
        assert_eq!(lines(Some(&moment), None).len(), new.len());
        assert!(lines(None, None).is_empty());
    }
}
