//! What a client's HTTP/2 connection is busy with, and whether the client still takes its part.
//!
//! hyper asks a response body for more only when the client has made room for it. A body that was asked
//! and gave something, but was not asked again for the write-stall time, is one whose client does not
//! read: the connection is cut, as it would be over HTTP/1. A body that waits for its endpoint is asked
//! and has nothing to give, so a slow endpoint is never held against the client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::timer::Timer;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_armed: Cell<bool>,
    /// When each response last gave something that the client has not taken since.
    handed: RefCell<Vec<Option<Instant>>>,
    vacant: RefCell<Vec<usize>>,
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Active {
    activity: Rc<Activity>,
    place: usize,
}

impl Activity {
    /// Counts a request.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.requests.set(self.requests.get() + 1);
        self.active.set(self.active.get() + 1);
        self.idle_armed.set(false);
        let place = self.vacant.borrow_mut().pop().unwrap_or_else(|| {
            let mut handed = self.handed.borrow_mut();
            handed.push(None);
            handed.len() - 1
        });
        Active {
            activity: self.clone(),
            place,
        }
    }

    /// Requests so far.
    pub(crate) const fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Whether nothing is under way.
    pub(crate) const fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Whether nothing has been under way for the keep-alive time.
    pub(crate) fn poll_idle(
        &self,
        cx: &Context<'_>,
        timer: &Timer,
        keep_alive: Option<Duration>,
    ) -> bool {
        if self.active.get() > 0 {
            timer.clear();
            return false;
        }
        if !self.idle_armed.replace(true) {
            timer.set(keep_alive);
        }
        timer.poll_expired(cx).is_ready()
    }

    /// Whether a client has not taken what some response gave before `since`.
    pub(crate) fn has_stalled(&self, since: Instant) -> bool {
        let handed = self.handed.borrow();
        handed.iter().flatten().any(|at| *at <= since)
    }
}

impl Active {
    /// The client has room for more.
    pub(crate) fn asked(&self) {
        self.activity.handed.borrow_mut()[self.place] = None;
    }

    /// Something was given at this time.
    pub(crate) fn gave(&self, at: Instant) {
        self.activity.handed.borrow_mut()[self.place] = Some(at);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.asked();
        self.activity.active.set(self.activity.active.get() - 1);
        self.activity.vacant.borrow_mut().push(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_and_not_asked_for_again_is_a_stall() {
        let activity = Rc::new(Activity::default());
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let (one, other) = (activity.begin(), activity.begin());
        one.gave(start);
        other.gave(start + 2 * second);
        assert!(activity.has_stalled(start) && activity.has_stalled(start + second));
        one.asked();
        assert!(!activity.has_stalled(start + second));
        drop(other);
        assert!(!activity.has_stalled(start + 9 * second));
        assert_eq!(
            (activity.begin().place, activity.requests()),
            (1, 3),
            "places are used again"
        );
    }
}
