//! Who is counted by the version that its responses name, and what caches may keep.

use std::sync::Arc;
use std::time::Instant;

use switchback_config::model;
use switchback_proxy::mixture::Mixture;
use switchback_proxy::snapshot::{Backend, Service, VersionHeader};
use switchback_proxy::split::Split;

use crate::effective::Effective;

/// Where responses are counted by the version that they name; taken over from the snapshot before.
pub(super) fn versions(
    file: &model::Service,
    before: Option<&Service>,
    backends: &[Arc<Backend>],
    workers: usize,
) -> Option<VersionHeader> {
    let header = file.version_header.as_ref()?;
    let going_on = |name: &Arc<str>| {
        let before = before?;
        let versions = before.versions.as_ref().filter(|v| v.header == *header)?;
        let index = before.backends.iter().position(|b| b.name == *name)?;
        versions.backends.get(index).cloned()
    };
    let backends = backends.iter();
    Some(VersionHeader {
        header: header.clone(),
        backends: backends
            .map(|backend| {
                let fresh = || Mixture::new(workers, Instant::now());
                going_on(&backend.name).unwrap_or_else(fresh)
            })
            .collect(),
    })
}

/// Whether both count in the same places.
pub(super) fn same(one: Option<&VersionHeader>, other: Option<&VersionHeader>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let pairs = || one.backends.iter().zip(&other.backends);
            one.header == other.header
                && one.backends.len() == other.backends.len()
                && pairs().all(|(a, b)| Arc::ptr_eq(a, b))
        }
        _ => false,
    }
}

/// The backends whose responses no cache may keep: those that may be rolled back. Empty: none.
pub(super) fn no_store(
    file: &model::Service,
    effective: &Effective,
    split: &Split,
    stable: usize,
) -> Vec<bool> {
    if !file.no_store_on_trial {
        return Vec::new();
    }
    let on_trial = effective.on_trial.is_some();
    let backends = 0..effective.backends.len();
    backends
        .map(|index| match index == stable {
            true => on_trial,
            false => split.weight(index) > 0,
        })
        .collect()
}
