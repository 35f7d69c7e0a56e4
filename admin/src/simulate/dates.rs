//! Times in logs: the day is worked out once and kept, since the next line is of the same day.

use jiff::Timestamp;
use jiff::fmt::strtime;

const DAY_MS: i64 = 86_400_000;

/// The days that were met last.
#[derive(Clone, Debug, Default)]
pub(super) struct Dates {
    /// `2026-11-24`, and its beginning in UTC.
    own: Option<([u8; 10], i64)>,
    /// `24/Nov/2026` and `+0100`, and the beginning of that day there.
    common: Option<([u8; 11], [u8; 5], i64)>,
}

impl Dates {
    /// `2026-11-24T08:33:07.123Z`, or whatever else RFC 3339 allows; in milliseconds since 1970.
    pub(super) fn rfc3339(&mut self, text: &[u8]) -> Option<i64> {
        if let (Some((day, [b'T', time @ .., b'Z'])), Some((known, start))) =
            (text.split_first_chunk::<10>(), &self.own)
            && day == known
            && let Some(in_day) = time_of_day(time)
        {
            return Some(start + in_day);
        }
        let whole = std::str::from_utf8(text).ok()?;
        let time_ms = whole.parse::<Timestamp>().ok()?.as_millisecond();
        if let (Some((day, _)), true) = (text.split_first_chunk::<10>(), text.ends_with(b"Z")) {
            self.own = Some((*day, time_ms.div_euclid(DAY_MS) * DAY_MS));
        }
        Some(time_ms)
    }

    /// `24/Nov/2026:08:33:07 +0000`, in milliseconds since 1970.
    pub(super) fn common(&mut self, text: &[u8]) -> Option<i64> {
        let (day, rest) = text.split_first_chunk::<11>()?;
        let (rest, zone) = rest.split_last_chunk::<5>()?;
        let [b':', time @ .., b' '] = rest else {
            return None;
        };
        let in_day = time_of_day(time)?;
        match &self.common {
            Some((known_day, known_zone, start)) if (known_day, known_zone) == (day, zone) => {
                Some(start + in_day)
            }
            _ => {
                let whole = std::str::from_utf8(text).ok()?;
                let parsed = strtime::parse("%d/%b/%Y:%H:%M:%S %z", whole).ok()?;
                let time_ms = parsed.to_timestamp().ok()?.as_millisecond();
                self.common = Some((*day, *zone, time_ms - in_day));
                Some(time_ms)
            }
        }
    }
}

/// `08:33:07` or `08:33:07.123`, in milliseconds. Leap seconds are left to who knows them.
fn time_of_day(text: &[u8]) -> Option<i64> {
    let (clock, fraction) = text.split_first_chunk::<8>()?;
    let [h, hh, b':', m, mm, b':', s, ss] = clock else {
        return None;
    };
    let millis = match fraction {
        [] => 0,
        [b'.', a, b, c] => number(&[*a, *b, *c])?,
        _ => return None,
    };
    let (hours, minutes, seconds) = (
        number(&[*h, *hh])?,
        number(&[*m, *mm])?,
        number(&[*s, *ss])?,
    );
    let is_time = hours < 24 && minutes < 60 && seconds < 60;
    is_time.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000 + millis)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        let is_digit = digit.is_ascii_digit();
        is_digit.then(|| number * 10 + i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_same_whether_the_day_is_known_or_not() {
        let mut dates = Dates::default();
        for text in [
            "2026-11-24T08:33:07.123Z",
            "2026-11-24T00:00:00.000Z",
            "2026-11-24T23:59:59.999Z",
            "2026-11-24T08:33:07Z",
            "2026-11-24T08:33:07.123456Z",
            "2026-11-25T00:00:00.001Z",
            "1969-12-31T23:59:59.999Z",
            "1969-12-31T00:00:00.000Z",
            "2026-11-25T01:00:00+01:00",
        ] {
            let expected = text.parse::<Timestamp>().expect(text).as_millisecond();
            assert_eq!(dates.rfc3339(text.as_bytes()), Some(expected), "{text}");
        }
        for (text, same) in [
            ("24/Nov/2026:08:33:07 +0000", "2026-11-24T08:33:07Z"),
            ("24/Nov/2026:23:59:59 +0000", "2026-11-24T23:59:59Z"),
            ("24/Nov/2026:08:33:07 -0530", "2026-11-24T14:03:07Z"),
            ("01/Jan/2027:00:00:00 +0100", "2026-12-31T23:00:00Z"),
        ] {
            let expected = same.parse::<Timestamp>().expect(same).as_millisecond();
            assert_eq!(dates.common(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        let mut dates = Dates::default();
        dates.rfc3339(b"2026-11-24T08:33:07.123Z");
        dates.common(b"24/Nov/2026:08:33:07 +0000");
        for text in [
            "",
            "2026-11-24",
            "2026-11-24T25:00:00.000Z",
            "2026-11-24T08:33:61Z",
        ] {
            assert_eq!(dates.rfc3339(text.as_bytes()), None, "{text}");
        }
        for text in [
            "",
            "24/Nov/2026",
            "24/Nov/2026:24:00:00 +0000",
            "24/Foo/2026:08:33:07 +0000",
        ] {
            assert_eq!(dates.common(text.as_bytes()), None, "{text}");
        }
    }
}
