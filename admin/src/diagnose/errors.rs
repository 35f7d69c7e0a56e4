//! Who errs, and since when: from what every backend did second by second.

use jiff::Timestamp;
use serde::Serialize;
use switchback_config::model::Name;
use utoipa::ToSchema;

use crate::trend::{Point, Stretch};

/// The seconds that say whether a backend errs now.
const RECENT: u32 = 60;

/// Failures below this are nothing to look at.
const FAILURES_MIN: u64 = 3;

/// Failures of a hundred requests below this are nothing to look at, either.
const PERCENT_MIN: u64 = 1;

/// So many seconds without a failure end a stretch of them.
const CALM: u32 = 30;

/// A backend that errs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ErringBackend)]
pub(crate) struct Errors {
    /// The backend.
    pub(crate) backend: Name,
    /// Label of what is deployed.
    pub(crate) version: String,
    /// Since when; earlier if `since_before` is set.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) since: Timestamp,
    /// It errs for as long as anything is known.
    pub(crate) since_before: bool,
    /// Requests of the last minute.
    pub(crate) requests: u64,
    /// Those of them that failed.
    pub(crate) failures: u64,
}

/// Whether a backend errs.
pub(crate) fn errs(backend: &Name, version: &str, stretch: &Stretch) -> Option<Errors> {
    let from = stretch.to.saturating_sub(RECENT - 1);
    let recent = stretch.points.iter().filter(|point| point.second >= from);
    let (mut requests, mut failures) = (0_u64, 0_u64);
    for point in recent {
        requests += u64::from(point.requests);
        failures += u64::from(point.failures);
    }
    if failures < FAILURES_MIN || failures * 100 < requests * PERCENT_MIN {
        return None;
    }
    let since = since(&stretch.points)?;
    let at = Timestamp::from_second(since.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    Some(Errors {
        backend: backend.clone(),
        version: version.to_owned(),
        since: at,
        since_before: since < stretch.from.saturating_add(CALM),
        requests,
        failures,
    })
}

/// The first second of the last stretch of failures.
fn since(points: &[Point]) -> Option<u32> {
    let failing = points.iter().rev().filter(|point| point.failures > 0);
    let mut first = None;
    for point in failing {
        match first {
            Some(later) if later - point.second > CALM => break,
            _ => first = Some(point.second),
        }
    }
    first
}
