//! HTTP/2 by the byte: frames that no well-behaved library would send, and what comes back.
//!
//! Header blocks are written as literals without indexing and without Huffman coding, so a test can put
//! anything into them. Of responses only the status is read, which takes a small part of HPACK.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::DEADLINE;
use super::wire::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, 0, 7, text.chars().count());
            bytes.extend(text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
        }
    }
    bytes
}

fn integer(bytes: &mut Vec<u8>, pattern: u8, prefix: u32, mut value: usize) {
    let full = (1_usize << prefix) - 1;
    if value < full {
        bytes.push(pattern | value as u8);
        return;
    }
    bytes.push(pattern | full as u8);
    value -= full;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    bytes.push(value as u8);
}

/// A whole header block in one frame.
pub(crate) fn headers(stream: u32, end: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &block(fields))
}

/// An ordinary request, with further fields.
pub(crate) fn request<'a>(method: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.test"),
    ];
    fields.extend_from_slice(more);
    fields
}

pub(crate) fn get(stream: u32) -> Vec<u8> {
    headers(stream, true, &request("GET", &[]))
}

pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(value.to_be_bytes());
    bytes
}

pub(crate) fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = list
        .iter()
        .flat_map(|(id, value)| setting(*id, *value))
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A frame that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a GOAWAY or RST_STREAM.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The status, if this is the head of a response on a connection that has had few.
    pub(crate) fn status(&self) -> Option<u16> {
        let mut block = &self.payload[..];
        // Changes of the table's size may come first.
        while block.first()? & 0xe0 == 0x20 {
            block = &block[1..];
        }
        match block.first()? {
            first @ 0x88..=0x8e => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)])
            }
            0x48 | 0x08 | 0x18 => digits(&block[1..]),
            _ => None,
        }
    }
}

/// Three digits, Huffman-coded or not.
fn digits(coded: &[u8]) -> Option<u16> {
    let length = usize::from(coded.first()? & 0x7f);
    let text = coded.get(1..=length)?;
    if coded[0] & 0x80 == 0 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let mut status = 0;
    for _ in 0..3 {
        let five = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
        // 0, 1 and 2 have five bits, the others six, from 011001 on.
        let digit = if five < 3 {
            five
        } else {
            (five << 1 | bits.next()?) - 0b01_1001 + 3
        };
        status = status * 10 + u16::try_from(digit).ok()?;
    }
    Some(status)
}

/// What a case must lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// A response with this status.
    Status(u16),
    /// The connection ends, with one of these codes if it says why.
    Connection(&'static [u32]),
    /// The stream is reset with one of these codes, or the connection ends with one.
    Stream(&'static [u32]),
    /// A ping is answered: nothing is wrong.
    Fine,
    /// An acknowledgement of settings beside that of the first.
    SettingsAck,
    /// One byte of content at a time.
    Content(usize),
}

/// A step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Waits for the end of the response on a stream.
    Ended(u32),
    /// Waits for content.
    Content,
}

/// A client that sends what it is told.
pub(crate) struct H2 {
    wire: Wire,
    input: Vec<u8>,
    /// Why the connection ended.
    pub(crate) goaway: Option<u32>,
}

impl H2 {
    /// A client on a connection on which everything else was sent already.
    pub(crate) const fn over(wire: Wire) -> Self {
        Self {
            wire,
            input: Vec::new(),
            goaway: None,
        }
    }

    /// Exchanges prefaces. `list`: the settings sent.
    pub(crate) async fn start(wire: Wire, list: &[(u16, u32)]) -> Self {
        let mut client = Self::over(wire);
        client.send(&[PREFACE, &settings(list)].concat()).await;
        let first = client.frame().await.expect("the server's settings");
        assert_eq!((first.kind, first.flags & ACK), (SETTINGS, 0));
        client.send(&frame(SETTINGS, ACK, 0, &[])).await;
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.wire.write(bytes).await;
    }

    /// The connection alone, for one who reads no more.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Sends unless the other side has closed; whether it could.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let write = async {
            self.wire
                .0
                .write_all(bytes)
                .await
                .and(self.wire.0.flush().await)
        };
        matches!(tokio::time::timeout(DEADLINE, write).await, Ok(Ok(())))
    }

    /// The next frame; none when the connection has ended.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(frame) = self.take() {
                if frame.kind == GOAWAY {
                    self.goaway = Some(frame.code());
                }
                if frame.kind == PING && frame.flags & ACK == 0 {
                    self.send(&crate::support::frames::frame(PING, ACK, 0, &frame.payload))
                        .await;
                }
                return Some(frame);
            }
            match tokio::time::timeout(DEADLINE, self.wire.0.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return None,
                Ok(Ok(count)) => self.input.extend_from_slice(&buffer[..count]),
                Err(_) => panic!("neither a frame nor the end came in time"),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.input.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if self.input.len() < 9 + length {
            return None;
        }
        let bytes: Vec<u8> = self.input.drain(..9 + length).collect();
        Some(Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes(bytes[5..9].try_into().unwrap()),
            payload: bytes[9..].to_vec(),
        })
    }

    /// Reads until the connection ends; the code of the last GOAWAY.
    pub(crate) async fn until_closed(&mut self) -> Option<u32> {
        while self.frame().await.is_some() {}
        self.goaway
    }

    /// Reads until the response on a stream has ended; its status.
    pub(crate) async fn answer(&mut self, stream: u32) -> Result<u16, String> {
        let mut status = None;
        while let Some(frame) = self.frame().await {
            if frame.stream != stream {
                continue;
            }
            if frame.kind == RST_STREAM {
                return Err(format!("reset with {}", frame.code()));
            }
            if frame.kind == HEADERS && status.is_none() {
                status = frame.status();
            }
            if frame.ends_stream() {
                return status.ok_or_else(|| "a status that is not understood".into());
            }
        }
        Err(format!("the connection ended: {:?}", self.goaway))
    }

    /// Plays a case; what came of it if it is not what it must.
    pub(crate) async fn play(&mut self, steps: &[Step], expect: Expect) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Send(bytes) => self.send(bytes).await,
                Step::Ended(stream) => {
                    self.answer(*stream).await?;
                }
                Step::Content => while self.frame().await.ok_or("no content")?.kind != DATA {},
            }
        }
        self.expect(expect).await
    }

    async fn expect(&mut self, expect: Expect) -> Result<(), String> {
        if matches!(expect, Expect::Fine) {
            self.send(&frame(PING, 0, 0, b"stillok!")).await;
        }
        let mut seen = Vec::new();
        loop {
            let read = tokio::time::timeout(DEADLINE / 2, self.frame()).await;
            let Ok(next) = read else {
                return Err(format!("nothing more after {seen:?}"));
            };
            let Some(next) = next else {
                return match expect {
                    Expect::Connection(codes) | Expect::Stream(codes)
                        if self.goaway.is_none_or(|code| codes.contains(&code)) =>
                    {
                        Ok(())
                    }
                    _ => Err(format!(
                        "the connection ended, {:?} after {seen:?}",
                        self.goaway
                    )),
                };
            };
            match (expect, next.kind) {
                (Expect::Status(wanted), HEADERS) if next.status() == Some(wanted) => return Ok(()),
                (Expect::Stream(codes), RST_STREAM) if codes.contains(&next.code()) => {
                    return Ok(());
                }
                (Expect::Stream(codes) | Expect::Connection(codes), GOAWAY)
                    if codes.contains(&next.code()) =>
                {
                    return Ok(());
                }
                (Expect::Fine, PING) if next.flags & ACK != 0 && next.payload == b"stillok!" => {
                    return Ok(());
                }
                (Expect::SettingsAck, SETTINGS) if next.flags & ACK != 0 => return Ok(()),
                (Expect::Content(bytes), DATA) if !next.payload.is_empty() => {
                    return if next.payload.len() == bytes {
                        Ok(())
                    } else {
                        Err(format!("{} bytes of content", next.payload.len()))
                    };
                }
                _ => {}
            }
            let code = matches!(next.kind, RST_STREAM | GOAWAY).then(|| next.code());
            let status = (next.kind == HEADERS).then(|| next.status()).flatten();
            seen.push((next.kind, next.stream, code.or(status.map(u32::from))));
        }
    }
}
