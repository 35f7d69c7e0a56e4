//! After `101 Switching Protocols`: bytes both ways, until both sides are done.
//!
//! Frames pass untouched. What the proxy adds is an end: when both directions are silent for too
//! long, or when the backend's streams are cut. A WebSocket then gets a close frame with code 1001
//! ("going away") if it is between two frames, so that well-behaved clients reconnect at once;
//! [`Boundary`] follows frame headers for that purpose alone.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use switchback_config::defaults::READ_BYTES;

use crate::balance::Claim;
use crate::error::RequestError;
use crate::forward::{Answer, Link};
use crate::h1::transport::{Filled, Transport};
use crate::head::ResponseHead;
use crate::limit::Limit;
use crate::outcome::Outcome;
use crate::reply::ResponseNotes;
use crate::report::Report;
use crate::request::Request;
use crate::timer::Timer;
use crate::wait::Entry;

/// A connection that is about to become a tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) head: ResponseHead,
    pub(crate) notes: ResponseNotes,
    link: Link,
    claim: Claim,
    report: Report,
    timer: Timer,
    idle: Option<Duration>,
}

impl Tunnel {
    pub(crate) fn new(
        request: &Request<'_>,
        answer: Answer,
        notes: ResponseNotes,
        report: Report,
    ) -> Self {
        let Answer {
            head,
            claim,
            link,
            timer,
            ..
        } = answer;
        Self {
            head,
            notes,
            link,
            claim,
            report,
            timer,
            idle: request.limits.tunnel_idle,
        }
    }

    /// Carries bytes until the tunnel ends. The client has got the 101 already.
    pub(crate) async fn run(self, client: &Rc<Transport>) {
        let Self {
            link,
            claim,
            mut report,
            timer,
            idle,
            ..
        } = self;
        let Link::H1(connection) = &link else { return };
        let endpoint = &connection.transport;
        let mut up = Direction::default();
        let mut down = Direction::default();
        let mut streams = Entry::default();
        timer.set(idle);
        let outcome = poll_fn(|cx| {
            if claim.is_cut() {
                return Poll::Ready(Err(RequestError::Cut));
            }
            claim.view().streams.enter(&mut streams, cx);
            let moved = (up.bytes, down.bytes);
            let upward = up.poll(cx, client, endpoint);
            let downward = down.poll(cx, endpoint, client);
            if (up.bytes, down.bytes) != moved {
                timer.set(idle);
            }
            match (upward, downward) {
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                (Poll::Ready(Err(cause)), _) | (_, Poll::Ready(Err(cause))) => {
                    Poll::Ready(Err(RequestError::Reset(Some(cause))))
                }
                _ => timer.poll_expired(cx).map(|()| {
                    claim.worker().stats().limits.hit(Limit::TunnelIdleTimeout);
                    Err(RequestError::ResponseBodyTimeout)
                }),
            }
        })
        .await;
        claim.view().streams.leave(&mut streams);
        report.note(|record| record.bytes = down.bytes);
        if let Err(error) = outcome {
            say_goodbye(&down, client, GOING_AWAY).await;
            say_goodbye(&up, endpoint, GOING_AWAY_MASKED).await;
            report.note_error(&error);
        }
        claim.end(Outcome::Status(101));
    }
}

/// A close frame with code 1001, as an endpoint sends it and as a client does (mask of zeros).
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];
const GOING_AWAY_MASKED: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// Sends a close frame to the receiving end of a direction, if that is possible at once.
async fn say_goodbye(direction: &Direction, to: &Transport, frame: &[u8]) {
    if !direction.boundary.is_between_frames() || direction.ended {
        return;
    }
    // One attempt: whoever does not read now has been waited for long enough.
    poll_fn(|cx| {
        let _ = to.poll_write(cx, &[IoSlice::new(frame)]);
        let _ = to.poll_flush(cx);
        Poll::Ready(())
    })
    .await;
}

/// Bytes from one side to the other.
#[derive(Debug, Default)]
struct Direction {
    bytes: u64,
    boundary: Boundary,
    ended: bool,
    shut_down: bool,
}

impl Direction {
    /// Ready when the sender has ended and the receiver knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Transport,
        to: &Transport,
    ) -> Poll<io::Result<()>> {
        loop {
            if from.has_input() {
                let input = from.input();
                let written = ready!(to.poll_write(cx, &[IoSlice::new(&input)]))?;
                self.boundary.follow(&input[..written]);
                drop(input);
                from.consume(written);
                self.bytes += written as u64;
                continue;
            }
            ready!(to.poll_flush(cx))?;
            if self.ended {
                if !self.shut_down {
                    ready!(to.poll_shutdown(cx))?;
                    self.shut_down = true;
                }
                return Poll::Ready(Ok(()));
            }
            self.ended = ready!(from.poll_fill(cx, READ_BYTES))? == Filled::Eof;
        }
    }
}

/// Follows WebSocket frames (RFC 6455, 5.2) just far enough to know when one has ended.
#[derive(Debug, Default)]
struct Boundary {
    header: [u8; 14],
    /// Bytes of the current frame's header that have passed.
    header_bytes: usize,
    /// What is left of the current frame's payload.
    payload: u64,
}

impl Boundary {
    const fn is_between_frames(&self) -> bool {
        self.header_bytes == 0 && self.payload == 0
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped =
                    usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.header_bytes] = bytes[0];
            self.header_bytes += 1;
            bytes = &bytes[1..];
            if self.header_bytes == self.header_len() {
                self.payload = self.payload_len();
                self.header_bytes = 0;
            }
        }
    }

    /// How long the header is, as far as is known from its first two bytes.
    const fn header_len(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + mask
    }

    fn payload_len(&self) -> u64 {
        match self.header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => self.header[2..10]
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(masked: bool, payload: usize) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(mask_bit | u8::try_from(payload).expect("small")),
            126..65_536 => {
                frame.push(mask_bit | 126);
                frame.extend(u16::try_from(payload).expect("small").to_be_bytes());
            }
            _ => {
                frame.push(mask_bit | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(vec![0x88; payload]);
        frame
    }

    #[test]
    fn frame_ends_are_found_in_any_pieces() {
        for masked in [false, true] {
            let sizes = [0, 1, 125, 126, 300, 65_535, 65_536, 70_000];
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| frame(masked, *size)).collect();
            let ends: Vec<usize> = sizes
                .iter()
                .scan(0, |end, size| {
                    *end += frame(masked, *size).len();
                    Some(*end)
                })
                .collect();
            for piece in [1, 2, 3, 7, 1000, bytes.len()] {
                let mut boundary = Boundary::default();
                let mut passed = 0;
                for chunk in bytes.chunks(piece) {
                    boundary.follow(chunk);
                    passed += chunk.len();
                    assert_eq!(
                        boundary.is_between_frames(),
                        ends.contains(&passed),
                        "{masked} {piece} {passed}"
                    );
                }
            }
        }
    }
}
