//! Metrics of drills: how often a rollback is to be rehearsed, when one last was, whether it held, and how
//! long it took. An alert compares the first two.

use super::Families;
use crate::control::Published;
use crate::drill::last_drill;

/// Adds what there is to say about drills.
pub(super) fn about_drills(published: &Published, families: &mut Families) {
    for (service, file) in &published.config.services {
        if let Some(drill) = &file.drill {
            families.gauge(
                "switchback_drill_interval_seconds",
                "How often a rollback is rehearsed by itself, as the file says.",
                &[("service", service)],
                drill.every.0.as_secs_f64(),
            );
        }
        let Some(last) = last_drill(published, service) else {
            continue;
        };
        let labels = [("service", service.as_str())];
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of this century are below 2^53"
        )]
        let seconds = |ms: i64| ms as f64 / 1e3;
        families.gauge(
            "switchback_last_drill_timestamp_seconds",
            "When a rollback was last rehearsed.",
            &labels,
            seconds(last.at.as_millisecond()),
        );
        families.gauge(
            "switchback_last_drill_duration_seconds",
            "How long the last rehearsal took.",
            &labels,
            seconds(i64::try_from(last.took_ms).unwrap_or(i64::MAX)),
        );
        families.gauge(
            "switchback_last_drill_passed",
            "Whether everything held in the last rehearsal.",
            &labels,
            f64::from(u8::from(last.passed)),
        );
        if let Some(ms) = last.rolled_back_in_ms {
            families.gauge(
                "switchback_last_drill_rollback_seconds",
                "From the first failure to the rollback in the last rehearsal.",
                &labels,
                seconds(i64::try_from(ms).unwrap_or(i64::MAX)),
            );
        }
    }
}
