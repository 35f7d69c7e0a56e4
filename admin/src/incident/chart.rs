//! Small charts of text: one line of blocks, two seconds a column.

use crate::evidence::{JudgeEvidence, Second};

/// From nothing to full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns; with [`SECONDS`] each they cover what is recorded before and after.
const COLUMNS: i32 = 90;

/// Seconds of a column.
const SECONDS: i32 = 2;

/// The first column begins here.
const FIRST: i32 = -120;

/// How a judge's highest chart rose, from its lowest to the threshold.
pub(super) fn levels(judge: &JudgeEvidence) -> Option<String> {
    let mut columns = vec![None; usize::try_from(COLUMNS).ok()?];
    for point in &judge.path {
        let highest = point
            .levels
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        if let Some(column) = column(point.second).and_then(|index| columns.get_mut(index)) {
            // The level at the end of the column; levels above the threshold look like it.
            *column = Some(highest.min(0.0));
        }
    }
    let lowest = columns.iter().flatten().copied().fold(0.0, f64::min);
    if lowest >= 0.0 || lowest.is_infinite() {
        return None;
    }
    let line: String = columns
        .iter()
        .map(|level| level.map_or(' ', |level| block(1.0 - level / lowest)))
        .collect();
    Some(format!(
        "judge of {:<8} {}  {lowest:.1} to 0 nats; at 0 it may roll back\n",
        judge.trouble.as_str(),
        line.trim_end()
    ))
}

/// The share of the canary's requests that failed.
pub(super) fn failures(seconds: &[Second]) -> Option<String> {
    let mut columns = vec![(0, 0); usize::try_from(COLUMNS).ok()?];
    for second in seconds {
        if let Some(sum) = column(second.second).and_then(|index| columns.get_mut(index)) {
            sum.0 += second.canary_requests;
            sum.1 += second.canary_failures;
        }
    }
    if columns.iter().all(|(requests, _)| *requests == 0) {
        return None;
    }
    let line: String = columns
        .iter()
        .map(|(requests, failures)| match requests {
            0 => ' ',
            _ => block(super::percent(*failures, *requests) / 100.0),
        })
        .collect();
    let now = usize::try_from(-FIRST / SECONDS).unwrap_or(0);
    Some(format!(
        "{:17}{}v rolled back\n{:17}{}  0 to 100%\n",
        "",
        " ".repeat(now),
        "failed requests",
        line.trim_end()
    ))
}

fn column(second: i32) -> Option<usize> {
    usize::try_from((second - FIRST).div_euclid(SECONDS)).ok()
}

/// A part of a column, 0 to 1; what is there at all is seen.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1 to 8"
)]
fn block(part: f64) -> char {
    BLOCKS[(part * 8.0).ceil().clamp(1.0, 8.0) as usize]
}
