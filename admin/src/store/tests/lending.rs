//! A state directory that another process had for a while, and gave up.

use super::*;
use crate::evidence::RecoveryState;
use crate::evidence::tests::record;
use crate::store::outbox::tests::{commit as persist, texts, waiting};

fn rollbacks(store: &Store) -> Vec<(u64, RecoveryState)> {
    let found = ask(store.rollbacks(None, None, 10)).expect("read");
    let found = found.iter();
    found
        .map(|summary| (summary.id, summary.recovery))
        .collect()
}

#[test]
fn nothing_is_told_of_what_another_process_wrote_that_never_served() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    persist(&store, 0, 1, true, "before");
    store.save_rollback(Box::new(record(1)));
    assert_eq!(rollbacks(&store), [(1, RecoveryState::Pending)]);
    let lock = ask(store.lend()).expect("lent");
    let (other, found) = Store::take_over(directory.path(), lock).expect("taken over");
    assert_eq!(found, Found::Database(state(1)));
    persist(&other, 1, 2, true, "its own, in force");
    persist(&other, 2, 3, false, "its own, held");
    other.save_rollback(Box::new(record(2)));
    assert_eq!(
        rollbacks(&other),
        [(2, RecoveryState::Pending), (1, RecoveryState::Pending)],
        "the process before goes on with its check"
    );
    other.stop(Duration::from_secs(10));
    assert_eq!(ask(store.take_back()), Ok(Some(3)));
    assert_eq!(texts(&waiting(&store)), ["before"]);
    assert_eq!(rollbacks(&store), [(1, RecoveryState::Pending)]);
    assert_eq!(ask(store.rollback(2)), Ok(None));
    // What is told later is what is in force here, and nobody takes it for what was told there.
    let last_there = 3;
    persist(&store, 1, 4, true, "after");
    let now = waiting(&store);
    assert_eq!(texts(&now), ["before", "after"]);
    assert!(now[1].id >= last_there, "{}", now[1].id);
    store.stop(Duration::from_secs(10));
    let (store, found) = Store::open(directory.path()).expect("open");
    assert_eq!(found, Found::Database(state(4)));
    assert_eq!(texts(&waiting(&store)), ["before", "after"]);
}

#[test]
fn checks_are_closed_by_a_process_that_serves_and_only_those_of_the_one_before() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    persist(&store, 0, 1, true, "before");
    store.save_rollback(Box::new(record(1)));
    let lock = ask(store.lend()).expect("lent");
    let (other, found) = Store::take_over(directory.path(), lock).expect("taken over");
    other.save_rollback(Box::new(record(2)));
    ask(other.close_checks(found.revision()));
    assert_eq!(
        rollbacks(&other),
        [(2, RecoveryState::Pending), (1, RecoveryState::Interrupted)]
    );
}
