//! Whether stable is the broken one.
//!
//! The judge asks only whether the canary is worse. When stable fails and the canary does not, going
//! back would be the wrong direction, and somebody should be told. The same likelihood ratio, with the
//! sides exchanged, over the last half to whole minute. It is asked again and again without the
//! promise that the charts of [`crate::Judge`] keep, so the bar is higher: at [`RATIO_MIN`] nats a
//! single look is wrong once in a hundred million, some ten independent looks a minute once in years.

use std::time::Duration;

use crate::judge::{Counts, Settings};
use crate::likelihood::{float, ratio};

/// Nats that are needed.
const RATIO_MIN: f64 = 16.0;

/// Requests after which a stable that does not fail more than the canary has recovered.
const REQUESTS_MIN: u64 = 100;

/// Counts are kept for one to two of these.
const BUCKET: Duration = Duration::from_secs(30);

/// Counts of the last minute, and what they said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StableCheck {
    current: Counts,
    last: Counts,
    bucket_start: Duration,
    broken: bool,
}

impl StableCheck {
    /// Adds what happened since the last tick; tells whether stable is surely worse than the canary.
    /// That stays so until stable has answered enough requests as well as the canary: while it gets
    /// none, nothing says that it has recovered.
    pub fn tick(&mut self, now: Duration, counts: Counts, settings: &Settings) -> bool {
        let age = now.saturating_sub(self.bucket_start);
        if age >= BUCKET {
            self.last = match age >= 2 * BUCKET {
                true => Counts::default(),
                false => self.current,
            };
            self.current = Counts::default();
            self.bucket_start = now;
        }
        self.current = self.current.plus(counts);
        let seen = self.counts();
        let extra = float(seen.stable_failures) / float(seen.stable_requests.max(1))
            - float(seen.canary_failures) / float(seen.canary_requests.max(1));
        if extra < settings.max_extra {
            self.broken &= seen.stable_requests < REQUESTS_MIN;
        } else if counts.stable_failures > 0 && seen.stable_failures >= settings.min_failures {
            let ratio = ratio(
                seen.stable_requests,
                seen.stable_failures,
                seen.canary_requests,
                seen.canary_failures,
            );
            self.broken |= ratio >= RATIO_MIN;
        }
        self.broken
    }

    /// What it looks at.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.last.plus(self.current)
    }

    /// Forgets everything, for other versions.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(&switchback_config::defaults::rollback(), 1)
    }

    fn counts(canary: (u64, u64), stable: (u64, u64)) -> Counts {
        Counts {
            canary_requests: canary.0,
            canary_failures: canary.1,
            stable_requests: stable.0,
            stable_failures: stable.1,
        }
    }

    #[test]
    fn stable_that_fails_beside_a_good_canary_is_found() {
        let mut check = StableCheck::default();
        let mut found = false;
        for second in 0..30 {
            let now = Duration::from_secs(second);
            found |= check.tick(now, counts((10, 0), (190, 60)), &settings());
        }
        assert!(found);
        assert_eq!(check.counts().stable_failures, 1_800);
    }

    #[test]
    fn shared_trouble_and_a_bad_canary_are_not_stables_fault() {
        for (canary, stable) in [
            ((100, 30), (1900, 570)),
            ((100, 90), (1900, 2)),
            ((0, 0), (99, 99)),
        ] {
            let mut check = StableCheck::default();
            for second in 0..120 {
                let now = Duration::from_secs(second);
                assert!(!check.tick(now, counts(canary, stable), &settings()));
            }
        }
    }

    #[test]
    fn broken_stable_stays_so_until_it_has_answered_well() {
        let mut check = StableCheck::default();
        let at = Duration::from_secs;
        assert!(check.tick(at(0), counts((50, 0), (50, 50)), &settings()));
        assert!(check.tick(at(200), counts((50, 0), (0, 0)), &settings()));
        assert!(check.tick(at(210), counts((50, 0), (99, 0)), &settings()));
        assert!(!check.tick(at(211), counts((50, 0), (1, 0)), &settings()));
    }

    #[test]
    fn counts_are_forgotten_within_a_minute() {
        let mut check = StableCheck::default();
        check.tick(Duration::ZERO, counts((5, 0), (50, 50)), &settings());
        check.tick(Duration::from_secs(31), Counts::default(), &settings());
        assert_eq!(check.counts().stable_failures, 50);
        check.tick(Duration::from_secs(62), Counts::default(), &settings());
        assert_eq!(check.counts(), Counts::default());
    }
}
