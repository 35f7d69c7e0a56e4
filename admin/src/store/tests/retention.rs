//! What is kept of the past: so many revisions, and what shows the last versions of each service.

use std::num::NonZeroU32;

use indexmap::IndexMap;
use proptest::prelude::*;
use switchback_config::defaults::VERSIONS_KEPT;
use switchback_config::model::{Backend, Migration, Name};

use super::*;
use crate::history::Settled;
use crate::history::past::{Moment, Then};

/// A service whose stable backend has this label.
fn settled(version: u32) -> Settled {
    let backend = Backend {
        version: version.to_string(),
        endpoints: Vec::new(),
        tls: Default::default(),
        off_on_rollback: Vec::new(),
        schema: None,
        migration: Migration::None,
    };
    Settled {
        stable: "blue".into(),
        previous: None,
        weights: IndexMap::from([("blue".into(), 1)]),
        backends: IndexMap::from([("blue".into(), backend)]),
    }
}

/// A revision after which each of these services runs another version.
fn deploy(number: u64, kept: u32, versions: &[(&str, u32, u32)]) -> Commit {
    let changes = versions.iter().map(|(name, before, after)| {
        let change = Change {
            before: ServiceState::default(),
            after: ServiceState::default(),
            in_force_before: Some(settled(*before)),
            in_force_after: Some(settled(*after)),
        };
        ((*name).to_owned(), change)
    });
    let changes = changes.collect();
    let mut commit = commit_of(number);
    commit.revision.as_mut().expect("a revision").changes = changes;
    commit.revisions_kept = NonZeroU32::new(kept).expect("not 0");
    commit
}

fn persist(store: &Store, commit: Commit) {
    let (sender, done) = sync_channel(1);
    store.commit(
        commit,
        Box::new(move |result| sender.send(result).expect("waiting")),
    );
    done.recv().expect("an answer").expect("persisted");
}

fn numbers(store: &Store) -> Vec<u64> {
    let kept = ask(store.revisions(None, None, usize::MAX)).expect("read");
    kept.iter()
        .rev()
        .map(|revision| revision.revision)
        .collect()
}

#[test]
fn revisions_of_the_last_three_versions_outlive_the_bound() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    for (number, (before, after)) in (1..).zip([(0, 1), (1, 2), (2, 3), (3, 4)]) {
        persist(&store, deploy(number, 3, &[("shop", before, after)]));
    }
    for number in 5..20 {
        persist(&store, deploy(number, 3, &[("site", 1, 1)]));
    }
    assert_eq!(numbers(&store), [2, 3, 4, 17, 18, 19]);
    let record = ask(store.record()).expect("read");
    assert_eq!(record.complete_from, 17);
    let then = record.as_of(2, &BTreeMap::new());
    let moment = then["shop"].moment().expect("restorable");
    assert_eq!(moment.in_force, settled(2));
    assert_eq!(then["site"], Then::Unknown);
}

#[test]
fn version_before_the_first_change_is_kept_as_well() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    persist(&store, deploy(1, 2, &[("shop", 1, 2)]));
    for number in 2..9 {
        persist(&store, deploy(number, 2, &[("site", 1, 1)]));
    }
    assert_eq!(numbers(&store), [1, 7, 8]);
    let then = ask(store.record())
        .expect("read")
        .as_of(0, &BTreeMap::new());
    assert_eq!(
        then["shop"].moment().expect("restorable").in_force,
        settled(1)
    );
}

#[test]
fn bound_follows_the_file_and_the_default_is_500() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    for (number, kept) in [(1, 500), (2, 500), (3, 500), (500, 500)] {
        persist(&store, deploy(number, kept, &[("shop", 1, 1)]));
    }
    assert_eq!(numbers(&store), [1, 2, 3, 500]);
    persist(&store, deploy(501, 500, &[("shop", 1, 1)]));
    assert_eq!(numbers(&store), [2, 3, 500, 501]);
    persist(&store, deploy(502, 499, &[("shop", 1, 1)]));
    assert_eq!(numbers(&store), [500, 501, 502]);
    assert_eq!(ask(store.record()).expect("read").complete_from, 4);
}

#[test]
fn revision_that_was_never_in_force_does_not_stand_for_a_version() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    persist(&store, deploy(1, 2, &[("shop", 1, 2)]));
    persist(&store, deploy(2, 2, &[("shop", 2, 2)]));
    persist(&store, deploy(3, 2, &[("shop", 2, 2)]));
    store.void(3);
    for number in 4..9 {
        persist(&store, deploy(number, 2, &[("site", 1, 1)]));
    }
    assert_eq!(numbers(&store), [1, 2, 7, 8]);
}

#[test]
fn history_is_filtered_by_service_before_it_is_cut() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    for number in 1..=6 {
        let name = if number % 2 == 0 { "shop" } else { "site" };
        persist(&store, deploy(number, 500, &[(name, 1, 1)]));
    }
    let of_shop = |below, limit| {
        let kept = ask(store.revisions(Some("shop".into()), below, limit)).expect("read");
        kept.iter()
            .map(|revision| revision.revision)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_shop(None, 2), [6, 4]);
    assert_eq!(of_shop(Some(4), 2), [2]);
}

#[test]
fn history_after_a_damaged_database_claims_nothing_about_before() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    persist(&store, deploy(1, 500, &[("shop", 1, 2)]));
    persist(&store, deploy(2, 500, &[("shop", 2, 3)]));
    store.stop(Duration::from_secs(10));
    std::fs::write(directory.path().join("state.redb"), "rubbish").expect("write");
    let (store, found) = Store::open(directory.path()).expect("open");
    assert!(matches!(found, Found::Copy(..)), "{found:?}");
    persist(&store, deploy(3, 500, &[("site", 1, 1)]));
    let now = BTreeMap::from([("shop".to_owned(), moment(3))]);
    let record = ask(store.record()).expect("read");
    assert_eq!(record.as_of(1, &now)["shop"], Then::Unknown);
    assert!(matches!(record.as_of(2, &now)["shop"], Then::Unchanged(_)));
}

fn moment(version: u32) -> Moment {
    Moment {
        state: ServiceState::default(),
        in_force: settled(version),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// However the services change and however short the bound is: the newest revisions are all
    /// there, the last versions of each service can be restored, and nothing that is said of the
    /// past is wrong.
    #[test]
    fn last_versions_of_every_service_can_always_be_restored(
        script in prop::collection::vec((prop::sample::select(vec!["a", "b"]), 0..6_u32), 1..40),
        kept in 1..8_u32,
    ) {
        let directory = tempfile::tempdir().expect("directory");
        let (store, _) = Store::open(directory.path()).expect("open");
        let mut world = BTreeMap::from([("a", 0), ("b", 0)]);
        let mut truth = vec![world.clone()];
        // The versions of each service, the newest first.
        let mut versions = BTreeMap::from([("a", vec![0]), ("b", vec![0])]);
        let mut seen = std::collections::BTreeSet::new();
        for (number, (name, after)) in (1..).zip(script) {
            let before = world.insert(name, after).expect("known");
            persist(&store, deploy(number, kept, &[(name, before, after)]));
            truth.push(world.clone());
            seen.insert(name);
            let list = versions.get_mut(name).expect("known");
            list.retain(|version| *version != after);
            list.insert(0, after);
        }
        let last = truth.len() as u64 - 1;
        let numbers = numbers(&store);
        for number in last.saturating_sub(u64::from(kept) - 1).max(1)..=last {
            prop_assert!(numbers.contains(&number), "{number} of {last} is missing: {numbers:?}");
        }
        prop_assert!(numbers.len() <= kept as usize + 2 * VERSIONS_KEPT, "{numbers:?}");
        let now: BTreeMap<Name, Moment> =
            world.iter().map(|(name, version)| ((*name).to_owned(), moment(*version))).collect();
        let record = ask(store.record()).expect("read");
        let mut restorable = BTreeMap::from([("a", Vec::new()), ("b", Vec::new())]);
        for (number, truth) in (0..).zip(&truth) {
            let then = record.as_of(number, &now);
            for (name, version) in truth {
                if let Some(moment) = then[*name].moment() {
                    prop_assert_eq!(&moment.in_force, &settled(*version), "{} at {}", name, number);
                    restorable.get_mut(name).expect("known").push(*version);
                }
            }
        }
        for name in seen {
            for version in versions[name].iter().take(VERSIONS_KEPT) {
                prop_assert!(restorable[name].contains(version), "{version} of {name}: {numbers:?}");
            }
        }
    }
}
