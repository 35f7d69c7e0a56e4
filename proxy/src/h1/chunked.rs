//! The chunked coding (RFC 9112, section 7.1): decoding without I/O, and encoding.
//!
//! A body is decoded and coded again, never passed through, so that two readers cannot find its end
//! in different places. Strict: hexadecimal digits only and at most sixteen, CRLF only, extensions
//! counted and dropped. The decoder works in place: it says how many bytes of control to skip and
//! how many bytes of content follow, and copies nothing.

use switchback_config::defaults::{CHUNK_EXTENSION_BYTES, CHUNK_EXTENSIONS_BYTES, TRAILER_BYTES};

/// What comes next in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing until more input arrives.
    More,
    /// So many bytes of content.
    Content(usize),
    /// A trailer section of so many bytes, its empty line included; then the body has ended.
    Trailers(usize),
    /// The end, without trailers.
    End,
}

/// Why a chunked body is invalid.
pub(crate) type Invalid = &'static str;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    Size,
    /// After `;`, up to the line end.
    Extension,
    /// After the CR of a size line.
    SizeEnd,
    /// In content, with so much left.
    Content,
    /// After content.
    ContentCr,
    ContentLf,
    /// After the last chunk.
    Trailers,
    Ended,
}

/// A decoder for one body.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    state: State,
    /// The size being read, then what is left of the chunk.
    size: u64,
    digits: u32,
    extension_bytes: u64,
    extensions_bytes: u64,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            extensions_bytes: 0,
        }
    }

    /// Looks at the start of `input`; tells how many bytes to drop, and what follows them.
    /// Content must be reported with [`Decoder::advance`] as it is consumed; a trailer section is
    /// the caller's to drop. Given the same bytes in other pieces, it gives the same content.
    ///
    /// # Errors
    /// What is invalid; the rest of the connection cannot be understood then.
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<(usize, Event), Invalid> {
        let mut at = 0;
        loop {
            match self.state {
                State::Content => {
                    let arrived = input.len() - at;
                    let content =
                        usize::try_from(self.size).map_or(arrived, |left| left.min(arrived));
                    let event = if content == 0 {
                        Event::More
                    } else {
                        Event::Content(content)
                    };
                    return Ok((at, event));
                }
                State::Trailers => {
                    return self
                        .decode_trailers(&input[at..])
                        .map(|event| self.end(at, event));
                }
                State::Ended => return Ok((at, Event::End)),
                _ => {}
            }
            let Some(byte) = input.get(at) else {
                return Ok((at, Event::More));
            };
            at += 1;
            self.step(*byte)?;
        }
    }

    /// Tells that `count` bytes of the reported content were consumed.
    pub(crate) fn advance(&mut self, count: usize) {
        self.size = self.size.saturating_sub(count as u64);
        if self.size == 0 && self.state == State::Content {
            self.state = State::ContentCr;
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), Invalid> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, _) if self.digits == 0 => return Err("chunk size is not hexadecimal"),
            (State::Size | State::Extension, b'\r') => State::SizeEnd,
            (State::Size, b';') => State::Extension,
            (State::Extension, b'\n' | b'\0') => {
                return Err("invalid character in a chunk extension");
            }
            (State::Extension, _) => self.extension()?,
            (State::Size, _) => return Err("chunk size is not hexadecimal"),
            (State::SizeEnd, b'\n') if self.size == 0 => State::Trailers,
            (State::SizeEnd, b'\n') => State::Content,
            (State::ContentCr, b'\r') => State::ContentLf,
            (State::ContentLf, b'\n') => self.next_chunk(),
            _ => return Err("chunk does not end with CRLF"),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Invalid> {
        self.digits += 1;
        if self.digits > 16 {
            return Err("chunk size has more than 16 digits");
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.size = self.size << 4 | u64::from(value);
        // As a Content-Length: what others count with a sign would be negative.
        if self.size > i64::MAX.unsigned_abs() {
            return Err("chunk size is beyond 2^63-1");
        }
        Ok(State::Size)
    }

    fn extension(&mut self) -> Result<State, Invalid> {
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES
            || self.extensions_bytes > CHUNK_EXTENSIONS_BYTES
        {
            return Err("chunk extensions too large");
        }
        Ok(State::Extension)
    }

    fn next_chunk(&mut self) -> State {
        self.size = 0;
        self.digits = 0;
        self.extension_bytes = 0;
        State::Size
    }

    fn decode_trailers(&self, rest: &[u8]) -> Result<Event, Invalid> {
        if rest.starts_with(b"\r\n") {
            return Ok(Event::End);
        }
        let end = memchr::memmem::find(rest, b"\r\n\r\n").map(|at| at + 4);
        match end {
            Some(end) if end <= TRAILER_BYTES => Ok(Event::Trailers(end)),
            None if rest.len() < TRAILER_BYTES => Ok(Event::More),
            _ => Err("trailers too large"),
        }
    }

    fn end(&mut self, at: usize, event: Event) -> (usize, Event) {
        match event {
            Event::More => (at, event),
            Event::End => {
                self.state = State::Ended;
                (at + 2, event)
            }
            _ => {
                self.state = State::Ended;
                (at, event)
            }
        }
    }
}

/// Appends the line that opens a chunk of `bytes` content.
pub(crate) fn open_chunk(out: &mut Vec<u8>, bytes: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    debug_assert!(bytes > 0, "an empty chunk would end the body");
    let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4);
    out.extend(
        (0..digits)
            .rev()
            .map(|digit| DIGITS[bytes >> (4 * digit) & 15]),
    );
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunk.
pub(crate) const CLOSE_CHUNK: &[u8] = b"\r\n";

/// Ends a body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `input` given in pieces; returns content, trailers and what was left over.
    fn decode(input: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), Invalid> {
        let mut decoder = Decoder::new();
        let (mut content, mut buffered, mut arrived) = (Vec::new(), Vec::new(), 0);
        for piece in pieces.iter().copied().chain([input.len()]) {
            let until = (arrived + piece).min(input.len());
            buffered.extend_from_slice(&input[arrived..until]);
            arrived = until;
            loop {
                let (skip, event) = decoder.decode(&buffered)?;
                buffered.drain(..skip);
                match event {
                    Event::More => break,
                    Event::Content(bytes) => {
                        // Consume unevenly to exercise `advance`.
                        let some = bytes.div_ceil(2);
                        content.extend(buffered.drain(..some));
                        decoder.advance(some);
                    }
                    Event::Trailers(bytes) => {
                        let trailers: Vec<u8> = buffered.drain(..bytes).collect();
                        return Ok((content, trailers, buffered.len() + input.len() - arrived));
                    }
                    Event::End => {
                        return Ok((content, Vec::new(), buffered.len() + input.len() - arrived));
                    }
                }
            }
        }
        Err("incomplete")
    }

    #[test]
    fn valid_bodies_are_decoded() {
        for (input, content, trailers, left) in [
            ("0\r\n\r\n", "", "", 0),
            ("5\r\nhello\r\n0\r\n\r\nrest", "hello", "", 4),
            ("5;a=b\r\nhello\r\n1;x\r\n!\r\n0;z\r\n\r\n", "hello!", "", 0),
            ("A\r\n0123456789\r\n00\r\n\r\n", "0123456789", "", 0),
            (
                "1\r\na\r\n0\r\nx: y\r\nz: w\r\n\r\nq",
                "a",
                "x: y\r\nz: w\r\n\r\n",
                1,
            ),
        ] {
            let decoded = decode(input.as_bytes(), &[]);
            assert_eq!(
                decoded,
                Ok((content.into(), trailers.into(), left)),
                "{input:?}"
            );
        }
    }

    #[test]
    fn invalid_bodies_are_refused() {
        for input in [
            "1 ;x\r\n!\r\n0\r\n\r\n",
            "1\t\r\n!\r\n0\r\n\r\n",
            "\r\n",
            "g\r\n",
            "0x5\r\nhello\r\n",
            "-1\r\n",
            "+5\r\nhello",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\r\nhello",
            "5;\n\r\nhello",
            "00000000000000005\r\nhello\r\n",
            "10000000000000000\r\n",
            "5,\r\nhello",
            "5\r\nhello\r\n0\r\n\n",
        ] {
            let result = decode(input.as_bytes(), &[]);
            assert!(result.is_err(), "{input:?} {result:?}");
            if input != "5\r\nhello\r\n0\r\n\n" {
                assert_ne!(result, Err("incomplete"), "{input:?}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |bytes: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes));
        assert!(decode(extension(4096).as_bytes(), &[]).is_ok());
        assert!(decode(extension(4097).as_bytes(), &[]).is_err());
        let many = format!(
            "{}0\r\n\r\n",
            format!("1;{}\r\na\r\n", "x".repeat(4000)).repeat(5)
        );
        assert_eq!(
            decode(many.as_bytes(), &[]),
            Err("chunk extensions too large")
        );
        let trailers = |bytes: usize| format!("0\r\nx: {}\r\n\r\n", "y".repeat(bytes - 7));
        assert!(decode(trailers(TRAILER_BYTES).as_bytes(), &[]).is_ok());
        assert_eq!(
            decode(trailers(TRAILER_BYTES + 1).as_bytes(), &[]),
            Err("trailers too large")
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_any_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            pieces in prop::collection::vec(1_usize..64, 0..64),
        ) {
            let mut encoded = Vec::new();
            for chunk in &chunks {
                open_chunk(&mut encoded, chunk.len());
                encoded.extend_from_slice(chunk);
                encoded.extend_from_slice(CLOSE_CHUNK);
            }
            encoded.extend_from_slice(LAST_CHUNK);
            prop_assert_eq!(decode(&encoded, &pieces), Ok((chunks.concat(), Vec::new(), 0)));
        }

        #[test]
        fn any_bytes_give_the_same_in_any_pieces(
            input in prop::collection::vec(prop::sample::select(b"05a;\r\n x:g".to_vec()), 0..40),
            pieces in prop::collection::vec(1_usize..8, 0..40),
        ) {
            prop_assert_eq!(decode(&input, &pieces), decode(&input, &[]));
        }
    }
}
