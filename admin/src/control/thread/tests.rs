//! The control thread beside a disk that does not answer, and a process that takes nothing.

use std::net::SocketAddr;

use switchback_config::model::LogPath;
use switchback_proxy::access_log::AccessLog;
use tokio::sync::oneshot;

use super::*;
use crate::command::FlagChange;
use crate::control::Brought;
use crate::handover::{NOBODY, Relay};
use crate::store::simulated::{Bench, Device};

/// A control thread that turns when it is told to, and a disk that works when it is told to.
struct Desk {
    keeper: Keeper,
    bench: Bench,
    urgent: SyncSender<Message>,
    ordinary: SyncSender<Message>,
    _directory: tempfile::TempDir,
}

fn config(endpoint: &str, more: &str) -> Arc<Config> {
    let text = format!(
        r#"
version: 1
listeners: {{web: {{address: "127.0.0.1:0"}}}}
routes: [{{service: shop}}]
services:
  shop:
    stable: blue
    backends:
      blue: {{version: "1", endpoints: ["{endpoint}"]}}
{more}"#
    );
    Arc::new(switchback_config::parse(&text).config.expect("valid"))
}

impl Desk {
    fn new(config: &Arc<Config>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let device = Device::default();
        let (store, bench, _) = Bench::open(directory.path(), &device).expect("a disk");
        let log = AccessLog::start(LogPath::File("/dev/null".into())).expect("a log");
        let start = std::time::Instant::now();
        let plane = DataPlane::start(1, Snapshot::empty(), log, None, start).expect("a data plane");
        let plane = Arc::new(plane);
        let clock = SteadyClock::start();
        let start = Start {
            plane: plane.clone(),
            config: config.clone(),
            config_before: None,
            material: Arc::default(),
            addresses: Addresses::default(),
            state: State::default(),
            store,
            events: Events::new(Timestamp::UNIX_EPOCH),
            clock,
            follower: watch::channel(NOBODY).1,
            joining: None,
            trust: Trust::new(start),
        };
        let time: Time = Box::new(move || Clock {
            now: plane.uptime(),
            at: clock.now(),
            told: Timestamp::now(),
        });
        let (urgent, urgent_queue) = sync_channel(COMMAND_QUEUE);
        let (ordinary, ordinary_queue) = sync_channel(COMMAND_QUEUE);
        let (keeper, _) = Keeper::new(start, time, urgent_queue, ordinary_queue);
        Self {
            keeper,
            bench,
            urgent,
            ordinary,
            _directory: directory,
        }
    }

    fn ask(
        &self,
        command: Command,
        addresses: Addresses,
    ) -> oneshot::Receiver<Result<Applied, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let queue = match command.is_urgent() {
            true => &self.urgent,
            false => &self.ordinary,
        };
        let request = Request {
            command,
            asked: Asked::by_itself("api", None),
            brought: Brought {
                material: None,
                addresses,
            },
            record: None,
            reply,
        };
        let sent = queue.try_send(Message::Ask(Box::new(request)));
        sent.expect("a place");
        answer
    }

    /// Says what was looked up; whether it is in force after one turn.
    fn tell(&mut self, found: Found) -> bool {
        let (told, mut is_told) = oneshot::channel();
        let sent = self.urgent.try_send(Message::Addresses(found, told));
        sent.expect("a place");
        self.keeper.serve();
        is_told.try_recv().is_ok()
    }

    /// Where requests go.
    fn endpoints(&self) -> Vec<SocketAddr> {
        let snapshot = self.keeper.plane.snapshot();
        let endpoints = snapshot.services[0].backends[0].endpoints.iter();
        endpoints.map(|endpoint| endpoint.address).collect()
    }
}

fn addresses(name: &str, address: &str) -> Addresses {
    let address = address.parse().expect("an address");
    Addresses::from([((name.to_owned(), 80), vec![address])])
}

fn found(name: &str, address: &str) -> Found {
    Found {
        addresses: addresses(name, address),
        gone: Vec::new(),
    }
}

fn reload(name: &str) -> Command {
    Command::Reload {
        config: config(&format!("http://{name}:80"), ""),
    }
}

#[test]
fn addresses_are_in_force_at_once_though_the_disk_hangs() {
    let mut desk = Desk::new(&config("http://one.test:80", ""));
    while desk.bench.step() {}
    let mut waiting = desk.ask(reload("two.test"), addresses("two.test", "192.0.2.9:80"));
    desk.keeper.serve();
    assert!(desk.keeper.pending.is_some(), "the disk has it");
    assert!(desk.tell(found("one.test", "192.0.2.1:80")));
    assert_eq!(desk.endpoints(), ["192.0.2.1:80".parse().expect("one")]);
    assert!(waiting.try_recv().is_err(), "the change waits");
    // What waited is not decided again for it, and takes its own addresses along.
    while desk.bench.step() {}
    desk.keeper.serve();
    let applied = waiting.try_recv().expect("an answer").expect("applied");
    assert!(applied.changed);
    assert_eq!(desk.endpoints(), ["192.0.2.9:80".parse().expect("one")]);
}

#[test]
fn addresses_that_a_file_brought_stay_whatever_was_looked_up_before_it() {
    let mut desk = Desk::new(&config("http://one.test:80", ""));
    while desk.bench.step() {}
    assert!(desk.tell(found("one.test", "192.0.2.1:80")));
    let _answer = desk.ask(reload("two.test"), addresses("two.test", "192.0.2.2:80"));
    desk.keeper.serve();
    while desk.bench.step() {}
    desk.keeper.serve();
    let two = ["192.0.2.2:80".parse().expect("two")];
    assert_eq!(desk.endpoints(), two);
    // Whoever looks names up has not seen the new file yet, and believes its name to be nobody's.
    let late = Found {
        addresses: addresses("one.test", "192.0.2.7:80"),
        gone: vec![("two.test".into(), 80)],
    };
    assert!(desk.tell(late));
    assert_eq!(desk.endpoints(), two);
    // What nothing has is let go.
    let gone = Found {
        gone: vec![("one.test".into(), 80), ("two.test".into(), 80)],
        ..Found::default()
    };
    assert!(desk.tell(gone));
    let kept: Vec<_> = desk.keeper.addresses.keys().collect();
    assert_eq!(kept, [&("two.test".to_owned(), 80)]);
}

#[test]
fn command_that_could_not_be_sent_along_is_refused_and_not_in_force() {
    let flags: String = (0..=COMMAND_QUEUE)
        .map(|number| format!("  f{number}: {{default: true}}\n"))
        .collect();
    let mut desk = Desk::new(&config("http://127.0.0.1:1", &format!("flags:\n{flags}")));
    while desk.bench.step() {}
    let (relay, luggage) = Relay::idle();
    let (told, mut is_told) = oneshot::channel();
    let sent = desk.urgent.try_send(Message::Lend(relay, told));
    sent.expect("a place");
    desk.keeper.serve();
    assert!(is_told.try_recv().is_ok());
    let off = |number: usize| Command::ChangeFlag {
        flag: format!("f{number}"),
        change: FlagChange::Off,
    };
    for number in 0..COMMAND_QUEUE {
        let mut answer = desk.ask(off(number), Addresses::default());
        desk.keeper.serve();
        let applied = answer.try_recv().expect("an answer").expect("applied");
        assert!(applied.changed, "{number}");
    }
    let revision = desk.keeper.world.state.revision;
    let mut answer = desk.ask(off(COMMAND_QUEUE), Addresses::default());
    desk.keeper.serve();
    let refused = answer.try_recv().expect("an answer");
    assert!(matches!(refused, Err(Refusal::Busy)), "{refused:?}");
    assert_eq!(desk.keeper.world.state.revision, revision);
    // What changes nothing needs no place.
    let mut answer = desk.ask(off(0), Addresses::default());
    desk.keeper.serve();
    let unchanged = answer.try_recv().expect("an answer").expect("answered");
    assert!(!unchanged.changed);
    // Nobody sends anything along any more: it is kept here for when the state comes back.
    drop(luggage);
    let mut answer = desk.ask(off(COMMAND_QUEUE), Addresses::default());
    desk.keeper.serve();
    let applied = answer.try_recv().expect("an answer").expect("applied");
    assert!(applied.changed);
}
