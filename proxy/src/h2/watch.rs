//! What a client does with its HTTP/2 connection, frame by frame, before hyper sees it.
//!
//! hyper's HTTP/2 accepts some things in quantities that cost us more than the client: rapid resets, resets
//! that the client provokes (MadeYouReset), header blocks in endless pieces, empty DATA, PING, SETTINGS and
//! PRIORITY. It has bounds of its own for some of them, but no hook to set all of them, to count them or to
//! say why a connection ended. So this reader goes along with the bytes in both directions, decodes nothing
//! but the nine bytes that begin each frame, keeps a handful of numbers, and says when it is enough. It is
//! pure: bytes and the time go in.
//!
//! It also keeps to the letter of RFC 9113 where hyper's HTTP/2 ends a connection with PROTOCOL_ERROR for
//! everything, or does not mind: sizes of frames, settings out of range, frames on streams that the client
//! has ended, pseudo-header fields in trailers. What cannot be decompressed only hyper knows; a GOAWAY that
//! it sends in answer to a header block in which nothing else was wrong is withheld, and the right one sent.
//!
//! Rates are counted in windows that begin with the first event and last [`H2_FLOOD_TIME`]. Frames of
//! unknown types and WINDOW_UPDATE are left to hyper: well-behaved clients send many of them, and each costs
//! no more than its bytes. More than five CONTINUATION frames for one block the library refuses by itself, as
//! 64 KiB of fields need no more than four; that is counted as if the limit had been reached.

mod block;
mod inside;

use std::time::Instant;

use h2::Reason;
use switchback_config::defaults::H2_FLOOD_TIME;

use crate::limit::Limit;
use inside::Inside;

/// The connection preface of a client, 24 bytes.
const PREFACE_BYTES: usize = 24;

const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Of one header block, as many as the library takes.
const TAKEN_CONTINUATIONS: u32 = 5;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

const ACK: u8 = 1;

/// Streams that the client has ended and that are remembered.
const ENDED_KEPT: usize = 32;

/// Header blocks that are kept until the next one; of larger ones it is not said what is wrong with them.
const BLOCK_BYTES_KEPT: usize = 16 << 10;

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More than a limit allows.
    Limit(Limit),
    /// Not as RFC 9113 has it.
    Violation(Reason),
}

impl Verdict {
    /// What the client is told.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Limit(_) => Reason::ENHANCE_YOUR_CALM,
            Self::Violation(reason) => reason,
        }
    }

    /// The limit, if it was one.
    pub(crate) const fn limit(self) -> Option<Limit> {
        match self {
            Self::Limit(limit) => Some(limit),
            Self::Violation(_) => None,
        }
    }
}

impl From<Limit> for Verdict {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

/// What a client may do; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FloodLimits {
    /// Resets by the client, and resets it provoked, in a window.
    pub(crate) resets: Option<u32>,
    /// Frames that continue one header block.
    pub(crate) continuations: Option<u32>,
    /// DATA frames without content and without an end, in a window.
    pub(crate) empty_data: Option<u32>,
    /// PING, SETTINGS and PRIORITY frames in a window.
    pub(crate) control_frames: Option<u32>,
    /// Streams that may be begun before everything else has had its turn.
    pub(crate) streams_a_turn: Option<u32>,
    /// The largest table for header compression.
    pub(crate) table_bytes: u32,
}

/// Counts events in windows of time.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
}

impl Rate {
    /// Counts one; whether that is more than allowed.
    fn exceeds(&mut self, allowed: Option<u32>, now: Instant) -> bool {
        let Some(allowed) = allowed else { return false };
        let window_is_over = |since| now.saturating_duration_since(since) >= H2_FLOOD_TIME;
        if self.since.is_none_or(window_is_over) {
            self.since = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count > allowed
    }
}

/// A header block that is being received.
#[derive(Debug)]
struct Block {
    since: Instant,
    continuations: u32,
    stream: u32,
    only_coding: bool,
}

/// The sizes that RFC 9113, section 6, has for frames.
const fn check_size(head: Head) -> Result<(), Verdict> {
    let fits = match head.kind {
        PRIORITY => head.length == 5,
        RST_STREAM | WINDOW_UPDATE => head.length == 4,
        SETTINGS if head.flags & ACK != 0 => head.length == 0,
        SETTINGS => head.length.is_multiple_of(6),
        PING => head.length == 8,
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err(Verdict::Violation(Reason::FRAME_SIZE_ERROR))
    }
}

/// Finds frames in a stream of bytes that comes in any pieces.
#[derive(Clone, Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes before the first frame, or of the current payload, that are still to come.
    rest: usize,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

impl Frames {
    /// Takes bytes up to and including the next head; how many, and the head if it is complete.
    fn next(&mut self, bytes: &[u8]) -> (usize, Option<Head>) {
        let skipped = self.rest.min(bytes.len());
        self.rest -= skipped;
        let part = &bytes[skipped..];
        let taken = (HEAD_BYTES - self.head_bytes).min(part.len());
        self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&part[..taken]);
        self.head_bytes += taken;
        if self.head_bytes < HEAD_BYTES {
            return (skipped + taken, None);
        }
        self.head_bytes = 0;
        let [a, b, c, kind, flags, d, e, f, g] = self.head;
        let head = Head {
            kind,
            flags,
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
            length: u32::from_be_bytes([0, a, b, c]) as usize,
        };
        self.rest = head.length;
        (skipped + taken, Some(head))
    }

    const fn is_between_frames(&self) -> bool {
        self.rest == 0 && self.head_bytes == 0
    }
}

/// Everything that is kept about one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: FloodLimits,
    received: Frames,
    sent: Frames,
    /// Bytes up to the end of the code of a RST_STREAM or GOAWAY that is being sent, and the code so far.
    code: Option<(usize, u32)>,
    /// Whether what is being sent is a GOAWAY.
    is_goaway: bool,
    /// Which limit of its own hyper has sent the client away for.
    calmed: Option<Limit>,
    resets: Rate,
    empty_data: Rate,
    control_frames: Rate,
    /// A header block that is incomplete.
    block: Option<Block>,
    /// The header block that came last, as far as it is kept.
    block_bytes: Vec<u8>,
    /// Whether the block ends with the current frame.
    block_ends: bool,
    /// A padded DATA frame whose first byte, the length of its padding, is still to come.
    padded: Option<Head>,
    /// What is being looked at inside of a frame.
    inside: Option<Inside>,
    ended: [u32; ENDED_KEPT],
    ended_next: usize,
    /// Whether the last frame was part of a header block in which nothing can be wrong but its coding.
    only_coding: bool,
    highest_stream: u32,
    streams: u64,
    streams_this_turn: u32,
    refused_streams: u32,
}

impl Watch {
    pub(crate) fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            received: Frames {
                rest: PREFACE_BYTES,
                ..Frames::default()
            },
            sent: Frames::default(),
            code: None,
            is_goaway: false,
            calmed: None,
            resets: Rate::default(),
            empty_data: Rate::default(),
            control_frames: Rate::default(),
            block: None,
            block_bytes: Vec::new(),
            block_ends: false,
            padded: None,
            inside: None,
            ended: [0; ENDED_KEPT],
            ended_next: 0,
            only_coding: false,
            highest_stream: 0,
            streams: 0,
            streams_this_turn: 0,
            refused_streams: 0,
        }
    }

    /// Looks at bytes from the client; how many of them may be used in this turn.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Instant) -> Result<usize, Verdict> {
        let mut at = 0;
        while at < bytes.len() {
            self.look_at_padding(bytes[at], now)?;
            self.look_inside(&bytes[at..])?;
            let (taken, head) = self.received.next(&bytes[at..]);
            at += taken;
            if self.block_ends && (head.is_some() || self.received.rest == 0) {
                (self.block, self.block_ends) = (None, false);
            }
            if let Some(head) = head {
                self.begin(head, now)?;
            }
            if self.is_turn_over() {
                break;
            }
        }
        Ok(at)
    }

    fn begin(&mut self, head: Head, now: Instant) -> Result<(), Verdict> {
        self.only_coding = false;
        self.inside = None;
        if self.block.is_some() && head.kind != CONTINUATION {
            // A frame in the middle of a header block is what is wrong, whatever else is.
            if let Some(block) = &mut self.block {
                block.only_coding = false;
            }
            return Ok(());
        }
        check_size(head)?;
        match head.kind {
            DATA => self.begin_data(head, now),
            HEADERS => self.begin_headers(head, now),
            CONTINUATION => self.begin_continuation(head),
            RST_STREAM => {
                self.note_ended(head.stream);
                Ok(self.note_reset(now)?)
            }
            PRIORITY | SETTINGS | PING => {
                if head.kind == SETTINGS {
                    self.inside = Some(Inside::settings());
                }
                if self.control_frames.exceeds(self.limits.control_frames, now) {
                    return Err(Limit::H2ControlFrames.into());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_data(&mut self, head: Head, now: Instant) -> Result<(), Verdict> {
        self.check_not_ended(head)?;
        if head.flags & END_STREAM != 0 {
            self.note_ended(head.stream);
        } else if head.length == 0 {
            self.note_empty(now)?;
        } else if head.flags & PADDED != 0 {
            self.padded = Some(head);
        }
        Ok(())
    }

    fn begin_headers(&mut self, head: Head, now: Instant) -> Result<(), Verdict> {
        let is_new = head.stream > self.highest_stream;
        if is_new {
            self.highest_stream = head.stream;
            self.streams += 1;
            self.streams_this_turn += 1;
            let is_plain = head.flags & (PADDED | WITH_PRIORITY) == 0;
            self.only_coding = is_plain && head.stream % 2 == 1;
        } else {
            self.check_not_ended(head)?;
            self.inside = Some(Inside::trailers(head));
        }
        if head.flags & END_STREAM != 0 {
            self.note_ended(head.stream);
        }
        self.block_bytes.clear();
        self.block = Some(Block {
            since: now,
            continuations: 0,
            stream: head.stream,
            only_coding: self.only_coding,
        });
        self.end_block(head);
        Ok(())
    }

    fn begin_continuation(&mut self, head: Head) -> Result<(), Verdict> {
        if let Some(block) = &mut self.block {
            block.continuations += 1;
            if (self.limits.continuations).is_some_and(|max| block.continuations > max) {
                return Err(Limit::H2Continuations.into());
            }
            self.only_coding = block.only_coding && block.stream == head.stream;
        }
        self.end_block(head);
        Ok(())
    }

    fn check_not_ended(&self, head: Head) -> Result<(), Verdict> {
        if head.stream != 0 && self.ended.contains(&head.stream) {
            return Err(Verdict::Violation(Reason::STREAM_CLOSED));
        }
        Ok(())
    }

    const fn note_ended(&mut self, stream: u32) {
        self.ended[self.ended_next] = stream;
        self.ended_next = (self.ended_next + 1) % ENDED_KEPT;
    }

    fn look_inside(&mut self, bytes: &[u8]) -> Result<(), Verdict> {
        let payload = &bytes[..self.received.rest.min(bytes.len())];
        if self.only_coding && self.block_bytes.len() + payload.len() <= BLOCK_BYTES_KEPT {
            self.block_bytes.extend_from_slice(payload);
        }
        let Some(mut inside) = self.inside.take() else {
            return Ok(());
        };
        for byte in payload {
            if !inside.take(*byte)? {
                return Ok(());
            }
        }
        self.inside = Some(inside);
        Ok(())
    }

    fn end_block(&mut self, head: Head) {
        self.block_ends = head.flags & END_HEADERS != 0;
        if self.block_ends && head.length == 0 {
            (self.block, self.block_ends) = (None, false);
        }
    }

    /// The first byte of a padded frame says how much of it is content.
    fn look_at_padding(&mut self, byte: u8, now: Instant) -> Result<(), Verdict> {
        match self.padded.take() {
            Some(head) if head.length <= usize::from(byte) + 1 => Ok(self.note_empty(now)?),
            _ => Ok(()),
        }
    }

    fn note_empty(&mut self, now: Instant) -> Result<(), Limit> {
        if self.empty_data.exceeds(self.limits.empty_data, now) {
            return Err(Limit::H2EmptyData);
        }
        Ok(())
    }

    fn note_reset(&mut self, now: Instant) -> Result<(), Limit> {
        if self.resets.exceeds(self.limits.resets, now) {
            return Err(Limit::H2Resets);
        }
        Ok(())
    }

    /// Looks at bytes that went to the client.
    ///
    /// # Errors
    /// [`Limit::H2Resets`] when the client has provoked too many resets.
    pub(crate) fn sent(&mut self, bytes: &[u8], now: Instant) -> Result<(), Limit> {
        let mut at = 0;
        while at < bytes.len() {
            if let Some((left, code)) = &mut self.code {
                *code = *code << 8 | u32::from(bytes[at]);
                *left -= 1;
                self.sent.rest = self.sent.rest.saturating_sub(1);
                at += 1;
                if *left == 0 {
                    let code = *code;
                    self.code = None;
                    self.note_sent_code(code, now)?;
                }
                continue;
            }
            let (taken, head) = self.sent.next(&bytes[at..]);
            at += taken;
            if let Some(head) = head.filter(|head| matches!(head.kind, RST_STREAM | GOAWAY)) {
                self.is_goaway = head.kind == GOAWAY;
                // A GOAWAY begins with the last stream.
                self.code = Some((if self.is_goaway { 8 } else { 4 }, 0));
            }
        }
        Ok(())
    }

    /// Where in these bytes, about to be sent, a GOAWAY begins that calls a bad coding something else.
    pub(crate) fn find_miscalled(&self, parts: &[std::io::IoSlice<'_>]) -> Option<(usize, usize)> {
        if !self.only_coding {
            return None;
        }
        let mut probe = self.sent.clone();
        for (part, bytes) in parts.iter().enumerate() {
            let mut at = 0;
            while at < bytes.len() {
                let (taken, head) = probe.next(&bytes[at..]);
                at += taken;
                let is_goaway = head.is_some_and(|head| head.kind == GOAWAY) && at >= HEAD_BYTES;
                if is_goaway && bytes.get(at + 4..at + 8) == Some(&[0, 0, 0, 1]) {
                    return self.is_broken().then_some((part, at - HEAD_BYTES));
                }
            }
        }
        None
    }

    fn is_broken(&self) -> bool {
        let table_max = self.limits.table_bytes.max(4 << 10) as usize;
        block::is_broken(&self.block_bytes, self.streams == 1, table_max)
    }

    /// Resets that answer an error of the client count; those that pass on what an endpoint did do not.
    fn note_sent_code(&mut self, code: u32, now: Instant) -> Result<(), Limit> {
        let code = Reason::from(code);
        if self.is_goaway {
            if code == Reason::ENHANCE_YOUR_CALM {
                let block = self.block.as_ref();
                let is_block = block.is_some_and(|block| block.continuations > TAKEN_CONTINUATIONS);
                self.calmed = Some(match is_block {
                    true => Limit::H2Continuations,
                    false => Limit::H2Resets,
                });
            }
            return Ok(());
        }
        self.refused_streams += u32::from(code == Reason::REFUSED_STREAM);
        let provoked = matches!(
            code,
            Reason::PROTOCOL_ERROR
                | Reason::FLOW_CONTROL_ERROR
                | Reason::STREAM_CLOSED
                | Reason::FRAME_SIZE_ERROR
                | Reason::REFUSED_STREAM
        );
        if provoked {
            self.note_reset(now)
        } else {
            Ok(())
        }
    }

    /// Whether so many streams were begun that others must have their turn.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.limits
            .streams_a_turn
            .is_some_and(|max| self.streams_this_turn >= max)
    }

    pub(crate) const fn begin_turn(&mut self) {
        self.streams_this_turn = 0;
    }

    /// Since when a header block has been incomplete.
    pub(crate) fn block_since(&self) -> Option<Instant> {
        self.block.as_ref().map(|block| block.since)
    }

    /// Streams that the client has begun.
    pub(crate) const fn streams(&self) -> u64 {
        self.streams
    }

    pub(crate) const fn highest_stream(&self) -> u32 {
        self.highest_stream
    }

    /// Streams that were refused since this was last asked.
    pub(crate) const fn take_refused_streams(&mut self) -> u32 {
        std::mem::replace(&mut self.refused_streams, 0)
    }

    /// For which limit of its own hyper has sent the client away: more resets waited to be seen to than it has
    /// room for, or a header block had more pieces than it takes.
    pub(crate) const fn calmed(&self) -> Option<Limit> {
        self.calmed
    }

    /// Whether a frame of our own could be sent now.
    pub(crate) const fn may_speak(&self) -> bool {
        self.sent.is_between_frames()
    }
}

#[cfg(test)]
mod tests;
