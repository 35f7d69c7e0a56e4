//! The outbox on a real disk: what is sent, what never is, and what survives.

use jiff::Timestamp;
use switchback_config::model::HookEvent;

use super::*;
use crate::hooks::delivery::{CloudEvent, Happening};
use crate::store::tests::{ask, commit_of};

pub(in crate::store) fn message(text: &str) -> Delivery {
    let data = Happening {
        service: "shop".into(),
        event: HookEvent::Rollback,
        kind: "rolled_back".into(),
        message: text.into(),
        backend: None,
        version: None,
        revision: None,
        by: "ops".into(),
        reason: None,
        cause: None,
        weights: indexmap::IndexMap::new(),
        stable: "blue".into(),
    };
    Delivery::new(
        "hook-1".into(),
        CloudEvent::new(Timestamp::UNIX_EPOCH, data),
    )
}

/// Persists a change that tells this.
pub(in crate::store) fn commit(
    store: &Store,
    base: u64,
    revision: u64,
    in_force: bool,
    text: &str,
) {
    let mut commit = commit_of(revision);
    commit.keep_trying = in_force;
    commit.outgoing = Outgoing {
        base,
        deliveries: vec![message(text)],
    };
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    store.commit(
        commit,
        Box::new(move |result| sender.send(result).expect("waiting")),
    );
    done.recv().expect("an answer").expect("persisted");
}

pub(in crate::store) fn texts(deliveries: &[Delivery]) -> Vec<&str> {
    let messages = deliveries.iter();
    messages
        .map(|delivery| delivery.event.data.message.as_str())
        .collect()
}

pub(in crate::store) fn waiting(store: &Store) -> Vec<Delivery> {
    ask(store.waiting(0)).expect("read").fresh
}

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(directory.path()).expect("opened");
    (directory, store)
}

#[test]
fn message_of_a_change_goes_when_the_change_is_in_force() {
    let (_directory, store) = open();
    commit(&store, 0, 1, false, "held");
    assert_eq!(texts(&waiting(&store)), [""; 0]);
    store.release(1);
    commit(&store, 1, 2, true, "at once");
    assert_eq!(texts(&waiting(&store)), ["held", "at once"]);
    let last = waiting(&store)[1].id;
    assert_eq!(
        texts(&ask(store.waiting(last - 1)).expect("read").fresh),
        ["at once"]
    );
}

#[test]
fn message_of_a_change_that_was_overtaken_never_goes() {
    let (directory, store) = open();
    // A rollback is persisted while the change waits to be applied: it is decided again.
    commit(&store, 1, 2, false, "overtaken");
    commit(&store, 1, 3, true, "rollback");
    store.void(2);
    store.release(2);
    commit(&store, 3, 4, false, "void");
    store.void(4);
    assert_eq!(texts(&waiting(&store)), ["rollback"]);
    store.stop(std::time::Duration::from_secs(10));
    let (store, _) = Store::open(directory.path()).expect("opened");
    assert_eq!(texts(&waiting(&store)), ["rollback"]);
}

#[test]
fn rollback_is_told_after_what_was_in_force_before_it() {
    let (_directory, store) = open();
    // In force, but the word of it is still on the way, or the disk was full when it came.
    commit(&store, 0, 1, false, "switched");
    commit(&store, 1, 2, true, "rolled back");
    store.release(1);
    assert_eq!(texts(&waiting(&store)), ["switched", "rolled back"]);
}

#[test]
fn held_messages_go_after_a_restart_since_what_is_persisted_is_in_force() {
    let (directory, store) = open();
    commit(&store, 0, 1, false, "held");
    store.stop(std::time::Duration::from_secs(10));
    let (store, _) = Store::open(directory.path()).expect("opened");
    assert_eq!(texts(&waiting(&store)), ["held"]);
}

#[test]
fn dead_letters_survive_and_keep_their_id_when_sent_again() {
    let (directory, store) = open();
    store.enqueue(vec![message("one"), message("two")]);
    let mut one = waiting(&store).remove(0);
    one.attempts = 3;
    assert_eq!(ask(store.settle(Settlement::Again(one.clone()))), Ok(0));
    assert_eq!(waiting(&store)[0].attempts, 3);
    assert_eq!(ask(store.settle(Settlement::Dead(one.clone()))), Ok(1));
    store.stop(std::time::Duration::from_secs(10));
    let (store, _) = Store::open(directory.path()).expect("opened");
    let dead = ask(store.deliveries(List::Dead, 10)).expect("read");
    assert_eq!(dead, std::slice::from_ref(&one));
    assert_eq!(ask(store.revive(one.id)), Ok(true));
    assert_eq!(ask(store.revive(one.id)), Ok(false));
    let again = waiting(&store).pop().expect("a message");
    assert_eq!(again.event, one.event);
    assert_eq!(again.attempts, 0);
    assert!(again.id > one.id + 1);
    assert_eq!(ask(store.settle(Settlement::Dead(again.clone()))), Ok(1));
    assert_eq!(ask(store.bury(again.id)), Ok(true));
    assert_eq!(ask(store.bury(again.id)), Ok(false));
    assert_eq!(ask(store.deliveries(List::Dead, 10)), Ok(Vec::new()));
}

#[test]
fn message_of_a_drill_is_in_no_list_and_never_a_dead_letter() {
    let (_directory, store) = open();
    let rehearsed = |text: &str| {
        let mut message = message(text);
        message.event.data.service = crate::drill::shadow::name_of("shop");
        message
    };
    let ends = ["delivered", "dead", "waits"];
    store.enqueue(ends.map(rehearsed).into());
    store.enqueue(vec![message("in earnest")]);
    let all = waiting(&store);
    let [delivered, dead, ..] = &all[..] else {
        panic!("they are on their way");
    };
    let delivered = Settlement::Delivered(delivered.clone());
    assert_eq!(ask(store.settle(delivered)), Ok(0));
    assert_eq!(ask(store.settle(Settlement::Dead(dead.clone()))), Ok(0));
    assert_eq!(texts(&waiting(&store)), ["waits", "in earnest"]);
    let listed = |list| ask(store.deliveries(list, 1)).expect("read");
    assert_eq!(texts(&listed(List::Waiting)), ["in earnest"]);
    for list in [List::Delivered, List::Dead] {
        assert_eq!(listed(list), Vec::new());
    }
    // Nor if there is no room for it.
    store.enqueue((0..OUTBOX_MAX).map(|_| message("more")).collect());
    assert_eq!(texts(&listed(List::Dead)), ["in earnest"]);
    assert_eq!(ask(store.waiting(0)).expect("read").dead, 1);
}

#[test]
fn full_outbox_gives_up_its_oldest_messages_and_says_why() {
    let (_directory, store) = open();
    let many = (0..=OUTBOX_MAX).map(|number| message(&number.to_string()));
    store.enqueue(many.collect());
    let read = ask(store.waiting(0)).expect("read");
    assert_eq!(read.fresh.len(), OUTBOX_MAX);
    assert_eq!((read.oldest, read.dead), (read.fresh[0].id, 1));
    assert_eq!(read.fresh[0].event.data.message, "1");
    let dead = ask(store.deliveries(List::Dead, 10)).expect("read");
    let last = dead[0].last.as_ref().expect("a reason");
    assert_eq!(last.result, "more than 1000 messages were waiting");
    // What was pushed out does not come back by what became of it.
    assert_eq!(ask(store.settle(Settlement::Again(dead[0].clone()))), Ok(1));
    assert_eq!(waiting(&store).len(), OUTBOX_MAX);
}

#[test]
fn only_so_many_dead_letters_and_deliveries_are_kept() {
    let (_directory, store) = open();
    store.enqueue(
        (0..300)
            .map(|number| message(&number.to_string()))
            .collect(),
    );
    for delivery in waiting(&store) {
        assert_eq!(ask(store.settle(Settlement::Delivered(delivery))), Ok(0));
    }
    let kept = ask(store.deliveries(List::Delivered, 1_000)).expect("read");
    assert_eq!(kept.len(), DELIVERIES_KEPT);
    assert_eq!(kept[0].event.data.message, "299");
    for _ in 0..3 {
        store.enqueue((0..OUTBOX_MAX).map(|_| message("more")).collect());
    }
    let read = ask(store.waiting(0)).expect("read");
    assert_eq!(read.dead, u64::try_from(DEAD_LETTERS_MAX).expect("small"));
}
