//! What each backend did in the last minutes, second by second, so that whoever looks sees what led here.
//!
//! Once a second the counters of all backends are read, and what has been added is kept as one point. A
//! second without requests takes no memory. Nothing decides by this: judges have their own counters. It is
//! not on disk either, since it begins anew within minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::defaults::{TREND_BACKENDS, TREND_SECONDS};
use switchback_proxy::outcome::CLASSES;
use switchback_proxy::snapshot::{Backend, Snapshot};
use switchback_proxy::stats::{BackendStats, LATENCY_BOUNDS_US};
use utoipa::ToSchema;

use crate::control::Controls;

/// Buckets of times, the unbounded one included.
const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// The recent past of all backends. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trends(Arc<Mutex<Kept>>);

/// What a backend did within one second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TrendPoint)]
pub struct Point {
    /// Which one, since 1970.
    pub second: u32,
    /// Requests that ended in it.
    pub requests: u32,
    /// Those of them that ended in 5xx, connect, timeout or reset.
    pub failures: u32,
    /// Half of them took no longer, as exact as the buckets of `switchback_request_duration_seconds`.
    pub p50_ms: f32,
    /// 99 % of them took no longer.
    pub p99_ms: f32,
}

/// Points of one backend, and which seconds they are of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stretch {
    /// The first second about which everything is known.
    pub(crate) from: u32,
    /// The last one.
    pub(crate) to: u32,
    /// Seconds with requests.
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The first second and the last one that were recorded.
    span: Option<(u32, u32)>,
    /// Backends by service, in the order of the snapshot.
    lines: HashMap<Arc<str>, Vec<Line>>,
}

/// One backend.
#[derive(Debug)]
struct Line {
    name: Arc<str>,
    /// Counters of the version that was there last.
    stats: Arc<BackendStats>,
    counted: Counted,
    /// Counters of versions that were there before, and may come back with what they had.
    left: Vec<Weak<BackendStats>>,
    points: VecDeque<Point>,
}

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    requests: u64,
    failures: u64,
    times: [u64; BUCKETS],
}

/// Records until the process ends.
pub(crate) async fn run(controls: Controls, trends: Trends) {
    loop {
        // The first time right away: what is counted from now on is of the first second.
        let over = Timestamp::now().as_second().saturating_sub(1);
        let second = u32::try_from(over).unwrap_or(u32::MAX);
        trends.record(&controls.published().snapshot, second);
        tokio::time::sleep(rest_of_second(Timestamp::now())).await;
    }
}

/// Until the next second of the clock begins: a point is about one of its seconds, whole.
fn rest_of_second(now: Timestamp) -> Duration {
    let gone = u64::from(now.subsec_nanosecond().unsigned_abs());
    Duration::from_nanos(1_000_000_000 - gone)
}

impl Trends {
    /// Keeps what was counted since the last time as the points of a second.
    fn record(&self, snapshot: &Snapshot, second: u32) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has asked for what came after this second would never see more of it.
        if kept.span.is_some_and(|(_, last)| last == second) {
            return;
        }
        let first = kept.span.map_or(second, |(first, _)| first);
        let oldest = second.saturating_sub(TREND_SECONDS - 1);
        kept.span = Some((first.clamp(oldest, second), second));
        let mut before = std::mem::take(&mut kept.lines);
        let mut room = TREND_BACKENDS;
        for service in &snapshot.services {
            let mut lines = before.remove(&service.name).unwrap_or_default();
            let lines = service.backends.iter().take(room).map(|backend| {
                let place = lines.iter().position(|line| line.name == backend.name);
                let mut line =
                    place.map_or_else(|| Line::new(backend), |place| lines.swap_remove(place));
                line.record(&backend.stats, second);
                line.forget_before(oldest);
                line
            });
            let lines: Vec<Line> = lines.collect();
            room -= lines.len();
            kept.lines.insert(service.name.clone(), lines);
        }
    }

    /// What a backend did after a second, the oldest first.
    pub(crate) fn after(&self, service: &str, backend: &str, second: Option<u32>) -> Stretch {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = kept.span.unwrap_or_default();
        let from = second.map_or(from, |second| second.saturating_add(1).max(from));
        let line = kept.line(service, backend);
        let points = line.into_iter().flat_map(|line| &line.points);
        Stretch {
            from,
            to,
            points: points
                .filter(|point| point.second >= from)
                .copied()
                .collect(),
        }
    }

    /// What all backends of a service did together in so many last seconds.
    pub(crate) fn pace(&self, service: &str, seconds: u32) -> Pace {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((first, last)) = kept.span else {
            return Pace::default();
        };
        let from = first.max(last.saturating_sub(seconds.saturating_sub(1)));
        let mut pace = Pace {
            seconds: last - from + 1,
            ..Pace::default()
        };
        let lines = kept.lines.get(service).into_iter().flatten();
        for line in lines {
            let points = line.points.iter().rev();
            for point in points.take_while(|point| point.second >= from) {
                pace.requests = pace.requests.saturating_add(point.requests);
                pace.failures = pace.failures.saturating_add(point.failures);
                pace.p99_ms = Some(pace.p99_ms.unwrap_or_default().max(point.p99_ms));
            }
        }
        pace
    }
}

impl Kept {
    fn line(&self, service: &str, backend: &str) -> Option<&Line> {
        let mut lines = self.lines.get(service)?.iter();
        lines.find(|line| *line.name == *backend)
    }
}

/// What a service did in its last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Pace {
    /// How many seconds.
    pub(crate) seconds: u32,
    /// Requests that ended in them.
    pub(crate) requests: u32,
    /// Those of them that ended in 5xx, connect, timeout or reset.
    pub(crate) failures: u32,
    /// 99 % of requests took no longer, in the worst of these seconds; nothing without requests.
    pub(crate) p99_ms: Option<f32>,
}

impl Line {
    fn new(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            stats: backend.stats.clone(),
            counted: Counted::read(&backend.stats),
            left: Vec::new(),
            points: VecDeque::new(),
        }
    }

    fn record(&mut self, stats: &Arc<BackendStats>, second: u32) {
        let mut added = self.added();
        if !Arc::ptr_eq(&self.stats, stats) {
            // Another version came within this second.
            self.replace(stats);
            added.add(&self.added());
        }
        self.points.extend(added.point(second));
    }

    /// What was counted since the last time.
    fn added(&mut self) -> Counted {
        let counted = Counted::read(&self.stats);
        let added = counted.minus(&self.counted);
        self.counted = counted;
        added
    }

    /// What one that comes back had counted before is not of this second; one that is new has counted nothing
    /// else.
    fn replace(&mut self, stats: &Arc<BackendStats>) {
        let is_back = |left: &Weak<BackendStats>| std::ptr::eq(left.as_ptr(), Arc::as_ptr(stats));
        self.counted = match self.left.iter().any(is_back) {
            true => Counted::read(stats),
            false => Counted::default(),
        };
        self.left
            .retain(|left| left.strong_count() > 0 && !is_back(left));
        self.left.push(Arc::downgrade(&self.stats));
        self.stats = stats.clone();
    }

    /// Drops points that are too old, or, after the clock was set back, of a future.
    fn forget_before(&mut self, oldest: u32) {
        let newest = self.points.back().map_or(0, |point| point.second);
        let span = oldest..=newest;
        self.points.retain(|point| span.contains(&point.second));
    }
}

impl Counted {
    fn read(stats: &BackendStats) -> Self {
        let mut counted = Self::default();
        for cells in stats.split() {
            for (class, cell) in CLASSES.iter().zip(&cells.classes) {
                counted.requests += cell.get();
                if matches!(*class, "5xx" | "connect" | "timeout" | "reset") {
                    counted.failures += cell.get();
                }
            }
            for (sum, cell) in counted.times.iter_mut().zip(&cells.latency) {
                *sum += cell.get();
            }
        }
        counted
    }

    /// What was added since then.
    fn minus(&self, before: &Self) -> Self {
        let mut added = Self {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            times: self.times,
        };
        for (time, then) in added.times.iter_mut().zip(&before.times) {
            *time = time.saturating_sub(*then);
        }
        added
    }

    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.failures += more.failures;
        for (time, more) in self.times.iter_mut().zip(&more.times) {
            *time += more;
        }
    }

    /// It as the point of a second; none if nothing ended.
    fn point(&self, second: u32) -> Option<Point> {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        (self.requests > 0).then(|| Point {
            second,
            requests: narrow(self.requests),
            failures: narrow(self.failures.min(self.requests)),
            p50_ms: quantile_ms(&self.times, 0.5),
            p99_ms: quantile_ms(&self.times, 0.99),
        })
    }
}

/// Below which time this share of requests is, by a straight line within the bucket it falls into; the
/// lower end of the last one, which has no other.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a point on a chart has no need of more than three digits"
)]
fn quantile_ms(times: &[u64; BUCKETS], share: f64) -> f32 {
    let wanted = share * times.iter().sum::<u64>() as f64;
    let mut below = 0.0;
    let mut low_us = 0;
    for (count, high_us) in times.iter().zip(LATENCY_BOUNDS_US) {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let part = (wanted - below) / count;
            let us = low_us as f64 + part * (high_us - low_us) as f64;
            return (us / 1e3) as f32;
        }
        below += count;
        low_us = high_us;
    }
    (low_us as f64 / 1e3) as f32
}

#[cfg(test)]
mod tests;
