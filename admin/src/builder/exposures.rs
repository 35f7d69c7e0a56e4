//! Whose evidence is gathered: that of watched versions with weight.
//!
//! An exposure lasts for as long as its version keeps weight, so it tells who met it *this time*; a
//! version that gets weight again begins with nobody, as its judge does.

use std::sync::Arc;

use switchback_proxy::exposure::Exposure;
use switchback_proxy::snapshot::{Backend, Service};
use switchback_proxy::split::Split;

/// The exposures of a service's backends, taken over from the snapshot before where they go on.
pub(super) fn of(
    before: Option<&Service>,
    backends: &[Arc<Backend>],
    split: &Split,
    is_watched: impl Fn(usize) -> bool,
    keeps_paths: bool,
    workers: usize,
) -> Vec<Option<Arc<Exposure>>> {
    let exposure = |(index, backend): (usize, &Arc<Backend>)| {
        if split.weight(index) == 0 || !is_watched(index) {
            return None;
        }
        let same = before.and_then(|service| going_on(service, backend));
        same.filter(|exposure| exposure.keeps_paths() == keeps_paths)
            .or_else(|| Some(Exposure::new(workers, keeps_paths)))
    };
    backends.iter().enumerate().map(exposure).collect()
}

fn going_on(service: &Service, backend: &Backend) -> Option<Arc<Exposure>> {
    let index = service
        .backends
        .iter()
        .position(|b| b.name == backend.name && b.version == backend.version)?;
    service.exposures.get(index)?.clone()
}

/// Whether they are the very same.
pub(super) fn same(one: &[Option<Arc<Exposure>>], other: &[Option<Arc<Exposure>>]) -> bool {
    let same = |pair: (&Option<Arc<Exposure>>, &Option<Arc<Exposure>>)| match pair {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}
