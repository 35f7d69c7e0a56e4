//! The watch over an HTTP/2 connection, for bytes in any pieces.

use std::io::IoSlice;
use std::time::Instant;

use crate::h2::watch::{FloodLimits, Watch};

use super::arrivals;

/// What a client may do here, by the name of the limit.
pub const FLOODS: [(&str, u32); 4] = [
    ("h2_resets", 3),
    ("h2_continuations", 2),
    ("h2_empty_data", 3),
    ("h2_control_frames", 4),
];

/// Streams in one turn.
const STREAMS_A_TURN: u32 = 4;

/// What the watch made of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The code that the connection ends with, and the limit, if it was one.
    pub verdict: Option<(u32, Option<&'static str>)>,
    /// Streams that the client has begun.
    pub streams: u64,
    /// The highest of them.
    pub highest_stream: u32,
    /// Whether a header block is incomplete.
    pub in_block: bool,
    /// Where in what was sent a GOAWAY begins that calls a bad coding something else.
    pub miscalled: Option<usize>,
}

/// Watches what a client sends, and what it is sent after that, which is whole frames.
///
/// # Panics
/// When no progress is made.
#[must_use]
pub fn watch(received: &[u8], sent: &[u8], pieces: &[usize]) -> Watched {
    let limits = FloodLimits {
        resets: Some(FLOODS[0].1),
        continuations: Some(FLOODS[1].1),
        empty_data: Some(FLOODS[2].1),
        control_frames: Some(FLOODS[3].1),
        streams_a_turn: Some(STREAMS_A_TURN),
        table_bytes: 4096,
    };
    let (mut watch, now) = (Watch::new(limits), Instant::now());
    let verdict = receive(&mut watch, received, pieces, now).err();
    let miscalled = watch.find_miscalled(&[IoSlice::new(sent)]);
    let verdict = verdict.or_else(|| {
        let mut at = 0;
        for arrived in arrivals(sent.len(), pieces) {
            if let Err(limit) = watch.sent(&sent[at..arrived], now) {
                return Some(limit.into());
            }
            at = arrived;
        }
        None
    });
    Watched {
        verdict: verdict.map(|verdict| {
            let limit = verdict.limit().map(crate::limit::Limit::name);
            (verdict.reason().into(), limit)
        }),
        streams: watch.streams(),
        highest_stream: watch.highest_stream(),
        in_block: watch.block_since().is_some(),
        miscalled: miscalled.map(|(_, at)| at),
    }
}

fn receive(
    watch: &mut Watch,
    received: &[u8],
    pieces: &[usize],
    now: Instant,
) -> Result<(), crate::h2::watch::Verdict> {
    let mut at = 0;
    for arrived in arrivals(received.len(), pieces) {
        while at < arrived {
            watch.begin_turn();
            let taken = watch.received(&received[at..arrived], now)?;
            assert!(taken > 0, "no byte was taken");
            at += taken;
        }
    }
    Ok(())
}
