//! Spans of time as people say them: one unit, rounded down.

use jiff::{SignedDuration, Timestamp};

/// How much later `to` is, or how much earlier: `45 s`, `12 min`, `3 h`, `2 d`.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    span(to.duration_since(from))
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
