//! Clients that cost more than they should: they are sent away, and nobody else notices.
//!
//! Each HTTP/2 flood is played at its limit and one beyond it with small limits, then in full against the
//! defaults while others are being served, each of whose requests is answered in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::frames::{
    CONTINUATION, DATA, ENHANCE_YOUR_CALM, Expect, H2, HEADERS, PADDED, PING, PRIORITY, block,
    frame, get, headers, request, reset, settings,
};
use crate::support::wire::{Edge, RawOrigin};
use crate::support::{Load, Protocol, eventually_async};

/// The frames of one round of an attack.
type Round = fn(u32) -> Vec<u8>;

/// A name, the limit that answers it, and how many rounds that limit of 10 lets through.
const FLOODS: &[(&str, &str, u32, Round)] = &[
    ("rapid reset", "h2_resets", 10, |n| {
        [get(2 * n + 3), reset(2 * n + 3, 8)].concat()
    }),
    (
        "provoked reset by a malformed request",
        "h2_resets",
        10,
        |n| headers(2 * n + 3, true, &request("GET", &[("connection", "x")])),
    ),
    // More than five are refused in any case.
    ("continuations", "h2_continuations", 4, |n| {
        if n == 0 {
            frame(HEADERS, 0, 3, &block(&request("GET", &[])))
        } else {
            frame(CONTINUATION, 0, 3, &block(&[("x", "y")]))
        }
    }),
    ("empty continuations", "h2_continuations", 4, |n| {
        if n == 0 {
            frame(HEADERS, 0, 3, &block(&request("GET", &[])))
        } else {
            frame(CONTINUATION, 0, 3, &[])
        }
    }),
    ("empty data", "h2_empty_data", 10, |_| {
        frame(DATA, 0, 1, &[])
    }),
    ("padded empty data", "h2_empty_data", 10, |_| {
        frame(DATA, PADDED, 1, &[3, 0, 0, 0])
    }),
    // The settings of the beginning and their acknowledgement were two already.
    ("pings", "h2_control_frames", 8, |_| {
        frame(PING, 0, 0, &[0; 8])
    }),
    ("settings", "h2_control_frames", 8, |_| {
        settings(&[(4, 65_535)])
    }),
    ("empty settings", "h2_control_frames", 8, |_| settings(&[])),
    ("priorities", "h2_control_frames", 8, |_| {
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])
    }),
];

/// A connection with one open request, so that there is a stream to send to.
async fn attacker(edge: &Edge, secure: bool) -> H2 {
    let wire = if secure {
        edge.secure(true).await
    } else {
        edge.plain().await
    };
    let mut client = H2::start(wire, &[]).await;
    client.send(&headers(1, false, &request("POST", &[]))).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flood_is_let_through_up_to_its_limit_and_ended_one_beyond() {
    let origin = RawOrigin::start().await;
    let limits =
        "limits: {h2_resets: 10, h2_continuations: 4, h2_empty_data: 10, h2_control_frames: 10}";
    let edge = Edge::start(&origin.url(), limits, "", "");
    for (name, limit, allowed, round) in FLOODS {
        let first = u32::from(*limit == "h2_continuations");
        let before = edge.hits(limit).await;
        let mut client = attacker(&edge, false).await;
        for n in 0..allowed + first {
            client.send(&round(n)).await;
        }
        // What was sent up to here is fine: it has been read when this is answered.
        if *limit == "h2_resets" || *limit == "h2_empty_data" {
            let fine = client.play(&[], Expect::Fine).await;
            assert_eq!(fine, Ok(()), "{name}");
        }
        client.send(&round(allowed + first)).await;
        assert_eq!(
            client.until_closed().await,
            Some(ENHANCE_YOUR_CALM),
            "{name}"
        );
        assert_eq!(edge.hits(limit).await, before + 1, "{name}");
    }
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_five_continuations_are_refused_whatever_the_limit_and_counted_as_such() {
    let origin = RawOrigin::start().await;
    for limits in ["", "limits: {h2_continuations: off}"] {
        let edge = Edge::start(&origin.url(), limits, "", "");
        let mut client = attacker(&edge, false).await;
        client
            .send(&frame(HEADERS, 0, 3, &block(&request("GET", &[]))))
            .await;
        for _ in 0..6 {
            client
                .send(&frame(CONTINUATION, 0, 3, &block(&[("x", "y")])))
                .await;
        }
        assert_eq!(client.until_closed().await, Some(ENHANCE_YOUR_CALM));
        assert_eq!(edge.hits("h2_continuations").await, 1, "{limits}");
        assert_eq!(edge.hits("h2_resets").await, 0, "{limits}");
        assert!(edge.serves().await);
    }
}

/// Kilobytes of memory that the proxy occupies.
fn resident(edge: &Edge) -> u64 {
    kilobytes(edge, "VmRSS:")
}

fn kilobytes(edge: &Edge, field: &str) -> u64 {
    let path = format!("/proc/{}/status", edge.proxy.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let text = line.unwrap().trim().trim_end_matches("kB").trim();
    text.parse().unwrap()
}

/// Requires that the proxy has at no time since it occupied so many kilobytes, which it may by itself,
/// occupied many more.
fn assert_bounded(edge: &Edge, before: u64, what: &str) {
    let most = kilobytes(edge, "VmHWM:").saturating_sub(before);
    println!("{what}: {most} KiB more at most");
    assert!(most < GROWTH_KIB_MAX, "{what}: {most} KiB more");
}

/// Twenty stalled responses of 16 MiB, 320 MiB in all, in an unoptimised build.
const STALLED_KIB_MAX: u64 = 32 << 10;

/// Attacks of a connection that may cost the proxy memory: more than that is none's business.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// Whoever behaves is answered within this time whatever others do; on a machine that has nothing else to do,
/// within a hundredth of it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_ended_while_others_are_served() {
    let origin = RawOrigin::start().await;
    let edge = Arc::new(Edge::start(&origin.url(), "", "", ""));
    let before = resident(&edge);
    let load = [
        Load::start(edge.proxy.web, Protocol::Http1, 2),
        Load::start(edge.proxy.web, Protocol::Http2, 2),
    ];
    for (name, limit, _, round) in FLOODS {
        let hits = edge.hits(limit).await;
        for secure in [false, true] {
            let mut client = attacker(&edge, secure).await;
            let mut sent = 0;
            // Far more than is allowed, in one go; then one by one until nobody listens any more.
            let burst: Vec<u8> = (0..2_000).flat_map(round).collect();
            let mut open = client.try_send(&burst).await;
            while open && sent < 10_000 {
                open = client.try_send(&round(2_000 + sent)).await;
                sent += 1;
            }
            // The reason may be lost to the reset of a connection that still sends.
            let code = client.until_closed().await;
            assert!(
                code.is_none_or(|code| code == ENHANCE_YOUR_CALM),
                "{name}: {code:?}"
            );
        }
        assert_eq!(edge.hits(limit).await, hits + 2, "{name}");
    }
    for (load, protocol) in load.into_iter().zip(["HTTP/1", "HTTP/2"]) {
        let (done, p99) = load.finish_within(PATIENCE).await;
        println!("{done} requests over {protocol} during floods: 0 failed, 99 % within {p99:?}");
    }
    assert_bounded(&edge, before, "floods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_ended_while_others_are_served() {
    let origin = RawOrigin::start().await;
    let limits = "limits: {header_read_timeout: 300ms, request_body_idle_timeout: 300ms, keep_alive_timeout: 60s}";
    let edge = Edge::start(&origin.url(), limits, "", "");
    let before = resident(&edge);
    let load = Load::start(edge.proxy.web, Protocol::Http1, 2);
    let stop = Arc::new(AtomicBool::new(false));
    // Heads that never end, dripped.
    let mut drips = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut wire, stop) = (edge.plain().await, stop.clone());
        drips.spawn(async move {
            wire.write(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
            let (mut read, mut write) = tokio::io::split(wire.0);
            let drip = async {
                let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
                while !stop.load(SeqCst) {
                    ticks.tick().await;
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut write, b"x: y\r\n").await;
                }
            };
            let mut seen = Vec::new();
            let ended = async {
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut seen).await;
            };
            tokio::select! {
                () = drip => panic!("the dripping was stopped before the client was"),
                () = ended => {}
            }
            let text = String::from_utf8_lossy(&seen).into_owned();
            assert!(
                text.is_empty() || text.starts_with("HTTP/1.1 408"),
                "{text}"
            );
        });
    }
    let ended = async {
        while let Some(dripped) = drips.join_next().await {
            dripped.unwrap()
        }
    };
    tokio::time::timeout(crate::support::DEADLINE, ended)
        .await
        .expect("slow heads end");
    // Bodies that stop.
    let mut wires = Vec::new();
    for _ in 0..20 {
        let mut wire = edge.plain().await;
        wire.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
            .await;
        wires.push(wire);
    }
    for mut wire in wires {
        let seen = wire.rest().await.expect("the connection ends");
        assert!(seen.starts_with("HTTP/1.1 408"), "{seen}");
    }
    // Header blocks over HTTP/2 that never end.
    let mut client = H2::start(edge.plain().await, &[]).await;
    client
        .send(&frame(HEADERS, 0, 1, &block(&request("GET", &[]))))
        .await;
    assert_eq!(client.until_closed().await, Some(ENHANCE_YOUR_CALM));
    assert!(edge.hits("header_read_timeout").await > 50);
    assert_eq!(edge.hits("request_body_idle_timeout").await, 20);
    let (done, p99) = load.finish_within(PATIENCE).await;
    println!("{done} requests beside slow clients: 0 failed, 99 % within {p99:?}");
    assert_bounded(&edge, before, "slow clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_nothing_hold_little_and_are_ended() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
        16 << 20,
        "x".repeat(16 << 20)
    );
    let origin = RawOrigin::answering(large.as_bytes(), crate::support::wire::After::Stay).await;
    let edge = Edge::start(&origin.url(), "limits: {write_stall_timeout: 5s}", "", "");
    // What is there once stays there: code, buffers and tables of both protocols.
    origin.answer(crate::support::wire::OK, crate::support::wire::After::Stay);
    for _ in 0..20 {
        assert!(edge.serves().await);
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&get(1)).await;
        assert_eq!(client.answer(1).await, Ok(200));
    }
    origin.answer(large.as_bytes(), crate::support::wire::After::Stay);
    let before = resident(&edge);
    let mut stalled = Vec::new();
    for number in 0..20 {
        if number % 2 == 0 {
            let mut wire = edge.plain().await;
            wire.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            stalled.push(wire);
        } else {
            let mut client = H2::start(edge.plain().await, &[]).await;
            client.send(&get(1)).await;
            while client
                .frame()
                .await
                .is_some_and(|frame| frame.kind != HEADERS)
            {}
            stalled.push(client.into_wire());
        }
    }
    let grown = resident(&edge).saturating_sub(before);
    println!("slow readers: {grown} KiB more");
    assert!(
        grown < STALLED_KIB_MAX,
        "{grown} KiB more for 20 stalled responses of 16 MiB"
    );
    eventually_async("all of them are ended", || async {
        edge.hits("write_stall_timeout").await == 20
    })
    .await;
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_without_any_window_is_ended_by_the_limit_of_the_route() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(
        &origin.url(),
        "",
        "",
        "limits: {write_stall_timeout: 200ms}",
    );
    let mut client = H2::start(edge.plain().await, &[(4, 0)]).await;
    client.send(&get(1)).await;
    assert_eq!(client.until_closed().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(edge.hits("write_stall_timeout").await, 1);
    assert!(edge.serves().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_begun_and_reset_never_hold_more_upstream_than_streams_are_allowed() {
    // An origin that never answers: every request that gets there holds a connection until it is dropped.
    let origin = RawOrigin::answering(b"", crate::support::wire::After::Stay).await;
    let limits = "limits: {h2_resets: off, h2_streams: 20, upstream_connections: off}";
    let edge = Edge::start(&origin.url(), limits, "", "");
    let before = resident(&edge);
    let mut client = H2::start(edge.plain().await, &[]).await;
    for n in 0..500 {
        let stream = 2 * n + 1;
        client.send(&[get(stream), reset(stream, 8)].concat()).await;
    }
    client.send(&frame(PING, 0, 0, b"finished")).await;
    while client.frame().await.is_some_and(|frame| frame.kind != PING) {}
    eventually_async("nothing is in flight", || async {
        let service = edge.proxy.service().await;
        service["backends"]["only"]["in_flight"] == 0
    })
    .await;
    assert!(edge.proxy.service().await["backends"]["only"]["failures"] == 0);
    assert_bounded(&edge, before, "streams begun and reset");
}
