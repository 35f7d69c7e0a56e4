//! From when on the requests of a service are slow: taken over for as long as the same setting is
//! applied to the same version's times.

use switchback_config::model::{self, Name, Slow};
use switchback_proxy::slow::{SlowLimit, Slowness};
use switchback_proxy::snapshot::Service;

use crate::effective::Effective;

/// What is slow; none where it does not matter, or nobody can be compared with anybody.
pub(super) fn slowness(
    workers: usize,
    file: &model::Service,
    effective: &Effective,
    before: Option<&Service>,
) -> Option<Slowness> {
    if !file.rollback.heeds_time() || effective.backends.len() < 2 {
        return None;
    }
    let setting = file.rollback.slow;
    let last = before.and_then(|before| Some((before, before.slow.as_ref()?)));
    let last = last.filter(|(_, slowness)| slowness.limit.setting() == setting);
    let is_last = |name: &Name| {
        last.is_some_and(|(before, slowness)| {
            let version = effective.version(name);
            let usual = before.backends.get(slowness.usual);
            usual.is_some_and(|usual| *usual.name == **name && *usual.version == *version)
        })
    };
    // Whoever is on trial is compared with the one before it, as far as its times are known.
    let is_known = last.is_some_and(|(_, slowness)| slowness.limit.get().is_some());
    let usual = effective
        .previous
        .as_ref()
        .filter(|_| effective.on_trial.is_some())
        .filter(|previous| effective.weight(previous) > 0 || (is_last(previous) && is_known))
        .unwrap_or(&effective.stable);
    let limit = last
        .filter(|_| matches!(setting, Slow::Fixed(_)) || is_last(usual))
        .map(|(_, slowness)| slowness.limit.clone());
    Some(Slowness {
        limit: limit.unwrap_or_else(|| SlowLimit::new(setting, workers)),
        usual: effective.backends.get_index_of(usual).unwrap_or(0),
    })
}
