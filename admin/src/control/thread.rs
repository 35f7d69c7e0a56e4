//! The loop of the control thread.

mod answers;
mod evidence;
mod lending;
mod mirror;
mod ordinary;
mod outgoing;
mod sharing;
#[cfg(any(test, fuzzing))]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;
mod ticks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::defaults::{COMMAND_QUEUE, TICK};
use switchback_config::model::{Config, Name};
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::fence::Fence;
use switchback_proxy::flag::{FlagTable, Trust};
use switchback_proxy::snapshot::Snapshot;
use switchback_proxy::stats::Alarm;
use tokio::sync::watch;

use lending::Lending;
use outgoing::Outgoing;
use sharing::{Sharing, Way};

use super::{
    Applied, Controls, Durable, Found, Message, Published, Request, ServiceStatus, Shared,
};
use crate::builder::{Addresses, Builder, Material, Plan, health};
use crate::clock::SteadyClock;
use crate::cluster::Joining;
use crate::command::{Asked, Cause, Command, Refusal};
use crate::controller::{Decision, Outlook, World, apply};
use crate::drill::shadow::is_shadow;
use crate::effective::Effective;
use crate::events::Events;
use crate::evidence::Record;
use crate::flags;
use crate::handover::Follower;
use crate::observer::{Clock, Observer};
use crate::quiet::Quiet;
use crate::resolver;
use crate::state::State;
use crate::store::Store;
use crate::timings::{Rehearsed, Timings};

/// What the control thread starts from.
#[derive(Debug)]
pub struct Start {
    /// The data plane, serving nothing yet.
    pub plane: Arc<DataPlane>,
    /// The file.
    pub config: Arc<Config>,
    /// The file that was in force when the process last ran, if it is known.
    pub config_before: Option<Arc<Config>>,
    /// Its certificates.
    pub material: Arc<Material>,
    /// Looked-up names.
    pub addresses: Addresses,
    /// The recorded state.
    pub state: State,
    /// Where changes are persisted.
    pub store: Store,
    /// Where events go.
    pub events: Events,
    /// The time that decisions are made by.
    pub clock: SteadyClock,
    /// Who else follows what is decided.
    pub(crate) follower: Follower,
    /// The other instances; none: this one is alone.
    pub(crate) joining: Option<Joining>,
    /// Whether the recorded state of kill switches is believed.
    pub trust: Arc<Trust>,
}

/// Starts the control thread; returns once the first snapshot is in force.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(start: Start) -> std::io::Result<Controls> {
    let (urgent, urgent_queue) = sync_channel(COMMAND_QUEUE);
    let (ordinary, ordinary_queue) = sync_channel(COMMAND_QUEUE);
    let (ready, is_ready) = sync_channel(1);
    let follower = start.follower.clone();
    let joining = start.joining.as_ref();
    let fleet = joining.map(|joining| joining.fleet.clone());
    let rehearsed = Rehearsed::default();
    let noted = rehearsed.clone();
    let handle = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let (plane, steady) = (start.plane.clone(), start.clock);
            let time: Time = Box::new(move || Clock {
                now: plane.uptime(),
                at: steady.now(),
                told: Timestamp::now(),
            });
            let (mut keeper, published) = Keeper::new(start, time, urgent_queue, ordinary_queue);
            keeper.rehearsed = noted;
            let _ = ready.send(published);
            keeper.run();
        })?;
    let published = is_ready
        .recv()
        .map_err(|_| std::io::Error::other("the control thread ended while it started"))?;
    Ok(Controls {
        urgent,
        ordinary,
        thread: handle.thread().clone(),
        published,
        follower,
        fleet,
        timings: Timings::default(),
        rehearsed,
    })
}

/// A change on its way to the disk.
#[derive(Debug)]
struct Pending {
    request: Request,
    revision: u64,
    /// The revision it was decided for.
    base: u64,
    decision: Decision,
}

impl Pending {
    /// Whether it is what the clock asks for, whom nobody has to tell why not.
    const fn is_progress(&self) -> bool {
        matches!(self.request.command, Command::Progress { .. })
    }
}

/// What the disk says about the pending change.
type Persisted = Result<(), String>;

/// Tells the time.
type Time = Box<dyn Fn() -> Clock + Send>;

struct Keeper {
    plane: Arc<DataPlane>,
    time: Time,
    world: World,
    effective: BTreeMap<Name, Arc<Effective>>,
    flags: Arc<FlagTable>,
    material: Arc<Material>,
    addresses: Addresses,
    builder: Builder,
    observer: Observer,
    store: Store,
    events: Events,
    alarm: Arc<Alarm>,
    published: watch::Sender<Arc<Published>>,
    rollbacks: BTreeMap<(Name, &'static str), u64>,
    recoveries: BTreeMap<(Name, &'static str), u64>,
    urgent: Receiver<Message>,
    ordinary: Receiver<Message>,
    persisted: (SyncSender<Persisted>, Receiver<Persisted>),
    pending: Option<Box<Pending>>,
    /// The highest number given to a revision, in force or not.
    numbered: u64,
    last_tick: Duration,
    clock: SteadyClock,
    quiet: Arc<Quiet>,
    lending: Lending,
    outgoing: Outgoing<Snapshot>,
    /// What a drill wants to know of its rollback.
    rehearsed: Rehearsed,
    sharing: Sharing,
}

impl Keeper {
    fn new(
        start: Start,
        time: Time,
        urgent: Receiver<Message>,
        ordinary: Receiver<Message>,
    ) -> (Self, watch::Receiver<Arc<Published>>) {
        let alarm = Alarm::new(std::thread::current());
        let flags = Arc::new(FlagTable::empty(start.trust));
        let quiet = Arc::<Quiet>::default();
        let builder = Builder::new(start.plane.workers(), alarm.clone());
        let (published, receiver) = watch::channel(Arc::new(Published {
            config: start.config.clone(),
            isolated: false,
            state: Arc::default(),
            services: BTreeMap::new(),
            flags: flags.clone(),
            snapshot: start.plane.snapshot(),
            clock: start.clock,
            quiet: quiet.clone(),
            uses: builder.uses().clone(),
            retired: Vec::new(),
            rollbacks: BTreeMap::new(),
            recoveries: BTreeMap::new(),
        }));
        let before = start.config_before.as_ref();
        let sharing = Sharing::new(start.joining, sharing::has_changed(before, &start.config));
        let mut keeper = Self {
            builder,
            numbered: start.state.revision,
            world: World {
                config: start.config_before.unwrap_or_else(|| start.config.clone()),
                state: start.state,
            },
            effective: BTreeMap::new(),
            flags,
            material: start.material,
            addresses: start.addresses,
            observer: Observer::default(),
            store: start.store,
            events: start.events,
            plane: start.plane,
            time,
            alarm,
            published,
            rollbacks: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            urgent,
            ordinary,
            persisted: sync_channel(1),
            pending: None,
            last_tick: Duration::ZERO,
            clock: start.clock,
            quiet,
            lending: Lending::default(),
            outgoing: Outgoing::default(),
            rehearsed: Rehearsed::default(),
            sharing,
        };
        keeper.begin(start.config);
        (keeper, receiver)
    }

    /// The first snapshot: the file may have changed while nobody was running.
    fn begin(&mut self, config: Arc<Config>) {
        self.restart_stages();
        let asked = Asked::by_itself("start", None);
        let command = Command::Reload { config };
        if let Ok(decision) = self.decide(&command, &asked) {
            let before = self.world.clone();
            let (changed, revision) = (decision.changes(&before), self.numbered + 1);
            let revision = if changed {
                revision
            } else {
                self.world.state.revision
            };
            self.carry_out(&decision, revision, true);
            if changed {
                self.numbered = revision;
                let commit = self.commit(&before, &command, &asked, &decision, revision, true);
                self.store.commit(commit, Box::new(|_| ()));
            }
            self.tell(&decision, &asked, changed.then_some(revision));
        }
    }

    /// The judges begin anew, and so does the time of every stage: while nobody watched, nothing was
    /// proven.
    fn restart_stages(&mut self) {
        let at = self.clock().at;
        for (service, state) in &mut self.world.state.services {
            let running = state
                .rollout
                .as_mut()
                .filter(|rollout| rollout.is_running());
            let Some(rollout) = running.filter(|rollout| rollout.paused.is_none()) else {
                continue;
            };
            rollout.stage_since = at;
            let message = format!(
                "the rollout of {} goes on; its {} begins again, since nobody watched it for a while",
                rollout.canary,
                rollout.stage_text()
            );
            self.events
                .emit("rollout_resumed", Some(service), "start", message, None);
        }
    }

    fn run(&mut self) {
        loop {
            let served = self.serve();
            if served == Served::Stop {
                return;
            }
            let wait = (self.last_tick + TICK).saturating_sub(self.clock().now);
            if served == Served::Nothing && !wait.is_zero() {
                std::thread::park_timeout(wait);
            }
            // However many commands there are, the judges are heard.
            self.tick_if_due();
        }
    }

    /// Serves what waits, the most urgent first; at most one thing of each kind.
    fn serve(&mut self) -> Served {
        let mut served = Served::Nothing;
        loop {
            match self.urgent.try_recv() {
                Ok(Message::Ask(request)) => {
                    served = Served::Something;
                    self.serve_urgent(*request);
                }
                Ok(Message::Addresses(found, told)) => {
                    self.set_addresses(found);
                    let _ = told.send(());
                }
                Ok(Message::Stop) | Err(TryRecvError::Disconnected) => return Served::Stop,
                Ok(message) => self.serve_lending(message),
                Err(TryRecvError::Empty) => break,
            }
        }
        if self.hear() {
            served = Served::Something;
        }
        if let Ok(result) = self.persisted.1.try_recv()
            && let Some(pending) = self.pending.take()
        {
            served = Served::Something;
            self.finish(*pending, result);
        }
        if self.pending.is_none() && self.sharing.is_settled() {
            self.lending.tell();
            self.reconcile();
        }
        if self.pending.is_none() && self.sharing.is_settled() {
            match self.ordinary.try_recv() {
                Ok(Message::Ask(request)) => {
                    served = Served::Something;
                    self.serve_ordinary(*request);
                }
                Ok(Message::Stop) | Err(TryRecvError::Disconnected) => return Served::Stop,
                Ok(message) => self.serve_lending(message),
                Err(TryRecvError::Empty) => {}
            }
        }
        served
    }

    /// Sends requests to where names point now. No change of what is recorded: it waits for no disk, and
    /// nothing that is on its way there is decided again for it.
    fn set_addresses(&mut self, found: Found) {
        let named = resolver::names_in_use(&self.world.config, &self.world.state);
        let is_gone = |name: &(String, u16)| found.gone.contains(name) && !named.contains(name);
        self.addresses.retain(|name, _| !is_gone(name));
        self.addresses.extend(found.addresses);
        let decision = Decision::nothing(&self.world);
        self.carry_out(&decision, self.world.state.revision, false);
    }

    /// Decides something that comes into force at once; refused if it could not be sent along to the process
    /// that has the state.
    fn decide_now(&self, command: &Command, asked: &Asked) -> Result<Decision, Refusal> {
        let decision = self.decide(command, asked)?;
        match self.lending.is_full() && decision.changes(&self.world) {
            true => Err(Refusal::Busy),
            false => Ok(decision),
        }
    }

    fn decide(&self, command: &Command, asked: &Asked) -> Result<Decision, Refusal> {
        let snapshot = self.plane.snapshot();
        let health = |service: &str, backend: &str| health(&snapshot, service, backend);
        let standing = |service: &str, backend: &str| self.observer.standing(service, backend);
        let outlook = Outlook {
            health: &health,
            standing: &standing,
        };
        apply(&self.world, self.clock().at, outlook, command, asked)
    }

    /// Applies at once, then persists.
    fn serve_urgent(&mut self, request: Request) {
        if self.lending.is_retired() {
            return self.refuse(request, Refusal::HandingOver);
        }
        let decided = match request.asked.dry_run {
            true => self.decide(&request.command, &request.asked),
            false => self.decide_now(&request.command, &request.asked),
        };
        match decided {
            Ok(decision) if request.asked.dry_run => self.answer_dry_run(request, decision),
            Ok(decision) if decision.changes(&self.world) => {
                let Request {
                    command,
                    asked,
                    record,
                    reply,
                    ..
                } = request;
                let _ = reply.send(Ok(self.apply_seen(&command, &asked, &decision, record)));
            }
            Ok(decision) => self.answer_unchanged(request, decision.notes),
            Err(refusal) => {
                if let Some(service) = request.command.service().filter(|_| !request.asked.dry_run)
                {
                    self.pause_rollout(service, &refusal);
                }
                self.refuse(request, refusal);
            }
        }
    }

    /// A rollback that cannot be done at least keeps the rollout from going on.
    fn pause_rollout(&mut self, service: &Name, refusal: &Refusal) {
        self.freeze(service, &format!("a rollback was refused: {refusal}"));
    }

    /// Stops the rollout of a service, if one is under way, until somebody resumes it.
    fn freeze(&mut self, service: &Name, reason: &str) {
        let asked = Asked::by_itself("rollout", Some(reason.to_owned()));
        let command = Command::Pause {
            service: service.clone(),
        };
        match self.decide_now(&command, &asked) {
            Ok(decision) if decision.changes(&self.world) => {
                self.apply_now(&command, &asked, &decision);
            }
            // There is no rollout, or it stands already.
            Ok(_) | Err(_) => {}
        }
    }

    fn apply_now(&mut self, command: &Command, asked: &Asked, decision: &Decision) -> Applied {
        self.apply_seen(command, asked, decision, None)
    }

    /// The same; `seen`: the record of the process that has decided it, if that was another one.
    fn apply_seen(
        &mut self,
        command: &Command,
        asked: &Asked,
        decision: &Decision,
        seen: Option<Box<Record>>,
    ) -> Applied {
        self.numbered += 1;
        let revision = self.numbered;
        let before = self.world.clone();
        let cause = match command {
            Command::Rollback { .. } => Some(Cause::Operator),
            Command::Condemn { cause, .. } => Some(*cause),
            _ => None,
        };
        let rolled_back = cause.zip(command.service());
        let is_rehearsed = rolled_back.is_some_and(|(_, service)| is_shadow(service));
        if let Some((cause, service)) = rolled_back.filter(|_| !is_rehearsed) {
            *self
                .rollbacks
                .entry((service.clone(), cause.as_str()))
                .or_default() += 1;
        }
        let witnessed = self.witness(command, decision);
        self.note_unshared((command, asked), decision, revision);
        let fence = self.carry_out(decision, revision, false);
        if is_rehearsed {
            self.rehearsed.note(&fence);
        }
        let mut commit = self.commit(&before, command, asked, decision, revision, true);
        commit.state = Arc::new(self.world.state.clone());
        let shared = self.share(&commit);
        let witnessed = witnessed.map(|witnessed| match seen {
            Some(seen) => witnessed.seen_as(*seen),
            None => witnessed,
        });
        if let Some(witnessed) = &witnessed {
            self.watch_aftermath(witnessed, revision, &fence);
        }
        let record = || self.record(witnessed?, decision, asked, revision);
        let durable = self.commit_now(commit, (command, asked), record);
        self.tell(decision, asked, Some(revision));
        Applied {
            shared,
            ..self.applied(
                decision.notes.clone(),
                Some(fence),
                Durable::UnderWay(durable),
            )
        }
    }

    /// Makes a decision the truth: the world, the snapshot, the judges.
    fn carry_out(&mut self, decision: &Decision, revision: u64, new_routes: bool) -> Arc<Fence> {
        let stable_only_before = self.world.state.stable_only;
        let all = new_routes || decision.stable_only != stable_only_before;
        self.world = decision.follow(&self.world, revision);
        let World { config, state } = &self.world;
        let changed: Vec<Name> = match all {
            true => config.services.keys().cloned().collect(),
            false => decision.services.keys().cloned().collect(),
        };
        self.effective
            .retain(|name, _| config.services.contains_key(name));
        let unrecorded = crate::state::ServiceState::default();
        for name in &changed {
            if let Some(file) = config.services.get(name) {
                let recorded = state.services.get(name).unwrap_or(&unrecorded);
                let stable_only = state.stable_only || self.sharing.is_isolated();
                let effective = Effective::new(file, recorded, stable_only);
                self.effective.insert(name.clone(), Arc::new(effective));
            }
        }
        if all {
            self.flags = Arc::new(flags::table(config, state, &self.flags));
        } else if !decision.flags.is_empty() {
            let names = decision.flags.keys();
            self.flags = Arc::new(flags::changed(config, state, &self.flags, names));
        }
        let plan = Plan {
            config,
            flags: &self.flags,
            effective: &self.effective,
            state,
            material: &self.material,
            addresses: &self.addresses,
            new_routes,
        };
        let clock = self.clock();
        let snapshot = self.builder.build(&plan, clock.now);
        self.outgoing.hold(self.plane.snapshot());
        let fence = self.plane.swap(snapshot.clone());
        self.sharing.note_fence(&fence);
        let World { config, state } = &self.world;
        // Addresses of any service may have changed when no service did.
        let changed = if changed.is_empty() {
            config.services.keys().cloned().collect()
        } else {
            changed
        };
        self.observer.follow(
            clock,
            config,
            state,
            &self.effective,
            &snapshot,
            changed.iter(),
        );
        self.publish(snapshot);
        fence
    }

    fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let services = self.effective.iter().map(|(name, effective)| {
            let gauges = self.observer.gauges(name);
            let stable_gauge = self.observer.stable_gauge(name);
            (
                name.clone(),
                ServiceStatus {
                    effective: effective.clone(),
                    gauges,
                    stable_gauge,
                },
            )
        });
        self.published.send_replace(Arc::new(Published {
            config: self.world.config.clone(),
            isolated: self.sharing.is_isolated(),
            state: Arc::new(self.world.state.clone()),
            services: services.collect(),
            flags: self.flags.clone(),
            snapshot,
            clock: self.clock,
            quiet: self.quiet.clone(),
            uses: self.builder.uses().clone(),
            retired: self.builder.retired().to_vec(),
            rollbacks: self.rollbacks.clone(),
            recoveries: self.recoveries.clone(),
        }));
    }

    fn clock(&self) -> Clock {
        (self.time)()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Served {
    Nothing,
    Something,
    Stop,
}
