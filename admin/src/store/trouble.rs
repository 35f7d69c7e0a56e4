//! What keeps the state from being written, for those who ask how the process is.

use std::sync::{Mutex, PoisonError};

use super::Store;

/// What the last attempt to write the state came to.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    pub(super) fn note(&self, error: Option<&String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error.cloned();
    }

    pub(super) fn get(&self) -> Option<String> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }
}

impl Store {
    /// Why the last attempt to write the state failed; none if it did not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }
}
