//! Answers of origins that two readers could understand differently: 502 if nothing was forwarded yet, a
//! cut connection if something was, and never a connection that is used again.

use crate::support::eventually;
use crate::support::frames::{END_STREAM, H2, HEADERS, RST_STREAM, get, headers, request};
use crate::support::wire::{After, Edge, OK, RawOrigin, none_wrong, status};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Answers that must not be passed on in any part.
const REFUSED: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: ,chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 204 No\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\u{0}b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX(): a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 20 Short\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 2000 Long\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 2x0 Odd\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 -20 Odd\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "200 OK\r\nContent-Length: 2\r\n\r\nok",
    " HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "rubbish\r\n\r\n",
    "\u{0}\u{0}\u{0}\u{0}\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: y",
    "HTTP/1.1 200",
    "",
];

fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_doubt_are_502_and_their_connections_are_closed() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wrong = Vec::new();
    for (number, answer) in REFUSED.iter().enumerate() {
        origin.answer(&bytes(answer), After::Close);
        let mut wire = edge.plain().await;
        wire.write(GET).await;
        let seen = wire.rest().await.unwrap_or_default();
        if status(&seen) != "502" || seen.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{number} h1 {answer:?} gave {seen:?}"));
        }
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&get(1)).await;
        let seen = client.answer(1).await;
        if seen != Ok(502) {
            wrong.push(format!("{number} h2 {answer:?} gave {seen:?}"));
        }
    }
    none_wrong(REFUSED.len(), &wrong);
    origin.answer(OK, After::Stay);
    assert!(edge.serves().await);
}

/// Answers of which the head is good and the body is not: the client must see that it is not all.
const BROKEN_BODIES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10000000000000000\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: a\u{0}\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_break_off_never_end_cleanly() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for answer in BROKEN_BODIES {
        origin.answer(&bytes(answer), After::Close);
        let mut wire = edge.plain().await;
        wire.write(GET).await;
        let seen = wire.rest().await.expect("the connection ends");
        let whole = seen.ends_with("0\r\n\r\n")
            || (status(&seen) == "200"
                && !seen.contains("hello")
                && seen.contains("ontent-length: 5"));
        assert!(!whole, "{answer:?} gave {seen:?}");
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&get(1)).await;
        let ended = client.answer(1).await;
        assert!(
            matches!(&ended, Err(reset) if reset.starts_with("reset")) || ended == Ok(502),
            "{answer:?} gave {ended:?}"
        );
    }
    origin.answer(OK, After::Stay);
    assert!(edge.serves().await);
}

/// An answer after which the connection must not be used again, and the request it answers.
const SPENT: &[(&str, &str, &str)] = &[
    (
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "200",
    ),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        "200",
    ),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nX",
        "200",
    ),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "200",
    ),
    (
        "GET",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "200",
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "200",
    ),
    (
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "200",
    ),
    (
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        "204",
    ),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        "304",
    ),
    (
        "GET",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "204",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_with_anything_left_over_is_not_used_again() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "workers: 1", "", "");
    for (method, answer, wanted) in SPENT {
        // A connection of its own for each case.
        let spent = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        origin.answer(spent, After::Close);
        assert!(edge.serves().await);
        origin.answer_in_turn(vec![
            (bytes(answer), After::Stay),
            (OK.to_vec(), After::Stay),
        ]);
        let before = origin.connections();
        let mut wire = edge.plain().await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        wire.write(request.as_bytes()).await;
        let first = wire.until("\r\n\r\n").await;
        assert_eq!(status(&first), *wanted, "{answer:?}");
        wire.write(GET).await;
        let rest = wire.rest().await.unwrap();
        let all = first + &rest;
        assert_eq!(
            all.matches("HTTP/1.1 ").count(),
            2,
            "{answer:?} gave {all:?}"
        );
        assert!(
            all.ends_with("ok") && !all.contains("evil"),
            "{answer:?} gave {all:?}"
        );
        assert_eq!(origin.connections(), before + 2, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_connection_is_used_again() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "workers: 1", "", "");
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    ] {
        origin.answer(answer.as_bytes(), After::Stay);
        for _ in 0..3 {
            let mut wire = edge.plain().await;
            wire.write(GET).await;
            assert!(wire.rest().await.unwrap().contains("ok"), "{answer:?}");
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_on_an_idle_connection_are_never_an_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let (unasked, mut unasked_sent) = (std::sync::Arc::new(tokio::sync::Notify::new()), 0);
    let told = unasked.clone();
    let (sent, mut seen) = tokio::sync::mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let (told, sent) = (told.clone(), sent.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                loop {
                    tokio::select! {
                        read = stream.read(&mut buffer) => {
                            let count = read.unwrap_or(0);
                            if count == 0 {
                                let _ = sent.send("closed").await;
                                return;
                            }
                            stream.write_all(OK).await.unwrap();
                        }
                        () = told.notified() => {
                            let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
                            let _ = stream.write_all(evil).await;
                            let _ = sent.send("unasked").await;
                        }
                    }
                }
            });
        }
    });
    let edge = Edge::start(&url, "workers: 1", "", "");
    for _ in 0..5 {
        let mut wire = edge.plain().await;
        wire.write(GET).await;
        assert!(wire.rest().await.unwrap().ends_with("ok"));
        unasked.notify_one();
        assert_eq!(seen.recv().await, Some("unasked"));
        // The proxy drops the connection by itself; nobody has to come for that.
        assert_eq!(seen.recv().await, Some("closed"));
        unasked_sent += 1;
    }
    assert_eq!(unasked_sent, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodiless_answers_keep_their_announced_length_and_get_no_body() {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    for (method, answer, has, lacks) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            "content-length: 1234",
            "transfer-encoding",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", "200", "content-length"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n",
            "etag: \"x\"",
            "transfer-encoding",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
            "x: y",
            "content-length",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "204",
            "transfer-encoding",
        ),
    ] {
        origin.answer(answer.as_bytes(), After::Stay);
        let mut wire = edge.plain().await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wire.write(request.as_bytes()).await;
        let seen = wire.rest().await.unwrap().to_lowercase();
        assert!(
            seen.contains(has) && !seen.contains(lacks),
            "{answer:?} gave {seen:?}"
        );
        assert!(seen.ends_with("\r\n\r\n"), "{answer:?} gave {seen:?}");
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&headers(1, true, &request_of(method))).await;
        let head = loop {
            let frame = client.frame().await.unwrap();
            assert_ne!(frame.kind, RST_STREAM);
            if frame.kind == HEADERS {
                break frame;
            }
        };
        assert!(head.flags & END_STREAM != 0, "{method} {answer:?}");
    }
}

fn request_of(method: &str) -> Vec<(&str, &str)> {
    request(method, &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_lose_their_hop_by_hop_fields() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\nX-Kept: 2\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\nX-Sum: 3\r\nContent-Length: 9\r\n\r\n";
    let origin = RawOrigin::answering(answer.as_bytes(), After::Stay).await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wire = edge.plain().await;
    wire.write(GET).await;
    let seen = wire.rest().await.unwrap().to_lowercase();
    for lacks in [
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "\r\nte:",
        "ext=1",
        "content-length",
    ] {
        assert!(!seen.contains(lacks), "{lacks} in {seen:?}");
    }
    assert!(
        seen.contains("x-kept: 2") && seen.ends_with("2\r\nok\r\n0\r\nx-sum: 3\r\n\r\n"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_clients_get_no_chunks() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let origin = RawOrigin::answering(answer.as_bytes(), After::Stay).await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wire = edge.plain().await;
    wire.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let seen = wire.rest().await.unwrap().to_lowercase();
    assert!(
        seen.ends_with("\r\n\r\nok") && !seen.contains("transfer-encoding"),
        "{seen:?}"
    );
    assert!(seen.contains("connection: close"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informational_answers_pass_up_to_their_limit() {
    for (count, wanted) in [(16, "200"), (17, "502")] {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(count);
        let answer = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let origin = RawOrigin::answering(answer.as_bytes(), After::Stay).await;
        let edge = Edge::start(&origin.url(), "", "", "");
        let mut wire = edge.plain().await;
        wire.write(GET).await;
        let seen = wire.rest().await.unwrap();
        assert_eq!(seen.matches("HTTP/1.1 103").count(), 16, "{seen}");
        assert!(seen.contains(&format!("HTTP/1.1 {wanted}")), "{seen}");
        assert_eq!(
            edge.hits("informational_responses").await,
            u64::from(count > 16)
        );
        let mut client = H2::start(edge.plain().await, &[]).await;
        client.send(&get(1)).await;
        assert_eq!(client.answer(1).await, Ok(wanted.parse().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_answer_closes_the_upstream_connection_and_keeps_the_clients_in_step() {
    let early = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if buffer.starts_with(b"POST / ") || buffer.starts_with(b"GET / ") {
                        let _ = stream.write_all(early).await;
                    }
                }
            });
        }
    });
    let edge = Edge::start(&url, "workers: 1", "", "");
    let mut wire = edge.plain().await;
    wire.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome")
        .await;
    let first = wire.until("\r\n\r\nno").await;
    assert_eq!(status(&first), "403");
    // The rest of the body looks like a request and must not be taken for one.
    let rest = format!("{:<96}", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.write(rest.as_bytes()).await;
    wire.write(GET).await;
    let answers = wire.rest().await.unwrap();
    assert!(answers.matches("HTTP/1.1 403").count() <= 1, "{answers}");
    let mut other = edge.plain().await;
    other.write(GET).await;
    assert!(other.rest().await.unwrap().starts_with("HTTP/1.1 403"));
    eventually("the first connection was used for one request only", || {
        connections.load(std::sync::atomic::Ordering::SeqCst) == 2
    });
}
