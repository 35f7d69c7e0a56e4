//! What happens in one order only: hand-overs, lost answers, and two who bring back what etcd has lost.

use super::*;
use crate::cluster::Entry;

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
        knows: None,
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
