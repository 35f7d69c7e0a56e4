//! What was in force as of an earlier revision, worked out from the record.
//!
//! A revision only names the services it changed, so each service is looked for in others: its next
//! change tells what was before it, and without one it has not changed since. Both only hold if no
//! revision in between was dropped; where one may have been, nothing is claimed.

use std::collections::{BTreeMap, BTreeSet};

use switchback_config::model::Name;

use super::{Change, Revision, Settled};
use crate::state::ServiceState;

/// A service at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// What was recorded on top of the file.
    pub state: ServiceState,
    /// What both amounted to.
    pub in_force: Settled,
}

/// What the record says of a service as of a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// It was like this.
    Was(Box<Moment>),
    /// It is still as it was then.
    Unchanged(Box<Moment>),
    /// It was not configured.
    Absent,
    /// The record does not reach so far back.
    Unknown,
}

impl Then {
    /// The service, if it was configured and is on record.
    #[must_use]
    pub fn moment(&self) -> Option<&Moment> {
        match self {
            Self::Was(moment) | Self::Unchanged(moment) => Some(moment),
            Self::Absent | Self::Unknown => None,
        }
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
        let recorded = self.revisions.iter().flat_map(|r| r.changes.keys());
        let names: BTreeSet<&Name> = now.keys().chain(recorded).collect();
        let then = names
            .into_iter()
            .map(|name| (name.clone(), self.service_as_of(revision, name, now)));
        then.collect()
    }

    fn service_as_of(&self, revision: u64, name: &Name, now: &BTreeMap<Name, Moment>) -> Then {
        let complete = revision.saturating_add(1) >= self.complete_from;
        let changes = || {
            let revisions = self.revisions.iter();
            revisions.filter_map(|r| Some((r.revision, r.changes.get(name)?)))
        };
        let newest_until = changes().find(|(number, _)| *number <= revision);
        let oldest_after = changes()
            .take_while(|(number, _)| *number > revision)
            .last();
        match (newest_until, oldest_after) {
            (Some((number, change)), _) if number == revision => was(after(change)),
            // A change in between is missing: one that never reached the disk.
            (Some((number, earlier)), Some((_, later)))
                if number >= self.complete_from
                    && earlier.in_force_after != later.in_force_before =>
            {
                Then::Unknown
            }
            (_, Some((number, change))) if complete || number == revision.saturating_add(1) => {
                was(before(change))
            }
            (_, None) if complete => match now.get(name) {
                Some(moment) => Then::Unchanged(Box::new(moment.clone())),
                None => Then::Absent,
            },
            _ => Then::Unknown,
        }
    }
}

fn was(moment: Option<Moment>) -> Then {
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
