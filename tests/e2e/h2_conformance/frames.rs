//! Frames: their formats, sizes and places (RFC 9113, sections 3, 4, 6 and 7; h2spec generic 1, 3 and 5).

use super::{Case, case, play};
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Expect, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR,
    GOAWAY, HEADERS, PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS,
    STREAM_CLOSED, WINDOW_UPDATE, WITH_PRIORITY, block, frame, get, headers, request, reset,
    settings, window_update,
};
use crate::support::wire::{Edge, RawOrigin};

const PROTOCOL: Expect = Expect::Connection(&[PROTOCOL_ERROR]);
const SIZE: Expect = Expect::Connection(&[FRAME_SIZE_ERROR]);

fn post(stream: u32) -> Vec<u8> {
    headers(stream, false, &request("POST", &[]))
}

fn ping(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(PING, flags, stream, payload)
}

/// A header block longer than one frame may be.
fn long_block() -> Vec<u8> {
    let value = "v".repeat(8 << 10);
    block(&request("GET", &[("x", &value), ("y", &value)]))
}

fn formats() -> Vec<Case> {
    let whole = block(&request("GET", &[]));
    vec![
        case(
            "generic/3.5/1 SETTINGS frame",
            &[settings(&[])],
            Expect::SettingsAck,
        ),
        case(
            "generic/3.7/1 PING frame",
            &[ping(0, 0, b"12345678")],
            Expect::Fine,
        ),
        case(
            "generic/3.8/1 GOAWAY frame",
            &[get(1), frame(GOAWAY, 0, 0, &[0; 8])],
            Expect::Status(200),
        ),
        case(
            "4.1/1 frame of an unknown type",
            &[frame(0xff, 0, 0, b"12345678")],
            Expect::Fine,
        ),
        case(
            "4.1/2 undefined flags",
            &[ping(0xfe, 0, b"12345678")],
            Expect::Fine,
        ),
        case(
            "4.1/3 reserved bit",
            &[ping(0, 0x8000_0000, b"12345678")],
            Expect::Fine,
        ),
        case(
            "4.2/1 DATA of 2^14 bytes",
            &[post(1), frame(DATA, END_STREAM, 1, &[b'x'; 1 << 14])],
            Expect::Status(200),
        ),
        case(
            "4.2/2 DATA of more than the frame size",
            &[post(1), frame(DATA, END_STREAM, 1, &[b'x'; (1 << 14) + 1])],
            Expect::Stream(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2/3 HEADERS of more than the frame size",
            &[frame(HEADERS, END_STREAM | END_HEADERS, 1, &long_block())],
            SIZE,
        ),
        case(
            "4.3/2 PRIORITY inside a header block",
            &[
                frame(HEADERS, END_STREAM, 1, &whole),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ],
            PROTOCOL,
        ),
        case(
            "4.3/3 HEADERS of another stream inside a header block",
            &[frame(HEADERS, END_STREAM, 1, &whole), get(3)],
            PROTOCOL,
        ),
        case(
            "5.5/1 unknown extension frame",
            &[frame(0x16, 0, 0, &[0; 8])],
            Expect::Fine,
        ),
        case(
            "5.5/2 unknown extension frame inside a header block",
            &[
                frame(HEADERS, END_STREAM, 1, &whole),
                frame(0x16, 0, 0, &[0; 8]),
            ],
            PROTOCOL,
        ),
        case(
            "5.4.1/1 invalid frame ends the connection",
            &[ping(0, 3, b"12345678")],
            PROTOCOL,
        ),
    ]
}

fn data_and_headers() -> Vec<Case> {
    let whole = block(&request("GET", &[]));
    let padded = [&[200][..], &whole].concat();
    let priority = [&[0, 0, 0, 0, 255][..], &whole].concat();
    let both = [&[4, 0, 0, 0, 0, 255][..], &whole, &[0; 4]].concat();
    let pad = [&[4][..], &whole, &[0; 4]].concat();
    vec![
        case(
            "generic/3.1/1 DATA",
            &[post(1), frame(DATA, END_STREAM, 1, b"test")],
            Expect::Status(200),
        ),
        case(
            "generic/3.1/2 DATA in several frames",
            &[
                post(1),
                frame(DATA, 0, 1, b"test"),
                frame(DATA, END_STREAM, 1, b"test"),
            ],
            Expect::Status(200),
        ),
        case(
            "generic/3.1/3 DATA with padding",
            &[
                post(1),
                frame(DATA, END_STREAM | PADDED, 1, b"\x02test\0\0"),
            ],
            Expect::Status(200),
        ),
        case("generic/3.2/1 HEADERS", &[get(1)], Expect::Status(200)),
        case(
            "generic/3.2/2 HEADERS with padding",
            &[frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &pad)],
            Expect::Status(200),
        ),
        case(
            "generic/3.2/3 HEADERS with priority",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS | WITH_PRIORITY,
                1,
                &priority,
            )],
            Expect::Status(200),
        ),
        case(
            "generic/3.2/4 HEADERS with padding and priority",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY,
                1,
                &both,
            )],
            Expect::Status(200),
        ),
        case(
            "generic/4/2 HEAD",
            &[headers(1, true, &request("HEAD", &[]))],
            Expect::Status(200),
        ),
        case(
            "generic/4/4 POST with trailers",
            &[
                post(1),
                frame(DATA, 0, 1, b"test"),
                headers(1, true, &[("x-test", "ok")]),
            ],
            Expect::Status(200),
        ),
        case(
            "6.1/1 DATA on stream 0",
            &[frame(DATA, END_STREAM, 0, b"test")],
            PROTOCOL,
        ),
        case(
            "6.1/2 DATA on a stream that is neither open nor half-closed (local)",
            &[get(1), frame(DATA, END_STREAM, 1, b"test")],
            Expect::Stream(&[STREAM_CLOSED]),
        ),
        case(
            "6.1/3 DATA with more padding than payload",
            &[post(1), frame(DATA, END_STREAM | PADDED, 1, b"\x06test")],
            PROTOCOL,
        ),
        case(
            "6.2/1 HEADERS without END_HEADERS, then PRIORITY",
            &[
                frame(HEADERS, END_STREAM, 1, &whole),
                frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]),
            ],
            PROTOCOL,
        ),
        case(
            "6.2/2 HEADERS of another stream inside a header block",
            &[frame(HEADERS, END_STREAM, 1, &whole), get(3)],
            PROTOCOL,
        ),
        case(
            "6.2/3 HEADERS on stream 0",
            &[frame(HEADERS, END_STREAM | END_HEADERS, 0, &whole)],
            PROTOCOL,
        ),
        case(
            "6.2/4 HEADERS with more padding than payload",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &padded,
            )],
            PROTOCOL,
        ),
    ]
}

fn priority_and_reset() -> Vec<Case> {
    vec![
        case(
            "generic/3.3/1 PRIORITY with weight 1",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 0])],
            Expect::Fine,
        ),
        case(
            "generic/3.3/2 PRIORITY with weight 256",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])],
            Expect::Fine,
        ),
        case(
            "generic/3.3/3 PRIORITY with a dependency",
            &[frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 255])],
            Expect::Fine,
        ),
        case(
            "generic/3.3/4 exclusive PRIORITY",
            &[frame(PRIORITY, 0, 3, &[0x80, 0, 0, 1, 255])],
            Expect::Fine,
        ),
        case(
            "generic/3.3/5 PRIORITY for an idle stream, then HEADERS",
            &[frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 255]), get(1)],
            Expect::Status(200),
        ),
        case(
            "generic/3.4/1 RST_STREAM",
            &[post(1), reset(1, 8)],
            Expect::Fine,
        ),
        case(
            "6.3/1 PRIORITY on stream 0",
            &[frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 255])],
            PROTOCOL,
        ),
        case(
            "6.3/2 PRIORITY of four bytes",
            &[frame(PRIORITY, 0, 1, &[0, 0, 0, 0])],
            Expect::Stream(&[FRAME_SIZE_ERROR]),
        ),
        case("6.4/1 RST_STREAM on stream 0", &[reset(0, 8)], PROTOCOL),
        case(
            "6.4/2 RST_STREAM on an idle stream",
            &[reset(1, 8)],
            PROTOCOL,
        ),
        case(
            "6.4/3 RST_STREAM of three bytes",
            &[post(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            SIZE,
        ),
        case(
            "7/2 RST_STREAM with an unknown code",
            &[post(1), reset(1, 0xff)],
            Expect::Fine,
        ),
        case(
            "8.2/1 PUSH_PROMISE",
            &[frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            PROTOCOL,
        ),
    ]
}

fn settings_cases() -> Vec<Case> {
    vec![
        case(
            "6.5/1 SETTINGS ACK with a payload",
            &[frame(SETTINGS, ACK, 0, &[0])],
            SIZE,
        ),
        case(
            "6.5/2 SETTINGS on a stream",
            &[frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            PROTOCOL,
        ),
        case(
            "6.5/3 SETTINGS of three bytes",
            &[frame(SETTINGS, 0, 0, &[0, 3, 0])],
            SIZE,
        ),
        case("6.5.2/1 ENABLE_PUSH of 2", &[settings(&[(2, 2)])], PROTOCOL),
        case(
            "6.5.2/2 INITIAL_WINDOW_SIZE of 2^31",
            &[settings(&[(4, 1 << 31)])],
            Expect::Connection(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.5.2/3 MAX_FRAME_SIZE of 16383",
            &[settings(&[(5, 16_383)])],
            PROTOCOL,
        ),
        case(
            "6.5.2/4 MAX_FRAME_SIZE of 2^24",
            &[settings(&[(5, 1 << 24)])],
            PROTOCOL,
        ),
        case(
            "6.5.2/5 unknown setting",
            &[settings(&[(0xff, 1)])],
            Expect::Fine,
        ),
        case(
            "6.5.3/1 the last of two windows counts",
            &[settings(&[(4, 100), (4, 1)]), get(1)],
            Expect::Content(1),
        ),
        case(
            "6.5.3/2 SETTINGS are acknowledged",
            &[settings(&[(3, 100)])],
            Expect::SettingsAck,
        ),
        case("6.7/1 PING", &[ping(0, 0, b"h2spec!!")], Expect::Fine),
        case(
            "6.7/2 PING ACK is not answered",
            &[ping(ACK, 0, b"invalid!"), ping(0, 0, b"h2spec!!")],
            Expect::Fine,
        ),
        case(
            "6.7/3 PING on a stream",
            &[ping(0, 1, b"h2spec!!")],
            PROTOCOL,
        ),
        case("6.7/4 PING of six bytes", &[ping(0, 0, b"h2spec")], SIZE),
        case(
            "6.8/1 GOAWAY on a stream",
            &[frame(GOAWAY, 0, 1, &[0; 8])],
            PROTOCOL,
        ),
        case(
            "7/1 GOAWAY with an unknown code",
            &[frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            Expect::Connection(&[0]),
        ),
    ]
}

fn windows() -> Vec<Case> {
    let flow = &[FLOW_CONTROL_ERROR];
    let top = (1 << 31) - 1;
    vec![
        case(
            "generic/3.9/1 WINDOW_UPDATE of the connection",
            &[window_update(0, 1), get(1)],
            Expect::Status(200),
        ),
        case(
            "generic/3.9/2 WINDOW_UPDATE of a stream",
            &[
                post(1),
                window_update(1, 1),
                frame(DATA, END_STREAM, 1, b"x"),
            ],
            Expect::Status(200),
        ),
        case(
            "6.9/1 WINDOW_UPDATE of 0 for the connection",
            &[window_update(0, 0)],
            PROTOCOL,
        ),
        case(
            "6.9/2 WINDOW_UPDATE of 0 for a stream",
            &[post(1), window_update(1, 0)],
            Expect::Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9/3 WINDOW_UPDATE of three bytes",
            &[frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            SIZE,
        ),
        case(
            "6.9.1/1 a window of 1 lets one byte pass",
            &[get(1)],
            Expect::Content(1),
        )
        .with_settings(&[(4, 1)]),
        case(
            "6.9.1/2 the connection's window above 2^31-1",
            &[window_update(0, top), window_update(0, top)],
            Expect::Connection(flow),
        ),
        case(
            "6.9.1/3 a stream's window above 2^31-1",
            &[post(1), window_update(1, top), window_update(1, top)],
            Expect::Stream(flow),
        ),
        case(
            "6.9.2/1 INITIAL_WINDOW_SIZE changes open streams",
            &[get(1), settings(&[(4, 1)])],
            Expect::Content(1),
        )
        .with_settings(&[(4, 0)]),
        case(
            "6.9.2/2 a negative window is followed",
            &[get(1)],
            Expect::Content(1),
        )
        .with_settings(&[(4, 1)])
        .after_content(&[settings(&[(4, 0)]), window_update(1, 2)]),
        case(
            "6.9.2/3 INITIAL_WINDOW_SIZE of 2^31",
            &[settings(&[(4, 1 << 31)])],
            Expect::Connection(flow),
        ),
    ]
}

fn continuations() -> Vec<Case> {
    let whole = block(&request("GET", &[]));
    let (a, rest) = whole.split_at(3);
    let (b, c) = rest.split_at(3);
    let first = frame(HEADERS, END_STREAM, 1, a);
    let middle = frame(CONTINUATION, 0, 1, b);
    let last = frame(CONTINUATION, END_HEADERS, 1, c);
    let dummy = block(&[("x", "y")]);
    vec![
        case(
            "generic/3.10/1 CONTINUATION",
            &[
                frame(HEADERS, END_STREAM, 1, a),
                frame(CONTINUATION, END_HEADERS, 1, rest),
            ],
            Expect::Status(200),
        ),
        case(
            "6.10/1 several CONTINUATIONs",
            &[first.clone(), middle.clone(), last.clone()],
            Expect::Status(200),
        ),
        case(
            "6.10/2 CONTINUATION, then something else",
            &[
                first.clone(),
                middle.clone(),
                frame(DATA, END_STREAM, 1, b"test"),
            ],
            PROTOCOL,
        ),
        case(
            "6.10/3 CONTINUATION on stream 0",
            &[first.clone(), frame(CONTINUATION, END_HEADERS, 0, rest)],
            PROTOCOL,
        ),
        case(
            "6.10/4 CONTINUATION after the end of a block",
            &[get(1), frame(CONTINUATION, END_HEADERS, 1, &dummy)],
            PROTOCOL,
        ),
        case(
            "6.10/5 CONTINUATION after a CONTINUATION that ended the block",
            &[
                first,
                middle,
                last,
                frame(CONTINUATION, END_HEADERS, 1, &dummy),
            ],
            PROTOCOL,
        ),
        case(
            "6.10/6 CONTINUATION after DATA",
            &[
                post(1),
                frame(DATA, 0, 1, b"test"),
                frame(CONTINUATION, END_HEADERS, 1, &dummy),
            ],
            PROTOCOL,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_read_by_their_formats() {
    let (mut cases, more) = (formats(), [data_and_headers(), priority_and_reset()]);
    cases.extend(more.into_iter().flatten());
    play(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_windows_and_continuations_are_followed() {
    let (mut cases, more) = (settings_cases(), [windows(), continuations()]);
    cases.extend(more.into_iter().flatten());
    play(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preface_that_is_none_ends_the_connection() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for secure in [false, true] {
        let mut wire = if secure {
            edge.secure(true).await
        } else {
            edge.plain().await
        };
        wire.write(b"INVALID CONNECTION PREFACE\r\n\r\n").await;
        assert!(wire.rest().await.is_some(), "3.5/2: the connection ends");
    }
    assert!(edge.serves().await);
}
