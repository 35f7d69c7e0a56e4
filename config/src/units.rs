//! Quantities as people write them: durations, sizes, percents, rates, endpoints.
//!
//! Each type parses exactly one notation and prints it back the same way, so that what
//! `check --explain` shows can be pasted into a file. Bare numbers are refused: `30` could be
//! seconds or milliseconds, and at 3 a.m. nobody should have to guess.

mod date;
mod endpoint;
mod threshold;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use date::Date;
pub use endpoint::{Endpoint, EndpointHost, Scheme, is_dns_name};
pub use threshold::{StatusRange, Threshold};

/// Why a quantity could not be read, and what would be accepted instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct UnitError {
    /// What is wrong, in lower case and without a full stop.
    pub reason: String,
    /// How to write it, as an instruction.
    pub repair: String,
}

impl UnitError {
    pub(crate) fn new(reason: impl Into<String>, repair: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            repair: repair.into(),
        }
    }
}

/// Makes a type travel through serde as the text that people write.
macro_rules! as_text {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|e: UnitError| {
                    serde::de::Error::custom(format_args!("{}; {}", e.reason, e.repair))
                })
            }
        }
    };
}

/// A length of time written with its unit: `250ms`, `30s`, `5m`, `48h`, `30d`, or a sum such as `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(pub Duration);

/// The longest time accepted anywhere: ten years. Longer ones are typing mistakes, and the bound
/// keeps every later addition of two times far from overflow.
pub const TIME_SPAN_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const REPAIR: &str = "write a number with its unit, for example 250ms, 30s, 5m or 48h";
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(UnitError::new(
                "a duration needs a unit",
                format!("write {text}s or {text}ms"),
            ));
        }
        let span = humantime::parse_duration(text)
            .map_err(|_| UnitError::new("this is not a duration", REPAIR))?;
        if span > TIME_SPAN_MAX {
            return Err(UnitError::new(
                "this duration is longer than ten years",
                REPAIR,
            ));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let nanos = self.0.as_nanos();
        // `48h` is the field's way to write two days; days are used from three on.
        let exact = UNITS
            .iter()
            .filter(|(size, name)| *name != "d" || nanos >= 3 * size);
        match exact
            .clone()
            .find(|(size, _)| nanos != 0 && nanos.is_multiple_of(*size))
        {
            Some((size, name)) => write!(f, "{}{name}", nanos / size),
            None => f.write_str("0s"),
        }
    }
}

as_text!(TimeSpan);

/// A number of bytes written with its unit: `64KiB`, `16MiB`, `1GB`, `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const REPAIR: &str = "write a number with its unit, for example 512B, 64KiB or 16MiB";
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(UnitError::new(
                "a size needs a unit",
                format!("write {text}B or {text}KiB"),
            ));
        }
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|_| UnitError::new("this is not a size", REPAIR))?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        match UNITS
            .iter()
            .find(|(size, _)| self.0 != 0 && self.0.is_multiple_of(*size))
        {
            Some((size, name)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

as_text!(ByteSize);

/// A share written as `5%` or `0.25%`; from 0 % to 100 % in steps of a ten-thousandth of a percent.
///
/// Invariant: at most [`Percent::WHOLE`] parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// Parts in 100 %.
    pub const WHOLE: u32 = 1_000_000;

    /// A share from millionths.
    ///
    /// # Panics
    /// When `parts` is more than [`Percent::WHOLE`].
    #[must_use]
    pub const fn from_millionths(parts: u32) -> Self {
        assert!(parts <= Self::WHOLE, "a share is at most 100 %");
        Self(parts)
    }

    /// The share in millionths, 0 to 1 000 000.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// The share as a fraction from 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let repair = || "write a share from 0% to 100%, for example 5% or 0.5%".to_owned();
        let Some(number) = text.strip_suffix('%') else {
            return Err(UnitError::new("a share needs a percent sign", repair()));
        };
        let (whole, decimals) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || whole.len() > 3
            || decimals.len() > 4
            || !digits(whole)
            || !digits(decimals)
        {
            return Err(UnitError::new("this is not a share", repair()));
        }
        let parts = format!("{whole}{decimals:0<4}").parse().unwrap_or(u32::MAX);
        if parts > Self::WHOLE {
            return Err(UnitError::new("a share is at most 100%", repair()));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:04}", self.0 % 10_000);
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        write!(f, "{}{point}{decimals}%", self.0 / 10_000)
    }
}

as_text!(Percent);

/// How often something may happen: `1/year`, `2/month`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many times, 1 to 1000.
    pub count: u32,
    /// In which period.
    pub per: Period,
}

/// The period of a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// 3 600 s
    Hour,
    /// 24 hours
    Day,
    /// 7 days
    Week,
    /// 30 days
    Month,
    /// 365 days
    Year,
}

impl Period {
    const ALL: [(Self, &'static str, u32); 5] = [
        (Self::Hour, "hour", 3_600),
        (Self::Day, "day", 86_400),
        (Self::Week, "week", 7 * 86_400),
        (Self::Month, "month", 30 * 86_400),
        (Self::Year, "year", 365 * 86_400),
    ];
}

impl Rate {
    /// Mean time between two events, in seconds: the judge's budget T.
    #[must_use]
    pub fn seconds(self) -> f64 {
        let (_, _, seconds) = Period::ALL[self.per as usize];
        f64::from(seconds) / f64::from(self.count)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(
                "this is not a rate",
                "write a count and a period, for example 1/year, 2/month, 1/week, 1/day or 1/hour",
            )
        };
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = Period::ALL
            .iter()
            .find(|(_, name, _)| *name == per.trim())
            .ok_or_else(wrong)?
            .0;
        if !(1..=1000).contains(&count) {
            return Err(wrong());
        }
        Ok(Self { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, Period::ALL[self.per as usize].1)
    }
}

as_text!(Rate);
as_text!(Endpoint);

#[cfg(test)]
mod tests {
    use super::*;

    fn prints_back<T: FromStr<Err = UnitError> + fmt::Display>(texts: &[&str]) {
        for text in texts {
            let value = text.parse::<T>().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(value.to_string(), *text);
        }
    }

    fn refuses<T: FromStr<Err = UnitError> + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let error = text.parse::<T>().expect_err(text);
            assert!(!error.repair.is_empty());
        }
    }

    #[test]
    fn durations_print_as_written() {
        prints_back::<TimeSpan>(&[
            "250ms", "30s", "5m", "48h", "30d", "1500ms", "0s", "90m", "7us",
        ]);
        refuses::<TimeSpan>(&["", "30", "3.5", "abc", "-3s", "11years", "5 parsecs"]);
        assert_eq!(
            "1h 30m".parse::<TimeSpan>(),
            Ok(TimeSpan(Duration::from_secs(5400)))
        );
    }

    #[test]
    fn sizes_print_as_written() {
        prints_back::<ByteSize>(&["64KiB", "16MiB", "1GiB", "512B", "0B", "1000B"]);
        refuses::<ByteSize>(&["", "64", "1.5", "KiB", "-1KiB"]);
        assert_eq!("1kb".parse::<ByteSize>(), Ok(ByteSize(1000)));
    }

    #[test]
    fn shares_print_as_written_and_are_exact() {
        prints_back::<Percent>(&["0%", "1%", "5%", "0.25%", "100%", "99.9999%", "0.0001%"]);
        refuses::<Percent>(&[
            "",
            "5",
            "%",
            "100.0001%",
            "101%",
            "-1%",
            "1.00001%",
            "5 percent",
            ".5%",
            "1e1%",
        ]);
        assert_eq!("1%".parse::<Percent>().map(Percent::fraction), Ok(0.01));
    }

    #[test]
    fn rates_print_as_written() {
        prints_back::<Rate>(&["1/year", "2/month", "1000/week", "1/day", "3/hour"]);
        refuses::<Rate>(&[
            "",
            "1",
            "0/year",
            "1001/year",
            "1/fortnight",
            "x/year",
            "/year",
        ]);
        assert_eq!(
            "1/year".parse::<Rate>().map(Rate::seconds),
            Ok(31_536_000.0)
        );
    }

    #[test]
    fn endpoints_print_with_their_port() {
        prints_back::<Endpoint>(&[
            "http://127.0.0.1:9001",
            "https://shop.internal:443",
            "h2c://[::1]:9000",
        ]);
        refuses::<Endpoint>(&[
            "",
            "127.0.0.1:80",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a:0",
            "http://a:65536",
            "http://::1",
            "http://[::1",
            "http://[zz]",
            "http://a b",
            "http://-a",
            "http://1.2.3",
        ]);
        assert_eq!(
            "http://Shop.Example/"
                .parse::<Endpoint>()
                .map(|e| e.to_string()),
            Ok("http://shop.example:80".into())
        );
        assert_eq!(
            "https://a:8443".parse::<Endpoint>().map(|e| e.authority()),
            Ok("a:8443".into())
        );
        assert_eq!(
            "https://a".parse::<Endpoint>().map(|e| e.authority()),
            Ok("a".into())
        );
    }
}
