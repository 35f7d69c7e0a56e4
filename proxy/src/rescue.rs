//! When a failed attempt is repeated: all repetition in the product is decided here.
//!
//! Two kinds exist. A *retry* goes to the same backend, because nothing was sent or because a safe
//! request got no answer at all. A *rescue* sends a canary's failed request to stable, so that
//! users do not see the canary fail. Each at most once, never more than two attempts that began,
//! and both within a budget: when everything fails, repeating it doubles the trouble.
//!
//! An endpoint that could not be reached at all is no attempt. The request goes on to an endpoint of
//! the same backend that it has not been to, as often as there is one: that costs nobody anything but a
//! refusal, and ends when the dead endpoint is ejected. A name with a dead address beside a live one
//! fails nobody that way, not even in the first moment of a process, when nothing is ejected yet.
//!
//! A request that is not safe (RFC 9110, 9.2.1) is repeated only if not one byte of it was sent.

use std::cell::Cell;
use std::time::{Duration, Instant};

use switchback_config::defaults::{RETRY_MIN, RETRY_WINDOW};
use switchback_config::model::Rescue;
use switchback_config::units::Percent;

/// What to do about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Report the failure.
    No,
    /// Once more to the same backend, over another endpoint or a fresh connection.
    Retry,
    /// On to an endpoint of the same backend that the request has not been to. Needs no budget.
    GoOn,
    /// To stable.
    Rescue,
}

/// What is known about a failed attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    /// At least one byte was given to the socket.
    pub(crate) began: bool,
    /// At least one byte of a response arrived.
    pub(crate) answered: bool,
    /// It counts as a failure of the backend.
    pub(crate) is_failure: bool,
    /// It was sent to a canary by the split, and stable may take it.
    pub(crate) may_be_rescued: bool,
    /// The request is safe, or carries a key that makes it so, and its body is still there.
    pub(crate) repeatable: bool,
    /// The method is one that the service rescues.
    pub(crate) rescue_allowed: bool,
    /// The endpoint could not be reached, and its backend has one that was not tried.
    pub(crate) may_go_on: bool,
}

/// What was done for the request before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// Attempts that began.
    pub(crate) begun: u32,
    pub(crate) retried: bool,
    pub(crate) rescued: bool,
}

/// Decides about one failed attempt, apart from the budget.
pub(crate) const fn decide(failed: Failed, tries: Tries) -> Repeat {
    if tries.begun >= 2 {
        return Repeat::No;
    }
    let rescuable =
        failed.may_be_rescued && failed.rescue_allowed && failed.repeatable && failed.is_failure;
    if rescuable && !tries.rescued {
        return Repeat::Rescue;
    }
    if failed.may_go_on {
        return Repeat::GoOn;
    }
    let nothing_sent = !failed.began;
    if !tries.retried && (nothing_sent || (failed.repeatable && !failed.answered)) {
        return Repeat::Retry;
    }
    Repeat::No
}

/// Whether a service rescues requests with this method.
pub(crate) fn rescues_method(rescue: &Rescue, method: &[u8]) -> bool {
    rescue.enabled
        && rescue
            .methods
            .iter()
            .any(|allowed| allowed.as_bytes() == method)
}

/// Seconds of the window, one bucket each.
const BUCKETS: usize = 10;

/// How many repetitions one worker may still make for one service.
#[derive(Debug)]
pub(crate) struct Budget {
    start: Instant,
    /// Requests and repetitions, by second.
    buckets: [Cell<(u32, u32)>; BUCKETS],
    second: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        debug_assert_eq!(
            RETRY_WINDOW.as_secs(),
            BUCKETS as u64,
            "one bucket a second"
        );
        Self {
            start: now,
            buckets: [const { Cell::new((0, 0)) }; BUCKETS],
            second: Cell::new(0),
        }
    }

    /// Counts a request.
    pub(crate) fn note_request(&self, now: Instant) {
        let bucket = self.current(now);
        let (requests, repeats) = bucket.get();
        bucket.set((requests.saturating_add(1), repeats));
    }

    /// Takes one repetition out of the budget, if it has one left.
    pub(crate) fn take(&self, now: Instant, share: Percent) -> bool {
        if !self.has_left(now, share) {
            return false;
        }
        let bucket = self.current(now);
        bucket.set((bucket.get().0, bucket.get().1 + 1));
        true
    }

    /// Whether one more repetition is within the budget.
    pub(crate) fn has_left(&self, now: Instant, share: Percent) -> bool {
        self.current(now);
        let sum = |(requests, repeats): (u64, u64), bucket: &Cell<(u32, u32)>| {
            (
                requests + u64::from(bucket.get().0),
                repeats + u64::from(bucket.get().1),
            )
        };
        let (requests, repeats) = self.buckets.iter().fold((0, 0), sum);
        let allowed = requests * u64::from(share.millionths()) / u64::from(Percent::WHOLE);
        repeats < allowed.max(u64::from(RETRY_MIN))
    }

    /// The bucket of this second, after forgetting those that have left the window.
    fn current(&self, now: Instant) -> &Cell<(u32, u32)> {
        let second = now.saturating_duration_since(self.start).as_secs();
        let before = self.second.replace(second);
        if second != before {
            let steps = second.abs_diff(before).min(BUCKETS as u64);
            for step in 0..steps {
                self.bucket(second - step).set((0, 0));
            }
        }
        self.bucket(second)
    }

    fn bucket(&self, second: u64) -> &Cell<(u32, u32)> {
        &self.buckets[usize::try_from(second % BUCKETS as u64).unwrap_or(0)]
    }
}

/// The time an idle connection must have rested for its silent end to say nothing about the version.
pub(crate) fn was_stale(idle_for: Option<Duration>) -> bool {
    idle_for.is_some_and(|idle| idle >= switchback_config::defaults::STALE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE_CANARY: Failed = Failed {
        began: true,
        answered: false,
        is_failure: true,
        may_be_rescued: true,
        repeatable: true,
        rescue_allowed: true,
        may_go_on: false,
    };

    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    #[test]
    fn the_table_of_repetition() {
        let first = Tries {
            begun: 1,
            ..Tries::default()
        };
        let none = Tries::default();
        let stable = Failed {
            may_be_rescued: false,
            ..SAFE_CANARY
        };
        let unsafe_ = Failed {
            repeatable: false,
            rescue_allowed: false,
            ..SAFE_CANARY
        };
        for (name, failed, tries, expected) in [
            (
                "canary, safe, no answer",
                SAFE_CANARY,
                first,
                Repeat::Rescue,
            ),
            (
                "canary, safe, bad answer",
                Failed {
                    answered: true,
                    ..SAFE_CANARY
                },
                first,
                Repeat::Rescue,
            ),
            (
                "canary, safe, not sent",
                Failed {
                    began: false,
                    ..SAFE_CANARY
                },
                none,
                Repeat::Rescue,
            ),
            (
                "canary, no failure by its rules",
                Failed {
                    is_failure: false,
                    answered: true,
                    ..SAFE_CANARY
                },
                first,
                Repeat::No,
            ),
            (
                "canary, method not rescued",
                Failed {
                    rescue_allowed: false,
                    ..SAFE_CANARY
                },
                first,
                Repeat::Retry,
            ),
            ("stable, safe, no answer", stable, first, Repeat::Retry),
            (
                "stable, safe, bad answer",
                Failed {
                    answered: true,
                    ..stable
                },
                first,
                Repeat::No,
            ),
            ("unsafe, sent", unsafe_, first, Repeat::No),
            (
                "unsafe, not sent",
                Failed {
                    began: false,
                    ..unsafe_
                },
                none,
                Repeat::Retry,
            ),
            (
                "unsafe, not sent, retried",
                Failed {
                    began: false,
                    ..unsafe_
                },
                Tries {
                    retried: true,
                    ..none
                },
                Repeat::No,
            ),
            (
                "unsafe, unreached, retried, another endpoint",
                Failed {
                    began: false,
                    may_go_on: true,
                    ..unsafe_
                },
                Tries {
                    retried: true,
                    ..first
                },
                Repeat::GoOn,
            ),
            (
                "canary, unreached, another endpoint",
                Failed {
                    began: false,
                    may_go_on: true,
                    ..SAFE_CANARY
                },
                none,
                Repeat::Rescue,
            ),
            (
                "two attempts began, another endpoint",
                Failed {
                    may_go_on: true,
                    ..unsafe_
                },
                Tries { begun: 2, ..none },
                Repeat::No,
            ),
            (
                "two attempts began",
                SAFE_CANARY,
                Tries { begun: 2, ..none },
                Repeat::No,
            ),
            (
                "rescued before",
                Failed {
                    answered: true,
                    ..SAFE_CANARY
                },
                Tries {
                    rescued: true,
                    ..first
                },
                Repeat::No,
            ),
            (
                "retried in vain, then rescued",
                Failed {
                    began: false,
                    ..SAFE_CANARY
                },
                Tries {
                    retried: true,
                    ..first
                },
                Repeat::Rescue,
            ),
        ] {
            assert_eq!(decide(failed, tries), expected, "{name}");
        }
    }

    #[test]
    fn budget_is_a_share_of_recent_requests_but_at_least_three() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let share = Percent::from_millionths(200_000);
        let taken = |now| (0..1000).take_while(|_| budget.take(now, share)).count();
        assert_eq!(taken(start), 3);
        (0..100).for_each(|_| budget.note_request(start));
        assert_eq!(taken(start), 17);
        let later = start + Duration::from_secs(9);
        assert_eq!(taken(later), 0);
        assert_eq!(
            taken(start + Duration::from_secs(10)),
            3,
            "the window has moved on"
        );
        assert_eq!(taken(start + Duration::from_secs(500)), 3);
    }
}
