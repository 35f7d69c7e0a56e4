//! What the control thread shares with other instances.
//!
//! The state here is the shared one ([`Sharing::base`]) with what was decided here and is not shared yet on
//! top ([`State::unshared`]). When others were first, what is on top is decided again on what they have
//! made of it: blocks come together, and a block of what is stable by now is a rollback, with the guards
//! of one.

mod joining;
mod rebase;

use std::collections::VecDeque;
use std::sync::Arc;

use switchback_config::model::{Config, Name};
use switchback_proxy::fence::Fence;
use tokio::sync::oneshot;

use super::{Keeper, Pending};
use crate::cluster::Joining;
use crate::cluster::wire::{ControlEnd, NEWS, News, NotAdded, Served};
use crate::cluster::{Entry, Recorded, Sealed, Unshared};
use crate::command::{Asked, Author, Command, Refusal, Urgent};
use crate::control::{Applied, Brought, Durable, Request, Shared};
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
    /// News that wait for the end of a hand-over.
    held: VecDeque<News>,
    /// Whether changes can be shared now.
    joined: bool,
    /// Whether canaries get nothing because nobody waits for this instance any more.
    isolated: bool,
    /// The change that is being added.
    flight: Option<Flight>,
    /// One that was under way when etcd was lost.
    lost: Option<Flight>,
    /// What is recorded of what is not shared yet, by the number it has here.
    records: VecDeque<(u64, Recorded)>,
    /// Who wants to know the number of what they asked for, by the number it has here.
    waiting: Vec<(u64, Waiter)>,
    /// The file has changed while nobody was running or could be told: overrides may have ended.
    file_changed: bool,
    /// What became of saying so.
    reconciled: Option<oneshot::Receiver<Result<Applied, Refusal>>>,
    /// Opens when the workers follow what is in force.
    fence: Option<Arc<Fence>>,
}

/// Hears the number of what was asked for, or why it does not hold.
type Waiter = oneshot::Sender<Result<u64, Refusal>>;

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
    pub(super) fn new(joining: Option<Joining>, file_changed: bool) -> Self {
        let Some(joining) = joining else {
            return Self::default();
        };
        joining.thread.send_replace(Some(std::thread::current()));
        Self {
            end: Some(joining.end),
            isolated: joining.isolated,
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
    fn number_of(&mut self, here: u64) -> oneshot::Receiver<Result<u64, Refusal>> {
        let (sender, receiver) = oneshot::channel();
        if self.joined {
            self.waiting.push((here, sender));
        }
        receiver
    }

    /// Tells those who wait the number of what is shared: all up to `here` are in revision `shared`.
    fn tell_shared(&mut self, here: u64, shared: u64) {
        for (_, sender) in self
            .waiting
            .extract_if(.., |(revision, _)| *revision <= here)
        {
            let _ = sender.send(Ok(shared));
        }
    }

    /// Tells those who wait for a number that what they asked for does not hold.
    fn tell_refused(&mut self, here: u64, refusal: &Refusal) {
        for (_, sender) in self
            .waiting
            .extract_if(.., |(revision, _)| *revision == here)
        {
            let _ = sender.send(Err(refusal.clone()));
        }
    }

    /// Forgets what is shared by now of what was in force here, up to a number.
    fn forget(&mut self, to: u64, unshared: &mut Vec<Unshared>) {
        unshared.retain(|unshared| unshared.revision > to);
        self.records.retain(|(revision, _)| *revision > to);
    }
}

impl Keeper {
    /// Takes in what the others have done.
    pub(super) fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Some(news) = self.next_news() {
            heard = true;
            match news {
                News::Joined {
                    shared,
                    missed,
                    follows,
                    regained,
                } => self.join(shared.map(|state| *state), missed, follows, regained),
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

    /// What to heed next. What another process decides while it takes over, it shares itself: news wait until
    /// that has ended, but for that canaries have to be closed. What is being added for this one is heard of.
    fn next_news(&mut self) -> Option<News> {
        let lent = self.lending.is_lent();
        if !lent && let Some(news) = self.sharing.held.pop_front() {
            return Some(news);
        }
        let end = self.sharing.end.as_ref()?;
        while self.sharing.held.len() < NEWS {
            match end.news.try_recv().ok()? {
                news @ News::Isolated(_) => return Some(news),
                news if lent => self.sharing.held.push_back(news),
                news => return Some(news),
            }
        }
        None
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

    /// Ends the overrides that a file has overtaken which changed while nobody was running.
    pub(super) fn reconcile(&mut self) {
        let answer = self.sharing.reconciled.take();
        match answer.map(|mut answer| answer.try_recv()) {
            None | Some(Ok(Ok(_))) => {}
            // Whatever kept it from being said passes.
            Some(_) => self.sharing.file_changed = true,
        }
        if !self.sharing.joined || !std::mem::take(&mut self.sharing.file_changed) {
            return;
        }
        let config = self.world.config.clone();
        let (reply, answer) = oneshot::channel();
        self.sharing.reconciled = Some(answer);
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
                self.sharing.forget(to, &mut self.world.state.unshared);
                self.sharing.tell_shared(to, change.head.revision);
                match flight.is_ordinary {
                    true => self.finish_shared(change, foreign),
                    false => self.have_shared(&change, &foreign),
                }
            }
            None => self.follow_others(&foreign),
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
            // What holds matters more than what is recorded of it.
            if !std::mem::take(&mut self.sharing.records).is_empty() {
                return self.propose_unshared();
            }
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
        if flight.as_ref().is_some_and(|flight| flight.is_ordinary)
            && let Some(pending) = self.pending.take()
        {
            self.refuse(pending.request, Refusal::ClusterUnknown);
        }
        // Should etcd be lost twice, the first one may still have been added.
        self.sharing.lost = flight.or(self.sharing.lost.take());
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
            isolated: self.sharing.isolated,
        });
    }
}

/// What to do on another state than a decision was made on: what it has blocked, or the command itself.
fn urgent_of(world: &World, command: &Command, decision: &Decision) -> Vec<Urgent> {
    let force = match command {
        Command::Rollback { force, .. }
        | Command::Block { force, .. }
        | Command::Condemn { force, .. }
        | Command::Unite { force, .. } => *force,
        _ => false,
    };
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
            force,
        }));
    }
    match (urgent.is_empty(), command) {
        // Where a rollback leads depends on where one stands.
        (true, Command::Rollback { .. }) => urgent,
        (true, command) => Urgent::of(command).into_iter().collect(),
        (false, _) => urgent,
    }
}

/// Whether a file has changed since the process last ran.
pub(super) fn has_changed(before: Option<&Arc<Config>>, now: &Arc<Config>) -> bool {
    before.is_some_and(|before| **before != **now)
}
