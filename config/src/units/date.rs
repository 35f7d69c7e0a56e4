//! A point of time in a file: a day, or a day and a time in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::UnitError;

/// A point of time, to the second: `2027-05-01`, which is its first second, or `2027-05-01T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(u64);

/// The end of the year 9999: later ones have no such form.
const SECONDS_MAX: u64 = 253_402_300_799;

impl Date {
    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Date {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let whole = match text.len() {
            10 => format!("{text}T00:00:00Z"),
            _ => text.to_owned(),
        };
        let since = humantime::parse_rfc3339(&whole)
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let wrong = || {
            UnitError::new(
                "this is not a date",
                "write a day, for example 2027-05-01, or a time in UTC such as 2027-05-01T12:00:00Z",
            )
        };
        let seconds = since.ok_or_else(wrong)?.as_secs();
        (seconds <= SECONDS_MAX)
            .then_some(Self(seconds))
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_secs(self.0);
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error: UnitError| serde::de::Error::custom(error.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_or_times_in_utc() {
        for (text, seconds, written) in [
            ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
            ("2027-05-01", 1_809_129_600, "2027-05-01T00:00:00Z"),
            (
                "2027-05-01T12:00:00Z",
                1_809_172_800,
                "2027-05-01T12:00:00Z",
            ),
        ] {
            let date: Date = text.parse().expect(text);
            assert_eq!((date.seconds(), &*date.to_string()), (seconds, written));
            assert_eq!(written.parse::<Date>(), Ok(date));
        }
        for text in [
            "",
            "2027",
            "2027-13-01",
            "2027-05-01T12:00:00+02:00",
            "1.5.2027",
            "1969-12-31",
        ] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }
}
