//! Requests over HTTP/2 that must never become requests over HTTP/1: refused by resetting the stream, and
//! the connection goes on. In plain text and over TLS.

use futures_util::future::join_all;

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Expect, H2, HEADERS, NO_ERROR, PROTOCOL_ERROR,
    Step, block, frame, headers, request,
};
use crate::support::wire::{Edge, RawOrigin, none_wrong};

const MALFORMED: Expect = Expect::Stream(&[PROTOCOL_ERROR]);

type Fields = Vec<(&'static str, &'static str)>;

/// The usual pseudo-header fields, one of them replaced, left out (value `-`) or added.
fn pseudo(name: &'static str, value: &'static str) -> Fields {
    let usual = request("GET", &[]);
    if !usual.iter().any(|(usual, _)| *usual == name) {
        return [usual, vec![(name, value)]].concat();
    }
    let replaced = usual
        .into_iter()
        .map(|(old, was)| (old, if old == name { value } else { was }));
    replaced.filter(|(_, value)| *value != "-").collect()
}

fn with(name: &'static str, value: &'static str) -> Fields {
    request("GET", &[(name, value)])
}

/// Header lists and what they lead to.
fn lists() -> Vec<(Fields, Expect)> {
    let mut cases: Vec<(Fields, Expect)> = Vec::new();
    for (name, value) in [
        ("X", "y"),
        ("x-Y", "z"),
        ("x y", "z"),
        ("x:y", "z"),
        ("x\u{0}", "y"),
        ("x\r\n", "y"),
        ("x\u{7f}", "y"),
        ("", "y"),
        ("x(y)", "z"),
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("x", "a\r\nhost: evil"),
        ("x", "a\u{0}b"),
        ("x", " y"),
        ("x", "y "),
        ("x", "\ty"),
        ("x", "y\t"),
        ("connection", "close"),
        ("connection", "x"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("content-length", "1"),
        ("content-length", "-1"),
        ("content-length", "+0"),
        ("content-length", "0x0"),
        ("content-length", ""),
        ("content-length", "0, 0"),
        ("host", "b.test"),
        ("host", "a.test, b.test"),
        (":method", "POST"),
        (":path", "/other"),
        (":status", "200"),
        (":unknown", "x"),
        (":Method", "GET"),
        (":protocol", "websocket"),
    ] {
        cases.push((with(name, value), MALFORMED));
    }
    for (name, value) in [
        (":method", "-"),
        (":scheme", "-"),
        (":path", "-"),
        (":method", ""),
        (":scheme", ""),
        (":path", ""),
        (":method", "G T"),
        (":method", "GET\r\nx: y"),
        (":method", "GET /evil HTTP/1.1\r\nhost: a\r\n\r\n"),
        (":path", "no-slash"),
        (":path", "*"),
        (":path", "/ HTTP/1.1\r\nx: y"),
        (":path", "/a b"),
        (":path", "/a\tb"),
        (":path", "/a\u{0}b"),
        (":path", "/a\u{7f}b"),
        (":path", "/a\r\nb"),
        (":path", "/\u{e9}"),
        (":path", "http://a.test/"),
        (":path", "?x"),
        (":scheme", "ftp"),
        (":scheme", "x"),
        (":scheme", "http\r\nx"),
        (":scheme", "http://a.test/?"),
        (":authority", "-"),
        (":authority", ""),
        (":authority", "a b"),
        (":authority", "a/b"),
        (":authority", "u@a"),
        (":authority", "u:p@a"),
        (":authority", "a?b"),
        (":authority", "a#b"),
        (":authority", "a:b"),
        (":authority", "a:65536"),
        (":authority", "a\r\nx: y"),
        (":authority", "[::1"),
        (":authority", "a, b"),
        (":authority", "a%00"),
        (":status", "200"),
    ] {
        cases.push((pseudo(name, value), MALFORMED));
    }
    let late = vec![
        (":method", "GET"),
        (":scheme", "http"),
        ("x", "y"),
        (":path", "/"),
        (":authority", "a.test"),
    ];
    cases.push((late, MALFORMED));
    let hosts = request("GET", &[("host", "a.test"), ("host", "a.test")]);
    cases.push((hosts, MALFORMED));
    let lengths = request("GET", &[("content-length", "0"), ("content-length", "1")]);
    cases.push((lengths, MALFORMED));
    cases
}

/// Lists that are fine.
fn good_lists() -> Vec<Fields> {
    let mut good = vec![
        with("te", "trailers"),
        with("host", "a.test"),
        with("host", "A.TEST"),
        with("content-length", "0"),
        with("x", ""),
        with("x", "\u{e9}"),
        with("x", "a\tb"),
        pseudo(":scheme", "https"),
        pseudo(":path", "/?"),
        pseudo(":path", "/a//b/../c?d=e%20f"),
        pseudo(":authority", "[::1]:80"),
        pseudo(":method", "PURGE"),
    ];
    let mut no_authority = pseudo(":authority", "-");
    no_authority.push(("host", "a.test"));
    good.push(no_authority);
    let mut options = request("OPTIONS", &[]);
    options[2] = (":path", "*");
    good.push(options);
    good
}

async fn run(edge: &Edge, cases: Vec<(String, Vec<Step>, Expect)>) {
    let mut wrong: Vec<String> = Vec::new();
    for some in cases.chunks(8) {
        for secure in [false, true] {
            let played = some.iter().map(|(name, steps, expect)| async move {
                let wire = if secure {
                    edge.secure(true).await
                } else {
                    edge.plain().await
                };
                let mut client = H2::start(wire, &[]).await;
                let played = client.play(steps, *expect).await;
                played.err().map(|error| format!("{name}: {error}"))
            });
            wrong.extend(join_all(played).await.into_iter().flatten());
        }
    }
    none_wrong(cases.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_h2_requests_reset_their_stream_and_are_never_forwarded() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let cases = lists().into_iter().map(|(fields, expect)| {
        let name = format!("{:?}", &fields);
        (name, vec![Step::Send(headers(1, true, &fields))], expect)
    });
    run(&edge, cases.collect()).await;
    assert_eq!(origin.requests(), Vec::<String>::new());
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_but_valid_h2_requests_are_served() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let cases = good_lists().into_iter().map(|fields| {
        let name = format!("{:?}", &fields);
        let steps = vec![Step::Send(headers(1, true, &fields))];
        (name, steps, Expect::Status(200))
    });
    run(&edge, cases.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_over_h2_is_refused() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let connect = [(":method", "CONNECT"), (":authority", "a.test:443")];
    let cases = vec![(
        "connect".to_owned(),
        vec![Step::Send(headers(1, false, &connect))],
        Expect::Status(405),
    )];
    run(&edge, cases).await;
    assert_eq!(origin.requests(), Vec::<String>::new());
}

/// Bodies that contradict what was announced, and trailers that must not be.
fn bodies() -> Vec<(String, Vec<Step>, Expect)> {
    let post = |more: &[(&str, &str)]| headers(1, false, &request("POST", more));
    let data = |flags: u8, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = |fields: &[(&str, &str)]| headers(1, true, fields);
    let mut cases = Vec::new();
    let mut case = |name: &str, bytes: Vec<Vec<u8>>| {
        cases.push((name.to_owned(), vec![Step::Send(bytes.concat())], MALFORMED));
    };
    case(
        "less than announced",
        vec![post(&[("content-length", "3")]), data(END_STREAM, b"ab")],
    );
    case(
        "more than announced",
        vec![post(&[("content-length", "1")]), data(END_STREAM, b"ab")],
    );
    case(
        "more in pieces",
        vec![
            post(&[("content-length", "3")]),
            data(0, b"ab"),
            data(END_STREAM, b"cd"),
        ],
    );
    case(
        "something where nothing was announced",
        vec![post(&[("content-length", "0")]), data(END_STREAM, b"a")],
    );
    case(
        "nothing where something was announced",
        vec![post(&[("content-length", "1")]), data(END_STREAM, b"")],
    );
    case(
        "trailers before all has come",
        vec![
            post(&[("content-length", "3")]),
            data(0, b"a"),
            trailers(&[("x", "y")]),
        ],
    );
    case(
        "pseudo-header in trailers",
        vec![post(&[]), data(0, b"a"), trailers(&[(":path", "/evil")])],
    );
    case(
        "status in trailers",
        vec![post(&[]), data(0, b"a"), trailers(&[(":status", "200")])],
    );
    case(
        "upper case in trailers",
        vec![post(&[]), data(0, b"a"), trailers(&[("X", "y")])],
    );
    case(
        "line end in trailers",
        vec![post(&[]), data(0, b"a"), trailers(&[("x", "y\r\nz: w")])],
    );
    case(
        "connection in trailers",
        vec![post(&[]), data(0, b"a"), trailers(&[("connection", "x")])],
    );
    case(
        "transfer-encoding in trailers",
        vec![
            post(&[]),
            data(0, b"a"),
            trailers(&[("transfer-encoding", "chunked")]),
        ],
    );
    case(
        "a second head that ends nothing",
        vec![post(&[]), data(0, b"a"), headers(1, false, &[("x", "y")])],
    );
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_contradict_their_heads_never_reach_an_origin_complete() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    run(&edge, bodies()).await;
    // A request without its end may have begun there, but none was answered as complete.
    for request in origin.requests() {
        assert!(!request.ends_with("0\r\n\r\n"), "{request:?}");
    }
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_h2_reach_the_origin_without_what_must_not_come_late() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut client = H2::start(edge.plain().await, &[]).await;
    let block = block(&[("x-sum", "1"), ("content-length", "9"), ("host", "evil")]);
    let bytes = [
        headers(1, false, &request("POST", &[])),
        frame(DATA, 0, 1, b"abc"),
        frame(HEADERS, END_STREAM, 1, &block[..3]),
        frame(CONTINUATION, END_HEADERS, 1, &block[3..]),
    ];
    client.send(&bytes.concat()).await;
    assert_eq!(client.answer(1).await, Ok(200));
    let seen = origin.requests().concat();
    assert!(
        seen.ends_with("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_after_a_refused_one_is_served() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut client = H2::start(edge.plain().await, &[]).await;
    client.send(&headers(1, true, &with("x", " y"))).await;
    assert_eq!(
        client.answer(1).await,
        Err(format!("reset with {PROTOCOL_ERROR}"))
    );
    client.send(&headers(3, true, &request("GET", &[]))).await;
    assert_eq!(client.answer(3).await, Ok(200));
    client.send(&headers(5, false, &request("POST", &[]))).await;
    client.send(&frame(DATA, END_STREAM, 5, b"abc")).await;
    assert_eq!(client.answer(5).await, Ok(200));
    assert_eq!(
        client.goaway, None,
        "nothing is wrong with the connection: {NO_ERROR}"
    );
}
