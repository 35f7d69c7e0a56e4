//! What the fields of a head say about its framing and its connection.
//!
//! Everything that decides where a message ends is gathered here from both requests and responses,
//! so that the two sides cannot come to differ: most request smuggling is two parsers that each
//! read a contradiction in their own way. What contradicts itself is refused by the callers.

use std::num::NonZeroU32;
use std::ops::Range;

use switchback_config::model::Limits;
use switchback_config::units::ByteSize;

use crate::head::{Fields, Listed, Name, list_elements, listed_span};

/// Upper bound of the configurable header counts: the size of the parser's table on the stack.
pub(crate) const FIELDS_MAX: usize = 512;

/// Upper bound of a head whose limit is `off`.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// What a peer may put into a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// The whole head.
    pub(crate) bytes: usize,
    /// One line.
    pub(crate) line_bytes: usize,
    /// Fields.
    pub(crate) count: usize,
    /// The request target.
    pub(crate) uri_bytes: usize,
}

impl HeadLimits {
    /// The limits of requests.
    pub(crate) fn of_requests(limits: &Limits) -> Self {
        Self {
            bytes: bytes_max(limits.request_header_bytes),
            line_bytes: bytes_max(limits.request_header_line_bytes),
            count: count_max(limits.request_header_count),
            uri_bytes: bytes_max(limits.uri_bytes),
        }
    }

    /// The limits of responses.
    pub(crate) fn of_responses(bytes: Option<ByteSize>, count: Option<NonZeroU32>) -> Self {
        let bytes = bytes_max(bytes);
        Self {
            bytes,
            line_bytes: bytes,
            count: count_max(count),
            uri_bytes: 0,
        }
    }
}

fn bytes_max(limit: Option<ByteSize>) -> usize {
    limit
        .and_then(|size| usize::try_from(size.0).ok())
        .map_or(HEAD_BYTES_MAX, |bytes| bytes.min(HEAD_BYTES_MAX))
}

fn count_max(limit: Option<NonZeroU32>) -> usize {
    limit
        .and_then(|count| usize::try_from(count.get()).ok())
        .map_or(FIELDS_MAX, |count| count.min(FIELDS_MAX))
}

/// The framing and connection facts of one head.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The one `Content-Length`.
    pub(crate) length: Option<u64>,
    /// Lines of `Content-Length`.
    pub(crate) lengths: u32,
    length_digits: usize,
    /// Elements of `Transfer-Encoding`.
    pub(crate) codings: u32,
    /// Whether the last of them is `chunked`.
    pub(crate) chunked: bool,
    /// Whether one of them is neither `chunked` nor `identity` nor empty.
    pub(crate) unknown_coding: bool,
    /// Lines of `Host`.
    pub(crate) hosts: u32,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    /// `Connection: upgrade`.
    pub(crate) upgrade: bool,
    /// `Upgrade: websocket` and nothing else.
    pub(crate) websocket: bool,
    upgrades: u32,
    pub(crate) te_trailers: bool,
    pub(crate) expects_continue: bool,
}

/// A `Content-Length` that is no number or contradicts another.
#[derive(Debug)]
pub(crate) struct InvalidLength;

impl Facts {
    /// Takes note of the field that was pushed last.
    pub(crate) fn note(
        &mut self,
        known: Name,
        fields: &Fields,
        listed: &mut Listed,
    ) -> Result<(), InvalidLength> {
        let Some(field) = fields.list().last() else {
            return Ok(());
        };
        let value = fields.value(field);
        match known {
            Name::Host => self.hosts += 1,
            Name::ContentLength => self.note_length(value)?,
            Name::TransferEncoding => self.note_codings(value),
            Name::Connection => self.note_connection(value, fields, listed),
            Name::Upgrade => {
                self.upgrades += 1;
                self.websocket = self.upgrades == 1 && value.eq_ignore_ascii_case(b"websocket");
            }
            Name::Te => {
                self.te_trailers |=
                    list_elements(value).any(|e| e.eq_ignore_ascii_case(b"trailers"))
            }
            Name::Expect => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), InvalidLength> {
        let length = parse_length(value).ok_or(InvalidLength)?;
        self.lengths += 1;
        // Repeated ones must be identical: `5` and `05` are the same number, but not to every reader.
        let digits = std::mem::replace(&mut self.length_digits, value.len());
        match self.length.replace(length) {
            Some(earlier) if (earlier, digits) != (length, value.len()) => Err(InvalidLength),
            _ => Ok(()),
        }
    }

    fn note_codings(&mut self, value: &[u8]) {
        for coding in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            self.codings += 1;
            self.chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.unknown_coding |=
                !self.chunked && !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity");
        }
    }

    fn note_connection(&mut self, value: &[u8], fields: &Fields, listed: &mut Listed) {
        for option in list_elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                listed.push(listed_span(fields, option));
            }
        }
    }
}

/// `1*DIGIT`, at most 2^63 - 1.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value
        .iter()
        .fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

/// Whether the empty line that ends a head lies in the part of `input` after `seen`.
pub(crate) fn end_arrived(input: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3).min(input.len());
    memchr::memchr_iter(b'\n', &input[from..]).any(|at| {
        let rest = &input[from + at + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// Turns slices of the parser's input into spans of the head's copy of it.
pub(crate) struct Spans(usize);

impl Spans {
    pub(crate) fn of(input: &[u8]) -> Self {
        Self(input.as_ptr() as usize)
    }

    /// Where a non-empty part of the input lies.
    pub(crate) fn span(&self, part: &[u8]) -> Range<usize> {
        let start = (part.as_ptr() as usize).wrapping_sub(self.0);
        start..start + part.len()
    }

    /// Adds a parsed field to `fields`, which hold a copy of the input.
    pub(crate) fn push(&self, fields: &mut Fields, field: &httparse::Header<'_>) -> Name {
        let name = self.span(field.name.as_bytes());
        let value = if field.value.is_empty() {
            // The parser's empty value need not lie in the input.
            let after_colon = name.end + 1;
            let blank = fields.bytes()[after_colon..]
                .iter()
                .take_while(|b| matches!(b, b' ' | b'\t'))
                .count();
            after_colon + blank..after_colon + blank
        } else {
            self.span(field.value)
        };
        fields.push_span(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_up_to_the_bound() {
        for (text, length) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("9223372036854775807", Some(9_223_372_036_854_775_807)),
            ("9223372036854775808", None),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("0x10", None),
            ("1,1", None),
            ("１", None),
        ] {
            assert_eq!(parse_length(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn end_of_a_head_is_found_across_reads() {
        let input = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nrest";
        let end = 27;
        for seen in 0..=end {
            for arrived in seen..=input.len() {
                assert_eq!(
                    end_arrived(&input[..arrived], seen),
                    arrived >= end,
                    "{seen} {arrived}"
                );
            }
        }
        assert!(end_arrived(b"a\n\nb", 0));
        assert!(!end_arrived(b"a\nb", 0));
    }
}
