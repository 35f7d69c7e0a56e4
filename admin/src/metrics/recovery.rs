//! Metrics of ways back: whether there is one, and where databases are.

use super::Families;
use crate::api::Api;
use crate::control::Published;

/// Adds whether services can be rolled back, and what is recorded of their databases.
pub(super) fn about_ways_back(api: &Api, published: &Published, families: &mut Families) {
    for (name, ready) in api.readiness.last().iter() {
        families.gauge(
            "switchback_ready",
            "Whether a service could be rolled back right now.",
            &[("service", name)],
            f64::from(u8::from(ready.ready)),
        );
    }
    for (name, state) in &published.state.services {
        if !published.services.contains_key(name) {
            continue;
        }
        if let Some(version) = state.database.version() {
            families.gauge(
                "switchback_schema_version",
                "The schema that the database behind a service has.",
                &[("service", name)],
                f64::from(version),
            );
        }
    }
}
