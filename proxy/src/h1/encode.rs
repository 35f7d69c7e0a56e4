//! Heads of HTTP/1 out: bytes for one write.
//!
//! The first line and everything that frames a message is generated here from what was parsed;
//! other fields arrive through [`FieldSink`] after policy has had its say.

use std::ops::Range;

use crate::head::{FieldSink, Fields, Framing};

/// Appends header lines to the bytes about to be sent.
#[derive(Debug)]
pub(crate) struct LineSink<'a>(pub(crate) &'a mut Vec<u8>);

impl LineSink<'_> {
    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }
}

impl FieldSink for LineSink<'_> {
    fn run(&mut self, fields: &Fields, range: Range<usize>) {
        if let Some(lines) = fields.lines(range.clone()) {
            self.0.extend_from_slice(lines);
            return;
        }
        for field in &fields.list()[range] {
            self.line(fields.name(field), fields.value(field));
        }
    }

    fn field(&mut self, name: &'static str, value: &[u8]) {
        self.line(name.as_bytes(), value);
    }

    fn configured(&mut self, name: &str, value: &[u8]) {
        self.line(name.as_bytes(), value);
    }
}

/// Appends a request head: what `fields` writes, with the line, the host and the framing around it.
pub(crate) fn request_head(
    out: &mut Vec<u8>,
    (method, target): (&[u8], [&[u8]; 2]),
    host: &[u8],
    framing: Framing,
    fields: impl FnOnce(&mut LineSink<'_>),
) {
    // Without a body these methods still say so (RFC 9110, 8.6): some origins wait for one otherwise.
    let says_empty = matches!(method, b"POST" | b"PUT" | b"PATCH");
    request_line(out, method, &target);
    let mut sink = LineSink(out);
    sink.field("host", host);
    fields(&mut sink);
    match framing {
        Framing::Empty if says_empty => content_length(out, 0),
        framing => self::framing(out, framing),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a request line.
fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[&[u8]]) {
    out.extend_from_slice(method);
    out.push(b' ');
    target.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends a status line.
pub(crate) fn status_line(out: &mut Vec<u8>, status: u16) {
    let code = http::StatusCode::from_u16(status).ok();
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(
        code.and_then(|code| code.canonical_reason())
            .unwrap_or_default()
            .as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields that frame a body.
pub(crate) fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Length(bytes) => content_length(out, bytes),
        Framing::Streamed => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Appends a `content-length` line.
pub(crate) fn content_length(out: &mut Vec<u8>, bytes: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 404, 65_535, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn lines_read_back_as_they_were_meant() {
        let mut out = Vec::new();
        request_line(&mut out, b"GET", &[b"/a", b"?b"]);
        status_line(&mut out, 503);
        status_line(&mut out, 599);
        framing(&mut out, Framing::Length(12));
        framing(&mut out, Framing::Streamed);
        framing(&mut out, Framing::Empty);
        let text = "GET /a?b HTTP/1.1\r\nHTTP/1.1 503 Service Unavailable\r\nHTTP/1.1 599 \r\n\
                    content-length: 12\r\ntransfer-encoding: chunked\r\n";
        assert_eq!(String::from_utf8(out).expect("ascii"), text);
    }
}
