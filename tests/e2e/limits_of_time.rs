//! Timeouts, and the limits of what endpoints send: at their value, one beyond it, and in the metrics.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::eventually_async;
use crate::support::frames::{DATA, H2, NO_ERROR, get, headers, request};
use crate::support::wire::{After, Edge, RawOrigin, status};

const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_heads_are_limited_by_size_and_count() {
    let origin = RawOrigin::start().await;
    let service = "limits: {response_header_bytes: 1KiB, response_header_count: 10}";
    let edge = Edge::start(&origin.url(), "", "", service);
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\n");
    let sized = |bytes: usize| {
        head(&format!(
            "x: {}\r\n",
            "y".repeat(bytes - head("x: \r\n").len())
        ))
    };
    let counted = |count: usize| head(&"x: y\r\n".repeat(count - 1));
    for (limit, at, beyond) in [
        ("response_header_bytes", sized(1024), sized(1025)),
        ("response_header_count", counted(10), counted(11)),
    ] {
        for (answer, wanted, hits) in [(at, "200", 0), (beyond, "502", 1)] {
            origin.answer(format!("{answer}ok").as_bytes(), After::Stay);
            let mut wire = edge.plain().await;
            wire.write(CLOSING).await;
            assert_eq!(status(&wire.rest().await.unwrap()), wanted, "{limit}");
            assert_eq!(edge.hits(limit).await, hits, "{limit}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_too_long_are_told_or_closed() {
    let origin = RawOrigin::start().await;
    let limits = "limits: {header_read_timeout: 200ms, tls_handshake_timeout: 200ms, request_body_idle_timeout: 200ms, keep_alive_timeout: 300ms}";
    let edge = Edge::start(&origin.url(), limits, "", "");
    let mut silent = edge.plain().await;
    assert_eq!(
        silent.rest().await.as_deref(),
        Some(""),
        "no byte, no answer"
    );
    let mut slow = edge.plain().await;
    slow.write(b"GET / HTTP/1.1\r\nHo").await;
    assert_eq!(status(&slow.rest().await.unwrap()), "408");
    let mut half_preface = edge.plain().await;
    half_preface.write(b"PRI * HTTP/2.0\r\n").await;
    half_preface.rest().await.expect("closed");
    assert!(edge.hits("header_read_timeout").await >= 2);
    let mut idle = edge.plain().await;
    idle.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        idle.rest().await.unwrap().ends_with("ok"),
        "served, then closed"
    );
    let mut client = H2::start(edge.plain().await, &[]).await;
    assert_eq!(client.until_closed().await, Some(NO_ERROR));
    assert_eq!(edge.hits("keep_alive_timeout").await, 2);
    let mut upload = edge.plain().await;
    upload
        .write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        .await;
    assert_eq!(status(&upload.rest().await.unwrap()), "408");
    let mut client = H2::start(edge.plain().await, &[]).await;
    client.send(&headers(1, false, &request("POST", &[]))).await;
    client
        .send(&crate::support::frames::frame(DATA, 0, 1, b"ab"))
        .await;
    assert_eq!(client.answer(1).await, Ok(408));
    assert_eq!(edge.hits("request_body_idle_timeout").await, 2);
    let stream = tokio::net::TcpStream::connect(edge.proxy.listener("secure"))
        .await
        .unwrap();
    let mut unshaken = crate::support::wire::Wire(Box::new(stream));
    unshaken.rest().await.expect("closed without a handshake");
    eventually_async("it is counted", || async {
        edge.hits("tls_handshake_timeout").await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_take_too_long_are_given_up() {
    let origin = RawOrigin::start().await;
    let service = "limits: {upstream_response_timeout: 200ms, upstream_body_idle_timeout: 200ms}";
    let edge = Edge::start(&origin.url(), "", "", service);
    origin.answer(b"", After::Stay);
    let mut wire = edge.plain().await;
    wire.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        .await;
    assert_eq!(status(&wire.rest().await.unwrap()), "504");
    assert_eq!(origin.requests().len(), 1, "sent once");
    assert_eq!(edge.hits("upstream_response_timeout").await, 1);
    origin.answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome",
        After::Stay,
    );
    let mut wire = edge.plain().await;
    wire.write(CLOSING).await;
    let seen = wire.rest().await.expect("cut");
    assert!(seen.ends_with("some") || seen.is_empty(), "{seen}");
    assert_eq!(edge.hits("upstream_body_idle_timeout").await, 1);
    let mut client = H2::start(edge.plain().await, &[]).await;
    client.send(&get(1)).await;
    assert!(client.answer(1).await.unwrap_err().starts_with("reset"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_that_drip_for_longer_than_five_seconds_end_in_502() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    // Slow enough that their number is not what ends it.
    let origin = tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await.unwrap();
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
        let (mut head, mut sent) = ([0; 4096], 0);
        assert_ne!(stream.read(&mut head).await.unwrap(), 0);
        loop {
            ticks.tick().await;
            let hint = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await;
            if hint.is_err() || stream.try_read(&mut head).is_ok_and(|read| read == 0) {
                return sent;
            }
            sent += 1;
        }
    });
    let edge = Edge::start(&url, "", "", "rescue: {enabled: false}");
    let mut wire = edge.plain().await;
    wire.write(CLOSING).await;
    let seen = wire.rest().await.unwrap();
    assert!(seen.contains("HTTP/1.1 502"), "{seen}");
    let passed = seen.matches("HTTP/1.1 103").count();
    assert!((1..16).contains(&passed), "{seen}");
    assert_eq!(edge.hits("informational_responses").await, 1);
    let sent = origin.await.unwrap();
    assert!(sent < 16, "{sent} hints until it was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_that_accepts_and_never_shakes_hands_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let edge = Edge::start(&url, "limits: {upstream_connect_timeout: 200ms}", "", "");
    let mut wire = edge.plain().await;
    wire.write(CLOSING).await;
    let answer = wire.rest().await.unwrap();
    assert!(matches!(status(&answer), "502" | "503" | "504"), "{answer}");
    assert!(edge.hits("upstream_connect_timeout").await >= 1);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_that_is_off_limits_nothing() {
    let origin = RawOrigin::start().await;
    let limits = "limits: {keep_alive_timeout: off, request_body_bytes: off, h2_resets: off, h2_control_frames: off, requests_per_connection: off}";
    let edge = Edge::start(&origin.url(), limits, "", "");
    let mut client = H2::start(edge.plain().await, &[]).await;
    for _ in 0..300 {
        let ping = crate::support::frames::frame(crate::support::frames::PING, 0, 0, &[0; 8]);
        client.send(&ping).await;
    }
    client.send(&get(1)).await;
    assert_eq!(client.answer(1).await, Ok(200));
    assert_eq!(edge.hits("h2_control_frames").await, 0);
}
