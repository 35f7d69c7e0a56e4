//! How many requests come, how many of them fail and how long they take: what the counters have gained
//! within the last seconds.
//!
//! The API counts since a version is there, so two looks are compared. Times are in `/metrics`, by bucket;
//! a quantile is as exact as the buckets are narrow. A version that is new, or a process that has started
//! again, counts anew and is compared from then on.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::facts;

/// What is looked back at: long enough for numbers that can be read, short enough to be now.
const WINDOW: Duration = Duration::from_secs(10);

/// Looks that are kept within it. One a second, and some more when somebody does something.
const LOOKS_MAX: usize = 32;

/// A service and one of its backends.
type Key = (String, String);

/// How many requests took at most so many seconds, by rising bound.
type Buckets = Vec<(f64, u64)>;

/// The buckets of each backend.
pub(super) type Times = HashMap<Key, Buckets>;

/// What was counted in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Paces(VecDeque<(Instant, HashMap<Key, Counts>)>);

/// What a backend has counted since its version is there.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counts {
    version: String,
    requests: u64,
    failures: u64,
    times: Buckets,
}

/// What was added within some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gain {
    seconds: f64,
    requests: u64,
    failures: u64,
    times: Buckets,
}

impl Paces {
    /// Takes what was seen at `at`.
    pub(super) fn add(&mut self, at: Instant, services: &[Value], times: &Times) {
        let mut seen = HashMap::new();
        for service in services {
            let name = facts::word(&service["name"]);
            for (backend, view) in facts::backends(service) {
                let key = (name.to_owned(), backend.to_owned());
                let count = |name: &str| view[name].as_u64().unwrap_or(0);
                let counts = Counts {
                    version: facts::word(&view["version"]).to_owned(),
                    requests: count("requests"),
                    failures: count("failures"),
                    times: times.get(&key).cloned().unwrap_or_default(),
                };
                seen.insert(key, counts);
            }
        }
        self.0.push_back((at, seen));
        // What is older than the window is needed as long as nothing else lies before the last look.
        let is_old = |(before, _): &(Instant, _)| at.saturating_duration_since(*before) > WINDOW;
        while self.0.len() > LOOKS_MAX || (self.0.len() > 2 && self.0.front().is_some_and(is_old)) {
            self.0.pop_front();
        }
    }

    /// Forgets everything: there is a gap now.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What a backend did lately; nothing if it was seen once only.
    pub(super) fn of(&self, service: &str, backend: &str) -> Option<Gain> {
        let key = (service.to_owned(), backend.to_owned());
        let (at, last) = self.0.back()?;
        let last = last.get(&key)?;
        let mut earlier = self.0.iter().take(self.0.len() - 1);
        earlier.find_map(|(before, seen)| {
            last.since(seen.get(&key)?, at.saturating_duration_since(*before))
        })
    }

    /// What all backends of a service did lately.
    pub(super) fn of_service(&self, service: &Value) -> Option<Gain> {
        let name = facts::word(&service["name"]);
        let gains = facts::backends(service).filter_map(|(backend, _)| self.of(name, backend));
        gains.reduce(Gain::and)
    }
}

impl Counts {
    /// What was added since `before`; nothing if the counting began in between.
    fn since(&self, before: &Self, span: Duration) -> Option<Gain> {
        if self.version != before.version || span.is_zero() {
            return None;
        }
        Some(Gain {
            seconds: span.as_secs_f64(),
            requests: self.requests.checked_sub(before.requests)?,
            failures: self.failures.checked_sub(before.failures)?,
            times: difference(&self.times, &before.times).unwrap_or_default(),
        })
    }
}

impl Gain {
    /// Requests a second.
    pub(super) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// The part of them that failed, 0 to 1.
    pub(super) fn failed(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failures as f64 / self.requests as f64)
    }

    /// The time within which this part of the requests, 0 to 1, was answered.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let (_, all) = *self.times.last()?;
        if all == 0 {
            return None;
        }
        let wanted = part * all as f64;
        let (mut low, mut below) = (0.0, 0);
        for (high, count) in &self.times {
            let within = count - below;
            if within > 0 && *count as f64 >= wanted {
                if high.is_infinite() {
                    break;
                }
                let way = (wanted - below as f64) / within as f64;
                return Some(Duration::from_secs_f64(low + way * (high - low)));
            }
            (low, below) = (*high, *count);
        }
        Some(Duration::from_secs_f64(low))
    }

    /// Both together.
    fn and(mut self, other: Self) -> Self {
        self.seconds = self.seconds.max(other.seconds);
        self.requests += other.requests;
        self.failures += other.failures;
        if self.times.is_empty() {
            self.times = other.times;
        } else {
            for ((_, count), (_, more)) in self.times.iter_mut().zip(other.times) {
                *count += more;
            }
        }
        self
    }
}

/// Bucket by bucket; nothing if they are others now, or were emptied.
fn difference(after: &Buckets, before: &Buckets) -> Option<Buckets> {
    if before.is_empty() {
        // The first request makes the series.
        return Some(after.clone());
    }
    if after.len() != before.len() {
        return None;
    }
    let pairs = after.iter().zip(before);
    pairs
        .map(|((bound, after), (_, before))| Some((*bound, after.checked_sub(*before)?)))
        .collect()
}

/// The times in `/metrics`.
pub(super) fn times(metrics: &str) -> Times {
    let mut times = Times::new();
    let series = "switchback_request_duration_seconds_bucket{";
    for line in metrics.lines().filter_map(|line| line.strip_prefix(series)) {
        if let Some((key, bucket)) = bucket(line) {
            times.entry(key).or_default().push(bucket);
        }
    }
    times
}

/// `service="shop",backend="blue",le="0.005"} 12`. Names have no comma and no quote.
fn bucket(line: &str) -> Option<(Key, (f64, u64))> {
    let (labels, count) = line.split_once("} ")?;
    let label = |name: &str| {
        let mut labels = labels.split(',');
        let value = labels.find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
        value.and_then(|value| value.strip_suffix('"'))
    };
    let bound = match label("le")? {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    let key = (label("service")?.to_owned(), label("backend")?.to_owned());
    Some((key, (bound, count.trim().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A service with one backend that has counted so much.
    fn shop(version: &str, requests: u64, failures: u64) -> [Value; 1] {
        let blue = json!({"version": version, "requests": requests, "failures": failures});
        [json!({"name": "shop", "backends": {"blue": blue}})]
    }

    fn metrics(counts: [u64; 3]) -> Times {
        let [one, two, all] = counts;
        times(&format!(
            "# TYPE switchback_request_duration_seconds histogram\n\
             switchback_request_duration_seconds_bucket{{backend=\"blue\",service=\"shop\",le=\"0.001\"}} {one}\n\
             switchback_request_duration_seconds_bucket{{backend=\"blue\",service=\"shop\",le=\"0.01\"}} {two}\n\
             switchback_request_duration_seconds_bucket{{backend=\"blue\",service=\"shop\",le=\"+Inf\"}} {all}\n\
             switchback_request_duration_seconds_sum{{backend=\"blue\",service=\"shop\"}} 7\n"
        ))
    }

    fn looks(looks: &[(u64, [Value; 1], Times)]) -> Paces {
        let start = Instant::now();
        let mut paces = Paces::default();
        for (second, services, times) in looks {
            paces.add(start + Duration::from_secs(*second), services, times);
        }
        paces
    }

    #[test]
    fn pace_is_what_was_added_within_the_window() {
        let paces = looks(&[
            (0, shop("1", 0, 0), Times::new()),
            (5, shop("1", 900, 100), metrics([0, 0, 0])),
            (15, shop("1", 1_000, 101), metrics([50, 100, 100])),
        ]);
        let gain = paces.of("shop", "blue").expect("seen before");
        assert!((gain.per_second() - 10.0).abs() < 1e-9, "{gain:?}");
        assert_eq!(gain.failed(), Some(0.01));
        assert_eq!(gain.quantile(0.5), Some(Duration::from_millis(1)));
        let p99 = gain.quantile(0.99).expect("there are times");
        assert!(p99 > Duration::from_micros(9_800) && p99 < Duration::from_millis(10));
    }

    #[test]
    fn nothing_is_said_about_what_was_seen_once_or_counts_anew() {
        assert_eq!(looks(&[]).of("shop", "blue"), None);
        let once = looks(&[(0, shop("1", 9, 0), Times::new())]);
        assert_eq!(once.of("shop", "blue"), None);
        assert_eq!(once.of("shop", "green"), None);
        for (version, requests) in [("2", 20), ("1", 5)] {
            let paces = looks(&[
                (0, shop("1", 9, 0), Times::new()),
                (1, shop(version, requests, 0), Times::new()),
            ]);
            assert_eq!(paces.of("shop", "blue"), None, "{version}");
        }
        let mut paces = looks(&[
            (0, shop("1", 9, 0), Times::new()),
            (1, shop("1", 1, 0), Times::new()),
            (2, shop("1", 3, 1), Times::new()),
        ]);
        let gain = paces.of("shop", "blue").expect("seen since");
        assert_eq!((gain.requests, gain.failures, gain.seconds), (2, 1, 1.0));
        assert_eq!(gain.quantile(0.5), None, "no times are told");
        paces.forget();
        assert_eq!(paces.of("shop", "blue"), None);
    }

    #[test]
    fn pace_without_requests_has_no_rate_of_errors_and_no_times() {
        let idle = || (shop("1", 9, 1), metrics([9, 9, 9]));
        let [(one, before), (two, after)] = [idle(), idle()];
        let paces = looks(&[(0, one, before), (1, two, after)]);
        let gain = paces.of("shop", "blue").expect("seen before");
        assert!(gain.per_second() == 0.0);
        assert_eq!((gain.failed(), gain.quantile(0.5)), (None, None));
    }

    #[test]
    fn times_beyond_all_bounds_are_the_last_bound() {
        let paces = looks(&[
            (0, shop("1", 0, 0), metrics([0, 0, 0])),
            (1, shop("1", 4, 0), metrics([0, 0, 4])),
        ]);
        let gain = paces.of("shop", "blue").expect("seen before");
        assert_eq!(gain.quantile(0.99), Some(Duration::from_millis(10)));
    }

    #[test]
    fn backends_of_a_service_are_taken_together() {
        let both = |requests: u64| {
            let view = |part| json!({"version": "1", "requests": requests * part, "failures": 0});
            [json!({"name": "shop", "backends": {"blue": view(3), "green": view(1)}})]
        };
        let paces = looks(&[(0, both(0), Times::new()), (2, both(10), Times::new())]);
        let [service] = both(10);
        let gain = paces.of_service(&service).expect("seen before");
        assert!((gain.per_second() - 20.0).abs() < 1e-9);
    }
}
