//! Streams: their states, identifiers, messages (RFC 9113, sections 5 and 8; h2spec generic 2).

use super::{Case, case, play};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Expect, HEADERS, PRIORITY, PROTOCOL_ERROR,
    REFUSED_STREAM, STREAM_CLOSED, WITH_PRIORITY, block, frame, get, headers, request, reset,
    window_update,
};

const PROTOCOL: Expect = Expect::Connection(&[PROTOCOL_ERROR]);
const CLOSED: Expect = Expect::Stream(&[STREAM_CLOSED]);
const CLOSED_OR_PROTOCOL: Expect = Expect::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);
const MALFORMED: Expect = Expect::Stream(&[PROTOCOL_ERROR]);

fn post(stream: u32) -> Vec<u8> {
    headers(stream, false, &request("POST", &[]))
}

fn data(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, b"test")
}

fn continuation(stream: u32) -> Vec<u8> {
    frame(CONTINUATION, END_HEADERS, stream, &block(&[("x", "y")]))
}

fn states() -> Vec<Case> {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255]);
    vec![
        case(
            "generic/2/1 PRIORITY on an idle stream",
            std::slice::from_ref(&priority),
            Expect::Fine,
        ),
        case(
            "generic/2/2 WINDOW_UPDATE on a half-closed (remote) stream",
            &[get(1), window_update(1, 100)],
            Expect::Status(200),
        ),
        case(
            "generic/2/3 PRIORITY on a half-closed (remote) stream",
            &[get(1), priority.clone()],
            Expect::Status(200),
        ),
        case(
            "generic/2/4 RST_STREAM on a half-closed (remote) stream",
            &[get(1), reset(1, 8)],
            Expect::Fine,
        ),
        case(
            "generic/2/5 PRIORITY on a closed stream",
            &[get(1)],
            Expect::Fine,
        )
        .then(1, &[priority]),
        case("5.1/1 idle: DATA", &[data(1)], PROTOCOL),
        case("5.1/2 idle: RST_STREAM", &[reset(1, 8)], PROTOCOL),
        case(
            "5.1/3 idle: WINDOW_UPDATE",
            &[window_update(1, 100)],
            PROTOCOL,
        ),
        case("5.1/4 idle: CONTINUATION", &[continuation(1)], PROTOCOL),
        case(
            "5.1/5 half-closed (remote): DATA",
            &[get(1), data(1)],
            CLOSED,
        ),
        case(
            "5.1/6 half-closed (remote): HEADERS",
            &[get(1), get(1)],
            CLOSED,
        ),
        case(
            "5.1/7 half-closed (remote): CONTINUATION",
            &[get(1), continuation(1)],
            CLOSED_OR_PROTOCOL,
        ),
        case(
            "5.1/8 closed: DATA after RST_STREAM",
            &[post(1), reset(1, 8), data(1)],
            CLOSED,
        ),
        case(
            "5.1/9 closed: HEADERS after RST_STREAM",
            &[post(1), reset(1, 8), get(1)],
            CLOSED,
        ),
        case(
            "5.1/10 closed: CONTINUATION after RST_STREAM",
            &[post(1), reset(1, 8), continuation(1)],
            CLOSED_OR_PROTOCOL,
        ),
        case("5.1/11 closed: DATA", &[get(1)], CLOSED).then(1, &[data(1)]),
        case("5.1/12 closed: HEADERS", &[get(1)], CLOSED_OR_PROTOCOL).then(1, &[get(1)]),
        case("5.1/13 closed: CONTINUATION", &[get(1)], CLOSED_OR_PROTOCOL)
            .then(1, &[continuation(1)]),
        case("5.1.1/1 even stream identifier", &[get(2)], PROTOCOL),
        case(
            "5.1.1/2 smaller stream identifier",
            &[get(5), get(3)],
            PROTOCOL,
        ),
    ]
}

fn concurrency() -> Vec<Case> {
    // The limit is 100; bodies that never end keep the streams open.
    let streams: Vec<Vec<u8>> = (0..101).map(|number| post(2 * number + 1)).collect();
    vec![case(
        "5.1.2/1 one stream more than allowed",
        &streams,
        Expect::Stream(&[PROTOCOL_ERROR, REFUSED_STREAM]),
    )]
}

fn dependencies() -> Vec<Case> {
    let whole = block(&request("GET", &[]));
    let payload = [&[0, 0, 0, 1, 255][..], &whole].concat();
    let flags = END_STREAM | END_HEADERS | WITH_PRIORITY;
    vec![
        case(
            "5.3.1/1 HEADERS that depend on themselves",
            &[frame(HEADERS, flags, 1, &payload)],
            MALFORMED,
        ),
        case(
            "5.3.1/2 PRIORITY that depends on itself",
            &[post(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 255])],
            MALFORMED,
        ),
    ]
}

fn messages() -> Vec<Case> {
    let with = |more: &[(&str, &str)]| headers(1, true, &request("GET", more));
    let list = |fields: &[(&str, &str)]| headers(1, true, fields);
    let post_with = |more: &[(&str, &str)]| headers(1, false, &request("POST", more));
    let usual = request("GET", &[]);
    let without = |name: &str| -> Vec<u8> {
        let rest: Vec<_> = usual
            .iter()
            .copied()
            .filter(|field| field.0 != name)
            .collect();
        headers(1, true, &rest)
    };
    vec![
        case(
            "8.1/1 a second HEADERS without END_STREAM",
            &[post_with(&[]), headers(1, false, &[("x", "y")])],
            MALFORMED,
        ),
        case(
            "8.1.2/1 upper case in a name",
            &[with(&[("X-TEST", "ok")])],
            MALFORMED,
        ),
        case(
            "8.1.2.1/1 unknown pseudo-header",
            &[with(&[(":test", "ok")])],
            MALFORMED,
        ),
        case(
            "8.1.2.1/2 pseudo-header of responses",
            &[with(&[(":status", "200")])],
            MALFORMED,
        ),
        case(
            "8.1.2.1/3 pseudo-header in trailers",
            &[
                post_with(&[]),
                frame(DATA, 0, 1, b"test"),
                list(&[(":method", "POST")]),
            ],
            MALFORMED,
        ),
        case(
            "8.1.2.1/4 pseudo-header after a field",
            &[list(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                ("x", "y"),
                (":path", "/"),
            ])],
            MALFORMED,
        ),
        case(
            "8.1.2.2/1 connection",
            &[with(&[("connection", "keep-alive")])],
            MALFORMED,
        ),
        case(
            "8.1.2.2/2 te with something else than trailers",
            &[with(&[("trailers", "test"), ("te", "trailers, deflate")])],
            MALFORMED,
        ),
        case(
            "8.1.2.3/1 empty :path",
            &[list(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", ""),
            ])],
            MALFORMED,
        ),
        case("8.1.2.3/2 no :method", &[without(":method")], MALFORMED),
        case("8.1.2.3/3 no :scheme", &[without(":scheme")], MALFORMED),
        case("8.1.2.3/4 no :path", &[without(":path")], MALFORMED),
        case(
            "8.1.2.3/5 two :method",
            &[with(&[(":method", "GET")])],
            MALFORMED,
        ),
        case(
            "8.1.2.3/6 two :scheme",
            &[with(&[(":scheme", "http")])],
            MALFORMED,
        ),
        case("8.1.2.3/7 two :path", &[with(&[(":path", "/")])], MALFORMED),
        case(
            "8.1.2.6/1 content-length unequal to DATA",
            &[post_with(&[("content-length", "1")]), data(1)],
            MALFORMED,
        ),
        case(
            "8.1.2.6/2 content-length unequal to several DATA",
            &[
                post_with(&[("content-length", "1")]),
                frame(DATA, 0, 1, b"test"),
                data(1),
            ],
            MALFORMED,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_pass_through_their_states() {
    let (mut cases, more) = (states(), [concurrency(), dependencies(), messages()]);
    cases.extend(more.into_iter().flatten());
    play(cases).await;
}
