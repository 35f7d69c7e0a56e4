//! Numbers as they are written on a screen that changes: short, and of a steady width.

use std::time::Duration;

use serde_json::Value;

use super::super::pace::Gain;
use crate::cli::look::percent;

/// What is not known.
const UNKNOWN: &str = "-";

/// A part of the traffic, 0 to 1, with no more digits than it needs.
pub(super) fn share(share: f64) -> String {
    let written = percent(&share.into());
    match written.strip_suffix(".0%") {
        Some(whole) => format!("{whole}%"),
        None => written,
    }
}

/// Requests a second.
pub(super) fn rate(gain: Option<&Gain>) -> String {
    gain.map_or_else(|| UNKNOWN.into(), |gain| per_second(gain.per_second()))
}

fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 1_000_000.0 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 10_000.0 => format!("{:.1}k", rate / 1e3),
        rate if rate >= 10.0 || rate == 0.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

/// The part of the requests that failed.
pub(super) fn errors(gain: Option<&Gain>) -> String {
    let failed = gain.and_then(Gain::failed);
    failed.map_or_else(|| UNKNOWN.into(), |failed| percent(&failed.into()))
}

/// The time within which a part of the requests was answered.
pub(super) fn quantile(gain: Option<&Gain>, part: f64) -> String {
    let quantile = gain.and_then(|gain| gain.quantile(part));
    quantile.map_or_else(|| UNKNOWN.into(), time)
}

fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// How close a judge is to a rollback.
pub(super) fn evidence(evidence: Option<f64>) -> String {
    evidence.map_or_else(|| UNKNOWN.into(), |evidence| format!("{evidence:.2}"))
}

/// How long ago something was.
pub(super) fn ago(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// A text that may not be there.
pub(super) fn or_unknown(value: &Value) -> String {
    value.as_str().unwrap_or(UNKNOWN).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.04, 9.9, 10.0, 9_999.0, 12_345.0, 2_500_000.0].map(per_second),
            ["0", "0.0", "9.9", "10", "9999", "12.3k", "2.5M"]
        );
        assert_eq!(
            [0.0, 0.000_5, 0.055, 0.95, 1.0].map(share),
            ["0%", "0.05%", "5.5%", "95%", "100%"]
        );
        let times = [0, 1_250, 99_500, 1_500_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["0.0 ms", "1.2 ms", "100 ms", "1.5 s"]);
        assert_eq!(
            [-1, 0, 119, 120, 7_199, 7_200].map(ago),
            ["0 s", "0 s", "119 s", "2 min", "119 min", "2 h"]
        );
        assert_eq!([None, Some(0.256)].map(evidence), ["-", "0.26"]);
        assert_eq!(
            [rate(None), errors(None), quantile(None, 0.5)],
            ["-", "-", "-"]
        );
    }
}
