//! What was in force as of an earlier revision, worked out from the record.
//!
//! A revision only names the services and flags it changed, so each is looked for in others: its next
//! change tells what was before it, and without one it has not changed since. Both only hold if no
//! revision in between was dropped; where one may have been, nothing is claimed.

use std::collections::{BTreeMap, BTreeSet};

use switchback_config::model::{Flag, Name};

use super::{Change, FlagTurn, Revision, Settled};
use crate::state::ServiceState;

/// A service at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// What was recorded on top of the file.
    pub state: ServiceState,
    /// What both amounted to.
    pub in_force: Settled,
}

/// What the record says of something as of a revision: of a service, unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Then<M = Moment> {
    /// It was like this.
    Was(Box<M>),
    /// It is still as it was then.
    Unchanged(Box<M>),
    /// It was not there.
    Absent,
    /// The record does not reach so far back.
    Unknown,
}

impl<M> Then<M> {
    /// What it was, if it was there and is on record.
    #[must_use]
    pub fn moment(&self) -> Option<&M> {
        match self {
            Self::Was(moment) | Self::Unchanged(moment) => Some(moment),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// A recorded change of one thing.
trait Turn {
    /// The thing at one time.
    type Moment: Clone;
    /// What it was before; none: it was not there.
    fn was(&self) -> Option<Self::Moment>;
    /// What it is since.
    fn is(&self) -> Option<Self::Moment>;
    /// Whether nothing was changed between this and a later change.
    fn joins(&self, later: &Self) -> bool;
}

impl Turn for Change {
    type Moment = Moment;

    fn was(&self) -> Option<Moment> {
        before(self)
    }

    fn is(&self) -> Option<Moment> {
        after(self)
    }

    fn joins(&self, later: &Self) -> bool {
        self.in_force_after == later.in_force_before
    }
}

impl Turn for FlagTurn {
    type Moment = Flag;

    fn was(&self) -> Option<Flag> {
        self.in_force_before.clone()
    }

    fn is(&self) -> Option<Flag> {
        self.in_force_after.clone()
    }

    fn joins(&self, later: &Self) -> bool {
        self.in_force_after == later.in_force_before
    }
}

/// Revisions that are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The newest first.
    pub revisions: Vec<Revision>,
    /// From this number on none was dropped.
    pub complete_from: u64,
}

impl Record {
    /// Every service as of a revision, given what is in force now.
    #[must_use]
    pub fn as_of(&self, revision: u64, now: &BTreeMap<Name, Moment>) -> BTreeMap<Name, Then> {
        self.all_as_of(revision, now, |record| &record.changes)
    }

    /// Every flag as of a revision, given what is in force now.
    #[must_use]
    pub fn flags_as_of(
        &self,
        revision: u64,
        now: &BTreeMap<Name, Flag>,
    ) -> BTreeMap<Name, Then<Flag>> {
        self.all_as_of(revision, now, |record| &record.flags)
    }

    fn all_as_of<T: Turn>(
        &self,
        revision: u64,
        now: &BTreeMap<Name, T::Moment>,
        turns: impl Fn(&Revision) -> &BTreeMap<Name, T>,
    ) -> BTreeMap<Name, Then<T::Moment>> {
        let recorded = self.revisions.iter().flat_map(|r| turns(r).keys());
        let names: BTreeSet<&Name> = now.keys().chain(recorded).collect();
        let then = names.into_iter().map(|name| {
            let revisions = self.revisions.iter();
            let turns = revisions.filter_map(|r| Some((r.revision, turns(r).get(name)?)));
            let turns: Vec<(u64, &T)> = turns.collect();
            (
                name.clone(),
                self.one_as_of(revision, &turns, now.get(name)),
            )
        });
        then.collect()
    }

    /// One thing, given its changes, the newest first.
    fn one_as_of<T: Turn>(
        &self,
        revision: u64,
        turns: &[(u64, &T)],
        now: Option<&T::Moment>,
    ) -> Then<T::Moment> {
        let complete = revision.saturating_add(1) >= self.complete_from;
        let newest_until = turns.iter().find(|(number, _)| *number <= revision);
        let oldest_after = turns
            .iter()
            .take_while(|(number, _)| *number > revision)
            .last();
        match (newest_until, oldest_after) {
            (Some((number, turn)), _) if *number == revision => was(turn.is()),
            // A change in between is missing: one that never reached the disk.
            (Some((number, earlier)), Some((_, later)))
                if *number >= self.complete_from && !earlier.joins(later) =>
            {
                Then::Unknown
            }
            (_, Some((number, turn))) if complete || *number == revision.saturating_add(1) => {
                was(turn.was())
            }
            (_, None) if complete => match now {
                Some(moment) => Then::Unchanged(Box::new(moment.clone())),
                None => Then::Absent,
            },
            _ => Then::Unknown,
        }
    }
}

fn was<M>(moment: Option<M>) -> Then<M> {
    moment.map_or(Then::Absent, |moment| Then::Was(Box::new(moment)))
}

/// A service before a change; none: it was not configured.
#[must_use]
pub fn before(change: &Change) -> Option<Moment> {
    Some(Moment {
        state: change.before.clone(),
        in_force: change.in_force_before.clone()?,
    })
}

/// The same after it.
#[must_use]
pub fn after(change: &Change) -> Option<Moment> {
    Some(Moment {
        state: change.after.clone(),
        in_force: change.in_force_after.clone()?,
    })
}

#[cfg(test)]
mod tests;
