//! The body of a request that is copied, collected while it is sent to stable.
//!
//! The upload that sends it and the copy that needs it hold the same one. It is of use only when it
//! is whole: a body that grew too large, that broke off or that had trailers is given up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

/// A request body being collected.
#[derive(Debug)]
pub(crate) struct BodyCopy {
    bytes: RefCell<Vec<u8>>,
    bytes_max: usize,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Growing,
    Whole,
    Useless,
}

impl BodyCopy {
    /// Nothing yet; more than `bytes_max` will be too much.
    pub(crate) fn new(bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            bytes: RefCell::new(Vec::new()),
            bytes_max,
            state: Cell::new(State::Growing),
        })
    }

    /// Takes over a piece.
    pub(crate) fn add(&self, piece: &[u8]) {
        if self.state.get() != State::Growing {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + piece.len() > self.bytes_max {
            *bytes = Vec::new();
            self.state.set(State::Useless);
        } else {
            bytes.extend_from_slice(piece);
        }
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        if self.state.get() == State::Growing {
            self.state.set(State::Whole);
        }
    }

    /// It has something that is not copied.
    pub(crate) fn give_up(&self) {
        *self.bytes.borrow_mut() = Vec::new();
        self.state.set(State::Useless);
    }

    /// It is sent once more, from its beginning.
    pub(crate) fn begin_again(&self) {
        if self.state.get() != State::Useless {
            self.bytes.borrow_mut().clear();
            self.state.set(State::Growing);
        }
    }

    /// The body, if it is whole.
    pub(crate) fn take(&self) -> Option<Bytes> {
        let bytes = std::mem::take(&mut *self.bytes.borrow_mut());
        (self.state.replace(State::Useless) == State::Whole).then(|| bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_given_when_it_is_whole() {
        let body = BodyCopy::new(5);
        body.add(b"abc");
        body.add(b"de");
        body.end();
        assert_eq!(body.take().as_deref(), Some(&b"abcde"[..]));
        assert_eq!(body.take(), None, "once");
        let empty = BodyCopy::new(0);
        empty.end();
        assert_eq!(empty.take(), Some(Bytes::new()));
    }

    #[test]
    fn body_that_is_larger_broken_off_or_given_up_is_not_given() {
        let larger = BodyCopy::new(5);
        larger.add(b"abc");
        larger.add(b"def");
        larger.end();
        assert_eq!(larger.take(), None);
        let broken = BodyCopy::new(5);
        broken.add(b"abc");
        assert_eq!(broken.take(), None);
        let given_up = BodyCopy::new(5);
        given_up.add(b"abc");
        given_up.give_up();
        given_up.end();
        given_up.begin_again();
        given_up.end();
        assert_eq!(given_up.take(), None);
    }

    #[test]
    fn body_that_is_sent_again_is_collected_anew() {
        let body = BodyCopy::new(5);
        body.add(b"abcd");
        body.begin_again();
        body.add(b"abcd");
        body.end();
        assert_eq!(body.take().as_deref(), Some(&b"abcd"[..]));
    }
}
