//! What becomes of the state here and of the shared one when the link comes up, and when somebody brings back
//! what etcd had lost.

use std::sync::Arc;

use super::Keeper;
use crate::cluster::list::Regained;
use crate::cluster::{Entry, Sealed, Unshared};
use crate::command::{Asked, Author, Urgent};
use crate::state::State;

impl Keeper {
    /// The link is up.
    pub(super) fn join(
        &mut self,
        shared: Option<State>,
        mut missed: Vec<Sealed>,
        follows: bool,
        regained: Option<Regained>,
    ) {
        self.sharing.joined = true;
        self.sharing.flight = None;
        let own = self.world.state.clone();
        let own_head = own.shared.clone();
        let known = own_head.as_ref().map_or(0, |head| head.revision);
        let knows = regained.as_ref().map(|regained| regained.knows);
        let regained = regained.unwrap_or_default();
        let message = match (&shared, follows) {
            (None, _) => "this instance brings the state to the cluster",
            (Some(_), true) => "this instance has joined the cluster",
            (Some(shared), false) if known > knows.unwrap_or(shared.revision) => {
                "etcd has lost changes that this instance knows; they are brought back"
            }
            (Some(_), false) => {
                "the state of the cluster is in force here, with the blocks of this instance"
            }
        };
        self.tell_cluster("cluster_joined", message);
        match shared {
            // Nothing is there, or less than this instance has seen.
            None => self.bring_back(State::default(), own, &regained),
            Some(shared) if !follows && known > knows.unwrap_or(shared.revision) => {
                self.bring_back(shared, own, &regained);
            }
            Some(shared) => {
                let united = match follows {
                    true => Vec::new(),
                    false => blocks_beside(&own, &shared),
                };
                self.world.state.unshared.extend(united);
                self.find_lost(&mut missed);
                self.sharing.base = Some(shared);
                self.rebase(&missed);
                self.propose_unshared();
            }
        }
    }

    /// What was being added when etcd was lost may have been added: then it is shared.
    fn find_lost(&mut self, missed: &mut Vec<Sealed>) {
        let Some(lost) = self.sharing.lost.take() else {
            return;
        };
        let Some(place) = missed
            .iter()
            .position(|change| change.head.hash == lost.hash)
        else {
            return;
        };
        self.sharing.forget(lost.to, &mut self.world.state.unshared);
        if !lost.is_ordinary {
            // It was noted here when it was decided.
            missed.remove(place);
        }
    }

    /// Shares everything that is known here, with the blocks of what is there, and with what was changed there
    /// since somebody else has brought back what they knew.
    fn bring_back(&mut self, there: State, own: State, regained: &Regained) {
        let revision = self.numbered.max(there.revision).max(own.revision) + 1;
        self.numbered = revision;
        let mut merged = own;
        for name in &regained.services {
            let mut newer = there.services.get(name).cloned().unwrap_or_default();
            let blocked = merged.services.get(name).map(|own| own.blocked.clone());
            newer.blocked.extend(blocked.unwrap_or_default());
            merged.services.insert(name.clone(), newer);
        }
        for (name, flag) in there.flags.iter() {
            if flag.off.is_some() || regained.flags.contains(name) {
                Arc::make_mut(&mut merged.flags).insert(name.clone(), flag.clone());
            }
        }
        for (name, service) in &there.services {
            let into = merged.services.entry(name.clone()).or_default();
            for (version, block) in &service.blocked {
                let kept = into.blocked.entry(version.clone());
                kept.or_insert_with(|| block.clone());
            }
        }
        // Should another instance be first, at least the blocks of this one are put on top.
        self.world
            .state
            .unshared
            .extend(blocks_beside(&merged, &there));
        merged.revision = revision;
        let entry = Entry::whole(&self.sharing.instance(), there.shared.as_ref(), &merged);
        self.sharing.base = Some(there);
        self.propose(entry, revision, false);
    }

    /// Others have changed something. One that has brought back what etcd had lost may know less than this one.
    pub(super) fn follow_others(&mut self, foreign: &[Sealed]) {
        let own = self.world.state.shared.as_ref();
        let known = own.map_or(0, |head| head.revision);
        let last = foreign.last().map(|change| &change.entry);
        let knows_less = last.is_some_and(|entry| entry.whole && entry.knows < known);
        match self.sharing.base.clone().filter(|_| knows_less) {
            Some(base) => {
                let own = self.world.state.clone();
                self.bring_back(base, own, &Regained::default());
            }
            None => self.rebase(foreign),
        }
    }
}

/// The blocks of one state that another does not have.
fn blocks_beside(own: &State, shared: &State) -> Vec<Unshared> {
    let mut beside = Vec::new();
    for (name, service) in &own.services {
        let there = shared.services.get(name);
        for (version, block) in &service.blocked {
            if there.is_some_and(|there| there.blocked.contains_key(version)) {
                continue;
            }
            let asked = Asked::by_itself("cluster", block.reason.clone());
            beside.push(Unshared {
                revision: own.revision,
                urgent: vec![Urgent::Unite {
                    service: name.clone(),
                    version: version.clone(),
                    block: Box::new(block.clone()),
                    force: false,
                }],
                author: Author::of(&asked),
            });
        }
    }
    beside
}
