//! How long stable's requests usually take: a quantile of the last minutes.
//!
//! Times arrive as counts of bins; what lies in a bin is the caller's business. Counts decay with a
//! half-life, but only in seconds that have traffic, and never below a fixed number of requests: a
//! quiet service keeps its last thousand, however old. As in [`crate::baseline`], what is usual is
//! taken from earlier traffic only, and from stable's alone, so it does not follow the version that
//! is judged by it.

use std::time::Duration;

use switchback_config::defaults::{SLOW_HALF_LIFE, SLOW_REQUESTS_MIN};

use crate::likelihood::float;

/// As many times the requests that are needed at least are kept at least.
const KEPT: f64 = 5.0;

/// A quantile that forgets.
#[derive(Clone, Debug, PartialEq)]
pub struct UsualTimes {
    /// The part of the requests that are not slower, 0 to 1.
    share: f64,
    requests_min: f64,
    refreshed: Duration,
    last: Vec<u64>,
    bins: Vec<f64>,
    requests: f64,
}

impl UsualTimes {
    /// Nothing is known yet. `share`: the part of the requests that are not slower, in thousandths.
    #[must_use]
    pub fn new(share: u16, now: Duration) -> Self {
        let share = f64::from(share.min(999)) / 1e3;
        // Two slower ones at least, on average, for any share.
        let requests_min = f64::from(SLOW_REQUESTS_MIN).max((2.0 / (1.0 - share)).round());
        Self {
            share,
            requests_min,
            refreshed: now,
            last: Vec::new(),
            bins: Vec::new(),
            requests: 0.0,
        }
    }

    /// Takes in the counts of all bins since the start, at most once a second. Returns the bin up to
    /// which times are usual, once enough is known.
    pub fn refresh(&mut self, now: Duration, counts: impl Iterator<Item = u64>) -> Option<usize> {
        let passed = now.saturating_sub(self.refreshed);
        if passed < Duration::from_secs(1) {
            return None;
        }
        self.refreshed = now;
        let counts: Vec<u64> = counts.collect();
        self.last.resize(counts.len(), 0);
        self.bins.resize(counts.len(), 0.0);
        let news = counts.iter().zip(&self.last);
        let news: Vec<f64> = news
            .map(|(count, last)| float(count.wrapping_sub(*last)))
            .collect();
        self.last = counts;
        let fresh: f64 = news.iter().sum();
        if fresh > 0.0 {
            let kept = self.kept(passed, fresh);
            for (bin, new) in self.bins.iter_mut().zip(&news) {
                *bin = *bin * kept + new;
            }
            self.requests = self.requests * kept + fresh;
        }
        self.quantile()
    }

    /// The part of the older counts that is kept.
    fn kept(&self, passed: Duration, fresh: f64) -> f64 {
        let by_time = (-passed.as_secs_f64() / SLOW_HALF_LIFE.as_secs_f64()).exp2();
        let wanted = KEPT * self.requests_min - fresh;
        if self.requests > 0.0 {
            by_time.max((wanted / self.requests).min(1.0))
        } else {
            1.0
        }
    }

    fn quantile(&self) -> Option<usize> {
        if self.requests < self.requests_min {
            return None;
        }
        let mut faster = 0.0;
        self.bins.iter().position(|count| {
            faster += count;
            *count > 0.0 && faster >= self.share * self.requests
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service whose requests of each second are added to bins.
    struct Bench {
        usual: UsualTimes,
        counts: Vec<u64>,
        second: u64,
    }

    impl Bench {
        fn new(share: u16) -> Self {
            Self {
                usual: UsualTimes::new(share, Duration::ZERO),
                counts: vec![0; 10],
                second: 0,
            }
        }

        fn second(&mut self, requests: &[(usize, u64)]) -> Option<usize> {
            for (bin, count) in requests {
                self.counts[*bin] += count;
            }
            self.second += 1;
            let now = Duration::from_secs(self.second);
            self.usual.refresh(now, self.counts.iter().copied())
        }
    }

    #[test]
    fn nothing_is_usual_before_enough_was_seen() {
        let mut bench = Bench::new(990);
        assert_eq!(bench.second(&[(3, 199)]), None);
        assert_eq!(bench.second(&[(3, 1)]), Some(3));
        let mut bench = Bench::new(999);
        assert_eq!(bench.second(&[(3, 1_999)]), None);
        assert_eq!(bench.second(&[(3, 1)]), Some(3));
    }

    #[test]
    fn quantile_is_the_bin_that_holds_it() {
        for (share, bin) in [(900, 4), (950, 5), (990, 6), (999, 7)] {
            let mut bench = Bench::new(share);
            let found = bench.second(&[(4, 9_100), (5, 500), (6, 380), (7, 19), (9, 1)]);
            assert_eq!(found, Some(bin), "{share}");
        }
    }

    #[test]
    fn news_replace_what_is_minutes_old() {
        let mut bench = Bench::new(990);
        bench.second(&[(2, 100_000)]);
        let mut seconds = 0;
        while bench.second(&[(8, 10)]) != Some(8) {
            seconds += 1;
            assert!(
                seconds < 1_200,
                "ten a second replace a hundred thousand in minutes"
            );
        }
        assert!(seconds > 60, "but not at once: {seconds}");
    }

    #[test]
    fn silence_and_a_trickle_forget_nothing() {
        let mut bench = Bench::new(990);
        bench.second(&[(2, 980), (6, 20)]);
        for _ in 0..10_000 {
            assert_eq!(bench.second(&[]), Some(6));
        }
        let kept = bench.usual.requests;
        bench.second(&[(2, 1)]);
        assert!(bench.usual.requests >= kept);
        assert!(bench.usual.requests <= 1_001.0);
    }

    #[test]
    fn looks_within_a_second_see_nothing_new() {
        let mut usual = UsualTimes::new(990, Duration::ZERO);
        assert_eq!(
            usual.refresh(Duration::from_millis(999), [500].into_iter()),
            None
        );
        assert_eq!(
            usual.refresh(Duration::from_secs(1), [500].into_iter()),
            Some(0)
        );
    }
}
