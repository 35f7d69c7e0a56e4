//! Whether a canary is alive: no healthy endpoint for too long, or lost too often, is a failure even
//! if no request meets it, since its share is diverted to stable meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use switchback_config::defaults::{FLAP_WINDOW, FLAPS_MAX};
use switchback_config::units::TimeSpan;
use switchback_proxy::snapshot::Backend;

/// The endpoints of one version over time.
#[derive(Debug)]
pub(super) struct Vitals {
    backend: Arc<Backend>,
    unhealthy_since: Option<Duration>,
    losses: VecDeque<Duration>,
}

impl Vitals {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            unhealthy_since: None,
            losses: VecDeque::new(),
        }
    }

    /// The version may have other endpoints now.
    pub(super) fn follow(&mut self, backend: &Arc<Backend>) {
        self.backend = backend.clone();
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        self.unhealthy_since = None;
        self.losses.clear();
    }

    /// What is wrong, once it has been wrong for too long.
    pub(super) fn tick(&mut self, now: Duration, unhealthy_for: TimeSpan) -> Option<String> {
        let healthy = self
            .backend
            .endpoints
            .iter()
            .any(|endpoint| endpoint.health.is_healthy());
        if healthy {
            self.unhealthy_since = None;
        } else if self.unhealthy_since.is_none() {
            self.unhealthy_since = Some(now);
            self.losses.push_back(now);
        }
        while self
            .losses
            .front()
            .is_some_and(|loss| now.saturating_sub(*loss) > FLAP_WINDOW)
        {
            self.losses.pop_front();
        }
        let name = &self.backend.name;
        if self
            .unhealthy_since
            .is_some_and(|since| now.saturating_sub(since) >= unhealthy_for.0)
        {
            return Some(format!(
                "{name} has had no healthy endpoint for {unhealthy_for}"
            ));
        }
        let flaps = u32::try_from(self.losses.len()).unwrap_or(u32::MAX);
        (flaps >= FLAPS_MAX).then(|| {
            let window = TimeSpan(FLAP_WINDOW);
            format!("{name} lost its last healthy endpoint {flaps} times in {window}")
        })
    }
}
