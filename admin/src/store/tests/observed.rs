//! What was seen and measured is found again, and nothing more is kept than is asked for.

use switchback_config::defaults::TIMINGS_KEPT;

use super::*;
use crate::sightings::{Record, Sighting};
use crate::timings::{Timing, Way};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn record(versions: &[(&str, i64)]) -> Record {
    let versions = versions.iter().map(|(version, second)| {
        let sighting = Sighting {
            at: at(*second),
            schema: None,
        };
        ((*version).to_owned(), sighting)
    });
    Record {
        since: Some(at(1)),
        versions: [("shop".to_owned(), versions.collect())].into(),
    }
}

#[test]
fn last_requests_are_found_again_and_those_that_are_dropped_are_not() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    assert_eq!(ask(store.sightings()), Ok(Record::default()));
    let labels = record(&[("a version with blanks", 5), ("41", 7)]);
    assert_eq!(ask(store.save_sightings(labels.clone())), Ok(()));
    assert_eq!(ask(store.sightings()), Ok(labels));
    assert_eq!(ask(store.save_sightings(record(&[("41", 9)]))), Ok(()));
    store.stop(Duration::from_secs(5));
    let (store, _) = Store::open(directory.path()).expect("open again");
    assert_eq!(ask(store.sightings()), Ok(record(&[("41", 9)])));
}

#[test]
fn times_are_kept_by_service_and_way_the_last_of_each() {
    let directory = tempfile::tempdir().expect("directory");
    let (store, _) = Store::open(directory.path()).expect("open");
    let timing = |us: u64| Timing {
        at: at(1),
        us,
        drill: false,
    };
    for us in 0..=TIMINGS_KEPT as u64 {
        store.add_timing("shop", Way::BlueGreenSwitch, timing(us));
        // The queue is shorter than that: each is waited for.
        let kept = ask(store.timings("shop".into())).expect("read");
        assert_eq!(kept.last(), Some(&(Way::BlueGreenSwitch, timing(us))));
    }
    store.add_timing("", Way::FlagToggle, timing(7));
    let kept = ask(store.timings("shop".into())).expect("read");
    assert_eq!(kept.len(), TIMINGS_KEPT);
    assert_eq!(kept[0].1, timing(1), "the oldest went");
    let of_all = ask(store.timings(String::new()));
    assert_eq!(of_all, Ok(vec![(Way::FlagToggle, timing(7))]));
}
