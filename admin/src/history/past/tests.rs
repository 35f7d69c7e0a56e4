//! What the record says, against what really was: random histories with dropped revisions.

use indexmap::IndexMap;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// A service whose canary has this weight; none: it is not configured.
fn moment(weight: Option<u32>) -> Option<Moment> {
    let weight = weight?;
    Some(Moment {
        state: ServiceState::default(),
        in_force: Settled {
            stable: "blue".into(),
            previous: None,
            weights: IndexMap::from([("green".into(), weight)]),
            backends: IndexMap::new(),
        },
    })
}

fn revision(number: u64, name: &str, before: Option<u32>, after: Option<u32>) -> Revision {
    let (before, after) = (moment(before), moment(after));
    let state = |moment: &Option<Moment>| moment.clone().map(|m| m.state).unwrap_or_default();
    let change = Change {
        before: state(&before),
        after: state(&after),
        in_force_before: before.map(|moment| moment.in_force),
        in_force_after: after.map(|moment| moment.in_force),
    };
    Revision {
        revision: number,
        at: Timestamp::UNIX_EPOCH,
        by: "ops".into(),
        via: "api".into(),
        how: None,
        action: "weights".into(),
        reason: None,
        notes: Vec::new(),
        changes: BTreeMap::from([(name.to_owned(), change)]),
        flags: BTreeMap::new(),
    }
}

/// The weight that the record claims; an error where it claims nothing.
fn weight(then: &Then) -> Result<Option<u32>, ()> {
    match then {
        Then::Unknown => Err(()),
        Then::Absent => Ok(None),
        Then::Was(moment) | Then::Unchanged(moment) => Ok(Some(moment.in_force.weights["green"])),
    }
}

#[test]
fn service_is_found_in_its_next_change_or_has_not_changed_since() {
    let now = BTreeMap::from([
        ("shop".to_owned(), moment(Some(9)).expect("moment")),
        ("site".to_owned(), moment(Some(1)).expect("moment")),
    ]);
    let record = Record {
        revisions: vec![
            revision(7, "shop", Some(5), Some(9)),
            revision(4, "gone", Some(3), None),
            revision(2, "shop", None, Some(5)),
        ],
        complete_from: 0,
    };
    let at = |number: u64, name: &str| record.as_of(number, &now)[name].clone();
    assert_eq!(weight(&at(1, "shop")), Ok(None), "it came with revision 2");
    assert_eq!(weight(&at(2, "shop")), Ok(Some(5)));
    assert_eq!(weight(&at(6, "shop")), Ok(Some(5)));
    assert!(matches!(at(7, "shop"), Then::Was(_)));
    assert!(matches!(at(8, "shop"), Then::Unchanged(_)));
    assert!(matches!(at(1, "site"), Then::Unchanged(_)));
    assert_eq!(weight(&at(3, "gone")), Ok(Some(3)));
    assert_eq!(weight(&at(4, "gone")), Ok(None));
    assert_eq!(weight(&at(7, "gone")), Ok(None));
}

#[test]
fn record_with_a_hole_claims_nothing_about_it() {
    let now = BTreeMap::from([("shop".to_owned(), moment(Some(9)).expect("moment"))]);
    let revisions = vec![
        revision(7, "shop", Some(6), Some(9)),
        revision(2, "shop", None, Some(5)),
    ];
    let record = Record {
        revisions,
        complete_from: 0,
    };
    assert_eq!(record.as_of(4, &now)["shop"], Then::Unknown);
    assert_eq!(weight(&record.as_of(2, &now)["shop"]), Ok(Some(5)));
}

proptest! {
    /// Whatever is dropped, the record never claims anything that was not so; where nothing was
    /// dropped, it knows everything.
    #[test]
    fn record_says_what_was_or_nothing(
        script in prop::collection::vec((0..3_usize, prop::option::of(0..4_u32)), 1..30),
        complete_from in 0..30_u64,
        also_kept in prop::collection::btree_set(0..30_u64, 0..4),
    ) {
        let names = ["a", "b", "c"];
        let mut world: BTreeMap<&str, Option<u32>> = names.map(|name| (name, Some(0))).into();
        let mut truth = vec![world.clone()];
        let mut revisions = Vec::new();
        for (number, (name, after)) in (1..).zip(script) {
            let name = names[name];
            let before = world.insert(name, after).expect("known");
            if before != after {
                revisions.insert(0, revision(number, name, before, after));
            }
            truth.push(world.clone());
        }
        revisions.retain(|r| r.revision >= complete_from || also_kept.contains(&r.revision));
        let now = world.iter().filter_map(|(name, weight)| Some(((*name).to_owned(), moment(*weight)?)));
        let now: BTreeMap<Name, Moment> = now.collect();
        let record = Record { revisions, complete_from };
        for (number, truth) in (0..).zip(&truth) {
            let as_of = record.as_of(number, &now);
            for name in names {
                match as_of.get(name).map(weight) {
                    Some(Ok(claimed)) => prop_assert_eq!(claimed, truth[name], "{} at {}", name, number),
                    Some(Err(())) => prop_assert!(number + 1 < complete_from),
                    // Nobody knows of it: it is gone, and so is every trace.
                    None => prop_assert!(!now.contains_key(name)),
                }
            }
            for kept in record.revisions.iter().filter(|kept| kept.revision == number) {
                for name in kept.changes.keys() {
                    prop_assert_ne!(&as_of[name], &Then::Unknown, "a kept revision shows its services");
                }
            }
        }
    }
}
