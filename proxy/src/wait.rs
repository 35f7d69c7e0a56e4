//! Waiting lines of one worker: requests that wait for a connection, and those to be told of a swap.
//!
//! Everything here is single-threaded. A [`Line`] wakes in the order of arrival, and hands a wake-up
//! on when the woken request has gone in the meantime, so that a free connection is never left
//! unused beside a waiting request. A [`Roster`] wakes everyone, in no order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

/// A first-come, first-served line of tasks.
#[derive(Debug, Default)]
pub(crate) struct Line {
    places: RefCell<VecDeque<Rc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A place in a [`Line`]; leaving it early is dropping it.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    line: &'a Line,
    slot: Rc<Slot>,
}

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Takes the last place.
    pub(crate) fn join(&self) -> Place<'_> {
        let slot = Rc::new(Slot::default());
        self.places.borrow_mut().push_back(slot.clone());
        Place { line: self, slot }
    }

    /// Calls the first one.
    pub(crate) fn call_next(&self) {
        let first = self.places.borrow_mut().pop_front();
        if let Some(slot) = first {
            slot.call();
        }
    }

    /// Calls everyone.
    pub(crate) fn call_all(&self) {
        let all = std::mem::take(&mut *self.places.borrow_mut());
        all.iter().for_each(|slot| slot.call());
    }
}

impl Slot {
    fn call(&self) {
        self.called.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Place<'_> {
    /// Whether this place was called; if not, the task is woken when it is.
    pub(crate) fn is_called(&self, cx: &Context<'_>) -> bool {
        if !self.slot.called.get() {
            let mut waker = self.slot.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        self.slot.called.get()
    }

    /// Leaves after having been called, to use what was called for.
    pub(crate) fn take_turn(self) {
        self.slot.called.set(false);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.slot.called.get() {
            self.line.call_next();
        } else {
            self.line
                .places
                .borrow_mut()
                .retain(|slot| !Rc::ptr_eq(slot, &self.slot));
        }
    }
}

/// Tasks that want to be woken together.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    wakers: RefCell<Vec<Option<Waker>>>,
    unused: RefCell<Vec<usize>>,
}

/// An entry in a [`Roster`], possibly not made yet.
#[derive(Debug, Default)]
pub(crate) struct Entry(Option<usize>);

impl Roster {
    /// Has the current task woken by [`Roster::wake_all`].
    pub(crate) fn enter(&self, entry: &mut Entry, cx: &Context<'_>) {
        let mut wakers = self.wakers.borrow_mut();
        let place = *entry.0.get_or_insert_with(|| {
            self.unused.borrow_mut().pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            })
        });
        if !wakers[place]
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            wakers[place] = Some(cx.waker().clone());
        }
    }

    /// Takes an entry back.
    pub(crate) fn leave(&self, entry: &mut Entry) {
        if let Some(place) = entry.0.take() {
            self.wakers.borrow_mut()[place] = None;
            self.unused.borrow_mut().push(place);
        }
    }

    /// Wakes everyone who has entered.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .wakers
            .borrow_mut()
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_called_in_order() {
        let line = Line::default();
        let cx = Context::from_waker(Waker::noop());
        let (first, second) = (line.join(), line.join());
        assert!(!first.is_called(&cx));
        line.call_next();
        assert!(first.is_called(&cx) && !second.is_called(&cx));
        first.take_turn();
        assert!(!second.is_called(&cx));
        line.call_all();
        assert!(second.is_called(&cx));
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn a_called_place_that_leaves_passes_the_call_on() {
        let line = Line::default();
        let cx = Context::from_waker(Waker::noop());
        let (first, second) = (line.join(), line.join());
        line.call_next();
        drop(first);
        assert!(second.is_called(&cx));
    }

    #[test]
    fn a_place_that_leaves_early_is_skipped() {
        let line = Line::default();
        let cx = Context::from_waker(Waker::noop());
        let (first, second) = (line.join(), line.join());
        drop(first);
        line.call_next();
        assert!(second.is_called(&cx));
    }
}
