//! What a judge shows of itself.

use serde::Serialize;
use utoipa::ToSchema;

use crate::observer::{Gauge, Reading};

/// What the judge of a backend thinks.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Judge)]
pub(crate) struct View {
    /// How close it is to a rollback: 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    evidence: f64,
    /// What it last had to say; nothing before it has seen requests.
    #[serde(flatten)]
    #[schema(inline)]
    reading: Option<Reading>,
}

/// The view of a judge's gauge.
pub(super) fn view(gauge: &Gauge) -> View {
    View {
        evidence: gauge.evidence(),
        reading: gauge.reading().map(|reading| Reading::clone(&reading)),
    }
}

/// The numbers of a verdict.
#[derive(ToSchema)]
#[schema(as = Explanation)]
#[expect(
    dead_code,
    reason = "described, never made: the judge knows nothing of OpenAPI"
)]
pub(crate) struct Explanation {
    /// Canary requests since the trouble began.
    canary_requests: u64,
    /// Those of them that failed.
    canary_failures: u64,
    /// Stable requests over the same stretch.
    stable_requests: u64,
    /// Those of them that failed.
    stable_failures: u64,
    /// Length of the stretch in seconds.
    seconds: f64,
    /// Upper bound of stable's usual failure rate, 0 to 1.
    usual_rate: f64,
    /// The odds of such counts from a healthy canary are at most one in ten to this power.
    odds_power: f64,
}
