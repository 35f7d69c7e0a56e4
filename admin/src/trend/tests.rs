use super::*;

fn times(counts: &[(usize, u64)]) -> [u64; BUCKETS] {
    let mut times = [0; BUCKETS];
    for (bucket, count) in counts {
        times[*bucket] = *count;
    }
    times
}

fn counted(requests: u64, failures: u64, bucket: usize) -> Counted {
    Counted {
        requests,
        failures,
        times: times(&[(bucket, requests)]),
    }
}

#[test]
fn quantiles_lie_within_the_bucket_that_holds_them() {
    // Half of them below 1 ms, half between 5 ms and 10 ms.
    let halves = times(&[(0, 50), (3, 50)]);
    assert!((quantile_ms(&halves, 0.5) - 1.0).abs() < 1e-6);
    assert!((quantile_ms(&halves, 0.25) - 0.5).abs() < 1e-6);
    assert!((quantile_ms(&halves, 0.99) - 9.9).abs() < 1e-3);
    assert!((quantile_ms(&halves, 1.0) - 10.0).abs() < 1e-6);
}

#[test]
fn time_beyond_all_bounds_is_the_last_bound() {
    let slow = times(&[(BUCKETS - 1, 3)]);
    assert!((quantile_ms(&slow, 0.5) - 30_000.0).abs() < 1e-6);
}

#[test]
fn point_is_what_was_added_since_the_last_one() {
    let point = counted(30, 4, 0).minus(&counted(10, 1, 0)).point(7);
    let point = point.expect("requests ended");
    assert_eq!((point.second, point.requests, point.failures), (7, 20, 3));
}

#[test]
fn second_without_requests_is_no_point() {
    assert_eq!(counted(10, 1, 0).minus(&counted(10, 1, 0)).point(7), None);
}

#[test]
fn counters_that_went_back_are_no_point() {
    assert_eq!(counted(3, 0, 0).minus(&counted(10, 1, 0)).point(7), None);
}

#[test]
fn line_of_another_version_begins_with_what_it_counts_from_now_on() {
    let (old, new) = (BackendStats::new(1), BackendStats::new(1));
    let mut line = Line {
        name: "blue".into(),
        stats: old,
        counted: counted(1_000, 5, 0),
        left: Vec::new(),
        points: VecDeque::new(),
    };
    line.record(&new, 8);
    assert!(Arc::ptr_eq(&line.stats, &new));
    assert_eq!(line.counted, Counted::default());
    assert!(line.points.is_empty());
}

#[test]
fn points_leave_when_they_are_too_old() {
    let point = |second| counted(1, 0, 0).point(second);
    let mut line = Line {
        name: "blue".into(),
        stats: BackendStats::new(1),
        counted: Counted::default(),
        left: Vec::new(),
        points: (1..=5).filter_map(point).collect(),
    };
    line.forget_before(3);
    let seconds = |line: &Line| {
        line.points
            .iter()
            .map(|point| point.second)
            .collect::<Vec<_>>()
    };
    assert_eq!(seconds(&line), [3, 4, 5]);
    line.forget_before(6);
    assert!(seconds(&line).is_empty());
}

#[test]
fn points_of_a_future_leave_when_the_clock_is_set_back() {
    let point = |second| counted(1, 0, 0).point(second);
    let mut line = Line {
        name: "blue".into(),
        stats: BackendStats::new(1),
        counted: Counted::default(),
        left: Vec::new(),
        points: [100, 101, 50].into_iter().filter_map(point).collect(),
    };
    line.forget_before(0);
    let seconds: Vec<u32> = line.points.iter().map(|point| point.second).collect();
    assert_eq!(seconds, [50]);
}

#[test]
fn service_that_is_not_known_has_no_past() {
    let trends = Trends::default();
    trends.record(&Snapshot::empty(), 100);
    trends.record(&Snapshot::empty(), 101);
    assert_eq!(
        trends.after("shop", "blue", None),
        Stretch {
            from: 100,
            to: 101,
            points: Vec::new(),
        }
    );
    assert_eq!(trends.after("shop", "blue", Some(100)).from, 101);
    let pace = trends.pace("shop", 10);
    assert_eq!((pace.seconds, pace.requests, pace.p99_ms), (2, 0, None));
}

#[test]
fn what_is_known_reaches_back_no_further_than_it_is_kept() {
    let trends = Trends::default();
    trends.record(&Snapshot::empty(), 100);
    trends.record(&Snapshot::empty(), 100 + TREND_SECONDS);
    let stretch = trends.after("shop", "blue", None);
    assert_eq!((stretch.from, stretch.to), (101, 100 + TREND_SECONDS));
}

/// So many requests end well.
fn end(stats: &BackendStats, requests: u64) {
    let cells = &stats.split()[0];
    cells.classes[0].add(requests);
    cells.latency[0].add(requests);
}

#[test]
fn second_in_which_a_version_came_has_the_requests_of_both() {
    let (old, new) = (BackendStats::new(1), BackendStats::new(1));
    let mut line = Line {
        name: "blue".into(),
        stats: old.clone(),
        counted: Counted::default(),
        left: Vec::new(),
        points: VecDeque::new(),
    };
    end(&old, 10);
    line.record(&old, 7);
    end(&old, 3);
    end(&new, 4);
    line.record(&new, 8);
    end(&new, 5);
    line.record(&new, 9);
    // The old one comes back, with all that it has ever counted.
    end(&old, 100);
    end(&new, 1);
    line.record(&old, 10);
    let points: Vec<(u32, u32)> = line
        .points
        .iter()
        .map(|point| (point.second, point.requests))
        .collect();
    assert_eq!(points, [(7, 10), (8, 7), (9, 5), (10, 1)]);
}

#[test]
fn second_is_recorded_when_it_is_over() {
    let at = |nanosecond| Timestamp::new(1_000, nanosecond).expect("a time");
    assert_eq!(rest_of_second(at(0)), Duration::from_secs(1));
    assert_eq!(rest_of_second(at(999_000_000)), Duration::from_millis(1));
}
