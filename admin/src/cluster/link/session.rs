//! One connection to etcd, from joining to whatever ends it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Event, EventType, LeaseKeepAliveResponse,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp, WatchOptions, WatchResponse,
    WatchStream,
};
use switchback_config::defaults::{
    CHECKPOINT_APART, ETCD_TIME, FENCE_TIME, SHARED_BYTES_MAX, SHARED_LOG_KEPT,
};
use switchback_config::model::Name;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::counters::Counters;
use super::etcd::{Connection, in_time, words};
use super::forgotten::forgotten;
use super::keys::{Keys, Place};
use super::pack::{pack, unpack};
use super::read::{self, Checkpoint, Membership, parse};
use super::{Link, Pulse};
use crate::cluster::list::unheard;
use crate::cluster::wire::{News, NotAdded, Served};
use crate::cluster::{About, Contact, Entry, Head, Instance, Order, Roster, Sealed};
use crate::control::{Controls, Found};
use crate::resolver::Resolver;
use crate::state::State;

/// Renewals in the time of one lease.
const RENEWALS: u32 = 5;

pub(super) struct Session<'a> {
    link: &'a mut Link,
    keys: &'a Keys,
    controls: &'a Controls,
    resolver: &'a Resolver,
    pulse: &'a Pulse,
    connection: Connection,
    lease: i64,
    keeper: LeaseKeeper,
    renewed: LeaseKeepAliveStream,
    /// When the lease was last asked for, of the times that this was answered.
    alive: Instant,
    /// Whether others know that they have to wait for this instance.
    is_known: bool,
    /// When renewals were asked for that were not answered yet.
    asked: VecDeque<Instant>,
    events: WatchStream,
    /// What is shared, as far as it was heard of.
    state: State,
    /// The last write of the head; 0: there is none.
    head_written: i64,
    /// A change that came second; what came first is about to be heard of.
    second: Option<(String, Instant)>,
    /// The revision of the last checkpoint that this session knows of.
    checkpoint: u64,
    /// So many share the promise about false rollbacks, as last told.
    judges: u32,
    /// End when etcd fails, with the reason.
    helpers: JoinSet<String>,
}

impl<'a> Session<'a> {
    /// Joins.
    pub(super) async fn open(
        link: &'a mut Link,
        keys: &'a Keys,
        controls: &'a Controls,
        resolver: &'a Resolver,
        about: &About,
        pulse: &'a Pulse,
    ) -> Result<Self, String> {
        let asked = Instant::now();
        let (etcd, lasts) = (&link.cluster.etcd, link.cluster.lease.0);
        let (connection, lease) = Connection::open(etcd, &link.base, lasts).await?;
        let name = link.fleet.instance.clone();
        become_member(&connection, keys, &name).await?;
        let own = link.end.served.borrow().head.clone();
        let whole = read::read(&connection, keys, own.as_ref()).await?;
        if let Some(reason) = twin(&whole, &name, about) {
            // It would live on for nobody.
            in_time(connection.lease.clone().revoke(lease)).await?;
            return Err(reason);
        }
        let (keeper, renewed) = in_time(connection.lease.clone().keep_alive(lease)).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(whole.at + 1);
        let mut watch = connection.watch.clone();
        let events = in_time(watch.watch(keys.fleet(), Some(options))).await?;
        let mut helpers = JoinSet::new();
        helpers.spawn(announce(
            connection.clone(),
            keys.instance(&name),
            (whole.leases.get(&name).copied().unwrap_or(0), lease),
            about.clone(),
            controls.clone(),
            link.end.served.clone(),
        ));
        let counters = Counters {
            connection: connection.clone(),
            keys: keys.clone(),
            lease,
            instance: name,
            controls: controls.clone(),
            roster: link.fleet.roster.clone(),
            counter: link.counter.clone(),
        };
        helpers.spawn(counters.run());
        // What an earlier session was to add was decided on something else.
        while link.end.proposals.try_recv().is_ok() {}
        let mut session = Self {
            link,
            keys,
            controls,
            resolver,
            pulse,
            connection,
            lease,
            keeper,
            renewed,
            alive: asked,
            is_known: false,
            asked: VecDeque::new(),
            events,
            state: whole.list.state.clone().unwrap_or_default(),
            head_written: whole.head_written,
            second: None,
            checkpoint: 0,
            judges: 1,
            helpers,
        };
        session.join(whole).await;
        session.lead_if_nobody_does().await?;
        Ok(session)
    }

    /// Tells everybody here.
    async fn join(&mut self, whole: read::Whole) {
        self.look_up_names(whole.list.state.as_ref()).await;
        let head = self.state.shared.clone();
        self.link.end.tell(whole.list.news()).await;
        let before = self.link.fleet.roster();
        let closed = Instant::now() + self.link.cluster.lease.0 / 2;
        self.link.shown.set_joined(Roster {
            contact: Contact::Joined,
            hears: true,
            awaited: forgotten(&before, &whole.instances, &self.link.fleet.instance, closed),
            instances: whole.instances,
            members: whole.members,
            leader: whole.leader,
            head,
        });
        self.tell_judges().await;
    }

    /// Until etcd fails, or the process ends.
    pub(super) async fn run(mut self, stopped: &mut watch::Receiver<bool>) -> Result<(), String> {
        let mut renewals = tokio::time::interval(self.link.cluster.lease.0 / RENEWALS);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = super::ends(stopped) => {
                    self.helpers.abort_all();
                    let mut client = self.connection.lease.clone();
                    return in_time(client.revoke(self.lease)).await.map(drop);
                }
                // Before what the others do: however much that is, the lease does not wait for it.
                _ = renewals.tick() => {
                    if self.second.as_ref().is_some_and(|(_, since)| since.elapsed() > ETCD_TIME) {
                        return Err("what came before a change is not heard of".into());
                    }
                    self.link.shown.forget_awaited(Instant::now());
                    self.asked.push_back(Instant::now());
                    self.keeper.keep_alive().await.map_err(|error| words(&error))?;
                    self.lead_if_nobody_does().await?;
                }
                renewed = self.renewed.message() => self.note_renewal(renewed)?,
                heard = self.events.message() => self.take_in(heard).await?,
                proposed = self.link.end.proposals.recv() => match proposed {
                    Some(sealed) => self.add(sealed).await?,
                    None => return Ok(()),
                },
                ordered = self.link.orders.recv() => {
                    if let Some((order, told)) = ordered {
                        let _ = told.send(self.obey(order).await);
                    }
                }
                Some(ended) = self.helpers.join_next() => {
                    return Err(ended.unwrap_or_else(|error| error.to_string()));
                }
            }
        }
    }

    fn note_renewal(
        &mut self,
        renewed: Result<Option<LeaseKeepAliveResponse>, etcd_client::Error>,
    ) -> Result<(), String> {
        let renewed = renewed.map_err(|error| words(&error))?;
        let renewed = renewed.ok_or("the renewals of the lease have ended")?;
        if renewed.ttl() <= 0 {
            return Err("the lease has ended".into());
        }
        if let Some(asked) = self.asked.pop_front() {
            self.alive = asked;
            if self.is_known {
                self.pulse.send_replace(asked);
            }
        }
        Ok(())
    }

    /// Adds a change, if nobody was first.
    async fn add(&mut self, sealed: Sealed) -> Result<(), String> {
        let hash = sealed.head.hash.clone();
        let refuse = |why| News::Refused {
            hash: hash.clone(),
            why,
        };
        let packed = pack(sealed.text.clone());
        if packed.len() > SHARED_BYTES_MAX {
            self.link
                .end
                .tell(refuse(NotAdded::TooLong(packed.len())))
                .await;
            return Ok(());
        }
        let last = self.state.shared.as_ref().map(|head| &head.hash);
        if sealed.entry.previous.as_ref() != last {
            self.link.end.tell(refuse(NotAdded::Second)).await;
            return Ok(());
        }
        let head = serde_json::to_vec(&sealed.head).map_err(|error| error.to_string())?;
        let is_last = Compare::mod_revision(self.keys.head(), CompareOp::Equal, self.head_written);
        let txn = Txn::new().when([is_last]).and_then([
            TxnOp::put(self.keys.head(), head, None),
            TxnOp::put(self.keys.log(sealed.head.revision), packed, None),
        ]);
        let response = self.connection.txn(txn).await?;
        if !response.succeeded() {
            self.second = Some((hash, Instant::now()));
            return Ok(());
        }
        let at = response
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        self.have_changes(vec![sealed], at).await;
        self.save_checkpoint().await
    }

    /// Takes in what happened in etcd.
    async fn take_in(
        &mut self,
        heard: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<(), String> {
        let heard = heard.map_err(|error| words(&error))?;
        let heard = heard.ok_or("the watch has ended")?;
        if heard.canceled() {
            return Err(format!(
                "the watch was cancelled: {}",
                heard.cancel_reason()
            ));
        }
        let (mut changes, mut at) = (Vec::new(), 0);
        for event in heard.events() {
            let Some(pair) = event.kv() else { continue };
            let is_put = event.event_type() == EventType::Put;
            match self.keys.place(pair.key()) {
                Some(Place::Log(_)) if is_put => {
                    let sealed = Entry::unseal(unpack(pair.value())?);
                    let sealed = sealed.map_err(|error| error.to_string())?;
                    at = pair.mod_revision();
                    changes.push(sealed);
                }
                Some(Place::Log(_)) | None => {}
                Some(place) => self.note(place, event, is_put)?,
            }
        }
        let known = self.state.shared.as_ref().map_or(0, |head| head.revision);
        let changes = unheard(known, changes);
        if !changes.is_empty() {
            let mut after = State::default();
            for change in &changes {
                change.entry.apply(&change.head, &mut after);
            }
            self.look_up_names(Some(&after)).await;
            self.have_changes(changes, at).await;
            if let Some((hash, _)) = self.second.take() {
                let why = NotAdded::Second;
                self.link.end.tell(News::Refused { hash, why }).await;
            }
            self.save_checkpoint().await?;
        }
        self.tell_judges().await;
        match self.link.fleet.roster().leader {
            None => self.lead_if_nobody_does().await,
            // Whether this one still does is looked at with each renewal.
            Some(_) => Ok(()),
        }
    }

    fn note(&mut self, place: Place, event: &Event, is_put: bool) -> Result<(), String> {
        let Some(pair) = event.kv() else {
            return Ok(());
        };
        match place {
            Place::Instance(name) => {
                let is_own = name == self.link.fleet.instance && pair.lease() == self.lease;
                if is_own && is_put && !std::mem::replace(&mut self.is_known, true) {
                    // What is shared is in force here, and nobody goes on without this instance: canaries may
                    // have weight.
                    self.pulse.send_replace(self.alive);
                }
                let instance: Option<Instance> = is_put.then(|| parse(pair)).transpose()?;
                self.link.shown.change(|roster| {
                    roster.awaited.remove(&name);
                    match instance {
                        Some(instance) => drop(roster.instances.insert(name, instance)),
                        None => drop(roster.instances.remove(&name)),
                    }
                });
            }
            Place::Member(name) => {
                let member: Option<Membership> = is_put.then(|| parse(pair)).transpose()?;
                self.link.shown.change(|roster| match member {
                    Some(member) => drop(roster.members.insert(name, member.draining)),
                    None => drop(roster.members.remove(&name)),
                });
            }
            Place::Leader => {
                let leader: Option<Name> = is_put.then(|| parse(pair)).transpose()?;
                self.link.shown.change(|roster| roster.leader = leader);
            }
            Place::Log(_) => {}
        }
        Ok(())
    }

    /// Changes are shared, here or elsewhere.
    async fn have_changes(&mut self, changes: Vec<Sealed>, at: i64) {
        for change in &changes {
            change.entry.apply(&change.head, &mut self.state);
        }
        self.head_written = at;
        let head: Option<Head> = self.state.shared.clone();
        self.link.end.tell(News::Changes(changes)).await;
        self.link.shown.change(|roster| roster.head = head);
    }

    /// Names that others have set have addresses before anybody is sent to them, if they can be looked up
    /// without putting the lease at risk.
    async fn look_up_names(&self, state: Option<&State>) {
        let Some(state) = state else { return };
        let published = self.controls.published();
        let look_up = async {
            let (config, known) = (&published.config, &published.state);
            let addresses = self.resolver.look_up_new(config, known, state).await;
            if !addresses.is_empty() {
                let gone = Vec::new();
                self.controls.set_addresses(Found { addresses, gone }).await;
            }
        };
        let _ = tokio::time::timeout(self.link.cluster.lease.0 / 4, look_up).await;
    }

    async fn tell_judges(&mut self) {
        let judges = self.link.fleet.roster().judges();
        if std::mem::replace(&mut self.judges, judges) != judges {
            self.link.end.tell(News::Judges(judges)).await;
        }
    }

    /// Leads if nobody does, or goes on leading as before a restart.
    async fn lead_if_nobody_does(&mut self) -> Result<(), String> {
        let name = &self.link.fleet.instance;
        let roster = self.link.fleet.roster();
        let key = self.keys.leader();
        let text = serde_json::to_vec(name).map_err(|error| error.to_string())?;
        let is_free = match &roster.leader {
            None => Compare::version(key.clone(), CompareOp::Equal, 0),
            Some(leader) if leader == name => {
                Compare::value(key.clone(), CompareOp::Equal, text.clone())
            }
            Some(_) => return Ok(()),
        };
        let is_mine = Compare::lease(key.clone(), CompareOp::Equal, self.lease);
        let leased = PutOptions::new().with_lease(self.lease);
        let lead = TxnOp::put(key, text, Some(leased));
        let lead = Txn::new().when([is_free]).and_then([lead]);
        let txn = Txn::new().when([is_mine]).or_else([TxnOp::txn(lead)]);
        self.connection.txn(txn).await.map(drop)
    }

    /// Keeps a copy of the state and forgets what is older than needed, if this instance leads.
    async fn save_checkpoint(&mut self) -> Result<(), String> {
        let revision = self.state.revision;
        let leads = self.link.fleet.roster().leader.as_ref() == Some(&self.link.fleet.instance);
        if !leads || revision / CHECKPOINT_APART == self.checkpoint / CHECKPOINT_APART {
            return Ok(());
        }
        self.checkpoint = revision;
        let state = self.state.clone();
        let text = serde_json::to_vec(&Checkpoint { state }).map_err(|error| error.to_string())?;
        let text = pack(text);
        if text.len() > SHARED_BYTES_MAX {
            tracing::warn!(
                bytes = text.len(),
                "the shared state does not fit into etcd as a whole; its changes are kept"
            );
            return Ok(());
        }
        let oldest = revision.saturating_sub(SHARED_LOG_KEPT);
        let until = DeleteOptions::new().with_range(self.keys.log(oldest));
        let leads = Compare::lease(self.keys.leader(), CompareOp::Equal, self.lease);
        let txn = Txn::new().when([leads]).and_then([
            TxnOp::put(self.keys.checkpoint(), text, None),
            TxnOp::delete(self.keys.log(0), Some(until)),
        ]);
        self.connection.txn(txn).await.map(drop)
    }

    async fn obey(&mut self, order: Order) -> Result<(), String> {
        let roster = self.link.fleet.roster();
        let (Order::Drain { instance, .. } | Order::Remove { instance }) = &order;
        if !roster.members.contains_key(instance) {
            let known: Vec<&str> = roster.members.keys().map(String::as_str).collect();
            return Err(format!(
                "there is no instance {instance:?}; there are {}",
                known.join(", ")
            ));
        }
        let key = self.keys.member(instance);
        let operation = match &order {
            Order::Remove { .. } if roster.instances.contains_key(instance) => {
                return Err(format!("instance {instance:?} is alive; stop it first"));
            }
            Order::Remove { .. } => TxnOp::delete(key, None),
            Order::Drain { draining, .. } => {
                let member = Membership {
                    draining: *draining,
                };
                let text = serde_json::to_vec(&member).map_err(|error| error.to_string())?;
                TxnOp::put(key, text, None)
            }
        };
        self.connection
            .txn(Txn::new().and_then([operation]))
            .await
            .map(drop)
    }
}

/// Why this process may not be the instance that it is called: another one is, with a state directory of its own,
/// and its lease lives. Two would be waited for as if they were one.
fn twin(whole: &read::Whole, name: &Name, about: &About) -> Option<String> {
    let other = whole.instances.get(name)?;
    let is_twin = !other.home.is_empty() && other.home != about.home;
    is_twin.then(|| {
        format!(
            "another process is instance {name:?}, with another state directory (its admin API: {}); names must differ (cluster.instance). If that one is gone, its name is free when its lease has ended",
            other.admin
        )
    })
}

async fn become_member(connection: &Connection, keys: &Keys, name: &Name) -> Result<(), String> {
    let key = keys.member(name);
    let is_new = Compare::version(key.clone(), CompareOp::Equal, 0);
    let text = serde_json::to_vec(&Membership::default()).map_err(|error| error.to_string())?;
    let txn = Txn::new()
        .when([is_new])
        .and_then([TxnOp::put(key, text, None)]);
    connection.txn(txn).await.map(drop)
}

/// Tells the others what every worker here follows, also those of an older process that has not ended yet; why
/// that ended. With canaries closed, no change is followed: they would get nothing even where one gives them all.
/// A session that has ended may have words under way: they must not tie the key to its lease again, or others
/// would forget this instance when that ends.
async fn announce(
    connection: Connection,
    key: String,
    (held, lease): (i64, i64),
    about: About,
    controls: Controls,
    mut served: watch::Receiver<Served>,
) -> String {
    let mut held = held;
    loop {
        let Served {
            head,
            fence,
            isolated,
        } = served.borrow_and_update().clone();
        if let Some(fence) = fence
            && fence.wait(FENCE_TIME).await.is_err()
        {
            // A worker hangs: it is waited for, and so is this instance.
            tokio::time::sleep(Duration::from_millis(100)).await;
            served.mark_changed();
            continue;
        }
        if let Some(head) = &head {
            controls.followed(head.revision).await;
        }
        let head = head.filter(|_| !isolated);
        let instance = about.instance(head, &controls.published().config);
        let text = match serde_json::to_vec(&instance) {
            Ok(text) => text,
            Err(error) => return error.to_string(),
        };
        let leased = PutOptions::new().with_lease(lease);
        let put = TxnOp::put(key.clone(), text, Some(leased));
        // A key that is not there is under no lease: 0.
        let is_as_known = Compare::lease(key.clone(), CompareOp::Equal, held);
        let txn = Txn::new().when([is_as_known]).and_then([put]);
        match connection.txn(txn).await {
            Ok(response) if response.succeeded() => held = lease,
            Ok(_) => return "another session of this instance has begun".into(),
            Err(reason) => return reason,
        }
        if served.changed().await.is_err() {
            return "the process ends".into();
        }
    }
}
