//! Whatever a client does with its HTTP/2 connection, in whatever pieces: the watch sees the same, lets
//! through what the limits allow, and ends what is beyond them.
//!
//! The first two bytes choose the pieces, the third how many of the last bytes choose what the client is
//! sent; those in between are frames from the client, after its preface.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchback_proxy::fuzz::{FLOODS, watch};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
/// PRIORITY, SETTINGS, PING.
const CONTROL: [u8; 3] = [2, 4, 6];

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// What is counted, frame by frame, by somebody who has all bytes at once.
#[derive(Debug, Default)]
struct Counted {
    resets: u32,
    /// Most of them in one block.
    continuations: u32,
    empty_data: u32,
    control: u32,
    streams: u64,
    highest: u32,
}

fn count(mut bytes: &[u8]) -> Counted {
    let mut counted = Counted::default();
    // Continuations of a block that is not complete.
    let mut block: Option<u32> = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
        let payload = &rest[..length.min(rest.len())];
        let ends = flags & END_HEADERS != 0;
        match (kind, &mut block) {
            (CONTINUATION, Some(so_far)) => {
                *so_far += 1;
                counted.continuations = counted.continuations.max(*so_far);
                block = block.filter(|_| !ends);
            }
            // Whatever comes in the middle of a block is the library's to refuse.
            (_, Some(_)) => {}
            (HEADERS, None) => {
                counted.streams += u64::from(stream > counted.highest);
                counted.highest = counted.highest.max(stream);
                block = (!ends).then_some(0);
            }
            (RST_STREAM, None) => counted.resets += 1,
            (DATA, None) if flags & END_STREAM == 0 => {
                let padding = payload.first().filter(|_| flags & PADDED != 0);
                let is_empty = padding.is_some_and(|padding| length <= usize::from(*padding) + 1);
                counted.empty_data += u32::from(length == 0 || is_empty);
            }
            (kind, None) => counted.control += u32::from(CONTROL.contains(&kind)),
        }
        bytes = &rest[payload.len()..];
    }
    counted
}

/// Frames for the client, one for each byte, and how many of them are resets that it has provoked.
fn frames(choices: &[u8]) -> (Vec<u8>, u32) {
    let (mut frames, mut provoked) = (Vec::new(), 0);
    for choice in choices {
        let code = u32::from(choice % 14);
        match choice / 14 % 3 {
            0 => {
                frames.extend([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1]);
                provoked += u32::from([1, 3, 5, 6, 7].contains(&code));
            }
            1 => frames.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            _ => frames.extend([0, 0, 4, 8, 0, 0, 0, 0, 0]),
        }
        frames.extend(code.to_be_bytes());
    }
    (frames, provoked)
}

fuzz_target!(|input: &[u8]| {
    let Some(([one, other, sent], rest)) = input.split_first_chunk::<3>() else { return };
    let (from_client, choices) = rest.split_at(rest.len() - rest.len().min(usize::from(*sent)));
    let received = [PREFACE, from_client].concat();
    let (sent, provoked) = frames(choices);
    let whole = watch(&received, &sent, &[]);
    let pieces = [usize::from(*one), usize::from(*other)];
    assert_eq!(watch(&received, &sent, &pieces), whole, "in pieces of {pieces:?}");
    assert_eq!(watch(&received, &sent, &[1]), whole, "byte by byte");
    if let Some(at) = whole.miscalled {
        assert_eq!(sent.get(at + 3), Some(&7), "no GOAWAY at {at}");
    }
    let counted = count(from_client);
    let counts = [counted.resets + provoked, counted.continuations, counted.empty_data, counted.control];
    match whole.verdict {
        None => {
            for ((name, allowed), count) in FLOODS.into_iter().zip(counts) {
                assert!(count <= allowed, "{count} of {name} were let through");
            }
            assert_eq!((whole.streams, whole.highest_stream), (counted.streams, counted.highest));
        }
        Some((code, Some(limit))) => {
            assert_eq!(code, 11, "ENHANCE_YOUR_CALM");
            let at = FLOODS.iter().position(|(name, _)| *name == limit).expect("one of these");
            assert!(counts[at] > FLOODS[at].1, "{} of {limit} were too many", counts[at]);
        }
        // What a frame may be is told apart elsewhere.
        Some((code, None)) => assert!((1..=13).contains(&code) && code != 11, "{code}"),
    }
});
