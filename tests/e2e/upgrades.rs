//! Upgrades: only a clean WebSocket handshake becomes a tunnel, and only after the origin has agreed.

use crate::support::wire::{After, Edge, OK, RawOrigin, status};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn handshake(lines: &str) -> String {
    format!("GET /ws HTTP/1.1\r\nHost: a\r\n{KEY}{lines}\r\n")
}

const CLEAN: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

/// What would be answered as a request of its own if the connection were still in HTTP mode.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_answer_but_101_leaves_the_connection_in_http() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let before = origin.requests().len();
        origin.answer_in_turn(vec![
            (answer.as_bytes().to_vec(), After::Stay),
            (OK.to_vec(), After::Stay),
        ]);
        let mut wire = edge.plain().await;
        // Sent ahead: bytes that a tunnel would pass on raw.
        wire.write(handshake(CLEAN).as_bytes()).await;
        wire.write(NEXT).await;
        let seen = wire.rest().await.unwrap();
        assert_eq!(
            seen.matches("HTTP/1.1 ").count(),
            2,
            "{answer:?} gave {seen:?}"
        );
        assert!(
            !seen.to_lowercase().contains("upgrade: websocket"),
            "{seen:?}"
        );
        let requests = origin.requests().split_off(before);
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert!(requests[1].contains("via: 1.1 switchback"), "{requests:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agreement_that_is_none_is_502() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n",
    ] {
        origin.answer(answer.as_bytes(), After::Stay);
        let mut wire = edge.plain().await;
        wire.write(handshake(CLEAN).as_bytes()).await;
        let seen = wire.until("\r\n\r\n").await;
        assert_eq!(status(&seen), "502", "{answer:?} gave {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_no_clean_handshake_is_an_ordinary_request_or_refused() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for (lines, wanted) in [
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "200"),
        (
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nSec-WebSocket-Version: 13\r\n",
            "200",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\n",
            "200",
        ),
        ("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "200"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket/13\r\nSec-WebSocket-Version: 13\r\n",
            "200",
        ),
        (
            "Connection: keep-alive\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "200",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n",
            "400",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n",
            "400",
        ),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "400"),
    ] {
        let before = origin.requests().len();
        let mut wire = edge.plain().await;
        wire.write(handshake(lines).as_bytes()).await;
        let seen = wire.until("\r\n\r\n").await;
        assert_eq!(status(&seen), wanted, "{lines:?} gave {seen:?}");
        let seen = origin.requests().split_off(before).concat().to_lowercase();
        assert!(
            !seen.contains("\r\nupgrade:") && !seen.contains("\r\nconnection:"),
            "{lines:?} gave {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_wait_for_the_agreement_and_then_pass_raw() {
    let agreement = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\nX-Kept: 1\r\n\r\nhello";
    let origin = RawOrigin::answering(agreement.as_bytes(), After::Stay).await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wire = edge.plain().await;
    wire.write(handshake(CLEAN).as_bytes()).await;
    let seen = wire.until("hello").await.to_lowercase();
    assert!(
        seen.starts_with("http/1.1 101") && seen.contains("x-kept: 1"),
        "{seen}"
    );
    assert_eq!(seen.matches("upgrade: websocket").count(), 1, "{seen}");
    wire.write(b"\x81\x85\0\0\0\0howdy").await;
    drop(wire);
    crate::support::eventually("the bytes arrive raw", || origin.requests().len() == 2);
    let requests = origin.requests();
    assert!(
        requests[0].contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{requests:?}"
    );
    // After its close frame the client's bytes are as they were.
    assert!(
        requests[1].starts_with("\u{81}\u{85}\0\0\0\0howdy"),
        "{requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_tunnel_is_closed_on_both_sides() {
    let agreement =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let origin = RawOrigin::answering(agreement.as_bytes(), After::Stay).await;
    let edge = Edge::start(
        &origin.url(),
        "limits: {tunnel_idle_timeout: 200ms}",
        "",
        "",
    );
    let mut wire = edge.plain().await;
    wire.write(handshake(CLEAN).as_bytes()).await;
    assert!(wire.rest().await.unwrap().starts_with("HTTP/1.1 101"));
    crate::support::eventually("the origin's side is closed", || {
        origin.requests().len() == 2
    });
    assert_eq!(edge.hits("tunnel_idle_timeout").await, 1);
}
