//! From when on a request is slow: after a fixed time, or when it takes longer than nearly all of
//! stable's requests usually do.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::units::{TimeSpan, UnitError};

/// A request that takes longer to be answered is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Slow {
    /// Than a fixed time.
    Fixed(TimeSpan),
    /// Than this share of stable's requests, in thousandths: one of [`Slow::SHARES`].
    Stable(u16),
}

/// Bounds of a fixed time: shorter ones are below the resolution of the clock that data-plane threads
/// go by, longer ones no client waits for.
const FIXED: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(600));

impl Slow {
    /// What may follow `stable`, and the share it stands for. With a smaller share most slow requests
    /// would be ordinary ones; with a larger one there would hardly be any.
    pub const SHARES: [(&'static str, u16); 4] =
        [("p90", 900), ("p95", 950), ("p99", 990), ("p99.9", 999)];
}

impl FromStr for Slow {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Some(quantile) = text.strip_prefix("stable") {
            let known = Self::SHARES
                .iter()
                .find(|(name, _)| *name == quantile.trim());
            return known
                .map(|(_, share)| Self::Stable(*share))
                .ok_or(UnitError {
                    reason: format!("{text:?} says nothing about stable's times"),
                    repair: "write: stable p99; p90, p95 and p99.9 are known too".into(),
                });
        }
        let span: TimeSpan = text.parse().map_err(|error: UnitError| UnitError {
            reason: if text.starts_with(|c: char| c.is_ascii_digit()) {
                error.reason
            } else {
                format!("{text:?} is no time")
            },
            repair: "write a time such as 500ms, or: stable p99 (also p90, p95, p99.9)".into(),
        })?;
        if !(FIXED.0..=FIXED.1).contains(&span.0) {
            return Err(UnitError {
                reason: format!("{span} is no time from which on a request is slow"),
                repair: "use 20ms to 10m, or: stable p99".into(),
            });
        }
        Ok(Self::Fixed(span))
    }
}

impl From<Slow> for String {
    fn from(slow: Slow) -> Self {
        match slow {
            Slow::Fixed(span) => span.to_string(),
            Slow::Stable(_) => format!("stable {}", slow.quantile().unwrap_or_default()),
        }
    }
}

impl Slow {
    /// How the share of stable's requests is written, if it is one.
    #[must_use]
    pub fn quantile(self) -> Option<&'static str> {
        let Self::Stable(share) = self else {
            return None;
        };
        let known = Self::SHARES.iter().find(|(_, known)| *known == share);
        known.map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_it_is_printed_the_same_way() {
        for text in [
            "500ms",
            "20ms",
            "10m",
            "stable p90",
            "stable p95",
            "stable p99",
            "stable p99.9",
        ] {
            let slow: Slow = text.parse().expect(text);
            assert_eq!(String::from(slow), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_repair() {
        for text in [
            "19ms",
            "601s",
            "500",
            "fast",
            "stable",
            "stable p50",
            "canary p99",
            "p99",
            "",
        ] {
            let error = Slow::from_str(text).expect_err(text);
            assert!(
                error.repair.contains("stable p99") || error.repair.contains("500ms"),
                "{text}: {error:?}"
            );
        }
    }
}
