//! Who and what brought the present state about.

use switchback_config::model::AffinityKey;

use super::Facts;
use crate::conflict::{Kind, conflicts, same_shares, table};

/// From the weights to what beats them.
pub(super) fn sentences(facts: &Facts<'_>) -> Vec<String> {
    let mut said = Vec::new();
    said.push(weights(facts));
    said.extend(last_rollout(facts));
    said.extend(others_set(facts));
    said.extend(blocks(facts));
    said.extend(exceptions(facts));
    said
}

/// Where the weights come from.
fn weights(facts: &Facts<'_>) -> String {
    if facts.stable_only {
        return "The recorded state was lost, and with it what is blocked; until somebody acknowledges \
                that, only stable serves, whatever the file says."
            .into();
    }
    if let Some(rollout) = facts.rollout() {
        return format!(
            "{} started a rollout of {} (version {}) {}; it is in {}, which gives it {}.",
            rollout.by,
            rollout.canary,
            rollout.version,
            facts.ago(rollout.began),
            rollout.stage_text(),
            rollout.share(rollout.stage)
        );
    }
    let file = &facts.file.weights;
    match &facts.state.weights {
        Some(set) => {
            let reason = set.reason.as_deref();
            let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
            let file = match same_shares(&set.value, file) {
                true => "the file says the same".to_owned(),
                false => format!("the file says {}", table(file)),
            };
            format!(
                "{} set these weights {}{why}; {file}.",
                set.by,
                facts.ago(set.at)
            )
        }
        None => "The weights are those of the file.".into(),
    }
}

/// How the last rollout of what is deployed now went.
fn last_rollout(facts: &Facts<'_>) -> Option<String> {
    let rollout = facts.state.rollout.as_ref()?;
    let ended = rollout.ended.as_ref()?;
    let still_there = facts.effective.version(&rollout.canary) == rollout.version;
    still_there.then(|| {
        format!(
            "The last rollout ended {}: {}.",
            facts.ago(ended.at),
            ended.reason.trim_end_matches('.')
        )
    })
}

/// What else was set at run time, and what is asked for and cannot be.
fn others_set<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = String> + 'a {
    let found = conflicts(
        facts.service,
        facts.file,
        facts.state,
        facts.effective,
        false,
    );
    let others = found
        .into_iter()
        .filter(|found| found.kind == Kind::Refused || found.field != "weights");
    others.map(|found| match found.kind {
        Kind::Differs => format!("Set at run time: {}.", found.sentence),
        Kind::Refused => format!("Conflict: {}. To end it: {}.", found.sentence, found.ends),
    })
}

fn blocks<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = String> + 'a {
    facts.effective.blocked.iter().filter_map(|backend| {
        let version = facts.effective.version(backend);
        let block = facts.state.blocked.get(version)?;
        let reason = block.reason.as_deref();
        let why = reason.map_or(String::new(), |reason| format!(": {reason}"));
        Some(format!(
            "Version {version} on {backend} was blocked by {} {}{why}. It gets no traffic.",
            block.by,
            facts.ago(block.at)
        ))
    })
}

/// Requests that do not follow the weights.
fn exceptions(facts: &Facts<'_>) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(affinity) = &facts.file.affinity {
        let key = match &affinity.key {
            AffinityKey::Cookie(name) => format!("cookie {name}"),
            AffinityKey::Header(name) => format!("header {name}"),
        };
        said.push(format!(
            "Requests with the same {key} stay on one backend; the weights are shares of its values."
        ));
    }
    if let Some(preview) = &facts.file.preview {
        said.push(format!(
            "Testers may choose a backend with the header {}, also one without weight.",
            preview.header
        ));
    }
    said
}
