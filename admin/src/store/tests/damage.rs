//! Files that are torn, cut off, or have flipped bits.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const FILES: [&str; 3] = ["state.redb", "state.json", "state.json.1"];

/// Something that happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Overwrite(usize, u8),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    // What stands at the start decides about everything else.
    let at = || prop_oneof![0..512_usize, any::<usize>()];
    prop_oneof![
        6 => (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Overwrite(at, byte)),
        1 => at().prop_map(Damage::Cut),
    ]
}

fn hurt(path: &Path, damages: &[Damage]) {
    let mut bytes = fs::read(path).expect("read");
    for damage in damages {
        let length = bytes.len().max(1);
        match damage {
            Damage::Flip(at, bit) => {
                let at = at % length;
                let byte = bytes.iter_mut().skip(at).take(1);
                byte.for_each(|byte| *byte ^= 1 << bit);
            }
            Damage::Overwrite(at, byte) => {
                let at = at % length;
                let bytes = bytes.iter_mut().skip(at).take(512);
                bytes.for_each(|old| *old = *byte);
            }
            Damage::Cut(at) => bytes.truncate(at % length),
        }
    }
    fs::write(path, bytes).expect("write");
}

/// A copy of a state directory after revisions 1 to 3.
fn copy_of(left: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("directory");
    for file in fs::read_dir(left).expect("read") {
        let file = file.expect("a file");
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("copy");
    }
    copy
}

fn left() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    for revision in 1..=3 {
        commit(&store, revision).expect("written");
    }
    store.stop(Duration::from_secs(10));
    directory
}

fn found_in(directory: &Path) -> Found {
    let (store, found) = Store::open(directory).expect("damage is no reason not to start");
    store.stop(Duration::from_secs(10));
    found
}

/// The last state is found as long as one whole file holds it, whatever happened to the database; and
/// never one that never was.
#[test]
fn damaged_database_gives_the_last_state_all_the_same() {
    let left = left();
    let mut runner = TestRunner::new(Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    });
    let damages = prop::collection::vec(damage(), 1..4);
    let check = |damages: Vec<Damage>| {
        let directory = copy_of(left.path());
        hurt(&directory.path().join(FILES[0]), &damages);
        let (Found::Database(found) | Found::Copy(found, _)) = found_in(directory.path()) else {
            return Err(TestCaseError::fail("the state is lost"));
        };
        prop_assert_eq!(found, state(3));
        Ok(())
    };
    runner
        .run(&damages, check)
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn damaged_copies_are_not_missed_while_the_database_is_whole() {
    let left = left();
    let directory = copy_of(left.path());
    for file in &FILES[1..] {
        hurt(&directory.path().join(file), &[Damage::Cut(7)]);
    }
    assert_eq!(found_in(directory.path()), Found::Database(state(3)));
}

/// The database keeps its last two commits, and a byte of its head says which of them counts.
#[test]
fn database_that_falls_back_to_an_earlier_commit_is_found_out() {
    let left = left();
    for at in 9..13 {
        for bit in 0..8 {
            let directory = copy_of(left.path());
            hurt(&directory.path().join(FILES[0]), &[Damage::Flip(at, bit)]);
            let found = found_in(directory.path());
            let (Found::Database(state) | Found::Copy(state, _)) = &found else {
                panic!("bit {bit} of byte {at}: {found:?}");
            };
            assert_eq!(state.revision, 3, "bit {bit} of byte {at}");
        }
    }
}
