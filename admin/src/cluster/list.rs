//! The list of changes: what it leads to, and whether it goes on from what an instance has.

use std::collections::BTreeSet;

use switchback_config::model::Name;

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
    /// Somebody has brought back what etcd had lost.
    pub(crate) regained: Option<Regained>,
}

/// A whole state in the list, and what was changed after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regained {
    /// The last change that whoever brought it had seen.
    pub(crate) knows: u64,
    /// Services that were changed since.
    pub(crate) services: BTreeSet<Name>,
    /// Flags that were changed since.
    pub(crate) flags: BTreeSet<Name>,
}

impl Regained {
    /// The last one in a list.
    fn last(log: &[Sealed]) -> Option<Self> {
        let place = log.iter().rposition(|sealed| sealed.entry.whole)?;
        let since = || log[place + 1..].iter().map(|sealed| &sealed.entry);
        Some(Self {
            knows: log[place].entry.knows,
            services: since()
                .flat_map(|entry| entry.services.keys().cloned())
                .collect(),
            flags: since()
                .flat_map(|entry| entry.flags.keys().cloned())
                .collect(),
        })
    }
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
        let regained = Regained::last(&log);
        let after = own.filter(|_| follows).map_or(0, |own| own.revision);
        log.retain(|sealed| sealed.head.revision > after);
        if !follows {
            log.drain(..log.len().saturating_sub(HISTORY));
        }
        Ok(Self {
            state: Some(state),
            missed: log,
            follows,
            regained,
        })
    }

    /// What the control thread is told.
    pub(crate) fn news(self) -> super::wire::News {
        super::wire::News::Joined {
            shared: self.state.map(Box::new),
            missed: self.missed,
            follows: self.follows,
            regained: self.regained,
        }
    }
}

/// Those of some changes that were not heard of before: a watch may tell of one twice.
pub(crate) fn unheard(mut known: u64, mut heard: Vec<Sealed>) -> Vec<Sealed> {
    heard.retain(|sealed| {
        let is_new = sealed.head.revision > known;
        known = known.max(sealed.head.revision);
        is_new
    });
    heard
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

/// Whether a list goes on from a head. What was removed from it, since it was too old, did; but a list may have
/// begun anew since, with higher numbers.
fn follows(own: &Head, head: &Head, log: &[Sealed]) -> bool {
    if own.revision >= head.revision {
        return own == head;
    }
    let same = log
        .iter()
        .find(|change| change.head.revision == own.revision);
    match same {
        Some(change) => change.head == *own,
        None => log.first().is_some_and(|first| {
            let is_later = first.head.revision > own.revision;
            is_later && first.entry.previous.is_some() && !first.entry.whole
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Entry;

    fn whole(revision: u64) -> Sealed {
        let state = State {
            revision,
            ..State::default()
        };
        let entry = Entry::whole(&"a".into(), None, &state);
        entry.seal().expect("JSON")
    }

    #[test]
    fn list_that_began_anew_does_not_go_on_from_what_an_instance_has() {
        let own = Head {
            revision: 30,
            hash: "something else".into(),
        };
        // Its numbers are above, since whoever began it was further.
        let first = whole(34);
        let list = List::read(Some(first.head.clone()), None, vec![first], Some(&own));
        let list = list.expect("a list");
        assert!(!list.follows);
        assert_eq!(list.regained, Some(Regained::default()));
    }
}
