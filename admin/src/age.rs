//! Spans of time as people say them: one unit. What is past is rounded down, since it has lasted at least so
//! long; what is to come to the nearest, since a trial of 48 h that has just begun does not end in 47.

use jiff::{SignedDuration, Timestamp};

/// How much later `to` is, or how much earlier: `45 s`, `12 min`, `3 h`, `2 d`.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    span(to.duration_since(from))
}

/// How long it takes from `now` until `then`: `48 h` for a second less than that.
pub(crate) fn until(now: Timestamp, then: Timestamp) -> String {
    let left = then.duration_since(now);
    let half = match left.unsigned_abs().as_secs() {
        0..60 => SignedDuration::from_millis(500),
        60..3_600 => SignedDuration::from_secs(30),
        3_600..172_800 => SignedDuration::from_mins(30),
        _ => SignedDuration::from_hours(12),
    };
    span(left.saturating_add(half))
}

fn span(span: SignedDuration) -> String {
    let seconds = span.unsigned_abs().as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_is_rounded_to_the_nearest() {
        for (milliseconds, text) in [
            (0, "0 s"),
            (499, "0 s"),
            (4_600, "5 s"),
            (59_600, "1 min"),
            (89_000, "1 min"),
            (90_000, "2 min"),
            (3_599_000, "1 h"),
            (172_799_000, "2 d"),
            (86_399_000, "24 h"),
            (170_000_000, "47 h"),
            (171_000_000, "2 d"),
            (2_591_999_000, "30 d"),
        ] {
            let at = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(milliseconds);
            assert_eq!(until(Timestamp::UNIX_EPOCH, at), text, "{milliseconds}");
        }
    }

    #[test]
    fn spans_have_one_unit_whichever_way_they_go() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            assert_eq!(between(Timestamp::UNIX_EPOCH, at), text);
            assert_eq!(between(at, Timestamp::UNIX_EPOCH), text);
        }
    }
}
