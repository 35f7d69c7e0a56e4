//! The store on a real disk.

mod damage;
mod lending;
mod observed;
mod retention;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::history::Change;
use crate::state::{Block, ServiceState};

fn state(revision: u64) -> State {
    let block = Block {
        backend: "green".into(),
        by: "judge".into(),
        at: Timestamp::UNIX_EPOCH,
        cause: "judge".into(),
        reason: Some("it fails".into()),
    };
    let mut service = ServiceState::default();
    service.blocked.insert("42".into(), block);
    State {
        shared: None,
        unshared: Vec::new(),
        flags: Arc::default(),
        revision,
        services: BTreeMap::from([("shop".to_owned(), service)]),
        stable_only: false,
    }
}

pub(super) fn commit_of(revision: u64) -> Commit {
    let state = state(revision);
    let change = Change {
        before: ServiceState::default(),
        after: state.services["shop"].clone(),
        in_force_before: None,
        in_force_after: None,
    };
    Commit {
        revision: Some(Revision {
            revision,
            at: Timestamp::UNIX_EPOCH,
            by: "ops".into(),
            via: "api".into(),
            how: None,
            action: "rollback".into(),
            reason: None,
            notes: vec![format!("number {revision}")],
            changes: BTreeMap::from([("shop".to_owned(), change)]),
            flags: BTreeMap::new(),
        }),
        audit: Some(AuditEntry {
            at: Timestamp::UNIX_EPOCH,
            by: "ops".into(),
            via: "api".into(),
            action: "rollback".into(),
            service: Some("shop".into()),
            reason: None,
            result: "done".into(),
            revision: Some(revision),
            ..AuditEntry::default()
        }),
        state: Arc::new(state),
        keep_trying: false,
        revisions_kept: switchback_config::defaults::REVISIONS_KEPT,
        outgoing: Outgoing::default(),
    }
}

fn commit(store: &Store, revision: u64) -> Result<(), String> {
    let (sender, done) = sync_channel(1);
    store.commit(
        commit_of(revision),
        Box::new(move |result| sender.send(result).expect("waiting")),
    );
    done.recv().expect("an answer")
}

pub(super) fn ask<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime")
        .block_on(future)
}

#[test]
fn committed_state_is_found_again() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, found) = Store::open(directory.path()).expect("open");
    assert_eq!(found, Found::Nothing);
    assert_eq!(commit(&store, 1), Ok(()));
    assert_eq!(commit(&store, 2), Ok(()));
    store.stop(Duration::from_secs(10));
    let (store, found) = Store::open(directory.path()).expect("open");
    assert_eq!(found, Found::Database(state(2)));
    let revisions = ask(store.revisions(None, None, 10)).expect("read");
    assert_eq!(
        revisions.iter().map(|r| r.revision).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(
        ask(store.revisions(None, Some(2), 10)).expect("read").len(),
        1
    );
    assert_eq!(ask(store.audit_entries(10)).expect("read").len(), 2);
    store.void(2);
    assert_eq!(ask(store.revision(2)), Ok(None));
}

#[test]
fn looks_at_the_past_do_not_wait_for_a_disk_that_hangs() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let (go_on, hangs) = sync_channel::<()>(1);
    let patience = Duration::from_millis(10);
    let hung = store.read_within(patience, move |_| hangs.recv().map_err(|e| e.to_string()));
    let late = || "the disk has not answered for 10ms".to_owned();
    assert_eq!(ask(hung), Err(late()));
    let behind = store.read_within(patience, |database| database.revisions(None, None, 10));
    assert_eq!(ask(behind), Err(late()));
    go_on.send(()).expect("it hangs");
    assert_eq!(ask(store.revisions(None, None, 10)), Ok(Vec::new()));
}

#[test]
fn nothing_stays_of_services_that_were_recorded_only_by_a_change_that_was_taken_back() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let mut taken_back = commit_of(1);
    let state = Arc::make_mut(&mut taken_back.state);
    state
        .services
        .insert("cart".into(), ServiceState::default());
    store.commit(taken_back, Box::new(|_| ()));
    store.void(1);
    commit(&store, 2).expect("written");
    store.stop(Duration::from_secs(10));
    let (_store, found) = Store::open(directory.path()).expect("open");
    assert_eq!(found, Found::Database(self::state(2)));
}

#[test]
fn old_revisions_are_dropped() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let kept = u64::from(switchback_config::defaults::REVISIONS_KEPT.get());
    assert_eq!(commit(&store, 1), Ok(()));
    assert_eq!(commit(&store, kept), Ok(()));
    assert!(ask(store.revision(1)).expect("read").is_some());
    assert_eq!(commit(&store, kept + 1), Ok(()));
    assert!(ask(store.revision(1)).expect("read").is_none());
}

#[test]
fn damage_is_noticed_and_the_newest_valid_copy_used() {
    for (damaged, expected) in [
        (&["state.redb"][..], Some(2)),
        (&["state.redb", "state.json"], Some(1)),
        (&["state.redb", "state.json", "state.json.1"], None),
    ] {
        let directory = tempfile::tempdir().expect("directory");
        let (store, _) = Store::open(directory.path()).expect("open");
        commit(&store, 1).expect("written");
        commit(&store, 2).expect("written");
        store.stop(Duration::from_secs(10));
        for file in damaged {
            let path = directory.path().join(file);
            let mut bytes = std::fs::read(&path).expect("read");
            let middle = bytes.len() / 2;
            bytes[..middle].fill(b'x');
            std::fs::write(&path, bytes).expect("write");
        }
        match Store::open(directory.path()).expect("open").1 {
            Found::Copy(found, _) => assert_eq!(Some(found.revision), expected),
            Found::Lost(_) => assert_eq!(expected, None),
            other => panic!("{damaged:?}: {other:?}"),
        };
    }
}

#[test]
fn database_that_only_cannot_be_opened_is_left_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(directory.path()).expect("opened");
    commit(&store, 1).expect("persisted");
    store.stop(Duration::from_secs(10));
    let (database, elsewhere) = (
        directory.path().join("state.redb"),
        directory.path().join("elsewhere"),
    );
    std::fs::rename(&database, &elsewhere).expect("moved");
    std::fs::create_dir(&database).expect("made");
    let refused = Store::open(directory.path()).expect_err("not opened");
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert!(database.is_dir(), "it is not set aside");
    std::fs::remove_dir(&database).expect("removed");
    std::fs::rename(&elsewhere, &database).expect("moved");
    let (_store, found) = Store::open(directory.path()).expect("opened");
    assert!(matches!(found, Found::Database(_)));
}

#[test]
fn rows_with_a_wrong_checksum_are_refused() {
    let mut row = seal(&state(7)).expect("sealed");
    assert_eq!(unseal::<State>(&row), Ok(state(7)));
    let last = row.len() - 1;
    row[last] ^= 1;
    assert!(unseal::<State>(&row).is_err());
    assert!(unseal::<State>(&row[..4]).is_err());
}

#[test]
fn directory_is_held_by_one_process_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("directory");
    let directory = parent.path().join("state");
    let (_store, _) = Store::open(&directory).expect("open");
    let mode = std::fs::metadata(&directory)
        .expect("made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    match Store::open(&directory) {
        Err(OpenError::Locked(LockError::Held { pid, .. })) => {
            assert_eq!(pid, std::process::id().to_string())
        }
        other => panic!("{other:?}"),
    }
}
