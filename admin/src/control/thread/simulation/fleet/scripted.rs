//! What happens in one order only: hand-overs, lost answers, and two who bring back what etcd has lost.

use switchback_proxy::health::Probed;

use super::*;
use crate::cluster::Entry;
use crate::control::Shared;

/// One instance that brings its state to an empty list.
fn first_instance(harbour: &Harbour, directory: &Path) -> Life {
    let clock = Clock {
        now: Duration::from_secs(1),
        at: Timestamp::UNIX_EPOCH,
        told: Timestamp::UNIX_EPOCH,
    };
    let clock = Arc::new(Mutex::new(clock));
    let mut life = start(harbour, 0, directory, &Device::default(), &clock);
    assert!(life.link.end.teller().try_tell(List::default().news()));
    life.keeper.serve();
    let whole = life.link.end.proposals.try_recv().expect("a whole state");
    assert!(life.link.end.teller().try_tell(News::Changes(vec![whole])));
    life.keeper.serve();
    life
}

fn ask(life: &mut Life, command: Command) -> oneshot::Receiver<Result<Applied, Refusal>> {
    let answer = life.send(command).expect("a place");
    life.keeper.serve();
    answer
}

fn weights() -> Command {
    Command::SetWeights {
        service: "shop".into(),
        weights: [("blue", 50), ("green", 50), ("red", 0)]
            .map(|(name, weight)| (Name::from(name), weight))
            .into(),
        lease: None,
    }
}

/// One that has shared a split of half and half since.
fn instance_that_splits(harbour: &Harbour, directory: &Path) -> Life {
    let mut life = first_instance(harbour, directory);
    let mut answer = ask(&mut life, weights());
    let change = life.link.end.proposals.try_recv().expect("a change");
    assert!(life.link.end.teller().try_tell(News::Changes(vec![change])));
    life.keeper.serve();
    assert!(answer.try_recv().is_ok_and(|answer| answer.is_ok()));
    life
}

/// Another instance was first.
fn come_second(life: &mut Life, base: &State, proposed: Sealed) {
    let teller = life.link.end.teller();
    assert!(teller.try_tell(News::Changes(vec![foreign(base, |_| ())])));
    assert!(teller.try_tell(News::Refused {
        hash: proposed.head.hash,
        why: NotAdded::Second,
    }));
    life.keeper.serve();
}

#[test]
fn hand_over_waits_for_what_is_being_added_and_for_nothing_else() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = first_instance(&harbour, directory.path());
    let mut answer = ask(&mut life, weights());
    let change = life.link.end.proposals.try_recv().expect("a change");
    let (relay, _luggage) = handover::Relay::idle();
    let (told, mut is_told) = oneshot::channel();
    let sent = life.urgent.try_send(Message::Lend(relay, told));
    sent.expect("a place");
    life.keeper.serve();
    assert!(is_told.try_recv().is_err(), "a change is being added");
    assert!(life.link.end.teller().try_tell(News::Changes(vec![change])));
    life.keeper.serve();
    assert!(answer.try_recv().is_ok_and(|answer| answer.is_ok()));
    life.keeper.serve();
    assert!(
        is_told.try_recv().is_ok(),
        "nothing is being added any more"
    );
}

#[test]
fn block_that_others_brought_back_and_lifted_is_not_brought_back_again() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = first_instance(&harbour, directory.path());
    let before = life.keeper.world.state.clone();
    let block = Command::Block {
        service: "shop".into(),
        backend: "green".into(),
        force: false,
    };
    drop(ask(&mut life, block));
    let block = life.link.end.proposals.try_recv().expect("a block");
    assert!(life.link.end.teller().try_tell(News::Changes(vec![block])));
    life.keeper.serve();
    let blocked = life.keeper.world.state.clone();
    assert!(blocked.services["shop"].blocked.contains_key("2"));
    // A backup from before the block is restored, and this instance wants to bring the block back.
    let teller = life.link.end.teller();
    assert!(teller.try_tell(News::Away));
    assert!(teller.try_tell(News::Joined {
        shared: Some(Box::new(before.clone())),
        missed: Vec::new(),
        follows: false,
        regained: None,
    }));
    life.keeper.serve();
    let own = life.link.end.proposals.try_recv().expect("a whole state");
    // Another one was first, and somebody has lifted the block there.
    let name = Name::from("b");
    let whole = State {
        revision: own.head.revision,
        ..blocked
    };
    let whole = Entry::whole(&name, before.shared.as_ref(), &whole);
    let whole = whole.seal().expect("JSON");
    let mut with_block = before;
    whole.entry.apply(&whole.head, &mut with_block);
    let mut lifted = with_block.clone();
    lifted.revision += 1;
    let shop = lifted.services.get_mut("shop").expect("the shop");
    shop.blocked.clear();
    let lifted = Entry::between(&name, &with_block, &lifted, Vec::new());
    let changes = vec![whole, lifted.seal().expect("JSON")];
    assert!(teller.try_tell(News::Changes(changes)));
    assert!(teller.try_tell(News::Refused {
        hash: own.head.hash,
        why: NotAdded::Second,
    }));
    life.keeper.serve();
    let state = &life.keeper.world.state;
    assert!(state.services["shop"].blocked.is_empty(), "{state:#?}");
    assert!(state.unshared.is_empty());
    assert!(life.link.end.proposals.try_recv().is_err());
}

#[test]
fn answer_that_is_lost_is_not_a_refusal() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = first_instance(&harbour, directory.path());
    let mut answer = ask(&mut life, weights());
    assert!(life.link.end.teller().try_tell(News::Away));
    life.keeper.serve();
    let refusal = answer
        .try_recv()
        .expect("an answer")
        .expect_err("nobody knows");
    assert_eq!(refusal.code(), "cluster_unknown");
    // What cannot be asked of the others is refused, and a rollback is not.
    let mut answer = ask(&mut life, weights());
    let refusal = answer
        .try_recv()
        .expect("an answer")
        .expect_err("etcd is away");
    assert_eq!(refusal.code(), "cluster_unreachable");
}

/// Green is blocked; the change that is to be added.
fn block_green(life: &mut Life, force: bool) -> Sealed {
    let block = Command::Block {
        service: "shop".into(),
        backend: "green".into(),
        force,
    };
    drop(ask(life, block));
    assert!(is_blocked(life));
    life.link.end.proposals.try_recv().expect("a block")
}

fn is_blocked(life: &Life) -> bool {
    let shop = life.keeper.world.state.services.get("shop");
    shop.is_some_and(|shop| shop.blocked.contains_key("2"))
}

/// What another instance adds after a state, which changes it by this.
fn foreign(before: &State, change: impl FnOnce(&mut State)) -> Sealed {
    let mut after = before.clone();
    after.revision += 1;
    change(&mut after);
    let entry = Entry::between(&"b".into(), before, &after, Vec::new());
    entry.seal().expect("JSON")
}

fn set_probed(harbour: &Harbour, backend: &str, probed: Probed) {
    for service in &harbour.planes[0].snapshot().services {
        for found in service
            .backends
            .iter()
            .filter(|found| *found.name == *backend)
        {
            for endpoint in &found.endpoints {
                endpoint.health.set_probed(probed);
            }
        }
    }
}

#[test]
fn block_that_was_forced_holds_whatever_others_have_changed_meanwhile() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = instance_that_splits(&harbour, directory.path());
    set_probed(&harbour, "blue", Probed::Down);
    let base = life.keeper.world.state.clone();
    let block = block_green(&mut life, true);
    come_second(&mut life, &base, block);
    assert!(is_blocked(&life), "somebody insisted");
    let again = life.link.end.proposals.try_recv();
    assert!(again.is_ok_and(|again| again.entry.services.contains_key("shop")));
}

#[test]
fn block_that_was_lifted_while_its_answer_was_lost_stays_lifted() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = first_instance(&harbour, directory.path());
    let mut shared = life.keeper.world.state.clone();
    let block = block_green(&mut life, false);
    // It was added, and nobody here heard of it; another instance has lifted it.
    block.entry.apply(&block.head, &mut shared);
    let lifted = foreign(&shared, |state| {
        let shop = state.services.get_mut("shop").expect("the shop");
        shop.blocked.clear();
    });
    lifted.entry.apply(&lifted.head, &mut shared);
    let teller = life.link.end.teller();
    assert!(teller.try_tell(News::Away));
    assert!(teller.try_tell(News::Joined {
        shared: Some(Box::new(shared)),
        missed: vec![block, lifted],
        follows: true,
        regained: None,
    }));
    life.keeper.serve();
    assert!(!is_blocked(&life), "it was let in again on purpose");
    assert!(life.keeper.world.state.unshared.is_empty());
}

#[test]
fn block_that_does_not_hold_on_what_others_have_made_is_not_answered_as_if_it_did() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = instance_that_splits(&harbour, directory.path());
    let base = life.keeper.world.state.clone();
    let block = Command::Block {
        service: "shop".into(),
        backend: "green".into(),
        force: false,
    };
    let mut answer = ask(&mut life, block);
    let block = life.link.end.proposals.try_recv().expect("a block");
    let applied = answer.try_recv().expect("an answer").expect("applied");
    let Shared::UnderWay(mut shared) = applied.shared else {
        panic!("the others do not know yet");
    };
    // By the time it is decided again, stable works nowhere.
    set_probed(&harbour, "blue", Probed::Down);
    come_second(&mut life, &base, block);
    let refusal = shared
        .try_recv()
        .expect("told")
        .expect_err("it does not hold");
    assert_eq!(refusal.code(), "target_unhealthy");
}

#[test]
fn news_wait_for_the_end_of_a_hand_over_but_for_that_canaries_must_close() {
    let harbour = Harbour::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut life = instance_that_splits(&harbour, directory.path());
    let teller = life.link.end.teller();
    let green = |life: &Life| life.keeper.effective["shop"].weight("green");
    assert_eq!(green(&life), 50);
    let (relay, _luggage) = handover::Relay::idle();
    let (told, mut is_told) = oneshot::channel();
    let sent = life.urgent.try_send(Message::Lend(relay, told));
    sent.expect("a place");
    life.keeper.serve();
    assert!(is_told.try_recv().is_ok());
    let base = life.keeper.world.state.clone();
    assert!(teller.try_tell(News::Changes(vec![foreign(&base, |_| ())])));
    assert!(teller.try_tell(News::Isolated(true)));
    life.keeper.serve();
    assert_eq!(green(&life), 0);
    assert_eq!(life.keeper.world.state.revision, base.revision);
    // Nothing came of it.
    let (told, _is_told) = oneshot::channel();
    let sent = life.urgent.try_send(Message::TakeBack(None, told));
    sent.expect("a place");
    life.keeper.serve();
    life.keeper.serve();
    assert_eq!(life.keeper.world.state.revision, base.revision + 1);
}
