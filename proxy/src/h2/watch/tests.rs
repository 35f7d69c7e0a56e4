use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: FloodLimits = FloodLimits {
    resets: Some(3),
    continuations: Some(2),
    empty_data: Some(3),
    control_frames: Some(3),
    streams_a_turn: Some(4),
    table_bytes: 4096,
};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn watch() -> Watch {
    let mut watch = Watch::new(LIMITS);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(watch.received(preface, Instant::now()), Ok(PREFACE_BYTES));
    watch
}

/// Repeats a frame until it is too much; how often it was let through.
fn count(frame: &[u8]) -> (usize, Option<Verdict>) {
    let (mut watch, now) = (watch(), Instant::now());
    for count in 0..10 {
        if let Err(verdict) = watch.received(frame, now) {
            return (count, Some(verdict));
        }
    }
    (10, None)
}

#[test]
fn each_flood_is_seen_one_beyond_its_limit() {
    for (bytes, expected) in [
        (
            frame(RST_STREAM, 0, 1, &[0; 4]),
            (3, Some(Verdict::Limit(Limit::H2Resets))),
        ),
        (
            frame(DATA, 0, 1, b""),
            (3, Some(Verdict::Limit(Limit::H2EmptyData))),
        ),
        (
            frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
            (3, Some(Verdict::Limit(Limit::H2EmptyData))),
        ),
        (frame(DATA, PADDED, 1, &[2, 0, 0, 0]), (10, None)),
        (
            frame(DATA, END_STREAM, 1, b""),
            (1, Some(Verdict::Violation(Reason::STREAM_CLOSED))),
        ),
        (frame(DATA, 0, 1, b"x"), (10, None)),
        (
            frame(PING, 0, 0, &[0; 8]),
            (3, Some(Verdict::Limit(Limit::H2ControlFrames))),
        ),
        (
            frame(SETTINGS, 0, 0, &[]),
            (3, Some(Verdict::Limit(Limit::H2ControlFrames))),
        ),
        (
            frame(PRIORITY, 0, 1, &[0; 5]),
            (3, Some(Verdict::Limit(Limit::H2ControlFrames))),
        ),
        (frame(8, 0, 1, &[0; 4]), (10, None)),
        (frame(0x77, 0, 0, &[0; 4]), (10, None)),
    ] {
        assert_eq!(count(&bytes), expected, "{bytes:?}");
    }
}

#[test]
fn continuations_are_counted_for_each_block() {
    let (mut watch, now) = (watch(), Instant::now());
    let more = frame(CONTINUATION, 0, 1, b"x");
    let block = [
        frame(HEADERS, 0, 1, b"x"),
        more.clone(),
        frame(CONTINUATION, END_HEADERS, 1, b"x"),
    ]
    .concat();
    for _ in 0..5 {
        assert_eq!(watch.received(&block, now), Ok(block.len()));
        assert_eq!(watch.block_since(), None);
    }
    watch
        .received(&frame(HEADERS, 0, 3, b""), now)
        .expect("fine");
    assert!(watch.block_since().is_some());
    watch.received(&more, now).expect("fine");
    watch.received(&more, now).expect("fine");
    assert_eq!(
        watch.received(&more, now),
        Err(Verdict::Limit(Limit::H2Continuations))
    );
}

#[test]
fn rates_begin_anew_when_their_window_is_over() {
    let (mut watch, start) = (watch(), Instant::now());
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    for window in 0..3 {
        let now = start + window * H2_FLOOD_TIME;
        for _ in 0..3 {
            assert!(watch.received(&reset, now).is_ok());
        }
    }
    let now = start + 2 * H2_FLOOD_TIME + Duration::from_secs(9);
    assert_eq!(
        watch.received(&reset, now),
        Err(Verdict::Limit(Limit::H2Resets))
    );
}

#[test]
fn resets_that_the_client_provoked_count_and_those_of_endpoints_do_not() {
    let now = Instant::now();
    for (code, counts) in [
        (1, true),
        (3, true),
        (5, true),
        (7, true),
        (0, false),
        (2, false),
        (8, false),
    ] {
        let mut watch = watch();
        let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, code]);
        let sent: Vec<_> = (0..4).map(|_| watch.sent(&reset, now)).collect();
        assert_eq!(sent[3].is_err(), counts, "{code}");
        assert!(sent[..3].iter().all(Result::is_ok));
        assert_eq!(watch.take_refused_streams(), if code == 7 { 4 } else { 0 });
    }
    // They add up with the client's own.
    let mut watch = watch();
    for _ in 0..3 {
        watch
            .sent(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 1]), now)
            .expect("fine");
    }
    assert_eq!(
        watch.received(&frame(RST_STREAM, 0, 1, &[0; 4]), now),
        Err(Verdict::Limit(Limit::H2Resets))
    );
}

#[test]
fn turn_ends_with_its_last_stream() {
    let (mut watch, now) = (watch(), Instant::now());
    let streams: Vec<u8> = (0..6)
        .flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, b"xy"))
        .collect();
    let first = watch.received(&streams, now).expect("fine");
    assert_eq!(first, 3 * 11 + 9);
    assert!(watch.is_turn_over());
    watch.begin_turn();
    assert_eq!(
        watch.received(&streams[first..], now),
        Ok(streams.len() - first)
    );
    assert_eq!((watch.streams(), watch.highest_stream()), (6, 11));
    // Trailers and repeated identifiers begin nothing.
    watch
        .received(&frame(HEADERS, END_HEADERS, 3, b""), now)
        .expect("fine");
    assert_eq!(watch.streams(), 6);
}

#[test]
fn own_frames_fit_only_between_others() {
    let (mut watch, now) = (watch(), Instant::now());
    assert!(watch.may_speak());
    let bytes = [frame(DATA, 0, 1, b"abc"), frame(RST_STREAM, 0, 1, &[0; 4])].concat();
    for (at, byte) in bytes.iter().enumerate() {
        watch.sent(&[*byte], now).expect("fine");
        assert_eq!(watch.may_speak(), [11, 24].contains(&at), "{at}");
    }
}

#[test]
fn sizes_and_settings_out_of_range_are_violations() {
    let size = Err(Verdict::Violation(Reason::FRAME_SIZE_ERROR));
    let now = Instant::now();
    for (kind, flags, length, fits) in [
        (PRIORITY, 0, 5, true),
        (PRIORITY, 0, 4, false),
        (RST_STREAM, 0, 4, true),
        (RST_STREAM, 0, 5, false),
        (WINDOW_UPDATE, 0, 3, false),
        (SETTINGS, 0, 6, true),
        (SETTINGS, 0, 7, false),
        (SETTINGS, ACK, 0, true),
        (SETTINGS, ACK, 6, false),
        (PING, 0, 8, true),
        (PING, 0, 9, false),
        (0x77, 0, 3, true),
    ] {
        let found = watch().received(&frame(kind, flags, 1, &vec![0; length]), now);
        assert_eq!(
            found.map(|_| ()),
            if fits { Ok(()) } else { size },
            "{kind} {length}"
        );
    }
    let settings = |value: u32| {
        let entries = [&[0, 3, 0, 0, 0, 1, 0, 4][..], &value.to_be_bytes()].concat();
        watch()
            .received(&frame(SETTINGS, 0, 0, &entries), now)
            .map(|_| ())
    };
    assert_eq!(settings(u32::MAX >> 1), Ok(()));
    let flow = Verdict::Violation(Reason::FLOW_CONTROL_ERROR);
    assert_eq!(settings(1 << 31), Err(flow));
}

#[test]
fn frames_on_streams_that_were_ended_are_violations() {
    let closed = Err(Verdict::Violation(Reason::STREAM_CLOSED));
    let now = Instant::now();
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"x");
    for late in [
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, END_HEADERS, 1, b"x"),
    ] {
        let mut watch = watch();
        watch.received(&get, now).expect("fine");
        assert_eq!(watch.received(&late, now), closed);
    }
    let mut watch = watch();
    watch.received(&get, now).expect("fine");
    let window = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    assert!(
        watch.received(&window, now).is_ok(),
        "a window may still grow"
    );
}

#[test]
fn goaway_is_miscalled_only_right_after_a_plain_header_block_that_is_broken() {
    let now = Instant::now();
    let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]);
    let data = frame(DATA, 0, 1, b"abc");
    let sent = [std::io::IoSlice::new(&data), std::io::IoSlice::new(&goaway)];
    let mut watch = watch();
    assert_eq!(watch.find_miscalled(&sent), None);
    watch
        .received(&frame(HEADERS, END_HEADERS, 1, b"\x80"), now)
        .expect("fine");
    assert_eq!(watch.find_miscalled(&sent), Some((1, 0)));
    let both = [data.clone(), goaway.clone()].concat();
    assert_eq!(
        watch.find_miscalled(&[std::io::IoSlice::new(&both)]),
        Some((0, data.len()))
    );
    assert_eq!(watch.find_miscalled(&[std::io::IoSlice::new(&data)]), None);
    for (stream, flags) in [
        (2, END_HEADERS),
        (3, END_HEADERS | PADDED),
        (5, END_HEADERS | WITH_PRIORITY),
    ] {
        watch
            .received(&frame(HEADERS, flags, stream, &[0; 6]), now)
            .expect("fine");
        assert_eq!(watch.find_miscalled(&sent), None, "{stream}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_in_any_pieces(
        frames in prop::collection::vec((0_u8..11, any::<u8>(), 0_u32..9, 0_usize..20), 0..40),
        noise in prop::collection::vec(any::<u8>(), 0..30),
        pieces in prop::collection::vec(1_usize..30, 1..60),
    ) {
        let now = Instant::now();
        let mut bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, length)| frame(*kind, *flags, *stream, &vec![*flags; *length]))
            .collect();
        bytes.extend(noise);
        let limits = FloodLimits { streams_a_turn: None, ..LIMITS };
        let preface = [0; PREFACE_BYTES];
        let (mut whole, mut split) = (Watch::new(limits), Watch::new(limits));
        whole.received(&preface, now).expect("fine");
        split.received(&preface, now).expect("fine");
        let expected = whole.received(&bytes, now).map(|_| ());
        let mut found = Ok(());
        let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
        while !rest.is_empty() && found.is_ok() {
            let piece = (*pieces.next().expect("endless")).min(rest.len());
            found = split.received(&rest[..piece], now).map(|_| ());
            rest = &rest[piece..];
        }
        prop_assert_eq!(expected, found);
        prop_assert_eq!(whole.streams(), split.streams());
        prop_assert_eq!(whole.block.is_some(), split.block.is_some());
        let mut sender = Watch::new(limits);
        let _ = sender.sent(&bytes, now);
    }
}
