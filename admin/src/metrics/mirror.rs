//! Metrics of mirrored requests, under names of their own: they are no traffic.

use prometheus::proto::MetricType;
use switchback_proxy::outcome::{CLASSES, DIFFERENCES};
use switchback_proxy::stats::mirrored::{DROPS, MirroredCells};
use switchback_proxy::stats::{BackendStats, LATENCY_BOUNDS_US};

use super::{Families, add_histogram};

/// Adds what was counted of the copies for one version, if there were any.
pub(super) fn about_copies(
    labels: &[(&str, &str); 2],
    version: &str,
    stats: &BackendStats,
    families: &mut Families,
) {
    let sum = |read: &dyn Fn(&MirroredCells) -> u64| stats.mirrored().iter().map(read).sum::<u64>();
    let mut count_by =
        |name, help: &str, label, values: &[&str], read: &dyn Fn(&MirroredCells, usize) -> u64| {
            for (index, value) in values.iter().enumerate() {
                let count = sum(&|cells| read(cells, index));
                if count > 0 {
                    let labels = [labels[0], labels[1], ("version", version), (label, value)];
                    families.counter(name, help, &labels, count);
                }
            }
        };
    count_by(
        "switchback_mirrored_requests_total",
        "Ended copies of requests by outcome.",
        "code_class",
        &CLASSES,
        &|cells, index| cells.attempts.classes[index].get(),
    );
    count_by(
        "switchback_mirror_mismatches_total",
        "Copies that ended otherwise than their originals, by kind: failed and repaired are the copy's.",
        "kind",
        &DIFFERENCES,
        &|cells, index| cells.differences[index].get(),
    );
    count_by(
        "switchback_mirror_dropped_total",
        "Requests that were chosen for a copy and not copied, by reason.",
        "reason",
        &DROPS,
        &|cells, index| cells.dropped[index].get(),
    );
    let buckets: Vec<u64> = (0..=LATENCY_BOUNDS_US.len())
        .map(|index| sum(&|cells| cells.attempts.latency[index].get()))
        .collect();
    if buckets.iter().any(|count| *count > 0) {
        let total_us = sum(&|cells| cells.attempts.latency_us.get());
        families.add(
            "switchback_mirrored_request_duration_seconds",
            "Time of copies from choosing an endpoint to the end of the response.",
            MetricType::HISTOGRAM,
            labels,
            |metric| add_histogram(metric, &buckets, total_us),
        );
    }
}
