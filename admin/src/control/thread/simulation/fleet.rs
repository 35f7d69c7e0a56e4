//! Three instances that share one state, in virtual time.
//!
//! The control threads, their judges and their stores are the real ones, and so is what is shared: entries
//! of a list, and what an instance makes of them. Only the list itself and the ways to it are simulated. They
//! deliver late, in pieces, twice, or not at all; the answer to a change may be lost although it was added;
//! instances are cut off, isolated and killed; the list goes back to what it was at a backup; whoever leads ends at
//! any moment. What somebody was told to be shared is in the list, and nobody brings anything back but after a
//! backup. At the end everything is connected again and comes to rest, and all have to agree.

mod scripted;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use switchback_config::defaults::COMMAND_QUEUE;
use switchback_config::model::{Config, LogPath, Name};
use switchback_proxy::access_log::AccessLog;
use switchback_proxy::data_plane::DataPlane;
use switchback_proxy::flag::Trust;
use switchback_proxy::snapshot::Snapshot;
use tokio::sync::{mpsc, oneshot, watch};

use super::oracle::check_blocks;
use super::{Chance, Keeper, Message, Request, Start, Time, script};
use crate::builder::{Addresses, Material};
use crate::clock::SteadyClock;
use crate::cluster::list::{List, unheard};
use crate::cluster::wire::{self, Joining, LinkEnd, News, NotAdded};
use crate::cluster::{Fleet, Head, Roster, Sealed};
use crate::command::{Asked, Command, Refusal};
use crate::control::{Applied, Brought, Shared};
use crate::events::Events;
use crate::handover;
use crate::observer::Clock;
use crate::rollout;
use crate::state::{ServiceState, State};
use crate::store::Found;
use crate::store::simulated::{Bench, Device};

const INSTANCES: usize = 3;

/// What outlives all simulations.
pub(super) struct Harbour {
    files: Vec<Arc<Config>>,
    planes: Vec<Arc<DataPlane>>,
}

impl Harbour {
    pub(super) fn new() -> Self {
        let plane = |_| {
            let log = AccessLog::start(LogPath::File("/dev/null".into())).expect("a log");
            let plane = DataPlane::start(1, Snapshot::empty(), log, None, Instant::now());
            Arc::new(plane.expect("a data plane"))
        };
        Self {
            files: script::files(),
            planes: (0..INSTANCES).map(plane).collect(),
        }
    }

    pub(super) fn play(&self, chance: Chance, directory: &Path) {
        let mut simulation = Simulation::new(self, chance, directory);
        while simulation.chance.goes_on() {
            simulation.step();
        }
        simulation.end();
    }
}

/// One instance, from its start to its end.
struct Life {
    keeper: Keeper,
    bench: Bench,
    urgent: SyncSender<Message>,
    ordinary: SyncSender<Message>,
    link: Link,
    /// Blocks that were in force at the last look.
    blocked: BTreeSet<(Name, String)>,
    /// Answers that somebody waits for.
    answers: Vec<oneshot::Receiver<Result<Applied, Refusal>>>,
    /// Numbers in the list that somebody waits for.
    numbers: Vec<oneshot::Receiver<Result<u64, Refusal>>>,
}

impl Life {
    /// Asks for something; the answer, if there is a place in the queue.
    fn send(&self, command: Command) -> Option<oneshot::Receiver<Result<Applied, Refusal>>> {
        let queue = match command.is_urgent() {
            true => &self.urgent,
            false => &self.ordinary,
        };
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command,
            asked: Asked::by_itself("api", None),
            brought: Brought::default(),
            record: None,
            reply,
        };
        let sent = queue.try_send(Message::Ask(Box::new(request)));
        sent.is_ok().then_some(answer)
    }
}

/// Its way to the list.
struct Link {
    end: LinkEnd,
    joined: bool,
    /// What it has heard of last.
    head: Option<Head>,
    /// What is on its way.
    news: VecDeque<News>,
}

struct Instance {
    directory: std::path::PathBuf,
    device: Device,
    clock: Arc<Mutex<Clock>>,
    reachable: bool,
    /// There always is one, but for the moment between two.
    life: Option<Life>,
}

impl Instance {
    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("alive")
    }
}

struct Simulation<'a> {
    harbour: &'a Harbour,
    chance: Chance,
    list: Vec<Sealed>,
    backup: Option<Vec<Sealed>>,
    instances: Vec<Instance>,
    leader: Option<usize>,
    /// Versions that somebody has asked to let in again.
    unblocked: BTreeSet<(Name, Name)>,
    /// Whether the list has ever gone back.
    restored: bool,
}

fn head_of(list: &[Sealed]) -> Option<Head> {
    list.last().map(|sealed| sealed.head.clone())
}

impl<'a> Simulation<'a> {
    fn new(harbour: &'a Harbour, mut chance: Chance, directory: &Path) -> Self {
        let instances = (0..INSTANCES).map(|index| {
            // No two clocks agree.
            let at = Timestamp::UNIX_EPOCH
                + SignedDuration::from_secs(i64::try_from(chance.below(90)).unwrap_or(0));
            let clock = Clock {
                now: Duration::from_secs(1),
                at,
                told: at,
            };
            let directory = directory.join(index.to_string());
            let device = Device::default();
            let clock = Arc::new(Mutex::new(clock));
            let life = start(harbour, index, &directory, &device, &clock);
            Instance {
                directory,
                device,
                clock,
                reachable: true,
                life: Some(life),
            }
        });
        let instances = instances.collect();
        Self {
            harbour,
            chance,
            list: Vec::new(),
            backup: None,
            instances,
            leader: None,
            unblocked: BTreeSet::new(),
            restored: false,
        }
    }

    fn step(&mut self) {
        let index = self.chance.below(INSTANCES);
        match self.chance.below(32) {
            0..9 => self.ask(index),
            9..12 => self.pass_time(index),
            12 => self.instances[index].reachable = self.chance.one_in(2),
            13 => self.cut(index),
            14 => {
                let news = News::Isolated(self.chance.one_in(2));
                self.instances[index].life().link.news.push_back(news);
            }
            15 => self.kill(index),
            16 => match self.backup.take().filter(|_| self.chance.one_in(2)) {
                Some(backup) => self.restore(backup),
                None => self.backup = Some(self.list.clone()),
            },
            17 => self.leader = Some(index).filter(|_| self.chance.one_in(2)),
            18..22 => drop(self.instances[index].life().bench.step()),
            22..25 => self.join_or_watch(index),
            25..28 => self.add(index),
            _ => self.deliver(index),
        }
        self.turn(index);
    }

    /// Somebody asks an instance for something.
    fn ask(&mut self, index: usize) {
        let command = script::command(&mut self.chance, &self.harbour.files[..1]);
        if let Command::Unblock { service, backend } = &command {
            self.unblocked.insert((service.clone(), backend.clone()));
        }
        self.send(index, command);
    }

    fn send(&mut self, index: usize, command: Command) {
        // Whoever is cut off lets ordinary commands wait; nobody waits for ever here.
        let life = self.instances[index].life();
        let answer = life.send(command);
        life.answers.extend(answer);
    }

    /// Time passes at one of them; only who leads asks for what is due.
    fn pass_time(&mut self, index: usize) {
        let millis = [1, 60, 1_000, 30_000, 600_000, 10_800_000][self.chance.below(6)];
        let at = {
            let clock = &self.instances[index].clock;
            let mut clock = clock.lock().unwrap_or_else(PoisonError::into_inner);
            clock.now += Duration::from_millis(millis);
            clock.at += SignedDuration::from_millis(i64::try_from(millis).unwrap_or(0));
            clock.told = clock.at;
            clock.at
        };
        self.instances[index].life().keeper.tick_if_due();
        if self.leader == Some(index) {
            let published = self.instances[index]
                .life()
                .keeper
                .published
                .borrow()
                .clone();
            for service in rollout::due(&published, at) {
                self.send(index, Command::Progress { service });
            }
        }
    }

    /// The way to the list is gone, and with it what was on the way.
    fn cut(&mut self, index: usize) {
        let link = &mut self.instances[index].life().link;
        if std::mem::take(&mut link.joined) {
            link.news.clear();
            link.news.push_back(News::Away);
        }
    }

    /// Joins, or hears what others have added.
    fn join_or_watch(&mut self, index: usize) {
        if !self.instances[index].reachable {
            return;
        }
        if !self.instances[index].life().link.joined {
            let (checkpoint, log) = self.kept();
            let link = &mut self.instances[index].life().link;
            while link.end.proposals.try_recv().is_ok() {}
            let own = link.end.served.borrow().head.clone();
            let head = head_of(&log);
            let list = List::read(head.clone(), checkpoint, log, own.as_ref());
            link.news.push_back(list.expect("a list").news());
            (link.joined, link.head) = (true, head);
            return;
        }
        self.hear(index);
    }

    /// The list with a copy of the state somewhere, and what is older than that perhaps forgotten.
    fn kept(&mut self) -> (Option<State>, Vec<Sealed>) {
        let copied = self.chance.below(self.list.len() + 1);
        let until = self.list[..copied].to_vec();
        let checkpoint = List::read(head_of(&until), None, until, None);
        // Nobody forgets what somebody may have to bring back.
        let forgotten = match self.restored || copied == self.list.len() {
            true => 0,
            false => self.chance.below(copied + 1),
        };
        let log = self.list[forgotten..].to_vec();
        (checkpoint.expect("a list").state, log)
    }

    /// What was added since it last heard, and perhaps something that it has heard before.
    fn hear(&mut self, index: usize) {
        let again = self.chance.below(3);
        let life = self.instances[index].life.as_mut().expect("alive");
        let link = &mut life.link;
        let known = link.head.as_ref().map_or(0, |head| head.revision);
        let is_known = |sealed: &Sealed| sealed.head.revision <= known;
        let begin = self.list.partition_point(is_known).saturating_sub(again);
        let tail = self.list.len().saturating_sub(again).max(begin);
        let heard = [&self.list[begin..], &self.list[tail..]].concat();
        let new = unheard(known, heard);
        if !new.is_empty() {
            link.head = head_of(&new);
            link.news.push_back(News::Changes(new));
        }
    }

    /// What it has proposed arrives.
    fn add(&mut self, index: usize) {
        let instance = &mut self.instances[index];
        let reachable = instance.reachable;
        let link = &mut instance.life().link;
        if !link.joined || !reachable {
            return;
        }
        let Ok(sealed) = link.end.proposals.try_recv() else {
            return;
        };
        let previous = link.head.as_ref().map(|head| &head.hash);
        let refused = News::Refused {
            hash: sealed.head.hash.clone(),
            why: NotAdded::Second,
        };
        if sealed.entry.previous.as_ref() != previous {
            link.news.push_back(refused);
        } else if link.head != head_of(&self.list) {
            self.hear(index);
            let link = &mut self.instances[index].life().link;
            link.news.push_back(refused);
        } else {
            self.list.push(sealed.clone());
            if self.chance.one_in(6) {
                // It was added, and nobody hears of it.
                return self.cut(index);
            }
            let link = &mut self.instances[index].life().link;
            link.head = Some(sealed.head.clone());
            link.news.push_back(News::Changes(vec![sealed]));
        }
    }

    /// What was on its way arrives.
    fn deliver(&mut self, index: usize) {
        let link = &mut self.instances[index].life().link;
        if let Some(news) = link.news.pop_front() {
            assert!(link.end.teller().try_tell(news), "there is room");
        }
    }

    /// The list is what it was at a backup; every way to it is gone.
    fn restore(&mut self, backup: Vec<Sealed>) {
        self.list = backup;
        self.restored = true;
        for index in 0..INSTANCES {
            self.cut(index);
        }
        self.leader = None;
    }

    /// A process is killed, and perhaps its machine, and starts again.
    fn kill(&mut self, index: usize) {
        if self.leader == Some(index) {
            self.leader = None;
        }
        let with_power = self.chance.one_in(2);
        let chance = &mut self.chance;
        let instance = &mut self.instances[index];
        // What nobody was told to be safe may be lost.
        if with_power {
            while instance.life().bench.step() {}
        }
        instance.life = None;
        instance
            .device
            .lose_power(|| with_power || chance.one_in(2));
        let life = start(
            self.harbour,
            index,
            &instance.directory,
            &instance.device,
            &instance.clock,
        );
        instance.life = Some(life);
    }

    fn turn(&mut self, index: usize) {
        self.instances[index].life().keeper.serve();
        self.look_at_answers(index);
        let life = self.instances[index].life();
        let keeper = &life.keeper;
        let mut blocked = BTreeSet::new();
        for (name, effective) in &keeper.effective {
            check_blocks(name, effective, &keeper.world.state);
            let state = keeper.world.state.services.get(name);
            let labels = state.into_iter().flat_map(|state| state.blocked.keys());
            blocked.extend(labels.map(|label| (name.clone(), label.clone())));
        }
        for (service, label) in life.blocked.difference(&blocked) {
            let mut asked = self.unblocked.iter();
            assert!(
                asked.any(|(name, _)| name == service),
                "{service}: nobody asked for {label:?} to be let in again, at instance {index}"
            );
        }
        life.blocked = blocked;
    }

    /// What somebody is told to be shared is in the list at that moment.
    fn look_at_answers(&mut self, index: usize) {
        let life = self.instances[index].life.as_mut().expect("alive");
        let mut told = Vec::new();
        life.answers.retain_mut(|answer| match answer.try_recv() {
            Ok(Ok(applied)) => {
                match applied.shared {
                    Shared::Known(number) => told.push(number),
                    Shared::UnderWay(number) => life.numbers.push(number),
                    // Nothing was ever shared.
                    Shared::Alone => {}
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => false,
        });
        life.numbers.retain_mut(|number| match number.try_recv() {
            Ok(Ok(number)) => {
                told.push(number);
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => false,
        });
        if self.restored {
            // Who was told something before may find that nobody is alive who knows of it.
            return;
        }
        let last = head_of(&self.list).map_or(0, |head| head.revision);
        for number in told {
            assert!(number <= last, "{number} was told, {last} is shared");
        }
        let brought = self.list.iter().skip(1).find(|sealed| sealed.entry.whole);
        let brought = brought.map(|sealed| sealed.head.revision);
        assert_eq!(
            brought, None,
            "nothing was lost that had to be brought back"
        );
    }

    /// Everything is connected and comes to rest: all agree, and nothing is left to be told.
    fn end(mut self) {
        let mut known: BTreeSet<(Name, String)> = BTreeSet::new();
        for instance in &mut self.instances {
            instance.reachable = true;
            known.extend(instance.life().blocked.clone());
        }
        for _ in 0..200 {
            for index in 0..INSTANCES {
                self.join_or_watch(index);
                self.add(index);
                self.deliver(index);
                self.turn(index);
                while self.instances[index].life().bench.step() {}
            }
        }
        let head = head_of(&self.list).expect("something is shared");
        let shared = |state: &State| {
            let mut state = state.clone();
            state.shared = None;
            // Nothing is known of a service either way.
            let nothing = ServiceState::default();
            state.services.retain(|_, service| *service != nothing);
            state
        };
        let first = shared(&self.instances[0].life().keeper.world.state);
        for (index, instance) in self.instances.iter_mut().enumerate() {
            let state = &instance.life().keeper.world.state;
            assert_eq!(
                state.shared.as_ref(),
                Some(&head),
                "instance {index} is behind"
            );
            assert!(
                state.unshared.is_empty(),
                "instance {index} keeps {:#?}",
                state.unshared
            );
            assert_eq!(shared(state), first, "instance {index} has another state");
        }
        for (service, label) in known {
            let kept = first.services[&service].blocked.contains_key(&label);
            let asked = self.unblocked.iter().any(|(name, _)| *name == service);
            assert!(kept || asked, "{service}: the block of {label:?} was lost");
        }
    }
}

fn start(
    harbour: &Harbour,
    index: usize,
    directory: &Path,
    device: &Device,
    clock: &Arc<Mutex<Clock>>,
) -> Life {
    std::fs::create_dir_all(directory).expect("a directory");
    let (store, bench, found) = Bench::open(directory, device).expect("the disk can be read");
    let state = match found {
        Found::Nothing => State::default(),
        Found::Database(state) => state,
        Found::Copy(..) | Found::Lost(_) => unreachable!("no disk is damaged here: {found:?}"),
    };
    let name = ["a", "b", "c"][index];
    let (end, link, thread) = wire::ends(name.into(), state.shared.clone(), false);
    let at = clock.lock().unwrap_or_else(PoisonError::into_inner).at;
    let (_, roster) = watch::channel(Arc::new(Roster::unknown(at)));
    let fleet = Fleet {
        instance: name.into(),
        cluster: "edge".into(),
        roster,
        orders: mpsc::channel(1).0,
    };
    let config = harbour.files[0].clone();
    let start = Start {
        plane: harbour.planes[index].clone(),
        config_before: Some(config.clone()),
        config,
        material: Arc::new(Material::default()),
        addresses: Addresses::default(),
        state,
        store,
        events: Events::new(at),
        clock: SteadyClock::start(),
        follower: watch::channel(handover::NOBODY).1,
        joining: Some(Joining {
            end,
            thread,
            fleet,
            isolated: false,
        }),
        trust: Trust::new(Instant::now()),
    };
    let (urgent, urgent_queue) = sync_channel(COMMAND_QUEUE);
    let (ordinary, ordinary_queue) = sync_channel(COMMAND_QUEUE);
    let clock = clock.clone();
    let time: Time = Box::new(move || *clock.lock().unwrap_or_else(PoisonError::into_inner));
    let (keeper, _) = Keeper::new(start, time, urgent_queue, ordinary_queue);
    Life {
        keeper,
        bench,
        urgent,
        ordinary,
        link: Link {
            end: link,
            joined: false,
            head: None,
            news: VecDeque::new(),
        },
        blocked: BTreeSet::new(),
        answers: Vec::new(),
        numbers: Vec::new(),
    }
}
