//! A state directory with torn, truncated or bit-flipped files gives the last state, an earlier one, or
//! the admission that it is lost, and never one that never was.
//!
//! The input is a list of damages of 5 bytes: which file and how, where (3 bytes), and with what.
#![no_main]

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{catch_unwind, set_hook};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use switchback_admin::history::AuditEntry;
use switchback_admin::state::{Block, ServiceState, State};
use switchback_admin::store::{Commit, Found, Store};
use tempfile::TempDir;

const FILES: [&str; 3] = ["state.redb", "state.json", "state.json.1"];

/// Commits; the last two are in the copies.
const LAST: u64 = 3;

/// A state directory as it was left.
struct Left(BTreeMap<String, Vec<u8>>);

thread_local! {
    static LEFT: OnceCell<Left> = const { OnceCell::new() };
}

fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    directory.expect("a directory")
}

fn state(revision: u64) -> State {
    let block = Block {
        backend: "green".into(),
        by: "judge".into(),
        at: Timestamp::UNIX_EPOCH,
        cause: "judge".into(),
        reason: Some(format!("it fails in revision {revision}")),
    };
    let mut service = ServiceState::default();
    service.blocked.insert(format!("4{revision}"), block);
    let services = ["cart", "shop"].map(|name| (name.to_owned(), service.clone()));
    State { revision, services: BTreeMap::from(services), ..State::default() }
}

fn commit(revision: u64) -> Commit {
    let audit = AuditEntry {
        at: Timestamp::UNIX_EPOCH,
        by: "ops".into(),
        via: "api".into(),
        action: "rollback".into(),
        service: Some("shop".into()),
        result: "done".into(),
        revision: Some(revision),
        ..AuditEntry::default()
    };
    Commit {
        state: Arc::new(state(revision)),
        revision: None,
        audit: Some(audit),
        keep_trying: false,
        revisions_kept: switchback_config::defaults::REVISIONS_KEPT,
        outgoing: Default::default(),
    }
}

impl Left {
    fn new() -> Self {
        // Panics are caught below, and count only where they get to the end.
        set_hook(Box::new(|_| {}));
        let directory = directory();
        let (store, _) = Store::open(directory.path()).expect("an empty directory");
        for revision in 1..=LAST {
            let (sender, done) = sync_channel(1);
            store.commit(commit(revision), Box::new(move |result| sender.send(result).expect("waiting")));
            done.recv().expect("an answer").expect("room");
        }
        store.stop(Duration::from_secs(10));
        let files = fs::read_dir(directory.path()).expect("a directory");
        let files = files.map(|file| file.expect("a file").path());
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        Self(files.map(|path| (name(&path), fs::read(&path).expect("read"))).collect())
    }

    /// Puts the files down with their damage; which of them have some.
    fn damaged(&self, input: &[u8], directory: &Path) -> [bool; 3] {
        let mut files = self.0.clone();
        for damage in input.chunks_exact(5) {
            let bytes = files.get_mut(FILES[usize::from(damage[0]) % 3]).expect("there");
            let at = u32::from_le_bytes([damage[1], damage[2], damage[3], 0]) as usize;
            let at = at % bytes.len().max(1);
            match damage[0] / 3 % 4 {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (damage[4] % 8)),
                1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = damage[4]),
                2 => bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = damage[4]),
                _ => bytes.truncate(at),
            }
        }
        for (name, bytes) in &files {
            fs::write(directory.join(name), bytes).expect("room");
        }
        FILES.map(|name| files[name] != self.0[name])
    }
}

fn check(left: &Left, input: &[u8]) {
    let directory = directory();
    let [database, copy, before] = left.damaged(input, directory.path());
    let opened = catch_unwind(|| Store::open(directory.path()));
    let opened = opened.unwrap_or_else(|_| panic!("opening a damaged directory ends the process"));
    let (store, found) = opened.expect("a damaged directory is taken into use all the same");
    store.stop(Duration::from_secs(10));
    match found {
        Found::Nothing => panic!("what was there is not noticed"),
        Found::Lost(_) => assert!(database && copy && before, "lost, but something is whole"),
        Found::Database(found) | Found::Copy(found, _) => {
            assert!((1..=LAST).any(|revision| found == state(revision)), "never was: {found:?}");
            assert!(found.revision == LAST || (database && copy), "older than what is whole: {found:?}");
        }
    }
}

fuzz_target!(|input: &[u8]| LEFT.with(|left| {
    let left = left.get_or_init(Left::new);
    if catch_unwind(|| check(left, input)).is_err() {
        // Said again where it is seen.
        let _ = std::panic::take_hook();
        check(left, input);
    }
}));
