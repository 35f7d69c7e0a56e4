//! Evidence on a real disk.

use std::time::Duration;

use switchback_config::defaults::ROLLBACKS_KEPT;

use super::*;
use crate::evidence::tests::record;
use crate::evidence::{Action, Recovery, RecoveryState};

fn ask<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn numbers(store: &Store, service: Option<&str>, below: Option<u64>, limit: usize) -> Vec<u64> {
    let found = ask(store.rollbacks(service.map(str::to_owned), below, limit)).expect("read");
    found.iter().map(|summary| summary.id).collect()
}

#[test]
fn record_is_found_again_and_can_be_amended() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    store.save_rollback(Box::new(record(7)));
    assert_eq!(ask(store.rollback(7)), Ok(Some(record(7))));
    let recovery = Recovery {
        state: RecoveryState::Recovered,
        ..Recovery::pending(0.02)
    };
    let action = Action {
        at: record(7).at,
        what: "hook delivered".into(),
    };
    let amendment = Amendment {
        recovery: Some(recovery.clone()),
        actions: vec![action],
        ..Amendment::default()
    };
    store.amend_rollback(7, Box::new(amendment.clone()));
    store.amend_rollback(8, Box::new(amendment));
    store.stop(Duration::from_secs(10));
    let (store, _) = Store::open(directory.path()).expect("open");
    let found = ask(store.rollback(7)).expect("read").expect("kept");
    assert_eq!(found.recovery, recovery);
    assert_eq!(found.actions.len(), 3);
    assert_eq!(found.verify(), Ok(true));
    let summaries = ask(store.rollbacks(None, None, 10)).expect("read");
    assert_eq!(summaries, [found.summary()]);
    assert_eq!(ask(store.rollback(8)), Ok(None), "nothing to amend");
}

#[test]
fn check_that_a_former_process_left_open_is_closed() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    store.save_rollback(Box::new(record(7)));
    store.stop(Duration::from_secs(10));
    let (store, _) = Store::open(directory.path()).expect("open");
    let found = ask(store.rollback(7)).expect("read").expect("kept");
    assert_eq!(found.recovery.state, RecoveryState::Interrupted);
    assert_eq!(
        found.recovery.sentence,
        "switchback was restarted before this was known"
    );
}

#[test]
fn oldest_records_go_and_lists_have_pages() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let mut small = record(0);
    small.versions.clear();
    for id in 1..=ROLLBACKS_KEPT + 3 {
        let service = if id % 2 == 0 { "shop" } else { "site" };
        let waiting = Box::new(crate::evidence::Record {
            id: 10 * id,
            service: service.into(),
            ..small.clone()
        });
        store.save_rollback(waiting);
        // The queue of the store is bounded.
        ask(store.rollback(10 * id)).expect("read").expect("kept");
    }
    let all = numbers(&store, None, None, 1_000);
    assert_eq!(all.len() as u64, ROLLBACKS_KEPT);
    assert_eq!((all[0], all.last()), (10 * (ROLLBACKS_KEPT + 3), Some(&40)));
    assert_eq!(ask(store.rollback(30)), Ok(None));
    assert_eq!(numbers(&store, None, Some(60), 10), [50, 40]);
    assert_eq!(numbers(&store, Some("shop"), Some(90), 2), [80, 60]);
    assert_eq!(numbers(&store, Some("other"), None, 2), [0; 0]);
}

#[test]
fn record_that_is_too_large_is_kept_without_its_recordings() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let mut large = record(7);
    let judge = large.versions[0].judges[0].clone();
    large.versions[0].judges = vec![judge; 64];
    store.save_rollback(Box::new(large));
    let found = ask(store.rollback(7)).expect("read").expect("kept");
    assert!(
        found.versions[0]
            .judges
            .iter()
            .all(|judge| judge.tape.is_none())
    );
    assert_eq!(found.verify(), Ok(false));
}

#[test]
fn evidence_waits_for_the_disk_in_order_and_bounded() {
    let directory = tempfile::tempdir().expect("directory");
    let mut waiting = Backlog::default();
    for id in 0..100 {
        waiting.add(Piece::Record(Box::new(record(id))));
    }
    assert_eq!(waiting.pieces.len(), WAITING_MAX);
    let (mut database, _) =
        Database::open(crate::store::database::opener(directory.path())).expect("open");
    assert_eq!(waiting.save(&mut database), Ok(()));
    assert!(waiting.is_empty());
    let kept = database.rollbacks(None, None, 1_000).expect("read");
    let ids: Vec<u64> = kept.iter().map(|summary| summary.id).collect();
    assert_eq!((ids[0], ids.len()), (99, WAITING_MAX), "the oldest went");
}
