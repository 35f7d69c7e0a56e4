//! What keeps a page and its files on one version.

use std::sync::Arc;

use switchback_config::model;
use switchback_proxy::pin::Pin;
use switchback_proxy::snapshot::Service;

use crate::effective::Effective;

/// The pin of a service; taken over while nothing about it changes.
pub(super) fn build(
    file: &model::Service,
    effective: &Effective,
    stable: usize,
    before: Option<&Service>,
) -> Option<Arc<Pin>> {
    let written = file.pin.as_ref()?;
    let labels = effective.backends.values().map(|backend| &*backend.version);
    let pin = Pin {
        words: labels
            .map(|label| Pin::word(written.key.as_ref(), label))
            .collect(),
        elsewhere: (0..effective.backends.len())
            .map(|backend| elsewhere(effective, stable, backend))
            .collect(),
        key: written.key.clone(),
        assets: written.assets.clone(),
    };
    let same = before.and_then(|before| before.pin.as_ref());
    match same.filter(|same| ***same == pin) {
        Some(same) => Some(same.clone()),
        None => Some(Arc::new(pin)),
    }
}

/// Pages of stable may have come from the version before, or from a canary; those of a canary, from stable.
fn elsewhere(effective: &Effective, stable: usize, backend: usize) -> Option<usize> {
    if backend != stable {
        return Some(stable);
    }
    let previous = effective.previous.as_ref();
    let previous = previous.and_then(|name| effective.backends.get_index_of(name));
    let names = effective.backends.keys().enumerate();
    let canaries = names.filter(|(index, name)| *index != stable && effective.weight(name) > 0);
    let largest = canaries.max_by_key(|(_, name)| effective.weight(name));
    previous.or(largest.map(|(index, _)| index))
}
