//! One line of an access log: switchback's own JSON, or the combined format of Apache and nginx.
//!
//! A log of a day has more lines than there is patience, so lines are read as bytes, in place and
//! without an allocation. Values that matter here are never escaped by a writer that follows the
//! format: names come from the config file, which allows letters and digits only; labels of versions are
//! compared in their escaped form.

use memchr::memchr;

use super::dates::Dates;

/// What a line says about a request. Empty: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// When, in milliseconds since 1970.
    pub(super) time_ms: i64,
    pub(super) took_us: Option<u64>,
    pub(super) status: u16,
    pub(super) client: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) service: &'a [u8],
    pub(super) backend: &'a [u8],
    pub(super) version: &'a [u8],
    pub(super) pick: &'a [u8],
    pub(super) rescued_from: &'a [u8],
    pub(super) rescued_outcome: &'a [u8],
    pub(super) error: &'a [u8],
    /// Whether the format could have said which backend answered.
    pub(super) names_backends: bool,
}

/// Why a line cannot be read, and at which of its bytes, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) column: usize,
}

/// Reads a line without its line break.
pub(super) fn read<'a>(text: &'a [u8], dates: &mut Dates) -> Result<Line<'a>, Fault> {
    match text.first() {
        Some(b'{') => Scanner { text, at: 0 }.object(dates),
        _ => combined(text, dates),
    }
}

const NO_TIME: &str = "there is no time in it";
const BAD_TIME: &str = "its time cannot be read";
const BAD_STATUS: &str = "its status is no number from 100 to 999";
const NOT_JSON: &str = "it is not a JSON object";
const CUT_OFF: &str = "it ends in the middle of a JSON object";
const NOT_COMBINED: &str = "it is neither a JSON object nor a line in the combined format";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Time,
    Client,
    Method,
    Status,
    Duration,
    Service,
    Backend,
    Version,
    Pick,
    RescuedFrom,
    RescuedOutcome,
    Error,
    Other,
}

/// The fields of a line of our own, in their order, as they are written. Others are read all the same, only
/// not as fast.
const FIELDS: [(&str, Field); 21] = [
    ("\"time\":", Field::Time),
    ("\"client\":", Field::Client),
    ("\"listener\":", Field::Other),
    ("\"method\":", Field::Method),
    ("\"host\":", Field::Other),
    ("\"path\":", Field::Other),
    ("\"query\":", Field::Other),
    ("\"protocol\":", Field::Other),
    ("\"status\":", Field::Status),
    ("\"bytes\":", Field::Other),
    ("\"duration_ms\":", Field::Duration),
    ("\"service\":", Field::Service),
    ("\"backend\":", Field::Backend),
    ("\"version\":", Field::Version),
    ("\"pick\":", Field::Pick),
    ("\"rescued_from\":", Field::RescuedFrom),
    ("\"rescued_outcome\":", Field::RescuedOutcome),
    ("\"error\":", Field::Error),
    ("\"request_id\":", Field::Other),
    ("\"user_agent\":", Field::Other),
    ("\"referer\":", Field::Other),
];

/// How many of them may be missing in a row.
const AHEAD: usize = 5;

impl Field {
    fn of(key: &[u8]) -> Self {
        let is_key = |(written, _): &&(&str, Self)| {
            let name = written.trim_start_matches('"').trim_end_matches("\":");
            name.as_bytes() == key
        };
        let known = FIELDS.iter().find(is_key);
        known.map_or(Self::Other, |(_, field)| *field)
    }
}

/// Reads JSON from left to right.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn fault<T>(&self, reason: &'static str) -> Result<T, Fault> {
        let column = self.at.min(self.text.len()) + 1;
        Err(Fault { reason, column })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        self.blanks();
        match self.peek() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fault(NOT_JSON),
            None => self.fault(CUT_OFF),
        }
    }

    fn object(mut self, dates: &mut Dates) -> Result<Line<'a>, Fault> {
        self.expect(b'{')?;
        let mut line = Line {
            names_backends: true,
            ..Line::default()
        };
        let mut has_time = false;
        // The field that is likely to come next.
        let mut next = 0;
        loop {
            self.blanks();
            if self.peek() == Some(b'}') {
                break;
            }
            let field = match self.likely(&mut next) {
                Some(field) => field,
                None => {
                    let key = self.string()?;
                    self.expect(b':')?;
                    self.blanks();
                    Field::of(key)
                }
            };
            let began = self.at;
            let value = self.value()?;
            match field {
                Field::Time => {
                    has_time = true;
                    match dates.rfc3339(value) {
                        Some(time_ms) => line.time_ms = time_ms,
                        None => return Self { at: began, ..self }.fault(BAD_TIME),
                    }
                }
                Field::Status => match status(value) {
                    Some(status) => line.status = status,
                    None => return Self { at: began, ..self }.fault(BAD_STATUS),
                },
                Field::Duration => line.took_us = micros(value),
                Field::Client => line.client = value,
                Field::Method => line.method = value,
                Field::Service => line.service = value,
                Field::Backend => line.backend = value,
                Field::Version => line.version = value,
                Field::Pick => line.pick = value,
                Field::RescuedFrom => line.rescued_from = value,
                Field::RescuedOutcome => line.rescued_outcome = value,
                Field::Error => line.error = value,
                Field::Other => {}
            }
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                Some(_) => return self.fault(NOT_JSON),
                None => return self.fault(CUT_OFF),
            }
        }
        self.at += 1;
        self.blanks();
        match (self.peek(), has_time, line.status) {
            (Some(_), ..) => self.fault(NOT_JSON),
            (None, false, _) => self.fault(NO_TIME),
            (None, true, 0) => self.fault(BAD_STATUS),
            (None, true, _) => Ok(line),
        }
    }

    /// Passes over the next key if it is one of those that follow in a line of our own.
    fn likely(&mut self, next: &mut usize) -> Option<Field> {
        let rest = &self.text[self.at..];
        let following = FIELDS[*next..].iter().take(AHEAD).enumerate();
        for (ahead, (key, field)) in following {
            if rest.starts_with(key.as_bytes()) {
                *next += ahead + 1;
                self.at += key.len();
                return Some(*field);
            }
        }
        None
    }

    /// The contents of a text, still escaped.
    fn string(&mut self) -> Result<&'a [u8], Fault> {
        self.expect(b'"')?;
        let start = self.at;
        let Some(end) = closing_quote(self.text, start) else {
            self.at = self.text.len();
            return self.fault(CUT_OFF);
        };
        self.at = end + 1;
        Ok(&self.text[start..end])
    }

    /// A value as it is written; texts without their quotes.
    fn value(&mut self) -> Result<&'a [u8], Fault> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.nested(),
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                let start = self.at;
                let rest = &self.text[start..];
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r');
                let length = rest.iter().position(ends);
                self.at += length.unwrap_or(rest.len());
                Ok(&self.text[start..self.at])
            }
            Some(_) => self.fault(NOT_JSON),
            None => self.fault(CUT_OFF),
        }
    }

    /// An object or a list, which says nothing that is asked for.
    fn nested(&mut self) -> Result<&'a [u8], Fault> {
        let (start, mut depth) = (self.at, 0_usize);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
                None => return self.fault(CUT_OFF),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }
}

/// `CLIENT IDENT USER [TIME] "METHOD TARGET PROTOCOL" STATUS BYTES ...`; what follows is not looked at.
fn combined<'a>(text: &'a [u8], dates: &mut Dates) -> Result<Line<'a>, Fault> {
    let fault = |reason, at: usize| Fault {
        reason,
        column: at + 1,
    };
    let find = |byte, from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        memchr(byte, rest)
            .map(|at| from + at)
            .ok_or_else(|| fault(NOT_COMBINED, from))
    };
    let client = find(b' ', 0)?;
    let time = find(b'[', client)? + 1;
    let time_end = find(b']', time)?;
    let request = find(b'"', time_end)? + 1;
    let request_end = closing_quote(text, request).ok_or_else(|| fault(NOT_COMBINED, request))?;
    let after = text.get(request_end + 2..).unwrap_or_default();
    let length = memchr(b' ', after).unwrap_or(after.len());
    let method = &text[request..request_end];
    Ok(Line {
        time_ms: dates
            .common(&text[time..time_end])
            .ok_or_else(|| fault(BAD_TIME, time))?,
        status: status(&after[..length]).ok_or_else(|| fault(BAD_STATUS, request_end + 2))?,
        client: &text[..client],
        method: &method[..memchr(b' ', method).unwrap_or(0)],
        ..Line::default()
    })
}

/// The next quote that no backslash makes a part of the text.
fn closing_quote(text: &[u8], start: usize) -> Option<usize> {
    let mut from = start;
    loop {
        let end = from + quote(text.get(from..)?)?;
        if end == start || text[end - 1] != b'\\' {
            return Some(end);
        }
        let before = text[start..end].iter().rev();
        let backslashes = before.take_while(|byte| **byte == b'\\').count();
        if backslashes.is_multiple_of(2) {
            return Some(end);
        }
        from = end + 1;
    }
}

/// The first quote. Most texts are shorter than what a search for one costs that is made for long ones, so
/// the first bytes are looked at eight at a time (a byte is 0 where it equals, and borrows then).
fn quote(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().take(2).enumerate() {
        let equal = u64::from_le_bytes(*word) ^ (ONES * b'"' as u64);
        let found = equal.wrapping_sub(ONES) & !equal & (ONES << 7);
        if found != 0 {
            let byte = usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
            return Some(index * 8 + byte);
        }
    }
    let looked_at = text.len().min(16) & !7;
    memchr(b'"', &text[looked_at..]).map(|at| looked_at + at)
}

fn status(text: &[u8]) -> Option<u16> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else {
        return None;
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    Some(digit(a) * 100 + digit(b) * 10 + digit(c))
}

/// Milliseconds with a fraction, as microseconds; what is finer is not told apart.
fn micros(text: &[u8]) -> Option<u64> {
    let mut micros: u64 = 0;
    let mut decimals = None;
    for byte in text {
        match (byte, decimals) {
            (b'0'..=b'9', Some(3)) => {}
            (b'0'..=b'9', _) => {
                micros = micros
                    .checked_mul(10)?
                    .checked_add(u64::from(byte - b'0'))?;
                decimals = decimals.map(|count| count + 1);
            }
            (b'.', None) => decimals = Some(0_u32),
            _ => return None,
        }
    }
    let missing = 3 - decimals.unwrap_or(0);
    (!text.is_empty()).then(|| micros.checked_mul(10_u64.pow(missing)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"time":"2026-11-24T08:33:07.123Z","client":"192.0.2.7","listener":"web","method":"GET","host":"h","path":"/a\"b\\","protocol":"HTTP/1.1","status":503,"bytes":12,"duration_ms":12.345,"service":"shop","backend":"green","version":"4\"2","rescued_from":"green","rescued_outcome":"5xx","error":"connect_failed","extra":{"a":["}",1]},"request_id":"x"}"#;

    fn line(text: &str) -> Result<Line<'_>, Fault> {
        read(text.as_bytes(), &mut Dates::default())
    }

    #[test]
    fn own_line_is_read_whatever_the_order_of_its_fields() {
        let own = line(OWN).expect("it is valid");
        assert_eq!(own.time_ms, 1_795_509_187_123);
        assert_eq!((own.status, own.took_us), (503, Some(12_345)));
        assert_eq!((own.service, own.backend), (&b"shop"[..], &b"green"[..]));
        assert_eq!(own.version, br#"4\"2"#);
        assert_eq!((own.client, own.method), (&b"192.0.2.7"[..], &b"GET"[..]));
        assert_eq!(
            (own.rescued_from, own.rescued_outcome),
            (&b"green"[..], &b"5xx"[..])
        );
        assert_eq!(own.error, b"connect_failed");
        let turned = r#" {"status": 204 , "time" : "2026-11-24T09:33:07+01:00" } "#;
        let turned = line(turned.trim_start()).expect("it is valid");
        assert_eq!((turned.time_ms, turned.status), (1_795_509_187_000, 204));
    }

    #[test]
    fn every_cut_of_a_line_is_a_fault() {
        for end in 0..OWN.len() {
            assert!(line(&OWN[..end]).is_err(), "{}", &OWN[..end]);
        }
    }

    #[test]
    fn combined_lines_are_read_with_what_servers_add() {
        for text in [
            r#"192.0.2.7 - - [24/Nov/2026:08:33:07 +0000] "GET /a?b=\x22c HTTP/1.1" 503 12 "-" "agent""#,
            r#"192.0.2.7 - bob [24/Nov/2026:09:33:07 +0100] "GET /\" HTTP/1.1" 503 - "-" "a" 0.123 "10.0.0.1:80""#,
            r#"192.0.2.7 - - [24/Nov/2026:03:33:07 -0500] "GET / HTTP/2.0" 503 7"#,
        ] {
            let read = line(text).expect("it is valid");
            assert_eq!(read.time_ms, 1_795_509_187_000, "{text}");
            assert_eq!((read.status, read.client), (503, &b"192.0.2.7"[..]));
            assert_eq!((read.method, read.names_backends), (&b"GET"[..], false));
        }
        let garbage = r#"192.0.2.7 - - [24/Nov/2026:08:33:07 +0000] "" 400 0 "-" "-""#;
        assert_eq!(line(garbage).expect("it is valid").method, b"");
    }

    #[test]
    fn faults_tell_the_reason_and_the_place() {
        for (text, reason, column) in [
            ("", NOT_COMBINED, 1),
            ("hello", NOT_COMBINED, 1),
            ("a - - [yesterday] \"GET / HTTP/1.1\" 200 1", BAD_TIME, 8),
            (
                "a - - [24/Nov/2026:08:33:07 +0000] \"GET / HTTP/1.1\" 20 1",
                BAD_STATUS,
                53,
            ),
            ("{\"status\":200}", NO_TIME, 15),
            ("{\"time\":\"2026-11-24T08:33:07Z\"}", BAD_STATUS, 32),
            ("{\"time\":\"noon\",\"status\":200}", BAD_TIME, 9),
            (
                "{\"time\":\"2026-11-24T08:33:07Z\",\"status\":\"ok\"}",
                BAD_STATUS,
                41,
            ),
            ("{\"time\" \"2026\"}", NOT_JSON, 9),
            ("{\"time\":", CUT_OFF, 9),
            ("{} {}", NOT_JSON, 4),
        ] {
            assert_eq!(line(text), Err(Fault { reason, column }), "{text}");
        }
    }

    #[test]
    fn milliseconds_are_read_to_the_microsecond() {
        for (text, micros_) in [
            ("0", Some(0)),
            ("12", Some(12_000)),
            ("0.001", Some(1)),
            ("12.3", Some(12_300)),
            ("12.3456", Some(12_345)),
            ("1e3", None),
            ("-1", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(micros(text.as_bytes()), micros_, "{text}");
        }
    }
}
