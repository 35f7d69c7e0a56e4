//! Metrics of feature flags. Names and variants come from the configuration and from operators, never
//! from who asks.

use std::time::Instant;

use super::Families;
use crate::control::Published;

/// Adds what there is to say about flags, if there are any.
pub(super) fn about_flags(published: &Published, families: &mut Families) {
    let table = &published.flags;
    for (name, live) in &table.flags {
        families.gauge(
            "switchback_flag_enabled",
            "Whether a flag is in use.",
            &[("flag", name)],
            f64::from(u8::from(live.flag.enabled)),
        );
        for variant in live.flag.variants.keys() {
            families.counter(
                "switchback_flag_evaluations_total",
                "Answers to applications by variant.",
                &[("flag", name), ("variant", variant)],
                live.served(variant),
            );
        }
    }
    if table.flags.values().any(|live| live.flag.kill_switch) {
        let age = table.trust.age(Instant::now());
        families.gauge(
            "switchback_kill_switches_believed",
            "Whether the state of kill switches can be read; otherwise they are off.",
            &[],
            f64::from(u8::from(age.is_some())),
        );
        if let Some(age) = age {
            families.gauge(
                "switchback_kill_switches_age_seconds",
                "How long ago the state of kill switches was last found readable.",
                &[],
                age.as_secs_f64(),
            );
        }
    }
}
