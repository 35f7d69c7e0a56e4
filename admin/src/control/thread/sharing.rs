//! What the control thread shares with other instances.
//!
//! The state here is the shared one ([`Sharing::base`]) with what was decided here and is not shared yet on
//! top ([`State::unshared`]). When others were first, what is on top is decided again on what they have
//! made of it: blocks come together, and a block of what is stable by now is a rollback, with the guards
//! of one.

mod rebase;

use std::collections::VecDeque;
use std::sync::Arc;

use switchback_config::model::{Config, Name};
use switchback_proxy::fence::Fence;
use tokio::sync::oneshot;

use super::{Keeper, Pending};
use crate::cluster::wire::{ControlEnd, News, NotAdded, Served};
use crate::cluster::{Entry, Recorded, Sealed, Unshared};
use crate::command::{Asked, Author, Command, Refusal, Urgent};
use crate::control::{Brought, Durable, Request, Shared};
use crate::controller::{Decision, World};
use crate::drill::shadow::is_shadow;
use crate::state::State;
use crate::store::Commit;

/// The place of this instance among others.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// The way to them; none: there are no others.
    end: Option<ControlEnd>,
    /// What all share; none: not heard of yet.
    base: Option<State>,
    /// Whether changes can be shared now.
    joined: bool,
    /// Whether canaries get nothing because nobody waits for this instance any more.
    isolated: bool,
    /// The change that is being added.
    flight: Option<Flight>,
    /// What is recorded of what is not shared yet, by the number it has here.
    records: VecDeque<(u64, Recorded)>,
    /// Who wants to know the number of what they asked for, by the number it has here.
    waiting: Vec<(u64, oneshot::Sender<u64>)>,
    /// The file has changed while nobody was running: overrides may have ended.
    file_changed: bool,
    /// Opens when the workers follow what is in force.
    fence: Option<Arc<Fence>>,
}

#[derive(Debug)]
struct Flight {
    hash: String,
    /// What is in force here is in it up to this revision.
    to: u64,
    /// Whether there is an ordinary change in it, too.
    is_ordinary: bool,
}

/// How an ordinary change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody else has to know.
    Alone,
    /// It is shared first.
    Shared,
    /// The others cannot be told.
    Away,
}

impl Sharing {
    pub(super) fn new(end: Option<ControlEnd>, file_changed: bool) -> Self {
        Self {
            end,
            file_changed,
            ..Self::default()
        }
    }

    pub(super) const fn is_isolated(&self) -> bool {
        self.isolated
    }

    pub(super) const fn way(&self) -> Way {
        match (&self.end, self.joined) {
            (None, _) => Way::Alone,
            (Some(_), true) => Way::Shared,
            (Some(_), false) => Way::Away,
        }
    }

    /// Whether nothing is being added.
    pub(super) const fn is_settled(&self) -> bool {
        self.flight.is_none()
    }

    pub(super) fn note_fence(&mut self, fence: &Arc<Fence>) {
        self.fence = Some(fence.clone());
    }

    /// What a new file ends is said when the others can be told.
    pub(super) const fn note_file_changed(&mut self) {
        self.file_changed = true;
    }

    fn instance(&self) -> Name {
        let end = self.end.as_ref();
        end.map(|end| end.instance.clone()).unwrap_or_default()
    }

    /// Under which number something is shared that has this one here. Nobody is kept waiting for etcd.
    fn number_of(&mut self, here: u64) -> oneshot::Receiver<u64> {
        let (sender, receiver) = oneshot::channel();
        if self.joined {
            self.waiting.push((here, sender));
        }
        receiver
    }

    /// Tells those who wait the number of what is shared: all up to `here` are in revision `shared`.
    fn tell_shared(&mut self, here: u64, shared: u64) {
        let waiting = std::mem::take(&mut self.waiting);
        for (revision, sender) in waiting {
            match revision <= here {
                true => drop(sender.send(shared)),
                false => self.waiting.push((revision, sender)),
            }
        }
    }
}

impl Keeper {
    /// Takes in what the others have done.
    pub(super) fn hear(&mut self) -> bool {
        let mut heard = false;
        // What another process decides while it takes over, it shares itself. What is being added for this
        // one is waited for.
        while !self.lending.is_lent() {
            let news = self.sharing.end.as_ref();
            let Some(news) = news.and_then(|end| end.news.try_recv().ok()) else {
                break;
            };
            heard = true;
            match news {
                News::Joined {
                    shared,
                    missed,
                    follows,
                    knows,
                } => self.join(shared.map(|state| *state), &missed, follows, knows),
                News::Changes(changes) => self.take_in(changes),
                News::Refused { hash, why } => self.heed_refusal(&hash, &why),
                News::Away => self.be_away(),
                News::Isolated(isolated) => self.isolate(isolated),
                News::Judges(judges) => {
                    self.observer.share_promise(judges);
                    let decision = Decision::nothing(&self.world);
                    self.carry_out(&decision, self.world.state.revision, true);
                }
            }
        }
        heard
    }

    /// Notes that something was decided here which the others have to know. What to do about it on another
    /// state are the blocks that it made.
    pub(super) fn note_unshared(
        &mut self,
        (command, asked): (&Command, &Asked),
        decision: &Decision,
        revision: u64,
    ) {
        if self.sharing.end.is_none() {
            return;
        }
        let urgent = urgent_of(&self.world, command, decision);
        self.world.state.unshared.push(Unshared {
            revision,
            urgent,
            author: Author::of(asked),
        });
    }

    /// Tells the others, as soon as it can, about what [`Keeper::note_unshared`] has noted.
    pub(super) fn share(&mut self, commit: &Commit) -> Shared {
        if self.sharing.end.is_none() || self.lending.is_under_way() {
            return Shared::Alone;
        }
        let recorded = Recorded {
            revision: commit.revision.clone(),
            audit: commit.audit.clone(),
        };
        let revision = commit.state.revision;
        self.sharing.records.push_back((revision, recorded));
        let number = self.sharing.number_of(revision);
        self.propose_unshared();
        Shared::UnderWay(number)
    }

    /// Whether the others know of what is in force here.
    pub(super) fn shared_so_far(&mut self) -> Shared {
        let Some(head) = &self.world.state.shared else {
            return Shared::Alone;
        };
        if self.sharing.end.is_none() {
            return Shared::Alone;
        }
        if self.world.state.unshared.is_empty() {
            return Shared::Known(head.revision);
        }
        Shared::UnderWay(self.sharing.number_of(self.world.state.revision))
    }

    /// Has everything added that is in force here and not shared yet.
    pub(super) fn propose_unshared(&mut self) {
        let Some(base) = self.sharing.base.as_ref() else {
            return;
        };
        let is_free = self.sharing.joined && self.sharing.flight.is_none();
        if !is_free || self.lending.is_under_way() || self.world.state.unshared.is_empty() {
            return;
        }
        let records = self.sharing.records.iter();
        let records = records.map(|(_, recorded)| recorded.clone()).collect();
        let entry = Entry::between(&self.sharing.instance(), base, &self.world.state, records);
        self.propose(entry, self.world.state.revision, false);
    }

    /// Has an ordinary change added; [`Keeper::take_in`] carries it out.
    pub(super) fn propose_ordinary(&mut self, pending: Pending, commit: &Commit) {
        let Some(base) = self.sharing.base.as_ref() else {
            return self.refuse(pending.request, Refusal::ClusterAway);
        };
        let recorded = Recorded {
            revision: commit.revision.clone(),
            audit: commit.audit.clone(),
        };
        let records = self.sharing.records.iter();
        let records = records.map(|(_, recorded)| recorded.clone());
        let records = records.chain([recorded]).collect();
        let instance = self.sharing.instance();
        let entry = Entry::between(&instance, base, &commit.state, records);
        let to = pending.base;
        self.pending = Some(Box::new(pending));
        self.propose(entry, to, true);
    }

    fn propose(&mut self, entry: Entry, to: u64, is_ordinary: bool) {
        let sealed = match entry.seal() {
            Ok(sealed) => sealed,
            Err(error) => return tracing::error!(%error, "write a change for the cluster"),
        };
        self.sharing.flight = Some(Flight {
            hash: sealed.head.hash.clone(),
            to,
            is_ordinary,
        });
        let end = self.sharing.end.as_ref();
        // There is always a place while the link is up.
        if end.is_none_or(|end| end.proposals.try_send(sealed).is_err()) {
            self.be_away();
        }
    }

    /// The link is up.
    fn join(
        &mut self,
        shared: Option<State>,
        missed: &[Sealed],
        follows: bool,
        knows: Option<u64>,
    ) {
        self.sharing.joined = true;
        self.sharing.flight = None;
        let own = self.world.state.clone();
        let own_head = own.shared.clone();
        let known = own_head.as_ref().map_or(0, |head| head.revision);
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
            None => self.bring_back(State::default(), own),
            Some(shared) if !follows && known > knows.unwrap_or(shared.revision) => {
                self.bring_back(shared, own);
            }
            Some(shared) => {
                let united = match follows {
                    true => Vec::new(),
                    false => blocks_beside(&own, &shared),
                };
                self.world.state.unshared.extend(united);
                self.sharing.base = Some(shared);
                self.rebase(missed);
                self.propose_unshared();
            }
        }
    }

    /// Shares everything that is known here, with the blocks of what is there.
    fn bring_back(&mut self, there: State, own: State) {
        let revision = self.numbered.max(there.revision).max(own.revision) + 1;
        self.numbered = revision;
        let mut merged = own;
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

    /// Ends the overrides that a file has overtaken which changed while nobody was running.
    pub(super) fn reconcile(&mut self) {
        if !self.sharing.joined || !std::mem::take(&mut self.sharing.file_changed) {
            return;
        }
        let config = self.world.config.clone();
        let (reply, _) = oneshot::channel();
        self.serve_ordinary(Request {
            command: Command::Reload { config },
            asked: Asked::by_itself("start", None),
            brought: Brought::default(),
            record: None,
            reply,
        });
    }

    /// Changes were added, here or elsewhere. Where one of them is a whole state, what is in force here is put on
    /// top of that, not of what came after it: that may have undone it on purpose.
    fn take_in(&mut self, changes: Vec<Sealed>) {
        let mut some = Vec::new();
        for change in changes {
            let is_whole = change.entry.whole;
            some.push(change);
            if is_whole {
                self.take_in_some(std::mem::take(&mut some));
            }
        }
        if !some.is_empty() {
            self.take_in_some(some);
        }
        self.propose_unshared();
    }

    fn take_in_some(&mut self, changes: Vec<Sealed>) {
        let Some(base) = &mut self.sharing.base else {
            return;
        };
        let mut foreign = Vec::new();
        let mut own = None;
        for change in changes {
            change.entry.apply(&change.head, base);
            let flight = self.sharing.flight.take();
            match flight {
                Some(flight) if flight.hash == change.head.hash => own = Some((flight, change)),
                flight => {
                    self.sharing.flight = flight;
                    foreign.push(change);
                }
            }
        }
        match own {
            Some((flight, change)) => {
                let to = flight.to;
                self.world
                    .state
                    .unshared
                    .retain(|unshared| unshared.revision > to);
                self.sharing.records.retain(|(revision, _)| *revision > to);
                self.sharing.tell_shared(to, change.head.revision);
                match flight.is_ordinary {
                    true => self.finish_shared(change, foreign),
                    false => self.have_shared(&change, &foreign),
                }
            }
            None => self.follow_others(&foreign),
        }
    }

    /// Others have changed something. One that has brought back what etcd had lost may know less than this one.
    fn follow_others(&mut self, foreign: &[Sealed]) {
        let own = self.world.state.shared.as_ref();
        let known = own.map_or(0, |head| head.revision);
        let last = foreign.last().map(|change| &change.entry);
        let knows_less = last.is_some_and(|entry| entry.whole && entry.knows < known);
        match self.sharing.base.clone().filter(|_| knows_less) {
            Some(base) => self.bring_back(base, self.world.state.clone()),
            None => self.rebase(foreign),
        }
    }

    /// What was in force here is shared now.
    fn have_shared(&mut self, change: &Sealed, foreign: &[Sealed]) {
        if foreign.is_empty() && !change.entry.whole {
            self.world.state.shared = Some(change.head.clone());
            self.persist_state();
            self.tell_served();
        } else {
            self.rebase(foreign);
        }
    }

    /// An ordinary change is shared: it is carried out.
    fn finish_shared(&mut self, change: Sealed, mut foreign: Vec<Sealed>) {
        let shared = change.head.clone();
        let Some(pending) = self.pending.take() else {
            foreign.push(change);
            return self.rebase(&foreign);
        };
        let Pending {
            mut request,
            decision,
            revision,
            base,
        } = *pending;
        self.take_over(std::mem::take(&mut request.brought));
        let new_routes = matches!(request.command, Command::Reload { .. } | Command::Drill(_));
        let before = self.world.clone();
        let fence = if base == before.state.revision && foreign.is_empty() {
            self.world.state.shared = Some(shared.clone());
            let fence = self.carry_out(&decision, revision, new_routes);
            let (command, asked) = (&request.command, &request.asked);
            let mut commit = self.commit(&before, command, asked, &decision, revision, true);
            commit.state = Arc::new(self.world.state.clone());
            // As everybody records it.
            if let Some(recorded) = change.entry.records.last() {
                commit.revision = recorded.revision.clone();
                commit.audit = recorded.audit.clone();
            }
            self.store.commit(commit, Box::new(|_| ()));
            self.tell_served();
            Some(fence)
        } else {
            // Something was rolled back here meanwhile: that stays on top.
            foreign.push(change);
            self.world.config = decision.config.clone();
            self.rebase_with(&foreign, new_routes);
            self.sharing.fence.clone()
        };
        self.tell(&decision, &request.asked, Some(revision));
        let mut applied = self.applied(decision.notes, fence, Durable::Known(true));
        applied.shared = Shared::Known(shared.revision);
        let _ = request.reply.send(Ok(applied));
    }

    fn heed_refusal(&mut self, hash: &str, why: &NotAdded) {
        let is_ours = |flight: &mut Flight| flight.hash == hash;
        let Some(flight) = self.sharing.flight.take_if(is_ours) else {
            return;
        };
        if flight.is_ordinary
            && let Some(pending) = self.pending.take()
        {
            match why {
                NotAdded::Second => self.finish_overtaken(*pending),
                NotAdded::TooLong(bytes) => {
                    self.refuse(pending.request, Refusal::ClusterTooLong(*bytes));
                }
            }
        } else if let NotAdded::TooLong(bytes) = why {
            let message =
                format!("a change of {bytes} bytes does not fit into etcd; it stays here");
            self.tell_cluster("cluster_refused", &message);
            return;
        }
        self.propose_unshared();
    }

    fn be_away(&mut self) {
        self.sharing.joined = false;
        let flight = self.sharing.flight.take();
        if flight.is_some_and(|flight| flight.is_ordinary)
            && let Some(pending) = self.pending.take()
        {
            self.refuse(pending.request, Refusal::ClusterUnknown);
        }
        // Nobody is kept waiting for etcd.
        self.sharing.waiting.clear();
    }

    fn isolate(&mut self, isolated: bool) {
        if std::mem::replace(&mut self.sharing.isolated, isolated) == isolated {
            return;
        }
        let message = match isolated {
            true => {
                "no sign of life of etcd for half a lease: canaries have weight 0 here until it is back"
            }
            false => "etcd is back: canaries have their weights again here",
        };
        self.tell_cluster("cluster_isolated", message);
        let decision = Decision::nothing(&self.world);
        self.carry_out(&decision, self.world.state.revision, true);
        self.tell_served();
    }

    fn tell_cluster(&self, kind: &'static str, message: &str) {
        self.events
            .emit(kind, None, "cluster", message.to_owned(), None);
    }

    /// Lets the others know what is served here.
    pub(super) fn tell_served(&self) {
        let Some(end) = &self.sharing.end else { return };
        end.served.send_replace(Served {
            head: self.world.state.shared.clone(),
            fence: self.sharing.fence.clone(),
        });
    }
}

/// What to do on another state than a decision was made on: what it has blocked, or the command itself.
fn urgent_of(world: &World, command: &Command, decision: &Decision) -> Vec<Urgent> {
    let mut urgent = Vec::new();
    for (name, after) in &decision.services {
        let before = world.state.services.get(name);
        let blocked = after.blocked.iter();
        let is_new =
            |version: &String| before.is_none_or(|state| !state.blocked.contains_key(version));
        let blocked = blocked.filter(|(version, _)| !is_shadow(name) && is_new(version));
        urgent.extend(blocked.map(|(version, block)| Urgent::Unite {
            service: name.clone(),
            version: version.clone(),
            block: Box::new(block.clone()),
        }));
    }
    match (urgent.is_empty(), command) {
        // Where a rollback leads depends on where one stands.
        (true, Command::Rollback { .. }) => urgent,
        (true, command) => Urgent::of(command).into_iter().collect(),
        (false, _) => urgent,
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
                }],
                author: Author::of(&asked),
            });
        }
    }
    beside
}

/// Whether a file has changed since the process last ran.
pub(super) fn has_changed(before: Option<&Arc<Config>>, now: &Arc<Config>) -> bool {
    before.is_some_and(|before| **before != **now)
}
