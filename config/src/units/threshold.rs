//! When a number is bad: `> 5`, `<= 0.5`; and which statuses are good: `200-299`, `204`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::UnitError;

/// A bound with the side of it that is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    comparison: Comparison,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Comparison {
    /// The longer notation first, so that `>=` is not read as `>`.
    const ALL: [(Self, &'static str); 4] = [
        (Self::AtLeast, ">="),
        (Self::AtMost, "<="),
        (Self::Above, ">"),
        (Self::Below, "<"),
    ];
}

impl Threshold {
    /// Whether this number is bad. `NaN` never is.
    #[must_use]
    pub fn is_met(self, number: f64) -> bool {
        match self.comparison {
            Comparison::Above => number > self.bound,
            Comparison::AtLeast => number >= self.bound,
            Comparison::Below => number < self.bound,
            Comparison::AtMost => number <= self.bound,
        }
    }

    /// The worse one of two numbers.
    #[must_use]
    pub fn worse(self, one: f64, other: f64) -> f64 {
        match self.comparison {
            Comparison::Above | Comparison::AtLeast => one.max(other),
            Comparison::Below | Comparison::AtMost => one.min(other),
        }
    }
}

impl FromStr for Threshold {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(
                "this is not a threshold",
                "write a comparison and a number, for example \"> 5\", \">= 0.5\", \"< 100\" or \"<= 1\"",
            )
        };
        let text = text.trim();
        let found = Comparison::ALL
            .iter()
            .find_map(|(comparison, sign)| Some((*comparison, text.strip_prefix(sign)?)));
        let (comparison, number) = found.ok_or_else(wrong)?;
        let number = number.trim();
        let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e');
        let bound: f64 = match number.bytes().all(plain) {
            true => number.parse().map_err(|_| wrong())?,
            false => return Err(wrong()),
        };
        if !bound.is_finite() {
            return Err(wrong());
        }
        Ok(Self { comparison, bound })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Comparison::ALL
            .iter()
            .find(|(comparison, _)| *comparison == self.comparison)
            .map_or("", |(_, sign)| sign);
        write!(f, "{sign} {}", self.bound)
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Statuses from the first to the last one, both included.
///
/// Invariant: `100 <= first <= last <= 599`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Every 2xx status.
    pub const SUCCESS: Self = Self {
        first: 200,
        last: 299,
    };

    /// Whether it is one of them.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl FromStr for StatusRange {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(
                "these are not statuses",
                "write a status or a range of them, for example 204 or 200-299",
            )
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let read = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (read(first)?, read(last)?);
        if first < 100 || last > 599 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_print_as_written() {
        for text in ["> 5", ">= 0.5", "< 100", "<= -1", "> 0"] {
            let threshold: Threshold = text.parse().expect(text);
            assert_eq!(threshold.to_string(), text);
        }
        assert_eq!(
            ">5".parse::<Threshold>().map(|t| t.to_string()),
            Ok("> 5".into())
        );
        for text in [
            "", "5", "> ", "= 5", "=> 5", "> NaN", "> inf", "> 5%", ">> 5", "> 1e999",
        ] {
            let error = text.parse::<Threshold>().expect_err(text);
            assert!(!error.repair.is_empty());
        }
    }

    #[test]
    fn bound_itself_is_bad_only_where_it_is_included() {
        let is_met = |text: &str, number| text.parse::<Threshold>().expect(text).is_met(number);
        for (text, below, at, above) in [
            ("> 5", false, false, true),
            (">= 5", false, true, true),
            ("< 5", true, false, false),
            ("<= 5", true, true, false),
        ] {
            let found = [4.9, 5.0, 5.1].map(|number| is_met(text, number));
            assert_eq!(found, [below, at, above], "{text}");
            assert!(!is_met(text, f64::NAN));
        }
        assert!(is_met("> 5", f64::INFINITY));
    }

    #[test]
    fn status_ranges_print_as_written() {
        for text in ["200-299", "204", "100-599"] {
            let range: StatusRange = text.parse().expect(text);
            assert_eq!(range.to_string(), text);
        }
        for text in ["", "99", "600", "299-200", "2xx", "200-", "-200"] {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
        let range = StatusRange::SUCCESS;
        let found = [199, 200, 299, 300].map(|status| range.contains(status));
        assert_eq!(found, [false, true, true, false]);
    }
}
