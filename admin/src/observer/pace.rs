//! Keeps the limit up to date from which on requests are slow, where it follows stable's times.

use std::sync::Arc;
use std::time::Duration;

use switchback_config::model::Slow;
use switchback_judge::UsualTimes;
use switchback_proxy::slow::{SlowLimit, longest};

/// The times of one service's stable version.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Arc<SlowLimit>,
    usual: UsualTimes,
}

impl Pace {
    /// Looks after a limit; none if it is fixed. `before`: the one looked after so far.
    pub(super) fn follow(
        before: Option<Self>,
        limit: &Arc<SlowLimit>,
        now: Duration,
    ) -> Option<Self> {
        let Slow::Stable(share) = limit.setting() else {
            return None;
        };
        let same = before.filter(|before| Arc::ptr_eq(&before.limit, limit));
        same.or_else(|| {
            Some(Self {
                limit: limit.clone(),
                usual: UsualTimes::new(share, now),
            })
        })
    }

    /// Moves the limit, once a second.
    pub(super) fn tick(&mut self, now: Duration) {
        if let Some(times) = self.limit.times()
            && let Some(bin) = self.usual.refresh(now, times.counts())
        {
            self.limit.set(longest(bin));
        }
    }
}
