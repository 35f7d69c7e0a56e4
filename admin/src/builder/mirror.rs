//! Who gets copies of stable's requests now: what the file asks for, as far as the roles allow it.
//!
//! Stable is no mirror of itself, and a blocked version gets nothing at all; in both cases there is no
//! mirror until that has changed. A version that has weight is judged by the users it serves, so its
//! copies are compared and counted but no longer judged.

use std::sync::Arc;

use switchback_config::model;
use switchback_proxy::snapshot::{Backend, Mirror, Service};
use switchback_proxy::split::Split;
use switchback_proxy::stats::Alarm;
use switchback_proxy::stats::mirrored::PairCells;

use crate::effective::Effective;

/// What a service's mirror is made from, besides the file.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) effective: &'a Effective,
    pub(super) before: Option<&'a Service>,
    pub(super) backends: &'a [Arc<Backend>],
    pub(super) split: &'a Split,
    pub(super) stable: usize,
    pub(super) workers: usize,
    pub(super) alarm: &'a Arc<Alarm>,
}

/// The mirror of a service, if there is one now.
pub(super) fn build(file: &model::Service, parts: &Parts<'_>) -> Option<Arc<Mirror>> {
    let written = file.mirror.as_ref()?;
    let to = parts.effective.backends.get_index_of(&written.to)?;
    if to == parts.stable || parts.effective.blocked.contains(&written.to) {
        return None;
    }
    let before = parts
        .before
        .and_then(|service| Some((service, service.mirror.as_ref()?)));
    // Nor are the copies for where rollback goes: it is not the judge's to close.
    let is_previous = parts.effective.previous.as_ref() == Some(&written.to);
    let is_judged = written.judge && parts.split.weight(to) == 0 && !is_previous;
    let mirror = Mirror {
        to,
        sample: Mirror::sampling(written.share),
        methods: written.methods.clone(),
        body_bytes_max: usize::try_from(written.max_body.0).unwrap_or(usize::MAX),
        patience: written.timeout.0,
        concurrency: written.concurrency,
        judged: is_judged.then(|| judged(parts, to, before)),
    };
    match before {
        Some((_, same)) if is_same(same, &mirror) => Some(same.clone()),
        _ => Some(Arc::new(mirror)),
    }
}

/// The cells of the pairs: those from before, unless one side has another version now.
fn judged(
    parts: &Parts<'_>,
    to: usize,
    before: Option<(&Service, &Arc<Mirror>)>,
) -> Arc<PairCells> {
    let same = before.and_then(|(service, mirror)| {
        let same_side = |old: usize, new: usize| {
            Arc::ptr_eq(&service.backends[old].stats, &parts.backends[new].stats)
        };
        (same_side(mirror.to, to) && same_side(service.stable, parts.stable))
            .then(|| mirror.judged.clone())
            .flatten()
    });
    same.unwrap_or_else(|| PairCells::new(parts.workers, Some(parts.alarm.clone())))
}

fn is_same(one: &Mirror, other: &Mirror) -> bool {
    let same_pairs = match (&one.judged, &other.judged) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    };
    same_pairs
        && (one.to, &one.sample, &one.methods, one.body_bytes_max)
            == (
                other.to,
                &other.sample,
                &other.methods,
                other.body_bytes_max,
            )
        && (one.patience, one.concurrency) == (other.patience, other.concurrency)
}
