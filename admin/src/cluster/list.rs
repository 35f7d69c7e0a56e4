//! The list of changes: what it leads to, and whether it goes on from what an instance has.

use super::{Head, Sealed};
use crate::state::State;

/// Changes that a newcomer takes into its history.
const HISTORY: usize = 100;

/// The list, as an instance reads it that joins.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// The state that it leads to; none: nothing was ever shared.
    pub(crate) state: Option<State>,
    /// The changes after the ones that the instance has.
    pub(crate) missed: Vec<Sealed>,
    /// Whether it goes on from what the instance has.
    pub(crate) follows: bool,
    /// What whoever brought the last change had seen, if it is a whole state.
    pub(crate) knows: Option<u64>,
}

impl List {
    /// Reads a list from a copy of the state on. `own`: the last change that the instance has.
    ///
    /// # Errors
    /// When it does not lead to its head.
    pub(crate) fn read(
        head: Option<Head>,
        checkpoint: Option<State>,
        mut log: Vec<Sealed>,
        own: Option<&Head>,
    ) -> Result<Self, String> {
        let Some(head) = head else {
            return Ok(Self::default());
        };
        let state = state_at(&head, checkpoint, &log)?;
        let follows = own.is_some_and(|own| follows(own, &head, &log));
        let last = log.last().map(|sealed| &sealed.entry);
        let knows = last.filter(|entry| entry.whole).map(|entry| entry.knows);
        let after = own.filter(|_| follows).map_or(0, |own| own.revision);
        log.retain(|sealed| sealed.head.revision > after);
        if !follows {
            log.drain(..log.len().saturating_sub(HISTORY));
        }
        Ok(Self {
            state: Some(state),
            missed: log,
            follows,
            knows,
        })
    }

    /// What the control thread is told.
    pub(crate) fn news(self) -> super::wire::News {
        super::wire::News::Joined {
            shared: self.state.map(Box::new),
            missed: self.missed,
            follows: self.follows,
            knows: self.knows,
        }
    }
}

/// The state after the last change.
fn state_at(head: &Head, checkpoint: Option<State>, log: &[Sealed]) -> Result<State, String> {
    let mut state = checkpoint.unwrap_or_default();
    let begins = state.shared.as_ref().map_or(0, |head| head.revision);
    for change in log.iter().filter(|change| change.head.revision > begins) {
        let last = state.shared.as_ref().map(|head| &head.hash);
        if change.entry.previous.as_ref() != last && !change.entry.whole {
            return Err(format!(
                "the list of changes in etcd is broken before {}",
                change.head.revision
            ));
        }
        change.entry.apply(&change.head, &mut state);
    }
    match state.shared.as_ref() == Some(head) {
        true => Ok(state),
        false => Err("the list of changes in etcd does not lead to its head".into()),
    }
}

/// Whether a list goes on from a head. What was removed from it, since it was too old, did.
fn follows(own: &Head, head: &Head, log: &[Sealed]) -> bool {
    if own.revision >= head.revision {
        return own == head;
    }
    let same = log
        .iter()
        .find(|change| change.head.revision == own.revision);
    match same {
        Some(change) => change.head == *own,
        None => log
            .first()
            .is_some_and(|first| first.head.revision > own.revision),
    }
}
