//! Snapshots that are not in force any more, until nobody uses them.
//!
//! Taking a snapshot of ten thousand routes apart takes milliseconds, and whoever lets go of it last has to. That
//! must not be a worker with requests to answer.

use std::collections::VecDeque;
use std::sync::Arc;

/// Held at most; a request that waits for its response keeps the one it came in with.
const HELD_MAX: usize = 16;

/// What has been replaced, the oldest first.
#[derive(Debug)]
pub(super) struct Outgoing<T>(VecDeque<Arc<T>>);

impl<T> Default for Outgoing<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Outgoing<T> {
    /// Keeps one that is about to be replaced.
    pub(super) fn hold(&mut self, snapshot: Arc<T>) {
        if self.0.len() == HELD_MAX {
            self.0.pop_front();
        }
        self.0.push_back(snapshot);
    }

    /// Lets go of those that nobody else holds.
    pub(super) fn release(&mut self) {
        self.0.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_uses_is_let_go() {
        let mut outgoing = Outgoing::default();
        let used = Arc::new(0);
        let unused = Arc::new(0);
        let gone = Arc::downgrade(&unused);
        outgoing.hold(used.clone());
        outgoing.hold(unused);
        assert!(gone.upgrade().is_some());
        outgoing.release();
        assert!(gone.upgrade().is_none());
        let kept = Arc::downgrade(&used);
        drop(used);
        assert!(kept.upgrade().is_some());
        (0..HELD_MAX).for_each(|_| outgoing.hold(Arc::new(0)));
        assert!(kept.upgrade().is_none());
    }
}
