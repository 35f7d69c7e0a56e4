//! What a client's HTTP/2 connection is busy with, and whether the client still takes its part.
//!
//! hyper asks a response body for more only when the client has made room for it. A body that was asked
//! and gave something, but was not asked again for the write-stall time, is one whose client does not
//! read: the connection is cut, as it would be over HTTP/1. A body that waits for its endpoint is asked
//! and has nothing to give, so a slow endpoint is never held against the client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::timer::Timer;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_armed: Cell<bool>,
    /// Until when each response waits for the client to take what it gave.
    stalls: RefCell<Vec<Option<Instant>>>,
    vacant: RefCell<Vec<usize>>,
    /// When the stalls are looked at next, and who looks.
    look_at: Cell<Option<Instant>>,
    looker: RefCell<Option<Waker>>,
}

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Active {
    activity: Rc<Activity>,
    place: usize,
    /// How long the client may take nothing of the response.
    stall: Cell<Option<Duration>>,
}

impl Activity {
    /// Counts a request.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.requests.set(self.requests.get() + 1);
        self.active.set(self.active.get() + 1);
        self.idle_armed.set(false);
        let place = self.vacant.borrow_mut().pop().unwrap_or_else(|| {
            let mut stalls = self.stalls.borrow_mut();
            stalls.push(None);
            stalls.len() - 1
        });
        Active {
            activity: self.clone(),
            place,
            stall: Cell::new(None),
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

    /// Whether a client has not taken what some response gave for as long as it may. The task is woken
    /// when it has to ask again.
    pub(crate) fn poll_stalled(&self, cx: &Context<'_>, timer: &Timer) -> bool {
        let mut looker = self.looker.borrow_mut();
        if !looker
            .as_ref()
            .is_some_and(|looker| looker.will_wake(cx.waker()))
        {
            *looker = Some(cx.waker().clone());
        }
        loop {
            if self.look_at.get().is_some() && timer.poll_expired(cx).is_pending() {
                return false;
            }
            let first = self.first_stall();
            if first.is_some_and(|at| at <= timer.now()) {
                return true;
            }
            self.look_at.set(first);
            match first {
                Some(at) => timer.set_at(at),
                None => return false,
            }
        }
    }

    fn first_stall(&self) -> Option<Instant> {
        self.stalls.borrow().iter().flatten().min().copied()
    }

    fn note_stall(&self, place: usize, until: Option<Instant>) {
        self.stalls.borrow_mut()[place] = until;
        let is_next = until.is_some_and(|until| self.look_at.get().is_none_or(|at| until < at));
        if is_next && let Some(looker) = &*self.looker.borrow() {
            self.look_at.set(None);
            looker.wake_by_ref();
        }
    }
}

impl Active {
    /// How long the client may take nothing of the response.
    pub(crate) fn set_stall(&self, stall: Option<Duration>) {
        self.stall.set(stall);
    }

    /// The client has room for more.
    pub(crate) fn asked(&self) {
        self.activity.stalls.borrow_mut()[self.place] = None;
    }

    /// Something was given at this time.
    pub(crate) fn gave(&self, at: Instant) {
        let until = self.stall.get().map(|stall| at + stall);
        self.activity.note_stall(self.place, until);
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
        assert_eq!(
            activity.first_stall(),
            None,
            "without a limit nothing stalls"
        );
        one.set_stall(Some(5 * second));
        other.set_stall(Some(second));
        one.gave(start);
        assert_eq!(activity.first_stall(), Some(start + 5 * second));
        other.gave(start);
        assert_eq!(activity.first_stall(), Some(start + second));
        other.asked();
        assert_eq!(activity.first_stall(), Some(start + 5 * second));
        drop(one);
        assert_eq!(activity.first_stall(), None);
        assert_eq!(
            (activity.begin().place, activity.requests()),
            (0, 3),
            "places are used again"
        );
    }
}
