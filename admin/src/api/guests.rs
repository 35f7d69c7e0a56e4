//! Connections on which nobody has shown a valid token yet: they give way when there is no room.
//!
//! Anybody who reaches the address can open as many connections as there are places and say nothing.
//! So when all are taken, the oldest of these guests has to leave, and whoever has a token gets in; it
//! takes one request to be no guest any more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The guests, the oldest first. Never more than there are places.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<VecDeque<Arc<Notify>>>);

/// A connection's way to be told to leave.
#[derive(Clone, Debug)]
pub(crate) struct Guest(Arc<Notify>);

impl Guests {
    /// A new connection is a guest.
    pub(crate) fn enter(&self) -> Guest {
        let guest = Guest(Arc::default());
        self.lock().push_back(guest.0.clone());
        guest
    }

    /// It has ended, or somebody has shown a token on it.
    pub(crate) fn strike(&self, guest: &Guest) {
        self.lock().retain(|other| !Arc::ptr_eq(other, &guest.0));
    }

    /// Makes room, if there is a guest.
    pub(crate) fn send_one_away(&self) {
        if let Some(oldest) = self.lock().pop_front() {
            oldest.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Ready when it has to leave.
    pub(crate) async fn is_sent_away(&self) {
        self.0.notified().await;
    }
}
