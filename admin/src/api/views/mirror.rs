//! How copies of stable's requests did, beside their originals.

use serde::Serialize;
use switchback_config::model::{self, Name};
use switchback_config::units::Percent;
use switchback_proxy::stats::mirrored::MirroredCells;
use utoipa::ToSchema;

use super::schema;
use crate::builder::find;
use crate::control::{Published, ServiceStatus};
use crate::effective::Effective;

/// Copies of stable's requests. Counts are those of the version that the mirrored backend has now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Mirror {
    /// The backend that gets the copies.
    to: Name,
    /// The label of what is deployed there.
    version: String,
    /// Share of stable's requests with these methods.
    #[schema(value_type = schema::Percent)]
    share: Percent,
    /// The methods that are copied.
    methods: Vec<String>,
    /// Why no copies are made now.
    stopped: Option<Stopped>,
    /// Copies that were compared with their originals.
    mirrored: u64,
    /// Those of them that failed.
    failed: u64,
    /// Those of them that ended otherwise than their originals.
    mismatched: u64,
    /// In which way.
    mismatches: Mismatches,
    /// Requests that were chosen for a copy and not copied.
    dropped: u64,
    /// For which reason.
    drops: Drops,
    /// Mean time to the head of the copies' responses; nothing before there were any.
    mean_ms: Option<f64>,
    /// The same of their originals.
    stable_mean_ms: Option<f64>,
}

/// Why no copies are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MirrorStopped)]
#[serde(rename_all = "snake_case")]
enum Stopped {
    /// The backend is stable now.
    Stable,
    /// Its version is blocked.
    Blocked,
}

/// How copies ended otherwise than their originals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MirrorMismatches)]
struct Mismatches {
    /// Only the copy failed.
    failed: u64,
    /// Only the original failed.
    repaired: u64,
    /// The statuses are of different classes.
    class: u64,
    /// Another status, or gRPC code, of the same class.
    status: u64,
}

/// Why requests that were chosen were not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MirrorDrops)]
struct Drops {
    /// As many copies as may be were under way.
    busy: u64,
    /// The body was too large or not whole.
    body: u64,
    /// The original ended without an answer, or was a long one.
    original: u64,
    /// The backend had no usable endpoint or connection.
    unavailable: u64,
}

/// The view of a service's mirror, if one is configured.
pub(super) fn view(
    published: &Published,
    service: &str,
    file: &model::Service,
    status: &ServiceStatus,
) -> Option<Mirror> {
    let mirror = file.mirror.as_ref()?;
    let effective = &status.effective;
    let live = find(&published.snapshot, service)?;
    let live = live.backends.iter().find(|live| *live.name == *mirror.to)?;
    let cells = live.stats.mirrored();
    let sum = |read: &dyn Fn(&MirroredCells) -> u64| cells.iter().map(read).sum::<u64>();
    let [failed, repaired, class, status] =
        [0, 1, 2, 3].map(|kind| sum(&|cells| cells.differences[kind].get()));
    let [busy, body, original, unavailable] =
        [0, 1, 2, 3].map(|reason| sum(&|cells| cells.dropped[reason].get()));
    let timed = sum(&|cells| cells.timed.get());
    Some(Mirror {
        to: mirror.to.clone(),
        version: effective.version(&mirror.to).into(),
        share: mirror.share,
        methods: mirror.methods.clone(),
        stopped: stopped(effective, &mirror.to),
        mirrored: sum(&|cells| cells.compared.get()),
        failed: sum(&|cells| cells.failed.get()),
        mismatched: failed + repaired + class + status,
        mismatches: Mismatches {
            failed,
            repaired,
            class,
            status,
        },
        dropped: busy + body + original + unavailable,
        drops: Drops {
            busy,
            body,
            original,
            unavailable,
        },
        mean_ms: mean_ms(sum(&|cells| cells.copies_us.get()), timed),
        stable_mean_ms: mean_ms(sum(&|cells| cells.originals_us.get()), timed),
    })
}

fn stopped(effective: &Effective, to: &Name) -> Option<Stopped> {
    if *to == effective.stable {
        Some(Stopped::Stable)
    } else if effective.blocked.contains(to) {
        Some(Stopped::Blocked)
    } else {
        None
    }
}

/// Milliseconds with three decimals; none without requests.
fn mean_ms(total_us: u64, requests: u64) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums of microseconds stay below 2^53 for centuries"
    )]
    let mean_us = total_us as f64 / requests as f64;
    (requests > 0).then(|| mean_us.round() / 1e3)
}
