//! The control thread, its judges and the store through arbitrary events, in virtual time.
//!
//! Everything is the real thing and runs in one thread: the keeper with its queues, the observer with
//! its judges, the store on a real database. Only the clock, the disk below the database and the counts
//! of the workers are simulated, and a [`Chance`] decides what happens next: commands, requests that
//! fail, probes that fail, verdicts out of the blue, time that passes, a disk that is slow, full or loses
//! power, a process that is killed or stopped between any two steps. After each step [`oracle`] looks
//! whether every promise still holds.

mod chance;
#[cfg(test)]
mod fleet;
mod oracle;
mod script;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use switchback_config::defaults::COMMAND_QUEUE;
use switchback_config::model::{Config, LogPath, OnFailure};
use switchback_proxy::access_log::AccessLog;
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::flag::Trust;
use switchback_proxy::health::Probed;
use switchback_proxy::outcome::Finding;
use switchback_proxy::snapshot::Snapshot;
use tokio::sync::oneshot;

use super::{Keeper, Message, Request, Start, Time};
use crate::builder::{Addresses, Material, find};
use crate::clock::SteadyClock;
use crate::command::{Asked, Cause, Command, Refusal};
use crate::control::{Applied, Brought, Durable};
use crate::events::Events;
use crate::handover;
use crate::observer::{Alert, Clock};
use crate::rollout;
use crate::state::State;
use crate::store::Found;
use crate::store::simulated::{Bench, Device};

pub(crate) use chance::Chance;
use oracle::Oracle;
pub(crate) use script::files;

/// What outlives all simulations of a test.
#[derive(Debug)]
pub(crate) struct Scene {
    files: Vec<Arc<Config>>,
    plane: Arc<DataPlane>,
}

impl Scene {
    /// A data plane that nobody sends requests to.
    pub(crate) fn new() -> Self {
        let log = AccessLog::start(LogPath::File("/dev/null".into())).expect("a log");
        let start = std::time::Instant::now();
        let plane = DataPlane::start(1, Snapshot::empty(), log, None, start).expect("a data plane");
        let plane = Arc::new(plane);
        Self {
            files: files(),
            plane,
        }
    }

    /// Lets happen what `chance` says, until it has nothing more to say. `directory` is empty.
    ///
    /// # Panics
    /// When a promise is broken.
    pub(crate) fn play(&self, chance: Chance, directory: &Path) {
        let mut simulation = Simulation::new(self, chance, directory);
        while simulation.chance.goes_on() {
            simulation.step();
        }
        simulation.end();
    }
}

/// Someone who waits for an answer.
struct Asker {
    command: Command,
    answer: Answer,
}

enum Answer {
    Due(oneshot::Receiver<Result<Applied, Refusal>>),
    /// In force as this revision; whether it is persisted is not known yet.
    Persisting(u64, oneshot::Receiver<bool>),
}

/// One process, from its start to its end.
struct Life {
    keeper: Keeper,
    bench: Bench,
    urgent: SyncSender<Message>,
    ordinary: SyncSender<Message>,
}

struct Simulation<'a> {
    scene: &'a Scene,
    chance: Chance,
    directory: &'a Path,
    device: Device,
    clock: Arc<Mutex<Clock>>,
    file: Arc<Config>,
    life: Option<Life>,
    askers: Vec<Asker>,
    oracle: Oracle,
}

impl<'a> Simulation<'a> {
    fn new(scene: &'a Scene, chance: Chance, directory: &'a Path) -> Self {
        let clock = Clock {
            now: Duration::from_secs(1),
            at: Timestamp::UNIX_EPOCH,
            told: Timestamp::UNIX_EPOCH,
        };
        let mut simulation = Self {
            scene,
            chance,
            directory,
            device: Device::default(),
            clock: Arc::new(Mutex::new(clock)),
            file: scene.files[0].clone(),
            life: None,
            askers: Vec::new(),
            oracle: Oracle::default(),
        };
        simulation.start();
        simulation
    }

    /// A process starts on what the disk holds.
    fn start(&mut self) {
        let (store, bench, found) =
            Bench::open(self.directory, &self.device).expect("the disk can be read");
        let state = match found {
            Found::Nothing => State::default(),
            Found::Database(state) => state,
            Found::Copy(..) | Found::Lost(_) => unreachable!("no disk is damaged here: {found:?}"),
        };
        self.oracle.recovered(&state);
        let start = Start {
            plane: self.scene.plane.clone(),
            config: self.file.clone(),
            config_before: Some(self.file.clone()),
            material: Arc::new(Material::default()),
            addresses: Addresses::default(),
            state,
            store,
            events: Events::new(self.now().at),
            clock: SteadyClock::start(),
            follower: tokio::sync::watch::channel(handover::NOBODY).1,
            joining: None,
            trust: Trust::new(std::time::Instant::now()),
        };
        let (urgent, urgent_queue) = sync_channel(COMMAND_QUEUE);
        let (ordinary, ordinary_queue) = sync_channel(COMMAND_QUEUE);
        let clock = self.clock.clone();
        let time: Time = Box::new(move || *clock.lock().unwrap_or_else(PoisonError::into_inner));
        let (keeper, _) = Keeper::new(start, time, urgent_queue, ordinary_queue);
        self.oracle.begins(&keeper);
        self.life = Some(Life {
            keeper,
            bench,
            urgent,
            ordinary,
        });
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("there is always a process")
    }

    fn now(&self) -> Clock {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.chance.below(32) {
            0..10 => self.ask(),
            10..14 => self.pass_time(),
            14..17 => self.count_requests(),
            17..19 => self.probe(),
            19 => self.find_failing(),
            20 => {
                let full = self.chance.one_in(2);
                self.device.set_full(full);
            }
            21 => self.stop(),
            22 => self.kill(),
            23 => self.life().bench.catch_up(),
            _ => {
                for _ in 0..=self.chance.below(3) {
                    self.life().bench.step();
                }
            }
        }
        self.turn();
    }

    /// Somebody asks for something.
    fn ask(&mut self) {
        let command = script::command(&mut self.chance, &self.scene.files);
        self.send(command, Asked::by_itself("api", None));
    }

    fn send(&mut self, command: Command, asked: Asked) {
        self.oracle.asked(&command);
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command: command.clone(),
            asked,
            brought: Brought::default(),
            record: None,
            reply,
        };
        let life = self.life();
        let queue = match command.is_urgent() {
            true => &life.urgent,
            false => &life.ordinary,
        };
        queue
            .try_send(Message::Ask(Box::new(request)))
            .expect("few commands wait");
        let answer = Answer::Due(answer);
        self.askers.push(Asker { command, answer });
    }

    /// Time passes; what is due by the clock is asked for, as the task for rollouts does.
    fn pass_time(&mut self) {
        let millis = [1, 60, 1_000, 30_000, 600_000, 10_800_000][self.chance.below(6)];
        {
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.now += Duration::from_millis(millis);
            clock.at += SignedDuration::from_millis(i64::try_from(millis).unwrap_or(0));
            // People set the machine's clock now and then.
            clock.told = clock.at + SignedDuration::from_hours(i64::from(self.chance.one_in(4)));
        }
        self.life().keeper.tick_if_due();
        let published = self.life().keeper.published.borrow().clone();
        for service in rollout::due(&published, self.now().at) {
            let asked = Asked::by_itself("rollout", None);
            self.send(Command::Progress { service }, asked);
        }
    }

    /// Requests end, some of them badly, as workers count them.
    fn count_requests(&mut self) {
        let now = self.now().now;
        let snapshot = self.scene.plane.snapshot();
        let service = &snapshot.services[self.chance.below(snapshot.services.len())];
        let backend = self.chance.below(service.backends.len());
        let failing = self.chance.below(3);
        for request in 0..self.chance.below(60) {
            let failed = failing > 0 && request % failing == 0;
            let finding = match failed {
                true => Finding::Failure,
                false => Finding::Success,
            };
            if service.is_open(backend)
                && let Some(cells) = service.judged.get(backend)
            {
                cells.record(0, finding, None, now);
            }
        }
    }

    /// An endpoint begins or ceases to answer probes.
    fn probe(&mut self) {
        let snapshot = self.scene.plane.snapshot();
        let service = &snapshot.services[self.chance.below(snapshot.services.len())];
        let backend = &service.backends[self.chance.below(service.backends.len())];
        let probed = match self.chance.one_in(3) {
            true => Probed::Down,
            false => Probed::Up,
        };
        for endpoint in &backend.endpoints {
            endpoint.health.set_probed(probed);
        }
        self.oracle.health_changed();
    }

    /// A verdict out of the blue.
    fn find_failing(&mut self) {
        let (service, backend) = script::backend(&mut self.chance);
        let keeper = &mut self.life().keeper;
        let Some(effective) = keeper.effective.get(&service) else {
            return;
        };
        let version = effective.version(&backend).to_owned();
        keeper.heed(Alert {
            service,
            backend,
            version,
            cause: Cause::Judge,
            sentence: "it fails".into(),
            action: OnFailure::Rollback,
            first: true,
        });
    }

    /// The process ends as it should, with a disk that works, and another one starts.
    fn stop(&mut self) {
        self.device.set_full(false);
        self.settle();
        self.life = None;
        self.askers.clear();
        self.oracle.stopped();
        self.change_file();
        self.start();
    }

    /// The process is killed, and perhaps the machine with it, at whatever it was doing.
    fn kill(&mut self) {
        let settled = self.life().bench.is_settled();
        self.life = None;
        self.askers.clear();
        let with_power = self.chance.one_in(2);
        let chance = &mut self.chance;
        self.device.lose_power(|| with_power || chance.one_in(2));
        self.device.set_full(false);
        self.oracle.killed(settled);
        self.change_file();
        self.start();
    }

    /// While nobody runs, the file may change.
    fn change_file(&mut self) {
        if self.chance.one_in(4) {
            self.file = script::file(&mut self.chance, &self.scene.files);
        }
    }

    /// Everything that waits is done.
    fn settle(&mut self) {
        loop {
            self.turn();
            let life = self.life();
            life.bench.catch_up();
            let worked = life.bench.step();
            self.turn();
            if !worked && self.life().keeper.pending.is_none() && !self.has_unanswered() {
                return;
            }
        }
    }

    fn has_unanswered(&self) -> bool {
        let mut askers = self.askers.iter();
        askers.any(|asker| matches!(asker.answer, Answer::Due(_)))
    }

    /// The control thread turns once, those who asked hear of it, and the oracle looks.
    fn turn(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.keeper.serve();
        self.file = life.keeper.world.config.clone();
        if let Some(pending) = &life.keeper.pending {
            let after = pending
                .decision
                .follow(&life.keeper.world, pending.revision);
            self.oracle.proposed(pending.revision, after.state);
        }
        self.oracle.look(&life.keeper);
        for asker in std::mem::take(&mut self.askers) {
            self.hear(asker);
        }
        if let Some(life) = &self.life {
            self.oracle.turned(&life.keeper);
        }
    }

    fn hear(&mut self, asker: Asker) {
        let Asker { command, answer } = asker;
        let answer = match answer {
            Answer::Due(mut answer) => match answer.try_recv() {
                Ok(Ok(applied)) => self.hear_applied(&command, applied),
                Ok(Err(_)) => None,
                Err(_) => Some(Answer::Due(answer)),
            },
            Answer::Persisting(revision, mut durable) => match durable.try_recv() {
                Ok(true) => {
                    self.oracle.durable(revision);
                    None
                }
                Ok(false) | Err(oneshot::error::TryRecvError::Closed) => None,
                Err(oneshot::error::TryRecvError::Empty) => {
                    Some(Answer::Persisting(revision, durable))
                }
            },
        };
        self.askers
            .extend(answer.map(|answer| Asker { command, answer }));
    }

    fn hear_applied(&mut self, command: &Command, applied: Applied) -> Option<Answer> {
        if !applied.changed {
            return None;
        }
        let revision = applied.published.state.revision;
        self.oracle.applied(command, &applied.published);
        match applied.durable {
            Durable::Known(durable) => {
                assert!(durable, "an ordinary change is in force but not persisted");
                self.oracle.durable(revision);
                None
            }
            Durable::UnderWay(durable) => Some(Answer::Persisting(revision, durable)),
        }
    }

    /// In the end everybody has an answer, and the disk holds what is in force.
    fn end(mut self) {
        self.stop();
        assert!(find(&self.scene.plane.snapshot(), "shop").is_some());
    }
}
