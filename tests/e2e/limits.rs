//! Every limit at its value and one beyond it, and the number of hits in the metrics.
//!
//! What clients send: heads, bodies, connections. Floods are in `floods`, timeouts and what endpoints send
//! in `limits_of_time`.

use crate::support::frames::{
    DATA, END_STREAM, GOAWAY, H2, HEADERS, NO_ERROR, REFUSED_STREAM, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, get, headers, request,
};
use crate::support::wire::{After, Edge, OK, RawOrigin, Wire, status};
use crate::support::{eventually, eventually_async};

const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const KEEPING: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn h1(edge: &Edge, text: &str) -> String {
    let mut wire = edge.plain().await;
    wire.write(text.as_bytes()).await;
    let answer = wire.until("\r\n\r\n").await;
    status(&answer).to_owned()
}

async fn h2(edge: &Edge, fields: &[(&str, &str)]) -> Result<u16, String> {
    let mut client = H2::start(edge.plain().await, &[]).await;
    client.send(&headers(1, true, fields)).await;
    client.answer(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_limited_in_every_dimension() {
    let origin = RawOrigin::start().await;
    let listener = "limits: {request_header_bytes: 2KiB, request_header_line_bytes: 1KiB, request_header_count: 10, uri_bytes: 512B}";
    let edge = Edge::start(&origin.url(), "", listener, "");
    let frame_of = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let fill = |bytes: usize| {
        let rest = bytes - frame_of("a: \r\nb: \r\n").len();
        let (a, b) = ("x".repeat(rest / 2), "y".repeat(rest - rest / 2));
        frame_of(&format!("a: {a}\r\nb: {b}\r\n"))
    };
    let line = |bytes: usize| frame_of(&format!("x: {}\r\n", "y".repeat(bytes - 5)));
    let count = |count: usize| frame_of(&"x: y\r\n".repeat(count - 1));
    let uri = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(bytes - 1));
    for (limit, at, beyond, wanted) in [
        ("request_header_bytes", fill(2048), fill(2049), "431"),
        ("request_header_line_bytes", line(1024), line(1025), "431"),
        ("request_header_count", count(10), count(11), "431"),
        ("uri_bytes", uri(512), uri(513), "414"),
    ] {
        assert_eq!(h1(&edge, &at).await, "200", "{limit}");
        assert_eq!(edge.hits(limit).await, 0, "{limit}");
        assert_eq!(h1(&edge, &beyond).await, wanted, "{limit}");
        assert_eq!(edge.hits(limit).await, 1, "{limit}");
    }
    let (at, beyond) = ("y".repeat(1024 - 5), "y".repeat(1025 - 5));
    assert_eq!(h2(&edge, &request("GET", &[("x", &at)])).await, Ok(200));
    assert_eq!(h2(&edge, &request("GET", &[("x", &beyond)])).await, Ok(431));
    assert_eq!(h2(&edge, &request("GET", &[("x", "y"); 10])).await, Ok(200));
    assert_eq!(h2(&edge, &request("GET", &[("x", "y"); 11])).await, Ok(431));
    let path = |bytes: usize| format!("/{}", "u".repeat(bytes - 1));
    for (bytes, wanted) in [(512, 200), (513, 414)] {
        let (mut fields, path) = (request("GET", &[]), path(bytes));
        fields[2] = (":path", &path);
        assert_eq!(h2(&edge, &fields).await, Ok(wanted));
    }
    for limit in [
        "request_header_line_bytes",
        "request_header_count",
        "uri_bytes",
    ] {
        assert_eq!(edge.hits(limit).await, 2, "{limit}");
    }
    assert_eq!(origin.requests().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_bodies_are_limited_over_both_protocols() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "limits: {request_body_bytes: 1KiB}");
    for (bytes, wanted) in [(1024, 200), (1025, 413)] {
        let body = "x".repeat(bytes);
        let text = wanted.to_string();
        let announced =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}");
        assert_eq!(h1(&edge, &announced).await, text);
        let chunked = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{bytes:x}\r\n{body}\r\n0\r\n\r\n"
        );
        assert_eq!(h1(&edge, &chunked).await, text);
        let length = bytes.to_string();
        for fields in [
            request("POST", &[("content-length", &length)]),
            request("POST", &[]),
        ] {
            let mut client = H2::start(edge.plain().await, &[]).await;
            client.send(&headers(1, false, &fields)).await;
            client
                .send(&frame(DATA, END_STREAM, 1, body.as_bytes()))
                .await;
            assert_eq!(client.answer(1).await, Ok(wanted));
        }
    }
    assert_eq!(edge.hits("request_body_bytes").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_serves_so_many_requests_and_then_ends_in_order() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(
        &origin.url(),
        "limits: {requests_per_connection: 3}",
        "",
        "",
    );
    let mut wire = edge.plain().await;
    for number in 1..=3 {
        wire.write(KEEPING).await;
        let answer = wire.until("ok").await.to_lowercase();
        assert_eq!(
            answer.contains("connection: close"),
            number == 3,
            "{answer}"
        );
    }
    assert_eq!(wire.rest().await.as_deref(), Some(""));
    assert_eq!(edge.hits("requests_per_connection").await, 1);
    let mut client = H2::start(edge.plain().await, &[]).await;
    for stream in [1, 3, 5] {
        client.send(&get(stream)).await;
        assert_eq!(client.answer(stream).await, Ok(200));
    }
    assert_eq!(client.until_closed().await, Some(NO_ERROR));
    assert_eq!(edge.hits("requests_per_connection").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2_connection_begins_so_many_streams_and_then_ends_in_order() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(
        &origin.url(),
        "limits: {h2_streams_per_connection: 3}",
        "",
        "",
    );
    let mut client = H2::start(edge.plain().await, &[]).await;
    for stream in [1, 3] {
        client.send(&get(stream)).await;
        assert_eq!(client.answer(stream).await, Ok(200));
    }
    assert_eq!(
        (client.goaway, edge.hits("h2_streams_per_connection").await),
        (None, 0)
    );
    client.send(&get(5)).await;
    assert_eq!(client.answer(5).await, Ok(200));
    assert_eq!(client.until_closed().await, Some(NO_ERROR));
    assert_eq!(edge.hits("h2_streams_per_connection").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_at_a_time_are_limited() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "limits: {h2_streams: 2}", "", "");
    let mut client = H2::start(edge.plain().await, &[]).await;
    for stream in [1, 3] {
        client
            .send(&headers(stream, false, &request("POST", &[])))
            .await;
    }
    client.send(&get(5)).await;
    let refused = loop {
        let frame = client.frame().await.expect("the connection goes on");
        if frame.kind == RST_STREAM {
            break (frame.stream, frame.code());
        }
    };
    assert_eq!(refused, (5, REFUSED_STREAM));
    client.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(client.answer(1).await, Ok(200));
    client.send(&get(7)).await;
    assert_eq!(client.answer(7).await, Ok(200));
    assert_eq!(edge.hits("h2_streams").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_frames_and_tables_are_announced_as_configured() {
    let origin = RawOrigin::start().await;
    let listener = "limits: {h2_streams: 7, h2_stream_window: 32KiB, h2_connection_window: 128KiB, h2_frame_bytes: 32KiB, h2_header_table_bytes: 2KiB, request_header_bytes: 8KiB}";
    for (listener, wanted) in [
        (
            listener,
            [2 << 10, 7, 32 << 10, 32 << 10, 8 << 10, 128 << 10],
        ),
        ("", [4 << 10, 100, 64 << 10, 16 << 10, 64 << 10, 1 << 20]),
    ] {
        let edge = Edge::start(&origin.url(), "", listener, "");
        let mut wire = edge.plain().await;
        wire.write(
            &[
                crate::support::frames::PREFACE,
                &crate::support::frames::settings(&[]),
            ]
            .concat(),
        )
        .await;
        let mut client = H2::over(wire);
        // What RFC 9113 has when nothing is said.
        let mut found = [4 << 10, u32::MAX, 65_535, 16 << 10, u32::MAX, 65_535];
        let mut seen = (false, false);
        while seen != (true, true) {
            let frame = client.frame().await.expect("settings and a window");
            if frame.kind == SETTINGS && !frame.payload.is_empty() {
                for setting in frame.payload.chunks(6) {
                    let id = u16::from_be_bytes([setting[0], setting[1]]);
                    let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
                    let place = match id {
                        1 => 0,
                        3 => 1,
                        4 => 2,
                        5 => 3,
                        6 => 4,
                        _ => continue,
                    };
                    found[place] = value;
                }
                seen.0 = true;
            } else if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
                found[5] += u32::from_be_bytes(frame.payload[..].try_into().unwrap());
                seen.1 = true;
            }
        }
        assert_eq!(found, wanted, "{listener}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_so_many_connections() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "limits: {connections_per_client: 3}", "", "");
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(served(&edge).await);
    }
    let mut fourth = edge.plain().await;
    fourth.write(KEEPING).await;
    assert_eq!(fourth.rest().await.as_deref(), Some(""));
    assert_eq!(edge.hits("connections_per_client").await, 1);
    drop(wires.pop());
    eventually_async("the place is free again", || edge.serves()).await;
}

/// A connection that has been served once and stays open.
async fn served(edge: &Edge) -> Wire {
    let mut wire = edge.plain().await;
    wire.write(KEEPING).await;
    assert_eq!(status(&wire.until("ok").await), "200");
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_at_the_limit_and_busy_ones_do_not() {
    let origin = RawOrigin::start().await;
    // One worker, so that it is certain who holds what.
    let edge = Edge::start(
        &origin.url(),
        "workers: 1\nlimits: {connections: 4}",
        "",
        "",
    );
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(served(&edge).await);
    }
    assert_eq!(edge.hits("connections").await, 0);
    // Two more find room, since two idle ones go.
    idle.extend([served(&edge).await, served(&edge).await]);
    assert!(edge.hits("connections").await >= 1);
    let mut closed = 0;
    for mut wire in idle {
        wire.write(CLOSING).await;
        closed += usize::from(wire.rest().await.as_deref() == Some(""));
    }
    assert_eq!(closed, 2);
    // Now everyone is busy: a fifth waits until one of them has finished.
    origin.answer(b"", After::Stay);
    let mut busy = Vec::new();
    let asked = origin.requests().len();
    for number in 1..=4 {
        let mut wire = edge.plain().await;
        wire.write(KEEPING).await;
        eventually("the origin is asked", || {
            origin.requests().len() == asked + number
        });
        busy.push(wire);
    }
    let hits = edge.hits("connections").await;
    origin.answer(OK, After::Stay);
    let mut fifth = edge.plain().await;
    fifth.write(CLOSING).await;
    eventually_async("accepting pauses", || async {
        edge.hits("connections").await > hits
    })
    .await;
    assert_eq!(origin.requests().len(), asked + 4);
    drop(busy.pop());
    assert_eq!(status(&fifth.rest().await.unwrap()), "200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_connections_their_queue_and_its_patience_are_limited() {
    let origin = RawOrigin::answering(b"", After::Stay).await;
    let service =
        "limits: {upstream_connections: 1, upstream_queue: 1, upstream_queue_timeout: 2s}";
    let edge = Edge::start(&origin.url(), "workers: 1", "", service);
    let ask = async || {
        let mut wire = edge.plain().await;
        wire.write(CLOSING).await;
        wire
    };
    let mut first = ask().await;
    eventually("the first is at the origin", || {
        origin.requests().len() == 1
    });
    let mut second = ask().await;
    eventually_async("the second waits", || async {
        edge.hits("upstream_connections").await == 1
    })
    .await;
    let refused = ask().await.rest().await.unwrap().to_lowercase();
    assert!(
        refused.starts_with("http/1.1 503") && refused.contains("retry-after: 1"),
        "{refused}"
    );
    assert_eq!(edge.hits("upstream_queue").await, 1);
    let late = second.rest().await.unwrap();
    assert_eq!(status(&late), "503");
    assert_eq!(edge.hits("upstream_queue_timeout").await, 1);
    assert_eq!(origin.requests().len(), 1);
    first.write(b"").await;
    drop(first);
    origin.answer(OK, After::Stay);
    eventually_async("the next one is served", || edge.serves()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_end_of_an_h2_connection_lets_its_streams_finish() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(
        &origin.url(),
        "limits: {h2_streams_per_connection: 2}",
        "",
        "",
    );
    let mut client = H2::start(edge.plain().await, &[]).await;
    client.send(&headers(1, false, &request("POST", &[]))).await;
    client.send(&get(3)).await;
    loop {
        let frame = client.frame().await.expect("a GOAWAY");
        if frame.kind == GOAWAY {
            assert_eq!(frame.code(), NO_ERROR);
            break;
        }
        assert_ne!(frame.kind, RST_STREAM);
        assert!(frame.kind != HEADERS || frame.stream == 3);
    }
    client.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(client.answer(1).await, Ok(200));
}
