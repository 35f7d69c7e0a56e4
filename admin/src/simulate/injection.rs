//! A fault that is put into the recorded traffic of one backend: `green 5xx=3% from 10:05`.
//!
//! Which requests it hits depends on nothing but the numbers of their lines, so the same log and the same
//! words always give the same answer.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use switchback_config::model::Name;
use switchback_config::units::{Percent, TimeSpan, UnitError};
use switchback_proxy::outcome::Outcome;

/// How a fault is written.
const FORM: &str = "write [SERVICE/]BACKEND KIND=SHARE [from TIME] [to TIME], for example 'green 5xx=3% from 10:05'; \
                    KIND is 5xx, a status, connect, timeout, reset or slow:TIME, TIME is 10:05, 10:05:30, \
                    +5m after the log's beginning, or as in 2026-11-24T10:05:00Z";

/// A fault, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// In the words of whoever asked.
    pub words: String,
    /// The service; none: the only one that has such a backend.
    pub service: Option<Name>,
    /// Whose requests fail.
    pub backend: Name,
    pub(super) what: What,
    share: Percent,
    from: Option<Moment>,
    to: Option<Moment>,
}

/// What happens to a request that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It ends like this.
    Ends(Outcome),
    /// It takes so much longer.
    Takes(Duration),
}

/// A point of a log's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Timestamp),
    /// Milliseconds since midnight, UTC.
    OfDay(i64),
    /// After the beginning of the log.
    After(Duration),
}

/// From when to when, in milliseconds since 1970; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

impl Window {
    pub(super) const fn has(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.to_ms
    }
}

impl Injection {
    /// When it holds in a log that begins at `start_ms`.
    pub(super) fn window(&self, start_ms: i64) -> Window {
        let from_ms = self
            .from
            .map_or(i64::MIN, |from| from.in_log(start_ms, start_ms));
        let earliest = from_ms.max(start_ms);
        let to_ms = self.to.map_or(i64::MAX, |to| to.in_log(start_ms, earliest));
        Window { from_ms, to_ms }
    }

    /// Whether it hits the request of this line.
    pub(super) fn hits(&self, line: u64) -> bool {
        // SplitMix64 (Steele, Lea and Flood, 2014): neighbouring numbers are far apart.
        let mut mixed = line.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed % u64::from(Percent::WHOLE) < u64::from(self.share.millionths())
    }
}

impl Moment {
    /// Times of day are the first of their kind that is not before `earliest_ms`.
    fn in_log(self, start_ms: i64, earliest_ms: i64) -> i64 {
        const DAY_MS: i64 = 86_400_000;
        match self {
            Self::At(at) => at.as_millisecond(),
            Self::After(span) => {
                let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                start_ms.saturating_add(span_ms)
            }
            Self::OfDay(ms) => {
                let at_ms = earliest_ms.div_euclid(DAY_MS) * DAY_MS + ms;
                match at_ms < earliest_ms {
                    true => at_ms + DAY_MS,
                    false => at_ms,
                }
            }
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(span) = text.strip_prefix('+') {
            let span: TimeSpan = span.parse().map_err(|error| refused(text, error))?;
            return Ok(Self::After(span.0));
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        let time = text.parse::<jiff::civil::Time>();
        let time = time.map_err(|_| format!("{text:?} is no time; {FORM}"))?;
        let since_midnight = time - jiff::civil::Time::midnight();
        since_midnight
            .total(jiff::Unit::Second)
            .map(|seconds| {
                #[expect(clippy::cast_possible_truncation, reason = "at most a day")]
                let ms = (seconds * 1e3).round() as i64;
                Self::OfDay(ms)
            })
            .map_err(|error| format!("{text:?}: {error}"))
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(span) = text.strip_prefix("slow:") {
            let span: TimeSpan = span.parse().map_err(|error| refused(text, error))?;
            return Ok(Self::Takes(span.0));
        }
        let outcome = match (text, text.parse::<u16>()) {
            ("5xx", _) => Outcome::Status(500),
            ("connect", _) => Outcome::Connect,
            ("timeout", _) => Outcome::Timeout,
            ("reset", _) => Outcome::Reset,
            (_, Ok(status @ 100..=599)) => Outcome::Status(status),
            _ => return Err(format!("{text:?} is no kind of fault; {FORM}")),
        };
        Ok(Self::Ends(outcome))
    }
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(target), Some(fault)) = (words.next(), words.next()) else {
            return Err(format!("{text:?} is no fault; {FORM}"));
        };
        let (service, backend) = match target.split_once('/') {
            Some((service, backend)) => (Some(service.to_owned()), backend),
            None => (None, target),
        };
        let Some((what, share)) = fault.split_once('=') else {
            return Err(format!("{fault:?} names no share; {FORM}"));
        };
        let share = share.parse().map_err(|error| refused(fault, error))?;
        let (mut from, mut to) = (None, None);
        while let Some(word) = words.next() {
            let moment = match word {
                "from" if from.is_none() && to.is_none() => &mut from,
                "to" if to.is_none() => &mut to,
                _ => return Err(format!("{word:?} is not understood here; {FORM}")),
            };
            let Some(time) = words.next() else {
                return Err(format!("no time follows {word:?}; {FORM}"));
            };
            *moment = Some(time.parse()?);
        }
        Ok(Self {
            words: text.to_owned(),
            service,
            backend: backend.to_owned(),
            what: what.parse()?,
            share,
            from,
            to,
        })
    }
}

fn refused(text: &str, error: UnitError) -> String {
    format!("{text}: {}; {}", error.reason, error.repair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(text: &str) -> Injection {
        text.parse().expect(text)
    }

    #[test]
    fn faults_are_read() {
        let start: Timestamp = "2026-11-24T09:00:00Z".parse().expect("a time");
        let start_ms = start.as_millisecond();
        let minutes = |minutes: i64| start_ms + minutes * 60_000;
        for (text, what, window) in [
            (
                "green 5xx=3% from 10:05",
                What::Ends(Outcome::Status(500)),
                (minutes(65), i64::MAX),
            ),
            (
                "shop/green 404=100% from +5m to 09:20:00",
                What::Ends(Outcome::Status(404)),
                (minutes(5), minutes(20)),
            ),
            (
                "green slow:800ms=0.5% to 08:00",
                What::Takes(Duration::from_millis(800)),
                (i64::MIN, minutes(23 * 60)),
            ),
            (
                "green reset=1% from 2026-11-24T09:01:00Z",
                What::Ends(Outcome::Reset),
                (minutes(1), i64::MAX),
            ),
        ] {
            let read = injection(text);
            assert_eq!(read.what, what, "{text}");
            let Window { from_ms, to_ms } = read.window(start_ms);
            assert_eq!((from_ms, to_ms), window, "{text}");
            assert_eq!(read.backend, "green");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_with_the_form() {
        for (text, said) in [
            ("green", "\"green\" is no fault"),
            ("green 5xx", "\"5xx\" names no share"),
            ("green 5xx=3", "5xx=3: a share needs a percent sign"),
            ("green 6xx=3%", "\"6xx\" is no kind of fault"),
            ("green slow:fast=3%", "slow:fast: this is not a duration"),
            ("green 5xx=3% at 10:05", "\"at\" is not understood here"),
            ("green 5xx=3% from", "no time follows \"from\""),
            ("green 5xx=3% from noon", "\"noon\" is no time"),
            (
                "green 5xx=3% to 10:05 from 10:00",
                "\"from\" is not understood here",
            ),
        ] {
            let error = text.parse::<Injection>().expect_err(text);
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn share_of_requests_is_hit() {
        let hits = |text: &str| {
            let injection = injection(text);
            (0..100_000).filter(|line| injection.hits(*line)).count()
        };
        assert_eq!(hits("green 5xx=0%"), 0);
        assert_eq!(hits("green 5xx=100%"), 100_000);
        let some = hits("green 5xx=3%");
        assert!((2_800..3_200).contains(&some), "{some}");
    }
}
