//! Metrics of what responses say about the version that answers.

use std::time::Instant;

use switchback_proxy::snapshot::Service;

use super::{Families, float};

/// Adds the share of responses of each version that the responses of a backend name. The number of
/// versions is bounded by where they are counted.
pub(super) fn about_versions(service: &Service, families: &mut Families) {
    let Some(versions) = &service.versions else {
        return;
    };
    for (backend, mixture) in service.backends.iter().zip(&versions.backends) {
        let seen = mixture.seen(Instant::now());
        let all =
            seen.values.iter().map(|(_, count)| count).sum::<u64>() + seen.other + seen.unmarked;
        for (version, count) in &seen.values {
            let labels = [
                ("service", &*service.name),
                ("backend", &*backend.name),
                ("seen", version.as_str()),
            ];
            families.gauge(
                "switchback_version_share",
                "Part of a backend's responses that named a version, in the last one to two minutes.",
                &labels,
                float(*count) / float(all.max(1)),
            );
        }
    }
}
