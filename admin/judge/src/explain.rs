//! A verdict's numbers, and the sentence made of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exact;
use crate::likelihood::float;

/// Why the judge says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Canary requests since the trouble began.
    pub canary_requests: u64,
    /// Those of them that failed, or were slow where that is judged.
    pub canary_failures: u64,
    /// Stable requests over the same stretch.
    pub stable_requests: u64,
    /// Those of them that failed, or were slow.
    pub stable_failures: u64,
    /// Length of the stretch in seconds.
    pub seconds: f64,
    /// Upper bound of stable's usual failure rate, 0 to 1.
    pub usual_rate: f64,
    /// The odds of such counts from a healthy canary are at most one in ten to this power.
    #[serde(with = "exact")]
    pub odds_power: f64,
}

impl Explanation {
    /// The sentence where failures are requests that waited for longer than `limit`.
    #[must_use]
    pub fn about_slowness(&self, limit: &str) -> String {
        self.sentence(&format!("canary was slower than {limit} in"), "stable in")
    }

    fn sentence(&self, canary: &str, stable: &str) -> String {
        format!(
            "{canary} {} of {} ({:.1}%), {stable} {} of {} ({:.1}%) in the last {:.1} s; \
             stable's usual rate is at most {:.2}%; odds of a healthy canary 1 in 10^{:.0}",
            Grouped(self.canary_failures),
            Grouped(self.canary_requests),
            percent(self.canary_failures, self.canary_requests),
            Grouped(self.stable_failures),
            Grouped(self.stable_requests),
            percent(self.stable_failures, self.stable_requests),
            self.seconds,
            self.usual_rate * 100.0,
            self.odds_power.max(0.0),
        )
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence("canary failed", "stable"))
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        100.0 * float(part) / float(whole)
    }
}

/// A whole number with its thousands set apart by commas.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_groups_thousands_and_rounds_rates() {
        let explanation = Explanation {
            canary_requests: 412,
            canary_failures: 37,
            stable_requests: 1_009_801,
            stable_failures: 12,
            seconds: 3.12,
            usual_rate: 0.0013,
            odds_power: 11.6,
        };
        assert_eq!(
            explanation.to_string(),
            "canary failed 37 of 412 (9.0%), stable 12 of 1,009,801 (0.0%) in the last 3.1 s; \
             stable's usual rate is at most 0.13%; odds of a healthy canary 1 in 10^12"
        );
        assert_eq!(
            explanation.about_slowness("182ms (stable's p99)"),
            "canary was slower than 182ms (stable's p99) in 37 of 412 (9.0%), stable in 12 of \
             1,009,801 (0.0%) in the last 3.1 s; stable's usual rate is at most 0.13%; odds of a \
             healthy canary 1 in 10^12"
        );
    }
}
