//! Whether an endpoint can be used: what probes say, and what connecting to it shows.
//!
//! Both kinds of knowledge are small numbers in atomics that all workers read and that change a few
//! times a day. Probes are made elsewhere and only reported here. Connect failures are noticed by
//! the workers: three in a row take an endpoint out for five seconds, doubling up to a minute, but
//! never the last one of a backend — a wrong guess must not become an outage. It counts as failing until it
//! accepts a connection, of a request or of whoever probes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use switchback_config::defaults::{EJECT_FAILURES, EJECT_TIME, EJECT_TIME_MAX};

/// Whether a connection was not even tried because this process or its machine has run out of something:
/// descriptors, memory. That says nothing about the endpoint. An address that cannot be had (`EADDRNOTAVAIL`) is
/// not among these: mostly the machine has no way to such addresses, IPv6 say, and another endpoint helps.
#[must_use]
pub fn is_own_want(error: &io::Error) -> bool {
    /// `ENFILE`, `EMFILE`, `ENOBUFS`.
    const WANTS: [i32; 3] = [23, 24, 105];
    let is_want = error
        .raw_os_error()
        .is_some_and(|code| WANTS.contains(&code));
    is_want || error.kind() == io::ErrorKind::OutOfMemory
}

/// What active probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Probed {
    /// No probe has answered yet: a backend set over the API.
    Unknown = 0,
    /// Enough good probes, or none has failed since the start.
    Up = 1,
    /// Enough bad probes.
    Down = 2,
}

/// The health of one endpoint. Times are durations since the process started.
#[derive(Debug)]
pub struct EndpointHealth {
    probed: AtomicU8,
    connect_failures: AtomicU32,
    /// How often it was ejected since it last accepted a connection.
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
}

impl EndpointHealth {
    /// The health of an endpoint nobody has connected to.
    #[must_use]
    pub fn new(probed: Probed) -> Arc<Self> {
        Arc::new(Self {
            probed: AtomicU8::new(probed as u8),
            connect_failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
        })
    }

    /// What probes say.
    #[must_use]
    pub fn probed(&self) -> Probed {
        match self.probed.load(Relaxed) {
            0 => Probed::Unknown,
            1 => Probed::Up,
            _ => Probed::Down,
        }
    }

    /// Reports what probes say.
    pub fn set_probed(&self, probed: Probed) {
        self.probed.store(probed as u8, Relaxed);
    }

    /// Whether it has not accepted a connection since it was last ejected.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.ejections.load(Relaxed) > 0
    }

    /// Whether nothing is known against it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.probed() != Probed::Down && !self.is_failing()
    }

    /// Whether it is known to work, not just not known to fail.
    #[must_use]
    pub fn is_known_healthy(&self) -> bool {
        self.probed() == Probed::Up && !self.is_failing()
    }

    /// Whether it is taken out for connect failures at this time.
    #[must_use]
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.ejected_until_ms.load(Relaxed) > millis(now)
    }

    /// Reports a connection that could not be made.
    pub fn connect_failed(&self, now: Duration) {
        if self.is_ejected(now) || self.connect_failures.fetch_add(1, Relaxed) + 1 < EJECT_FAILURES
        {
            return;
        }
        self.connect_failures.store(0, Relaxed);
        let before = self.ejections.fetch_add(1, Relaxed);
        let time = EJECT_TIME
            .saturating_mul(1 << before.min(16))
            .min(EJECT_TIME_MAX);
        self.ejected_until_ms.store(millis(now + time), Relaxed);
    }

    /// Reports a connection that was made. Costs two loads in the usual case.
    pub fn connect_succeeded(&self) {
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
            self.ejected_until_ms.store(0, Relaxed);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(health: &EndpointHealth, times: u32, at: Duration) {
        (0..times).for_each(|_| health.connect_failed(at));
    }

    #[test]
    fn third_failure_in_a_row_ejects_for_five_seconds() {
        let health = EndpointHealth::new(Probed::Up);
        fail(&health, 2, Duration::ZERO);
        health.connect_succeeded();
        fail(&health, 2, Duration::ZERO);
        assert!(!health.is_ejected(Duration::ZERO) && health.is_healthy());
        fail(&health, 1, Duration::ZERO);
        assert!(health.is_ejected(Duration::from_millis(4_999)));
        assert!(!health.is_ejected(Duration::from_secs(5)));
        assert!(
            health.is_failing() && !health.is_healthy(),
            "failing until it accepts a connection"
        );
        health.connect_succeeded();
        assert!(health.is_healthy());
    }

    #[test]
    fn ejections_double_up_to_a_minute() {
        let health = EndpointHealth::new(Probed::Up);
        let mut now = Duration::ZERO;
        for seconds in [5, 10, 20, 40, 60, 60] {
            fail(&health, EJECT_FAILURES, now);
            let until = now + Duration::from_secs(seconds);
            assert!(
                health.is_ejected(until - Duration::from_millis(1)),
                "{seconds}"
            );
            assert!(!health.is_ejected(until), "{seconds}");
            now = until;
        }
    }

    #[test]
    fn probes_decide_over_health() {
        let health = EndpointHealth::new(Probed::Unknown);
        assert!(health.is_healthy());
        health.set_probed(Probed::Down);
        assert!(!health.is_healthy());
        health.set_probed(Probed::Up);
        assert!(health.is_healthy());
    }
}
